//! `wellposed mri reconstruct`: k-space → a magnitude volume.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::method::{Method, Settings};
use super::scan;
use crate::cli::deliver::{Options, Reconstruction, deliver, usable};
use crate::cli::failure::Outcome;
use crate::cli::progress::Progress;

/// Arguments of `wellposed mri reconstruct`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Scan file, as `mri simulate` writes it, or k-space [(slice,) (coil,) ky, kx]: .cfl, .mat, .npy, HDF5.
    scan: PathBuf,
    /// Which array of the file, where it holds several.
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Method.
    #[arg(short, long, value_enum, value_name = "METHOD")]
    method: Method,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    options: Options,
}

/// What runs, and is saved beside the volume.
#[derive(Serialize)]
struct Config<'a> {
    scan: &'a PathBuf,
    dataset: &'a Option<String>,
    method: Method,
    #[serde(flatten)]
    settings: Settings,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let method = arguments.method;
    let settings = arguments.settings.validated(method)?;
    let scan = scan::read(&arguments.scan, arguments.dataset.as_deref())?;
    let reference = arguments.options.prepare(scan::shape(&scan))?;
    let config = Config { scan: &arguments.scan, dataset: &arguments.dataset, method, settings };
    let mut progress = Progress::new(method.name());
    let start = Instant::now();
    let solution = method.reconstruct(&scan, &settings, &mut progress)?;
    let seconds = start.elapsed().as_secs_f64();
    let volume = scan::volume(&scan, usable(&solution, method.name())?)?;
    let reconstruction = Reconstruction {
        command: "mri reconstruct",
        method: method.name().into(),
        volume,
        termination: solution.termination,
        steps: solution.steps,
        seconds,
        seed: scan.provenance.seed,
        progress,
    };
    deliver(reconstruction, &arguments.options, reference.as_ref(), &config)
}
