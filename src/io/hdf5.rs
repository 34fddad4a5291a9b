//! HDF5 files: a checked reader and a few helpers for writers, over the crate `hdf5-pure`.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use hdf5_pure::{AttrValue, Chunk, Datatype, DatatypeByteOrder, File, FileBuilder, Layout};

use crate::error::{Error, Result, catch_panic};
use crate::io::array::{Array, count};
use crate::io::scalar::{Endian, Scalar};
use crate::tensor::{Field, Real};

/// Most that deflate can shrink data; a dataset that claims more than its stored bytes can hold is corrupt.
pub(crate) const MAX_DEFLATE: u64 = 1032;
/// Datasets whose chunks were never written (all fill value) may still be this large.
const MAX_UNWRITTEN: u64 = 1 << 24;

/// An open HDF5 file. Errors name the file and the dataset.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    path: PathBuf,
}

/// The bytes of a dataset with their meaning.
pub(crate) struct Raw {
    pub(crate) bytes: Vec<u8>,
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<usize>,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Opened by ourselves first, so that a missing file is an error of the system, not of the format.
        std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        let file = guarded(path, || File::open_streaming(path))?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Another reader of the same file.
    pub(crate) fn reopened(&self) -> Result<Self> {
        Self::open(&self.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// An error about this file.
    pub(crate) fn error(&self, reason: impl std::fmt::Display) -> Error {
        Error::format(&self.path, reason)
    }

    /// Runs a call of the HDF5 library, turning its errors and panics into ours.
    fn call<T>(
        &self,
        what: &str,
        call: impl FnOnce(&File) -> std::result::Result<T, hdf5_pure::Error>,
    ) -> Result<T> {
        guarded(&self.path, || call(&self.file)).map_err(|e| match e {
            Error::Format { path, reason } => Error::format(path, format!("{what}: {reason}")),
            other => other,
        })
    }

    /// Paths of all datasets, without a leading slash.
    pub(crate) fn datasets(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut open = vec![(String::new(), 0)];
        while let Some((group, depth)) = open.pop() {
            let (sets, groups) = self.call(&group, |f| {
                let g = if group.is_empty() { f.root() } else { f.group(&group)? };
                Ok((g.datasets()?, g.groups()?))
            })?;
            let inside = |name: String| if group.is_empty() { name } else { format!("{group}/{name}") };
            found.extend(sets.into_iter().map(inside));
            // A hard link back to a parent makes a group endless.
            if depth < 8 && found.len() < 10_000 {
                open.extend(groups.into_iter().map(|name| (inside(name), depth + 1)));
            }
        }
        found.sort();
        Ok(found)
    }

    pub(crate) fn has(&self, dataset: &str) -> bool {
        self.call(dataset, |f| f.dataset(dataset)).is_ok()
    }

    /// Axis lengths of a dataset.
    pub(crate) fn shape(&self, dataset: &str) -> Result<Vec<usize>> {
        let shape = self.call(dataset, |f| f.dataset(dataset)?.shape())?;
        shape
            .into_iter()
            .map(|n| usize::try_from(n).map_err(|_| self.error(format!("{dataset}: an axis of length {n}"))))
            .collect()
    }

    /// Type and axis lengths of a dataset, after a check that the file can hold as many bytes as they declare.
    pub(crate) fn described(&self, dataset: &str) -> Result<(Datatype, Vec<usize>)> {
        let shape = self.shape(dataset)?;
        let (datatype, size) = self.call(dataset, |f| {
            let d = f.dataset(dataset)?;
            Ok((d.datatype()?, d.element_size()?))
        })?;
        let total = count(&shape).and_then(|n| (n as u64).checked_mul(size));
        let capacity = self.capacity(dataset)?;
        if total.is_none_or(|n| n > capacity) {
            return Err(self.error(format!(
                "{dataset}: shape {shape:?} of {size}-byte elements does not fit what the file stores \
                 (at most {capacity} bytes)"
            )));
        }
        Ok((datatype, shape))
    }

    /// The bytes of a dataset.
    pub(crate) fn raw(&self, dataset: &str) -> Result<Raw> {
        let (datatype, shape) = self.described(dataset)?;
        let size = self.call(dataset, |f| f.dataset(dataset)?.element_size())?;
        let total = shape.iter().product::<usize>() as u64 * size;
        let bytes = self.call(dataset, |f| f.dataset(dataset)?.read_raw())?;
        if bytes.len() as u64 != total {
            return Err(self.error(format!("{dataset}: expected {total} bytes, found {}", bytes.len())));
        }
        Ok(Raw { bytes, datatype, shape })
    }

    /// How a dataset is stored.
    pub(crate) fn layout(&self, dataset: &str) -> Result<Layout> {
        self.call(dataset, |f| f.dataset(dataset)?.layout())
    }

    /// The chunks of a dataset that is stored in such.
    pub(crate) fn chunks(&self, dataset: &str) -> Result<Vec<Chunk>> {
        self.call(dataset, |f| f.dataset(dataset)?.chunks())
    }

    /// The filters of a dataset's chunks, in the order in which they were applied.
    pub(crate) fn filters(&self, dataset: &str) -> Result<Vec<u16>> {
        self.call(dataset, |f| Ok(f.dataset(dataset)?.filters()))
    }

    /// The most bytes that a dataset's storage can unpack to.
    fn capacity(&self, dataset: &str) -> Result<u64> {
        let length = std::fs::metadata(&self.path).map_err(|e| Error::io(&self.path, e))?.len();
        self.call(dataset, |f| {
            let d = f.dataset(dataset)?;
            if !d.is_chunked() {
                return Ok(length);
            }
            let ratio = if d.filters().is_empty() { 1 } else { MAX_DEFLATE };
            let chunks = d.chunks()?;
            // The library reads a chunk of whatever size the index claims.
            if chunks.iter().any(|c| c.address.checked_add(c.storage_size).is_none_or(|end| end > length)) {
                return Ok(0);
            }
            let stored = chunks.iter().fold(0u64, |sum, c| sum.saturating_add(c.storage_size));
            Ok(stored.min(length).saturating_mul(ratio).saturating_add(MAX_UNWRITTEN))
        })
    }

    /// A numeric dataset: integers, floats, booleans, or complex numbers as a compound of two floats
    /// (h5py's r, i; MATLAB's real, imag).
    pub(crate) fn array(&self, dataset: &str) -> Result<Array> {
        let raw = self.raw(dataset)?;
        let (scalar, endian, field) = layout(&raw.datatype).ok_or_else(|| {
            self.error(format!("{dataset}: expected numbers, found elements of type {}", raw.datatype))
        })?;
        Array::decode(&raw.bytes, scalar, endian, &raw.shape, field)
    }

    /// A real dataset in single precision, with this many axes.
    pub(crate) fn real(&self, dataset: &str, rank: usize) -> Result<Tensor> {
        self.typed(dataset, Field::Real, &[rank])
    }

    /// A dataset in single precision over `field`, with one of these numbers of axes (without [re, im]).
    pub(crate) fn typed(&self, dataset: &str, field: Field, ranks: &[usize]) -> Result<Tensor> {
        self.expect(dataset)?;
        let array = self.array(dataset)?;
        if array.field != field {
            let word = |f| if f == Field::Real { "real" } else { "complex" };
            let (want, got) = (word(field), word(array.field));
            return Err(self.error(format!("{dataset}: expected {want} numbers, found {got} ones")));
        }
        if !ranks.contains(&array.shape().len()) {
            let want = ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            return Err(
                self.error(format!("{dataset}: expected {want} axes, found shape {:?}", array.shape()))
            );
        }
        array.to_f32()
    }

    /// An error unless there is such a dataset.
    pub(crate) fn expect(&self, dataset: &str) -> Result<()> {
        if self.has(dataset) {
            return Ok(());
        }
        let there = self.datasets()?.join(", ");
        Err(self.error(format!("the dataset `{dataset}` is missing; found: {there}")))
    }

    /// A one-dimensional dataset (or a scalar) in double precision.
    pub(crate) fn numbers(&self, dataset: &str) -> Result<Vec<f64>> {
        let array = self.array(dataset)?;
        if array.field == Field::Complex {
            return Err(self.error(format!("{dataset}: expected real numbers, found complex ones")));
        }
        f64::to_vec(&array.data)
    }

    /// The text of a string dataset (its first element).
    pub(crate) fn text(&self, dataset: &str) -> Result<String> {
        let strings = self.call(dataset, |f| f.dataset(dataset)?.read_string())?;
        strings.into_iter().next().ok_or_else(|| self.error(format!("{dataset}: expected a text")))
    }

    /// The file's variable-length data.
    pub(crate) fn heap(&self) -> Result<Heap> {
        std::fs::read(&self.path).map(|bytes| Heap { bytes }).map_err(|e| Error::io(&self.path, e))
    }

    /// Attributes of a group (empty name: the root) or of a dataset.
    pub(crate) fn attributes(&self, object: &str) -> Result<Attributes<'_>> {
        let map = self.call(object, |f| {
            if object.is_empty() {
                return f.root().attrs();
            }
            match f.group(object) {
                Ok(group) => group.attrs(),
                Err(_) => f.dataset(object)?.attrs(),
            }
        })?;
        Ok(Attributes { reader: self, object: object.into(), map })
    }
}

/// The attributes of one object.
pub(crate) struct Attributes<'a> {
    reader: &'a Reader,
    object: String,
    map: std::collections::HashMap<String, AttrValue>,
}

impl Attributes<'_> {
    fn missing(&self, name: &str, want: &str) -> Error {
        let found = self.map.get(name).map_or("nothing", AttrValue::type_name);
        self.reader.error(format!("attribute `{}/{name}`: expected {want}, found {found}", self.object))
    }

    /// All attributes that are texts.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.map.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str> {
        self.map.get(name).and_then(AttrValue::as_str).ok_or_else(|| self.missing(name, "a text"))
    }

    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        let value = self.map.get(name).ok_or_else(|| self.missing(name, "numbers"))?;
        let integers = || value.to_i64s().map(|v| v.into_iter().map(|i| i as f64).collect());
        value.to_f64s().or_else(integers).ok_or_else(|| self.missing(name, "numbers"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<f64> {
        match self.numbers(name)?[..] {
            [value] => Ok(value),
            _ => Err(self.missing(name, "one number")),
        }
    }

    /// As [`Self::number`], where the attribute may be absent.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<f64>> {
        if self.map.contains_key(name) { self.number(name).map(Some) } else { Ok(None) }
    }

    pub(crate) fn integer(&self, name: &str) -> Option<u64> {
        self.map.get(name).and_then(AttrValue::as_u64)
    }
}

/// The global heap, which holds sequences of variable length (HDF5 File Format Specification, III.E).
pub(crate) struct Heap {
    bytes: Vec<u8>,
}

impl Heap {
    /// The f32 numbers that a reference (length, collection, index: 4 + 8 + 4 bytes) points to.
    pub(crate) fn floats(&self, reference: &[u8]) -> std::result::Result<Vec<f32>, String> {
        let length = number(reference, 0, 4).unwrap_or(0) as usize;
        if length == 0 {
            return Ok(Vec::new());
        }
        let place = number(reference, 4, 8).zip(number(reference, 12, 4));
        let object = place.and_then(|(collection, index)| self.object(collection as usize, index));
        let bytes = object.and_then(|o| o.get(..length.checked_mul(4)?));
        let bytes = bytes.ok_or("a sequence of variable length points outside of the file's heap")?;
        Ok(Scalar::F32.decode(bytes, Endian::Little))
    }

    fn object(&self, collection: usize, index: u64) -> Option<&[u8]> {
        let heap = self.bytes.get(collection..)?;
        if !heap.starts_with(b"GCOL") {
            return None;
        }
        let heap = heap.get(..number(heap, 8, 8)? as usize)?;
        let mut at = 16;
        loop {
            let (found, size) = (number(heap, at, 2)?, number(heap, at + 8, 8)? as usize);
            let object = heap.get(at + 16..)?.get(..size);
            match found {
                0 => return None,
                found if found == index => return object,
                _ => at = object.map(|o| at + 16 + o.len().next_multiple_of(8))?,
            }
        }
    }
}

/// A little-endian number of 2, 4 or 8 bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let word = bytes.get(at..at.checked_add(size)?)?;
    Some(word.iter().rev().fold(0, |n, byte| (n << 8) | u64::from(*byte)))
}

/// The type of a little-endian number.
pub(crate) fn number_type(datatype: &Datatype) -> Option<Scalar> {
    layout(datatype).filter(|l| (l.1, l.2) == (Endian::Little, Field::Real)).map(|l| l.0)
}

/// How the elements of a datatype are laid out, where they are numbers.
pub(crate) fn layout(datatype: &Datatype) -> Option<(Scalar, Endian, Field)> {
    let endian = |order: &DatatypeByteOrder| match order {
        DatatypeByteOrder::LittleEndian => Some(Endian::Little),
        DatatypeByteOrder::BigEndian => Some(Endian::Big),
        DatatypeByteOrder::Vax => None,
    };
    match datatype {
        Datatype::FloatingPoint { size, byte_order, .. } => {
            Some((Scalar::float(*size as usize)?, endian(byte_order)?, Field::Real))
        }
        Datatype::FixedPoint { size, byte_order, layout } => {
            Some((Scalar::integer(*size as usize, layout.signed)?, endian(byte_order)?, Field::Real))
        }
        Datatype::Enumeration { base_type, .. } => layout(base_type),
        Datatype::Compound { size, members } => {
            let [re, im] = &members[..] else { return None };
            let (scalar, order, Field::Real) = layout(&re.datatype)? else { return None };
            let packed = re.byte_offset == 0
                && im.byte_offset == scalar.size() as u64
                && *size as usize == 2 * scalar.size();
            (packed && layout(&im.datatype)? == (scalar, order, Field::Real)).then_some((
                scalar,
                order,
                Field::Complex,
            ))
        }
        _ => None,
    }
}

/// Runs a parser of the HDF5 library; what is wrong with the file becomes an error that names it.
fn guarded<T>(path: &Path, call: impl FnOnce() -> std::result::Result<T, hdf5_pure::Error>) -> Result<T> {
    match catch_panic(call) {
        Some(Ok(value)) => Ok(value),
        Some(Err(hdf5_pure::Error::Io(e))) => Err(Error::io(path, e)),
        Some(Err(error)) => Err(Error::format(path, format!("not a readable HDF5 file: {error}"))),
        None => Err(Error::format(path, "not a readable HDF5 file: its structure is corrupt")),
    }
}

/// Adds a dataset in single precision: real, or complex as h5py's compound (r, i).
pub(crate) fn put(file: &mut FileBuilder, name: &str, data: &Tensor, field: Field, axes: &str) -> Result<()> {
    let values = f32::to_vec(data)?;
    let rank = data.rank() - usize::from(field == Field::Complex);
    let shape: Vec<u64> = data.dims()[..rank].iter().map(|&n| n as u64).collect();
    let dataset = file.create_dataset(name);
    match field {
        Field::Real => dataset.with_f32_data(&values),
        Field::Complex => {
            let bytes = crate::io::scalar::f32_bytes(&values);
            dataset.with_compound_data(complex_type()?, bytes, values.len() as u64 / 2)
        }
    };
    dataset.with_shape(&shape).set_attr("axes", AttrValue::String(axes.into()));
    Ok(())
}

/// h5py's complex64.
pub(crate) fn complex_type() -> Result<Datatype> {
    hdf5_pure::CompoundTypeBuilder::new()
        .f32_field("r")
        .f32_field("i")
        .build()
        .map_err(|e| Error::Unsupported(format!("HDF5 complex numbers: {e}")))
}

/// Writes a finished file in one piece.
pub(crate) fn save(file: FileBuilder, path: &Path) -> Result<()> {
    crate::io::atomic::write_path(path, |temporary| {
        file.write(temporary).map_err(|e| match e {
            hdf5_pure::Error::Io(e) => Error::io(path, e),
            other => Error::format(path, other),
        })
    })
}
