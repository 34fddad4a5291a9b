//! One denoiser D(x, σ) out of any network: what it predicts, on what scale, at what time.
//!
//! Every convention has the form D(x, σ) = c_skip x + c_out F(c_in x, t):
//!
//! | [`Prediction`] | c_skip | c_out | c_in | t |
//! |---|---|---|---|---|
//! | noise ε | 1 | −σ | √ᾱ | time(σ) |
//! | clean image x₀ | 0 | 1 | √ᾱ | time(σ) |
//! | velocity v = √ᾱ ε − √(1−ᾱ) x₀ | ᾱ | −√(1−ᾱ) | √ᾱ | time(σ) |
//! | score of x_t | 1 | σ √(1−ᾱ) | √ᾱ | time(σ) |
//! | x − x₀ at σ₀ (DnCNN) | 1 | −σ/σ₀ | σ₀/σ | σ₀ |
//! | EDM residual | σ_d²/(σ²+σ_d²) | σσ_d/√(σ²+σ_d²) | 1/√(σ²+σ_d²) | ln σ/4 |

mod adapter;
mod rescaled;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::Tensor;

pub use adapter::NetworkDenoiser;
pub use rescaled::Rescaled;

use crate::error::{Error, Result};
use crate::prior::Pullback;
use crate::prior::schedule::{Betas, Sde};

/// A network F(x, t) on f32 images [batch, channels, height, width], as it was trained.
pub trait Network: Debug + Send + Sync {
    /// Channels of the argument: 1 for real images, 2 (re, im) for complex ones.
    fn channels(&self) -> usize;
    /// What height and width must be multiples of; other sizes are padded by reflection.
    fn granule(&self) -> usize;
    /// F(x, t); the value may have more channels than x (learned variances), the prediction first.
    fn forward(&self, x: &Tensor, time: f64) -> Result<Tensor>;
    /// F(x, t) and its vector–Jacobian product with respect to x.
    fn forward_vjp(&self, x: &Tensor, time: f64) -> Result<(Tensor, Pullback)>;
}

/// The noise levels and times that a network was trained on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Times {
    /// Integer times of a variance-preserving table; levels in between get fractional times.
    Discrete(DiscreteTimes),
    /// Continuous times; the network gets t multiplied by `scale` (999 for score-SDE's VP networks).
    Continuous {
        /// The equation.
        sde: Sde,
        /// The factor of t.
        scale: f64,
    },
    /// Variance exploding; the network gets σ itself (score-SDE's NCSN++ takes its logarithm inside).
    Sigma,
}

/// The times 0 … T − 1 of a variance-preserving table, as a function of the noise level.
///
/// ```
/// use wellposed::prior::{parametrization::DiscreteTimes, schedule::Betas};
/// let times = DiscreteTimes::new(Betas::default(), 1000)?;
/// let sigma = Betas::default().sigmas(1000)[400];
/// assert!((times.time(sigma) - 400.0).abs() < 1e-9);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DiscreteTimes {
    /// ln σ at the integer times, rising.
    log_sigma: Arc<[f64]>,
}

impl DiscreteTimes {
    /// The times of a table of this length.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless the noise levels are positive and rise from time to time, at least twice.
    pub fn new(betas: Betas, steps: usize) -> Result<Self> {
        let log_sigma: Arc<[f64]> = betas.sigmas(steps).iter().map(|s| s.ln()).collect();
        if steps < 2 || !log_sigma.windows(2).all(|w| w[0] < w[1]) || !log_sigma.iter().all(|l| l.is_finite())
        {
            let reason = format!("{steps} noise levels of this table don't rise steadily");
            return Err(Error::parameter("betas", format!("{betas:?}"), reason));
        }
        Ok(Self { log_sigma })
    }

    /// The (fractional) time of noise level σ by interpolation in ln σ, clamped to the ends.
    pub fn time(&self, sigma: f64) -> f64 {
        let (wanted, last) = (sigma.ln(), self.log_sigma.len() - 1);
        let above = self.log_sigma.partition_point(|&l| l < wanted);
        if above == 0 || above > last {
            return if above == 0 { 0.0 } else { last as f64 };
        }
        let (low, high) = (self.log_sigma[above - 1], self.log_sigma[above]);
        (above - 1) as f64 + (wanted - low) / (high - low)
    }
}

/// What a network's output stands for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Prediction {
    /// The noise ε of x_t = α x₀ + s ε.
    Noise(Times),
    /// The clean image x₀.
    Sample(Times),
    /// v = α ε − s x₀ (Salimans & Ho 2022); variance-preserving schedules only.
    Velocity(Times),
    /// The score of x_t, −ε/s.
    Score(Times),
    /// x − x₀ at the one level σ that the network knows: D(x, σ') = x − s F(x/s), s = σ'/σ.
    Residual {
        /// The level of its training.
        sigma: f64,
    },
    /// The residual of EDM's preconditioning with the standard deviation σ_d of the data.
    Edm {
        /// σ_d; .5 for images in [−1, 1].
        sigma_data: f64,
    },
}

/// The numbers of D(x, σ) = `skip`·x + `out`·F(`input`·x, `time`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// c_skip.
    pub skip: f64,
    /// c_out.
    pub out: f64,
    /// c_in.
    pub input: f64,
    /// The time that the network is told.
    pub time: f64,
}

/// Signal α and noise s of x_t = α x₀ + s n, and the time that the network is told.
struct Level {
    signal: f64,
    noise: f64,
    time: f64,
}

impl Times {
    fn at(&self, sigma: f64) -> Level {
        let preserving = 1.0 / sigma.hypot(1.0);
        match self {
            Self::Discrete(times) => {
                Level { signal: preserving, noise: sigma * preserving, time: times.time(sigma) }
            }
            Self::Continuous { sde, scale } => {
                let t = sde.time(sigma);
                let (signal, noise) = sde.marginal(t);
                Level { signal, noise, time: scale * t }
            }
            Self::Sigma => Level { signal: 1.0, noise: sigma, time: sigma },
        }
    }
}

impl Prediction {
    /// The coefficients at noise level σ.
    pub fn coefficients(&self, sigma: f64) -> Coefficients {
        match self {
            Self::Noise(times) => {
                let Level { signal, time, .. } = times.at(sigma);
                Coefficients { skip: 1.0, out: -sigma, input: signal, time }
            }
            Self::Sample(times) => {
                let Level { signal, time, .. } = times.at(sigma);
                Coefficients { skip: 0.0, out: 1.0, input: signal, time }
            }
            Self::Velocity(times) => {
                // x₀ = α x_t − s v with x_t = α x and α² + s² = 1.
                let Level { signal, noise, time } = times.at(sigma);
                Coefficients { skip: signal.powi(2), out: -noise, input: signal, time }
            }
            Self::Score(times) => {
                // ε = −s · score, and σ s = s²/α.
                let Level { signal, noise, time } = times.at(sigma);
                Coefficients { skip: 1.0, out: sigma * noise, input: signal, time }
            }
            Self::Residual { sigma: known } => {
                let scale = sigma / known;
                Coefficients { skip: 1.0, out: -scale, input: 1.0 / scale, time: *known }
            }
            Self::Edm { sigma_data } => {
                let total = sigma.hypot(*sigma_data);
                Coefficients {
                    skip: (sigma_data / total).powi(2),
                    out: sigma * sigma_data / total,
                    input: 1.0 / total,
                    time: sigma.ln() / 4.0,
                }
            }
        }
    }
}
