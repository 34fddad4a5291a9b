//! Volumes that were encoded in three dimensions: along the fully sampled readout one transform makes slices of them, which
//! are reconstructed like any others, and turned back in the end.

use std::path::Path;

use candle_core::{DType, Tensor};
use wellposed::error::{Error, Result};
use wellposed::io::{Array, Grid, MriScan, Provenance, Unit, Volume, read_array};
use wellposed::metric;
use wellposed::reconstruct::mri::sampled_points;
use wellposed::tensor::{Buffer, Field, fft};

/// The note of a scan whose slices lie along another axis of the volume than the first.
const NOTE: &str = "slices along";
const AXES: [&str; 3] = ["z", "y", "x"];
/// The part of samples that may be zero in all coils though they were measured.
const BY_CHANCE: f64 = 0.01;

/// The axes of a volume with `axis` in front.
fn order(axis: usize) -> [usize; 3] {
    let rest: Vec<usize> = (0..3).filter(|a| *a != axis).collect();
    [axis, rest[0], rest[1]]
}

/// The volume with its axes [z, y, x] in another order, every voxel where it was.
fn permuted(volume: &Volume, order: [usize; 3], unit: Unit) -> Result<Volume> {
    let mut axes = order.to_vec();
    axes.extend(3..volume.data().rank());
    let mut affine = *volume.grid().affine();
    // Columns of the affine go with x, y, z.
    order.iter().enumerate().for_each(|(to, from)| {
        affine.set_column(2 - to, &volume.grid().affine().column(2 - from).into_owned());
    });
    Volume::new(volume.data().permute(axes)?.contiguous()?, affine, unit)
}

/// A volume as slices along x, the readout.
pub fn sliced(volume: &Volume) -> Result<Volume> {
    permuted(volume, order(2), volume.unit())
}

/// The provenance of a scan whose slices lie along `axis` of the volume [z, y, x].
pub fn noted(provenance: Provenance, axis: usize) -> Provenance {
    provenance.with(NOTE, AXES[axis])
}

/// Along which axis of the volume [z, y, x] the scan's slices lie.
fn axis_of(scan: &MriScan) -> usize {
    let name = scan.provenance.notes.get(NOTE);
    name.and_then(|name| AXES.iter().position(|axis| axis == name)).unwrap_or(0)
}

/// Whether the slices of the scan are its readout's.
pub fn is_volumetric(scan: &MriScan) -> bool {
    axis_of(scan) != 0 || scan.provenance.notes.contains_key(NOTE)
}

/// The shape [z, y, x] of what is reconstructed as slices of `shape`.
pub fn shape(scan: &MriScan, shape: [usize; 3]) -> [usize; 3] {
    let mut whole = [0; 3];
    order(axis_of(scan)).iter().zip(shape).for_each(|(axis, n)| whole[*axis] = n);
    whole
}

/// The volume [z, y, x] of reconstructed slices.
pub fn restored(scan: &MriScan, slices: Volume) -> Result<Volume> {
    let axis = axis_of(scan);
    if axis == 0 {
        return Ok(slices);
    }
    let mut back = [0; 3];
    order(axis).iter().enumerate().for_each(|(place, axis)| back[*axis] = place);
    permuted(&slices, back, slices.unit())
}

/// Whether a file holds k-space in three dimensions: BART's axes (x, y, z, coil) tell.
pub fn is_cfl_volume(path: &Path, array: &Array) -> bool {
    let cfl = path.extension().is_none_or(|e| e == "cfl" || e == "hdr");
    cfl && matches!(array.shape(), [.., z, y, x] if *z > 1 && *y > 1 && *x > 1)
}

/// Reads k-space [(coil,) kz, ky, kx] from a file; `dataset` chooses among several arrays.
///
/// # Errors
/// [`Error::Format`] for another number of axes, or where none of the three is fully sampled.
pub fn read(path: &Path, dataset: Option<&str>) -> Result<MriScan> {
    scan(path, &read_array(path, dataset)?)
}

/// The slices of k-space [(coil,) kz, ky, kx] along its readout. What is zero in all coils counts as not sampled.
pub fn scan(path: &Path, array: &Array) -> Result<MriScan> {
    if array.field != Field::Complex {
        return Err(Error::format(path, "expected complex k-space, found real numbers"));
    }
    let lengths: Vec<usize> = array.shape().iter().copied().filter(|n| *n != 1).collect();
    let (coils, whole) = match lengths[..] {
        [kz, ky, kx] => (1, [kz, ky, kx]),
        [coils, kz, ky, kx] => (coils, [kz, ky, kx]),
        _ => {
            let reason = format!("expected k-space [(coil,) kz, ky, kx], found the axes {:?}", array.shape());
            return Err(Error::format(path, reason));
        }
    };
    let scale = metric::maximum(&array.data.abs()?)?;
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::format(path, "the k-space is zero or not finite"));
    }
    let kspace = (array.data.to_dtype(DType::F64)? / scale)?.to_dtype(DType::F32)?;
    let kspace = kspace.reshape((coils, whole[0], whole[1], whole[2], 2))?;
    let Some((axis, mask)) = readout(&kspace, whole)? else {
        let reason = "expected one fully sampled axis, the readout, found samples missing along all three";
        return Err(Error::format(path, reason));
    };
    let [_, first, second] = order(axis);
    let lines = kspace.permute([0, 1 + first, 1 + second, 1 + axis, 4])?.contiguous()?;
    let mut hybrid = Buffer::copy_of(&lines)?;
    fft::inverse(&lines, 1, &mut hybrid)?;
    let kspace = hybrid.freeze().permute([3, 0, 1, 2, 4])?.contiguous()?;
    let grid = Grid::centred(whole, [1.0; 3])?;
    let empty = Volume::on_grid(Tensor::zeros(&whole, DType::F32, kspace.device())?, grid, Unit::Arbitrary)?;
    let target = permuted(&empty, order(axis), Unit::Arbitrary)?.grid().clone();
    let provenance = Provenance::new(None).with("source", path.display().to_string());
    Ok(MriScan {
        kspace,
        mask,
        trajectory: None,
        coil_maps: None,
        noise: None,
        noise_covariance: None,
        scale,
        crop: None,
        target,
        provenance: noted(provenance, axis),
    })
}

/// The axis along which sampled lines are whole, x before z before y, and the mask of the other two.
fn readout(kspace: &Tensor, whole: [usize; 3]) -> Result<Option<(usize, Tensor)>> {
    let [kz, ky, kx] = whole;
    let seen = sampled_points(&kspace.reshape((kspace.dims()[0], kz * ky, kx, 2))?)?.reshape(&whole[..])?;
    let total = f64::from(seen.sum_all()?.to_scalar::<f32>()?);
    for axis in [2, 0, 1] {
        let mask = seen.max(axis)?;
        let points = f64::from(mask.sum_all()?.to_scalar::<f32>()?) * whole[axis] as f64;
        // A few samples are zero by chance.
        if total >= (1.0 - BY_CHANCE) * points {
            return Ok(Some((axis, mask.contiguous()?)));
        }
    }
    Ok(None)
}
