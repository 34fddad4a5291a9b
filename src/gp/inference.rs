//! Unknown coefficients from measurements of u, by Gauss–Newton with Laplace uncertainty.

use ndarray::{Array1, Array2};

use super::problem::{Derivative, Problem};
use super::solution::PdeSolution;
use crate::error::{Error, Result};
use crate::linalg::dense::Cholesky;
use crate::observe::Termination;

/// θ to its solution and u at the measured points.
type Model<'a> = dyn Fn(&Array1<f64>) -> Result<(PdeSolution, Array1<f64>)> + 'a;

/// Measurements of u with independent Gaussian errors, and a Gaussian prior of the unknowns θ.
///
/// θ may be coefficients themselves, or the weights of a coefficient field's expansion, such as
/// log a(x) = Σ θ_k φ_k(x): with θ ~ N(mean, deviation²) that is a Gaussian-process prior of the field.
#[derive(Clone, Debug)]
pub struct Inference {
    /// Where u was measured, shape [measurements, axes].
    pub points: Array2<f64>,
    /// The measured values, shape `[measurements]`.
    pub values: Array1<f64>,
    /// Standard deviation of their errors.
    pub noise: f64,
    /// Prior means of θ, and the start.
    pub mean: Array1<f64>,
    /// Prior standard deviations of θ.
    pub deviation: Array1<f64>,
    /// Gauss–Newton steps at most.
    pub max_steps: usize,
    /// Stop when no unknown moves by more than this part of its posterior standard deviation.
    pub tolerance: f64,
    /// Step of the differences that the Jacobian is made of, as a part of the prior deviations.
    pub difference: f64,
}

/// θ given the measurements, to second order around the most probable value.
#[derive(Debug)]
pub struct Inferred {
    /// The most probable θ.
    pub parameters: Array1<f64>,
    /// Laplace's covariance of θ, (JᵀJ/σ² + Γ⁻¹)⁻¹.
    pub covariance: Array2<f64>,
    /// The solution for the most probable θ.
    pub solution: PdeSolution,
    /// ‖u − values‖ / (σ √measurements): near 1 where model and noise level are right.
    pub misfit: f64,
    /// Gauss–Newton steps done.
    pub steps: usize,
    /// Why it ended.
    pub termination: Termination,
}

impl Inferred {
    /// Posterior standard deviations of θ.
    pub fn deviation(&self) -> Array1<f64> {
        self.covariance.diag().mapv(f64::sqrt)
    }
}

impl Inference {
    /// Measurements with noise σ and a prior N(mean, deviation²) of the unknowns.
    pub fn new(
        points: Array2<f64>,
        values: Array1<f64>,
        noise: f64,
        mean: Array1<f64>,
        deviation: Array1<f64>,
    ) -> Self {
        Self { points, values, noise, mean, deviation, max_steps: 20, tolerance: 1e-3, difference: 1e-4 }
    }

    /// Finds θ, where `problem` builds the problem for a θ and `solve` solves it with an engine of your choice: one
    /// solution for each unknown and step.
    ///
    /// Minimises ‖u_θ − values‖²/2σ² + Σ (θ − mean)²/2 deviation² by Gauss–Newton with halved steps where the objective
    /// would rise.
    ///
    /// ```
    /// use ndarray::array;
    /// use wellposed::gp::{Collocation, DifferentialOperator, Inference, Problem};
    /// // u″ = θ, u = 0 at both ends of [0, 1]: u(½) = −θ/8
    /// let problem = |theta: &[f64]| Ok(Problem::new(&[[0.0, 1.0]])
    ///     .operator(DifferentialOperator::laplacian(1)).source(theta[0]).dirichlet_everywhere(0.0));
    /// let engine = Collocation { points: 12, ..Default::default() };
    /// let found = Inference::new(array![[0.5]], array![-0.25], 1e-3, array![1.0], array![10.0])
    ///     .run(&problem, &|p| engine.solve(p))?;
    /// assert!((found.parameters[0] - 2.0).abs() < 0.01);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// Shapes that disagree, deviations that are not positive, and what `problem` and `solve` return.
    pub fn run(
        &self,
        problem: &dyn Fn(&[f64]) -> Result<Problem>,
        solve: &dyn Fn(&Problem) -> Result<PdeSolution>,
    ) -> Result<Inferred> {
        self.check()?;
        let model = |theta: &Array1<f64>| -> Result<(PdeSolution, Array1<f64>)> {
            let solution = solve(&problem(&theta.to_vec())?)?;
            let u = solution.posterior.mean(&self.points, Derivative::VALUE)?;
            Ok((solution, u))
        };
        let mut theta = self.mean.clone();
        let (mut solution, mut u) = model(&theta)?;
        let mut termination = Termination::MaxIterations;
        let mut steps = 0;
        loop {
            let jacobian = self.jacobian(&theta, &u, &model)?;
            let factor = Cholesky::new("Laplace precision", self.precision(&jacobian).view())?;
            let covariance = factor.inverse();
            if steps == self.max_steps || termination == Termination::Converged {
                let residual = &self.values - &u;
                let misfit = residual.dot(&residual).sqrt() / (self.noise * (u.len() as f64).sqrt());
                return Ok(Inferred { parameters: theta, covariance, solution, misfit, steps, termination });
            }
            steps += 1;
            let gradient = jacobian.t().dot(&(&u - &self.values)) / self.noise.powi(2)
                + (&theta - &self.mean) / self.deviation.mapv(|d| d * d);
            let full = factor.solve_vector(gradient.view())?.mapv(|s| -s);
            let before = self.objective(&theta, &u);
            let mut length = 1.0;
            loop {
                let trial = &theta + &(&full * length);
                let attempt = model(&trial);
                let lower =
                    attempt.as_ref().is_ok_and(|(_, u)| self.objective(&trial, u) <= before * (1.0 + 1e-12));
                if lower {
                    (solution, u) = attempt?;
                    theta = trial;
                    break;
                }
                length *= 0.5;
                // No lower value along the direction: rounding is all that is left.
                if length < 1e-6 {
                    break;
                }
            }
            let moved = (&full * length) / covariance.diag().mapv(f64::sqrt);
            if moved.iter().all(|m| m.abs() <= self.tolerance) {
                termination = Termination::Converged;
            }
        }
    }

    fn objective(&self, theta: &Array1<f64>, u: &Array1<f64>) -> f64 {
        let data = (u - &self.values) / self.noise;
        let prior = (theta - &self.mean) / &self.deviation;
        0.5 * data.dot(&data) + 0.5 * prior.dot(&prior)
    }

    /// JᵀJ/σ² + Γ⁻¹.
    fn precision(&self, jacobian: &Array2<f64>) -> Array2<f64> {
        let mut precision = jacobian.t().dot(jacobian) / self.noise.powi(2);
        for (p, d) in precision.diag_mut().iter_mut().zip(&self.deviation) {
            *p += 1.0 / (d * d);
        }
        precision
    }

    fn jacobian(&self, theta: &Array1<f64>, u: &Array1<f64>, model: &Model<'_>) -> Result<Array2<f64>> {
        let mut jacobian = Array2::zeros((u.len(), theta.len()));
        for (k, mut column) in jacobian.columns_mut().into_iter().enumerate() {
            let step = self.difference * self.deviation[k];
            let mut moved = theta.clone();
            moved[k] += step;
            column.assign(&((model(&moved)?.1 - u) / step));
        }
        Ok(jacobian)
    }

    fn check(&self) -> Result<()> {
        if self.points.nrows() != self.values.len() || self.values.is_empty() {
            let expected = format!("[{} > 0]", self.points.nrows());
            return Err(Error::shape("measured values", expected, self.values.shape()));
        }
        if self.mean.len() != self.deviation.len() || self.mean.is_empty() {
            return Err(Error::shape(
                "prior",
                "as many means as deviations, at least one",
                self.mean.shape(),
            ));
        }
        let positive = |v: &f64| *v > 0.0 && v.is_finite();
        if !(positive(&self.noise) && self.deviation.iter().all(positive) && positive(&self.difference)) {
            return Err(Error::parameter(
                "noise and prior deviations",
                self.noise,
                "must be positive and finite",
            ));
        }
        match self.values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(first) => Err(Error::NotFinite {
                name: "measured values".into(),
                count: self.values.iter().filter(|v| !v.is_finite()).count(),
                total: self.values.len(),
                first: vec![first],
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gp::kernel::{Kernel1d, Stationary};
    use crate::gp::{Collocation, Data, DifferentialOperator};
    use crate::tensor::random::Noise;

    fn engine() -> Collocation {
        let kernel = Stationary::squared_exponential(1.0, 0.35).expect("valid").boxed();
        Collocation { points: 24, kernels: Some(vec![kernel]), ..Collocation::default() }
    }

    fn measured(u: impl Fn(f64) -> f64, count: usize, noise: f64, seed: u64) -> (Array2<f64>, Array1<f64>) {
        let x = Array1::linspace(0.05, 0.95, count);
        let normal = Noise::new(seed, 0);
        let values =
            x.iter().enumerate().map(|(i, &x)| u(x) + noise * normal.normal_pair(i as u64).0).collect();
        (x.insert_axis(ndarray::Axis(1)), values)
    }

    /// u″ = θ: u = θ x(x − 1)/2 is linear in θ, so that the posterior is known in closed form.
    #[test]
    fn a_linear_model_gives_the_exact_posterior() -> Result<()> {
        let (points, values) = measured(|x| 1.5 * x * (x - 1.0), 15, 0.02, 4);
        let shape = points.column(0).mapv(|x| 0.5 * x * (x - 1.0));
        let precision = shape.dot(&shape) / 0.02_f64.powi(2) + 1.0 / 4.0;
        let expected = (shape.dot(&values) / 0.02_f64.powi(2) + 1.0 / 4.0) / precision;
        let problem = |theta: &[f64]| {
            Ok(Problem::new(&[[0.0, 1.0]])
                .operator(DifferentialOperator::laplacian(1))
                .source(theta[0])
                .dirichlet_everywhere(0.0))
        };
        let prior = (ndarray::array![1.0], ndarray::array![2.0]);
        let found =
            Inference::new(points, values, 0.02, prior.0, prior.1).run(&problem, &|p| engine().solve(p))?;
        assert!((found.parameters[0] - expected).abs() < 1e-4, "{} {expected}", found.parameters[0]);
        assert!((found.deviation()[0] * precision.sqrt() - 1.0).abs() < 1e-4);
        assert_eq!(found.termination, Termination::Converged);
        Ok(())
    }

    /// −(a u′)′ = 1 with log a = θ₀ + θ₁ cos πx: two modes of a field from noisy u.
    #[test]
    fn a_coefficient_field_is_found() -> Result<()> {
        let pi = std::f64::consts::PI;
        let problem = move |theta: &[f64]| {
            let (t0, t1) = (theta[0], theta[1]);
            let a = move |x: f64| (t0 + t1 * (pi * x).cos()).exp();
            let slope = move |x: f64| -pi * t1 * (pi * x).sin() * a(x);
            let operator = DifferentialOperator::default()
                .with(Derivative::along(0, 2), Data::function(move |x| -a(x[0])))
                .with(Derivative::along(0, 1), Data::function(move |x| -slope(x[0])));
            Ok(Problem::new(&[[0.0, 1.0]]).operator(operator).source(1.0).dirichlet_everywhere(0.0))
        };
        let truth = [0.3, -0.5];
        let exact = engine().solve(&problem(&truth)?)?;
        let clean = |x: f64| exact.mean(&ndarray::array![[x]]).map_or(f64::NAN, |u| u[0]);
        let (points, values) = measured(clean, 25, 5e-4, 2);
        let inference = Inference::new(points, values, 5e-4, Array1::zeros(2), Array1::ones(2));
        let found = inference.run(&problem, &|p| engine().solve(p))?;
        for (k, truth) in truth.iter().enumerate() {
            let (theta, s) = (found.parameters[k], found.deviation()[k]);
            assert!((theta - truth).abs() < 3.5 * s && s < 0.1, "{k}: {theta} ± {s}");
        }
        assert!(found.misfit > 0.6 && found.misfit < 1.4, "{}", found.misfit);
        Ok(())
    }

    #[test]
    fn misuse_is_named() {
        let short =
            Inference::new(Array2::zeros((2, 1)), Array1::zeros(3), 0.1, Array1::zeros(1), Array1::ones(1));
        let refused = short.run(&|_| Ok(Problem::new(&[[0.0, 1.0]])), &|p| engine().solve(p));
        assert!(refused.is_err_and(|e| e.to_string().contains("measured values")));
    }
}
