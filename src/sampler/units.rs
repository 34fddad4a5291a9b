//! From physical units to those that samplers expect: images in the prior's range, ‖A‖ = 1.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::{LinearOperator, PowerIteration};
use crate::operator::Algebra;
use crate::prior::Denoiser;
use crate::sampler::Problem;
use crate::tensor::{Buffer, vector};

/// A measurement y = A u + n of physical images u = offset + scale·x, restated for images x in the prior's range:
/// (A/‖A‖) x + n' = (y − A·offset)/(scale ‖A‖).
///
/// ```
/// use candle_core::{Device, DType, Tensor};
/// use wellposed::{operator::Identity, sampler::Normalized, tensor::Space};
/// # use std::sync::Arc;
/// // Water-equivalent units 0…2 for a prior of −1…1.
/// let image = Space::real(&[1, 2], DType::F64, &Device::Cpu);
/// let y = Tensor::new(&[[2f64, 0.5]], &Device::Cpu)?;
/// let scaled = Normalized::new(Arc::new(Identity::new(&image)), &y, 0.1, 1.0, 1.0)?;
/// assert!((scaled.noise() - 0.1).abs() < 1e-9);
/// assert_eq!(scaled.to_physical(&Tensor::new(&[[1f64, -0.5]], &Device::Cpu)?)?.to_vec2::<f64>()?, [[2.0, 0.5]]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Normalized {
    operator: Arc<dyn LinearOperator>,
    data: Tensor,
    noise: f64,
    norm: f64,
    offset: f64,
    scale: f64,
}

impl Normalized {
    /// An operator and data with the standard deviation of their noise, all physical; a physical image is
    /// offset + scale·x for x in the prior's range. ‖A‖ is found by power iteration.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a scale that is not positive, or an operator that is zero.
    pub fn new(
        operator: Arc<dyn LinearOperator>,
        data: &Tensor,
        noise: f64,
        scale: f64,
        offset: f64,
    ) -> Result<Self> {
        if !scale.is_finite() || scale <= 0.0 {
            return Err(Error::parameter("scale", scale, "must be positive"));
        }
        let norm = PowerIteration::default().norm(&*operator)?;
        if norm <= 0.0 {
            return Err(Error::parameter("operator", format!("{operator:?}"), "is zero"));
        }
        let mut shifted = Buffer::copy_of(data)?;
        if offset != 0.0 {
            let mut constant = operator.domain().buffer(&[])?;
            vector::fill(offset, &mut constant)?;
            let image = operator.apply(constant.tensor())?;
            let image = image.broadcast_as(data.shape())?.contiguous()?;
            vector::accumulate(1.0, &[(-1.0, &image)], &mut shifted)?;
        }
        let factor = 1.0 / (scale * norm);
        vector::accumulate(factor, &[], &mut shifted)?;
        Ok(Self {
            operator: Arc::new(operator.scaled(1.0 / norm)),
            data: shifted.freeze(),
            noise: noise * factor,
            norm,
            offset,
            scale,
        })
    }

    /// The problem for samplers.
    ///
    /// # Errors
    /// As [`Problem::new`].
    pub fn problem<'a>(&'a self, prior: &'a dyn Denoiser) -> Result<Problem<'a>> {
        Problem::new(&*self.operator, &self.data, self.noise, prior)
    }

    /// Standard deviation of the noise of the restated data.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// ‖A‖ of the physical operator, as found by power iteration.
    pub fn norm(&self) -> f64 {
        self.norm
    }

    /// offset + scale·x.
    pub fn to_physical(&self, x: &Tensor) -> Result<Tensor> {
        let mut out = Buffer::copy_of(x)?;
        vector::fill(self.offset, &mut out)?;
        vector::accumulate(1.0, &[(self.scale, x)], &mut out)?;
        Ok(out.freeze())
    }

    /// A standard deviation of x in physical units.
    pub fn to_physical_spread(&self, x: &Tensor) -> Result<Tensor> {
        let mut out = Buffer::copy_of(x)?;
        vector::accumulate(self.scale, &[], &mut out)?;
        Ok(out.freeze())
    }
}
