//! Priors of data on another scale.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::prior::{Denoiser, Pullback};
use crate::tensor::{Field, Space};

/// A prior of data on another scale: z = scale·x + offset, with x in the range of the inner prior.
///
/// D'(z, σ) = scale·D((z − offset)/scale, σ/|scale|) + offset, so that a sampler can work in physical units.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::prior::{Denoiser, mixture::Mixture, parametrization::Rescaled};
/// let unit = Mixture::new(&[1, 1], vec![(1.0, vec![0.0], 1.0)])?;
/// let prior = Rescaled::new(unit, 500.0, 1000.0)?; // N(1000, 500²)
/// let d = prior.denoise(&Tensor::new(&[[2000f64]], &Device::Cpu)?, 500.0)?;
/// assert_eq!(d.to_vec2::<f64>()?, [[1500.0]]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rescaled<D> {
    inner: D,
    scale: f64,
    offset: f64,
}

impl<D: Denoiser> Rescaled<D> {
    /// The prior of scale·x + offset; the offset is added to re and im alike where complex.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless the scale is a number other than 0 and the offset is finite.
    pub fn new(inner: D, scale: f64, offset: f64) -> Result<Self> {
        if scale == 0.0 || !scale.is_finite() || !offset.is_finite() {
            return Err(Error::parameter("scale", scale, "must be finite and not 0, the offset finite"));
        }
        Ok(Self { inner, scale, offset })
    }

    fn inside(&self, z: &Tensor) -> Result<Tensor> {
        Ok(z.affine(1.0 / self.scale, -self.offset / self.scale)?)
    }

    fn outside(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.affine(self.scale, self.offset)?)
    }
}

impl<D: Denoiser> Denoiser for Rescaled<D> {
    fn field(&self) -> Field {
        self.inner.field()
    }

    fn range(&self) -> (f64, f64) {
        let (low, high) = self.inner.range();
        let (a, b) = (self.scale * low + self.offset, self.scale * high + self.offset);
        (a.min(b), a.max(b))
    }

    fn check(&self, image: &Space) -> Result<()> {
        self.inner.check(image)
    }

    fn denoise(&self, z: &Tensor, sigma: f64) -> Result<Tensor> {
        self.outside(&self.inner.denoise(&self.inside(z)?, sigma / self.scale.abs())?)
    }

    fn denoise_vjp(&self, z: &Tensor, sigma: f64) -> Result<(Tensor, Pullback)> {
        let (value, pull) = self.inner.denoise_vjp(&self.inside(z)?, sigma / self.scale.abs())?;
        Ok((self.outside(&value)?, pull))
    }
}
