//! Volumes written slab by slab, in the formats whose files can grow.

use std::path::{Path, PathBuf};

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::io::growing::Growing;
use crate::io::open::{FOLDER, ending};
use crate::io::{DicomOptions, Grid, Unit, dicom, nifti, npy, picture};
use crate::tensor::{Field, Real, vector};

/// Formats that grow slice by slice.
const GROWING: &str = ".nii, .nii.gz, .npy, .tif, or / for a DICOM series";

/// A real volume in the making: slices are appended from the first to the last. The file appears when it is whole, and
/// not at all where the writer is dropped before.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use wellposed::io::{Grid, SliceWriter, Unit, read_volume};
/// let path = tempfile::tempdir()?.keep().join("a.nii.gz");
/// let mut writer = SliceWriter::create(&path, &Grid::centred([3, 8, 8], [1.0; 3])?, Unit::Arbitrary)?;
/// for slices in [2, 1] {
///     writer.append(&Tensor::ones((slices, 8, 8), DType::F32, &Device::Cpu)?)?;
/// }
/// writer.finish()?;
/// assert_eq!(read_volume(&path)?.grid().shape(), [3, 8, 8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SliceWriter {
    path: PathBuf,
    shape: [usize; 3],
    written: usize,
    sink: Sink,
}

enum Sink {
    Numbers(Growing),
    Tiff(picture::TiffWriter),
    Dicom(Box<dicom::SeriesWriter>),
}

impl SliceWriter {
    /// Begins a volume in the format that the end of the name asks for, as [`Volume::write`](crate::io::Volume::write)
    /// writes it; in a DICOM series what is no whole HU is scaled to 16 bits slab by slab.
    ///
    /// # Errors
    /// [`Error::Parameter`] for formats that are written as a whole, and as [`Volume::write`](crate::io::Volume::write).
    pub fn create(path: impl AsRef<Path>, grid: &Grid, unit: Unit) -> Result<Self> {
        let (path, shape) = (path.as_ref(), grid.shape());
        let sink = match ending(path)? {
            ".nii" | ".nii.gz" => Sink::Numbers(nifti::begin(path, grid, unit, Field::Real)?),
            ".npy" => Sink::Numbers(npy::begin(path, &shape, Field::Real)?),
            ".tif" | ".tiff" => Sink::Tiff(picture::TiffWriter::create(path, [shape[1], shape[2]])?),
            FOLDER => {
                let series = dicom::SeriesWriter::create(path, grid, unit, &DicomOptions::default())?;
                Sink::Dicom(Box::new(series))
            }
            _ => {
                let reason = format!("is written as a whole; formats that grow slab by slab: {GROWING}");
                return Err(Error::parameter("output", path.display(), reason));
            }
        };
        Ok(Self { path: path.to_path_buf(), shape, written: 0, sink })
    }

    /// Appends slices [slice, height, width].
    ///
    /// # Errors
    /// [`Error::Shape`] for slices of another size, or more than there are; [`Error::NotFinite`], [`Error::Io`].
    pub fn append(&mut self, slices: &Tensor) -> Result<()> {
        let [all, height, width] = self.shape;
        match *slices.dims() {
            [more, h, w] if (h, w) == (height, width) && self.written + more <= all => {}
            ref found => {
                let expected = format!("[up to {}, {height}, {width}]", all - self.written);
                return Err(Error::shape("slices", expected, found));
            }
        }
        vector::require_finite("slices", slices)?;
        // One at a time: the copies stay small.
        for slice in 0..slices.dims()[0] {
            let values = f32::to_vec(&slices.get(slice)?)?;
            match &mut self.sink {
                Sink::Numbers(out) => out.append(&values)?,
                Sink::Tiff(out) => out.append(&values)?,
                Sink::Dicom(_) => {}
            }
        }
        if let Sink::Dicom(out) = &mut self.sink {
            out.append(slices)?;
        }
        self.written += slices.dims()[0];
        Ok(())
    }

    /// Makes the file appear under its name.
    ///
    /// # Errors
    /// [`Error::Shape`] where slices are missing, [`Error::Io`].
    pub fn finish(self) -> Result<()> {
        if self.written != self.shape[0] {
            let name = format!("slices of {}", self.path.display());
            return Err(Error::shape(name, format!("[{}]", self.shape[0]), &[self.written]));
        }
        match self.sink {
            Sink::Numbers(out) => out.finish(),
            Sink::Tiff(out) => out.finish(),
            Sink::Dicom(out) => out.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::io::{Volume, read_volume};

    #[test]
    fn slabs_make_the_same_file_as_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let data = Tensor::arange(0f32, 5.0 * 24.0, &Device::Cpu).unwrap().reshape((5, 4, 6)).unwrap();
        let volume = Volume::centred((data * 7.0).unwrap(), [2.0, 1.0, 0.5], Unit::Hounsfield).unwrap();
        for name in ["a.nii", "a.nii.gz", "a.npy", "a.tif", "a/"] {
            let (own, slabs) = (folder.path().join(format!("whole-{name}")), folder.path().join(name));
            volume.write(&own).unwrap();
            let mut writer = SliceWriter::create(&slabs, volume.grid(), volume.unit()).unwrap();
            for (first, count) in [(0, 2), (2, 1), (3, 2)] {
                writer.append(&volume.data().narrow(0, first, count).unwrap()).unwrap();
            }
            assert!(writer.append(&volume.data().narrow(0, 0, 1).unwrap()).is_err());
            assert!(!slabs.exists());
            writer.finish().unwrap();
            let (own, slabs) = (read_volume(own).unwrap(), read_volume(slabs).unwrap());
            let numbers = |v: &Volume| v.data().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(numbers(&own), numbers(&slabs), "{name}");
            assert_eq!((own.grid(), own.unit()), (slabs.grid(), slabs.unit()), "{name}");
        }
        let refused = SliceWriter::create(folder.path().join("a.h5"), volume.grid(), Unit::Hounsfield);
        assert!(refused.err().unwrap().to_string().contains(".nii.gz"));
        let half = SliceWriter::create(folder.path().join("b.nii"), volume.grid(), Unit::Hounsfield).unwrap();
        assert!(half.finish().is_err());
        assert!(
            std::fs::read_dir(folder.path()).unwrap().all(|f| !f
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with('.'))
        );
    }
}
