//! Scans: what a machine measured and all that is needed to reconstruct it, in one HDF5 file.
//!
//! The file describes itself: the root attributes `format` = "wellposed", `format_version` and `kind`
//! ("ct", "mri" or "volume"); each dataset has an attribute `axes`; the groups `geometry`, `target` and `provenance`
//! hold attributes only. Complex numbers are compounds (r, i), which h5py reads as complex64.

pub(crate) mod acquisition;
mod ct;
mod mri;
pub(crate) mod paths;

use std::collections::BTreeMap;
use std::path::Path;

use hdf5_pure::{AttrValue, FileBuilder};
use nalgebra::Matrix4;

use crate::error::{Error, Result};
use crate::io::hdf5::{self, Reader};
use crate::io::{Grid, Unit, Volume, fastmri, ismrmrd, twix};

pub use ct::{Beam, CtGeometry, CtScan, CtScanReader};
pub use mri::MriScan;

const FORMAT: &str = "wellposed";
const VERSION: u64 = 1;

/// Where a scan comes from: the seed of its noise and free notes, such as the source file and the command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Seed of the simulation's noise.
    pub seed: Option<u64>,
    /// Name → text.
    pub notes: BTreeMap<String, String>,
}

impl Provenance {
    /// Notes that start with the version of this program.
    pub fn new(seed: Option<u64>) -> Self {
        let software = concat!("wellposed ", env!("CARGO_PKG_VERSION")).to_string();
        Self { seed, notes: BTreeMap::from([("software".to_string(), software)]) }
    }

    /// The same with one more note.
    pub fn with(mut self, name: &str, text: impl Into<String>) -> Self {
        self.notes.insert(name.into(), text.into());
        self
    }
}

/// A scan of either kind.
#[derive(Clone, Debug)]
pub enum Scan {
    /// X-ray projections.
    Ct(CtScan),
    /// Magnetic-resonance k-space.
    Mri(MriScan),
}

impl Scan {
    /// Reads a scan and tells which kind it is: a file of this program, k-space as ISMRMRD holds it, or Cartesian
    /// k-space as fastMRI or Siemens (twix, VB to VE) write it.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Shape`], [`Error::NotFinite`], [`Error::Parameter`], each
    /// naming the file and the dataset.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let head = crate::io::open::start(path, 64).map_err(|e| Error::io(path, e))?;
        if twix::is_twix(&head, path) {
            return twix::read(path).map(Self::Mri);
        }
        let reader = Reader::open(path)?;
        if ismrmrd::is_ismrmrd(&reader) {
            return ismrmrd::read(&reader).map(Self::Mri);
        }
        if fastmri::is_fastmri(&reader) {
            return fastmri::read(&reader).map(Self::Mri);
        }
        match kind(&reader)?.as_str() {
            "ct" => CtScanReader::of(reader)?.whole().map(Self::Ct),
            "mri" => mri::load(&reader).map(Self::Mri),
            other => Err(reader.error(format!("expected a scan of kind ct or mri, found kind {other}"))),
        }
    }
}

/// Whether a file is a scan or volume that this program wrote.
pub fn is_scan(path: impl AsRef<Path>) -> bool {
    Reader::open(path.as_ref()).is_ok_and(|reader| is_ours(&reader))
}

/// Whether a file is one of this program's, by its root attributes.
pub(crate) fn is_ours(reader: &Reader) -> bool {
    reader.attributes("").is_ok_and(|a| a.text("format").is_ok_and(|f| f == FORMAT))
}

/// What a file of this program holds: ct, mri or volume.
pub(crate) fn kind(reader: &Reader) -> Result<String> {
    if !is_ours(reader) {
        let reason = format!("not a file of wellposed: the root attribute `format` is not \"{FORMAT}\"");
        return Err(reader.error(reason));
    }
    let root = reader.attributes("")?;
    match root.integer("format_version") {
        Some(VERSION) => Ok(root.text("kind")?.to_string()),
        found => Err(reader.error(format!("expected format_version {VERSION}, found {found:?}"))),
    }
}

/// A file with the root attributes, the target grid and the provenance.
fn begin(kind: &str, target: &Grid, unit: Unit, provenance: &Provenance) -> FileBuilder {
    let mut file = FileBuilder::new();
    file.set_attr("format", AttrValue::String(FORMAT.into()));
    file.set_attr("format_version", AttrValue::U64(VERSION));
    file.set_attr("kind", AttrValue::String(kind.into()));
    let mut group = file.create_group("target");
    group.set_attr("shape", AttrValue::U64Array(target.shape().iter().map(|&n| n as u64).collect()));
    group.set_attr("affine", AttrValue::F64Array(target.affine().transpose().iter().copied().collect()));
    group.set_attr("unit", AttrValue::String(unit.symbol().into()));
    file.add_group(group.finish());
    let mut group = file.create_group("provenance");
    for (name, text) in &provenance.notes {
        group.set_attr(name, AttrValue::String(text.clone()));
    }
    if let Some(seed) = provenance.seed {
        group.set_attr("seed", AttrValue::U64(seed));
    }
    file.add_group(group.finish());
    file
}

fn read_target(reader: &Reader) -> Result<(Grid, Unit)> {
    let group = reader.attributes("target")?;
    let lengths = group.numbers("shape")?;
    let shape: Vec<usize> = lengths.iter().map(|&n| n as usize).collect();
    let [slices, height, width] = shape[..] else {
        return Err(
            reader.error(format!("target/shape: expected [slices, height, width], found {lengths:?}"))
        );
    };
    let affine = group.numbers("affine")?;
    if affine.len() != 16 {
        return Err(reader.error(format!("target/affine: expected 16 numbers, found {}", affine.len())));
    }
    let grid = Grid::new([slices, height, width], Matrix4::from_row_slice(&affine))
        .map_err(|e| reader.error(format!("target: {e}")))?;
    let symbol = group.text("unit")?;
    let unit = Unit::from_symbol(symbol)
        .ok_or_else(|| reader.error(format!("target/unit: expected HU, 1/mm or nothing, found {symbol}")))?;
    Ok((grid, unit))
}

fn read_provenance(reader: &Reader) -> Result<Provenance> {
    let group = reader.attributes("provenance")?;
    let notes = group.texts().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    Ok(Provenance { seed: group.integer("seed"), notes })
}

/// Writes a volume in the same container, as kind "volume".
pub(crate) fn write_volume(volume: &Volume, path: &Path) -> Result<()> {
    let mut file = begin("volume", volume.grid(), volume.unit(), &Provenance::new(None));
    hdf5::put(&mut file, "volume", volume.data(), volume.field(), "slice, height, width")?;
    hdf5::save(file, path)
}

/// Reads what [`write_volume`] wrote.
pub(crate) fn read_volume(reader: &Reader) -> Result<Volume> {
    match kind(reader)?.as_str() {
        "volume" => {}
        kind => return Err(reader.error(format!("expected a volume, found a scan of kind {kind}"))),
    }
    let (grid, unit) = read_target(reader)?;
    let data = reader.array("volume")?.to_f32()?;
    Volume::on_grid(data, grid, unit).map_err(|e| crate::io::in_file(reader.path(), e))
}

/// An error unless `value` is positive and finite.
fn positive(name: String, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::parameter(name, value, "expected a positive number"))
}

/// An error unless `value` is finite.
fn finite(name: String, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::parameter(name, value, "expected a finite number")) }
}
