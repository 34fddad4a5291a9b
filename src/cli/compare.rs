//! `wellposed compare`: metrics of a volume against a reference.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use wellposed::io::read_volume;

use super::failure::Outcome;
use super::report::{Metrics, Report};
use super::{output, view};

/// Arguments of `wellposed compare`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Volume to judge.
    volume: PathBuf,
    /// Volume it should be, of the same shape.
    reference: PathBuf,
    /// Print one JSON object.
    #[arg(long, long_help = "Print one JSON object on stdout: metrics of the volume and of every slice.")]
    json: bool,
    /// Picture of the middle slice of both and of their difference, PNG.
    #[arg(long, value_name = "PNG")]
    plot: Option<PathBuf>,
    /// Window of the picture, LOW,HIGH in the volume's unit.
    #[arg(long, allow_hyphen_values = true, value_name = "LOW,HIGH")]
    window: Option<view::Window>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    if let Some(plot) = &arguments.plot {
        output::check_plot(plot)?;
    }
    let (volume, reference) = (read_volume(&arguments.volume)?, read_volume(&arguments.reference)?);
    let start = Instant::now();
    let metrics = Metrics::of(&volume, &reference, &arguments.reference)?;
    let seconds = start.elapsed().as_secs_f64();
    if let Some(plot) = &arguments.plot {
        let note = Metrics::note(&metrics.volume);
        view::comparison(&reference, &[("volume", note, &volume)], arguments.window)?.save(plot)?;
    }
    Report { metrics: Some(metrics), ..Report::new("compare", seconds) }.print(arguments.json)
}
