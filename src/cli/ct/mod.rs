//! `wellposed ct`: computed tomography.

mod method;
mod reconstruct;
mod scan;
mod simulate;

use clap::Subcommand;

use super::failure::Outcome;

/// Subcommands of `wellposed ct`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Projects a volume and counts photons: VOLUME → scan.
    Simulate(simulate::Arguments),
    /// Reconstructs a volume: scan → VOLUME.
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
