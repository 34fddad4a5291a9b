//! MATLAB files before v7.3 (`-v6`, `-v7`); v7.3 is HDF5. The layout is that of MathWorks' "MAT-File
//! Format", level 5.

use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use crate::error::{Error, Result};
use crate::io::array::{Array, count};
use crate::io::scalar::{Endian, Scalar};
use crate::tensor::{Field, Real};

const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

type Parsed<T> = std::result::Result<T, String>;

/// Whether the first bytes of a file are those of a level-5 MAT-file.
pub(crate) fn is_matlab(head: &[u8]) -> bool {
    head.starts_with(b"MATLAB 5.0 MAT-file")
}

/// Reads the matrix called `name`, or the only numeric one, axes as MATLAB's pages: A(row, column, page, …)
/// comes as […, page, row, column].
pub(crate) fn read(path: &Path, name: Option<&str>) -> Result<Array> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let mut matrices = parse(&bytes).map_err(|e| Error::format(path, e))?;
    let names = matrices.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
    match name {
        Some(name) => matrices.retain(|(n, _)| n == name),
        None if names.len() != 1 => matrices.clear(),
        None => {}
    }
    let (_, array) = matrices
        .pop()
        .ok_or_else(|| Error::format(path, format!("which matrix? It holds {}", names.join(", "))))?;
    array.map_err(|e| Error::format(path, e))?.paged()
}

/// All numeric matrices with their names; a matrix that is broken is an error only when it is asked for.
fn parse(bytes: &[u8]) -> Parsed<Vec<(String, Parsed<Array>)>> {
    let endian = match bytes.get(126..128) {
        Some(b"IM") => Endian::Little,
        Some(b"MI") => Endian::Big,
        _ => return Err("not a MAT-file: the byte-order mark is neither IM nor MI".into()),
    };
    let mut rest = Elements { bytes: &bytes[128..], endian };
    let mut found = Vec::new();
    while !rest.bytes.is_empty() {
        let (kind, body) = rest.next()?;
        match kind {
            MATRIX => found.extend(matrix(body, endian)?),
            COMPRESSED => {
                let mut unpacked = Vec::new();
                ZlibDecoder::new(body)
                    .read_to_end(&mut unpacked)
                    .map_err(|e| format!("compressed data: {e}"))?;
                match (Elements { bytes: &unpacked, endian }).next()? {
                    (MATRIX, body) => found.extend(matrix(body, endian)?),
                    (kind, _) => {
                        return Err(format!("expected a compressed matrix, found an element of type {kind}"));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// A run of tagged elements.
struct Elements<'a> {
    bytes: &'a [u8],
    endian: Endian,
}

impl<'a> Elements<'a> {
    fn word(&self, at: usize) -> Parsed<u32> {
        let word = self.bytes.get(at..at + 4).ok_or("truncated in an element's tag")?;
        let word = [word[0], word[1], word[2], word[3]];
        Ok(if self.endian == Endian::Big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
    }

    /// Type and contents of the next element.
    fn next(&mut self) -> Parsed<(u32, &'a [u8])> {
        let tag = self.word(0)?;
        // A small element keeps its length in the upper half of the tag and its data in the next word.
        let (kind, start, length) = match tag >> 16 {
            0 => (tag, 8, self.word(4)? as usize),
            small => (tag & 0xffff, 4, small as usize),
        };
        let end = start + length;
        let body = self.bytes.get(start..end).ok_or_else(|| {
            format!(
                "truncated: an element of {length} bytes, {} are left",
                self.bytes.len().saturating_sub(start)
            )
        })?;
        // Elements are padded to 8 bytes, compressed ones are not.
        let padded = if kind == COMPRESSED { end } else { end.next_multiple_of(8) };
        self.bytes = self.bytes.get(padded..).unwrap_or_default();
        Ok((kind, body))
    }
}

/// Name and numbers of a matrix; nothing for cells, structures, texts, objects and sparse matrices.
fn matrix(body: &[u8], endian: Endian) -> Parsed<Option<(String, Parsed<Array>)>> {
    let mut parts = Elements { bytes: body, endian };
    let (_, flags) = parts.next()?;
    let flags = Elements { bytes: flags, endian }.word(0)?;
    let (_, dims) = parts.next()?;
    let (_, name) = parts.next()?;
    let name = String::from_utf8_lossy(name).into_owned();
    // Classes 6 to 15 are double, single and the integers.
    if !(6..=15).contains(&(flags & 0xff)) {
        return Ok(None);
    }
    let shape: Vec<usize> =
        Scalar::U32.decode::<f64>(dims, endian).into_iter().map(|n| n as usize).rev().collect();
    let mut numbers = |what: &str| -> Parsed<Vec<f64>> {
        let (kind, body) = parts.next()?;
        let scalar = scalar(kind).ok_or_else(|| format!("{name}: expected numbers, found type {kind}"))?;
        let wanted = count(&shape).and_then(|n| n.checked_mul(scalar.size()));
        if wanted != Some(body.len()) {
            return Err(format!(
                "{name}: {what} part has {} bytes, which does not fit {shape:?}",
                body.len()
            ));
        }
        Ok(scalar.decode(body, endian))
    };
    let complex = flags & 0x800 != 0;
    let array = numbers("the real").and_then(|re| match complex {
        false => f64::tensor(re, &shape).map_err(|e| e.to_string()),
        true => {
            let im = numbers("the imaginary")?;
            let pairs = re.into_iter().zip(im).flat_map(|(re, im)| [re, im]).collect();
            f64::tensor(pairs, &[&shape[..], &[2]].concat()).map_err(|e| e.to_string())
        }
    });
    let field = if complex { Field::Complex } else { Field::Real };
    Ok(Some((name, array.map(|data| Array { data, field }))))
}

fn scalar(kind: u32) -> Option<Scalar> {
    Some(match kind {
        1 => Scalar::I8,
        2 => Scalar::U8,
        3 => Scalar::I16,
        4 => Scalar::U16,
        5 => Scalar::I32,
        6 => Scalar::U32,
        7 => Scalar::F32,
        9 => Scalar::F64,
        12 => Scalar::I64,
        13 => Scalar::U64,
        _ => return None,
    })
}
