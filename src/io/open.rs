//! Reading a volume from whatever file it lies in, and writing one.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::hdf5::Reader;
use crate::io::{Array, Stack, Unit, Volume, atomic, cfl, dicom, matlab, nifti, npy, picture, scan};
use crate::tensor::Field;

/// What to read where a file or folder holds more than one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// DICOM: the series, by its instance UID, its number, or a part of its description.
    pub series: Option<String>,
    /// HDF5, MATLAB and npz: the name of the array.
    pub dataset: Option<String>,
}

/// Reads a volume. The format is recognised by the contents: NIfTI-1, a DICOM file
/// or a folder of them, PNG, TIFF or a folder of them, HDF5 as [`Volume::write`]
/// writes it, and whatever [`read_array`] reads, with two or three axes.
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
    let voxels = match Kind::of(path)? {
        Kind::Nifti => return nifti::read(path),
        Kind::Dicom => return dicom::read(path, options.series.as_deref()),
        Kind::Folder | Kind::Png | Kind::Tiff => Stack::open(path, None)?.whole()?,
        Kind::Hdf5 if options.dataset.is_none() && scan::is_ours(&Reader::open(path)?) => {
            return scan::read_volume(&Reader::open(path)?);
        }
        kind => array(path, kind, options.dataset.as_deref())?.into_voxels(&path.display().to_string())?,
    };
    Volume::centred(voxels, [1.0; 3], Unit::Arbitrary)
        .and_then(Volume::infer_unit)
        .map_err(|e| in_file(path, e))
}

/// Reads an array of any rank: npy, npz, MATLAB, BART's cfl, or a dataset of an HDF5 file. `name` chooses
/// among several.
///
/// The last axis is the one that varies fastest in the file; MATLAB's A(row, column, page, …) comes as
/// […, page, row, column].
///
/// # Errors
/// As [`read_volume`]; NaN is not an error here.
pub fn read_array(path: impl AsRef<Path>, name: Option<&str>) -> Result<Array> {
    let path = path.as_ref();
    array(path, Kind::of(path)?, name)
}

fn array(path: &Path, kind: Kind, name: Option<&str>) -> Result<Array> {
    match kind {
        Kind::Npy => npy::read(path),
        Kind::Npz => npy::read_archive(path, name),
        Kind::Cfl => cfl::read(path),
        Kind::Matlab => matlab::read(path, name),
        Kind::Hdf5 => {
            let reader = Reader::open(path)?;
            let name = name.map_or_else(|| only_array(&reader), |name| Ok(name.to_string()))?;
            let array = reader.array(&name)?;
            if is_matlab_hdf5(path) { array.paged() } else { Ok(array) }
        }
        Kind::Nifti | Kind::Dicom | Kind::Png | Kind::Tiff | Kind::Folder => Err(Error::format(
            path,
            "expected an array (npy, npz, MATLAB, cfl, HDF5), found a picture or volume",
        )),
    }
}

pub(crate) fn is_matlab_hdf5(path: &Path) -> bool {
    start(path, 10).is_ok_and(|head| head == b"MATLAB 7.3")
}

/// The first bytes of a file.
pub(crate) fn start(path: &Path, length: u64) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(length).read_to_end(&mut head)?;
    Ok(head)
}

/// A file format, by contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nifti,
    Dicom,
    Hdf5,
    Npy,
    Npz,
    Cfl,
    Matlab,
    Png,
    Tiff,
    /// A folder of pictures.
    Folder,
}

impl Kind {
    fn of(path: &Path) -> Result<Self> {
        // BART names an array without an ending.
        if !path.exists() && path.with_extension("cfl").exists() {
            return Ok(Self::Cfl);
        }
        if path.is_dir() {
            return Ok(if dicom::is_dicom_folder(path) { Self::Dicom } else { Self::Folder });
        }
        let head = start(path, 1024).map_err(|e| Error::io(path, e))?;
        let begins = |magics: &[&[u8]]| magics.iter().any(|m| head.starts_with(m));
        Ok(match () {
            () if nifti::is_nifti(&head) || begins(&[b"\x1f\x8b"]) => Self::Nifti,
            () if dicom::is_dicom(&head) => Self::Dicom,
            () if begins(&[npy::MAGIC]) => Self::Npy,
            () if begins(&[b"PK\x03\x04"]) => Self::Npz,
            () if begins(&[b"\x89PNG"]) => Self::Png,
            () if begins(&[b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]) => Self::Tiff,
            () if matlab::is_matlab(&head) => Self::Matlab,
            () if hdf5_pure::is_hdf5(path).map_err(|e| Error::io(path, e))? => Self::Hdf5,
            () if cfl::is_header(&head) || path.extension().is_some_and(|e| e == "cfl") => Self::Cfl,
            () => {
                let reason =
                    "unknown format: expected NIfTI-1, DICOM, HDF5, MATLAB, npy, npz, cfl, PNG or TIFF";
                return Err(Error::format(path, reason));
            }
        })
    }
}

/// The pictures that a path stands for: itself, or those of a folder.
pub(crate) fn pictures(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    Ok(match Kind::of(path)? {
        Kind::Folder => Some(picture::files(path)?),
        Kind::Png | Kind::Tiff => Some(vec![path.to_path_buf()]),
        _ => None,
    })
}

/// The one dataset that can be a volume, or else the one of any more axes.
fn only_array(reader: &Reader) -> Result<String> {
    let names = reader.datasets()?;
    for axes in [2..=3, 2..=usize::MAX] {
        let fits = |name: &&String| reader.shape(name).is_ok_and(|shape| axes.contains(&shape.len()));
        if let [name] = names.iter().filter(fits).collect::<Vec<_>>()[..] {
            return Ok(name.clone());
        }
    }
    Err(reader.error(format!("which dataset is wanted? It holds {}", names.join(", "))))
}

/// Formats that [`Volume::write`] offers, by the end of the name.
const WRITABLE: &str = ".nii, .nii.gz, .h5, .npy, .cfl, .tif, .tiff, .png";
/// The end of the name of a folder, which becomes a DICOM series.
pub(crate) const FOLDER: &str = "/";

impl Volume {
    /// Writes the volume in the format that the end of the name asks for, in one piece.
    ///
    /// NIfTI (`.nii`, `.nii.gz`) and HDF5 (`.h5`) keep place and unit exactly; a folder (`name/`) becomes a DICOM series,
    /// as by [`write_dicom`](crate::io::write_dicom); `.npy`, `.cfl` and `.tif` hold the numbers alone, `.png` one slice
    /// rounded to whole numbers.
    ///
    /// # Errors
    /// [`Error::Parameter`] for an unknown ending, numbers that the format can't hold, or a folder with something in it;
    /// [`Error::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (data, field) = (self.data(), self.field());
        match ending(path)? {
            FOLDER => dicom::write_dicom(self, path, &dicom::DicomOptions::default()),
            ".nii" | ".nii.gz" => nifti::write(self, path),
            ".h5" => scan::write_volume(self, path),
            ".npy" => npy::write(data, field, path),
            ".cfl" => cfl::write(data, field, path),
            ".png" => picture::write_png(data, path),
            ".tif" | ".tiff" if field == Field::Real => picture::write_tiff(data, path),
            _ => Err(Error::parameter("output", path.display(), "TIFF holds no complex numbers")),
        }
    }
}

/// Which of the writable endings a name has.
pub(crate) fn ending(path: &Path) -> Result<&'static str> {
    let name = path.to_string_lossy().to_lowercase();
    let unknown = || {
        let reason = format!("expected a name that ends in one of {WRITABLE}, or in / for a DICOM series");
        Error::parameter("output", path.display(), reason)
    };
    if name.ends_with(std::path::is_separator) || path.is_dir() {
        return Ok(FOLDER);
    }
    WRITABLE.split(", ").find(|end| name.ends_with(end)).ok_or_else(unknown)
}

/// An error where no volume can be written under this name: ask before the long work starts.
///
/// # Errors
/// [`Error::Parameter`] for an unknown ending; [`Error::Io`] where the folder is missing or not writable.
pub fn check_output(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if ending(path)? == FOLDER { atomic::check_folder(path) } else { atomic::check_writable(path) }
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
