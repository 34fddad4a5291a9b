//! BART's arrays: a text header `.hdr` with the axis lengths and complex64 numbers in `.cfl`, the first
//! axis fastest.

use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::io::array::{Array, count};
use crate::io::atomic;
use crate::io::scalar::{Endian, Scalar, f32_bytes};
use crate::tensor::{Field, Real};

/// The number of axes in BART.
const AXES: usize = 16;

/// Reads a pair of files, named by either of them or without ending. The axes are in the opposite order of
/// BART's, so that the last one is the fastest (readout, for k-space), without BART's trailing axes of
/// length 1 beyond the two of an image: k-space of one slice comes as [coil, 1, ky, kx].
pub(crate) fn read(path: &Path) -> Result<Array> {
    let (header, data) = pair(path);
    let text = std::fs::read(&header).map_err(|e| Error::io(&header, e))?;
    let mut shape = dimensions(&String::from_utf8_lossy(&text)).map_err(|e| Error::format(&header, e))?;
    while shape.len() > 2 && shape.last() == Some(&1) {
        shape.pop();
    }
    shape.reverse();
    let length = std::fs::metadata(&data).map_err(|e| Error::io(&data, e))?.len();
    let wanted = count(&shape).map(|n| n as u64 * 8);
    if wanted != Some(length) {
        let reason = format!("expected 8 bytes for each of {shape:?} numbers, found {length} bytes");
        return Err(Error::format(&data, reason));
    }
    let bytes = std::fs::read(&data).map_err(|e| Error::io(&data, e))?;
    if bytes.len() as u64 != length {
        return Err(Error::format(&data, "changed while it was read"));
    }
    Array::decode(&bytes, Scalar::F32, Endian::Little, &shape, Field::Complex)
}

/// Whether the first bytes of a file are those of BART's header.
pub(crate) fn is_header(head: &[u8]) -> bool {
    head.starts_with(b"# Dimensions")
}

/// The header and the data of the same array.
fn pair(path: &Path) -> (PathBuf, PathBuf) {
    let stem = match path.extension().and_then(|e| e.to_str()) {
        Some("cfl" | "hdr") => path.with_extension(""),
        _ => path.to_path_buf(),
    };
    let ending = |end: &str| PathBuf::from(format!("{}.{end}", stem.display()));
    (ending("hdr"), ending("cfl"))
}

/// The array of the trajectory that belongs to the k-space of this name: scan.cfl → scan_traj.cfl.
pub(crate) fn trajectory_of(path: &Path) -> PathBuf {
    let (_, data) = pair(path);
    PathBuf::from(format!("{}_traj.cfl", data.with_extension("").display()))
}

fn dimensions(text: &str) -> std::result::Result<Vec<usize>, String> {
    let mut lines = text.lines().skip_while(|line| line.trim() != "# Dimensions");
    let line = lines.nth(1).ok_or("expected a line `# Dimensions` and one with the axis lengths")?;
    let lengths: Vec<usize> = line
        .split_whitespace()
        .map(|n| n.parse().map_err(|_| format!("expected an axis length, found `{n}`")))
        .collect::<std::result::Result<_, String>>()?;
    match lengths.len() {
        1..=AXES if !lengths.contains(&0) => Ok(lengths),
        1..=AXES => Err(format!("expected axis lengths of at least 1, found {line}")),
        n => Err(format!("expected 1 to {AXES} axes, found {n}")),
    }
}

/// Writes complex numbers [.., y, x, 2] so that BART sees axes (x, y, ..); real numbers get imaginary part 0.
pub(crate) fn write(data: &Tensor, field: Field, path: &Path) -> Result<()> {
    let rank = data.rank() - usize::from(field == Field::Complex);
    if rank > AXES {
        return Err(Error::shape("cfl", format!("at most {AXES} axes"), data.dims()));
    }
    let mut shape: Vec<usize> = data.dims()[..rank].iter().rev().copied().collect();
    shape.resize(AXES, 1);
    let mut values = f32::to_vec(data)?;
    if field == Field::Real {
        values = values.into_iter().flat_map(|v| [v, 0.0]).collect();
    }
    let (header, cfl) = pair(path);
    atomic::write(&cfl, |out| values.chunks(1 << 16).try_for_each(|part| out.write_all(&f32_bytes(part))))?;
    let lengths: String = shape.iter().map(|n| format!("{n} ")).collect();
    atomic::write(&header, |out| writeln!(out, "# Dimensions\n{lengths}"))
}
