//! `wellposed ct phantom`: the built-in thorax as a volume, a patient for each seed.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use wellposed::io::{Unit, Volume};
use wellposed::phantom::Thorax;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::{console, output, view};

/// Side of a slice, in mm.
const FIELD_OF_VIEW: f64 = 410.0;

/// Arguments of `wellposed ct phantom`.
#[derive(Debug, Args, Serialize)]
pub struct Arguments {
    /// Volume to write, in HU.
    #[arg(short, long, value_name = "VOLUME")]
    output: PathBuf,
    /// Which patient.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Slices.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    slices: u32,
    /// Rows and columns of a slice, over 410 mm.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=2048), value_name = "N")]
    size: u32,
    /// Distance of the slices in mm; the lungs reach over 290 mm.
    #[arg(long, default_value_t = 15.0, value_name = "MM")]
    spacing: f64,
    /// Draw the middle slice and cuts across the slices into a PNG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    if !(arguments.spacing > 0.0 && arguments.spacing.is_finite()) {
        return Err(Failure::usage("--spacing", arguments.spacing, "expected a distance in mm, more than 0"));
    }
    output::check(&arguments.output, true, arguments.plot.as_deref())?;
    let shape = [arguments.slices, arguments.size, arguments.size].map(|n| n as usize);
    let volume = thorax(shape, arguments.spacing, arguments.seed)?;
    volume.write(&arguments.output)?;
    output::save_config(&arguments.output, "ct phantom", arguments)?;
    if let Some(plot) = &arguments.plot {
        view::overview("thorax", &volume, None)?.save(plot)?;
    }
    console::print(&format!("{}\n", arguments.output.display()))
}

/// The thorax of [slices, rows, columns], with slices this many mm apart about the hila.
pub fn thorax(shape: [usize; 3], distance: f64, seed: u64) -> Outcome<Volume> {
    let spacing = [distance, FIELD_OF_VIEW / shape[1] as f64, FIELD_OF_VIEW / shape[2] as f64];
    let thorax = Thorax { shape, spacing, centre: -5.0, seed };
    Ok(Volume::centred(thorax.volume()?, spacing, Unit::Hounsfield)?)
}
