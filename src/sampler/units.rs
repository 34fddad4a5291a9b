//! From physical units to those that samplers expect: images in the prior's range, ‖A‖ = 1.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::{LinearOperator, PowerIteration};
use crate::operator::Algebra;
use crate::prior::Denoiser;
use crate::sampler::{Measured, Problem};
use crate::tensor::{Buffer, Real, vector};

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
    roots: Option<Tensor>,
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
        let mut data = shifted(&*operator, data, offset)?;
        let factor = 1.0 / (scale * norm);
        vector::accumulate(factor, &[], &mut data)?;
        Ok(Self {
            operator: Arc::new(operator.scaled(1.0 / norm)),
            data: data.freeze(),
            roots: None,
            noise: noise * factor,
            norm,
            offset,
            scale,
        })
    }

    /// The same for data that each have their own `precision` 1/variance, of the shape of the data: photon counts in
    /// CT. Data and operator are divided by the standard deviations, and then by the norm of the weighted operator
    /// (that of the mean weights of all batch items). A precision of 0 leaves a datum out.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{operator::Identity, sampler::Normalized, tensor::Space};
    /// # use std::sync::Arc;
    /// let image = Space::real(&[1, 2], DType::F64, &Device::Cpu);
    /// let y = Tensor::new(&[[2f64, 0.5]], &Device::Cpu)?;
    /// let precision = Tensor::new(&[[100f64, 25.0]], &Device::Cpu)?;
    /// let scaled = Normalized::weighted(Arc::new(Identity::new(&image)), &y, &precision, 1.0, 1.0)?;
    /// assert!((scaled.noise() - 0.1).abs() < 1e-6); // 1 over the norm, which is that of the better datum
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Normalized::new`]; [`Error::Parameter`] where a precision is negative or all are 0.
    pub fn weighted(
        operator: Arc<dyn LinearOperator>,
        data: &Tensor,
        precision: &Tensor,
        scale: f64,
        offset: f64,
    ) -> Result<Self> {
        operator.range().check("data", data)?;
        vector::require_finite("precision of the data", precision)?;
        let shape = operator.range().shape();
        if precision.dims().len() < shape.len() || !precision.dims().ends_with(shape) {
            return Err(Error::shape(
                "precision of the data",
                format!("[…] and {shape:?}"),
                precision.dims(),
            ));
        }
        if f64::to_vec(&precision.flatten_all()?)?.iter().any(|p| *p < 0.0) {
            return Err(Error::parameter("precision", "negative", "a precision is at least 0"));
        }
        if !scale.is_finite() || scale <= 0.0 {
            return Err(Error::parameter("scale", scale, "must be positive"));
        }
        let items: usize = precision.elem_count() / shape.iter().product::<usize>().max(1);
        let mean = precision.reshape([&[items], shape].concat())?.mean(0)?;
        let typical = Measured::new(&*operator, Some(mean.sqrt()?));
        let norm = PowerIteration::default().norm(&typical)?;
        if norm <= 0.0 {
            return Err(Error::parameter("weighted operator", format!("{operator:?}"), "is zero"));
        }
        let roots = precision.sqrt()?.contiguous()?;
        let mut data = shifted(&*operator, data, offset)?;
        let factor = 1.0 / (scale * norm);
        Measured::new(&*operator, Some(roots.clone())).weigh(&mut data)?;
        vector::accumulate(factor, &[], &mut data)?;
        Ok(Self {
            operator: Arc::new(operator.scaled(1.0 / norm)),
            data: data.freeze(),
            roots: Some(roots),
            noise: factor,
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
        let problem = Problem::new(&*self.operator, &self.data, self.noise, prior)?;
        self.roots.as_ref().map_or(Ok(problem), |roots| problem.weighted(roots))
    }

    /// (u − offset)/scale: a physical image in the prior's units.
    pub fn from_physical(&self, u: &Tensor) -> Result<Tensor> {
        let mut out = Buffer::copy_of(u)?;
        vector::fill(-self.offset / self.scale, &mut out)?;
        vector::accumulate(1.0, &[(1.0 / self.scale, u)], &mut out)?;
        Ok(out.freeze())
    }

    /// The data in the prior's units, weighted and divided by ‖A‖.
    pub fn data(&self) -> &Tensor {
        &self.data
    }

    /// Standard deviation of the noise of the restated data.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// ‖A‖ of the physical operator, weighted where the data are, as found by power iteration.
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

/// y − A·offset.
fn shifted(operator: &dyn LinearOperator, data: &Tensor, offset: f64) -> Result<Buffer> {
    let mut out = Buffer::copy_of(data)?;
    if offset != 0.0 {
        let mut constant = operator.domain().buffer(&[])?;
        vector::fill(offset, &mut constant)?;
        let image = operator.apply(constant.tensor())?;
        let image = image.broadcast_as(data.shape())?.contiguous()?;
        vector::accumulate(1.0, &[(-1.0, &image)], &mut out)?;
    }
    Ok(out)
}
