//! DICOM: image series read from a folder or a file, and written as one file a slice.

mod lengths;
mod pixels;
mod series;
mod write;

use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;
use dicom_object::file::ReadPreamble;
use dicom_object::{DefaultDicomObject, OpenFileOptions, Tag};
use rayon::prelude::*;

use crate::error::{Error, Result, catch_panic};
use crate::io::Volume;

pub(crate) use write::SeriesWriter;
pub use write::{DicomOptions, write_dicom};

/// Whether the first bytes of a file are those of a DICOM file.
pub(crate) fn is_dicom(head: &[u8]) -> bool {
    head.get(128..132) == Some(b"DICM")
}

/// Reads one slice, or the series that the DICOM files of a folder make up; `series` chooses among several.
pub(crate) fn read(path: &Path, series: Option<&str>) -> Result<Volume> {
    let headers = files(path)?
        .par_iter()
        .map(|file| Header::read(file))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    series::Series::choose(path, headers, series)?.volume(path)
}

/// Whether a folder has DICOM files in it.
pub(crate) fn is_dicom_folder(path: &Path) -> bool {
    files(path).is_ok_and(|files| !files.is_empty())
}

/// The DICOM files of a folder, in the order of their names; other files are passed over.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
    let mut found = Vec::new();
    for entry in entries {
        let file = entry.map_err(|e| Error::io(path, e))?.path();
        if file.is_file() && crate::io::open::start(&file, 132).is_ok_and(|head| is_dicom(&head)) {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

/// What places a slice in its series.
#[derive(Clone, Debug)]
struct Header {
    file: PathBuf,
    uid: String,
    number: String,
    description: String,
    modality: String,
    /// What the rescaled values are.
    unit: String,
    rows: usize,
    columns: usize,
    /// Direction cosines of the rows and of the columns (LPS).
    orientation: [f64; 6],
    /// Centre of the first pixel in mm (LPS).
    position: [f64; 3],
    /// Distance of the rows and of the columns in mm.
    spacing: [f64; 2],
    thickness: f64,
}

impl Header {
    /// The header of an image; nothing for DICOM files without pixels, such as a DICOMDIR.
    fn read(file: &Path) -> Result<Option<Self>> {
        let object = open(file, true)?;
        if object.get(tags::ROWS).is_none() {
            return Ok(None);
        }
        let bad = |reason: String| Error::format(file, reason);
        if number(&object, tags::NUMBER_OF_FRAMES).is_some_and(|n| n > 1.0) {
            return Err(bad("an image of several frames; export it as one file a slice".into()));
        }
        let side = |tag, name| match number(&object, tag) {
            Some(n) if n >= 1.0 => Ok(n as usize),
            found => Err(bad(format!("{name}: expected at least 1, found {found:?}"))),
        };
        let spacing = numbers(&object, tags::PIXEL_SPACING).unwrap_or_else(|| vec![1.0, 1.0]);
        if spacing.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(bad(format!("PixelSpacing: expected positive millimetres, found {spacing:?}")));
        }
        let thickness = number(&object, tags::SPACING_BETWEEN_SLICES)
            .or_else(|| number(&object, tags::SLICE_THICKNESS))
            .filter(|t| t.is_finite() && *t > 0.0);
        let placed = |tag, name, default: Vec<f64>| -> Result<Vec<f64>> {
            match numbers(&object, tag) {
                None => Ok(default),
                Some(found) if found.len() == default.len() && found.iter().all(|v| v.is_finite()) => {
                    Ok(found)
                }
                Some(found) => {
                    Err(bad(format!("{name}: expected {} numbers, found {found:?}", default.len())))
                }
            }
        };
        let axial = vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let orientation = placed(tags::IMAGE_ORIENTATION_PATIENT, "ImageOrientationPatient", axial)?;
        let position = placed(tags::IMAGE_POSITION_PATIENT, "ImagePositionPatient", vec![0.0; 3])?;
        Ok(Some(Self {
            file: file.to_path_buf(),
            uid: text(&object, tags::SERIES_INSTANCE_UID),
            number: text(&object, tags::SERIES_NUMBER),
            description: text(&object, tags::SERIES_DESCRIPTION),
            modality: text(&object, tags::MODALITY),
            unit: text(&object, tags::RESCALE_TYPE),
            rows: side(tags::ROWS, "Rows")?,
            columns: side(tags::COLUMNS, "Columns")?,
            orientation: std::array::from_fn(|i| orientation[i]),
            position: std::array::from_fn(|i| position[i]),
            spacing: [spacing[0], spacing.get(1).copied().unwrap_or(spacing[0])],
            thickness: thickness.unwrap_or(1.0),
        }))
    }
}

/// Opens a file, with or without its pixels, after a check that its declared lengths fit in it.
fn open(file: &Path, header_only: bool) -> Result<DefaultDicomObject> {
    let bytes = std::fs::read(file).map_err(|e| Error::io(file, e))?;
    lengths::check(&bytes).map_err(|e| Error::format(file, e))?;
    let options = OpenFileOptions::new().read_preamble(ReadPreamble::Always);
    let options = if header_only { options.read_until(tags::PIXEL_DATA) } else { options };
    guarded(file, || options.from_reader(&bytes[..]).map_err(|e| chain(&e)))
}

/// Runs a parser of the DICOM library; what is wrong with the file becomes an error that names it.
fn guarded<T>(file: &Path, call: impl FnOnce() -> std::result::Result<T, String>) -> Result<T> {
    match catch_panic(call) {
        Some(Ok(value)) => Ok(value),
        Some(Err(reason)) => Err(Error::format(file, format!("not a readable DICOM file: {reason}"))),
        None => Err(Error::format(file, "not a readable DICOM file: its structure is corrupt")),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn text(object: &DefaultDicomObject, tag: Tag) -> String {
    let value = object.get(tag).and_then(|e| e.to_str().ok().map(|s| s.into_owned()));
    value.unwrap_or_default().trim_matches([' ', '\0']).to_string()
}

fn numbers(object: &DefaultDicomObject, tag: Tag) -> Option<Vec<f64>> {
    object.get(tag).and_then(|e| e.to_multi_float64().ok()).filter(|v| !v.is_empty())
}

fn number(object: &DefaultDicomObject, tag: Tag) -> Option<f64> {
    numbers(object, tag).map(|v| v[0])
}
