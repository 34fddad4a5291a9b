//! Hyperparameters by maximum marginal likelihood.

use ndarray::{Array1, Array2};

use super::functional::ProductKernel;
use super::posterior::scaled_gram;
use super::system::Rows;
use crate::error::{Error, Result};
use crate::linalg::Lbfgs;
use crate::linalg::dense::Cholesky;
use crate::observe::Solution;

/// −log p(b | θ) = ½ bᵀK⁻¹b + ½ log|K| + ½ n log 2π and its gradient over all axes' hyperparameters; the variance of
/// `kernel` is held.
pub(super) fn negative_log_likelihood(
    kernel: &ProductKernel,
    rows: &Rows,
    nugget: f64,
) -> Result<(f64, Vec<f64>)> {
    let (gram, scale) = scaled_gram(kernel, &rows.functionals, &rows.noise(), nugget)?;
    let factor = Cholesky::new("collocation Gram matrix", gram.view())?;
    let b = rows.values() * &scale;
    let alpha = factor.solve_vector(b.view())?;
    let value = 0.5 * b.dot(&alpha) + 0.5 * log_determinant(&factor, &scale) + constant(b.len());
    // ∂/∂K = ½ (K⁻¹ − ααᵀ); K is S⁻¹(K̂ + εI)S⁻¹ with S² = 1/diag, so the nugget moves with the diagonal.
    let mut weights = factor.inverse();
    for ((i, j), w) in weights.indexed_iter_mut() {
        *w = 0.5 * (*w - alpha[i] * alpha[j]) * scale[i] * scale[j];
    }
    weights.diag_mut().mapv_inplace(|w| w * (1.0 + nugget));
    Ok((value, kernel.pull_back(&rows.functionals, &weights)))
}

fn log_determinant(factor: &Cholesky<f64>, scale: &Array1<f64>) -> f64 {
    factor.log_determinant() - 2.0 * scale.mapv(f64::ln).sum()
}

fn constant(rows: usize) -> f64 {
    0.5 * rows as f64 * std::f64::consts::TAU.ln()
}

/// The kernel with hyperparameters of (locally) least negative log likelihood.
pub(super) fn train(
    start: &ProductKernel,
    rows: &Rows,
    nugget: f64,
    iterations: usize,
) -> Result<(ProductKernel, Solution)> {
    let initial: Vec<f64> = start.axes.iter().flat_map(|k| k.parameters()).collect();
    let objective = |theta: &[f64], gradient: &mut [f64]| {
        let attempt =
            with_parameters(start, theta).and_then(|kernel| negative_log_likelihood(&kernel, rows, nugget));
        match attempt {
            Ok((value, slopes)) => {
                gradient.copy_from_slice(&slopes);
                Ok(value)
            }
            // Too far: the line search comes back.
            Err(Error::NotPositiveDefinite { .. } | Error::Singular { .. } | Error::NotFinite { .. }) => {
                Ok(f64::INFINITY)
            }
            Err(other) => Err(other),
        }
    };
    let method = Lbfgs { max_iterations: iterations, gradient_tolerance: 1e-4, ..Lbfgs::default() };
    let solution = method.minimise_values(objective, &initial, &mut ())?;
    let best = solution.value.to_vec1::<f64>()?;
    Ok((with_parameters(start, &best)?, solution))
}

fn with_parameters(kernel: &ProductKernel, theta: &[f64]) -> Result<ProductKernel> {
    let mut kernel = kernel.clone();
    let mut rest = theta;
    for axis in &mut kernel.axes {
        let (own, others) = rest.split_at(axis.parameters().len());
        axis.set_parameters(own)?;
        rest = others;
    }
    Ok(kernel)
}

/// The variance v of v K + noise² of greatest likelihood, by golden-section search over twelve decades around the
/// size of the data.
pub(super) fn fit_variance(kernel: &ProductKernel, rows: &Rows, nugget: f64) -> Result<f64> {
    let gram = kernel.covariance(&rows.functionals, &rows.functionals);
    let b = rows.values();
    let noise = rows.noise();
    let typical = b.iter().zip(gram.diag()).map(|(b, k)| b * b / k).sum::<f64>() / b.len() as f64;
    if !(typical > 0.0 && typical.is_finite()) {
        return Ok(1.0);
    }
    // Exact zeros hold for every amplitude and say nothing of it: what counts is the likelihood of the rest given them.
    let silent = (rows.functionals.len() - rows.informative()) as f64;
    let cost = |log_v: f64| {
        Ok::<_, Error>(likelihood_at(&gram, &b, &noise, log_v.exp(), nugget)? - 0.5 * silent * log_v)
    };
    let golden = 0.5 * (5.0_f64.sqrt() - 1.0);
    let (mut low, mut high) = (typical.ln() - 6.0 * 10.0_f64.ln(), typical.ln() + 6.0 * 10.0_f64.ln());
    let mut inner = [high - golden * (high - low), low + golden * (high - low)];
    let mut costs = [cost(inner[0])?, cost(inner[1])?];
    while high - low > 0.05 {
        if costs[0] < costs[1] {
            (high, inner[1], costs[1]) = (inner[1], inner[0], costs[0]);
            inner[0] = high - golden * (high - low);
            costs[0] = cost(inner[0])?;
        } else {
            (low, inner[0], costs[0]) = (inner[0], inner[1], costs[1]);
            inner[1] = low + golden * (high - low);
            costs[1] = cost(inner[1])?;
        }
    }
    Ok((0.5 * (low + high)).exp())
}

fn likelihood_at(
    gram: &Array2<f64>,
    b: &Array1<f64>,
    noise: &Array1<f64>,
    variance: f64,
    nugget: f64,
) -> Result<f64> {
    let total = gram.diag().mapv(|d| variance * d) + noise.mapv(|n| n * n);
    let scale = total.mapv(|d| 1.0 / d.sqrt());
    let mut scaled =
        Array2::from_shape_fn(gram.raw_dim(), |(i, j)| variance * gram[[i, j]] * scale[i] * scale[j]);
    scaled.diag_mut().fill(1.0 + nugget);
    let factor = Cholesky::new("collocation Gram matrix", scaled.view())?;
    let b = b * &scale;
    Ok(0.5 * b.dot(&factor.solve_vector(b.view())?) + 0.5 * log_determinant(&factor, &scale))
}
