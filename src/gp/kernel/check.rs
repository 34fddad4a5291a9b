//! Checks for kernels of your own.

use ndarray::{Array1, Array2, Axis, concatenate};

use super::{Kernel1d, ORDERS};
use crate::error::{Error, Result};
use crate::linalg::dense::HermitianEigen;

/// Separations to check, on both sides of 0 and off it.
const SEPARATIONS: [f64; 7] = [-1.3, -0.41, -0.07, 0.03, 0.2, 0.77, 2.1];

/// Checks that a kernel's derivatives and gradients agree with differences, that k⁽ⁿ⁾(−τ) = (−1)ⁿ k⁽ⁿ⁾(τ), that
/// parameters survive being set, and that the joint Gram matrix of u and its derivatives (as far as the kernel's
/// smoothness allows) is positive definite up to rounding.
///
/// ```
/// use wellposed::gp::kernel::{Stationary, check_kernel};
/// check_kernel(&Stationary::matern(3, 1.0, 0.5)?)?;
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// Names the property that fails, with the numbers.
pub fn check_kernel(kernel: &dyn Kernel1d) -> Result<()> {
    let names = kernel.parameter_names().len();
    let parameters = kernel.parameters();
    if names != parameters.len() {
        return Err(Error::shape("parameter names", format!("[{}]", parameters.len()), &[names]));
    }
    for tau in SEPARATIONS {
        check_symmetry(kernel, tau)?;
        check_derivatives(kernel, tau)?;
        check_gradients(kernel, tau)?;
    }
    check_definiteness(kernel)
}

/// Each derivative is as large as the natural size of its order: relative comparisons need it.
fn sizes(kernel: &dyn Kernel1d) -> [f64; ORDERS] {
    let mut size = [f64::MIN_POSITIVE; ORDERS];
    for tau in SEPARATIONS {
        for (size, k) in size.iter_mut().zip(kernel.derivatives(tau)) {
            *size = size.max(k.abs());
        }
    }
    size
}

fn fail(property: &str, tau: f64, order: usize, found: f64, expected: f64) -> Error {
    Error::parameter(
        format!("kernel: {property}"),
        format!("{found:e} at τ = {tau}, order {order}"),
        format!("expected {expected:e}"),
    )
}

/// NaN exceeds every bound.
fn exceeds(difference: f64, bound: f64) -> bool {
    difference.is_nan() || difference.abs() > bound
}

fn check_symmetry(kernel: &dyn Kernel1d, tau: f64) -> Result<()> {
    let (plus, minus, size) = (kernel.derivatives(tau), kernel.derivatives(-tau), sizes(kernel));
    for n in 0..ORDERS {
        let expected = if n % 2 == 0 { plus[n] } else { -plus[n] };
        if exceeds(minus[n] - expected, 1e-12 * size[n]) {
            return Err(fail("symmetry", tau, n, minus[n], expected));
        }
    }
    Ok(())
}

fn check_derivatives(kernel: &dyn Kernel1d, tau: f64) -> Result<()> {
    const STEP: f64 = 1e-4;
    let size = sizes(kernel);
    let values = [-2.0, -1.0, 1.0, 2.0].map(|i| kernel.derivatives(tau + i * STEP));
    for n in 1..ORDERS {
        // Fourth-order central difference of the derivative below.
        let slope = (values[0][n - 1] - 8.0 * values[1][n - 1] + 8.0 * values[2][n - 1] - values[3][n - 1])
            / (12.0 * STEP);
        let found = kernel.derivatives(tau)[n];
        if exceeds(found - slope, 1e-8 * size[n] + 1e-11 * size[n - 1] / STEP) {
            return Err(fail("derivative", tau, n, found, slope));
        }
    }
    Ok(())
}

fn check_gradients(kernel: &dyn Kernel1d, tau: f64) -> Result<()> {
    const STEP: f64 = 1e-5;
    let parameters = kernel.parameters();
    let mut gradients: [Vec<f64>; ORDERS] = std::array::from_fn(|_| vec![0.0; parameters.len()]);
    kernel.gradients(tau, &mut gradients);
    let size = sizes(kernel);
    for i in 0..parameters.len() {
        let at = |shift: f64| -> Result<[f64; ORDERS]> {
            let mut moved = kernel.boxed();
            let mut values = parameters.clone();
            values[i] += shift;
            moved.set_parameters(&values)?;
            Ok(moved.derivatives(tau))
        };
        let (low, high) = (at(-STEP)?, at(STEP)?);
        for n in 0..ORDERS {
            let slope = (high[n] - low[n]) / (2.0 * STEP);
            let found = gradients[n][i];
            if exceeds(found - slope, 1e-6 * (size[n] + slope.abs())) {
                return Err(fail(&format!("gradient of hyperparameter {i}"), tau, n, found, slope));
            }
        }
    }
    Ok(())
}

/// The covariance of (u, u′, u″) at a few points has no negative eigenvalue beyond rounding, after scaling to a unit
/// diagonal.
fn check_definiteness(kernel: &dyn Kernel1d) -> Result<()> {
    let highest = (kernel.smoothness() / 2).min(2);
    let x = Array1::from_vec(vec![0.0, 0.11, 0.35, 0.62, 0.9, 1.4, 2.2]);
    let mut rows = Vec::new();
    for p in 0..=highest {
        let blocks =
            (0..=highest).map(|q| kernel.gram(x.view(), x.view(), (p, q))).collect::<Result<Vec<_>>>()?;
        rows.push(join(Axis(1), &blocks)?);
    }
    let gram = join(Axis(0), &rows)?;
    let scale = gram.diag().mapv(|d| 1.0 / d.max(f64::MIN_POSITIVE).sqrt());
    let scaled = Array2::from_shape_fn(gram.raw_dim(), |(i, j)| gram[[i, j]] * scale[i] * scale[j]);
    let eigen = HermitianEigen::new("kernel Gram matrix", scaled.view())?;
    let smallest = eigen.values.iter().copied().fold(f64::INFINITY, f64::min);
    if smallest < -1e-12 * x.len() as f64 {
        return Err(Error::NotPositiveDefinite {
            name: "kernel Gram matrix".into(),
            pivot: 0,
            value: smallest,
        });
    }
    Ok(())
}

fn join(axis: Axis, blocks: &[Array2<f64>]) -> Result<Array2<f64>> {
    let views: Vec<_> = blocks.iter().map(|b| b.view()).collect();
    concatenate(axis, &views).map_err(|e| Error::parameter("Gram blocks", blocks.len(), e.to_string()))
}
