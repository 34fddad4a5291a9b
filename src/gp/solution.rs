//! What every engine returns: a posterior over u that is evaluated anywhere, with its residual.

use std::fmt;
use std::time::Duration;

use ndarray::{Array1, Array2, ArrayD, IxDyn};

use super::problem::{Data, Derivative, Problem, Samples, tensor_grid};
use crate::error::{Error, Result};
use crate::linalg::dense::{HermitianEigen, matmul};
use crate::observe::Termination;
use crate::tensor::Space;
use crate::tensor::random::{Noise, standard_normal};

/// A Gaussian posterior over u and its derivatives.
pub trait Posterior: fmt::Debug + Send + Sync {
    /// E[∂u] at `points`, shape [points, axes].
    fn mean(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array1<f64>>;

    /// E[∂u] on the tensor grid of `axes`, shape [n₀, n₁, …]. Override where the grid's structure saves work.
    fn mean_on_grid(&self, axes: &[Array1<f64>], derivative: Derivative) -> Result<ArrayD<f64>> {
        on_grid(axes, self.mean(&tensor_grid(axes), derivative)?)
    }

    /// Var[∂u] at `points`: the posterior's own uncertainty, without the noise of a new measurement.
    fn variance(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array1<f64>>;

    /// Cov[∂u(a), ∂′u(b)], shape [points of a, points of b].
    fn covariance(&self, a: (&Array2<f64>, Derivative), b: (&Array2<f64>, Derivative))
    -> Result<Array2<f64>>;

    /// `count` draws of ∂u at `points`, shape [count, points]; a pure function of `seed`.
    fn sample(
        &self,
        points: &Array2<f64>,
        derivative: Derivative,
        count: usize,
        seed: u64,
    ) -> Result<Array2<f64>>;
}

/// How well a solution satisfies the equation, at points that the engine did not fit.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    /// ‖L u + N(u) − f‖ / (‖f‖ + the largest norm of a term): relative, over the interior.
    pub equation: f64,
    /// ‖B u − g‖ / (‖g‖ + ‖u‖ …): relative, over all conditions.
    pub boundary: f64,
}

impl Residual {
    /// The larger of the two: small where the solution is one.
    pub fn worst(self) -> f64 {
        // NaN must not pass for a small residual.
        if self.equation.is_nan() || self.boundary.is_nan() {
            f64::NAN
        } else {
            self.equation.max(self.boundary)
        }
    }

    /// Measures the residual of `posterior`'s mean on `points` off-grid coordinates per axis. Where the data are
    /// samples, their own points are used.
    ///
    /// # Errors
    /// Those of the data and of the posterior.
    pub fn measure(problem: &Problem, posterior: &dyn Posterior, points: usize) -> Result<Self> {
        Ok(Self {
            equation: Self::equation(problem, posterior, points)?.relative(),
            boundary: boundary_residual(problem, posterior, points)?,
        })
    }

    /// That of the equation alone.
    pub(super) fn equation(problem: &Problem, posterior: &dyn Posterior, points: usize) -> Result<Misfit> {
        equation_misfit(problem, posterior, points)
    }
}

/// What is left of an equation, and how large its terms are: norms over `points` points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Misfit {
    norm: f64,
    scale: f64,
    points: usize,
}

impl Misfit {
    /// The root mean square, in the units of f.
    pub(super) fn rms(self) -> f64 {
        self.norm / (self.points.max(1) as f64).sqrt()
    }

    /// Relative to the largest term.
    pub(super) fn relative(self) -> f64 {
        relative(self.norm, self.scale)
    }
}

/// The weight of one frequency in what the engine learned.
#[derive(Clone, Copy, Debug)]
pub struct SpectralLine {
    /// The axis it belongs to.
    pub axis: usize,
    /// Angular frequency, radians per unit of length.
    pub frequency: f64,
    /// Prior or posterior weight, relative to the largest.
    pub weight: f64,
}

/// The solution of a [`Problem`].
#[derive(Debug)]
pub struct PdeSolution {
    /// The posterior over u.
    pub posterior: Box<dyn Posterior>,
    /// How well its mean satisfies the equation off the fitted points. Always look at it.
    pub residual: Residual,
    /// Data points used (equation and boundary).
    pub points: usize,
    /// Unknowns solved for.
    pub unknowns: usize,
    /// Values of the hyperparameters, by name.
    pub hyperparameters: Vec<(String, f64)>,
    /// The spectrum that the prior uses, where the engine has one.
    pub spectrum: Vec<SpectralLine>,
    /// Why the iteration ended; `Completed` for a direct solve.
    pub termination: Termination,
    /// Newton or optimiser steps.
    pub steps: usize,
    /// Wall-clock time of the solve, without evaluation.
    pub elapsed: Duration,
    /// What a user should know before trusting the result, in words.
    pub warnings: Vec<String>,
}

impl PdeSolution {
    /// E\[u\] at `points`, shape [points, axes].
    ///
    /// # Errors
    /// `points` has another number of columns than the domain has axes.
    pub fn mean(&self, points: &Array2<f64>) -> Result<Array1<f64>> {
        self.posterior.mean(points, Derivative::VALUE)
    }

    /// E\[u\] on the tensor grid of `axes`.
    ///
    /// # Errors
    /// `axes` has another length than the domain.
    pub fn mean_on_grid(&self, axes: &[Array1<f64>]) -> Result<ArrayD<f64>> {
        self.posterior.mean_on_grid(axes, Derivative::VALUE)
    }

    /// Standard deviation of u at `points`.
    ///
    /// # Errors
    /// `points` has another number of columns than the domain has axes.
    pub fn deviation(&self, points: &Array2<f64>) -> Result<Array1<f64>> {
        Ok(self.posterior.variance(points, Derivative::VALUE)?.mapv(|v| v.max(0.0).sqrt()))
    }
}

/// `count` draws from N(mean, covariance), shape [count, points]; a pure function of `seed`.
///
/// ```
/// use ndarray::array;
/// let covariance = array![[1.0, 0.9], [0.9, 1.0]];
/// let draws = wellposed::gp::sample_gaussian(&array![5.0, 5.0], &covariance, 10, 7)?;
/// assert_eq!(draws.dim(), (10, 2));
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// The shapes disagree, or the covariance has an eigenvalue that is negative beyond rounding.
pub fn sample_gaussian(
    mean: &Array1<f64>,
    covariance: &Array2<f64>,
    count: usize,
    seed: u64,
) -> Result<Array2<f64>> {
    let n = mean.len();
    if covariance.dim() != (n, n) {
        return Err(Error::shape("covariance", format!("[{n}, {n}]"), covariance.shape()));
    }
    let eigen = HermitianEigen::new("posterior covariance", covariance.view())?;
    let largest = eigen.values.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    if let Some(pivot) = eigen.values.iter().position(|v| *v < -1e-6 * largest) {
        let value = eigen.values[pivot];
        return Err(Error::NotPositiveDefinite { name: "posterior covariance".into(), pivot, value });
    }
    // Eigenvalues that are zero up to rounding, of either sign, contribute nothing that can be seen.
    let root = &eigen.vectors * &eigen.values.mapv(|v| v.max(0.0).sqrt());
    let space = Space::real(&[count, n], candle_core::DType::F64, &candle_core::Device::Cpu);
    let normal = standard_normal(Noise::new(seed, 0), &space, &[])?.flatten_all()?.to_vec1::<f64>()?;
    let normal = Array2::from_shape_vec((count, n), normal)
        .map_err(|e| Error::parameter("count", count, e.to_string()))?;
    Ok(matmul(normal.view(), root.t())? + mean)
}

/// Values in row-major order as an array over the axes.
fn on_grid(axes: &[Array1<f64>], values: Array1<f64>) -> Result<ArrayD<f64>> {
    let shape: Vec<usize> = axes.iter().map(Array1::len).collect();
    values
        .into_shape_with_order(IxDyn(&shape))
        .map_err(|e| Error::parameter("axes", format!("{shape:?}"), e.to_string()))
}

fn norm<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Where the equation is checked, and the source there.
struct Interior {
    points: Array2<f64>,
    axes: Option<Vec<Array1<f64>>>,
    source: Array1<f64>,
}

impl Interior {
    /// The samples' own points where f is sampled, else an off-grid tensor grid.
    fn new(problem: &Problem, points: usize) -> Result<Self> {
        if let Data::Samples(samples) = &problem.source {
            let Samples { points, values, axes } = samples.clone();
            return Ok(Self { points, axes, source: values });
        }
        let axes = problem.off_grid_axes(points);
        let source = problem.source.on_grid(&axes)?.into_flat();
        Ok(Self { points: tensor_grid(&axes), axes: Some(axes), source })
    }
}

fn equation_misfit(problem: &Problem, posterior: &dyn Posterior, points: usize) -> Result<Misfit> {
    let Interior { points: x, axes, source: f } = Interior::new(problem, points)?;
    let derivatives = problem.derivatives();
    let values = derivatives
        .iter()
        .map(|&d| match &axes {
            Some(axes) => Ok(posterior.mean_on_grid(axes, d)?.into_flat()),
            None => posterior.mean(&x, d),
        })
        .collect::<Result<Vec<Array1<f64>>>>()?;
    let value_of = |d: Derivative| &values[derivatives.binary_search(&d).unwrap_or_default()];
    let mut scale = norm(&f);
    let mut residual = -f;
    let mut add = |term: Array1<f64>| {
        scale = scale.max(norm(&term));
        residual += &term;
    };
    for term in &problem.operator.terms {
        add(term.coefficient.at(&x)? * value_of(term.derivative));
    }
    for term in &problem.nonlinear {
        let columns: Vec<_> = term.arguments.iter().map(|&d| value_of(d)).collect();
        let mut u = vec![0.0; columns.len()];
        add((0..x.nrows())
            .map(|i| {
                u.iter_mut().zip(&columns).for_each(|(u, column)| *u = column[i]);
                term.value(&x.row(i).to_vec(), &u)
            })
            .collect());
    }
    Ok(Misfit { norm: norm(&residual), scale, points: residual.len() })
}

fn boundary_residual(problem: &Problem, posterior: &dyn Posterior, points: usize) -> Result<f64> {
    let (mut error, mut size) = (0.0, 0.0);
    for boundary in &problem.boundary {
        let mut axes = problem.off_grid_axes(points);
        axes[boundary.face.axis] = Array1::from_elem(1, problem.coordinate(boundary.face));
        let (x, g) = match boundary.condition.data() {
            Data::Samples(samples) => (samples.points.clone(), samples.values.clone()),
            data => (tensor_grid(&axes), data.on_grid(&axes)?.into_flat()),
        };
        let u = posterior.mean(&x, Derivative::VALUE)?;
        let mut residual = -g.clone();
        for (derivative, coefficient) in boundary.condition.terms(boundary.face) {
            residual.scaled_add(coefficient, &posterior.mean(&x, derivative)?);
        }
        // A value of zero on the face is relative to the size of u over the whole domain.
        error += norm(&residual).powi(2) / x.nrows() as f64;
        size += (norm(&g).powi(2) + norm(&u).powi(2)) / x.nrows() as f64;
    }
    for axis in (0..problem.dim()).filter(|&axis| problem.periodic[axis]) {
        let mut axes = problem.off_grid_axes(points);
        axes[axis] = problem.domain[axis].to_vec().into();
        for order in 0..problem.order(axis) {
            let ends = posterior.mean_on_grid(&axes, Derivative::along(axis, order))?;
            let ends: Vec<_> = ends.axis_iter(ndarray::Axis(axis)).map(|face| face.to_owned()).collect();
            error += norm(&(&ends[1] - &ends[0])).powi(2) / ends[0].len() as f64;
            size += norm(&ends[0]).powi(2) / ends[0].len() as f64;
        }
    }
    let inside = posterior.mean_on_grid(&problem.off_grid_axes(points), Derivative::VALUE)?;
    size += norm(&inside).powi(2) / inside.len() as f64;
    Ok(relative(error.sqrt(), size.sqrt()))
}

fn relative(error: f64, scale: f64) -> f64 {
    if scale > 0.0 { error / scale } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gp::{DifferentialOperator, Face, Nonlinearity};

    /// u = sin(ωx): a posterior without uncertainty.
    #[derive(Debug)]
    struct Sine(f64);

    impl Posterior for Sine {
        fn mean(&self, points: &Array2<f64>, d: Derivative) -> Result<Array1<f64>> {
            let n = d.order(0) as i32;
            let phase = f64::from(n) * std::f64::consts::FRAC_PI_2;
            Ok(points.column(0).mapv(|x| self.0.powi(n) * (self.0 * x + phase).sin()))
        }
        fn variance(&self, points: &Array2<f64>, _: Derivative) -> Result<Array1<f64>> {
            Ok(Array1::zeros(points.nrows()))
        }
        fn covariance(
            &self,
            a: (&Array2<f64>, Derivative),
            b: (&Array2<f64>, Derivative),
        ) -> Result<Array2<f64>> {
            Ok(Array2::zeros((a.0.nrows(), b.0.nrows())))
        }
        fn sample(&self, x: &Array2<f64>, d: Derivative, count: usize, _: u64) -> Result<Array2<f64>> {
            let mean = self.mean(x, d)?;
            Ok(Array2::from_shape_fn((count, x.nrows()), |(_, i)| mean[i]))
        }
    }

    fn problem() -> Problem {
        let w = 7.0_f64;
        Problem::new(&[[0.0, 1.0]])
            .operator(DifferentialOperator::laplacian(1))
            .nonlinear(Nonlinearity::of_value(|u| u.powi(3), |u| 3.0 * u * u))
            .source(Data::function(move |x| -w * w * (w * x[0]).sin() + (w * x[0]).sin().powi(3)))
            .dirichlet(Face::low(0), 0.0)
            .neumann(Face::high(0), w * w.cos())
    }

    #[test]
    fn the_exact_solution_has_no_residual_and_others_do() -> Result<()> {
        let exact = Residual::measure(&problem(), &Sine(7.0), 50)?;
        assert!(exact.worst() < 1e-14, "{exact:?}");
        let wrong = Residual::measure(&problem(), &Sine(7.1), 50)?;
        assert!(wrong.equation > 0.01 && wrong.boundary > 0.01, "{wrong:?}");
        Ok(())
    }

    #[test]
    fn periodic_ends_are_compared() -> Result<()> {
        let ring = Problem::new(&[[0.0, std::f64::consts::TAU]])
            .operator(DifferentialOperator::laplacian(1))
            .periodic(0);
        assert!(Residual::measure(&ring, &Sine(3.0), 40)?.boundary < 1e-14);
        assert!(Residual::measure(&ring, &Sine(3.3), 40)?.boundary > 0.1);
        Ok(())
    }
}
