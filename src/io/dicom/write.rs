//! A series of CT or MR images, one file a slice, with the modules that PS3.3 requires of them.

use std::hash::{BuildHasher, Hasher};
use std::path::Path;

use candle_core::Tensor;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject, Tag};
use nalgebra::Vector3;

use crate::error::{Error, Result};
use crate::io::atomic::PendingFolder;
use crate::io::{Grid, Unit, Volume};
use crate::tensor::{Field, Real};

/// What a DICOM series says of itself besides the image; empty where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DicomOptions {
    /// PatientName, as `family^given`.
    pub patient_name: String,
    /// PatientID.
    pub patient_id: String,
    /// SeriesDescription, at most 64 characters.
    pub description: String,
}

/// Writes a volume as a new DICOM series: a folder with one file a slice, in one piece. Hounsfield units (whole HU where
/// they fit 16 bits) and attenuation become CT images, everything else MR images; what is no whole HU is scaled to 16
/// bits with the rescale slope and intercept set.
///
/// # Errors
/// [`Error::Parameter`] where the folder exists and is not empty, or where the rows and columns of the slices
/// are not perpendicular; [`Error::Shape`] for complex voxels; [`Error::Io`].
pub fn write_dicom(volume: &Volume, folder: impl AsRef<Path>, options: &DicomOptions) -> Result<()> {
    if volume.field() == Field::Complex {
        return Err(Error::shape("DICOM", "real voxels; take the magnitude", volume.data().dims()));
    }
    let mut series = SeriesWriter::create(folder.as_ref(), volume.grid(), volume.unit(), options)?;
    series.append(volume.data())?;
    series.finish()
}

/// A series that grows by slices.
pub(crate) struct SeriesWriter {
    series: Series,
    pending: PendingFolder,
    written: usize,
}

impl SeriesWriter {
    pub(crate) fn create(path: &Path, grid: &Grid, unit: Unit, options: &DicomOptions) -> Result<Self> {
        let [_, rows, columns] = grid.shape();
        if rows.max(columns) > usize::from(u16::MAX) {
            return Err(Error::shape("DICOM", "at most 65535 rows and columns", &grid.shape()));
        }
        let series = Series {
            uid: unique_id(),
            study: unique_id(),
            frame: unique_id(),
            options: options.clone(),
            place: Place::of(grid)?,
            shape: [rows, columns],
            unit,
        };
        Ok(Self { series, pending: PendingFolder::new(path)?, written: 0 })
    }

    /// Appends slices [slice, height, width], which share one scale.
    pub(crate) fn append(&mut self, slices: &Tensor) -> Result<()> {
        let scale = Scale::of(slices, self.series.unit)?;
        for k in 0..slices.dims()[0] {
            let pixels = f32::to_vec(&slices.get(k)?)?;
            let file = self.pending.place().join(format!("IM{:05}.dcm", self.written));
            self.series.write(self.written, &pixels, &scale, &file)?;
            self.written += 1;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.pending.publish()
    }
}

/// Directions and distances in LPS.
struct Place {
    orientation: [f64; 6],
    spacing: [f64; 3],
    origin: Vector3<f64>,
    step: Vector3<f64>,
}

impl Place {
    fn of(grid: &Grid) -> Result<Self> {
        let to_lps = |v: Vector3<f64>| Vector3::new(-v[0], -v[1], v[2]);
        let direction = |axis| to_lps(grid.direction(axis)).normalize();
        let (row, column) = (direction(0), direction(1));
        if row.dot(&column).abs() > 1e-4 {
            let reason = "DICOM wants rows and columns that are perpendicular";
            return Err(Error::parameter("affine", format!("{:?}", grid.affine()), reason));
        }
        let origin = Vector3::new(grid.affine()[(0, 3)], grid.affine()[(1, 3)], grid.affine()[(2, 3)]);
        Ok(Self {
            orientation: [row[0], row[1], row[2], column[0], column[1], column[2]],
            spacing: grid.spacing(),
            origin: to_lps(origin),
            step: to_lps(grid.direction(2)),
        })
    }
}

/// value = slope · stored + intercept, stored as signed 16-bit numbers.
struct Scale {
    slope: f64,
    intercept: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn of(values: &Tensor, unit: Unit) -> Result<Self> {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for k in 0..values.dims()[0] {
            for v in f32::to_vec(&values.get(k)?)? {
                (low, high) = (low.min(f64::from(v)), high.max(f64::from(v)));
            }
        }
        if unit == Unit::Hounsfield && low >= -32768.0 && high <= 32767.0 {
            return Ok(Self { slope: 1.0, intercept: 0.0, low, high });
        }
        // A few codes are left at both ends, for the rounding of slope and intercept to 16 characters.
        let slope = if high > low { (high - low) / 65520.0 } else { 1.0 };
        let slope: f64 = decimal(slope).parse().unwrap_or(slope);
        let intercept = (low + high) / 2.0;
        Ok(Self { slope, intercept: decimal(intercept).parse().unwrap_or(intercept), low, high })
    }

    fn code(&self, value: f32) -> i16 {
        ((f64::from(value) - self.intercept) / self.slope).round() as i16
    }
}

struct Series {
    uid: String,
    study: String,
    frame: String,
    options: DicomOptions,
    place: Place,
    shape: [usize; 2],
    unit: Unit,
}

impl Series {
    fn write(&self, k: usize, pixels: &[f32], scale: &Scale, file: &Path) -> Result<()> {
        let ct = self.unit != Unit::Arbitrary;
        let class = if ct { uids::CT_IMAGE_STORAGE } else { uids::MR_IMAGE_STORAGE };
        let id = unique_id();
        let mut object = InMemDicomObject::new_empty();
        self.describe(&mut object, ct);
        object.put_str(tags::SOP_CLASS_UID, VR::UI, class);
        object.put_str(tags::SOP_INSTANCE_UID, VR::UI, id.as_str());
        object.put_str(tags::INSTANCE_NUMBER, VR::IS, (k + 1).to_string());
        self.locate(&mut object, k);
        self.put_pixels(&mut object, pixels, scale);
        let meta = FileMetaTableBuilder::new()
            .media_storage_sop_class_uid(class)
            .media_storage_sop_instance_uid(id)
            .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        let object = object.with_meta(meta).map_err(|e| Error::format(file, super::chain(&e)))?;
        object.write_to_file(file).map_err(|e| Error::format(file, super::chain(&e)))
    }

    /// Patient, study, series, equipment, and what the image modules of CT and MR require.
    fn describe(&self, object: &mut InMemDicomObject, ct: bool) {
        let mut put = |tag: Tag, vr: VR, value: &str| {
            object.put_str(tag, vr, value);
        };
        put(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
        put(tags::PATIENT_NAME, VR::PN, &self.options.patient_name);
        put(tags::PATIENT_ID, VR::LO, &self.options.patient_id);
        put(tags::STUDY_INSTANCE_UID, VR::UI, &self.study);
        put(tags::SERIES_INSTANCE_UID, VR::UI, &self.uid);
        put(tags::FRAME_OF_REFERENCE_UID, VR::UI, &self.frame);
        put(tags::SERIES_NUMBER, VR::IS, "1");
        put(tags::STUDY_ID, VR::SH, "1");
        put(tags::ACQUISITION_NUMBER, VR::IS, "1");
        let description: String = self.options.description.chars().take(64).collect();
        put(tags::SERIES_DESCRIPTION, VR::LO, &description);
        put(tags::MANUFACTURER, VR::LO, "wellposed");
        put(tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION"));
        // Known to nobody here, but the standard wants the elements, empty.
        let empty = [
            (tags::PATIENT_BIRTH_DATE, VR::DA),
            (tags::PATIENT_SEX, VR::CS),
            (tags::STUDY_DATE, VR::DA),
            (tags::STUDY_TIME, VR::TM),
            (tags::ACCESSION_NUMBER, VR::SH),
            (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
            (tags::POSITION_REFERENCE_INDICATOR, VR::LO),
            (tags::LATERALITY, VR::CS),
            (tags::PATIENT_POSITION, VR::CS),
        ];
        empty.into_iter().for_each(|(tag, vr)| put(tag, vr, ""));
        if ct {
            put(tags::MODALITY, VR::CS, "CT");
            put(tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY\\AXIAL");
            put(tags::KVP, VR::DS, "");
        } else {
            put(tags::MODALITY, VR::CS, "MR");
            put(tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY\\OTHER");
            put(tags::SCANNING_SEQUENCE, VR::CS, "RM");
            put(tags::SEQUENCE_VARIANT, VR::CS, "NONE");
            put(tags::SCAN_OPTIONS, VR::CS, "");
            put(tags::MR_ACQUISITION_TYPE, VR::CS, "2D");
            put(tags::REPETITION_TIME, VR::DS, "");
            put(tags::ECHO_TIME, VR::DS, "");
            put(tags::ECHO_TRAIN_LENGTH, VR::IS, "");
        }
    }

    /// The image plane.
    fn locate(&self, object: &mut InMemDicomObject, k: usize) {
        let place = &self.place;
        let list = |values: &[f64]| values.iter().map(|v| decimal(*v)).collect::<Vec<_>>().join("\\");
        let position = place.origin + place.step * k as f64;
        let [z, y, x] = place.spacing;
        object.put_str(tags::IMAGE_POSITION_PATIENT, VR::DS, list(position.as_slice()));
        object.put_str(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, list(&place.orientation));
        object.put_str(tags::PIXEL_SPACING, VR::DS, list(&[y, x]));
        object.put_str(tags::SLICE_THICKNESS, VR::DS, decimal(z));
    }

    fn put_pixels(&self, object: &mut InMemDicomObject, pixels: &[f32], scale: &Scale) {
        let ([rows, columns], unit) = (self.shape, self.unit);
        let short = |v: usize| PrimitiveValue::from(v as u16);
        let numbers = [
            (tags::SAMPLES_PER_PIXEL, 1),
            (tags::ROWS, rows),
            (tags::COLUMNS, columns),
            (tags::BITS_ALLOCATED, 16),
            (tags::BITS_STORED, 16),
            (tags::HIGH_BIT, 15),
            (tags::PIXEL_REPRESENTATION, 1),
        ];
        for (tag, value) in numbers {
            object.put(DataElement::new(tag, VR::US, short(value)));
        }
        object.put_str(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
        object.put_str(tags::RESCALE_SLOPE, VR::DS, decimal(scale.slope));
        object.put_str(tags::RESCALE_INTERCEPT, VR::DS, decimal(scale.intercept));
        // "US" is the standard's word for an unspecified unit.
        let symbol = if unit == Unit::Arbitrary { "US" } else { unit.symbol() };
        object.put_str(tags::RESCALE_TYPE, VR::LO, symbol);
        // Soft tissue for HU; the whole range for everything else.
        let (centre, width) = match unit {
            Unit::Hounsfield => (40.0, 400.0),
            _ => ((scale.low + scale.high) / 2.0, (scale.high - scale.low).max(1e-6)),
        };
        object.put_str(tags::WINDOW_CENTER, VR::DS, decimal(centre));
        object.put_str(tags::WINDOW_WIDTH, VR::DS, decimal(width));
        let codes = pixels.iter().map(|&v| scale.code(v) as u16).collect();
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(codes)));
    }
}

/// A number as a DICOM decimal string: as many digits as fit its 16 characters.
fn decimal(value: f64) -> String {
    // Adding zero turns −0 into 0.
    let plain = (value + 0.0).to_string();
    if plain.len() <= 16 {
        return plain;
    }
    let rounded = |digits: usize| [format!("{value:.digits$}"), format!("{value:.digits$e}")];
    let fitting = (0..16).rev().flat_map(rounded).filter(|s| s.len() <= 16);
    let error = |s: &String| s.parse::<f64>().map_or(f64::MAX, |v| (v - value).abs());
    fitting.min_by(|a, b| error(a).total_cmp(&error(b))).unwrap_or(plain)
}

/// A new unique identifier: `2.25.` and a random UUID as a decimal number (PS3.5, B.2).
fn unique_id() -> String {
    // The standard library seeds each of these hashers from the system's randomness.
    let random = || u128::from(std::collections::hash_map::RandomState::new().build_hasher().finish());
    let bits = (random() << 64) | random();
    let uuid = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    format!("2.25.{uuid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_fit_sixteen_characters() {
        for value in
            [0.1 + 0.2, -1.0 / 3.0, 1e-9 / 3.0, -123_456.789_012_345_67, 1e300 / 3.0, 0.0, -0.0, 40.0]
        {
            let text = decimal(value);
            let back: f64 = text.parse().unwrap();
            assert!(text.len() <= 16 && (back - value).abs() <= 1e-9 * value.abs(), "{value} → {text}");
        }
    }

    #[test]
    fn identifiers_are_valid_and_differ() {
        let (a, b) = (unique_id(), unique_id());
        assert!(a != b && a.len() <= 64 && a.starts_with("2.25.") && !a[5..].starts_with('0'), "{a}");
    }
}
