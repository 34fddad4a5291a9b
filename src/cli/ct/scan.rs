//! From volumes in HU to scans and back.

use candle_core::{Device, Tensor};
use wellposed::error::{Error, Result};
use wellposed::io::{CtScan, Grid, Provenance, Unit, Volume};
use wellposed::linalg::LinearOperator;
use wellposed::operator::ct::{ImageGrid, Photons, hounsfield, statistical_weights};

use super::rays::Rays;

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
fn attenuation(volume: &Volume, mu_water: f64) -> Result<Tensor> {
    match volume.unit() {
        Unit::Hounsfield => hounsfield::to_attenuation(volume.data(), mu_water),
        Unit::PerMillimetre => Ok(volume.data().clamp(0f32, f32::INFINITY)?),
        Unit::Arbitrary => {
            let reason = "expected HU or 1/mm; say which with --unit";
            Err(Error::parameter("unit of the volume", "unknown", reason))
        }
    }
}

/// How a scan is simulated.
pub struct Simulation {
    /// Views and detector.
    pub rays: Rays,
    /// I₀; without it there is no noise.
    pub photons: Option<f64>,
    /// Seed of the noise.
    pub seed: u64,
    /// Attenuation of water in 1/mm.
    pub mu_water: f64,
}

impl Simulation {
    /// Scans `object` for a reconstruction on the grid `target`, which may be coarser.
    pub fn scan(&self, object: &Volume, target: &Grid, source: &str) -> Result<CtScan> {
        let mu = attenuation(object, self.mu_water)?;
        let clean = self.rays.transform(object.grid(), &Device::Cpu)?.apply(&mu)?;
        let (projections, weights) = match self.photons {
            None => (clean, None),
            Some(open_beam) => {
                let seen = Photons { open_beam, ..Photons::default() }.measure(&clean, self.seed)?;
                (seen.line_integrals, Some(seen.counts))
            }
        };
        let seed = self.photons.map(|_| self.seed);
        Ok(CtScan {
            projections,
            weights,
            photons: self.photons,
            geometry: self.rays.geometry(),
            target: target.clone(),
            unit: object.unit(),
            mu_water: self.mu_water,
            provenance: Provenance::new(seed).with("source", source).with("command", "ct simulate"),
        })
    }
}

/// A volume on the scan's target grid from attenuation in 1/mm, in the unit that the scan asks for.
pub fn volume(scan: &CtScan, mu: &Tensor) -> Result<Volume> {
    let data = match scan.unit {
        Unit::Hounsfield => hounsfield::from_attenuation(mu, scan.mu_water)?,
        _ => mu.clone(),
    };
    Volume::on_grid(data, scan.target.clone(), scan.unit)
}

/// Inverse variances of the projections, which owe as much to the discrete model as to the photons.
pub fn weights(scan: &CtScan) -> Result<Option<Tensor>> {
    let Some(counts) = &scan.weights else { return Ok(None) };
    let error = image_grid(&scan.target)?.model_error(scan.mu_water, scan.geometry.angles.len());
    Ok(Some(statistical_weights(counts, error)?))
}
