//! What every reconstruction ends with: the volume, the configuration beside it, metrics, pictures, the report.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use clap::Args;
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{Volume, read_volume};
use wellposed::observe::{Solution, Termination};
use wellposed::plot::{Curves, Series};

use super::failure::Outcome;
use super::progress::Progress;
use super::report::{Metrics, Report};
use super::{console, output, view};

/// Options of every reconstruction.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Volume to write: .nii.gz, .nii, .h5, .tif, or FOLDER/ for a DICOM series.
    #[arg(
        short,
        long,
        value_name = "VOLUME",
        long_help = "Volume to write, in the format that its ending says: .nii.gz, .nii, .h5, .npy, .cfl, .tif, .png, or / for a \
                     folder that becomes a DICOM series. The configuration goes to ....config.json beside it."
    )]
    pub output: PathBuf,
    /// Volume to compare the result with, of the same shape.
    #[arg(long, value_name = "VOLUME")]
    pub reference: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(
        long,
        long_help = "Print one JSON object on stdout: method, metrics of the volume and of every slice, seconds, \
                     iterations, termination, threads, seed, version."
    )]
    pub json: bool,
    /// Picture of the result, PNG; the convergence curve goes to …-convergence.png beside it.
    #[arg(
        long,
        value_name = "PNG",
        long_help = "Picture of the result, PNG: the middle slice, with --reference also the reference and the error. For \
                     an iterative method the convergence curve goes to …-convergence.png beside it."
    )]
    pub plot: Option<PathBuf>,
    /// Window of the picture, LOW,HIGH in the volume's unit.
    #[arg(long, allow_hyphen_values = true, value_name = "LOW,HIGH")]
    pub window: Option<view::Window>,
}

impl Options {
    /// Checks the outputs and reads the reference, before the work starts.
    pub fn prepare(&self, target: [usize; 3]) -> Outcome<Option<Volume>> {
        output::check(&self.output, true, self.plot.as_deref())?;
        let Some(path) = &self.reference else { return Ok(None) };
        let reference = read_volume(path)?.magnitude()?;
        if reference.grid().shape() != target {
            let expected = format!("{target:?}, that of the scan's target");
            let name = format!("reference {}", path.display());
            return Err(Error::shape(name, expected, &reference.grid().shape()).into());
        }
        Ok(Some(reference))
    }
}

/// The value of a solution.
///
/// # Errors
/// A method that diverged has none.
pub fn usable<'a>(solution: &'a Solution, method: &str) -> Outcome<&'a Tensor> {
    if solution.termination == Termination::Diverged {
        let reason = format!("{method} diverged after {} steps; nothing is written", solution.steps);
        return Err(Error::Unsupported(reason).into());
    }
    Ok(&solution.value)
}

/// A reconstructed volume, and how it came about.
pub struct Reconstruction {
    /// Words of the command line.
    pub command: &'static str,
    /// The method's name on the command line.
    pub method: String,
    /// The result.
    pub volume: Volume,
    /// Volumes to write beside it, with what goes into their names: std → out.std.nii.gz.
    pub beside: Vec<(&'static str, Volume)>,
    /// How the method ended.
    pub termination: Termination,
    /// Steps done; 1 for a direct method.
    pub steps: usize,
    /// Wall-clock time without reading and writing.
    pub seconds: f64,
    /// Seed of the scan's noise.
    pub seed: Option<u64>,
    /// What the method watched.
    pub progress: Progress,
}

/// Writes and prints all that `options` ask for.
pub fn deliver(
    reconstruction: Reconstruction,
    options: &Options,
    reference: Option<&Volume>,
    config: &impl Serialize,
) -> Outcome {
    let Reconstruction { command, method, volume, termination, .. } = &reconstruction;
    reconstruction.progress.finish();
    if *termination == Termination::Cancelled {
        let steps = reconstruction.steps;
        console::say(&format!("Stopped after {steps} steps; the estimate so far is written."));
    }
    volume.write(&options.output)?;
    for (part, volume) in &reconstruction.beside {
        volume.write(output::part_of(&options.output, part))?;
    }
    output::save_config(&options.output, command, config)?;
    let metrics = match (reference, &options.reference) {
        (Some(reference), Some(path)) => Some(Metrics::of(volume, reference, path)?),
        _ => None,
    };
    if let Some(plot) = &options.plot {
        draw(&reconstruction, options, reference, metrics.as_ref(), plot)?;
    }
    let history = &reconstruction.progress.history;
    let report = Report {
        method: Some(method.clone()),
        metrics,
        iterations: reconstruction.steps,
        termination: termination.name(),
        measure: history.last().map(|value| (reconstruction.progress.measure.clone(), *value)),
        seed: reconstruction.seed,
        output: Some(options.output.clone()),
        ..Report::new(command, reconstruction.seconds)
    };
    report.print(options.json)
}

fn draw(
    reconstruction: &Reconstruction,
    options: &Options,
    reference: Option<&Volume>,
    metrics: Option<&Metrics>,
    plot: &Path,
) -> Outcome {
    let Reconstruction { method, volume, progress, .. } = reconstruction;
    let montage = match reference {
        Some(reference) => {
            let note = metrics.map_or(String::new(), |m| Metrics::note(&m.volume));
            view::comparison(reference, &[(method, note, volume)], options.window)?
        }
        None => view::overview(method, volume, options.window)?,
    };
    montage.save(plot)?;
    if let Some((_, deviation)) = reconstruction.beside.iter().find(|(part, _)| *part == "std") {
        view::spread(deviation)?.save(output::beside(plot, "-std.png"))?;
    }
    if progress.history.len() > 1 {
        let series = vec![Series::history(method.clone(), &progress.history)];
        Curves::convergence(progress.measure.clone(), series)
            .save(output::beside(plot, "-convergence.png"))?;
    }
    Ok(())
}
