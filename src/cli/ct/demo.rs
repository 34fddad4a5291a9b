//! `wellposed ct demo`: the main job on the built-in thorax.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{CtScan, Volume, atomic};
use wellposed::observe::Solution;
use wellposed::operator::ct::{ParallelBeam, hounsfield::MU_WATER};
use wellposed::plot::{Curves, Plane, Series};

use super::method::{Method, Settings};
use super::phantom;
use super::rays::Rays;
use super::sample;
use super::scan::{self, Simulation};
use crate::cli::diffusion;
use crate::cli::failure::Outcome;
use crate::cli::progress::Progress;
use crate::cli::report::Metrics;
use crate::cli::{console, output, view};

/// Arguments of `wellposed ct demo`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder for the volumes and pictures.
    #[arg(short, long, default_value = "wellposed-demo", value_name = "DIR")]
    output: PathBuf,
    /// Views over 180 degrees.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    views: u32,
    /// Slices.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    slices: u32,
    /// Rows and columns of a slice.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=2048), value_name = "N")]
    size: u32,
    /// Seed of the patient and of the noise.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// One line of the table.
#[derive(Serialize)]
struct Line {
    method: &'static str,
    metrics: Metrics,
    seconds: f64,
    iterations: usize,
    termination: &'static str,
    #[serde(skip)]
    volume: Volume,
    #[serde(skip)]
    history: Vec<f64>,
}

#[derive(Serialize)]
struct Demo<'a> {
    command: &'static str,
    methods: &'a [Line],
    threads: usize,
    seed: u64,
    version: &'static str,
    output: &'a Path,
}

/// Photons per ray of the open beam.
const PHOTONS: f64 = 1e5;

impl Arguments {
    /// The thorax with pixels `finer` times smaller than those of the reconstruction.
    fn thorax(&self, finer: usize) -> Outcome<Volume> {
        let size = self.size as usize * finer;
        phantom::thorax([self.slices as usize, size, size], 18.0, self.seed)
    }
}

pub fn run(arguments: &Arguments) -> Outcome {
    let folder = &arguments.output;
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    atomic::check_writable(&folder.join("montage.png"))?;
    console::say("A thorax, scanned at twice the resolution of the reconstruction …");
    let truth = arguments.thorax(1)?;
    let beam = ParallelBeam::covering(
        &scan::image_grid(truth.grid())?,
        arguments.views as usize,
        std::f64::consts::PI,
    )?;
    let simulation = Simulation {
        rays: Rays::Parallel(beam),
        photons: Some(PHOTONS),
        seed: arguments.seed,
        mu_water: MU_WATER,
    };
    let scan = simulation.scan(&arguments.thorax(2)?, truth.grid(), "the built-in thorax")?;
    truth.write(folder.join("thorax.nii.gz"))?;
    scan.write(folder.join("scan.h5"))?;
    let mut lines = Vec::new();
    for method in [Method::Fbp, Method::Sirt, Method::Tv, Method::Pnp, Method::Dds] {
        console::say(&format!("{} …", method.name()));
        let Done { volume, seconds, iterations, termination, history } = reconstruct(method, &scan, folder)?;
        volume.write(folder.join(format!("{}.nii.gz", method.name())))?;
        let metrics = Metrics::of(&volume, &truth, Path::new("thorax.nii.gz"))?;
        lines.push(Line {
            method: method.name(),
            metrics,
            seconds,
            iterations,
            termination,
            volume,
            history,
        });
    }
    draw(folder, &truth, &lines)?;
    let demo = Demo {
        command: "ct demo",
        methods: &lines,
        threads: rayon::current_num_threads(),
        seed: arguments.seed,
        version: env!("CARGO_PKG_VERSION"),
        output: folder,
    };
    output::save_json(&folder.join("report.json"), &demo)?;
    if arguments.json { console::print_json(&demo) } else { console::print(&table(arguments, &lines)) }
}

struct Done {
    volume: Volume,
    seconds: f64,
    iterations: usize,
    termination: &'static str,
    history: Vec<f64>,
}

fn reconstruct(method: Method, scan: &CtScan, folder: &Path) -> Outcome<Done> {
    let settings = Settings::default().validated(method)?;
    if let Some(sampler) = method.diffusion() {
        let chosen = diffusion::Options::default().with_steps(15).chosen(sampler, "ct")?;
        let output = folder.join(format!("{}.nii.gz", method.name()));
        let done = sample::run(sampler, scan, &settings, &chosen, &output)?;
        done.progress.finish();
        let (seconds, iterations) = (done.seconds, done.steps);
        // Its curve is its noise level, which says nothing of convergence.
        return Ok(Done {
            volume: done.volume,
            seconds,
            iterations,
            termination: done.termination.name(),
            history: Vec::new(),
        });
    }
    let mut progress = Progress::new(method.name());
    let start = Instant::now();
    let Solution { value, termination, steps, .. } = method.reconstruct(scan, &settings, &mut progress)?;
    progress.finish();
    Ok(Done {
        volume: scan::volume(scan, &value)?,
        seconds: start.elapsed().as_secs_f64(),
        iterations: steps,
        termination: termination.name(),
        history: progress.history,
    })
}

fn table(arguments: &Arguments, lines: &[Line]) -> String {
    let Arguments { slices, size, views, output, .. } = arguments;
    let mut text = format!(
        "{slices} slices of {size} × {size}, {views} views, {PHOTONS:e} photons per ray\n\n\
         method    PSNR dB     SSIM   RMSE HU   seconds   iterations\n"
    );
    for Line { method, metrics, seconds, iterations, termination, .. } in lines {
        let scores = &metrics.volume;
        let _ = writeln!(
            text,
            "{method:<8} {:>8.2} {:>8.4} {:>9.1} {seconds:>9.2}   {iterations} ({termination})",
            scores.psnr, scores.ssim, scores.rmse
        );
    }
    let _ = writeln!(text, "\nLook at {}.", output.join("montage.png").display());
    text
}

/// The montage, the convergence curves, and a profile through both lungs.
fn draw(folder: &Path, truth: &Volume, lines: &[Line]) -> Outcome {
    let volumes: Vec<_> =
        lines.iter().map(|l| (title(l.method), Metrics::note(&l.metrics.volume), &l.volume)).collect();
    view::comparison(truth, &volumes, None)?.save(folder.join("montage.png"))?;
    let curves = lines.iter().filter(|l| l.history.len() > 1);
    let series: Vec<_> = curves.map(|l| Series::history(title(l.method), &l.history)).collect();
    let measure = "SIRT: relative residual, TV: relative step";
    Curves::convergence(measure, series).save(folder.join("convergence.png"))?;
    let [slices, rows, columns] = truth.grid().shape();
    let step = truth.grid().spacing()[2];
    let row = |volume: &Volume| -> Outcome<Vec<f32>> {
        let image = view::cut(volume, Plane::Axial, slices / 2)?;
        Ok(image.values[rows / 2 * columns..][..columns].to_vec())
    };
    let mut series = vec![Series::profile("thorax", &row(truth)?, step)];
    for line in lines {
        series.push(Series::profile(title(line.method), &row(&line.volume)?, step));
    }
    Ok(Curves::profile("HU", series).save(folder.join("profile.png"))?)
}

fn title(method: &str) -> &'static str {
    match method {
        "fbp" => "FBP",
        "sirt" => "SIRT",
        "tv" => "TV",
        "pnp" => "plug and play",
        _ => "DDS",
    }
}
