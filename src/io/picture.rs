//! Pictures: PNG and TIFF, a stack of TIFF pages as the slices of a volume.

use std::io::{BufReader, Cursor};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use image::{ColorType, ImageDecoder};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::encoder::{TiffEncoder, colortype};

use crate::error::{Error, Result};
use crate::io::array::count;
use crate::io::atomic::{self, Pending};
use crate::tensor::Real;

/// Most that the compressions of PNG and TIFF can shrink data.
const MAX_RATIO: u64 = 1032;

/// Reads a PNG file as [1, height, width], values as stored (0 to 255 or 65535); colours become luminance
/// (Rec. 709).
pub(crate) fn read_png(path: &Path) -> Result<Tensor> {
    let bad = |e: image::ImageError| Error::format(path, format!("not a readable PNG file: {e}"));
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let length = bytes.len() as u64;
    let decoder = image::codecs::png::PngDecoder::new(Cursor::new(bytes)).map_err(bad)?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > length.saturating_mul(MAX_RATIO) {
        let reason = format!("{width} × {height} pixels do not fit in the {length} bytes of the file");
        return Err(Error::format(path, reason));
    }
    let wide = matches!(
        decoder.color_type(),
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16
    );
    let picture = image::DynamicImage::from_decoder(decoder).map_err(bad)?;
    let values: Vec<f32> = if wide {
        picture.into_luma16().into_raw().into_iter().map(f32::from).collect()
    } else {
        picture.into_luma8().into_raw().into_iter().map(f32::from).collect()
    };
    f32::tensor(values, &[1, height as usize, width as usize])
}

/// Writes [1, height, width] as a 16-bit PNG of whole numbers.
///
/// # Errors
/// [`Error::Parameter`] for more than one slice, and where rounding to 0…65535 would change more than the
/// fraction: PNG holds no other numbers, and nothing is rescaled behind the user's back.
pub(crate) fn write_png(data: &Tensor, path: &Path) -> Result<()> {
    let &[1, height, width] = data.dims() else {
        return Err(Error::shape("PNG", "[1, height, width]: one slice of real numbers", data.dims()));
    };
    let values = f32::to_vec(data)?;
    let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    if low < -0.5 || high >= 65535.5 || (high - low < 2.0 && values.iter().any(|v| v.fract() != 0.0)) {
        let reason = "PNG holds whole numbers from 0 to 65535 only; write TIFF, or scale the values";
        return Err(Error::parameter("values", format!("{low} to {high}"), reason));
    }
    let pixels: Vec<u16> = values.iter().map(|v| v.round() as u16).collect();
    let (width, height) = (side(width)?, side(height)?);
    let picture = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(width, height, pixels)
        .ok_or_else(|| Error::shape("PNG", "[1, height, width]", data.dims()))?;
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).map_err(|e| Error::format(path, e))?;
    atomic::write(path, |out| std::io::Write::write_all(out, bytes.get_ref()))
}

/// The TIFF or PNG files of a folder, in the order of the numbers in their names.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(|e| Error::io(folder, e))?.path();
        let ending = file.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        if ["tif", "tiff", "png"].contains(&ending.as_str()) {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::format(folder, "holds no DICOM, TIFF or PNG files"));
    }
    files.sort_by_key(|file| natural(&file.file_name().unwrap_or_default().to_string_lossy()));
    Ok(files)
}

fn is_png(path: &Path) -> Result<bool> {
    let head = crate::io::open::start(path, 4).map_err(|e| Error::io(path, e))?;
    Ok(head == b"\x89PNG")
}

/// Pages, height and width of a PNG or TIFF file.
pub(crate) fn shape(path: &Path) -> Result<[usize; 3]> {
    if !is_png(path)? {
        return walk(path, |_, _, _| Ok(()));
    }
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let decoder = image::codecs::png::PngDecoder::new(BufReader::new(file))
        .map_err(|e| Error::format(path, format!("not a readable PNG file: {e}")))?;
    let (width, height) = decoder.dimensions();
    Ok([1, height as usize, width as usize])
}

/// Appends some rows of some pages of a PNG or TIFF file to `values`; the file has slices of this `shape`.
pub(crate) fn read_rows(
    path: &Path,
    [_, height, width]: [usize; 3],
    pages: Range<usize>,
    rows: Range<usize>,
    values: &mut Vec<f32>,
) -> Result<()> {
    let wanted = rows.start * width..rows.end * width;
    let part = |page: &[f32]| {
        page.get(wanted.clone()).filter(|_| page.len() == height * width).map(<[f32]>::to_vec).ok_or_else(
            || {
                Error::format(
                    path,
                    format!("expected {height} × {width} pixels, found {} in all", page.len()),
                )
            },
        )
    };
    if is_png(path)? {
        values.extend(part(&f32::to_vec(&read_png(path)?)?)?);
        return Ok(());
    }
    walk(path, |page, decoder, pixels| {
        if pages.contains(&page) {
            let read = floats(decoder.read_image().map_err(|e| unreadable(path, e))?);
            if read.len() != pixels {
                let reason = format!("page {page}: expected {pixels} pixels, found {}", read.len());
                return Err(Error::format(path, reason));
            }
            values.extend(part(&read)?);
        }
        Ok(())
    })?;
    Ok(())
}

fn unreadable(path: &Path, e: tiff::TiffError) -> Error {
    Error::format(path, format!("not a readable TIFF file: {e}"))
}

type Pages = Decoder<BufReader<std::fs::File>>;

/// Goes through the pages of a grey TIFF file of 8-, 16-, 32- or 64-bit integers or floats, and returns their number, height
/// and width; `visit` gets the number of a page, a decoder that is about to read it, and the number of its pixels.
fn walk(path: &Path, mut visit: impl FnMut(usize, &mut Pages, usize) -> Result<()>) -> Result<[usize; 3]> {
    let bad = |e| unreadable(path, e);
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let mut decoder = Decoder::new(BufReader::new(file)).map_err(bad)?;
    let (mut pages, first) = (0, decoder.dimensions().map_err(bad)?);
    loop {
        let (width, height) = decoder.dimensions().map_err(bad)?;
        if (width, height) != first {
            let reason =
                format!("page {pages} has {width} × {height} pixels, the first {} × {}", first.0, first.1);
            return Err(Error::format(path, reason));
        }
        let pixels = count(&[width as usize, height as usize]);
        let Some(pixels) = pixels.filter(|&n| n > 0 && n as u64 <= length.saturating_mul(MAX_RATIO)) else {
            let reason = format!("{width} × {height} pixels do not fit in the {length} bytes of the file");
            return Err(Error::format(path, reason));
        };
        if !matches!(decoder.colortype().map_err(bad)?, tiff::ColorType::Gray(_)) {
            return Err(Error::format(path, "expected grey pixels, found colours"));
        }
        let mut limits = Limits::default();
        limits.decoding_buffer_size = pixels.saturating_mul(8);
        limits.intermediate_buffer_size = pixels.saturating_mul(16);
        decoder = decoder.with_limits(limits);
        visit(pages, &mut decoder, pixels)?;
        pages += 1;
        // A chain of directories that leads back to itself has no end.
        if !decoder.more_images() || pages as u64 > length / 8 {
            break;
        }
        decoder.next_image().map_err(bad)?;
    }
    Ok([pages, first.1 as usize, first.0 as usize])
}

/// A key that sorts raw_9 before raw_10: the texts and numbers of a name in turn.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts: Vec<(String, u64)> = vec![(String::new(), 0)];
    let mut in_number = false;
    for c in name.chars() {
        if let Some(digit) = c.to_digit(10) {
            in_number = true;
            if let Some((_, number)) = parts.last_mut() {
                *number = number.saturating_mul(10).saturating_add(u64::from(digit));
            }
            continue;
        }
        if std::mem::take(&mut in_number) {
            parts.push((String::new(), 0));
        }
        if let Some((text, _)) = parts.last_mut() {
            text.push(c);
        }
    }
    parts
}

fn floats(result: DecodingResult) -> Vec<f32> {
    match result {
        DecodingResult::U8(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::I8(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::U16(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::I16(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::U32(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::I32(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::U64(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::I64(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::F16(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::F32(v) => v,
        DecodingResult::F64(v) => v.into_iter().map(|v| v as f32).collect(),
    }
}

/// Writes [page, height, width] as 32-bit floats, one page a slice.
pub(crate) fn write_tiff(data: &Tensor, path: &Path) -> Result<()> {
    let &[pages, height, width] = data.dims() else {
        return Err(Error::shape("TIFF", "[slices, height, width] of real numbers", data.dims()));
    };
    let mut writer = TiffWriter::create(path, [height, width])?;
    (0..pages).try_for_each(|page| writer.append(&f32::to_vec(&data.get(page)?)?))?;
    writer.finish()
}

/// A TIFF file that grows page by page, written without a buffer: the encoder would drop it with its errors.
pub(crate) struct TiffWriter {
    encoder: TiffEncoder<std::fs::File>,
    pending: Pending,
    width: u32,
    height: u32,
}

impl TiffWriter {
    pub(crate) fn create(path: &Path, [height, width]: [usize; 2]) -> Result<Self> {
        let (width, height) = (side(width)?, side(height)?);
        let pending = Pending::new(path)?;
        let encoder =
            TiffEncoder::new(pending.file()?).map_err(|e| Error::io(path, std::io::Error::other(e)))?;
        Ok(Self { encoder, pending, width, height })
    }

    /// Appends one page.
    pub(crate) fn append(&mut self, page: &[f32]) -> Result<()> {
        let written = self.encoder.write_image::<colortype::Gray32Float>(self.width, self.height, page);
        written.map_err(|e| Error::io(self.pending.path(), std::io::Error::other(e)))
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.pending.publish()
    }
}

fn side(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| Error::shape("picture", "sides below 2³²", &[length]))
}
