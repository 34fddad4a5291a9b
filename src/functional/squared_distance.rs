//! Half the weighted squared distance from a target: the fidelity of data to their model, as a term.

use candle_core::Tensor;

use crate::error::Result;
use crate::functional::penalty_weight;
use crate::functional::pointwise::{self, Column, Pointwise};
use crate::linalg::{Proximal, Steps};
use crate::tensor::{Buffer, Real, Space, Workspace};

/// g(x) = λ/2 Σ wᵢ (xᵢ − bᵢ)², with b = 0 and w = 1 unless given.
#[derive(Clone, Debug)]
pub struct SquaredDistance {
    domain: Space,
    scale: f64,
    target: Option<Tensor>,
    weights: Option<Tensor>,
}

impl SquaredDistance {
    /// λ/2 ‖x‖² with λ = `scale` ≥ 0.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{functional::{Proximal, SquaredDistance}, tensor::Space};
    /// let space = Space::real(&[2], DType::F64, &Device::Cpu);
    /// let x = Tensor::new(&[3f64, 4.], &Device::Cpu)?;
    /// assert_eq!(SquaredDistance::new(&space, 2.0)?.value(&x)?, [25.0]);
    /// assert_eq!(SquaredDistance::new(&space, 2.0)?.from(&x)?.value(&x)?, [0.0]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::error::Error::Parameter`] where λ is negative or not finite.
    pub fn new(domain: &Space, scale: f64) -> Result<Self> {
        Ok(Self { domain: domain.clone(), scale: penalty_weight(scale)?, target: None, weights: None })
    }

    /// The same distance from `target` b; its batch axes, if any, are those of x.
    ///
    /// # Errors
    /// A shape error where the target is not in the domain.
    pub fn from(self, target: &Tensor) -> Result<Self> {
        self.domain.check("target of a squared distance", target)?;
        Ok(Self { target: Some(target.contiguous()?), ..self })
    }

    /// The same distance with weights w ≥ 0, one for each stored element (shape of the domain).
    ///
    /// # Errors
    /// A shape error where the weights are not in the domain.
    pub fn weighted(self, weights: &Tensor) -> Result<Self> {
        self.domain.check("weights of a squared distance", weights)?;
        Ok(Self { weights: Some(weights.contiguous()?), ..self })
    }

    fn columns(&self) -> [Column<'_>; 2] {
        [Column::or(self.target.as_ref(), 0.0), Column::or(self.weights.as_ref(), 1.0)]
    }
}

struct Value;

impl Pointwise<2> for Value {
    fn at<T: Real>(&self, x: T, [target, weight]: [T; 2]) -> T {
        weight * (x - target) * (x - target)
    }
    fn on_device(&self) -> (&'static str, [f64; 2]) {
        ("distance", [0.0; 2])
    }
}

/// (x + λτw b) / (1 + λτw).
struct Prox(f64);

impl Pointwise<3> for Prox {
    fn at<T: Real>(&self, x: T, [target, weight, step]: [T; 3]) -> T {
        let pull = T::of(self.0) * step * weight;
        (x + pull * target) / (T::one() + pull)
    }
    fn on_device(&self) -> (&'static str, [f64; 2]) {
        ("distance", [self.0, 0.0])
    }
}

/// λw (x − σb) / (λw + σ).
struct ProxConjugate(f64);

impl Pointwise<3> for ProxConjugate {
    fn at<T: Real>(&self, x: T, [target, weight, step]: [T; 3]) -> T {
        let weight = T::of(self.0) * weight;
        weight * (x - step * target) / (weight + step)
    }
    fn on_device(&self) -> (&'static str, [f64; 2]) {
        ("distance_conjugate", [self.0, 0.0])
    }
}

impl Proximal for SquaredDistance {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn value(&self, x: &Tensor) -> Result<Vec<f64>> {
        let items = self.domain.check("argument of a squared distance", x)?.iter().product();
        let sums = pointwise::sum(Value, self.columns(), x, items)?;
        Ok(sums.into_iter().map(|sum| 0.5 * self.scale * sum).collect())
    }
    fn prox(&self, steps: Steps<'_>, x: &mut Buffer, _: &mut Workspace) -> Result<()> {
        let [target, weights] = self.columns();
        pointwise::map(Prox(self.scale), [target, weights, steps.into()], x)
    }
    fn prox_conjugate(&self, steps: Steps<'_>, y: &mut Buffer, _: &mut Workspace) -> Result<()> {
        let [target, weights] = self.columns();
        pointwise::map(ProxConjugate(self.scale), [target, weights, steps.into()], y)
    }
}
