//! Photon counting: Beer–Lambert attenuation, Poisson counts, electronic noise, the logarithm.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tensor::random::Noise;
use crate::tensor::{Buffer, Kernel, Real, launch, vector};

/// Rays a task.
const TASK: usize = 1 << 12;
/// Streams of random numbers for the two kinds of noise.
const POISSON: u32 = 0x504f_4953;
const ELECTRONIC: u32 = 0x454c_4543;

/// The beam and the detector electronics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Photons {
    /// I₀: mean photons of an unattenuated ray.
    pub open_beam: f64,
    /// Standard deviation of the electronic noise, in photons.
    pub electronic: f64,
}

impl Default for Photons {
    /// 10⁵ photons, no electronic noise.
    fn default() -> Self {
        Self { open_beam: 1e5, electronic: 0.0 }
    }
}

/// What a detector reports.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// p = ln(I₀/N).
    pub line_integrals: Tensor,
    /// The counts N, at least 1: by Poisson statistics also 1/variance of p, the weights of least squares.
    pub counts: Tensor,
}

impl Photons {
    /// Counts N ~ Poisson(I₀ e^{−p}) + electronic noise, of which at least one photon is believed, and
    /// ln(I₀/N). Each ray's number depends only on the seed and on its place in the array.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use wellposed::operator::ct::Photons;
    /// let seen = Photons::default().measure(&Tensor::new(&[0f64, 3.0], &Device::Cpu)?, 1)?;
    /// assert!((seen.line_integrals.to_vec1::<f64>()?[1] - 3.0).abs() < 0.1);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where I₀ isn't in 1…10¹⁵ or the electronic noise is negative; [`Error::NotFinite`].
    pub fn measure(&self, line_integrals: &Tensor, seed: u64) -> Result<Measurement> {
        if !(1.0..=1e15).contains(&self.open_beam) {
            return Err(Error::parameter("photons", self.open_beam, "must be in 1…1e15"));
        }
        if !(self.electronic.is_finite() && self.electronic >= 0.0) {
            return Err(Error::parameter("electronic noise", self.electronic, "must be at least 0"));
        }
        vector::require_finite("line integrals", line_integrals)?;
        let (mut p, mut counts) = (Buffer::copy_of(line_integrals)?, Buffer::copy_of(line_integrals)?);
        launch(Detect { photons: *self, seed }, &[], &mut [&mut p, &mut counts])?;
        Ok(Measurement { line_integrals: p.freeze(), counts: counts.freeze() })
    }
}

/// Weights of least squares 1/(1/N + m²) for photon counts N: the inverse variances of line integrals whose discrete
/// model errs by m besides, see [`ImageGrid::model_error`](crate::operator::ct::ImageGrid::model_error). With m = 0
/// they are the counts.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::operator::ct::statistical_weights;
/// let weights = statistical_weights(&Tensor::new(&[100f64, 1e9], &Device::Cpu)?, 0.01)?;
/// assert!((weights.get(0)?.to_scalar::<f64>()? - 99.0).abs() < 0.1); // the photons' own
/// assert!((weights.get(1)?.to_scalar::<f64>()? - 1e4).abs() < 1.0); // the model's
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Parameter`] where m is negative or not finite.
pub fn statistical_weights(counts: &Tensor, model_error: f64) -> Result<Tensor> {
    if !(model_error >= 0.0 && model_error.is_finite()) {
        return Err(Error::parameter("model error", model_error, "must be at least 0"));
    }
    let mut weights = Buffer::copy_of(counts)?;
    launch(Weigh(model_error * model_error), &[], &mut [&mut weights])?;
    Ok(weights.freeze())
}

/// n ← n/(1 + n·variance).
struct Weigh(f64);

impl Kernel for Weigh {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let variance = T::of(self.0);
        outputs[0].par_iter_mut().with_min_len(TASK).for_each(|n| *n /= T::one() + *n * variance);
        Ok(())
    }
}

struct Detect {
    photons: Photons,
    seed: u64,
}

impl Kernel for Detect {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let [p, counts] = outputs else { return Ok(()) };
        let Photons { open_beam, electronic } = self.photons;
        let (quantum, circuit) = (Noise::new(self.seed, POISSON), Noise::new(self.seed, ELECTRONIC));
        p.par_chunks_mut(TASK).zip(counts.par_chunks_mut(TASK)).enumerate().for_each(
            |(task, (p, counts))| {
                for (i, (p, count)) in p.iter_mut().zip(counts).enumerate() {
                    let index = (task * TASK + i) as u64;
                    let mut n = poisson(open_beam * (-p.as_f64()).exp(), quantum, index);
                    if electronic > 0.0 {
                        n += electronic * circuit.normal_pair(index).0;
                    }
                    let believed = n.max(1.0);
                    *count = T::of(believed);
                    *p = T::of((open_beam / believed).ln());
                }
            },
        );
        Ok(())
    }
}

/// A Poisson number of this mean, exact in distribution: by inversion below 10, by transformed rejection above
/// (Hörmann 1993, algorithm PTRS). Draw number k takes the pair (k, index) of the noise.
fn poisson(mean: f64, noise: Noise, index: u64) -> f64 {
    if mean < 10.0 {
        let (mut uniform, mut count) = (noise.uniform(index), 0.0);
        let mut share = (-mean).exp();
        // The bound is never reached in exact arithmetic; it ends the tail that rounding leaves.
        while uniform > share && count < 200.0 {
            uniform -= share;
            count += 1.0;
            share *= mean / count;
        }
        return count;
    }
    let b = 0.931 + 2.53 * mean.sqrt();
    let a = -0.059 + 0.02483 * b;
    let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
    let squeeze = 0.9277 - 3.6224 / (b - 2.0);
    let mut draw = 0;
    loop {
        let (u, v) = noise.at(draw).uniform_pair(index);
        draw += 1;
        let u = u - 0.5;
        let distance = 0.5 - u.abs();
        let k = ((2.0 * a / distance + b) * u + mean + 0.43).floor();
        if distance >= 0.07 && v <= squeeze {
            return k;
        }
        if k < 0.0 || (distance < 0.013 && v > distance) {
            continue;
        }
        let height = (v * inverse_alpha / (a / (distance * distance) + b)).ln();
        if height <= k * mean.ln() - mean - ln_factorial(k) {
            return k;
        }
    }
}

/// ln k! by Stirling's series, after a product for small k.
fn ln_factorial(k: f64) -> f64 {
    if k < 16.0 {
        return (2..=k as u32).map(f64::from).product::<f64>().ln();
    }
    let (n, square) = (k + 1.0, (k + 1.0) * (k + 1.0));
    (n - 0.5) * n.ln() - n
        + 0.5 * std::f64::consts::TAU.ln()
        + (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * square)) / square) / n
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn ln_factorials() {
        for (k, exact) in [(0.0, 0.0), (5.0, 120f64.ln()), (20.0, 2_432_902_008_176_640_000f64.ln())] {
            assert!((ln_factorial(k) - exact).abs() < 1e-12, "{k}");
        }
        assert!((ln_factorial(16.0) - ln_factorial(15.0) - 16f64.ln()).abs() < 1e-11);
    }

    #[test]
    fn counts_follow_the_poisson_law() {
        let n = 100_000u64;
        for mean in [0.3, 4.0, 9.9, 10.1, 37.0, 1234.5] {
            let draws: Vec<f64> = (0..n).map(|i| poisson(mean, Noise::new(5, 9), i)).collect();
            let average = draws.iter().sum::<f64>() / n as f64;
            let moment = |k| draws.iter().map(|d| (d - mean).powi(k)).sum::<f64>() / n as f64;
            // Central moments of the law: λ, λ, and λ + 3λ².
            let root = (n as f64).sqrt();
            assert!((average - mean).abs() < 5.0 * mean.sqrt() / root, "{mean}: mean {average}");
            let spread = (mean + 2.0 * mean * mean).sqrt();
            assert!((moment(2) - mean).abs() < 5.0 * spread / root, "{mean}: variance {}", moment(2));
            let sixth = (15.0 * mean.powi(3) + 25.0 * mean * mean + mean).sqrt();
            assert!((moment(3) - mean).abs() < 6.0 * sixth / root, "{mean}: skew {}", moment(3));
            let mode = mean.floor();
            let share = draws.iter().filter(|d| **d == mode).count() as f64 / n as f64;
            let law = (mode * mean.ln() - mean - ln_factorial(mode)).exp();
            assert!((share - law).abs() < 5.0 * (law / n as f64).sqrt(), "{mean}: {share} {law}");
        }
    }

    #[test]
    fn starved_rays_count_one_photon() {
        let p = Tensor::new(&[0f64, 100.0, 7.0], &Device::Cpu).unwrap();
        let photons = Photons { open_beam: 1000.0, electronic: 0.0 };
        let seen = photons.measure(&p, 0).unwrap();
        assert_eq!(seen.counts.to_vec1::<f64>().unwrap()[1], 1.0);
        assert!((seen.line_integrals.to_vec1::<f64>().unwrap()[1] - 1000f64.ln()).abs() < 1e-12);
        assert!(Photons { open_beam: 0.0, ..photons }.measure(&p, 0).is_err());
        let wrong = Tensor::new(&[f64::NAN], &Device::Cpu).unwrap();
        assert!(matches!(photons.measure(&wrong, 0), Err(Error::NotFinite { .. })));
    }
}
