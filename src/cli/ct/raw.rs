//! Raw projections: from detector counts and what the user says of the scanner to a scan.

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{
    Beam, CtGeometry, CtScan, Grid, ProjectionFiles, Projections, Provenance, Unit, is_scan, read_projections,
};
use wellposed::operator::ct::hounsfield::MU_WATER;
use wellposed::reconstruct::preprocess::{
    BeamHardening, FlatField, Outliers, Rings, center_by_sinogram, center_to_offset, extend_edges,
};

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
    /// Columns of the window of --rings sorting, odd: more than twice the width of the rings [default: 21].
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
    pub fn read(&self, path: &Path) -> Outcome<CtScan> {
        if !is_scan(path) {
            return self.raw(path);
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
        Ok(CtScan::read(path)?)
    }

    fn raw(&self, path: &Path) -> Outcome<CtScan> {
        self.validate()?;
        let (flats, darks, dataset) = (self.flat.clone(), self.dark.clone(), self.dataset.clone());
        let files = ProjectionFiles { flats, darks, dataset, angles: None };
        let mut raw = read_projections(path, &files)?;
        if self.sinograms {
            // [row, view, column] becomes [view, row, column].
            let sinograms = if self.transpose { raw.counts.transpose(1, 2)? } else { raw.counts };
            raw.counts = sinograms.transpose(0, 1)?.contiguous()?;
        }
        let angles = self.angles(path, &raw)?;
        let mut values = self.line_integrals(raw)?;
        values = match self.rings {
            None => values,
            Some(RingMethod::Sorting) => {
                let own = self.ring_size.map(|size| Rings::Sorting { size: size as usize });
                own.unwrap_or(Rings::SORTING).remove(&values)?
            }
            Some(RingMethod::Wavelet) => Rings::WAVELET_FOURIER.remove(&values)?,
        };
        if let Some(coefficients) = &self.beam_hardening {
            values = BeamHardening { coefficients: coefficients.clone() }.correct(&values)?;
        }
        let geometry = self.geometry(&values, angles)?;
        let &[rows, _, columns] = values.dims() else { unreachable!("made so") };
        if let Some(by) = self.pad {
            values = extend_edges(&values, by as usize)?;
        }
        let pixel = geometry.pitch / self.magnification();
        let size = self.size.map_or(columns, |n| n as usize);
        Ok(CtScan {
            projections: values,
            weights: None,
            photons: None,
            geometry,
            target: Grid::centred([rows, size, size], [pixel; 3])?,
            unit: Unit::PerMillimetre,
            mu_water: MU_WATER,
            provenance: Provenance::new(None).with("source", path.display().to_string()),
        })
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

    fn angles(&self, path: &Path, raw: &Projections) -> Outcome<Vec<f64>> {
        let views = raw.counts.dims()[0];
        if let Some(file) = &self.angles {
            let moving = wellposed::io::angles_of_views(file, views)?;
            return Ok(moving);
        }
        if let Some(arc) = self.arc {
            return Ok((0..views).map(|i| (arc * i as f64 / views as f64).to_radians()).collect());
        }
        if raw.angles.len() == views {
            return Ok(raw.angles.clone());
        }
        let reason = format!(
            "is no scan of this program, and says no angles for {views} views: give --angles or --arc"
        );
        Err(Error::format(path, reason).into())
    }

    fn line_integrals(&self, raw: Projections) -> Outcome<Tensor> {
        let mut counts = raw.counts.to_dtype(DType::F32)?;
        if self.outliers {
            let (clean, replaced) = Outliers::default().remove(&counts)?;
            console::say(&format!("{replaced} pixels far off their neighbours replaced"));
            counts = clean;
        }
        if self.sinograms {
            return Ok(counts.transpose(0, 1)?.contiguous()?);
        }
        let corrected = FlatField::default().correct(&counts, raw.flats.as_ref(), raw.darks.as_ref())?;
        if corrected.starved + corrected.dead > 0 {
            let (starved, dead) = (corrected.starved, corrected.dead);
            console::say(&format!("{starved} rays without photons, {dead} dead detector pixels"));
        }
        Ok(corrected.values)
    }

    fn magnification(&self) -> f64 {
        match (self.source_origin, self.origin_detector) {
            (Some(source), Some(detector)) => (source + detector) / source,
            _ => 1.0,
        }
    }

    fn geometry(&self, values: &Tensor, angles: Vec<f64>) -> Outcome<CtGeometry> {
        let (source_origin, origin_detector) =
            (self.source_origin.unwrap_or(0.0), self.origin_detector.unwrap_or(0.0));
        let pitch = self.pitch.unwrap_or(1.0);
        let beam = match self.geometry.unwrap_or(Geometry::Parallel) {
            Geometry::Parallel => Beam::Parallel,
            Geometry::Fan => Beam::Fan { source_origin, origin_detector, curved: false },
            Geometry::FanCurved => Beam::Fan { source_origin, origin_detector, curved: true },
            Geometry::Cone => {
                let row_offset = self.row_offset.unwrap_or(0.0);
                Beam::Cone { source_origin, origin_detector, row_pitch: pitch, row_offset, feed: 0.0 }
            }
        };
        let (rows, columns) = (values.dims()[0], values.dims()[2]);
        let center = match self.center {
            None => (columns as f64 - 1.0) / 2.0,
            Some(Center::Column(column)) => column,
            Some(Center::Auto) if beam != Beam::Parallel => {
                return Err(Failure::usage("--center", "auto", "only parallel rays tell it; say the column"));
            }
            Some(Center::Auto) => {
                let found = center_by_sinogram(&values.get(rows / 2)?, &angles)?;
                console::say(&format!("centre of rotation at column {found:.2}"));
                found
            }
        };
        Ok(CtGeometry { beam, angles, pitch, offset: center_to_offset(center, columns, pitch) })
    }
}
