//! `wellposed prior`: what a prior is, what it dreams of, how well it denoises, and how it comes about.

mod eval;
mod info;
mod sample;
mod slices;
mod train;

use clap::Subcommand;

use super::failure::Outcome;

/// Subcommands of `wellposed prior`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What a prior holds: network, data range, units, training.
    Info(info::Arguments),
    /// Draw images from a prior alone.
    Sample(sample::Arguments),
    /// Denoising PSNR at each noise level, on volumes.
    Eval(eval::Arguments),
    /// Learn a prior from volumes.
    Train(train::Arguments),
}

impl Command {
    pub fn run(self) -> Outcome {
        match self {
            Self::Info(arguments) => info::run(&arguments),
            Self::Sample(arguments) => sample::run(&arguments),
            Self::Eval(arguments) => eval::run(&arguments),
            Self::Train(arguments) => train::run(&arguments),
        }
    }
}
