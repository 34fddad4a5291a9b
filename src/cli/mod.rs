//! The command line: raw arguments → one validated configuration → run. Results go to stdout, progress and
//! messages to stderr. Exit codes: 0 success, 1 failure, 2 usage.
//!
//! A subcommand is a module with its clap `Args` and a `run`; it has one line in [`Command`] and one in
//! [`Command::run`].

mod compare;
mod console;
mod ct;
mod deliver;
mod diffusion;
mod failure;
mod info;
mod mri;
mod output;
mod pde;
mod prior;
mod progress;
mod report;
mod restore;
mod view;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{Failure, Outcome};

/// Inverse problems and PDE solvers: simulate scans, reconstruct volumes, compare them.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 110)]
struct Arguments {
    /// Worker threads; 0 takes the environment's RAYON_NUM_THREADS, or all cores.
    #[arg(long, global = true, default_value_t = 0, value_name = "N")]
    threads: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Computed tomography: simulate and reconstruct scans.
    #[command(subcommand)]
    Ct(ct::Command),
    /// Differential equations: solve built-in cases and your own.
    #[command(subcommand)]
    Pde(pde::Command),
    /// Magnetic-resonance imaging: simulate and reconstruct scans.
    #[command(subcommand)]
    Mri(mri::Command),
    /// Restores images with a diffusion prior: inpainting, deblurring, enlarging.
    Restore(restore::Arguments),
    /// Learned priors: what they hold, samples, denoising.
    #[command(subcommand)]
    Prior(prior::Command),
    /// Metrics of a volume against a reference.
    Compare(compare::Arguments),
    /// What this build and machine offer, or what a file holds.
    Info(info::Arguments),
}

impl Command {
    fn run(self) -> Outcome {
        match self {
            Self::Ct(command) => command.run(),
            Self::Pde(command) => pde::run(&command),
            Self::Mri(command) => command.run(),
            Self::Restore(arguments) => restore::run(&arguments),
            Self::Prior(command) => command.run(),
            Self::Compare(arguments) => compare::run(&arguments),
            Self::Info(arguments) => info::run(&arguments),
        }
    }
}

/// Parses the arguments, runs the command, reports a failure on stderr.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are success, on stdout; clap knows. A closed pipe is nobody's failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    progress::catch_interrupts();
    silence_caught_panics();
    let outcome = console::set_threads(arguments.threads).and_then(|()| arguments.command.run());
    match outcome {
        Ok(()) | Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(failure) => {
            console::say(&format!("wellposed: {failure}"));
            failure.exit_code()
        }
    }
}

/// Parsers of other people that panic on a corrupt file end in an error that names it; that is all there is to say.
fn silence_caught_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !wellposed::error::catches_panics() {
            report(panic);
        }
    }));
}
