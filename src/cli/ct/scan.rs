//! From volumes in HU to attenuation and back, and from scan files to ray transforms.

use candle_core::{DType, Device, Tensor};
use wellposed::error::{Error, Result};
use wellposed::io::{Beam, CtGeometry, CtScan, Grid, Unit, Volume};
use wellposed::operator::ct::{ImageGrid, ParallelBeam, RayTransform};

/// The square pixels of a grid's slices.
///
/// # Errors
/// Rows and columns of different spacing.
pub fn image_grid(grid: &Grid) -> Result<ImageGrid> {
    let ([_, height, width], [_, row, column]) = (grid.shape(), grid.spacing());
    if (row - column).abs() > 1e-3 * column {
        let reason = "the ray transform needs square pixels: resample the volume first";
        return Err(Error::parameter("pixel size", format!("{row} × {column} mm"), reason));
    }
    ImageGrid::new(height, width, column)
}

/// The attenuation in 1/mm, not negative, of a volume in HU or in 1/mm.
///
/// # Errors
/// A volume in another unit, a complex volume.
pub fn attenuation(volume: &Volume, mu_water: f64) -> Result<Tensor> {
    let mu = match volume.unit() {
        Unit::Hounsfield => volume.data().affine(mu_water / 1000.0, mu_water)?,
        Unit::PerMillimetre => volume.data().clone(),
        Unit::Arbitrary => {
            let reason = "expected HU or 1/mm; say which with --unit";
            return Err(Error::parameter("unit of the volume", "unknown", reason));
        }
    };
    Ok(mu.clamp(0f32, f32::INFINITY)?)
}

/// A volume on the scan's target grid from attenuation in 1/mm, in the unit that the scan asks for.
pub fn volume(scan: &CtScan, mu: &Tensor) -> Result<Volume> {
    let data = match scan.unit {
        Unit::Hounsfield => mu.affine(1000.0 / scan.mu_water, -1000.0)?,
        _ => mu.clone(),
    };
    Volume::on_grid(data, scan.target.clone(), scan.unit)
}

/// The ray transform of a scan.
///
/// # Errors
/// A beam other than parallel, pixels that are not square, rays that miss the image.
pub fn transform(scan: &CtScan) -> Result<RayTransform> {
    let CtGeometry { beam, angles, pitch, offset } = &scan.geometry;
    if *beam != Beam::Parallel {
        return Err(Error::Unsupported(format!(
            "a scan with a {} beam; expected a parallel beam",
            beam.kind()
        )));
    }
    let bins = scan.projections.dims()[2];
    let geometry = ParallelBeam::new(angles.clone(), bins, *pitch)?.with_offset(*offset);
    RayTransform::new(&image_grid(&scan.target)?, &geometry, DType::F32, &Device::Cpu)
}
