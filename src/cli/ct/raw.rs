//! Raw projections: from detector counts and what the user says of the scanner to a scan.

use std::cell::Cell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{
    Beam, CtGeometry, CtScan, CtScanReader, Grid, ProjectionFiles, ProjectionReader, Provenance, Unit,
    is_scan,
};
use wellposed::operator::ct::hounsfield::MU_WATER;
use wellposed::reconstruct::preprocess::{
    BeamHardening, FlatField, Outliers, Rings, center_by_sinogram, center_to_offset, extend_edges,
};

use super::rows::Rows;
use super::simulate::Geometry;
use crate::cli::console;
use crate::cli::failure::{Failure, Outcome};

/// What turns raw projections into a scan.
#[derive(Clone, Debug, Args, Serialize)]
#[group(id = "raw")]
#[command(next_help_heading = "Raw projections (Data Exchange HDF5, TIFF, arrays [view, row, column])")]
pub struct Options {
    /// Open beam: a picture, a stack or a folder of pictures.
    #[arg(long, value_name = "FILE")]
    flat: Option<PathBuf>,
    /// No beam: as --flat.
    #[arg(long, value_name = "FILE")]
    dark: Option<PathBuf>,
    /// Text file, the angle of each view in degrees a line.
    #[arg(long, value_name = "FILE")]
    angles: Option<PathBuf>,
    /// Arc in degrees that the views cover evenly, where no file gives angles.
    #[arg(long, value_name = "DEG")]
    arc: Option<f64>,
    /// Which array of the file holds the projections, where it holds several.
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// The file holds sinograms [row, view, column], or one of them, of line integrals.
    #[arg(long)]
    sinograms: bool,
    /// The sinograms' axes are [row, column, view].
    #[arg(long, requires = "sinograms")]
    transpose: bool,
    /// Replace pixels far off their neighbours.
    #[arg(long)]
    outliers: bool,
    /// Removal of rings.
    #[arg(long, value_enum, value_name = "METHOD")]
    rings: Option<RingMethod>,
    /// Columns of the window of --rings sorting, odd: more than twice the width of the rings [default: a sixtieth of the
    /// detector's, 5 to 21].
    #[arg(long, value_name = "N")]
    ring_size: Option<u32>,
    /// Polynomial C1 p + C2 p² + … of the line integrals p, against beam hardening.
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "C1,C2,…")]
    beam_hardening: Option<Vec<f64>>,
    /// Columns to add on either side, where the object is wider than the detector.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536), value_name = "N")]
    pad: Option<u32>,
    /// Column where the axis of rotation projects, counted from 0, or auto [default: the middle].
    #[arg(long, value_name = "auto|PX")]
    center: Option<Center>,
    /// How the rays run.
    #[arg(long, value_enum, value_name = "BEAM")]
    geometry: Option<Geometry>,
    /// Source to axis of rotation, mm, of fans and cones.
    #[arg(long, value_name = "MM")]
    source_origin: Option<f64>,
    /// Axis of rotation to detector, mm, of fans and cones.
    #[arg(long, value_name = "MM")]
    origin_detector: Option<f64>,
    /// Shift of a cone's panel along the axis of rotation, mm.
    #[arg(long, allow_hyphen_values = true, value_name = "MM")]
    row_offset: Option<f64>,
    /// Distance of detector pixels in mm [default: 1].
    #[arg(long, value_name = "MM")]
    pitch: Option<f64>,
    /// Rows and columns of the slices [default: detector columns].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16384), value_name = "N")]
    size: Option<u32>,
}

/// Methods that remove rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum RingMethod {
    /// Sorting (Vo et al. 2018).
    Sorting,
    /// Wavelets and Fourier transforms (Münch et al. 2009).
    Wavelet,
}

/// Where the axis projects.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
enum Center {
    /// Found in the sinogram.
    Auto,
    Column(f64),
}

impl std::str::FromStr for Center {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(column) if column.is_finite() => Ok(Self::Column(column)),
            _ => Err("expected auto, or a column".into()),
        }
    }
}

impl Options {
    /// The scan in a file of this program, or made of raw projections.
    pub fn open<'a>(&'a self, path: &'a Path) -> Outcome<Box<dyn Rows + 'a>> {
        if !is_scan(path) {
            return Ok(Box::new(Raw::open(self, path)?));
        }
        let given = [
            ("--flat", self.flat.is_some()),
            ("--dark", self.dark.is_some()),
            ("--angles", self.angles.is_some()),
            ("--arc", self.arc.is_some()),
            ("--dataset", self.dataset.is_some()),
            ("--sinograms", self.sinograms),
            ("--transpose", self.transpose),
            ("--outliers", self.outliers),
            ("--rings", self.rings.is_some()),
            ("--ring-size", self.ring_size.is_some()),
            ("--beam-hardening", self.beam_hardening.is_some()),
            ("--pad", self.pad.is_some()),
            ("--center", self.center.is_some()),
            ("--geometry", self.geometry.is_some()),
            ("--source-origin", self.source_origin.is_some()),
            ("--origin-detector", self.origin_detector.is_some()),
            ("--row-offset", self.row_offset.is_some()),
            ("--pitch", self.pitch.is_some()),
            ("--size", self.size.is_some()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
            let reason =
                format!("{flag}: is for raw projections, and {} is a scan that says it", path.display());
            return Err(Failure::Usage(reason));
        }
        Ok(Box::new(CtScanReader::open(path)?))
    }

    fn validate(&self) -> Outcome {
        let lengths = [
            ("--source-origin", self.source_origin, true),
            ("--origin-detector", self.origin_detector, false),
            ("--pitch", self.pitch, true),
            ("--arc", self.arc, true),
        ];
        for (flag, value, positive) in lengths {
            if let Some(v) = value.filter(|v| !(v.is_finite() && (*v > 0.0 || (!positive && *v == 0.0)))) {
                return Err(Failure::usage(flag, v, "expected a positive number"));
            }
        }
        if let Some(offset) =
            self.row_offset.filter(|v| !v.is_finite() || self.geometry != Some(Geometry::Cone))
        {
            return Err(Failure::usage("--row-offset", offset, "expected mm, with --geometry cone"));
        }
        if let Some(size) = self.ring_size.filter(|n| n % 2 == 0 || self.rings != Some(RingMethod::Sorting)) {
            return Err(Failure::usage("--ring-size", size, "expected an odd number, with --rings sorting"));
        }
        if let Some(bad) = self.beam_hardening.iter().flatten().find(|c| !c.is_finite()) {
            return Err(Failure::usage("--beam-hardening", bad, "expected finite coefficients"));
        }
        let divergent = self.geometry.is_some_and(|g| g != Geometry::Parallel);
        if divergent != self.source_origin.is_some() || divergent != self.origin_detector.is_some() {
            let reason = "--geometry fan, fan-curved or cone goes with --source-origin and --origin-detector";
            return Err(Failure::Usage(reason.into()));
        }
        Ok(())
    }

    fn angles(&self, path: &Path, found: &[f64], views: usize) -> Outcome<Vec<f64>> {
        if let Some(file) = &self.angles {
            let moving = wellposed::io::angles_of_views(file, views)?;
            return Ok(moving);
        }
        if let Some(arc) = self.arc {
            return Ok((0..views).map(|i| (arc * i as f64 / views as f64).to_radians()).collect());
        }
        if found.len() == views {
            return Ok(found.to_vec());
        }
        let reason = format!(
            "is no scan of this program, and says no angles for {views} views: give --angles or --arc"
        );
        Err(Error::format(path, reason).into())
    }

    fn magnification(&self) -> f64 {
        match (self.source_origin, self.origin_detector) {
            (Some(source), Some(detector)) => (source + detector) / source,
            _ => 1.0,
        }
    }

    fn beam(&self) -> Beam {
        let (source_origin, origin_detector) =
            (self.source_origin.unwrap_or(0.0), self.origin_detector.unwrap_or(0.0));
        match self.geometry.unwrap_or(Geometry::Parallel) {
            Geometry::Parallel => Beam::Parallel,
            Geometry::Fan => Beam::Fan { source_origin, origin_detector, curved: false },
            Geometry::FanCurved => Beam::Fan { source_origin, origin_detector, curved: true },
            Geometry::Cone => {
                let (row_pitch, row_offset) = (self.pitch.unwrap_or(1.0), self.row_offset.unwrap_or(0.0));
                Beam::Cone { source_origin, origin_detector, row_pitch, row_offset, feed: 0.0 }
            }
        }
    }
}

/// Raw projections, prepared as the options ask while they are read.
struct Raw<'a> {
    options: &'a Options,
    path: &'a Path,
    files: ProjectionReader,
    /// Detector rows, views and columns as measured.
    shape: [usize; 3],
    geometry: CtGeometry,
    target: Grid,
    remarks: Cell<Remarks>,
}

/// What was found on the way.
#[derive(Clone, Copy, Default)]
struct Remarks {
    replaced: usize,
    starved: usize,
    dead: usize,
}

impl<'a> Raw<'a> {
    fn open(options: &'a Options, path: &'a Path) -> Outcome<Self> {
        options.validate()?;
        let (flats, darks, dataset) = (options.flat.clone(), options.dark.clone(), options.dataset.clone());
        let files = ProjectionReader::open(path, &ProjectionFiles { flats, darks, dataset, angles: None })?;
        let [a, b, c] = files.counts().shape();
        let shape = match (options.sinograms, options.transpose) {
            (false, _) => [b, a, c],
            (true, false) => [a, b, c],
            (true, true) => [a, c, b],
        };
        let [rows, views, columns] = shape;
        let angles = options.angles(path, files.angles(), views)?;
        let (beam, pitch) = (options.beam(), options.pitch.unwrap_or(1.0));
        let pixel = pitch / options.magnification();
        let size = options.size.map_or(columns, |n| n as usize);
        let target = Grid::centred([rows, size, size], [pixel; 3])?;
        let geometry = CtGeometry { beam, angles, pitch, offset: 0.0 };
        let mut raw = Self { options, path, files, shape, geometry, target, remarks: Cell::default() };
        let center = match options.center {
            None => (columns as f64 - 1.0) / 2.0,
            Some(Center::Column(column)) => column,
            Some(Center::Auto) if raw.geometry.beam != Beam::Parallel => {
                return Err(Failure::usage("--center", "auto", "only parallel rays tell it; say the column"));
            }
            Some(Center::Auto) => raw.find_center()?,
        };
        raw.geometry.offset = center_to_offset(center, columns, pitch);
        Ok(raw)
    }

    /// The column of the axis in the middle row.
    fn find_center(&self) -> Outcome<f64> {
        let middle = self.shape[0] / 2;
        let (values, _) = self.line_integrals(middle..middle + 1)?;
        let found = center_by_sinogram(&values.get(0)?, &self.geometry.angles)?;
        console::say(&format!("centre of rotation at column {found:.2}"));
        Ok(found)
    }

    /// Line integrals [row, view, column] of some rows.
    fn line_integrals(&self, rows: Range<usize>) -> Outcome<(Tensor, Remarks)> {
        let (values, remarks) = match self.options.sinograms {
            true => self.sinograms(rows)?,
            false => self.corrected(rows)?,
        };
        let values = match self.options.rings {
            None => values,
            Some(RingMethod::Sorting) => {
                let own = self.options.ring_size.map(|size| Rings::Sorting { size: size as usize });
                own.unwrap_or(Rings::sorting(self.shape[2])).remove(&values)?
            }
            Some(RingMethod::Wavelet) => Rings::WAVELET_FOURIER.remove(&values)?,
        };
        match &self.options.beam_hardening {
            None => Ok((values, remarks)),
            Some(coefficients) => {
                let correction = BeamHardening { coefficients: coefficients.clone() };
                Ok((correction.correct(&values)?, remarks))
            }
        }
    }

    /// Line integrals as the file holds them.
    fn sinograms(&self, rows: Range<usize>) -> Outcome<(Tensor, Remarks)> {
        let counts = self.files.counts();
        let values = counts.read(rows, 0..counts.shape()[1])?;
        let values = if self.options.transpose { values.transpose(1, 2)?.contiguous()? } else { values };
        if !self.options.outliers {
            return Ok((values, Remarks::default()));
        }
        // Exposures are [view, row, column].
        let (clean, replaced) = Outliers::default().remove(&values.transpose(0, 1)?.contiguous()?)?;
        Ok((clean.transpose(0, 1)?.contiguous()?, Remarks { replaced, ..Remarks::default() }))
    }

    /// Line integrals from counts, a flat field and a dark one.
    fn corrected(&self, rows: Range<usize>) -> Outcome<(Tensor, Remarks)> {
        let (counts, replaced) = match self.options.outliers {
            true => self.without_outliers(rows.clone())?,
            false => (self.files.counts().read(0..self.shape[1], rows.clone())?, 0),
        };
        let [flats, darks] = self.files.fields(rows)?;
        let found = FlatField::default().correct(&counts, flats.as_ref(), darks.as_ref())?;
        Ok((found.values, Remarks { replaced, starved: found.starved, dead: found.dead }))
    }

    /// Counts [view, row, column] without outliers. What is typical of an exposure takes all of its rows, so that some
    /// whole exposures are read at a time.
    fn without_outliers(&self, rows: Range<usize>) -> Outcome<(Tensor, usize)> {
        let [all, views, _] = self.shape;
        let (mut parts, mut replaced) = (Vec::new(), 0);
        for first in (0..views).step_by(EXPOSURES) {
            let exposures = self.files.counts().read(first..(first + EXPOSURES).min(views), 0..all)?;
            let (clean, more) = Outliers::default().remove(&exposures)?;
            parts.push(clean.narrow(1, rows.start, rows.len())?.contiguous()?);
            replaced += more;
        }
        Ok((Tensor::cat(&parts, 0)?, replaced))
    }
}

/// Exposures that are cleaned at once.
const EXPOSURES: usize = 8;

impl Rows for Raw<'_> {
    fn shape(&self) -> [usize; 3] {
        let [rows, views, columns] = self.shape;
        [rows, views, columns + 2 * self.options.pad.unwrap_or(0) as usize]
    }

    fn geometry(&self) -> &CtGeometry {
        &self.geometry
    }

    fn target(&self) -> &Grid {
        &self.target
    }

    fn unit(&self) -> Unit {
        Unit::PerMillimetre
    }

    fn has_weights(&self) -> bool {
        false
    }

    fn resident(&self) -> usize {
        let [rows, _, columns] = self.shape;
        let exposures = if self.options.outliers { 3 * EXPOSURES * 4 * rows * columns } else { 0 };
        self.files.resident() + exposures
    }

    fn rows(&self, rows: Range<usize>) -> Outcome<CtScan> {
        let (mut values, found) = self.line_integrals(rows.clone())?;
        // A reading begins with the first row; there may be several.
        let before = if rows.start == 0 { Remarks::default() } else { self.remarks.get() };
        // Outliers were counted in whole exposures.
        let (starved, dead) = (before.starved + found.starved, before.dead + found.dead);
        self.remarks.set(Remarks { replaced: found.replaced, starved, dead });
        if let Some(by) = self.options.pad {
            values = extend_edges(&values, by as usize)?;
        }
        let (geometry, target) = self.geometry.of_rows(&self.target, rows, self.shape[0])?;
        Ok(CtScan {
            projections: values,
            weights: None,
            photons: None,
            geometry,
            target,
            unit: Unit::PerMillimetre,
            mu_water: MU_WATER,
            provenance: Provenance::new(None).with("source", self.path.display().to_string()),
        })
    }

    fn remark(&self) {
        let Remarks { replaced, starved, dead } = self.remarks.get();
        if self.options.outliers {
            console::say(&format!("{replaced} pixels far off their neighbours replaced"));
        }
        if starved + dead > 0 {
            console::say(&format!("{starved} rays without photons, {dead} dead detector pixels"));
        }
    }
}
