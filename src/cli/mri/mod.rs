//! `wellposed mri`: magnetic-resonance imaging.

mod coils;
mod encoding;
mod method;
mod reconstruct;
mod sample;
mod scan;
mod simulate;
mod volumetric;

use clap::Subcommand;

use super::failure::Outcome;

/// Subcommands of `wellposed mri`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Undersamples a volume by receive coils, or measured k-space: VOLUME → scan.
    Simulate(simulate::Arguments),
    /// Reconstructs a volume: scan or k-space → VOLUME.
    Reconstruct(reconstruct::Arguments),
}

impl Command {
    pub fn run(self) -> Outcome {
        match self {
            Self::Simulate(arguments) => simulate::run(&arguments),
            Self::Reconstruct(arguments) => reconstruct::run(&arguments),
        }
    }
}
