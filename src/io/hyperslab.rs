//! Parts of HDF5 datasets: some rows of some pages, without reading the rest.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use candle_core::{DType, Tensor};
use flate2::read::ZlibDecoder;
use hdf5_pure::{Chunk, Layout};

use crate::error::{Error, Result};
use crate::io::array::count;
use crate::io::hdf5::{MAX_DEFLATE, Reader, layout};
use crate::io::scalar::{Endian, Scalar};
use crate::tensor::{Field, Real};

const DEFLATE: u16 = 1;
const SHUFFLE: u16 = 2;
const CHECKSUM: u16 = 3;

/// A dataset of real numbers with the axes [page, row, column]; two axes are one page.
#[derive(Debug)]
pub(crate) struct Pages {
    reader: Reader,
    name: String,
    shape: [usize; 3],
    scalar: Scalar,
    endian: Endian,
    place: Place,
}

/// Where the numbers lie.
#[derive(Debug)]
enum Place {
    /// One behind the other from this byte on.
    Run(u64),
    Chunks(Chunks),
    /// Stored in a way that only the library reads, and as a whole.
    Whole,
}

#[derive(Debug)]
struct Chunks {
    shape: [usize; 3],
    /// In the order in which they were applied.
    filters: Vec<u16>,
    /// By their place in the grid of chunks.
    stored: HashMap<[usize; 3], Chunk>,
}

impl Pages {
    /// Opens a dataset of three axes, or of any number from `least` on.
    pub(crate) fn open(reader: Reader, name: &str, least: usize) -> Result<Self> {
        reader.expect(name)?;
        let (datatype, lengths) = reader.described(name)?;
        let (scalar, endian, field) = layout(&datatype).ok_or_else(|| {
            reader.error(format!("{name}: expected numbers, found elements of type {datatype}"))
        })?;
        if field != Field::Real {
            return Err(reader.error(format!("{name}: expected real numbers, found complex ones")));
        }
        let shape = match lengths[..] {
            [rows, columns] if least <= 2 => [1, rows, columns],
            [pages, rows, columns] => [pages, rows, columns],
            _ => return Err(reader.error(format!("{name}: expected 3 axes, found shape {lengths:?}"))),
        };
        let bytes = shape.iter().product::<usize>() * scalar.size();
        let place = match reader.layout(name)? {
            // A size that isn't that of the shape is for the library to refuse.
            Layout::Contiguous { address: Some(address), size } if size == bytes as u64 => {
                Place::Run(address)
            }
            Layout::Chunked { chunk_shape, .. } => Chunks::of(&reader, name, shape, &chunk_shape)?,
            _ => Place::Whole,
        };
        Ok(Self { reader, name: name.into(), shape, scalar, endian, place })
    }

    pub(crate) fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Bytes that reading takes besides those of the part.
    pub(crate) fn resident(&self) -> usize {
        let whole = self.shape.iter().fold(4usize, |n, s| n.saturating_mul(*s));
        match &self.place {
            Place::Run(_) => 0,
            Place::Chunks(chunks) => 2 * self.scalar.size() * chunks.shape.iter().product::<usize>(),
            Place::Whole => whole.saturating_mul(2),
        }
    }

    /// [pages, rows, columns] in single precision.
    pub(crate) fn read(&self, pages: Range<usize>, rows: Range<usize>) -> Result<Tensor> {
        let columns = self.shape[2];
        let dims = [pages.len(), rows.len(), columns];
        match &self.place {
            Place::Whole => {
                let whole = self.reader.array(&self.name)?.to_f32()?.reshape(self.shape.to_vec())?;
                let part = whole.narrow(0, pages.start, pages.len())?.narrow(1, rows.start, rows.len())?;
                Ok(part.contiguous()?.to_dtype(DType::F32)?)
            }
            Place::Run(start) => {
                let mut file = self.file()?;
                let mut values = Vec::with_capacity(dims.iter().product());
                let line = (columns * self.scalar.size()) as u64;
                let mut bytes = vec![0; rows.len() * columns * self.scalar.size()];
                for page in pages {
                    let place = start + (page * self.shape[1] + rows.start) as u64 * line;
                    self.fill(&mut file, place, &mut bytes)?;
                    values.extend(self.scalar.decode::<f32>(&bytes, self.endian));
                }
                f32::tensor(values, &dims)
            }
            Place::Chunks(chunks) => {
                let mut file = self.file()?;
                let mut values = vec![0f32; dims.iter().product()];
                let mut buffers = [Vec::new(), Vec::new()];
                let [across, down, along] = chunks.shape;
                for a in pages.start / across..pages.end.div_ceil(across) {
                    for b in rows.start / down..rows.end.div_ceil(down) {
                        for c in 0..columns.div_ceil(along) {
                            self.unpack(&mut file, chunks, [a, b, c], &mut buffers)?;
                            let corner = [a * across, b * down, c * along];
                            let wanted = [&pages, &rows, &(0..columns)];
                            self.copy(&buffers[0], chunks.shape, corner, &mut values, wanted);
                        }
                    }
                }
                f32::tensor(values, &dims)
            }
        }
    }

    fn file(&self) -> Result<File> {
        File::open(self.reader.path()).map_err(|e| Error::io(self.reader.path(), e))
    }

    fn fill(&self, file: &mut File, place: u64, bytes: &mut [u8]) -> Result<()> {
        let read = file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(bytes));
        read.map_err(|e| self.reader.error(format!("{}: truncated or corrupt: {e}", self.name)))
    }

    /// The bytes of a chunk into the first of two buffers.
    fn unpack(
        &self,
        file: &mut File,
        chunks: &Chunks,
        at: [usize; 3],
        buffers: &mut [Vec<u8>; 2],
    ) -> Result<()> {
        let bad = |reason: String| self.reader.error(format!("{}: chunk {at:?}: {reason}", self.name));
        let chunk = chunks.stored.get(&at).ok_or_else(|| bad("was never written".into()))?;
        let size = self.scalar.size();
        let expected = chunks.shape.iter().product::<usize>() * size;
        if expected as u64 > chunk.storage_size.saturating_mul(MAX_DEFLATE) {
            return Err(bad(format!("{expected} bytes can't be packed into {}", chunk.storage_size)));
        }
        let [bytes, other] = buffers;
        // Checked against the length of the file when the dataset was opened.
        bytes.resize(chunk.storage_size as usize, 0);
        self.fill(file, chunk.address, bytes)?;
        for (index, filter) in chunks.filters.iter().enumerate().rev() {
            if chunk.filter_mask >> index & 1 == 1 {
                continue;
            }
            match *filter {
                DEFLATE => {
                    other.clear();
                    let mut packed = ZlibDecoder::new(&bytes[..]).take(expected as u64 + 4);
                    packed.read_to_end(other).map_err(|e| bad(format!("corrupt: {e}")))?;
                    std::mem::swap(bytes, other);
                }
                SHUFFLE => {
                    unshuffle(bytes, size, other);
                    std::mem::swap(bytes, other);
                }
                _ => bytes.truncate(bytes.len().saturating_sub(4)),
            }
        }
        if bytes.len() != expected {
            return Err(bad(format!("expected {expected} bytes, found {}", bytes.len())));
        }
        Ok(())
    }

    /// Copies what a chunk with its first element at `corner` shares with the ranges `wanted`.
    fn copy(
        &self,
        chunk: &[u8],
        shape: [usize; 3],
        corner: [usize; 3],
        out: &mut [f32],
        wanted: [&Range<usize>; 3],
    ) {
        let shared: [Range<usize>; 3] = std::array::from_fn(|axis| {
            let range = wanted[axis];
            range.start.max(corner[axis])..range.end.min(corner[axis] + shape[axis])
        });
        let ([_, rows, columns], size) = (wanted.map(|range| range.len()), self.scalar.size());
        let (across, count) = (shared[2].start, shared[2].len());
        for page in shared[0].clone() {
            for row in shared[1].clone() {
                let from = ((page - corner[0]) * shape[1] + row - corner[1]) * shape[2] + across - corner[2];
                let to = ((page - wanted[0].start) * rows + row - wanted[1].start) * columns + across;
                let line = &chunk[from * size..(from + count) * size];
                out[to..to + count].copy_from_slice(&self.scalar.decode::<f32>(line, self.endian));
            }
        }
    }
}

impl Chunks {
    /// The chunks of a dataset, where each is there and filtered in ways known here.
    fn of(reader: &Reader, name: &str, shape: [usize; 3], lengths: &[u64]) -> Result<Place> {
        let mut whole = [1; 3];
        let known = |filter: &u16| [DEFLATE, SHUFFLE, CHECKSUM].contains(filter);
        let filters = reader.filters(name)?;
        if !(2..=3).contains(&lengths.len()) || lengths.contains(&0) || !filters.iter().all(known) {
            return Ok(Place::Whole);
        }
        let skip = 3 - lengths.len();
        whole[skip..].iter_mut().zip(lengths).for_each(|(side, n)| *side = usize::try_from(*n).unwrap_or(0));
        let grid: [usize; 3] = std::array::from_fn(|axis| shape[axis].div_ceil(whole[axis].max(1)));
        let mut stored = HashMap::new();
        for chunk in reader.chunks(name)? {
            let mut at = [0; 3];
            for (axis, offset) in chunk.offset.iter().enumerate().take(lengths.len()) {
                at[skip + axis] = usize::try_from(*offset).unwrap_or(usize::MAX) / whole[skip + axis].max(1);
            }
            stored.insert(at, chunk);
        }
        let fits = count(&whole).is_some_and(|n| n > 0);
        // What was never written is for the library.
        let complete = count(&grid).is_some_and(|n| n == stored.len())
            && stored.keys().all(|at| at.iter().zip(&grid).all(|(at, n)| at < n));
        Ok(if fits && complete {
            Place::Chunks(Self { shape: whole, filters, stored })
        } else {
            Place::Whole
        })
    }
}

/// Puts together elements of `size` bytes from all their first bytes, all their second ones, and so on.
fn unshuffle(bytes: &[u8], size: usize, out: &mut Vec<u8>) {
    let elements = bytes.len() / size;
    out.clear();
    out.extend_from_slice(bytes);
    for (byte, plane) in bytes.chunks_exact(elements.max(1)).take(size).enumerate() {
        plane.iter().enumerate().for_each(|(element, value)| out[element * size + byte] = *value);
    }
}

#[cfg(test)]
mod tests {
    use hdf5_pure::FileBuilder;

    use super::*;

    #[test]
    fn parts_are_those_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let shape = [7, 10, 9];
        let values: Vec<u16> = (0..630).map(|i| (i * 37 % 1009) as u16).collect();
        let mut file = FileBuilder::new();
        let lengths = shape.map(|n| n as u64);
        file.create_dataset("run").with_u16_data(&values).with_shape(&lengths);
        file.create_dataset("chunks").with_u16_data(&values).with_shape(&lengths).with_chunks(&[3, 4, 5]);
        let packed = file.create_dataset("packed");
        packed
            .with_u16_data(&values)
            .with_shape(&lengths)
            .with_chunks(&[2, 3, 9])
            .with_shuffle()
            .with_deflate(4);
        file.create_dataset("page")
            .with_u16_data(&values[..90])
            .with_shape(&lengths[1..])
            .with_chunks(&[4, 4]);
        file.write(&path).unwrap();
        let whole = Tensor::from_vec(
            values.iter().map(|v| f32::from(*v)).collect(),
            &shape,
            &candle_core::Device::Cpu,
        );
        let whole = whole.unwrap();
        for name in ["run", "chunks", "packed", "page"] {
            let part = Pages::open(Reader::open(&path).unwrap(), name, 2).unwrap();
            assert!(!matches!(part.place, Place::Whole), "{name}");
            let pages = if name == "page" { 0..1 } else { 0..7 };
            for (pages, rows) in
                [(pages.clone(), 0..10), (pages.clone(), 3..8), (pages.end - 1..pages.end, 9..10)]
            {
                let found = part.read(pages.clone(), rows.clone()).unwrap();
                let expected = whole.narrow(0, pages.start, pages.len()).unwrap();
                let expected = expected.narrow(1, rows.start, rows.len()).unwrap();
                let difference = (found - expected).unwrap().abs().unwrap().max_all().unwrap();
                assert_eq!(difference.to_scalar::<f32>().unwrap(), 0.0, "{name} {pages:?} {rows:?}");
            }
        }
        assert!(
            Pages::open(Reader::open(&path).unwrap(), "none", 3).unwrap_err().to_string().contains("none")
        );
    }
}
