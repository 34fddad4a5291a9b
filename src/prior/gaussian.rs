//! The Gaussian prior, whose posterior given linear data is known: the oracle of the samplers.

use candle_core::Tensor;
use ndarray::{Array2, ArrayView2};

use crate::error::{Error, Result};
use crate::linalg::dense::{HermitianEigen, matmul};
use crate::prior::{Denoiser, Pullback};
use crate::tensor::{Field, Real, Space};

/// N(m, C) over whole images: D(x, σ) = m + C (C + σ² I)⁻¹ (x − m), by the eigendecomposition of C.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::prior::{Denoiser, gaussian::Gaussian};
/// let prior = Gaussian::white(&[1, 2], 0.0, 2.0)?;
/// let x = Tensor::new(&[[5f64, -5.0]], &Device::Cpu)?;
/// assert_eq!(prior.denoise(&x, 1.0)?.to_vec2::<f64>()?, [[4.0, -4.0]]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Gaussian {
    shape: Vec<usize>,
    mean: Vec<f64>,
    basis: Array2<f64>,
    variances: Vec<f64>,
}

impl Gaussian {
    /// Mean (row-major) and covariance of images of `shape` = [height, width].
    ///
    /// # Errors
    /// [`Error::Shape`] where sizes differ; [`Error::NotPositiveDefinite`] for a negative eigenvalue.
    pub fn new(shape: &[usize], mean: Vec<f64>, covariance: ArrayView2<f64>) -> Result<Self> {
        let n: usize = shape.iter().product();
        if mean.len() != n || covariance.dim() != (n, n) {
            let found = [mean.len(), covariance.nrows(), covariance.ncols()];
            return Err(Error::shape(
                "Gaussian prior",
                format!("mean [{n}] and covariance [{n}, {n}]"),
                &found,
            ));
        }
        let eigen = HermitianEigen::new("covariance", covariance)?;
        let variances: Vec<f64> = eigen.values.to_vec();
        let largest = variances.iter().copied().fold(0.0, f64::max);
        if let Some(pivot) = variances.iter().position(|v| *v < -1e-12 * largest) {
            return Err(Error::NotPositiveDefinite {
                name: "covariance".into(),
                pivot,
                value: variances[pivot],
            });
        }
        Ok(Self { shape: shape.to_vec(), mean, basis: eigen.vectors, variances })
    }

    /// Independent pixels with the same mean and standard deviation.
    ///
    /// # Errors
    /// As for [`Gaussian::new`].
    pub fn white(shape: &[usize], mean: f64, deviation: f64) -> Result<Self> {
        let n = shape.iter().product();
        Self::new(shape, vec![mean; n], (Array2::eye(n) * (deviation * deviation)).view())
    }

    /// The covariance C.
    pub fn covariance(&self) -> Array2<f64> {
        (&self.basis * &ndarray::ArrayView1::from(&self.variances)).dot(&self.basis.t())
    }

    /// Each item of x times C (C + σ² I)⁻¹, after `shift` has been subtracted and before it is added again.
    fn filter(&self, x: &Tensor, sigma: f64, shift: &[f64]) -> Result<Tensor> {
        let n = self.mean.len();
        let mut rows = Array2::from_shape_vec((x.elem_count() / n, n), f64::to_vec(x)?)
            .map_err(|_| Error::shape("image", format!("[batch…, {:?}]", self.shape), x.dims()))?;
        let shift = ndarray::ArrayView1::from(shift);
        rows -= &shift;
        let mut modes = matmul(rows.view(), self.basis.view())?;
        for (mut column, variance) in modes.columns_mut().into_iter().zip(&self.variances) {
            column *= variance / (variance + sigma * sigma);
        }
        let out = matmul(modes.view(), self.basis.t())? + shift;
        Ok(f64::tensor(out.iter().copied().collect(), x.dims())?.to_dtype(x.dtype())?)
    }
}

impl Denoiser for Gaussian {
    fn field(&self) -> Field {
        Field::Real
    }

    fn range(&self) -> (f64, f64) {
        (f64::NEG_INFINITY, f64::INFINITY)
    }

    fn check(&self, image: &Space) -> Result<()> {
        image.with_shape(&self.shape).with_field(Field::Real).expect_same("prior", image)
    }

    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        self.filter(x, sigma, &self.mean)
    }

    fn denoise_vjp(&self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback)> {
        let prior = self.clone();
        let pull = move |c: &Tensor| prior.filter(c, sigma, &vec![0.0; prior.mean.len()]);
        Ok((self.denoise(x, sigma)?, Pullback::new(pull)))
    }
}
