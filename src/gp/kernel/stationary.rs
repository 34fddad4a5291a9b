//! Squared exponential and Matérn.

use super::envelope::DERIVATIVES;
use super::{Envelope, Kernel1d, ORDERS, check_parameters};
use crate::error::{Error, Result};

/// k(τ) = v g(sτ): a scaled envelope. Hyperparameters: log variance, log length.
#[derive(Clone, Debug)]
pub struct Stationary {
    envelope: Envelope,
    log_variance: f64,
    log_length: f64,
}

impl Stationary {
    /// v e^(−τ²/2ℓ²).
    ///
    /// ```
    /// use wellposed::gp::kernel::{Kernel1d, Stationary};
    /// let kernel = Stationary::squared_exponential(2.0, 0.5)?;
    /// assert_eq!(kernel.derivatives(0.0)[0], 2.0);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// A parameter is not positive and finite.
    pub fn squared_exponential(variance: f64, length: f64) -> Result<Self> {
        Self::new(Envelope::Gaussian, variance, length)
    }

    /// The Matérn kernel of smoothness ν = p + ½, p from 0 to 5: 2p derivatives are continuous.
    ///
    /// ```
    /// use wellposed::gp::kernel::{Kernel1d, Stationary};
    /// assert_eq!(Stationary::matern(2, 1.0, 0.5)?.smoothness(), 4);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// p is above 5, or another parameter is not positive and finite.
    pub fn matern(p: usize, variance: f64, length: f64) -> Result<Self> {
        if p > 5 {
            return Err(Error::parameter("p", p, "Matérn kernels go from p = 0 (ν = ½) to p = 5 (ν = 11/2)"));
        }
        Self::new(Envelope::Matern(p), variance, length)
    }

    fn new(envelope: Envelope, variance: f64, length: f64) -> Result<Self> {
        for (name, value) in [("variance", variance), ("length", length)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::parameter(name, value, "must be positive and finite"));
            }
        }
        Ok(Self { envelope, log_variance: variance.ln(), log_length: length.ln() })
    }

    fn envelope_at(&self, tau: f64) -> [f64; DERIVATIVES] {
        let variance = self.log_variance.exp();
        self.envelope
            .derivatives(self.envelope.length_scale(self.log_length.exp()), tau)
            .map(|g| variance * g)
    }
}

impl Kernel1d for Stationary {
    fn derivatives(&self, tau: f64) -> [f64; ORDERS] {
        let g = self.envelope_at(tau);
        std::array::from_fn(|n| g[n])
    }

    fn gradients(&self, tau: f64, out: &mut [Vec<f64>; ORDERS]) {
        let g = self.envelope_at(tau);
        for (n, out) in out.iter_mut().enumerate() {
            // g⁽ⁿ⁾ = sⁿ G⁽ⁿ⁾(sτ), so ∂/∂log s = n g⁽ⁿ⁾ + τ g⁽ⁿ⁺¹⁾, and s ∝ 1/ℓ.
            out.copy_from_slice(&[g[n], -(n as f64 * g[n] + tau * g[n + 1])]);
        }
    }

    fn parameters(&self) -> Vec<f64> {
        vec![self.log_variance, self.log_length]
    }

    fn set_parameters(&mut self, parameters: &[f64]) -> Result<()> {
        check_parameters(2, parameters)?;
        (self.log_variance, self.log_length) = (parameters[0], parameters[1]);
        Ok(())
    }

    fn parameter_names(&self) -> Vec<String> {
        vec!["log variance".into(), "log length".into()]
    }

    fn smoothness(&self) -> usize {
        self.envelope.smoothness()
    }

    fn boxed(&self) -> Box<dyn Kernel1d> {
        Box::new(self.clone())
    }
}
