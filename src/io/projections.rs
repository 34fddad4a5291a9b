//! Raw X-ray projections: Data Exchange HDF5 (De Carlo et al., J. Synchrotron Rad. 21:1224, 2014), and
//! pictures with flats, darks and angles beside them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::io::Stack;
use crate::io::hdf5::Reader;
use crate::tensor::vector;

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

/// Raw projections in files, which are read some detector rows at a time.
///
/// ```no_run
/// use wellposed::io::{ProjectionFiles, ProjectionReader};
/// let reader = ProjectionReader::open("tooth.h5", &ProjectionFiles::default())?;
/// let middle = reader.counts().shape()[1] / 2;
/// println!("{:?} [view, 1, column]", reader.read(middle..middle + 1)?.counts);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Debug)]
pub struct ProjectionReader {
    /// The file's name and a colon, for errors.
    name: String,
    counts: Stack,
    flats: Option<Stack>,
    darks: Option<Stack>,
    angles: Vec<f64>,
}

impl ProjectionReader {
    /// Opens a Data Exchange file, or a stack or folder of pictures; `files` adds to what it holds, or replaces it. Angles
    /// repeated at both ends, where the stage rests while flats and darks are taken, are passed over where the rest fits
    /// the number of views.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], and [`Error::Shape`] where the parts don't fit each other, naming the part.
    pub fn open(path: impl AsRef<Path>, files: &ProjectionFiles) -> Result<Self> {
        let path = path.as_ref();
        let exchange = files.dataset.is_none() && path.is_file() && is_hdf5(path)?;
        let mut reader = match exchange {
            true => Self::exchange(path)?,
            false => {
                let counts = Stack::open(path, files.dataset.as_deref())?;
                let name = format!("{}: ", path.display());
                Self { name, counts, flats: None, darks: None, angles: Vec::new() }
            }
        };
        if let Some(file) = &files.flats {
            reader.flats = Some(Stack::open(file, None)?);
        }
        if let Some(file) = &files.darks {
            reader.darks = Some(Stack::open(file, None)?);
        }
        let shape = reader.counts.shape();
        if let Some(file) = &files.angles {
            reader.angles = angles_of_views(file, shape[0])?;
        }
        let [flats, darks] = [&reader.flats, &reader.darks].map(|part| part.as_ref().map(Stack::shape));
        check(
            &reader.name,
            &shape,
            flats.as_ref().map(|s| &s[..]),
            darks.as_ref().map(|s| &s[..]),
            &reader.angles,
        )?;
        Ok(reader)
    }

    fn exchange(path: &Path) -> Result<Self> {
        let reader = Reader::open(path)?;
        let mut angles = Vec::new();
        if reader.has("exchange/theta") {
            angles = reader.numbers("exchange/theta")?;
            let attributes = reader.attributes("exchange/theta")?;
            let in_radians = attributes.text("units").is_ok_and(|u| u.to_lowercase().starts_with("rad"));
            if !in_radians {
                angles.iter_mut().for_each(|a| *a = a.to_radians());
            }
        }
        let stack = |name: &str| match reader.has(name) {
            true => Stack::dataset(Reader::open(path)?, name, 3).map(Some),
            false => Ok(None),
        };
        let (flats, darks) = (stack("exchange/data_white")?, stack("exchange/data_dark")?);
        let counts = Stack::dataset(reader, "exchange/data", 3)?;
        Ok(Self { name: format!("{}: ", path.display()), counts, flats, darks, angles })
    }

    /// The counts [view, row, column].
    pub fn counts(&self) -> &Stack {
        &self.counts
    }

    /// Angle of each view in radians; empty where no file gives them.
    pub fn angles(&self) -> &[f64] {
        &self.angles
    }

    /// Bytes that are held, or that reading takes besides those of the part itself.
    pub fn resident(&self) -> usize {
        let parts = [Some(&self.counts), self.flats.as_ref(), self.darks.as_ref()];
        parts.into_iter().flatten().map(Stack::resident).fold(0, usize::saturating_add)
    }

    /// Flats and darks of these detector rows.
    ///
    /// # Errors
    /// As [`Stack::read`].
    pub fn fields(&self, rows: Range<usize>) -> Result<[Option<Tensor>; 2]> {
        let part = |stack: &Option<Stack>| {
            stack.as_ref().map(|stack| stack.read(0..stack.shape()[0], rows.clone())).transpose()
        };
        Ok([part(&self.flats)?, part(&self.darks)?])
    }

    /// All views of these detector rows.
    ///
    /// # Errors
    /// As [`Stack::read`].
    pub fn read(&self, rows: Range<usize>) -> Result<Projections> {
        let counts = self.counts.read(0..self.counts.shape()[0], rows.clone())?;
        let [flats, darks] = self.fields(rows)?;
        Ok(Projections { counts, flats, darks, angles: self.angles.clone() })
    }
}

fn is_hdf5(path: &Path) -> Result<bool> {
    hdf5_pure::is_hdf5(path).map_err(|e| Error::io(path, e))
}

/// Reads raw projections as a whole; see [`ProjectionReader::open`].
///
/// # Errors
/// Those of [`ProjectionReader`], and [`Error::NotFinite`].
pub fn read_projections(path: impl AsRef<Path>, files: &ProjectionFiles) -> Result<Projections> {
    let reader = ProjectionReader::open(path, files)?;
    reader.read(0..reader.counts.shape()[1])
}

impl Projections {
    /// Checks shapes and that all numbers are finite; `name` goes before the name of what is wrong.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Parameter`], [`Error::NotFinite`].
    pub fn validate(&self, name: &str) -> Result<()> {
        let dims = |part: &Option<Tensor>| part.as_ref().map(|x| x.dims().to_vec());
        let (flats, darks) = (dims(&self.flats), dims(&self.darks));
        check(name, self.counts.dims(), flats.as_deref(), darks.as_deref(), &self.angles)?;
        let parts = [
            ("projections", Some(&self.counts)),
            ("flats", self.flats.as_ref()),
            ("darks", self.darks.as_ref()),
        ];
        for (what, part) in parts {
            part.map_or(Ok(()), |part| vector::require_finite(&format!("{name}{what}"), part))?;
        }
        Ok(())
    }
}

/// Checks the shapes of projections, flats and darks, and the angles.
fn check(
    name: &str,
    counts: &[usize],
    flats: Option<&[usize]>,
    darks: Option<&[usize]>,
    angles: &[f64],
) -> Result<()> {
    let named = |what: &str| format!("{name}{what}");
    let &[views, rows, columns] = counts else {
        return Err(Error::shape(named("projections"), "[view, row, column]", counts));
    };
    if views * rows * columns == 0 {
        return Err(Error::shape(named("projections"), "at least one view, row and column", counts));
    }
    for (what, part) in [("flats", flats), ("darks", darks)] {
        let Some(part) = part else { continue };
        if part.len() != 3 || part[1..] != [rows, columns] || part[0] == 0 {
            return Err(Error::shape(named(what), format!("[exposure, {rows}, {columns}]"), part));
        }
    }
    if !angles.is_empty() && angles.len() != views {
        let expected = format!("[{views}], one for each view");
        return Err(Error::shape(named("angles"), expected, &[angles.len()]));
    }
    match angles.iter().find(|a| !a.is_finite()) {
        Some(bad) => Err(Error::parameter(named("angles"), bad, "expected finite angles")),
        None => Ok(()),
    }
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
