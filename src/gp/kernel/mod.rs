//! Covariance functions of one variable; in more dimensions they are multiplied over the axes.
//!
//! All are stationary, k(x, y) = k(τ) with τ = x − y, and give the derivatives that collocation of differential
//! operators needs: ∂ₓᵖ∂ᵧ^q k(x − y) = (−1)^q k⁽ᵖ⁺ᵠ⁾(τ).

mod algebra;
mod check;
mod envelope;
mod mixture;
mod stationary;

use std::fmt::Debug;

use ndarray::{Array1, Array2, ArrayView1};

pub use algebra::{Product, Sum};
pub use check::check_kernel;
pub use envelope::Envelope;
pub use mixture::{LagTable, SpectralMixture};
pub use stationary::Stationary;

use crate::error::{Error, Result};

/// Orders of differentiation that kernels offer: 0 to 4.
pub const ORDERS: usize = 5;

/// A stationary covariance function of one variable with derivatives and hyperparameters.
///
/// Positive hyperparameters are stored as logarithms; frequencies, which may be zero, as they are.
pub trait Kernel1d: Debug + Send + Sync {
    /// k⁽ⁿ⁾(τ) for n = 0 … 4, derivatives with respect to τ. Those above [`Kernel1d::smoothness`] are the one-sided
    /// limits and have no meaning at τ = 0.
    fn derivatives(&self, tau: f64) -> [f64; ORDERS];

    /// ∂k⁽ⁿ⁾(τ)/∂θᵢ of all hyperparameters θ, written to `out[n]`, for n = 0 … 4; each of length
    /// [`Kernel1d::parameters`].
    fn gradients(&self, tau: f64, out: &mut [Vec<f64>; ORDERS]);

    /// The hyperparameters θ.
    fn parameters(&self) -> Vec<f64>;

    /// Replaces the hyperparameters.
    ///
    /// # Errors
    /// The number of values is wrong, or one is not finite.
    fn set_parameters(&mut self, parameters: &[f64]) -> Result<()>;

    /// Names of the hyperparameters, in the order of [`Kernel1d::parameters`].
    fn parameter_names(&self) -> Vec<String>;

    /// The highest n for which k⁽ⁿ⁾ is continuous; `usize::MAX` for analytic kernels. Collocating an operator of
    /// order m needs 2m.
    fn smoothness(&self) -> usize;

    /// (frequency in cycles per unit of length, weight) of the spectrum's bumps, where it has any.
    fn spectrum(&self) -> Vec<(f64, f64)> {
        Vec::new()
    }

    /// A copy in a box.
    fn boxed(&self) -> Box<dyn Kernel1d>;

    /// Cov[u⁽ᵖ⁾(xᵢ), u⁽ᵠ⁾(yⱼ)] with `orders` = (p, q), shape [length of x, length of y].
    ///
    /// # Errors
    /// p + q is above 4 or above the kernel's smoothness.
    fn gram(&self, x: ArrayView1<f64>, y: ArrayView1<f64>, orders: (usize, usize)) -> Result<Array2<f64>> {
        let order = orders.0 + orders.1;
        require_order(self.smoothness(), order)?;
        let sign = if orders.1.is_multiple_of(2) { 1.0 } else { -1.0 };
        Ok(Array2::from_shape_fn((x.len(), y.len()), |(i, j)| sign * self.derivatives(x[i] - y[j])[order]))
    }

    /// k⁽ⁿ⁾(i·step) for i = 0 … count − 1: the first column of the Toeplitz Gram matrix of a uniform grid.
    ///
    /// # Errors
    /// `order` is above 4 or above the kernel's smoothness.
    fn lags(&self, step: f64, count: usize, order: usize) -> Result<Array1<f64>> {
        require_order(self.smoothness(), order)?;
        Ok((0..count).map(|i| self.derivatives(i as f64 * step)[order]).collect())
    }
}

impl Clone for Box<dyn Kernel1d> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

fn require_order(smoothness: usize, order: usize) -> Result<()> {
    if order < ORDERS && order <= smoothness {
        return Ok(());
    }
    Err(Error::parameter(
        "derivative order",
        order,
        format!("this kernel has continuous derivatives to order {}", smoothness.min(ORDERS - 1)),
    ))
}

fn check_parameters(expected: usize, parameters: &[f64]) -> Result<()> {
    if parameters.len() != expected {
        return Err(Error::shape("hyperparameters", format!("[{expected}]"), &[parameters.len()]));
    }
    match parameters.iter().position(|p| !p.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::parameter(format!("hyperparameter {at}"), parameters[at], "must be finite")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn mixture(envelope: Envelope) -> SpectralMixture {
        SpectralMixture::new(envelope, &[0.5, 0.3, 0.2], &[1.0, 2.0, 0.7], &[0.0, 0.6, 1.1]).expect("valid")
    }

    #[test]
    fn every_kernel_passes_its_check() -> Result<()> {
        for p in 0..=5 {
            check_kernel(&Stationary::matern(p, 1.3, 0.8)?)?;
        }
        check_kernel(&Stationary::squared_exponential(0.7, 0.5)?)?;
        check_kernel(&mixture(Envelope::Gaussian))?;
        check_kernel(&mixture(Envelope::Matern(2)))?;
        let se = Stationary::squared_exponential(0.7, 0.5)?;
        check_kernel(&Sum::new(vec![se.boxed(), mixture(Envelope::Matern(3)).boxed()])?)?;
        check_kernel(&Product::new(vec![se.boxed(), mixture(Envelope::Gaussian).boxed()])?)
    }

    #[test]
    fn closed_forms_of_the_literature() -> Result<()> {
        let (l, r) = (0.8_f64, 0.37_f64);
        let x = 5.0_f64.sqrt() * r / l;
        let matern = Stationary::matern(2, 1.0, l)?;
        assert!((matern.derivatives(r)[0] - (1.0 + x + x * x / 3.0) * (-x).exp()).abs() < 1e-15);
        let se = Stationary::squared_exponential(2.0, l)?;
        assert!((se.derivatives(r)[0] - 2.0 * (-r * r / (2.0 * l * l)).exp()).abs() < 1e-15);
        // Student-t mixture, Fang et al. (2311.04465): b = √5 a, k″ = Σ w [g″C − 2m g′S − m²gC].
        let (a, f) = (1.4, 2.3);
        let st = SpectralMixture::new(Envelope::Matern(2), &[0.6], &[a], &[f])?;
        let (b, m) = (5.0_f64.sqrt() * a, std::f64::consts::TAU * f);
        let (e, c) = ((-b * r).exp(), b * b / 3.0);
        let g = [
            (1.0 + b * r + c * r * r) * e,
            -c * r * (1.0 + b * r) * e,
            -c * (1.0 + b * r - b * b * r * r) * e,
        ];
        let expected =
            0.6 * (g[2] * (m * r).cos() - 2.0 * m * g[1] * (m * r).sin() - m * m * g[0] * (m * r).cos());
        assert!((st.derivatives(r)[2] - expected).abs() < 1e-12 * m * m);
        Ok(())
    }

    #[test]
    fn gram_and_lags_agree() -> Result<()> {
        let kernel = mixture(Envelope::Gaussian);
        let x = Array1::linspace(0.0, 1.0, 11);
        let gram = kernel.gram(x.view(), x.view(), (2, 1))?;
        let lags = kernel.lags(0.1, 11, 3)?;
        for i in 0..11 {
            assert!((gram[[i, 0]] + lags[i]).abs() < 1e-9);
        }
        assert!(Stationary::matern(1, 1.0, 1.0)?.gram(x.view(), x.view(), (2, 2)).is_err());
        assert!(kernel.gram(array![0.0].view(), array![1.0].view(), (3, 2)).is_err());
        Ok(())
    }
}
