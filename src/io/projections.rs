//! Raw X-ray projections: Data Exchange HDF5 (De Carlo et al., J. Synchrotron Rad. 21:1224, 2014), and
//! pictures with flats, darks and angles beside them.

use std::path::{Path, PathBuf};

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::io::hdf5::Reader;
use crate::io::{read_array, read_volume};
use crate::tensor::{Field, vector};

/// Detector counts as measured, before flat-field correction and logarithm.
#[derive(Clone, Debug)]
pub struct Projections {
    /// Counts [view, row, column].
    pub counts: Tensor,
    /// Counts of the open beam [exposure, row, column].
    pub flats: Option<Tensor>,
    /// Counts without beam [exposure, row, column].
    pub darks: Option<Tensor>,
    /// Angle of each view in radians; empty where no file gives them.
    pub angles: Vec<f64>,
}

/// Files beside the projections, for formats that don't hold everything in one.
#[derive(Clone, Debug, Default)]
pub struct ProjectionFiles {
    /// Open beam: a picture, a stack or a folder of pictures.
    pub flats: Option<PathBuf>,
    /// No beam: as `flats`.
    pub darks: Option<PathBuf>,
    /// Text, one angle in degrees a line.
    pub angles: Option<PathBuf>,
    /// Which array of the file holds the projections [view, row, column], where it holds several; two axes are one
    /// sinogram [1, view, column].
    pub dataset: Option<String>,
}

/// Reads raw projections: a Data Exchange file, or a stack or folder of pictures; `files` adds to what it
/// holds, or replaces it. Angles repeated at both ends, where the stage rests while flats and darks are taken,
/// are passed over where the rest fits the number of views.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`], [`Error::NotFinite`], and [`Error::Shape`] where the parts don't fit each
/// other, naming the part.
pub fn read_projections(path: impl AsRef<Path>, files: &ProjectionFiles) -> Result<Projections> {
    let path = path.as_ref();
    let alone = |counts| Projections { counts, flats: None, darks: None, angles: Vec::new() };
    let mut scan = match &files.dataset {
        Some(name) => alone(array(path, name)?),
        None if path.is_file() && hdf5_pure::is_hdf5(path).map_err(|e| Error::io(path, e))? => {
            exchange(&Reader::open(path)?)?
        }
        None => alone(read_volume(path)?.data().clone()),
    };
    let picture = |file: &PathBuf| read_volume(file).map(|v| v.data().clone());
    if let Some(file) = &files.flats {
        scan.flats = Some(picture(file)?);
    }
    if let Some(file) = &files.darks {
        scan.darks = Some(picture(file)?);
    }
    if let Some(file) = &files.angles {
        scan.angles = angles_of_views(file, scan.counts.dims()[0])?;
    }
    scan.validate(&format!("{}: ", path.display()))?;
    Ok(scan)
}

/// A real array of a file that holds several.
fn array(path: &Path, name: &str) -> Result<Tensor> {
    let array = read_array(path, Some(name))?;
    if array.field != Field::Real {
        return Err(Error::format(path, format!("{name}: expected real projections, found complex numbers")));
    }
    let data = array.to_f32()?;
    match data.rank() {
        2 => Ok(data.unsqueeze(0)?),
        3 => Ok(data),
        _ => Err(Error::shape(format!("{}: {name}", path.display()), "two or three axes", data.dims())),
    }
}

impl Projections {
    /// Checks shapes and that all numbers are finite; `name` goes before the name of what is wrong.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Parameter`], [`Error::NotFinite`].
    pub fn validate(&self, name: &str) -> Result<()> {
        let named = |what: &str| format!("{name}{what}");
        let found = self.counts.dims();
        let &[views, rows, columns] = found else {
            return Err(Error::shape(named("projections"), "[view, row, column]", found));
        };
        if views * rows * columns == 0 {
            return Err(Error::shape(named("projections"), "at least one view, row and column", found));
        }
        vector::require_finite(&named("projections"), &self.counts)?;
        for (what, part) in [("flats", &self.flats), ("darks", &self.darks)] {
            let Some(part) = part else { continue };
            if part.rank() != 3 || part.dims()[1..] != [rows, columns] || part.dims()[0] == 0 {
                return Err(Error::shape(named(what), format!("[exposure, {rows}, {columns}]"), part.dims()));
            }
            vector::require_finite(&named(what), part)?;
        }
        if !self.angles.is_empty() && self.angles.len() != views {
            let expected = format!("[{views}], one for each view");
            return Err(Error::shape(named("angles"), expected, &[self.angles.len()]));
        }
        match self.angles.iter().find(|a| !a.is_finite()) {
            Some(bad) => Err(Error::parameter(named("angles"), bad, "expected finite angles")),
            None => Ok(()),
        }
    }
}

fn exchange(reader: &Reader) -> Result<Projections> {
    let stack = |name: &str| -> Result<Option<Tensor>> {
        if reader.has(name) { reader.typed(name, Field::Real, &[3]).map(Some) } else { Ok(None) }
    };
    let counts = reader.typed("exchange/data", Field::Real, &[3])?;
    let mut angles = Vec::new();
    if reader.has("exchange/theta") {
        angles = reader.numbers("exchange/theta")?;
        let attributes = reader.attributes("exchange/theta")?;
        let in_radians = attributes.text("units").is_ok_and(|u| u.to_lowercase().starts_with("rad"));
        if !in_radians {
            angles.iter_mut().for_each(|a| *a = a.to_radians());
        }
    }
    Ok(Projections {
        counts,
        flats: stack("exchange/data_white")?,
        darks: stack("exchange/data_dark")?,
        angles,
    })
}

/// The angles without repetitions of the first and of the last (to a thousandth of a degree).
fn without_rest(angles: &[f64]) -> &[f64] {
    let rests = |w: &&[f64]| (w[1] - w[0]).abs() < 1e-3f64.to_radians();
    let front = angles.windows(2).take_while(rests).count();
    let back = angles.windows(2).rev().take_while(rests).count();
    angles.get(front..angles.len().saturating_sub(back)).unwrap_or(angles)
}

/// Reads angles as [`read_angles`], and passes over those repeated at both ends where the rest fits the number of views.
///
/// # Errors
/// As [`read_angles`].
pub fn angles_of_views(path: impl AsRef<Path>, views: usize) -> Result<Vec<f64>> {
    let angles = read_angles(path)?;
    Ok(match without_rest(&angles) {
        moving if moving.len() == views => moving.to_vec(),
        _ => angles,
    })
}

/// Reads angles in degrees, one a line (or separated by commas or blanks; `#` starts a comment), as radians.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] naming the line that is no number.
pub fn read_angles(path: impl AsRef<Path>) -> Result<Vec<f64>> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut angles = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = line.split('#').next().unwrap_or("").split([',', ';', ' ', '\t']);
        for word in words.map(str::trim).filter(|w| !w.is_empty()) {
            let angle: f64 = word.parse().map_err(|_| {
                Error::format(
                    path,
                    format!("line {}: expected an angle in degrees, found `{word}`", number + 1),
                )
            })?;
            angles.push(angle.to_radians());
        }
    }
    Ok(angles)
}
