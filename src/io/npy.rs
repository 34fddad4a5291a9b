//! NumPy arrays: `.npy`, and `.npz` archives of them. The format is that of NumPy's `numpy.lib.format`.

use std::io::Read;
use std::path::Path;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::io::array::{Array, count};
use crate::io::growing::Growing;
use crate::io::scalar::{Endian, Scalar};
use crate::tensor::{Field, Real};

pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads an `.npy` file: integers, booleans, floats or complex numbers, in C or Fortran order.
pub(crate) fn read(path: &Path) -> Result<Array> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    parse(&bytes).map_err(|e| Error::format(path, e))
}

/// Reads one array of an `.npz` archive: the one called `name`, or the only one.
pub(crate) fn read_archive(path: &Path, name: Option<&str>) -> Result<Array> {
    let bad = |e: zip::result::ZipError| Error::format(path, format!("not a readable npz archive: {e}"));
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut archive = zip::ZipArchive::new(std::io::BufReader::new(file)).map_err(bad)?;
    let names: Vec<String> = archive.file_names().map(|n| n.trim_end_matches(".npy").to_string()).collect();
    let wanted = match (name, &names[..]) {
        (Some(name), names) if names.iter().any(|n| n == name) => name.to_string(),
        (None, [only]) => only.clone(),
        _ => return Err(Error::format(path, format!("which array? It holds {}", names.join(", ")))),
    };
    let index = names.iter().position(|n| *n == wanted).unwrap_or(0);
    let mut bytes = Vec::new();
    // Grows with what is really there, whatever size the archive declares.
    let entry = archive.by_index(index).map_err(bad)?;
    entry.take(1 << 36).read_to_end(&mut bytes).map_err(|e| Error::format(path, format!("{wanted}: {e}")))?;
    parse(&bytes).map_err(|e| Error::format(path, format!("{wanted}: {e}")))
}

fn parse(bytes: &[u8]) -> std::result::Result<Array, String> {
    let truncated = || "truncated in the header".to_string();
    if !bytes.starts_with(MAGIC) {
        return Err("not an npy array: the first bytes are not \\x93NUMPY".into());
    }
    let version = *bytes.get(6).ok_or_else(truncated)?;
    let (start, length) = match (version, bytes.get(8..12)) {
        (1, Some(w)) => (10, usize::from(u16::from_le_bytes([w[0], w[1]]))),
        (2 | 3, Some(w)) => (12, u32::from_le_bytes([w[0], w[1], w[2], w[3]]) as usize),
        (_, None) => return Err(truncated()),
        _ => return Err(format!("expected npy format version 1 to 3, found {version}")),
    };
    let header = bytes.get(start..).and_then(|b| b.get(..length)).ok_or_else(truncated)?;
    let header = String::from_utf8_lossy(header);
    let body = &bytes[start + length..];
    let (scalar, endian, field) = descr(&header)?;
    let shape = shape(&header)?;
    let components = if field == Field::Complex { 2 } else { 1 };
    let wanted = count(&shape).and_then(|n| n.checked_mul(scalar.size() * components));
    let Some(body) = wanted.and_then(|n| body.get(..n)) else {
        return Err(format!("truncated: shape {shape:?} does not fit in the {} bytes of data", body.len()));
    };
    let fortran = value(&header, "fortran_order")?.starts_with("True");
    let stored: Vec<usize> = if fortran { shape.iter().rev().copied().collect() } else { shape };
    let array = Array::decode(body, scalar, endian, &stored, field).map_err(|e| e.to_string())?;
    if fortran { array.reversed().map_err(|e| e.to_string()) } else { Ok(array) }
}

/// The text after `'key':` in the header's Python dictionary.
fn value<'a>(header: &'a str, key: &str) -> std::result::Result<&'a str, String> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let at = quoted.iter().find_map(|q| header.find(q.as_str()).map(|i| i + q.len()));
    let rest = at.map(|at| header[at..].trim_start_matches([' ', ':']));
    rest.ok_or_else(|| format!("the header has no {key}: {}", header.trim()))
}

fn descr(header: &str) -> std::result::Result<(Scalar, Endian, Field), String> {
    let text = value(header, "descr")?;
    let unknown =
        || format!("expected an array of numbers, found descr {}", text.split(',').next().unwrap_or(""));
    let name =
        text.strip_prefix(['\'', '"']).and_then(|t| t.split(['\'', '"']).next()).ok_or_else(unknown)?;
    let endian = if name.starts_with('>') { Endian::Big } else { Endian::Little };
    let name = name.trim_start_matches(['<', '>', '|', '=']);
    let kind = name.chars().next().ok_or_else(unknown)?;
    let size: usize = name[kind.len_utf8()..].parse().map_err(|_| unknown())?;
    let (scalar, field) = match kind {
        'b' if size == 1 => (Some(Scalar::U8), Field::Real),
        'u' => (Scalar::integer(size, false), Field::Real),
        'i' => (Scalar::integer(size, true), Field::Real),
        'f' => (Scalar::float(size), Field::Real),
        'c' if size == 8 || size == 16 => (Scalar::float(size / 2), Field::Complex),
        _ => (None, Field::Real),
    };
    scalar.map(|s| (s, endian, field)).ok_or_else(unknown)
}

fn shape(header: &str) -> std::result::Result<Vec<usize>, String> {
    let text = value(header, "shape")?;
    let inner = text.strip_prefix('(').and_then(|t| t.split(')').next());
    let inner = inner.ok_or_else(|| format!("the header's shape is no tuple: {}", header.trim()))?;
    inner
        .split(',')
        .map(str::trim)
        .filter(|n| !n.is_empty())
        .map(|n| n.parse().map_err(|_| format!("the header's shape has the axis `{n}`")))
        .collect()
}

/// Writes f32 (or complex64) numbers in C order.
pub(crate) fn write(data: &Tensor, field: Field, path: &Path) -> Result<()> {
    let rank = data.rank() - usize::from(field == Field::Complex);
    let mut file = begin(path, &data.dims()[..rank], field)?;
    file.append(&f32::to_vec(data)?)?;
    file.finish()
}

/// Begins a file whose numbers follow in C order.
pub(crate) fn begin(path: &Path, shape: &[usize], field: Field) -> Result<Growing> {
    let descr = if field == Field::Complex { "<c8" } else { "<f4" };
    let lengths: String = shape.iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({lengths}), }}");
    // NumPy aligns the data to 64 bytes and ends the header with a newline.
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    Growing::create(path, &[MAGIC, &[1, 0], &length, header.as_bytes()].concat())
}
