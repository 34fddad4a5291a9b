//! Bounds on every element.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::functional::pointwise::{self, Pointwise};
use crate::linalg::{Proximal, Steps};
use crate::tensor::{Buffer, Field, Real, Space, Workspace, vector};

/// The indicator of lower ≤ x ≤ upper: 0 inside, +∞ outside. Its proximal map is the projection.
#[derive(Clone, Debug)]
pub struct Bounds {
    domain: Space,
    lower: f64,
    upper: f64,
}

impl Bounds {
    /// lower ≤ x ≤ upper for every element of a real space; an infinite bound leaves that side open.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{functional::{Bounds, Proximal, Steps}, tensor::*};
    /// let image = Space::real(&[3], DType::F64, &Device::Cpu);
    /// let mut x = Buffer::copy_of(&Tensor::new(&[-1f64, 0.5, 2.], &Device::Cpu)?)?;
    /// Bounds::new(&image, 0.0, 1.0)?.prox(Steps::Uniform(1.0), &mut x, &mut Workspace::new())?;
    /// assert_eq!(x.tensor().to_vec1::<f64>()?, [0., 0.5, 1.]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where `lower > upper`, a bound is NaN, or the space is complex.
    pub fn new(domain: &Space, lower: f64, upper: f64) -> Result<Self> {
        if lower.is_nan() || upper.is_nan() || lower > upper {
            return Err(Error::parameter(
                "bounds",
                format!("[{lower}, {upper}]"),
                "lower must not exceed upper",
            ));
        }
        if domain.field() == Field::Complex {
            return Err(Error::parameter("bounds", domain, "complex numbers have no order"));
        }
        Ok(Self { domain: domain.clone(), lower, upper })
    }

    /// x ≥ 0.
    ///
    /// # Errors
    /// As for [`Bounds::new`].
    pub fn non_negative(domain: &Space) -> Result<Self> {
        Self::new(domain, 0.0, f64::INFINITY)
    }

    /// No bounds: the zero functional, on real or complex spaces.
    pub fn none(domain: &Space) -> Self {
        Self { domain: domain.clone(), lower: f64::NEG_INFINITY, upper: f64::INFINITY }
    }
}

/// 1 where an element lies outside.
struct Outside(f64, f64);

impl Pointwise<0> for Outside {
    fn at<T: Real>(&self, x: T, _: [T; 0]) -> T {
        if x >= T::of(self.0) && x <= T::of(self.1) { T::zero() } else { T::one() }
    }
    fn on_device(&self) -> (&'static str, [f64; 2]) {
        ("outside", [self.0, self.1])
    }
}

impl Proximal for Bounds {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn value(&self, x: &Tensor) -> Result<Vec<f64>> {
        let items = self.domain.check("argument of bounds", x)?.iter().product();
        let outside = pointwise::sum(Outside(self.lower, self.upper), [], x, items)?;
        Ok(outside.into_iter().map(|n| if n > 0.0 { f64::INFINITY } else { 0.0 }).collect())
    }
    fn prox(&self, _: Steps<'_>, x: &mut Buffer, _: &mut Workspace) -> Result<()> {
        if self.lower == f64::NEG_INFINITY && self.upper == f64::INFINITY {
            return Ok(());
        }
        vector::clamp(self.lower, self.upper, x)
    }
}
