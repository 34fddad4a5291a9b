//! The weight-space engine: sinusoids at frequencies found in the data, with Gaussian weights fitted by QR.
//!
//! u = Σ_j w_j φ_j(x) with w_j ~ N(0, s_j²) is a Gaussian process whose kernel is a discretised spectral mixture.
//! Sources and boundary traces are Fourier-transformed, and the features are those of bands around the lines found.
//! - On one axis (`line`) cosines and sines on a lattice of spacing π/(T·length). The equation at the nodes and the boundary
//!   conditions are rows of one least-squares problem with the prior below them, solved by QR (never by the normal
//!   equations).
//! - On several axes (`tensor`, `galerkin`) carriers times low polynomials, orthonormal on the nodes; the source and the
//!   boundary data determine as many coefficients as there are, without a prior.
//!
//! Where the features leave a residual the bands widen, and where the bands cover more than a third of what the nodes
//! resolve Chebyshev polynomials take their place.

mod axis;
mod basis;
mod bayes;
mod galerkin;
mod krylov;
mod line;
mod line_posterior;
mod samples;
mod sinusoid;
mod spectrum;
mod tensor;
mod tensor_posterior;
#[cfg(test)]
mod tests;
mod traces;

use std::time::Instant;

use ndarray::Array1;

use super::problem::{Data, Problem};
use super::solution::PdeSolution;
use crate::error::{Error, Result};

/// Configuration of the weight-space engine. One set of defaults serves all problems.
///
/// ```
/// use wellposed::gp::{Data, DifferentialOperator, Problem, WeightSpace};
/// let problem = Problem::new(&[[0.0, 1.0]])
///     .operator(DifferentialOperator::laplacian(1))
///     .source(Data::function(|x| -900.0 * (30.0 * x[0]).sin()))
///     .dirichlet_everywhere(Data::function(|x| (30.0 * x[0]).sin()));
/// let solution = WeightSpace::default().solve(&problem)?;
/// let u = solution.mean(&ndarray::array![[0.37]])?;
/// assert!((u[0] - (30.0f64 * 0.37).sin()).abs() < 1e-9);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WeightSpace {
    /// Points an axis at which the equation is stated; by default 400 in 1-D, 200 in 2-D and 64 in 3-D. Samples bring
    /// their own.
    pub points: Option<usize>,
    /// T: the lattice of frequencies is that of a period of 2T lengths of the axis (one axis only).
    pub extension: f64,
    /// Half-width of the band around each line, in units of 2π/length; on several axes, five polynomials a unit.
    pub half_width: f64,
    /// Residual (relative to the largest term of the equation) above which bands widen and other features are tried.
    pub tolerance: f64,
    /// Newton steps at most.
    pub newton_steps: usize,
    /// Whether the prior's scales are learned from noisy data, by maximising the evidence.
    pub learn: bool,
}

impl Default for WeightSpace {
    fn default() -> Self {
        Self {
            points: None,
            extension: 2.0,
            half_width: 2.0,
            tolerance: 3e-13,
            newton_steps: 30,
            learn: true,
        }
    }
}

/// A residual above this calls for other features.
const POOR: f64 = 1e-9;

/// A residual above this earns a warning.
const SUSPICIOUS: f64 = 1e-6;

impl WeightSpace {
    /// The posterior over u.
    ///
    /// # Errors
    /// Those of [`Problem::validate`]; [`Error::Parameter`] where the points can't resolve a frequency of the data,
    /// saying how many could.
    pub fn solve(&self, problem: &Problem) -> Result<PdeSolution> {
        let start = Instant::now();
        problem.validate()?;
        self.check()?;
        let mut solution = match problem.dim() {
            1 => line::solve(self, problem)?,
            _ => tensor::solve(self, problem)?,
        };
        let worst = solution.residual.worst();
        if problem.source_noise == 0.0 && (worst.is_nan() || worst > SUSPICIOUS) {
            solution.warnings.push(format!(
                "the equation is satisfied to {worst:.1e} only: use more points, or another engine"
            ));
        }
        solution.elapsed = start.elapsed();
        Ok(solution)
    }

    fn check(&self) -> Result<()> {
        let positive = |name: &str, value: f64| {
            if value > 0.0 && value.is_finite() {
                return Ok(());
            }
            Err(Error::parameter(name, value, "must be positive and finite"))
        };
        positive("extension", self.extension)?;
        positive("half_width", self.half_width)?;
        positive("tolerance", self.tolerance)?;
        match self.points {
            Some(points) if points < 4 => {
                Err(Error::parameter("points", points, "at least 4 points are needed on an axis"))
            }
            _ => Ok(()),
        }
    }

    /// Points an axis.
    fn count(&self, problem: &Problem) -> usize {
        self.points.unwrap_or([400, 200, 64][problem.dim() - 1])
    }
}

/// The rms and the largest modulus.
fn sizes(values: &Array1<f64>) -> (f64, f64) {
    let rms = (values.dot(values) / values.len().max(1) as f64).sqrt();
    (rms, values.iter().fold(0.0, |m, v| m.max(v.abs())))
}

/// The largest boundary datum in size.
fn boundary_size(problem: &Problem) -> Result<f64> {
    let mut largest = 0.0f64;
    for boundary in &problem.boundary {
        let mut axes = problem.off_grid_axes(17);
        axes[boundary.face.axis] = Array1::from_elem(1, problem.coordinate(boundary.face));
        let values = match boundary.condition.data() {
            Data::Samples(samples) => samples.values.clone(),
            data => data.at(&super::problem::tensor_grid(&axes))?,
        };
        largest = largest.max(sizes(&values).1);
    }
    Ok(largest)
}
