//! Reading a volume from whatever file it lies in, and writing one.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::io::hdf5::Reader;
use crate::io::{Unit, Volume, atomic, nifti, scan};

/// What to read where a file or folder holds more than one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// DICOM: the series, by its instance UID, its number, or a part of its description.
    pub series: Option<String>,
    /// HDF5, MATLAB and npz: the name of the array.
    pub dataset: Option<String>,
}

/// Reads a volume. The format is recognised by the contents: NIfTI-1, and HDF5 as [`Volume::write`] writes it
/// or with a single array of two or three axes.
///
/// # Errors
/// [`Error::Io`] where the file can't be read, [`Error::Format`] where its contents are not understood,
/// [`Error::NotFinite`] where voxels are NaN or infinite; each names the file.
pub fn read_volume(path: impl AsRef<Path>) -> Result<Volume> {
    read_volume_with(path, &ReadOptions::default())
}

/// As [`read_volume`], choosing among several volumes.
pub fn read_volume_with(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Volume> {
    let path = path.as_ref();
    match Kind::of(path)? {
        Kind::Nifti => nifti::read(path),
        Kind::Hdf5 => from_hdf5(path, options),
    }
}

/// A file format, by contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nifti,
    Hdf5,
}

impl Kind {
    fn of(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let mut head = Vec::new();
        let file = std::fs::File::open(path).map_err(io)?;
        file.take(1024).read_to_end(&mut head).map_err(io)?;
        if nifti::is_nifti(&head) || head.starts_with(&[0x1f, 0x8b]) {
            return Ok(Self::Nifti);
        }
        if hdf5_pure::is_hdf5(path).map_err(io)? {
            return Ok(Self::Hdf5);
        }
        Err(Error::format(path, "unknown format: expected NIfTI-1 or HDF5"))
    }
}

fn from_hdf5(path: &Path, options: &ReadOptions) -> Result<Volume> {
    let reader = Reader::open(path)?;
    if options.dataset.is_none() && scan::is_ours(&reader) {
        return scan::read_volume(&reader);
    }
    let name = match &options.dataset {
        Some(name) => name.clone(),
        None => only_picture(&reader)?,
    };
    let what = format!("{}: {name}", path.display());
    let voxels = reader.array(&name)?.into_voxels(&what)?;
    Volume::centred(voxels, [1.0; 3], Unit::Arbitrary)
        .and_then(Volume::infer_unit)
        .map_err(|e| in_file(path, e))
}

/// The one dataset that can be a volume.
fn only_picture(reader: &Reader) -> Result<String> {
    let names = reader.datasets()?;
    let is_picture = |name: &&String| reader.shape(name).is_ok_and(|s| s.len() == 2 || s.len() == 3);
    match names.iter().filter(is_picture).collect::<Vec<_>>()[..] {
        [name] => Ok(name.clone()),
        _ => Err(reader.error(format!("which dataset is the volume? It holds {}", names.join(", ")))),
    }
}

/// Formats that [`Volume::write`] offers, by the end of the name.
const WRITABLE: &str = ".nii, .nii.gz, .h5";

impl Volume {
    /// Writes the volume in the format that the end of the name asks for, in one piece.
    ///
    /// NIfTI (`.nii`, `.nii.gz`) and HDF5 (`.h5`) keep place and unit exactly.
    ///
    /// # Errors
    /// [`Error::Parameter`] for an unknown ending; [`Error::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let name = path.to_string_lossy().to_lowercase();
        if name.ends_with(".nii") || name.ends_with(".nii.gz") {
            nifti::write(self, path)
        } else if name.ends_with(".h5") || name.ends_with(".hdf5") {
            scan::write_volume(self, path)
        } else {
            Err(Error::parameter(
                "output",
                path.display(),
                format!("expected a name that ends in {WRITABLE}"),
            ))
        }
    }
}

/// An error where no volume can be written under this name: ask before the long work starts.
///
/// # Errors
/// [`Error::Parameter`] for an unknown ending; [`Error::Io`] where the folder is missing or not writable.
pub fn check_output(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let name = path.to_string_lossy().to_lowercase();
    if !WRITABLE.split(", ").chain([".hdf5"]).any(|end| name.ends_with(end)) {
        let reason = format!("expected a name that ends in {WRITABLE}");
        return Err(Error::parameter("output", path.display(), reason));
    }
    atomic::check_writable(path)
}

/// An error about the contents of a file, with the file's name in it.
pub(crate) fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::NotFinite { count, total, first, .. } => {
            Error::NotFinite { name: path.display().to_string(), count, total, first }
        }
        Error::Format { .. } | Error::Io { .. } => error,
        other => Error::format(path, other),
    }
}
