//! Conditioning a Gaussian process on linear functionals of it.

use std::f64::consts::TAU;

use ndarray::{Array1, Array2};

use super::functional::{Functional, ProductKernel, evaluations};
use crate::error::{Error, Result};
use crate::gp::problem::Derivative;
use crate::gp::solution::{Posterior, SpectralLine, sample_gaussian};
use crate::linalg::dense::{Cholesky, matmul};

/// A Gaussian process given ℓᵢ u = bᵢ + noise.
#[derive(Debug)]
pub(super) struct Conditioned {
    kernel: ProductKernel,
    rows: Vec<Functional>,
    /// 1/√Kᵢᵢ: the factorised matrix has a unit diagonal.
    scale: Array1<f64>,
    factor: Cholesky<f64>,
    /// K⁻¹ b.
    weights: Array1<f64>,
    /// bᵀ K⁻¹ b.
    pub quadratic: f64,
    /// Factor on all variances, 1 unless the amplitude was estimated after conditioning.
    pub amplitude: f64,
}

/// The Gram matrix with noise, scaled to a unit diagonal, and the scale.
pub(super) fn scaled_gram(
    kernel: &ProductKernel,
    rows: &[Functional],
    noise: &Array1<f64>,
    nugget: f64,
) -> Result<(Array2<f64>, Array1<f64>)> {
    let mut gram = kernel.covariance(rows, rows);
    for (i, deviation) in noise.iter().enumerate() {
        gram[[i, i]] += deviation * deviation;
    }
    if let Some(at) = gram.diag().iter().position(|d| !(d.is_finite() && *d > 0.0)) {
        return Err(Error::Singular {
            name: "collocation system".into(),
            reason: format!(
                "row {at}, at x = {:?}, has the prior variance {}",
                rows[at].pieces[0].x,
                gram[[at, at]]
            ),
        });
    }
    let scale = gram.diag().mapv(|d| 1.0 / d.sqrt());
    for ((i, j), k) in gram.indexed_iter_mut() {
        *k *= scale[i] * scale[j];
    }
    gram.diag_mut().mapv_inplace(|d| d + nugget);
    Ok((gram, scale))
}

impl Conditioned {
    /// Conditions on `rows` having the values `b`, with errors of standard deviations `noise`.
    pub fn new(
        kernel: ProductKernel,
        rows: Vec<Functional>,
        b: &Array1<f64>,
        noise: &Array1<f64>,
        nugget: f64,
    ) -> Result<Self> {
        let (gram, scale) = scaled_gram(&kernel, &rows, noise, nugget)?;
        let factor = Cholesky::new("collocation Gram matrix", gram.view())?;
        let scaled = b * &scale;
        let weights = factor.solve_vector(scaled.view())?;
        let quadratic = weights.dot(&scaled);
        Ok(Self { kernel, rows, weights: weights * &scale, scale, factor, quadratic, amplitude: 1.0 })
    }

    /// The prior.
    pub fn kernel(&self) -> &ProductKernel {
        &self.kernel
    }

    /// The kernels' hyperparameters by name, and the estimated amplitude.
    pub fn hyperparameters(&self) -> Vec<(String, f64)> {
        let mut all = Vec::new();
        for (axis, kernel) in self.kernel.axes.iter().enumerate() {
            let named = kernel.parameter_names().into_iter().zip(kernel.parameters());
            all.extend(named.map(|(name, value)| (format!("axis {axis} {name}"), value)));
        }
        all.push(("variance".into(), self.kernel.variance * self.amplitude));
        all
    }

    /// The spectral lines of kernels that are mixtures.
    pub fn spectrum(&self) -> Vec<SpectralLine> {
        let mut all = Vec::new();
        for (axis, kernel) in self.kernel.axes.iter().enumerate() {
            let lines = kernel.spectrum();
            let largest = lines.iter().fold(f64::MIN_POSITIVE, |m, (_, w)| m.max(*w));
            let line = |(f, w): (f64, f64)| SpectralLine { axis, frequency: TAU * f, weight: w / largest };
            all.extend(lines.into_iter().map(line));
        }
        all
    }

    /// Without noise the posterior mean doesn't depend on the prior's variance, and the variance of greatest
    /// likelihood is bᵀK⁻¹b/n in closed form, n being the rows that are not exactly zero.
    pub fn estimate_amplitude(&mut self, informative: usize) {
        self.amplitude = self.quadratic / informative.max(1) as f64;
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    fn functionals(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Vec<Functional>> {
        let axes = self.kernel.axes.len();
        if points.ncols() != axes {
            return Err(Error::shape("points", format!("[points, {axes}]"), points.shape()));
        }
        for (axis, kernel) in self.kernel.axes.iter().enumerate() {
            if 2 * derivative.order(axis) > kernel.smoothness().min(4) {
                let reason = "the kernel has no such derivative: take a smoother one, and orders up to 2";
                return Err(Error::parameter("derivative", format!("{:?}", derivative.0), reason));
            }
        }
        Ok(evaluations(points, derivative))
    }

    /// L⁻¹ of the scaled cross-covariances, shape [rows, functionals].
    fn whitened(&self, functionals: &[Functional]) -> Result<Array2<f64>> {
        let mut cross = self.kernel.covariance(&self.rows, functionals);
        for (mut row, scale) in cross.rows_mut().into_iter().zip(&self.scale) {
            row *= *scale;
        }
        self.factor.whiten(cross.view())
    }
}

impl Posterior for Conditioned {
    fn mean(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array1<f64>> {
        let functionals = self.functionals(points, derivative)?;
        Ok(self.kernel.covariance(&functionals, &self.rows).dot(&self.weights))
    }

    fn variance(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array1<f64>> {
        let functionals = self.functionals(points, derivative)?;
        let known = self.whitened(&functionals)?.mapv(|v| v * v).sum_axis(ndarray::Axis(0));
        // Where the data determine u to rounding, the difference may come out a hair below zero.
        Ok((self.kernel.variances(&functionals) - known).mapv(|v| v.max(0.0) * self.amplitude))
    }

    fn covariance(
        &self,
        a: (&Array2<f64>, Derivative),
        b: (&Array2<f64>, Derivative),
    ) -> Result<Array2<f64>> {
        let (a, b) = (self.functionals(a.0, a.1)?, self.functionals(b.0, b.1)?);
        let known = matmul(self.whitened(&a)?.t(), self.whitened(&b)?.view())?;
        Ok((self.kernel.covariance(&a, &b) - known) * self.amplitude)
    }

    fn sample(
        &self,
        points: &Array2<f64>,
        derivative: Derivative,
        count: usize,
        seed: u64,
    ) -> Result<Array2<f64>> {
        let mean = self.mean(points, derivative)?;
        sample_gaussian(&mean, &self.covariance((points, derivative), (points, derivative))?, count, seed)
    }
}
