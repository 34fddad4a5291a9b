//! `wellposed mri reconstruct`: k-space → a magnitude volume.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::coils::Coils;
use super::method::{Method, Settings};
use super::{sample, scan, volumetric};
use crate::cli::deliver::{Options, Reconstruction, deliver, usable};
use crate::cli::diffusion::{self, Chosen};
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
    /// The array is k-space of a volume, [(coil,) kz, ky, kx].
    #[arg(
        long = "3d",
        long_help = "The array is k-space of a volume, [(coil,) kz, ky, kx], with one fully sampled axis, the readout: after a \
                     transform along it the slices are reconstructed one by one. A .cfl with three axes, and scans \
                     of mri simulate, say so themselves."
    )]
    volumetric: bool,
    /// Method.
    #[arg(short, long, value_enum, value_name = "METHOD")]
    method: Method,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    coils: Coils,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    diffusion: diffusion::Options,
}

/// What runs, and is saved beside the volume.
#[derive(Serialize)]
struct Config<'a> {
    scan: &'a PathBuf,
    dataset: &'a Option<String>,
    method: Method,
    #[serde(flatten)]
    settings: Settings,
    #[serde(flatten)]
    coils: Coils,
    #[serde(skip_serializing_if = "Option::is_none")]
    diffusion: Option<Chosen>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let method = arguments.method;
    let settings = arguments.settings.clone().validated(method)?;
    let chosen = match method.diffusion() {
        Some(method) => Some(arguments.diffusion.chosen(method, sample::prior(method))?),
        None => arguments.diffusion.refuse(method.name()).map(|()| None)?,
    };
    let scan = if arguments.volumetric {
        volumetric::read(&arguments.scan, arguments.dataset.as_deref())?
    } else {
        scan::read(&arguments.scan, arguments.dataset.as_deref())?
    };
    let scan = arguments.coils.prepare(scan)?;
    let reference = arguments.options.prepare(scan::shape(&scan))?;
    let config = Config {
        scan: &arguments.scan,
        dataset: &arguments.dataset,
        method,
        settings: settings.clone(),
        coils: arguments.coils,
        diffusion: chosen.clone(),
    };
    if let (Some(method), Some(chosen)) = (method.diffusion(), chosen) {
        let reconstruction = sample::run(method, &scan, settings, &chosen, &arguments.options.output)?;
        return deliver(reconstruction, &arguments.options, reference.as_ref(), &config);
    }
    let mut progress = Progress::new(method.name());
    let start = Instant::now();
    let solution = method.reconstruct(&scan, &settings, &mut progress)?;
    let seconds = start.elapsed().as_secs_f64();
    let volume = scan::volume(&scan, usable(&solution, method.name())?)?;
    let reconstruction = Reconstruction {
        command: "mri reconstruct",
        method: method.name().into(),
        volume,
        beside: Vec::new(),
        termination: solution.termination,
        steps: solution.steps,
        seconds,
        seed: scan.provenance.seed,
        progress,
    };
    deliver(reconstruction, &arguments.options, reference.as_ref(), &config)
}
