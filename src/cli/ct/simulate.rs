//! `wellposed ct simulate`: a volume → projections with photon noise.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::io::{CtScan, Grid, Unit, Volume, read_volume};
use wellposed::operator::ct::{ConeBeam, FanBeam, ParallelBeam, hounsfield::MU_WATER};
use wellposed::plot::{Image, Montage, Panel, Row, Scale};

use super::rays::{Rays, Sampling};
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
    /// Arc that the views cover, in degrees [default: 180, of fans and cones 360].
    #[arg(
        long,
        value_name = "DEG",
        long_help = "Arc that the views cover, in degrees, more than 0 and up to 360 (of cones with a feed 36000). View i of \
                     N stands at i/N of the arc; parallel rays see everything within 180, which is the default, others \
                     within 180 and the fan's opening, for which it is 360."
    )]
    arc: Option<f64>,
    #[command(flatten)]
    geometry: Source,
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

/// Where the rays come from.
#[derive(Clone, Copy, Debug, Args, Serialize)]
struct Source {
    /// How the rays run.
    #[arg(long, value_enum, default_value_t = Geometry::Parallel, value_name = "BEAM")]
    geometry: Geometry,
    /// Source to axis of rotation, mm, of fans and cones.
    #[arg(long, default_value_t = 600.0, value_name = "MM")]
    source_origin: f64,
    /// Axis of rotation to detector, mm, of fans and cones.
    #[arg(long, default_value_t = 400.0, value_name = "MM")]
    origin_detector: f64,
    /// Detector rows of a cone [default: enough for all slices].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    rows: Option<u32>,
    /// Shift of the detector across the axis of rotation, mm.
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true, value_name = "MM")]
    offset: f64,
    /// Shift of a cone's panel along the axis of rotation, mm.
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true, value_name = "MM")]
    row_offset: f64,
    /// Climb of the source in a turn, mm: a helix.
    #[arg(long, default_value_t = 0.0, value_name = "MM")]
    feed: f64,
    /// How a cone's line integrals are taken.
    #[arg(long, value_enum, default_value_t = Sampling::Joseph, value_name = "HOW")]
    projector: Sampling,
}

/// How rays run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Geometry {
    /// Parallel rays.
    Parallel,
    /// From a point to a straight row of bins, slice by slice.
    #[value(alias = "fan-flat")]
    Fan,
    /// From a point to an arc of bins about it, slice by slice.
    FanCurved,
    /// From a point to a panel.
    Cone,
}

impl Source {
    fn validate(&self) -> Outcome {
        if !(self.source_origin > 0.0 && self.source_origin.is_finite()) {
            return Err(Failure::usage(
                "--source-origin",
                self.source_origin,
                "expected a positive distance in mm",
            ));
        }
        if !(self.origin_detector >= 0.0 && self.origin_detector.is_finite()) {
            return Err(Failure::usage(
                "--origin-detector",
                self.origin_detector,
                "expected a distance in mm",
            ));
        }
        let cone = self.geometry == Geometry::Cone;
        if !self.feed.is_finite() || (self.feed != 0.0 && !cone) {
            return Err(Failure::usage("--feed", self.feed, "expected mm, with --geometry cone"));
        }
        if !self.offset.is_finite() {
            return Err(Failure::usage("--offset", self.offset, "expected mm"));
        }
        if !self.row_offset.is_finite() || (self.row_offset != 0.0 && !cone) {
            return Err(Failure::usage("--row-offset", self.row_offset, "expected mm, with --geometry cone"));
        }
        match self.rows {
            Some(rows) if !cone => {
                Err(Failure::usage("--rows", rows, "only --geometry cone has detector rows"))
            }
            _ => Ok(()),
        }
    }
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
    #[serde(flatten)]
    geometry: Source,
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
        self.geometry.validate()?;
        let most = if self.geometry.feed == 0.0 { 360.0 } else { 36_000.0 };
        if !(self.arc() > 0.0 && self.arc() <= most) {
            let reason = format!("expected degrees, more than 0 and up to {most}");
            return Err(Failure::usage("--arc", self.arc(), &reason));
        }
        if !(self.photons == 0.0 || (1.0..=1e15).contains(&self.photons)) {
            return Err(Failure::usage("--photons", self.photons, "expected 0, or 1 to 1e15 photons"));
        }
        if !(self.mu_water > 0.0 && self.mu_water.is_finite()) {
            return Err(Failure::usage("--mu-water", self.mu_water, "expected a positive number, in 1/mm"));
        }
        output::check(&self.output, false, self.plot.as_deref())
    }

    fn arc(&self) -> f64 {
        self.arc.unwrap_or(if self.geometry.geometry == Geometry::Parallel { 180.0 } else { 360.0 })
    }

    /// The rays through a volume on this grid.
    fn rays(&self, grid: &Grid) -> Outcome<Rays> {
        let (image, arc, views) = (scan::image_grid(grid)?, self.arc().to_radians(), self.views as usize);
        let Source { geometry, source_origin, origin_detector, offset, row_offset, feed, .. } = self.geometry;
        let bins = |covering: usize| self.detectors.map_or(covering, |n| n as usize);
        if geometry == Geometry::Parallel {
            let beam = ParallelBeam::covering(&image, views, arc)?;
            let beam = ParallelBeam { bins: bins(beam.bins), offset, ..beam };
            return Rays::Parallel(beam).sampled(self.geometry.projector);
        }
        let fan = FanBeam::covering(&image, views, arc, source_origin, origin_detector)?;
        let fan = FanBeam { bins: bins(fan.bins), curved: geometry == Geometry::FanCurved, offset, ..fan };
        if geometry != Geometry::Cone {
            return Rays::Fan(fan).sampled(self.geometry.projector);
        }
        let [slices, thickness] = [grid.shape()[0] as f64, grid.spacing()[0]];
        // The shadow of the slices is largest where the volume is nearest to the source.
        let nearest = source_origin - image.diagonal() / 2.0;
        let covering = (slices * source_origin / nearest).ceil() as usize + 2;
        let rows = self.geometry.rows.map_or(covering, |n| n as usize);
        let row_pitch = thickness * fan.magnification();
        let beam = ConeBeam { feed, row_offset, ..ConeBeam::new(fan, rows, row_pitch)? };
        Ok(Rays::Cone(beam, self.geometry.projector))
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
    let rays = arguments.rays(volume.grid())?;
    let geometry = rays.geometry();
    let detectors = match &rays {
        Rays::Parallel(beam) => beam.bins,
        Rays::Fan(beam) => beam.bins,
        Rays::Cone(beam, _) => beam.fan.bins,
    };
    let config = Config {
        volume: arguments.volume.clone(),
        geometry: arguments.geometry,
        views: geometry.angles.len(),
        arc_degrees: arguments.arc(),
        detectors,
        detector_pitch_mm: geometry.pitch,
        photons: (arguments.photons > 0.0).then_some(arguments.photons),
        seed: arguments.seed,
        mu_water_per_mm: arguments.mu_water,
        unit: volume.unit().symbol(),
    };
    let simulation =
        Simulation { rays, photons: config.photons, seed: arguments.seed, mu_water: arguments.mu_water };
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
