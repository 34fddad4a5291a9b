//! The pixels of one slice.

use std::path::Path;

use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;
use dicom_pixeldata::PixelDecoder;

use crate::error::{Error, Result};
use crate::io::dicom::{chain, guarded, number, open};
use crate::io::scalar::{Endian, Scalar};

/// Most that the compressions of DICOM can shrink an image.
const MAX_RATIO: usize = 2048;

/// The pixels of a file with its rescale slope and intercept applied, row by row.
pub(super) fn read(file: &Path, rows: usize, columns: usize) -> Result<Vec<f32>> {
    let object = open(file, false)?;
    let bad = |reason: String| Error::format(file, reason);
    check_declared(&object, rows, columns).map_err(bad)?;
    let decoded = guarded(file, || object.decode_pixel_data().map_err(|e| chain(&e)))?;
    let bits = (decoded.bits_allocated(), decoded.bits_stored());
    let scalar = match bits.0 {
        8 => Scalar::U8,
        16 => Scalar::U16,
        32 => Scalar::U32,
        other => return Err(bad(format!("BitsAllocated: expected 8, 16 or 32, found {other}"))),
    };
    if bits.1 == 0 || bits.1 > bits.0 {
        return Err(bad(format!("BitsStored: expected 1 to {}, found {}", bits.0, bits.1)));
    }
    // The decoder gives the bytes of the machine.
    let endian = if cfg!(target_endian = "big") { Endian::Big } else { Endian::Little };
    let stored: Vec<f64> = scalar.decode(decoded.data(), endian);
    if stored.len() < rows * columns {
        let found = stored.len();
        return Err(bad(format!("truncated: expected {rows} × {columns} pixels, found {found}")));
    }
    let signed = decoded.pixel_representation() == dicom_pixeldata::PixelRepresentation::Signed;
    let finite = |value: Option<f64>, default| value.filter(|v| v.is_finite()).unwrap_or(default);
    let slope = finite(number(&object, tags::RESCALE_SLOPE), 1.0);
    let intercept = finite(number(&object, tags::RESCALE_INTERCEPT), 0.0);
    // Bits above the stored ones may hold overlays: they are cut off, and the sign is extended.
    let shift = 64 - u32::from(bits.1);
    let value = |v: f64| {
        let word = (v as u64) << shift;
        if signed { ((word as i64) >> shift) as f64 } else { (word >> shift) as f64 }
    };
    Ok(stored[..rows * columns].iter().map(|&v| (value(v) * slope + intercept) as f32).collect())
}

/// An error where the header and the compressed pixels contradict each other: decoders trust what they are
/// told, so what is wrong must be found first.
fn check_declared(
    object: &DefaultDicomObject,
    rows: usize,
    columns: usize,
) -> std::result::Result<(), String> {
    let samples = number(object, tags::SAMPLES_PER_PIXEL).unwrap_or(1.0);
    if samples != 1.0 {
        return Err(format!("expected grey pixels, found {samples} samples a pixel"));
    }
    let element = object.get(tags::PIXEL_DATA).ok_or("no pixel data")?;
    let Some(fragments) = element.fragments() else {
        let bits = number(object, tags::BITS_ALLOCATED).unwrap_or(16.0) as usize;
        let wanted = (rows * columns).saturating_mul(bits / 8);
        let found = element.to_bytes().map_err(|e| e.to_string())?.len();
        return if found >= wanted {
            Ok(())
        } else {
            Err(format!("truncated: {rows} × {columns} pixels need {wanted} bytes, found {found}"))
        };
    };
    let stream = fragments.concat();
    if rows * columns > stream.len().saturating_mul(MAX_RATIO) {
        return Err(format!("{rows} × {columns} pixels do not fit in {} compressed bytes", stream.len()));
    }
    match jpeg_frame(&stream) {
        Some((height, width, components)) if (height, width, components) != (rows, columns, 1) => {
            Err(format!(
                "the header says {rows} × {columns} grey pixels, its JPEG image {height} × {width} with {components} \
             components"
            ))
        }
        _ => Ok(()),
    }
}

/// Height, width and number of components of a JPEG image, from its frame header (ITU-T T.81, B.2.2).
fn jpeg_frame(stream: &[u8]) -> Option<(usize, usize, usize)> {
    if !stream.starts_with(&[0xff, 0xd8]) {
        return None;
    }
    let word = |at: usize| Some(usize::from(u16::from_be_bytes([*stream.get(at)?, *stream.get(at + 1)?])));
    let mut at = 2;
    loop {
        match (*stream.get(at)?, *stream.get(at + 1)?) {
            (0xff, 0xff) => at += 1,
            (0xff, marker @ 0xc0..=0xcf) if ![0xc4, 0xc8, 0xcc].contains(&marker) => {
                return Some((word(at + 5)?, word(at + 7)?, usize::from(*stream.get(at + 9)?)));
            }
            (0xff, _) => at += 2 + word(at + 2)?,
            _ => return None,
        }
    }
}
