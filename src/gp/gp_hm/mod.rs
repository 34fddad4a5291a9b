//! The published GP-HM objective (Fang et al. 2024, 2311.04465), for comparison with the literature.
//!
//! u on a uniform grid, the precisions of boundary and equation, and the mixture kernels are found together by gradient
//! descent. Toeplitz lags, Durbin's recursion and FFTs make a step O(n²) in 1-D. It converges slowly, to about 1e-4, and
//! has no variance: for results, use the other engines.

mod objective;
mod toeplitz;

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use ndarray::{Array1, Array2, ArrayD};

use self::objective::{HmObjective, published_mixture};
use super::collocation::angular_frequency;
use super::kernel::{Envelope, Kernel1d, SpectralMixture};
use super::problem::{Derivative, Problem, tensor_grid};
use super::solution::{PdeSolution, Posterior, Residual, SpectralLine};
use crate::error::{Error, Result};
use crate::linalg::{Adam, Lbfgs};
use crate::observe::{Observer, Outcome, Termination, drive};
use crate::tensor::Buffer;

/// How the objective is minimised.
#[derive(Clone, Copy, Debug)]
pub enum Minimiser {
    /// Adam with this step size, as published (0.01).
    Adam(f64),
    /// L-BFGS.
    Lbfgs,
}

/// GP-HM: maximum a posteriori values on a grid with spectral-mixture kernels.
#[derive(Clone, Debug)]
pub struct GpHm {
    /// Grid points per axis.
    pub points: usize,
    /// Matérn-5/2 for GP-HM-StM (which converges faster), Gaussian for GP-HM-GM.
    pub envelope: Envelope,
    /// Components Q of the mixture of each axis.
    pub components: usize,
    /// The highest initial frequency, radians per unit of length; by default a little above that of the data.
    pub highest: Option<f64>,
    /// λ, the weight of the boundary's likelihood against that of the equation and the prior.
    pub weight: f64,
    /// The minimiser.
    pub minimiser: Minimiser,
    /// Steps.
    pub iterations: usize,
}

impl Default for GpHm {
    fn default() -> Self {
        Self {
            points: 400,
            envelope: Envelope::Matern(2),
            components: 30,
            highest: None,
            weight: 200.0,
            minimiser: Minimiser::Adam(0.01),
            iterations: 10_000,
        }
    }
}

impl GpHm {
    /// Minimises the objective for `problem`; the observed measure is its value. The result is that of the last step.
    ///
    /// ```
    /// use wellposed::gp::{Data, DifferentialOperator, GpHm, Problem};
    /// let problem = Problem::new(&[[0.0, 1.0]])
    ///     .operator(DifferentialOperator::laplacian(1))
    ///     .source(Data::function(|x| -9.0 * (3.0 * x[0]).sin()))
    ///     .dirichlet_everywhere(Data::function(|x| (3.0 * x[0]).sin()));
    /// let solution = GpHm { points: 20, iterations: 20, ..Default::default() }.solve(&problem, &mut ())?;
    /// assert_eq!(solution.steps, 20);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// The problem is ill-posed, or outside what the published method takes (constant coefficients, Dirichlet conditions,
    /// one derivative an axis, N(u), one or two axes).
    pub fn solve(&self, problem: &Problem, observer: &mut dyn Observer) -> Result<PdeSolution> {
        let start = Instant::now();
        problem.validate()?;
        let objective = self.objective(problem)?;
        let initial = objective.start();
        let (x, outcome) = match self.minimiser {
            Minimiser::Adam(rate) => adam(&objective, &initial, rate, self.iterations, observer)?,
            Minimiser::Lbfgs => lbfgs(&objective, &initial, self.iterations, observer)?,
        };
        let posterior = GridPosterior::new(&objective, &x)?;
        let elapsed = start.elapsed();
        let residual = Residual::measure(problem, &posterior, [1001, 101][problem.dim() - 1])?;
        let warnings = warnings(residual);
        Ok(PdeSolution {
            residual,
            points: objective.nodes(),
            unknowns: x.len(),
            hyperparameters: posterior.hyperparameters(),
            spectrum: posterior.spectrum(),
            termination: outcome.termination,
            steps: outcome.steps,
            elapsed,
            warnings,
            posterior: Box::new(posterior),
        })
    }

    fn objective(&self, problem: &Problem) -> Result<HmObjective> {
        if self.points < 4 || self.iterations == 0 {
            let value = format!("{} points, {} iterations", self.points, self.iterations);
            return Err(Error::parameter("GpHm", value, "at least 4 points and 1 iteration"));
        }
        let kernels = (0..problem.dim())
            .map(|axis| {
                let highest = match self.highest {
                    Some(highest) => highest,
                    None => 1.25 * angular_frequency(problem, axis)?,
                };
                published_mixture(self.envelope, self.components, highest)
            })
            .collect::<Result<Vec<_>>>()?;
        HmObjective::new(problem, self.points, kernels, self.weight)
    }
}

fn warnings(residual: Residual) -> Vec<String> {
    let worst = residual.worst();
    if worst <= 1e-2 {
        return Vec::new();
    }
    vec![format!("the residual is {worst:.1e} of the equation's terms: the descent has not converged")]
}

struct Descent {
    x: Buffer,
    adam: crate::linalg::AdamState,
}

fn adam(
    objective: &HmObjective,
    start: &[f64],
    rate: f64,
    iterations: usize,
    observer: &mut dyn Observer,
) -> Result<(Vec<f64>, Outcome)> {
    let x = Buffer::from_vec(start.to_vec(), &[start.len()])?;
    let adam = Adam { rate, ..Adam::default() }.start(x.tensor())?;
    let mut state = Descent { x, adam };
    let mut gradient = vec![0.0; start.len()];
    let outcome = drive(
        &mut state,
        iterations,
        Termination::Completed,
        "objective",
        observer,
        |state, _| {
            let value = match objective.evaluate(&state.x.tensor().to_vec1::<f64>()?, &mut gradient) {
                Err(Error::NotPositiveDefinite { .. }) => return Ok((f64::NAN, Some(Termination::Diverged))),
                other => other?,
            };
            let slope = Tensor::from_slice(&gradient, gradient.len(), &Device::Cpu)?;
            state.adam.step(&slope, &mut state.x)?;
            Ok((value, None))
        },
        |state| state.x.tensor(),
    )?;
    Ok((state.x.tensor().to_dtype(DType::F64)?.to_vec1::<f64>()?, outcome))
}

fn lbfgs(
    objective: &HmObjective,
    start: &[f64],
    iterations: usize,
    observer: &mut dyn Observer,
) -> Result<(Vec<f64>, Outcome)> {
    let method =
        Lbfgs { max_iterations: iterations, memory: 20, gradient_tolerance: 1e-9, value_tolerance: 0.0 };
    let value = |x: &[f64], gradient: &mut [f64]| match objective.evaluate(x, gradient) {
        // Too far along the line.
        Err(Error::NotPositiveDefinite { .. }) => Ok(f64::INFINITY),
        other => other,
    };
    let s = method.minimise_values(value, start, observer)?;
    let outcome =
        Outcome { termination: s.termination, steps: s.steps, measure: s.measure, elapsed: s.elapsed };
    Ok((s.value.to_vec1::<f64>()?, outcome))
}

/// k(·, X) K⁻¹ u.
#[derive(Debug)]
struct GridPosterior {
    nodes: Vec<Array1<f64>>,
    kernels: Vec<SpectralMixture>,
    /// K₁⁻¹ U K₂⁻¹, [n₀, n₁ or 1].
    weights: Array2<f64>,
}

impl GridPosterior {
    fn new(objective: &HmObjective, x: &[f64]) -> Result<Self> {
        let nodes = objective
            .axes
            .iter()
            .map(|axis| (0..axis.nodes).map(|i| axis.low + axis.step * i as f64).collect())
            .collect();
        Ok(Self { nodes, kernels: objective.kernels_at(x)?, weights: objective.prediction_weights(x)? })
    }

    fn hyperparameters(&self) -> Vec<(String, f64)> {
        let of_axis = |(axis, kernel): (usize, &SpectralMixture)| {
            let named = kernel.parameter_names().into_iter().zip(kernel.parameters());
            named.map(|(name, value)| (format!("axis {axis} {name}"), value)).collect::<Vec<_>>()
        };
        self.kernels.iter().enumerate().flat_map(of_axis).collect()
    }

    fn spectrum(&self) -> Vec<SpectralLine> {
        let mut lines = Vec::new();
        for (axis, kernel) in self.kernels.iter().enumerate() {
            let spectrum = kernel.spectrum();
            let largest = spectrum.iter().fold(f64::MIN_POSITIVE, |m, (_, w)| m.max(*w));
            let line = |(f, w): (f64, f64)| SpectralLine {
                axis,
                frequency: std::f64::consts::TAU * f.abs(),
                weight: w / largest,
            };
            lines.extend(spectrum.into_iter().map(line));
        }
        lines
    }

    fn gram(&self, axis: usize, x: &Array1<f64>, derivative: Derivative) -> Result<Array2<f64>> {
        self.kernels[axis].gram(x.view(), self.nodes[axis].view(), (derivative.order(axis), 0))
    }

    fn unsupported<T>() -> Result<T> {
        Err(Error::Unsupported(
            "the published objective is a maximum a posteriori estimate and has no variance: use another engine".into(),
        ))
    }
}

impl Posterior for GridPosterior {
    fn mean(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array1<f64>> {
        if points.ncols() != self.nodes.len() {
            return Err(Error::shape("points", format!("[points, {}]", self.nodes.len()), points.shape()));
        }
        let first = self.gram(0, &points.column(0).to_owned(), derivative)?.dot(&self.weights);
        if self.nodes.len() == 1 {
            return Ok(first.column(0).to_owned());
        }
        let second = self.gram(1, &points.column(1).to_owned(), derivative)?;
        Ok((first * second).sum_axis(ndarray::Axis(1)))
    }

    fn mean_on_grid(&self, axes: &[Array1<f64>], derivative: Derivative) -> Result<ArrayD<f64>> {
        if axes.len() != self.nodes.len() {
            return Err(Error::shape("axes", format!("[{}]", self.nodes.len()), &[axes.len()]));
        }
        if axes.len() == 1 {
            return Ok(self.mean(&tensor_grid(axes), derivative)?.into_dyn());
        }
        let first = self.gram(0, &axes[0], derivative)?.dot(&self.weights);
        let grid = first.dot(&self.gram(1, &axes[1], derivative)?.t());
        Ok(grid.into_dyn())
    }

    fn variance(&self, _: &Array2<f64>, _: Derivative) -> Result<Array1<f64>> {
        Self::unsupported()
    }

    fn covariance(
        &self,
        _: (&Array2<f64>, Derivative),
        _: (&Array2<f64>, Derivative),
    ) -> Result<Array2<f64>> {
        Self::unsupported()
    }

    fn sample(&self, _: &Array2<f64>, _: Derivative, _: usize, _: u64) -> Result<Array2<f64>> {
        Self::unsupported()
    }
}

#[cfg(test)]
mod tests;
