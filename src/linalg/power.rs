//! The operator norm by power iteration.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::random::{Noise, standard_normal};
use crate::tensor::{Buffer, Space, Workspace, vector};

/// Power iteration on AᴴA from a seeded random start: a lower bound of ‖A‖ that grows with every step.
#[derive(Clone, Copy, Debug)]
pub struct PowerIteration {
    /// Steps at most.
    pub max_iterations: usize,
    /// Stop when the estimate grows by less than this part of itself in a step.
    pub tolerance: f64,
    /// Seed of the start.
    pub seed: u64,
}

impl Default for PowerIteration {
    fn default() -> Self {
        Self { max_iterations: 100, tolerance: 1e-4, seed: 0 }
    }
}

impl PowerIteration {
    /// An estimate of the spectral norm ‖A‖.
    ///
    /// ```
    /// use candle_core::{Device, DType};
    /// use wellposed::{linalg::PowerIteration, operator::Gradient, tensor::Space};
    /// let gradient = Gradient::new(&Space::real(&[8, 8], DType::F64, &Device::Cpu), &[0, 1])?;
    /// let norm = PowerIteration { tolerance: 1e-9, max_iterations: 1000, seed: 1 }.norm(&gradient)?;
    /// assert!((norm / gradient.norm() - 1.0).abs() < 1e-4);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the operator returns; [`Error::NotFinite`] where it makes NaN or infinities.
    pub fn norm(&self, a: &dyn LinearOperator) -> Result<f64> {
        Ok(self.largest(a.domain(), |x, out, ws| a.normal_into(x, out, ws))?.sqrt())
    }

    /// An estimate of the largest eigenvalue of the positive semidefinite map x ↦ `map(x)` on `space`.
    ///
    /// # Errors
    /// What the map returns; [`Error::NotFinite`] where it makes NaN or infinities.
    pub fn largest(
        &self,
        space: &Space,
        mut map: impl FnMut(&Tensor, &mut Buffer, &mut Workspace) -> Result<()>,
    ) -> Result<f64> {
        let mut ws = Workspace::new();
        let mut x = Buffer::copy_of(&standard_normal(Noise::new(self.seed, 0), space, &[])?)?;
        let mut image = space.buffer(&[])?;
        let mut estimate = 0.0;
        let size = vector::norm(x.tensor(), 1)?[0];
        vector::accumulate(1.0 / size.max(f64::MIN_POSITIVE), &[], &mut x)?;
        for _ in 0..self.max_iterations {
            map(x.tensor(), &mut image, &mut ws)?;
            let size = vector::norm(image.tensor(), 1)?[0];
            if !size.is_finite() {
                let total = space.elements();
                return Err(Error::NotFinite {
                    name: "power iteration".into(),
                    count: total,
                    total,
                    first: vec![],
                });
            }
            if size == 0.0 {
                return Ok(0.0);
            }
            vector::lincomb(&[(1.0 / size, image.tensor())], &mut x)?;
            let settled = size - estimate <= self.tolerance * size;
            estimate = size;
            if settled {
                break;
            }
        }
        Ok(estimate)
    }
}
