//! `wellposed ct simulate`: a volume → projections with photon noise.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::io::{CtScan, Unit, Volume, read_volume};
use wellposed::operator::ct::{ParallelBeam, hounsfield::MU_WATER};
use wellposed::plot::{Image, Montage, Panel, Row, Scale};

use super::scan::{self, Simulation};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::cli::report::Report;

/// Arguments of `wellposed ct simulate`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Volume to scan: NIfTI, a DICOM folder, or what else `info` can read.
    volume: PathBuf,
    /// Scan file to write, HDF5.
    #[arg(short, long, value_name = "H5")]
    output: PathBuf,
    /// Views, evenly spaced over the arc.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    views: u32,
    /// Arc that the views cover, in degrees.
    #[arg(
        long,
        default_value_t = 180.0,
        value_name = "DEG",
        long_help = "Arc that the views cover, in degrees, more than 0 and up to 360. View i of N stands at i/N of the \
                     arc; parallel rays see everything within 180."
    )]
    arc: f64,
    /// Detector bins [default: enough for the diagonal of a slice].
    #[arg(
        long,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        value_name = "N",
        long_help = "Detector bins in each view, one pixel wide. Without it there are as many as the diagonal of a slice \
                     needs; with fewer the projections are truncated."
    )]
    detectors: Option<u32>,
    /// Photons per ray of the open beam, I0; 0 for noise-free projections.
    #[arg(
        long,
        default_value_t = 1e5,
        value_name = "I0",
        long_help = "Photons per ray of the open beam, I0. Counts are Poisson of mean I0 exp(-projection), and at least \
                     one; they are stored as statistical weights. 0 leaves the projections without noise."
    )]
    photons: f64,
    /// Seed of the noise.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Attenuation of water in 1/mm, which turns HU into attenuation.
    #[arg(long, default_value_t = MU_WATER, value_name = "MU")]
    mu_water: f64,
    /// Unit of the volume, where the file doesn't say it.
    #[arg(long, value_enum, value_name = "UNIT")]
    unit: Option<UnitName>,
    /// Picture of the middle slice's sinogram, PNG.
    #[arg(long, value_name = "PNG")]
    plot: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Units of CT volumes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum UnitName {
    /// Hounsfield units.
    Hu,
    /// Attenuation in 1/mm.
    Mu,
}

/// What runs, and is saved beside the scan.
#[derive(Debug, Serialize)]
struct Config {
    volume: PathBuf,
    views: usize,
    arc_degrees: f64,
    detectors: usize,
    detector_pitch_mm: f64,
    photons: Option<f64>,
    seed: u64,
    mu_water_per_mm: f64,
    unit: &'static str,
}

impl Arguments {
    /// Checks what clap can't.
    fn validate(&self) -> Outcome {
        if !(self.arc > 0.0 && self.arc <= 360.0) {
            return Err(Failure::usage("--arc", self.arc, "expected degrees, more than 0 and up to 360"));
        }
        if !(self.photons == 0.0 || (1.0..=1e15).contains(&self.photons)) {
            return Err(Failure::usage("--photons", self.photons, "expected 0, or 1 to 1e15 photons"));
        }
        if !(self.mu_water > 0.0 && self.mu_water.is_finite()) {
            return Err(Failure::usage("--mu-water", self.mu_water, "expected a positive number, in 1/mm"));
        }
        output::check(&self.output, false, self.plot.as_deref())
    }

    fn volume(&self) -> Outcome<Volume> {
        let volume = read_volume(&self.volume)?;
        Ok(match self.unit {
            None => volume,
            Some(UnitName::Hu) => volume.with_unit(Unit::Hounsfield),
            Some(UnitName::Mu) => volume.with_unit(Unit::PerMillimetre),
        })
    }
}

pub fn run(arguments: &Arguments) -> Outcome {
    arguments.validate()?;
    let volume = arguments.volume()?;
    let start = Instant::now();
    let grid = scan::image_grid(volume.grid())?;
    let mut beam = ParallelBeam::covering(&grid, arguments.views as usize, arguments.arc.to_radians())?;
    beam.bins = arguments.detectors.map_or(beam.bins, |n| n as usize);
    let config = Config {
        volume: arguments.volume.clone(),
        views: beam.views(),
        arc_degrees: arguments.arc,
        detectors: beam.bins,
        detector_pitch_mm: beam.pitch,
        photons: (arguments.photons > 0.0).then_some(arguments.photons),
        seed: arguments.seed,
        mu_water_per_mm: arguments.mu_water,
        unit: volume.unit().symbol(),
    };
    let simulation =
        Simulation { beam, photons: config.photons, seed: arguments.seed, mu_water: arguments.mu_water };
    let scan = simulation.scan(&volume, volume.grid(), &arguments.volume.display().to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    scan.write(&arguments.output)?;
    output::save_config(&arguments.output, "ct simulate", &config)?;
    if let Some(plot) = &arguments.plot {
        sinogram(&scan)?.save(plot)?;
    }
    let report = Report {
        seed: scan.provenance.seed,
        output: Some(arguments.output.clone()),
        ..Report::new("ct simulate", seconds)
    };
    report.print(arguments.json)
}

/// The projections of the middle slice, views downwards.
fn sinogram(scan: &CtScan) -> Outcome<Montage> {
    let [slices, views, bins] = [0, 1, 2].map(|axis| scan.projections.dims()[axis]);
    // Stretched to a square, whatever the number of views.
    let spacing = [bins as f64 / views as f64, 1.0];
    let image = Image::new(&scan.projections.get(slices / 2)?, spacing)?;
    let high = image.values.iter().fold(0f32, |a, b| a.max(*b));
    let note = format!("{views} views × {bins} bins, slice {}", slices / 2 + 1);
    let panels = vec![Some(Panel::new("projections", note, image))];
    let scale = Scale::gray(0.0, f64::from(high.max(1e-6)), "∫ μ dl");
    Ok(Montage { rows: vec![Row { scale, panels }], panel_width: 420 })
}
