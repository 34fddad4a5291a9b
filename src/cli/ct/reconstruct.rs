//! `wellposed ct reconstruct`: projections → a volume.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::method::{Method, Settings};
use super::{raw, sample, scan, slabs};
use crate::cli::deliver::{Options, Reconstruction, deliver, usable};
use crate::cli::diffusion::{self, Chosen};
use crate::cli::failure::Outcome;
use crate::cli::progress::Progress;

/// Arguments of `wellposed ct reconstruct`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Scan file, as `ct simulate` writes it, or raw projections.
    scan: PathBuf,
    /// Method.
    #[arg(short, long, value_enum, value_name = "METHOD")]
    method: Method,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    diffusion: diffusion::Options,
    #[command(flatten)]
    raw: raw::Options,
}

/// What runs, and is saved beside the volume.
#[derive(Serialize)]
struct Config<'a> {
    scan: &'a PathBuf,
    method: Method,
    #[serde(flatten)]
    settings: Settings,
    raw: &'a raw::Options,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_gib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diffusion: Option<Chosen>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let method = arguments.method;
    let settings = arguments.settings.validated(method)?;
    let chosen = match method.diffusion() {
        Some(method) => Some(arguments.diffusion.chosen(method, "ct")?),
        None => None,
    };
    let bound = if chosen.is_some() { None } else { arguments.diffusion.bound(method.name())? };
    let source = arguments.raw.open(&arguments.scan)?;
    let config = Config {
        scan: &arguments.scan,
        method,
        settings,
        raw: &arguments.raw,
        memory_gib: bound,
        diffusion: chosen.clone(),
    };
    if let Some(bound) = bound
        && let Some(slabs) = slabs::plan(&*source, method, &settings, bound)?
    {
        return slabs::run(&*source, method, settings, slabs, &arguments.options, &config);
    }
    let scan = source.rows(0..source.shape()[0])?;
    source.remark();
    drop(source);
    let reference = arguments.options.prepare(scan.target.shape())?;
    if let (Some(method), Some(chosen)) = (method.diffusion(), chosen) {
        let reconstruction = sample::run(method, &scan, &settings, &chosen, &arguments.options.output)?;
        return deliver(reconstruction, &arguments.options, reference.as_ref(), &config);
    }
    let mut progress = Progress::new(method.name());
    let start = Instant::now();
    let solution = method.reconstruct(&scan, &settings, &mut progress)?;
    let seconds = start.elapsed().as_secs_f64();
    let volume = scan::volume(&scan, usable(&solution, method.name())?)?;
    let reconstruction = Reconstruction {
        command: "ct reconstruct",
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
