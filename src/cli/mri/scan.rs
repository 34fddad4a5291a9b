//! Scans from files of any kind that holds k-space.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use wellposed::error::{Error, Result};
use wellposed::io::{Array, Grid, MriScan, Provenance, Scan, Unit, Volume, read_array};
use wellposed::metric;
use wellposed::reconstruct::mri::sampled_points;
use wellposed::tensor::Field;

use super::volumetric;

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
    if let Some(beside) = trajectory_beside(path) {
        return along(path, &array, &beside);
    }
    if volumetric::is_cfl_volume(path, &array) {
        return volumetric::scan(path, &array);
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
    scan(path, &kspace, mask, None, [shape[0], shape[2], shape[3]])
}

/// The array that BART's tools want beside k-space that is not on a grid, where it is there: scan.cfl → scan_traj.
fn trajectory_beside(path: &Path) -> Option<PathBuf> {
    let stem = match path.extension().and_then(|e| e.to_str()) {
        Some("cfl" | "hdr") => path.with_extension(""),
        Some(_) => return None,
        None => path.to_path_buf(),
    };
    let beside = PathBuf::from(format!("{}_traj", stem.display()));
    PathBuf::from(format!("{}.cfl", beside.display())).exists().then_some(beside)
}

/// BART's k-space along a trajectory: samples, readouts, coils, …, slices at (kx, ky, kz) in cycles per field of view. The
/// image is as large as the trajectory resolves; it is a volume where kz isn't 0 everywhere.
fn along(path: &Path, array: &Array, beside: &Path) -> Result<MriScan> {
    let bad = |reason: String| Error::format(path, reason);
    let points = read_array(beside, None)?;
    let (&[readouts, samples, 3], &[.., lines, length, 1]) = (points.shape(), array.shape()) else {
        let found = format!("{:?} and {:?}", array.shape(), points.shape());
        return Err(bad(format!(
            "expected axes [.., readout, sample, 1] and [readout, sample, 3], found {found}"
        )));
    };
    if [lines, length] != [readouts, samples] {
        return Err(bad(format!(
            "{lines} × {length} samples, but {readouts} × {samples} points of the trajectory"
        )));
    }
    // Real parts of (kx, ky, kz).
    let values: Vec<f32> = points.to_f32()?.flatten_all()?.to_vec1()?;
    let points: Vec<[f32; 3]> = values.chunks_exact(6).map(|p| [p[0], p[2], p[4]]).collect();
    let side =
        |axis: usize| points.iter().map(|p| 2 * p[axis].abs().round().min(1e4) as usize).fold(2, usize::max);
    let axes = if points.iter().any(|p| p[2] != 0.0) { 3 } else { 2 };
    let trajectory: Vec<f32> = points.iter().flat_map(|p| p[..axes].iter().rev().copied()).collect();
    let trajectory = Tensor::from_vec(trajectory, (readouts, samples, axes), &Device::Cpu)?;
    let batch = &array.shape()[..array.shape().len() - 3];
    let coils = batch.last().copied().unwrap_or(1);
    let slices = array.data.elem_count() / (2 * coils * readouts * samples).max(1);
    if axes == 3 && slices != 1 {
        return Err(bad(format!("{slices} volumes along a trajectory in three dimensions; expected one")));
    }
    let image = [if axes == 3 { side(2) } else { slices }, side(1), side(0)];
    let kspace = array.data.reshape((slices, coils, readouts, samples, 2))?;
    let mask = Tensor::ones((readouts, samples), DType::F32, &Device::Cpu)?;
    scan(path, &kspace, mask, Some(trajectory), image)
}

/// The scan of k-space [slice, coil, line, sample, 2] in arbitrary units, with the image's [depth, height, width].
fn scan(
    path: &Path,
    kspace: &Tensor,
    mask: Tensor,
    trajectory: Option<Tensor>,
    image: [usize; 3],
) -> Result<MriScan> {
    // Receivers have arbitrary units, beyond single precision's comfort at times.
    let scale = metric::maximum(&kspace.abs()?)?;
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::format(path, "the k-space is zero or not finite"));
    }
    let kspace = (kspace.to_dtype(DType::F64)? / scale)?.to_dtype(DType::F32)?;
    Ok(MriScan {
        kspace,
        mask,
        trajectory,
        coil_maps: None,
        noise: None,
        noise_covariance: None,
        scale,
        crop: None,
        target: Grid::centred(image, [1.0; 3])?,
        provenance: Provenance::new(None).with("source", path.display().to_string()),
    })
}

/// The magnitude volume of a complex image [slice, y, x, 2] in the scan's units, cropped to the picture.
pub fn volume(scan: &MriScan, image: &Tensor) -> Result<Volume> {
    // Along a trajectory in three dimensions, or with maps for each slice, there is no axis of a batch.
    let [slices, height, width] = scan.target.shape();
    let image = image.reshape((slices, height, width, 2))?;
    let complex = Volume::on_grid((image * scan.scale)?, scan.target.clone(), Unit::Arbitrary)?;
    let magnitude = volumetric::restored(scan, complex.magnitude()?)?;
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
    let picture = scan.crop.map_or([slices, height, width], |[height, width]| [slices, height, width]);
    volumetric::shape(scan, picture)
}
