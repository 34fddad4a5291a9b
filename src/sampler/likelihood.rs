//! The probability-flow ODE: deterministic sampling and exact likelihoods.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::prior::Denoiser;
use crate::prior::schedule::Sde;
use crate::tensor::random::Noise;
use crate::tensor::{Field, Real};

/// Tolerances of the adaptive Runge–Kutta method of order 5(4) (Dormand and Prince 1980).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbabilityFlow {
    /// The process.
    pub sde: Sde,
    /// Relative tolerance.
    pub relative: f64,
    /// Absolute tolerance.
    pub absolute: f64,
    /// Denoiser calls at most, for each image.
    pub max_calls: usize,
}

impl Default for ProbabilityFlow {
    fn default() -> Self {
        Self { sde: Sde::VP, relative: 1e-5, absolute: 1e-5, max_calls: 10_000 }
    }
}

/// How the divergence of the flow is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// Every diagonal element: as many calls as pixels, for small images and tests.
    Exact,
    /// Hutchinson's estimate with Rademacher vectors, the same ones along the whole path.
    Hutchinson {
        /// Vectors.
        probes: usize,
        /// Their seed.
        seed: u64,
    },
}

impl ProbabilityFlow {
    /// Draws from the prior: integrates dx = (f x − ½ g² s) dt from x_1 (standard deviation of the SDE at t = 1)
    /// to the SDE's end, and returns clean images. `x` is [items, height, width(, 2)].
    ///
    /// # Errors
    /// [`Error::Unsupported`] where `max_calls` do not suffice.
    pub fn sample(&self, prior: &dyn Denoiser, x: &Tensor) -> Result<Tensor> {
        let (scale, _) = self.sde.marginal(self.sde.end());
        self.each(x, |start, item| {
            let mut y = start;
            self.integrate(&mut y, 1.0, self.sde.end(), &mut |t, y, dy| self.flow(prior, item, t, y, dy))?;
            y.iter_mut().for_each(|v| *v /= scale);
            Ok(y)
        })
    }

    /// ln p(x₀) in nats for each clean image of `x` = [items, height, width(, 2)], by integrating the flow and its
    /// divergence to t = 1 (Song et al. 2011.13456, eq. 39). Divide by −ln 2 and the number of dimensions for bits
    /// per dimension: see [`bits_per_dimension`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] where `max_calls` do not suffice.
    pub fn log_likelihood(
        &self,
        prior: &dyn Denoiser,
        x: &Tensor,
        divergence: Divergence,
    ) -> Result<Vec<f64>> {
        let (scale, _) = self.sde.marginal(self.sde.end());
        let mut answers = Vec::new();
        self.each(x, |start, item| {
            let n = start.len();
            let probes = probes(divergence, n);
            let mut y: Vec<f64> = start.iter().map(|v| v * scale).collect();
            y.push(0.0);
            self.integrate(&mut y, self.sde.end(), 1.0, &mut |t, y, dy| {
                self.flow_and_divergence(prior, item, t, y, dy, &probes)
            })?;
            let std = self.sde.marginal(1.0).1;
            let square: f64 = y[..n].iter().map(|v| v * v).sum();
            let end = -0.5 * square / (std * std) - 0.5 * n as f64 * (std::f64::consts::TAU * std * std).ln();
            // p(x₀) of clean images: the flow's density times the volume scaleⁿ.
            answers.push(end + y[n] + n as f64 * scale.ln());
            Ok(start)
        })?;
        Ok(answers)
    }

    fn each(
        &self,
        x: &Tensor,
        mut work: impl FnMut(Vec<f64>, &Tensor) -> Result<Vec<f64>>,
    ) -> Result<Tensor> {
        let mut out = Vec::with_capacity(x.elem_count());
        for i in 0..x.dim(0)? {
            let item = x.narrow(0, i, 1)?;
            out.extend(work(f64::to_vec(&item)?, &item)?);
        }
        Ok(f64::tensor(out, x.dims())?.to_dtype(x.dtype())?.to_device(x.device())?)
    }

    fn unscaled(&self, like: &Tensor, t: f64, y: &[f64]) -> Result<(Tensor, f64, f64)> {
        let (scale, std) = self.sde.marginal(t);
        let x = f64::tensor(y.iter().map(|v| v / scale).collect(), like.dims())?;
        Ok((x.to_dtype(like.dtype())?.to_device(like.device())?, scale, std))
    }

    fn flow(&self, prior: &dyn Denoiser, like: &Tensor, t: f64, y: &[f64], dy: &mut [f64]) -> Result<()> {
        let (x, scale, std) = self.unscaled(like, t, y)?;
        self.slope(t, scale, std, y, &f64::to_vec(&prior.denoise(&x, std / scale)?)?, dy);
        Ok(())
    }

    fn slope(&self, t: f64, scale: f64, std: f64, y: &[f64], denoised: &[f64], dy: &mut [f64]) {
        let (f, half) = (self.sde.drift(t), 0.5 * self.sde.diffusion_squared(t));
        for ((dy, y), d) in dy.iter_mut().zip(y).zip(denoised) {
            *dy = f * y - half * (scale * d - y) / (std * std);
        }
    }

    fn flow_and_divergence(
        &self,
        prior: &dyn Denoiser,
        like: &Tensor,
        t: f64,
        y: &[f64],
        dy: &mut [f64],
        probes: &[Vec<f64>],
    ) -> Result<()> {
        let n = y.len() - 1;
        let (x, scale, std) = self.unscaled(like, t, &y[..n])?;
        let mut trace = 0.0;
        for probe in probes {
            let (denoised, pullback) = prior.denoise_vjp(&x, std / scale)?;
            let c =
                f64::tensor(probe.clone(), like.dims())?.to_dtype(like.dtype())?.to_device(like.device())?;
            let pulled = f64::to_vec(&pullback.pull(&c)?)?;
            trace += probe.iter().zip(&pulled).map(|(a, b)| a * b).sum::<f64>();
            self.slope(t, scale, std, &y[..n], &f64::to_vec(&denoised)?, &mut dy[..n]);
        }
        // Unit vectors add up to the trace; Rademacher vectors average to it.
        let exact = probes.len() == n && probes[0].iter().filter(|v| **v != 0.0).count() == 1;
        let trace = if exact { trace } else { trace / probes.len() as f64 };
        let (f, half) = (self.sde.drift(t), 0.5 * self.sde.diffusion_squared(t));
        dy[n] = f * n as f64 - half * (trace - n as f64) / (std * std);
        Ok(())
    }

    /// Dormand–Prince 5(4) with the usual step control, from t = `from` to `to` in either direction.
    fn integrate(&self, y: &mut Vec<f64>, from: f64, to: f64, slope: &mut Slope<'_>) -> Result<()> {
        let (mut t, mut h) = (from, (to - from) * 0.01);
        let mut calls = 0;
        let mut k = vec![vec![0.0; y.len()]; 7];
        slope(t, y, &mut k[0])?;
        while (to - t) * (to - from) > 0.0 {
            if (t + h - to) * (to - from) > 0.0 {
                h = to - t;
            }
            let mut stage = y.clone();
            for s in 1..7 {
                for (i, v) in stage.iter_mut().enumerate() {
                    *v = y[i] + h * (0..s).map(|j| A[s - 1][j] * k[j][i]).sum::<f64>();
                }
                let (_, rest) = k.split_at_mut(s);
                slope(t + C[s - 1] * h, &stage, &mut rest[0])?;
            }
            calls += 6;
            let mut error = 0.0;
            for i in 0..y.len() {
                let e = h * (0..7).map(|j| E[j] * k[j][i]).sum::<f64>();
                let allowed = self.absolute + self.relative * y[i].abs().max(stage[i].abs());
                error += (e / allowed).powi(2);
            }
            let error = (error / y.len() as f64).sqrt();
            if error <= 1.0 {
                t += h;
                y.clone_from(&stage);
                k.swap(0, 6);
            }
            h *= (0.9 * error.max(1e-10).powf(-0.2)).clamp(0.2, 5.0);
            if calls > self.max_calls || !error.is_finite() || t + h == t {
                return Err(Error::Unsupported(format!(
                    "probability flow: stopped at t = {t:.3e} after {calls} denoiser calls (at most {}), error {error:.2e}",
                    self.max_calls
                )));
            }
        }
        Ok(())
    }
}

type Slope<'a> = dyn FnMut(f64, &[f64], &mut [f64]) -> Result<()> + 'a;

fn probes(divergence: Divergence, n: usize) -> Vec<Vec<f64>> {
    match divergence {
        Divergence::Exact => {
            (0..n).map(|i| (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect()).collect()
        }
        Divergence::Hutchinson { probes, seed } => (0..probes.max(1))
            .map(|p| {
                let noise = Noise::new(seed, 0).at(p as u32);
                (0..n).map(|i| if noise.uniform(i as u64) < 0.5 { -1.0 } else { 1.0 }).collect()
            })
            .collect(),
    }
}

/// Bits per dimension of images with a data range of `width` (2 for [−1, 1]) quantised to `levels` values (256),
/// from ln p in nats: −ln p/(n ln 2) + log₂(levels/width).
pub fn bits_per_dimension(
    log_likelihood: f64,
    shape: &[usize],
    field: Field,
    levels: usize,
    width: f64,
) -> f64 {
    let n = shape.iter().product::<usize>() * if field == Field::Complex { 2 } else { 1 };
    -log_likelihood / (n as f64 * std::f64::consts::LN_2) + (levels as f64 / width).log2()
}

const C: [f64; 6] = [0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0];
const A: [[f64; 6]; 6] = [
    [0.2, 0.0, 0.0, 0.0, 0.0, 0.0],
    [3.0 / 40.0, 9.0 / 40.0, 0.0, 0.0, 0.0, 0.0],
    [44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0, 0.0, 0.0, 0.0],
    [19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0, 0.0, 0.0],
    [9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0, 0.0],
    [35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];
/// Fifth-order weights minus fourth-order weights.
const E: [f64; 7] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];
