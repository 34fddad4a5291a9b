//! K-space with its sampling mask or trajectory, and coil maps.

use std::path::Path;

use candle_core::Tensor;
use hdf5_pure::AttrValue;

use crate::error::{Error, Result};
use crate::io::hdf5::{self, Reader};
use crate::io::scan::{Provenance, begin, finite, positive, read_provenance, read_target};
use crate::io::{Grid, Unit, cfl, ismrmrd};
use crate::tensor::{Field, Real, vector};

/// BART's axis of slices.
const SLICES: usize = 13;

/// An MRI scan: centred Cartesian k-space, or readouts along a trajectory, with all that is needed to reconstruct it.
///
/// ```no_run
/// use wellposed::io::MriScan;
/// let scan = MriScan::read("scan.h5")?;
/// println!("{:?} [slice, coil, ky, kx, 2]", scan.kspace.dims());
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MriScan {
    /// k-space [slice, coil, ky, kx, 2], the zero frequency at index ⌊n/2⌋; zero where not sampled. With a trajectory
    /// [slice, coil, readout, sample, 2]; a trajectory in three dimensions has one slice, the volume.
    pub kspace: Tensor,
    /// 1 where sampled, 0 elsewhere: [ky, kx], or [slice, ky, kx] where slices differ. With a trajectory, [readout, sample].
    pub mask: Tensor,
    /// Where the samples lie that are not on a grid: (ky, kx) in cycles per field of view, [readout, sample, 2], or (kz, ky,
    /// kx), [readout, sample, 3].
    pub trajectory: Option<Tensor>,
    /// Coil sensitivities [coil, y, x, 2] or [slice, coil, y, x, 2]; [coil, z, y, x, 2] along a trajectory in three dimensions.
    pub coil_maps: Option<Tensor>,
    /// Standard deviation of the noise of the real and of the imaginary part, in units of `kspace`.
    pub noise: Option<f64>,
    /// Covariance [coil, coil, 2] of the coils' noise, in the same units squared and for one part, where a noise scan
    /// measured it.
    pub noise_covariance: Option<Tensor>,
    /// What the measured k-space was divided by to give `kspace`; multiply the image by it.
    pub scale: f64,
    /// Central [height, width] of the image that is the picture, where the scanner encoded more.
    pub crop: Option<[usize; 2]>,
    /// Grid of the encoded image: [slice, ky, kx] pixels of Cartesian k-space.
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

    /// Writes the scan, after [`MriScan::validate`], in one piece, in the format that the end of the name asks for.
    ///
    /// `.mrd` is ISMRMRD, which holds whole readouts, but no coil maps; `.cfl` are BART's arrays of k-space
    /// (with a trajectory `…_traj.cfl` too), which hold no more than the numbers. Both are in the scanner's units. Any other
    /// name is a scan file of this program, with all there is.
    ///
    /// # Errors
    /// What [`MriScan::validate`] finds; [`Error::Unsupported`] for what ISMRMRD can't hold; [`Error::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        self.validate("")?;
        let path = path.as_ref();
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("mrd") => ismrmrd::write(self, path),
            Some("cfl") => self.write_cfl(path),
            _ => self.write_own(path),
        }
    }

    /// Whether samples lie along a trajectory in three dimensions.
    pub fn along_volume(&self) -> bool {
        self.trajectory.as_ref().is_some_and(|k| k.dims().last() == Some(&3))
    }

    /// As BART's axes are ordered: samples, lines, 1, coils, …, slices; along a trajectory 1, samples, readouts, coils.
    fn write_cfl(&self, path: &Path) -> Result<()> {
        let &[slices, coils, lines, samples, _] = self.kspace.dims() else { unreachable!("checked before") };
        let mut axes = vec![1; 16];
        axes[15 - SLICES] = slices;
        axes[12] = coils;
        let last = if self.trajectory.is_some() { [lines, samples, 1] } else { [1, lines, samples] };
        axes[13..].copy_from_slice(&last);
        axes.push(2);
        let kspace = (&self.kspace * self.scale)?.reshape(axes)?;
        if let Some(trajectory) = &self.trajectory {
            // (kx, ky, kz) in cycles per field of view.
            let axes = trajectory.dims()[2];
            let [ky, kx] = [trajectory.narrow(2, axes - 2, 1)?, trajectory.narrow(2, axes - 1, 1)?];
            let kz = if axes == 3 { trajectory.narrow(2, 0, 1)? } else { ky.zeros_like()? };
            let points = Tensor::cat(&[&kx, &ky, &kz], 2)?;
            cfl::write(&points, Field::Real, &cfl::trajectory_of(path))?;
        }
        cfl::write(&kspace, Field::Complex, path)
    }

    fn write_own(&self, path: &Path) -> Result<()> {
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
            let axes = match maps.rank() {
                4 => "coil, y, x",
                _ if self.along_volume() => "coil, z, y, x",
                _ => "slice, coil, y, x",
            };
            hdf5::put(&mut file, "coil_maps", maps, Field::Complex, axes)?;
        }
        if let Some(trajectory) = &self.trajectory {
            let axes = if self.along_volume() {
                "readout, sample, (kz, ky, kx)"
            } else {
                "readout, sample, (ky, kx)"
            };
            hdf5::put(&mut file, "trajectory", trajectory, Field::Real, axes)?;
        }
        if let Some(covariance) = &self.noise_covariance {
            hdf5::put(&mut file, "noise_covariance", covariance, Field::Complex, "coil, coil")?;
        }
        hdf5::save(file, path)
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
        let [image_slices, rows, columns] = self.target.shape();
        let volume = self.along_volume();
        if volume && slices != 1 {
            let expected = "one slice, the volume, along a trajectory in three dimensions";
            return Err(Error::shape(named("kspace"), expected, found));
        }
        if (image_slices != slices && !volume)
            || (self.trajectory.is_none() && [rows, columns] != [height, width])
        {
            let expected = format!("{:?}, as the k-space", [slices, height, width]);
            return Err(Error::shape(named("target"), expected, &self.target.shape()));
        }
        if let Some(trajectory) = &self.trajectory {
            let dims = trajectory.dims();
            if dims != [height, width, 2] && dims != [height, width, 3] {
                let expected = format!("[{height}, {width}, 2 or 3], as the k-space");
                return Err(Error::shape(named("trajectory"), expected, trajectory.dims()));
            }
            vector::require_finite(&named("trajectory"), trajectory)?;
        }
        if let Some(maps) = &self.coil_maps {
            let one = [coils, rows, columns, 2];
            let mut each = [slices, coils, rows, columns, 2];
            if volume {
                each[..2].copy_from_slice(&[coils, image_slices]);
            }
            if (volume || maps.dims() != one) && maps.dims() != each {
                let expected = format!("{one:?} or {each:?}, as k-space and image");
                return Err(Error::shape(named("coil_maps"), expected, maps.dims()));
            }
            vector::require_finite(&named("coil_maps"), maps)?;
        }
        if let Some(covariance) = &self.noise_covariance {
            if covariance.dims() != [coils, coils, 2] {
                let expected = format!("[{coils}, {coils}, 2], as the k-space");
                return Err(Error::shape(named("noise_covariance"), expected, covariance.dims()));
            }
            vector::require_finite(&named("noise_covariance"), covariance)?;
        }
        if let Some(crop) = self.crop
            && (crop.contains(&0) || crop[0] > rows || crop[1] > columns)
        {
            return Err(Error::shape(named("crop"), format!("1..={rows}, 1..={columns}"), &crop));
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
    let optional = |name: &str, field: Field, ranks: &[usize]| {
        reader.has(name).then(|| reader.typed(name, field, ranks)).transpose()
    };
    let coil_maps = optional("coil_maps", Field::Complex, &[3, 4])?;
    let trajectory = optional("trajectory", Field::Real, &[3])?;
    let noise_covariance = optional("noise_covariance", Field::Complex, &[2])?;
    let crop = match root.numbers("crop") {
        Ok(crop) if crop.len() == 2 => Some([crop[0] as usize, crop[1] as usize]),
        _ => None,
    };
    let scan = MriScan {
        kspace,
        mask,
        trajectory,
        coil_maps,
        noise: root.optional("noise")?,
        noise_covariance,
        scale: root.number("scale")?,
        crop,
        target,
        provenance: read_provenance(reader)?,
    };
    scan.validate(&format!("{}: ", reader.path().display()))?;
    Ok(scan)
}
