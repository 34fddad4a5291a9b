//! X-ray projections with their geometry.

use std::ops::Range;
use std::path::Path;

use candle_core::Tensor;
use hdf5_pure::{AttrValue, FileBuilder};

use crate::error::{Error, Result};
use crate::io::hdf5::{self, Attributes, Reader};
use crate::io::hyperslab::Pages;
use crate::io::scan::{Provenance, begin, finite, positive, read_provenance, read_target};
use crate::io::{Grid, Unit};
use crate::tensor::{Field, Real, vector};

/// How the rays run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beam {
    /// Parallel rays, one stack of detector rows for one stack of slices.
    Parallel,
    /// Rays from a point, each slice by itself. Distances in mm; `curved`: the detector is an arc around
    /// the source, and its pitch is measured along the arc.
    Fan {
        /// Source to axis of rotation.
        source_origin: f64,
        /// Axis of rotation to detector.
        origin_detector: f64,
        /// Arc rather than line.
        curved: bool,
    },
    /// Rays from a point to a flat panel. The first axis of the projections counts detector rows.
    Cone {
        /// Source to axis of rotation.
        source_origin: f64,
        /// Axis of rotation to detector.
        origin_detector: f64,
        /// Distance of neighbouring detector rows in mm.
        row_pitch: f64,
        /// Shift of the panel along the axis of rotation in mm.
        row_offset: f64,
        /// Travel along the axis in mm per turn: 0 for a circular orbit, else a helix.
        feed: f64,
    },
}

impl Beam {
    /// The kind in one word, as in the file: parallel, fan-flat, fan-curved, cone.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Parallel => "parallel",
            Self::Fan { curved: false, .. } => "fan-flat",
            Self::Fan { curved: true, .. } => "fan-curved",
            Self::Cone { .. } => "cone",
        }
    }

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Self::Parallel => vec![],
            Self::Fan { source_origin, origin_detector, .. } => {
                vec![("source_origin_mm", source_origin), ("origin_detector_mm", origin_detector)]
            }
            Self::Cone { source_origin, origin_detector, row_pitch, row_offset, feed } => vec![
                ("source_origin_mm", source_origin),
                ("origin_detector_mm", origin_detector),
                ("row_pitch_mm", row_pitch),
                ("row_offset_mm", row_offset),
                ("feed_mm", feed),
            ],
        }
    }

    fn read(attributes: &Attributes<'_>, reader: &Reader) -> Result<Self> {
        let get = |name| attributes.number(name);
        let fan = |curved| -> Result<Self> {
            let (source_origin, origin_detector) = (get("source_origin_mm")?, get("origin_detector_mm")?);
            Ok(Self::Fan { source_origin, origin_detector, curved })
        };
        match attributes.text("kind")? {
            "parallel" => Ok(Self::Parallel),
            "fan-flat" => fan(false),
            "fan-curved" => fan(true),
            "cone" => Ok(Self::Cone {
                source_origin: get("source_origin_mm")?,
                origin_detector: get("origin_detector_mm")?,
                row_pitch: get("row_pitch_mm")?,
                row_offset: get("row_offset_mm")?,
                feed: get("feed_mm")?,
            }),
            other => Err(reader.error(format!(
                "geometry/kind: expected parallel, fan-flat, fan-curved or cone, found {other}"
            ))),
        }
    }
}

/// Beam, angles and detector.
#[derive(Clone, Debug, PartialEq)]
pub struct CtGeometry {
    /// How the rays run.
    pub beam: Beam,
    /// Angle of each view in radians, counter-clockwise.
    pub angles: Vec<f64>,
    /// Distance of neighbouring detector columns in mm.
    pub pitch: f64,
    /// Shift of the detector's centre against the axis of rotation in mm, along growing columns.
    pub offset: f64,
}

impl CtGeometry {
    /// The geometry of some of `all` detector rows, and the grid of what they see: of a cone's rows the whole target, of
    /// others their own slices.
    ///
    /// # Errors
    /// [`Error::Parameter`] where there are no such rows.
    pub fn of_rows(&self, target: &Grid, rows: Range<usize>, all: usize) -> Result<(Self, Grid)> {
        if rows.is_empty() || rows.end > all {
            return Err(Error::parameter(
                "detector rows",
                format!("{rows:?}"),
                format!("expected some of 0..{all}"),
            ));
        }
        let mut part = self.clone();
        let Beam::Cone { row_offset, row_pitch, .. } = &mut part.beam else {
            let target = if rows.len() == all { target.clone() } else { target.slices(rows)? };
            return Ok((part, target));
        };
        let middle = |rows: Range<usize>| (rows.start + rows.end) as f64 / 2.0;
        *row_offset += (middle(rows) - middle(0..all)) * *row_pitch;
        Ok((part, target.clone()))
    }
}

/// A CT scan: line integrals with all that is needed to reconstruct them.
///
/// ```no_run
/// use wellposed::io::CtScan;
/// let scan = CtScan::read("scan.h5")?;
/// println!("{} views over {:?}", scan.geometry.angles.len(), scan.target.shape());
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CtScan {
    /// Line integrals ∫ μ dl [slice, view, detector] without unit (cone beam: [row, view, column]).
    pub projections: Tensor,
    /// Statistical weights, the detected photon counts, in the same shape: the inverse variances of the
    /// line integrals under Beer–Lambert and Poisson.
    pub weights: Option<Tensor>,
    /// Photons of the open beam per ray, I₀.
    pub photons: Option<f64>,
    /// Beam, angles and detector.
    pub geometry: CtGeometry,
    /// Grid of the image to reconstruct.
    pub target: Grid,
    /// Unit that the image is wanted in.
    pub unit: Unit,
    /// Attenuation of water in 1/mm, which links 1/mm to Hounsfield units.
    pub mu_water: f64,
    /// Seed and notes.
    pub provenance: Provenance,
}

impl CtScan {
    /// Reads a scan file of kind ct.
    ///
    /// # Errors
    /// As [`crate::io::Scan::read`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        match super::Scan::read(path.as_ref())? {
            super::Scan::Ct(scan) => Ok(scan),
            super::Scan::Mri(_) => Err(Error::format(path, "expected a scan of kind ct, found kind mri")),
        }
    }

    /// Writes the scan, after [`CtScan::validate`], in one piece.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        self.validate("")?;
        let mut file = begin("ct", &self.target, self.unit, &self.provenance);
        file.set_attr("mu_water_per_mm", AttrValue::F64(self.mu_water));
        if let Some(photons) = self.photons {
            file.set_attr("photons", AttrValue::F64(photons));
        }
        let axes = if matches!(self.geometry.beam, Beam::Cone { .. }) {
            "detector row, view, detector column"
        } else {
            "slice, view, detector"
        };
        hdf5::put(&mut file, "projections", &self.projections, Field::Real, axes)?;
        if let Some(weights) = &self.weights {
            hdf5::put(&mut file, "weights", weights, Field::Real, axes)?;
        }
        put_geometry(&mut file, &self.geometry);
        hdf5::save(file, path.as_ref())
    }

    /// Checks shapes, ranges and that all numbers are finite; `name` goes before the name of what is wrong.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Parameter`], [`Error::NotFinite`].
    pub fn validate(&self, name: &str) -> Result<()> {
        let named = |what: &str| format!("{name}{what}");
        let found = self.projections.dims();
        let &[rows, views, columns] = found else {
            return Err(Error::shape(named("projections"), "[slice, view, detector]", found));
        };
        if rows * views * columns == 0 {
            return Err(Error::shape(named("projections"), "at least one slice, view and detector", found));
        }
        let geometry = &self.geometry;
        if geometry.angles.len() != views {
            let expected = format!("[{views}], one for each view of projections {found:?}");
            return Err(Error::shape(named("angles"), expected, &[geometry.angles.len()]));
        }
        geometry.angles.iter().try_for_each(|&a| finite(named("angles"), a))?;
        positive(named("geometry/detector_pitch_mm"), geometry.pitch)?;
        finite(named("geometry/detector_offset_mm"), geometry.offset)?;
        for (parameter, value) in geometry.beam.parameters() {
            let name = named(&format!("geometry/{parameter}"));
            match parameter {
                "row_offset_mm" | "feed_mm" | "origin_detector_mm" => finite(name, value)?,
                _ => positive(name, value)?,
            }
        }
        check_slices(name, geometry, &self.target, found)?;
        positive(named("mu_water_per_mm"), self.mu_water)?;
        self.photons.map_or(Ok(()), |photons| positive(named("photons"), photons))?;
        vector::require_finite(&named("projections"), &self.projections)?;
        self.weights.as_ref().map_or(Ok(()), |weights| check_weights(&named("weights"), weights, found))
    }
}

/// Checks that all but cones have a detector row for each slice.
fn check_slices(name: &str, geometry: &CtGeometry, target: &Grid, projections: &[usize]) -> Result<()> {
    let slices = target.shape()[0];
    if matches!(geometry.beam, Beam::Cone { .. }) || slices == projections[0] {
        return Ok(());
    }
    let expected = format!("[{slices}, view, detector], as many slices as the target");
    Err(Error::shape(format!("{name}projections"), expected, projections))
}

fn check_weights(name: &str, weights: &Tensor, shape: &[usize]) -> Result<()> {
    if weights.dims() != shape {
        return Err(Error::shape(name, format!("{shape:?}, as the projections"), weights.dims()));
    }
    vector::require_finite(name, weights)?;
    let lowest = weights.flatten_all()?.min(0)?.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
    if lowest < 0.0 {
        return Err(Error::parameter(name, lowest, "weights must not be negative"));
    }
    Ok(())
}

fn put_geometry(file: &mut FileBuilder, geometry: &CtGeometry) {
    file.create_dataset("angles")
        .with_f64_data(&geometry.angles)
        .set_attr("axes", AttrValue::String("view".into()))
        .set_attr("unit", AttrValue::String("rad".into()));
    let mut group = file.create_group("geometry");
    group.set_attr("kind", AttrValue::String(geometry.beam.kind().into()));
    group.set_attr("detector_pitch_mm", AttrValue::F64(geometry.pitch));
    group.set_attr("detector_offset_mm", AttrValue::F64(geometry.offset));
    for (name, value) in geometry.beam.parameters() {
        group.set_attr(name, AttrValue::F64(value));
    }
    file.add_group(group.finish());
}

/// A CT scan in a file of this program, read some detector rows at a time.
///
/// ```no_run
/// use wellposed::io::CtScanReader;
/// let reader = CtScanReader::open("scan.h5")?;
/// let slab = reader.rows(0..16)?;
/// assert_eq!(slab.projections.dims()[0], 16);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Debug)]
pub struct CtScanReader {
    name: String,
    projections: Pages,
    weights: Option<Pages>,
    photons: Option<f64>,
    geometry: CtGeometry,
    target: Grid,
    unit: Unit,
    mu_water: f64,
    provenance: Provenance,
}

impl CtScanReader {
    /// Opens a scan file of kind ct.
    ///
    /// # Errors
    /// As [`crate::io::Scan::read`], but for what the projections hold.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let reader = Reader::open(path.as_ref())?;
        match super::kind(&reader)?.as_str() {
            "ct" => Self::of(reader),
            other => Err(reader.error(format!("expected a scan of kind ct, found kind {other}"))),
        }
    }

    /// The scan in a file whose kind is known to be ct.
    pub(super) fn of(reader: Reader) -> Result<Self> {
        let root = reader.attributes("")?;
        let (target, unit) = read_target(&reader)?;
        let projections = Pages::open(reader.reopened()?, "projections", 3)?;
        let attributes = reader.attributes("geometry")?;
        let angles = reader.real("angles", 1).and_then(|_| reader.numbers("angles"))?;
        let geometry = CtGeometry {
            beam: Beam::read(&attributes, &reader)?,
            angles,
            pitch: attributes.number("detector_pitch_mm")?,
            offset: attributes.number("detector_offset_mm")?,
        };
        let (photons, mu_water) = (root.optional("photons")?, root.number("mu_water_per_mm")?);
        let (provenance, name) = (read_provenance(&reader)?, format!("{}: ", reader.path().display()));
        let weights =
            if reader.has("weights") { Some(Pages::open(reader.reopened()?, "weights", 3)?) } else { None };
        let shape = projections.shape();
        check_slices(&name, &geometry, &target, &shape)?;
        if let Some(weights) = weights.as_ref().filter(|weights| weights.shape() != shape) {
            let expected = format!("{shape:?}, as the projections");
            return Err(Error::shape(format!("{name}weights"), expected, &weights.shape()));
        }
        Ok(Self { name, projections, weights, photons, geometry, target, unit, mu_water, provenance })
    }

    /// Detector rows, views and columns.
    pub fn shape(&self) -> [usize; 3] {
        self.projections.shape()
    }

    /// Beam, angles and detector.
    pub fn geometry(&self) -> &CtGeometry {
        &self.geometry
    }

    /// Grid of the image to reconstruct.
    pub fn target(&self) -> &Grid {
        &self.target
    }

    /// Unit that the image is wanted in.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Whether the file holds photon counts.
    pub fn has_weights(&self) -> bool {
        self.weights.is_some()
    }

    /// Bytes that reading takes besides those of what is read.
    pub fn resident(&self) -> usize {
        let weights = self.weights.as_ref().map_or(0, Pages::resident);
        self.projections.resident().saturating_add(weights)
    }

    /// What these detector rows measured; the target is as [`CtGeometry::of_rows`] has it.
    ///
    /// # Errors
    /// As [`crate::io::Scan::read`]; [`Error::Parameter`] where there are no such rows.
    pub fn rows(&self, rows: Range<usize>) -> Result<CtScan> {
        let [all, views, _] = self.shape();
        let (geometry, target) = self.geometry.of_rows(&self.target, rows.clone(), all)?;
        let read = |pages: &Pages| pages.read(rows.clone(), 0..views);
        let scan = CtScan {
            projections: read(&self.projections)?,
            weights: self.weights.as_ref().map(read).transpose()?,
            photons: self.photons,
            geometry,
            target,
            unit: self.unit,
            mu_water: self.mu_water,
            provenance: self.provenance.clone(),
        };
        scan.validate(&self.name)?;
        // Kernels want one element type for both.
        debug_assert_eq!(scan.projections.dtype(), f32::DTYPE);
        Ok(scan)
    }

    /// The whole scan.
    ///
    /// # Errors
    /// As [`crate::io::Scan::read`].
    pub fn whole(&self) -> Result<CtScan> {
        self.rows(0..self.shape()[0])
    }
}
