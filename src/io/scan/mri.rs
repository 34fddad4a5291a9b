//! Cartesian k-space with its sampling mask and coil maps.

use std::path::Path;

use candle_core::Tensor;
use hdf5_pure::AttrValue;

use crate::error::{Error, Result};
use crate::io::hdf5::{self, Reader};
use crate::io::scan::{Provenance, begin, finite, positive, read_provenance, read_target};
use crate::io::{Grid, Unit};
use crate::tensor::{Field, Real, vector};

/// An MRI scan: centred Cartesian k-space with all that is needed to reconstruct it.
///
/// ```no_run
/// use wellposed::io::MriScan;
/// let scan = MriScan::read("scan.h5")?;
/// println!("{:?} [slice, coil, ky, kx, 2]", scan.kspace.dims());
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MriScan {
    /// k-space [slice, coil, ky, kx, 2], the zero frequency at index ⌊n/2⌋; zero where not sampled.
    pub kspace: Tensor,
    /// 1 where sampled, 0 elsewhere: [ky, kx], or [slice, ky, kx] where slices differ.
    pub mask: Tensor,
    /// Coil sensitivities [coil, y, x, 2] or [slice, coil, y, x, 2].
    pub coil_maps: Option<Tensor>,
    /// Standard deviation of the noise of the real and of the imaginary part, in units of `kspace`.
    pub noise: Option<f64>,
    /// What the measured k-space was divided by to give `kspace`; multiply the image by it.
    pub scale: f64,
    /// Central [height, width] of the image that is the picture, where the scanner encoded more.
    pub crop: Option<[usize; 2]>,
    /// Grid of the encoded image, [slice, ky, kx] pixels.
    pub target: Grid,
    /// Seed and notes.
    pub provenance: Provenance,
}

impl MriScan {
    /// Reads a scan file of kind mri.
    ///
    /// # Errors
    /// As [`crate::io::Scan::read`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        match super::Scan::read(path.as_ref())? {
            super::Scan::Mri(scan) => Ok(scan),
            super::Scan::Ct(_) => Err(Error::format(path, "expected a scan of kind mri, found kind ct")),
        }
    }

    /// Writes the scan, after [`MriScan::validate`], in one piece.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        self.validate("")?;
        let mut file = begin("mri", &self.target, Unit::Arbitrary, &self.provenance);
        file.set_attr("scale", AttrValue::F64(self.scale));
        if let Some(noise) = self.noise {
            file.set_attr("noise", AttrValue::F64(noise));
        }
        if let Some([height, width]) = self.crop {
            file.set_attr("crop", AttrValue::U64Array(vec![height as u64, width as u64]));
        }
        hdf5::put(&mut file, "kspace", &self.kspace, Field::Complex, "slice, coil, ky, kx")?;
        let axes = if self.mask.rank() == 2 { "ky, kx" } else { "slice, ky, kx" };
        hdf5::put(&mut file, "mask", &self.mask, Field::Real, axes)?;
        if let Some(maps) = &self.coil_maps {
            let axes = if maps.rank() == 4 { "coil, y, x" } else { "slice, coil, y, x" };
            hdf5::put(&mut file, "coil_maps", maps, Field::Complex, axes)?;
        }
        hdf5::save(file, path.as_ref())
    }

    /// Checks shapes, ranges and that all numbers are finite; `name` goes before the name of what is wrong.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Parameter`], [`Error::NotFinite`].
    pub fn validate(&self, name: &str) -> Result<()> {
        let named = |what: &str| format!("{name}{what}");
        let found = self.kspace.dims();
        let &[slices, coils, height, width, 2] = found else {
            return Err(Error::shape(named("kspace"), "[slice, coil, ky, kx, 2]", found));
        };
        if slices * coils * height * width == 0 {
            return Err(Error::shape(named("kspace"), "at least one slice, coil, ky and kx", found));
        }
        let mask = self.mask.dims();
        if mask != [height, width] && mask != [slices, height, width] {
            let expected = format!("[{height}, {width}] or [{slices}, {height}, {width}], as the k-space");
            return Err(Error::shape(named("mask"), expected, mask));
        }
        check_mask(&named("mask"), &self.mask)?;
        if let Some(maps) = &self.coil_maps {
            let one = [coils, height, width, 2];
            if maps.dims() != one && maps.dims() != found {
                let expected = format!("{one:?} or {found:?}, as the k-space");
                return Err(Error::shape(named("coil_maps"), expected, maps.dims()));
            }
            vector::require_finite(&named("coil_maps"), maps)?;
        }
        if self.target.shape() != [slices, height, width] {
            let expected = format!("{:?}, as the k-space", [slices, height, width]);
            return Err(Error::shape(named("target"), expected, &self.target.shape()));
        }
        if let Some(crop) = self.crop
            && (crop.contains(&0) || crop[0] > height || crop[1] > width)
        {
            return Err(Error::shape(named("crop"), format!("1..={height}, 1..={width}"), &crop));
        }
        positive(named("scale"), self.scale)?;
        if let Some(noise) = self.noise {
            finite(named("noise"), noise)?;
            if noise < 0.0 {
                return Err(Error::parameter(
                    named("noise"),
                    noise,
                    "expected a standard deviation, at least 0",
                ));
            }
        }
        vector::require_finite(&named("kspace"), &self.kspace)
    }
}

fn check_mask(name: &str, mask: &Tensor) -> Result<()> {
    let values = f32::to_vec(mask)?;
    if let Some(bad) = values.iter().find(|v| **v != 0.0 && **v != 1.0) {
        return Err(Error::parameter(name, bad, "a mask holds 0 and 1 only"));
    }
    if values.iter().all(|v| *v == 0.0) {
        return Err(Error::parameter(name, 0, "nothing is sampled"));
    }
    Ok(())
}

/// Reads a scan whose kind is known to be mri.
pub(super) fn load(reader: &Reader) -> Result<MriScan> {
    let root = reader.attributes("")?;
    let (target, _) = read_target(reader)?;
    let kspace = reader.typed("kspace", Field::Complex, &[4])?;
    let mask = reader.typed("mask", Field::Real, &[2, 3])?;
    let coil_maps = if reader.has("coil_maps") {
        Some(reader.typed("coil_maps", Field::Complex, &[3, 4])?)
    } else {
        None
    };
    let crop = match root.numbers("crop") {
        Ok(crop) if crop.len() == 2 => Some([crop[0] as usize, crop[1] as usize]),
        _ => None,
    };
    let scan = MriScan {
        kspace,
        mask,
        coil_maps,
        noise: root.optional("noise")?,
        scale: root.number("scale")?,
        crop,
        target,
        provenance: read_provenance(reader)?,
    };
    scan.validate(&format!("{}: ", reader.path().display()))?;
    Ok(scan)
}
