//! Noise schedules: discrete variance-preserving β tables, the three continuous SDEs, and grids of σ.

use crate::error::{Error, Result};

/// A table of β₁…β_T that defines a discrete variance-preserving process, ᾱ_t = Π (1 − β_s).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Betas {
    /// β evenly spaced from `start` to `end` (DDPM: 1e-4 to 0.02 over 1000 steps).
    Linear {
        /// β₁.
        start: f64,
        /// β_T.
        end: f64,
    },
    /// √β evenly spaced (latent diffusion: 0.00085 to 0.012).
    ScaledLinear {
        /// β₁.
        start: f64,
        /// β_T.
        end: f64,
    },
    /// ᾱ(t) = cos²((t + 0.008)/1.008 · π/2), β at most 0.999 (Nichol and Dhariwal 2021, eq. 17).
    Cosine,
}

impl Default for Betas {
    fn default() -> Self {
        Self::Linear { start: 1e-4, end: 0.02 }
    }
}

impl Betas {
    /// ᾱ₁…ᾱ_T.
    ///
    /// ```
    /// let alphas = wellposed::prior::schedule::Betas::default().alphas_cumprod(1000);
    /// assert!((alphas[999] - 4.036e-5).abs() < 1e-7);
    /// ```
    pub fn alphas_cumprod(&self, steps: usize) -> Vec<f64> {
        let mut product = 1.0;
        (0..steps)
            .map(|t| {
                product *= 1.0 - self.beta(t, steps);
                product
            })
            .collect()
    }

    fn beta(&self, t: usize, steps: usize) -> f64 {
        let part = t as f64 / (steps.max(2) - 1) as f64;
        match *self {
            Self::Linear { start, end } => start + part * (end - start),
            Self::ScaledLinear { start, end } => (start.sqrt() + part * (end.sqrt() - start.sqrt())).powi(2),
            Self::Cosine => {
                let alpha = |t: usize| {
                    ((t as f64 / steps as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
                };
                (1.0 - alpha(t + 1) / alpha(t)).min(0.999)
            }
        }
    }

    /// The noise level σ_t = √((1−ᾱ_t)/ᾱ_t) of each of the steps, rising.
    pub fn sigmas(&self, steps: usize) -> Vec<f64> {
        self.alphas_cumprod(steps).into_iter().map(|a| ((1.0 - a) / a).sqrt()).collect()
    }
}

/// A grid of falling noise levels that ends in 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Grid {
    /// σ_i = (max^{1/ρ} + i/(n−1) (min^{1/ρ} − max^{1/ρ}))^ρ (Karras et al. 2022, eq. 5).
    Karras {
        /// Smallest noise level before 0.
        min: f64,
        /// Largest noise level.
        max: f64,
        /// ρ; 7 for sampling.
        rho: f64,
    },
    /// Uniform in ln σ, that is uniform in log-SNR.
    LogUniform {
        /// Smallest noise level before 0.
        min: f64,
        /// Largest noise level.
        max: f64,
    },
    /// Every (train/n)-th step of a discrete variance-preserving schedule, the DDIM choice.
    Vp {
        /// The β table.
        betas: Betas,
        /// Its length T.
        train: usize,
    },
}

impl Default for Grid {
    fn default() -> Self {
        Self::Vp { betas: Betas::default(), train: 1000 }
    }
}

impl Grid {
    /// `steps` falling noise levels, and a final 0.
    ///
    /// ```
    /// use wellposed::prior::schedule::Grid;
    /// let grid = Grid::Karras { min: 0.002, max: 80.0, rho: 7.0 }.sigmas(18)?;
    /// assert_eq!(grid.len(), 19);
    /// assert!((grid[0] - 80.0).abs() < 1e-9 && grid[18] == 0.0);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] for no steps, more steps than the table has, or levels out of order.
    pub fn sigmas(&self, steps: usize) -> Result<Vec<f64>> {
        if steps == 0 {
            return Err(Error::parameter("steps", steps, "must be at least 1"));
        }
        let ordered = |min: f64, max: f64| {
            if min > 0.0 && max > min && max.is_finite() {
                return Ok(());
            }
            Err(Error::parameter("noise levels", format!("{min}…{max}"), "must satisfy 0 < min < max"))
        };
        let part = |i: usize| i as f64 / (steps.max(2) - 1) as f64;
        let mut sigmas: Vec<f64> = match *self {
            Self::Karras { min, max, rho } => {
                ordered(min, max)?;
                let (low, high) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
                (0..steps).map(|i| (high + part(i) * (low - high)).powf(rho)).collect()
            }
            Self::LogUniform { min, max } => {
                ordered(min, max)?;
                (0..steps).map(|i| (max.ln() + part(i) * (min / max).ln()).exp()).collect()
            }
            Self::Vp { betas, train } => {
                if steps > train {
                    return Err(Error::parameter("steps", steps, format!("the schedule has {train}")));
                }
                let table = betas.sigmas(train);
                let stride = train / steps;
                (0..steps).rev().map(|i| table[i * stride]).collect()
            }
        };
        sigmas.push(0.0);
        Ok(sigmas)
    }
}

/// The stochastic differential equations of Song et al. (2011.13456): dx = f(t) x dt + g(t) dw on t ∈ (0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sde {
    /// Variance exploding: σ(t) = min (max/min)^t.
    Ve {
        /// σ(0).
        min: f64,
        /// σ(1).
        max: f64,
    },
    /// Variance preserving: β(t) = β₀ + t (β₁ − β₀).
    Vp {
        /// β(0).
        beta0: f64,
        /// β(1).
        beta1: f64,
    },
    /// Sub-variance preserving: the drift of VP with less noise.
    SubVp {
        /// β(0).
        beta0: f64,
        /// β(1).
        beta1: f64,
    },
}

impl Sde {
    /// VE with the σ range .01–378 of DiffusionMBIR.
    pub const MBIR: Self = Self::Ve { min: 0.01, max: 378.0 };
    /// VP with the usual β(t) = 0.1 + 19.9 t.
    pub const VP: Self = Self::Vp { beta0: 0.1, beta1: 20.0 };
    /// Sub-VP with the usual β(t) = 0.1 + 19.9 t.
    pub const SUB_VP: Self = Self::SubVp { beta0: 0.1, beta1: 20.0 };

    /// The marginal x_t = scale·x₀ + std·z: (scale, std).
    pub fn marginal(&self, t: f64) -> (f64, f64) {
        match *self {
            Self::Ve { min, max } => (1.0, min * (max / min).powf(t)),
            Self::Vp { beta0, beta1 } => {
                let log_mean = log_mean(beta0, beta1, t);
                (log_mean.exp(), (-(2.0 * log_mean).exp_m1()).sqrt())
            }
            Self::SubVp { beta0, beta1 } => {
                let log_mean = log_mean(beta0, beta1, t);
                (log_mean.exp(), -(2.0 * log_mean).exp_m1())
            }
        }
    }

    /// The noise level σ = std/scale of the variance-exploding view of x_t/scale.
    pub fn sigma(&self, t: f64) -> f64 {
        let (scale, std) = self.marginal(t);
        std / scale
    }

    /// The time at which the noise level is σ: the inverse of [`Sde::sigma`].
    pub fn time(&self, sigma: f64) -> f64 {
        match *self {
            Self::Ve { min, max } => (sigma / min).ln() / (max / min).ln(),
            // −2 ln α = ln(1 + σ²).
            Self::Vp { beta0, beta1 } => time_of(beta0, beta1, (sigma * sigma).ln_1p()),
            // (1 − α²)/α = σ, so 1/α = (σ + √(σ² + 4))/2.
            Self::SubVp { beta0, beta1 } => time_of(beta0, beta1, 2.0 * (sigma / 2.0).asinh()),
        }
    }

    /// f(t) of the drift f(t)·x.
    pub fn drift(&self, t: f64) -> f64 {
        match *self {
            Self::Ve { .. } => 0.0,
            Self::Vp { beta0, beta1 } | Self::SubVp { beta0, beta1 } => -0.5 * (beta0 + t * (beta1 - beta0)),
        }
    }

    /// g(t)².
    pub fn diffusion_squared(&self, t: f64) -> f64 {
        match *self {
            Self::Ve { min, max } => 2.0 * (max / min).ln() * self.marginal(t).1.powi(2),
            Self::Vp { beta0, beta1 } => beta0 + t * (beta1 - beta0),
            Self::SubVp { beta0, beta1 } => {
                let discount = -(4.0 * log_mean(beta0, beta1, t)).exp_m1();
                (beta0 + t * (beta1 - beta0)) * discount
            }
        }
    }

    /// Where reverse integration stops: 1e-5 (VE), 1e-3 (VP, sub-VP).
    pub fn end(&self) -> f64 {
        if matches!(self, Self::Ve { .. }) { 1e-5 } else { 1e-3 }
    }
}

/// ln of the mean coefficient of VP: −¼ t² (β₁ − β₀) − ½ t β₀.
fn log_mean(beta0: f64, beta1: f64, t: f64) -> f64 {
    -0.25 * t * t * (beta1 - beta0) - 0.5 * t * beta0
}

/// The positive root of ½ t² (β₁ − β₀) + t β₀ = c, in the form that keeps small c exact.
fn time_of(beta0: f64, beta1: f64, c: f64) -> f64 {
    2.0 * c / (beta0 + (beta0 * beta0 + 2.0 * (beta1 - beta0) * c).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_inverts_the_noise_level() {
        for sde in [Sde::MBIR, Sde::VP, Sde::SUB_VP] {
            for t in [1e-3, 0.3, 1.0] {
                assert!((sde.time(sde.sigma(t)) / t - 1.0).abs() < 1e-9, "{sde:?} {t}");
            }
        }
    }

    #[test]
    fn marginals_solve_their_moment_equations() {
        // d(scale)/dt = f·scale and d(std²)/dt = 2 f std² + g².
        for sde in [Sde::MBIR, Sde::VP, Sde::SUB_VP] {
            for t in [0.1, 0.4, 0.9] {
                let h = 1e-5;
                let (up, down) = (sde.marginal(t + h), sde.marginal(t - h));
                let (scale, std) = sde.marginal(t);
                let mean = (up.0 - down.0) / (2.0 * h) - sde.drift(t) * scale;
                let variance = (up.1.powi(2) - down.1.powi(2)) / (2.0 * h);
                let expected = 2.0 * sde.drift(t) * std * std + sde.diffusion_squared(t);
                assert!(mean.abs() < 1e-7, "{sde:?} {t}: {mean}");
                assert!((variance / expected - 1.0).abs() < 1e-6, "{sde:?} {t}: {variance} {expected}");
            }
        }
    }

    #[test]
    fn vp_grid_is_the_ddim_subset() {
        let sigmas = Grid::default().sigmas(50).unwrap();
        let table = Betas::default().sigmas(1000);
        assert_eq!((sigmas[0], sigmas[49], sigmas[50]), (table[980], table[0], 0.0));
        assert!(sigmas.windows(2).all(|w| w[0] > w[1]));
        assert!(Grid::default().sigmas(0).is_err() && Grid::default().sigmas(1001).is_err());
    }

    #[test]
    fn cosine_follows_its_definition() {
        let alphas = Betas::Cosine.alphas_cumprod(1000);
        let f = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        assert!((alphas[499] - f(0.5) / f(0.0)).abs() < 1e-12);
    }
}
