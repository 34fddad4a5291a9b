//! Arrays [page, row, column] that are read in parts: datasets of HDF5 files, stacks and folders of pictures.

use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::io::hdf5::Reader;
use crate::io::hyperslab::Pages;
use crate::io::open::{is_matlab_hdf5, pictures};
use crate::io::{picture, read_array, read_volume};
use crate::tensor::{Field, Real, vector};

/// An array [page, row, column] of real numbers in one or several files. Datasets of HDF5 files and pictures are read in
/// parts; files of other formats are held in memory.
#[derive(Debug)]
pub struct Stack {
    path: PathBuf,
    shape: [usize; 3],
    source: Source,
}

#[derive(Debug)]
enum Source {
    Dataset(Pages),
    /// TIFF or PNG files with their numbers of pages.
    Pictures(Vec<(PathBuf, usize)>),
    Memory(Tensor),
}

impl Stack {
    /// Opens the array in a file, or the pictures of a folder in the order of the numbers in their names; `dataset` names
    /// one of several arrays. Two axes are one page.
    ///
    /// # Errors
    /// As [`read_volume`] and [`read_array`], but for numbers that aren't finite, which reading finds.
    pub fn open(path: impl AsRef<Path>, dataset: Option<&str>) -> Result<Self> {
        let path = path.as_ref();
        let hdf5 = path.is_file() && hdf5_pure::is_hdf5(path).map_err(|e| Error::io(path, e))?;
        match dataset {
            Some(name) if hdf5 && !is_matlab_hdf5(path) => Self::dataset(Reader::open(path)?, name, 2),
            Some(name) => Self::memory(path, array(path, name)?),
            None => match pictures(path)? {
                Some(files) => Self::pictures(path, &files),
                None => Self::memory(path, read_volume(path)?.data().clone()),
            },
        }
    }

    pub(crate) fn dataset(reader: Reader, name: &str, least: usize) -> Result<Self> {
        let path = reader.path().to_path_buf();
        let pages = Pages::open(reader, name, least)?;
        Ok(Self { path, shape: pages.shape(), source: Source::Dataset(pages) })
    }

    fn pictures(path: &Path, files: &[PathBuf]) -> Result<Self> {
        let (mut pictures, mut shape) = (Vec::with_capacity(files.len()), [0; 3]);
        for file in files {
            let [pages, height, width] = picture::shape(file)?;
            if shape[0] > 0 && shape[1..] != [height, width] {
                let reason = format!("{:?} pixels, the first file has {:?}", [height, width], &shape[1..]);
                return Err(Error::format(file, reason));
            }
            shape = [shape[0] + pages, height, width];
            pictures.push((file.clone(), pages));
        }
        Ok(Self { path: path.to_path_buf(), shape, source: Source::Pictures(pictures) })
    }

    fn memory(path: &Path, data: Tensor) -> Result<Self> {
        match *data.dims() {
            [pages, rows, columns] => {
                let shape = [pages, rows, columns];
                Ok(Self { path: path.to_path_buf(), shape, source: Source::Memory(data) })
            }
            ref found => Err(Error::shape(path.display().to_string(), "[page, row, column]", found)),
        }
    }

    /// Pages, rows and columns.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Bytes that are held, or that reading takes besides those of the part itself.
    pub fn resident(&self) -> usize {
        let page = self.shape[1..].iter().fold(8usize, |n, side| n.saturating_mul(*side));
        match &self.source {
            Source::Dataset(pages) => pages.resident(),
            Source::Pictures(_) => 2 * page,
            Source::Memory(data) => data.elem_count().saturating_mul(4),
        }
    }

    /// Some rows of some pages, f32 on the CPU.
    ///
    /// # Errors
    /// [`Error::Parameter`] for ranges that are empty or reach beyond the array; [`Error::Io`], [`Error::Format`],
    /// [`Error::NotFinite`].
    pub fn read(&self, pages: Range<usize>, rows: Range<usize>) -> Result<Tensor> {
        for (what, range, end) in [("pages", &pages, self.shape[0]), ("rows", &rows, self.shape[1])] {
            if range.is_empty() || range.end > end {
                let reason = format!("expected a range within 0..{end} of {}", self.path.display());
                return Err(Error::parameter(what, format!("{range:?}"), reason));
            }
        }
        let part = match &self.source {
            Source::Dataset(dataset) => dataset.read(pages, rows)?,
            Source::Memory(data) => {
                data.narrow(0, pages.start, pages.len())?.narrow(1, rows.start, rows.len())?.contiguous()?
            }
            Source::Pictures(files) => {
                let dims = [pages.len(), rows.len(), self.shape[2]];
                let (mut values, mut first) = (Vec::with_capacity(dims.iter().product()), 0);
                for (file, count) in files {
                    let here = pages.start.max(first)..pages.end.min(first + count);
                    if !here.is_empty() {
                        let here = here.start - first..here.end - first;
                        picture::read_rows(file, self.shape, here, rows.clone(), &mut values)?;
                    }
                    first += count;
                }
                f32::tensor(values, &dims)?
            }
        };
        vector::require_finite(&self.path.display().to_string(), &part)?;
        Ok(part)
    }

    /// The whole array.
    ///
    /// # Errors
    /// As [`Stack::read`].
    pub fn whole(&self) -> Result<Tensor> {
        self.read(0..self.shape[0], 0..self.shape[1])
    }
}

/// A real array of a file that holds several.
fn array(path: &Path, name: &str) -> Result<Tensor> {
    let array = read_array(path, Some(name))?;
    if array.field != Field::Real {
        return Err(Error::format(path, format!("{name}: expected real numbers, found complex ones")));
    }
    let data = array.to_f32()?;
    match data.rank() {
        2 => Ok(data.unsqueeze(0)?),
        3 => Ok(data),
        _ => Err(Error::shape(format!("{}: {name}", path.display()), "two or three axes", data.dims())),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::io::{Unit, Volume};

    #[test]
    fn parts_of_pictures_are_those_of_the_stack() {
        let folder = tempfile::tempdir().unwrap();
        let whole = Tensor::arange(0f32, 60.0, &Device::Cpu).unwrap().reshape((5, 4, 3)).unwrap();
        let write = |data: &Tensor, name: &str| {
            let data = data.contiguous().unwrap();
            Volume::centred(data, [1.0; 3], Unit::Arbitrary)
                .unwrap()
                .write(folder.path().join(name))
                .unwrap();
        };
        write(&whole, "all.tif");
        write(&whole, "all.npy");
        std::fs::create_dir(folder.path().join("views")).unwrap();
        // Two pages in one file, and a picture of whole numbers.
        write(&whole.narrow(0, 0, 2).unwrap(), "views/v1.tif");
        write(&whole.narrow(0, 2, 1).unwrap(), "views/v9.png");
        write(&whole.narrow(0, 3, 2).unwrap(), "views/v10.tif");
        for name in ["all.tif", "all.npy", "views"] {
            let stack = Stack::open(folder.path().join(name), None).unwrap();
            assert_eq!(stack.shape(), [5, 4, 3]);
            let part = stack.read(1..4, 2..3).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(part, [18., 19., 20., 30., 31., 32., 42., 43., 44.], "{name}");
            assert_eq!(stack.whole().unwrap().dims(), [5, 4, 3]);
            assert!(stack.read(4..6, 0..1).is_err() && stack.read(0..1, 2..2).is_err());
        }
    }
}
