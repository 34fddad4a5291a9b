//! The ℓ1 norm.

use candle_core::Tensor;

use crate::error::Result;
use crate::functional::group::{self, Shape};
use crate::functional::penalty_weight;
use crate::functional::pointwise::{self, Column, Pointwise};
use crate::linalg::{Proximal, Steps};
use crate::tensor::{Buffer, Field, Real, Space, Workspace};

/// g(x) = λ Σ wᵢ |xᵢ|, with complex magnitudes on complex spaces. Its proximal map is soft thresholding.
#[derive(Clone, Debug)]
pub struct L1Norm {
    domain: Space,
    scale: f64,
    weights: Option<Tensor>,
}

impl L1Norm {
    /// λ‖x‖₁ with λ = `scale` ≥ 0.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{functional::{L1Norm, Proximal, Steps}, tensor::*};
    /// let space = Space::real(&[3], DType::F64, &Device::Cpu);
    /// let mut x = Buffer::copy_of(&Tensor::new(&[-3f64, 0.5, 2.], &Device::Cpu)?)?;
    /// L1Norm::new(&space, 1.0)?.prox(Steps::Uniform(1.0), &mut x, &mut Workspace::new())?;
    /// assert_eq!(x.tensor().to_vec1::<f64>()?, [-2., 0., 1.]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::error::Error::Parameter`] where λ is negative or not finite.
    pub fn new(domain: &Space, scale: f64) -> Result<Self> {
        Ok(Self { domain: domain.clone(), scale: penalty_weight(scale)?, weights: None })
    }

    /// The same norm with weights w ≥ 0, one for each stored element (equal for both parts of a complex
    /// number): 0 for a wavelet transform's approximation band, for example.
    ///
    /// # Errors
    /// A shape error where the weights are not in the domain.
    pub fn weighted(self, weights: &Tensor) -> Result<Self> {
        self.domain.check("weights of an ℓ1 norm", weights)?;
        Ok(Self { weights: Some(weights.contiguous()?), ..self })
    }

    fn weights(&self) -> Column<'_> {
        Column::or(self.weights.as_ref(), 1.0)
    }
}

struct Magnitude;

impl Pointwise<1> for Magnitude {
    fn at<T: Real>(&self, x: T, [weight]: [T; 1]) -> T {
        weight * x.abs()
    }
    fn on_device(&self) -> (&'static str, [f64; 2]) {
        ("magnitude", [0.0; 2])
    }
}

/// sign(x) max(0, |x| − λτw).
struct Soft(f64);

impl Pointwise<2> for Soft {
    fn at<T: Real>(&self, x: T, [weight, step]: [T; 2]) -> T {
        let threshold = T::of(self.0) * weight * step;
        (x - threshold).max(T::zero()) + (x + threshold).min(T::zero())
    }
    fn on_device(&self) -> (&'static str, [f64; 2]) {
        ("soft", [self.0, 0.0])
    }
}

/// The projection on |x| ≤ λw.
struct Clip(f64);

impl Pointwise<1> for Clip {
    fn at<T: Real>(&self, x: T, [weight]: [T; 1]) -> T {
        let limit = T::of(self.0) * weight;
        x.max(-limit).min(limit)
    }
    fn on_device(&self) -> (&'static str, [f64; 2]) {
        ("clip", [self.0, 0.0])
    }
}

impl Proximal for L1Norm {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn value(&self, x: &Tensor) -> Result<Vec<f64>> {
        let items = self.domain.check("argument of an ℓ1 norm", x)?.iter().product();
        let sums = match self.domain.field() {
            Field::Real => pointwise::sum(Magnitude, [self.weights()], x, items)?,
            Field::Complex => group::total(Shape::scalars(&self.domain), self.weights.as_ref(), 0.0, x)?,
        };
        Ok(sums.into_iter().map(|sum| self.scale * sum).collect())
    }
    fn prox(&self, steps: Steps<'_>, x: &mut Buffer, _: &mut Workspace) -> Result<()> {
        match self.domain.field() {
            Field::Real => pointwise::map(Soft(self.scale), [self.weights(), steps.into()], x),
            Field::Complex => {
                group::shrink(Shape::scalars(&self.domain), self.scale, self.weights.as_ref(), steps, x)
            }
        }
    }
    fn prox_conjugate(&self, _: Steps<'_>, y: &mut Buffer, _: &mut Workspace) -> Result<()> {
        match self.domain.field() {
            Field::Real => pointwise::map(Clip(self.scale), [self.weights()], y),
            Field::Complex => {
                group::project(Shape::scalars(&self.domain), self.scale, self.weights.as_ref(), y)
            }
        }
    }
}
