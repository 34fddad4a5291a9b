//! Symmetric collocation: conditioning a Gaussian process on the equation at points, by Cholesky.
//!
//! The general engine: any kernel, scattered points, noise, observations; O(n³) in the number of rows n. On boxes the
//! weight-space engine is faster and more accurate.

mod bandwidth;
mod functional;
mod posterior;
mod system;
mod train;

pub(in crate::gp) use bandwidth::angular_frequency;

use std::time::Instant;

use ndarray::{Array1, Array2};

use self::functional::ProductKernel;
use self::posterior::Conditioned;
use self::system::{Equation, Rows, conditions};
use super::kernel::Kernel1d;
use super::newton::line_search;
use super::problem::{Data, Problem, tensor_grid};
use super::solution::{PdeSolution, Residual};
use crate::error::{Error, Result};
use crate::observe::Termination;

/// Gaussian-process collocation: u given L u(xᵢ) = f(xᵢ) and the boundary conditions, for a prior Π_d k_d.
///
/// The Gram matrix has the blocks Cov[ℓᵢu, ℓⱼu] of all rows, is scaled to a unit diagonal, gets a nugget, and is
/// factorised; nonlinear terms are linearised at the posterior mean, until it stops changing (Gauss–Newton in the
/// kernel's Hilbert space; Chen, Hosseini, Owhadi & Stuart 2021, 2103.12959), with steps as long as the equation's
/// misfit falls.
#[derive(Clone, Debug)]
pub struct Collocation {
    /// Equation points per axis, equally spaced, both ends included; ignored for a sampled source, whose points are
    /// used. Face points per axis too.
    pub points: usize,
    /// Equation points, shape [points, axes], in place of the uniform ones.
    pub scattered: Option<Array2<f64>>,
    /// One kernel for each axis; by default a spectral mixture whose band is read off the source and boundary data.
    pub kernels: Option<Vec<Box<dyn Kernel1d>>>,
    /// Added to the unit diagonal of the scaled Gram matrix.
    pub nugget: f64,
    /// Gauss–Newton steps at most.
    pub max_newton: usize,
    /// Stop when the mean changes by less than this, relative ℓ2 over the points.
    pub newton_tolerance: f64,
    /// Steps of L-BFGS on the negative log marginal likelihood before the final solve; 0 keeps the kernels.
    pub training: usize,
}

impl Default for Collocation {
    fn default() -> Self {
        Self {
            points: 400,
            scattered: None,
            kernels: None,
            nugget: 1e-13,
            max_newton: 30,
            newton_tolerance: 1e-9,
            training: 0,
        }
    }
}

/// Rows past which the Gram matrix (8 n² bytes, several times) is refused.
const MAX_ROWS: usize = 20_000;

impl Collocation {
    /// Solves `problem`.
    ///
    /// ```
    /// use wellposed::gp::{Collocation, Data, DifferentialOperator, Problem};
    /// let problem = Problem::new(&[[0.0, 1.0]])
    ///     .operator(DifferentialOperator::laplacian(1))
    ///     .source(Data::function(|x| -9.0 * (3.0 * x[0]).sin() ))
    ///     .dirichlet_everywhere(Data::function(|x| (3.0 * x[0]).sin()));
    /// let solution = Collocation { points: 30, ..Default::default() }.solve(&problem)?;
    /// let u = solution.mean(&ndarray::array![[0.4]])?[0];
    /// assert!((u - 1.2_f64.sin()).abs() < 1e-6 && solution.residual.worst() < 1e-4);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// The problem is ill-posed, a kernel is not smooth enough for the operator, there are fewer points than the
    /// data's oscillation needs, or the Gram matrix is not positive definite.
    pub fn solve(&self, problem: &Problem) -> Result<PdeSolution> {
        let start = Instant::now();
        problem.validate()?;
        let kernel = self.kernel(problem)?;
        let equation = Equation::new(problem, self.equation_points(problem)?)?;
        let fixed = conditions(problem, self.face_points(problem))?;
        let rows = equation.points.nrows() + fixed.values.len();
        if rows > MAX_ROWS {
            return Err(Error::parameter(
                "points",
                rows,
                format!(
                    "more than {MAX_ROWS} rows don't fit a dense factorisation: use fewer points, or the weight-space engine"
                ),
            ));
        }
        let (mut posterior, mut termination, mut steps) = self.newton(&equation, &fixed, kernel)?;
        if self.training > 0 {
            let linearised = join(&equation.rows(&equation.values(Some(&posterior))?), &fixed);
            let (trained, outcome) =
                train::train(posterior.kernel(), &linearised, self.nugget, self.training)?;
            let (again, ended, more) = self.newton(&equation, &fixed, trained)?;
            (posterior, steps) = (again, steps + more + outcome.steps);
            termination = if ended == Termination::Completed { outcome.termination } else { ended };
        }
        let elapsed = start.elapsed();
        let hyperparameters = posterior.hyperparameters();
        let residual = Residual::measure(problem, &posterior, [251, 31, 9][problem.dim() - 1])?;
        Ok(PdeSolution {
            residual,
            points: rows,
            unknowns: posterior.len(),
            hyperparameters,
            spectrum: posterior.spectrum(),
            termination,
            steps,
            elapsed,
            warnings: warnings(residual, termination),
            posterior: Box::new(posterior),
        })
    }

    fn kernel(&self, problem: &Problem) -> Result<ProductKernel> {
        let axes = match &self.kernels {
            Some(kernels) => kernels.clone(),
            None => (0..problem.dim())
                .map(|axis| {
                    let frequency = angular_frequency(problem, axis)?;
                    if self.scattered.is_none() && !matches!(problem.source, Data::Samples(_)) {
                        problem.require_resolution(axis, self.points, 0.95 * frequency)?;
                    }
                    bandwidth::prior(frequency, problem.length(axis))
                })
                .collect::<Result<Vec<_>>>()?,
        };
        if axes.len() != problem.dim() {
            return Err(Error::shape(
                "kernels",
                format!("[{}]: one for each axis", problem.dim()),
                &[axes.len()],
            ));
        }
        for (axis, kernel) in axes.iter().enumerate() {
            let needed = 2 * problem.order(axis);
            if needed > kernel.smoothness().min(4) {
                return Err(Error::parameter(
                    format!("kernel of axis {axis}"),
                    format!("{} continuous derivatives", kernel.smoothness().min(4)),
                    format!("an equation of order {} along this axis needs {needed}", problem.order(axis)),
                ));
            }
        }
        Ok(ProductKernel { axes, variance: 1.0 })
    }

    fn equation_points(&self, problem: &Problem) -> Result<Array2<f64>> {
        let Some(points) = &self.scattered else {
            if self.points < 2 {
                return Err(Error::parameter("points", self.points, "at least 2 per axis"));
            }
            return Ok(tensor_grid(&problem.uniform_axes(self.points)));
        };
        if points.ncols() != problem.dim() || points.nrows() == 0 {
            return Err(Error::shape(
                "scattered",
                format!("[points > 0, {}]", problem.dim()),
                points.shape(),
            ));
        }
        let outside = |x: ndarray::ArrayView1<f64>| {
            x.iter().zip(&problem.domain).any(|(x, [low, high])| !(low..=high).contains(&x))
        };
        match points.rows().into_iter().find(|x| outside(*x)) {
            None => Ok(points.clone()),
            Some(x) => Err(Error::parameter("scattered", x, "points must lie in the domain")),
        }
    }

    fn face_points(&self, problem: &Problem) -> usize {
        let equation = match (&self.scattered, &problem.source) {
            (_, Data::Samples(samples)) => samples.values.len(),
            (Some(points), _) => points.nrows(),
            _ => return self.points,
        };
        (equation as f64).powf(1.0 / problem.dim() as f64).ceil().max(2.0) as usize
    }

    fn newton(
        &self,
        equation: &Equation<'_>,
        fixed: &Rows,
        mut kernel: ProductKernel,
    ) -> Result<(Conditioned, Termination, usize)> {
        let mut values = equation.values(None)?;
        let linear = join(&equation.rows(&values), fixed);
        let informative = linear.informative();
        let noiseless = linear.noise.iter().all(|noise| *noise == 0.0);
        if !noiseless {
            kernel.variance = train::fit_variance(&kernel, &linear, self.nugget)?;
        }
        let condition = |rows: Rows| {
            Conditioned::new(
                kernel.clone(),
                rows.functionals.clone(),
                &rows.values(),
                &rows.noise(),
                self.nugget,
            )
        };
        let mut u = condition(linear)?;
        let mut termination = Termination::Completed;
        let mut steps = 1;
        if equation.is_nonlinear() {
            termination = Termination::MaxIterations;
            values = equation.values(Some(&u))?;
            let mut misfit = equation.misfit(&equation.tangent(&values));
            // Below this the misfit is the factorisation's rounding, which no step lowers.
            let floor = 1e-6 * misfit;
            let mut before = f64::INFINITY;
            while steps < self.max_newton {
                u = condition(join(&equation.rows(&values), fixed))?;
                steps += 1;
                let full = equation.values(Some(&u))?;
                let blend = |length: f64| -> Vec<Array1<f64>> {
                    values.iter().zip(&full).map(|(a, b)| a + &((b - a) * length)).collect()
                };
                let found = line_search(misfit, floor, |length| {
                    Ok(equation.misfit(&equation.tangent(&blend(length))))
                })?;
                let Some(length) = found else {
                    termination = Termination::Diverged;
                    break;
                };
                let next = blend(length);
                let change =
                    values.iter().zip(&next).map(|(a, b)| norm(&(b - a)) / norm(b)).fold(0.0, f64::max);
                values = next;
                misfit = equation.misfit(&equation.tangent(&values));
                if change <= self.newton_tolerance || (change < 1e-5 && change > 0.3 * before) {
                    termination = Termination::Converged;
                    break;
                }
                before = change;
            }
        }
        if noiseless {
            u.estimate_amplitude(informative);
        }
        Ok((u, termination, steps))
    }
}

fn norm(x: &Array1<f64>) -> f64 {
    x.dot(x).sqrt().max(f64::MIN_POSITIVE)
}

fn join(a: &Rows, b: &Rows) -> Rows {
    Rows {
        functionals: [a.functionals.as_slice(), &b.functionals].concat(),
        values: [a.values.as_slice(), &b.values].concat(),
        noise: [a.noise.as_slice(), &b.noise].concat(),
    }
}

fn warnings(residual: Residual, termination: Termination) -> Vec<String> {
    let mut warnings = Vec::new();
    if !matches!(termination, Termination::Completed | Termination::Converged) {
        warnings.push(format!("the iteration ended as {}: the solution is not one", termination.name()));
    }
    if residual.worst().is_nan() || residual.worst() > 1e-2 {
        warnings.push(format!(
            "the residual off the points is {:.1e} of the equation's terms: use more points, or a wider kernel",
            residual.worst()
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
