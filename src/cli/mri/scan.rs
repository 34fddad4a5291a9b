//! Scans from files of any kind that holds k-space.

use std::path::Path;

use candle_core::{DType, Tensor};
use wellposed::error::{Error, Result};
use wellposed::io::{Grid, MriScan, Provenance, Scan, Unit, Volume, read_array};
use wellposed::metric;
use wellposed::reconstruct::mri::sampled_points;
use wellposed::tensor::Field;

/// Reads a scan: one of this program's, or k-space [(slice,) (coil,) ky, kx] from another file (`dataset` chooses
/// among several).
pub fn read(path: &Path, dataset: Option<&str>) -> Result<MriScan> {
    match Scan::read(path) {
        Ok(Scan::Mri(scan)) => Ok(scan),
        Ok(Scan::Ct(_)) => Err(Error::format(path, "expected k-space, found a CT scan")),
        // Not one of this program's files; reading it as an array says what it is.
        Err(Error::Format { .. } | Error::Io { .. }) => raw(path, dataset),
        Err(error) => Err(error),
    }
}

/// K-space as another program wrote it. What is zero in all coils counts as not sampled.
fn raw(path: &Path, dataset: Option<&str>) -> Result<MriScan> {
    let array = read_array(path, dataset)?;
    if array.field != Field::Complex {
        return Err(Error::format(path, "expected complex k-space, found real numbers"));
    }
    let lengths: Vec<usize> = array.shape().iter().copied().filter(|n| *n != 1).collect();
    let shape = match lengths[..] {
        [ky, kx] => [1, 1, ky, kx, 2],
        [coils, ky, kx] => [1, coils, ky, kx, 2],
        [slices, coils, ky, kx] => [slices, coils, ky, kx, 2],
        _ => {
            let reason =
                format!("expected k-space [(slice,) (coil,) ky, kx], found the axes {:?}", array.shape());
            return Err(Error::format(path, reason));
        }
    };
    let kspace = array.data.reshape(&shape)?;
    let mask = sampled_points(&kspace).map_err(|e| Error::format(path, e))?;
    // Receivers have arbitrary units, beyond single precision's comfort at times.
    let scale = metric::maximum(&kspace.abs()?)?;
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::format(path, "the k-space is zero or not finite"));
    }
    let kspace = (kspace.to_dtype(DType::F64)? / scale)?.to_dtype(DType::F32)?;
    Ok(MriScan {
        kspace,
        mask,
        trajectory: None,
        coil_maps: None,
        noise: None,
        noise_covariance: None,
        scale,
        crop: None,
        target: Grid::centred([shape[0], shape[2], shape[3]], [1.0; 3])?,
        provenance: Provenance::new(None).with("source", path.display().to_string()),
    })
}

/// The magnitude volume of a complex image [slice, y, x, 2] in the scan's units, cropped to the picture.
pub fn volume(scan: &MriScan, image: &Tensor) -> Result<Volume> {
    let complex = Volume::on_grid((image * scan.scale)?, scan.target.clone(), Unit::Arbitrary)?;
    let magnitude = complex.magnitude()?;
    let Some([height, width]) = scan.crop else { return Ok(magnitude) };
    let [_, rows, columns] = scan.target.shape();
    let (top, left) = ((rows - height) / 2, (columns - width) / 2);
    let data = magnitude.data().narrow(1, top, height)?.narrow(2, left, width)?;
    let mut affine = *scan.target.affine();
    let shift = scan.target.direction(0) * left as f64 + scan.target.direction(1) * top as f64;
    (0..3).for_each(|axis| affine[(axis, 3)] += shift[axis]);
    Volume::new(data, affine, Unit::Arbitrary)
}

/// The shape [slice, row, column] of the volume that [`volume`] gives.
pub fn shape(scan: &MriScan) -> [usize; 3] {
    let [slices, height, width] = scan.target.shape();
    scan.crop.map_or([slices, height, width], |[height, width]| [slices, height, width])
}
