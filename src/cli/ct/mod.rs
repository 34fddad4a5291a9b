//! `wellposed ct`: computed tomography.

mod demo;
mod method;
mod phantom;
mod raw;
mod rays;
mod reconstruct;
mod rows;
mod sample;
mod scan;
mod simulate;
mod slabs;

use clap::Subcommand;

use super::failure::Outcome;

/// Subcommands of `wellposed ct`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Projects a volume and counts photons: VOLUME → scan.
    Simulate(simulate::Arguments),
    /// Reconstructs a volume: scan → VOLUME.
    Reconstruct(Box<reconstruct::Arguments>),
    /// The built-in thorax as a volume, a patient for each seed: → VOLUME.
    Phantom(phantom::Arguments),
    /// The main job on built-in data: a thorax, sparse views, FBP, SIRT and TV against a diffusion prior.
    Demo(demo::Arguments),
}

impl Command {
    pub fn run(self) -> Outcome {
        match self {
            Self::Simulate(arguments) => simulate::run(&arguments),
            Self::Reconstruct(arguments) => reconstruct::run(&arguments),
            Self::Phantom(arguments) => phantom::run(&arguments),
            Self::Demo(arguments) => demo::run(&arguments),
        }
    }
}
