//! The posterior on one axis.

use std::sync::OnceLock;

use ndarray::{Array1, Array2};

use super::basis::Basis;
use super::bayes::{Evidence, Weights};
use crate::error::{Error, Result};
use crate::gp::problem::Derivative;
use crate::gp::solution::Posterior;

/// u = Σ w_j φ_j(x).
#[derive(Debug)]
pub(super) struct LinePosterior {
    pub(super) basis: Basis,
    /// E[w].
    mean: Array1<f64>,
    data: Evidence,
    prior: Array1<f64>,
    /// How much larger than stated the errors of the data turned out.
    pub(super) inflation: f64,
    /// The factor of the covariance, made when a variance is first asked for.
    spread: OnceLock<Weights>,
}

impl LinePosterior {
    pub(super) fn new(basis: Basis, mean: Array1<f64>, data: Evidence, prior: Array1<f64>) -> Self {
        Self { basis, mean, data, prior, inflation: 1.0, spread: OnceLock::new() }
    }

    fn spread(&self) -> Result<&Weights> {
        match self.spread.get() {
            Some(weights) => Ok(weights),
            None => {
                let mut weights = self.data.posterior(self.prior.view(), self.inflation)?;
                // The mean of the data as stated, not that of the inflated errors.
                weights.mean.assign(&self.mean);
                Ok(self.spread.get_or_init(|| weights))
            }
        }
    }

    fn features(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array2<f64>> {
        if points.ncols() != 1 {
            return Err(Error::shape("points", "[points, 1]", points.shape()));
        }
        Ok(self.basis.derivatives(points.column(0), &[derivative.order(0)]).swap_remove(0))
    }
}

impl Posterior for LinePosterior {
    fn mean(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array1<f64>> {
        Ok(self.features(points, derivative)?.dot(&self.mean))
    }

    fn variance(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array1<f64>> {
        self.spread()?.variance(self.features(points, derivative)?.view())
    }

    fn covariance(
        &self,
        a: (&Array2<f64>, Derivative),
        b: (&Array2<f64>, Derivative),
    ) -> Result<Array2<f64>> {
        let left = self.spread()?.whiten(self.features(a.0, a.1)?.view())?;
        let right = self.spread()?.whiten(self.features(b.0, b.1)?.view())?;
        Ok(left.t().dot(&right))
    }

    fn sample(
        &self,
        points: &Array2<f64>,
        derivative: Derivative,
        count: usize,
        seed: u64,
    ) -> Result<Array2<f64>> {
        let features = self.features(points, derivative)?;
        Ok(features.dot(&self.spread()?.sample(count, seed)?).reversed_axes())
    }
}
