//! The Kaiser–Bessel window of gridding.

use crate::error::{Error, Result};

/// How exact a non-uniform transform is, and how much finer than k-space its grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Relative ℓ2 error against the sum that the transform stands for, from 1e-10 to 0.1. Single precision itself ends
    /// at about 1e-6.
    pub tolerance: f64,
    /// Points of the grid over points of the image along each axis, from 1.25 to 2. A finer grid takes a longer Fourier
    /// transform and a narrower window: 1.25 is faster where there are few samples or many axes.
    pub oversampling: f64,
}

impl Default for Accuracy {
    fn default() -> Self {
        Self { tolerance: 1e-4, oversampling: 2.0 }
    }
}

impl Accuracy {
    pub(super) fn check(self) -> Result<Self> {
        if !(1e-10..=0.1).contains(&self.tolerance) {
            return Err(Error::parameter("tolerance", self.tolerance, "must lie between 1e-10 and 0.1"));
        }
        if !(1.25..=2.0).contains(&self.oversampling) {
            return Err(Error::parameter("oversampling", self.oversampling, "must lie between 1.25 and 2"));
        }
        Ok(self)
    }
}

/// φ(t) = I₀(β √(1 − (2t/w)²)) / I₀(β) for |t| ≤ w/2, in units of the grid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// w, a whole number.
    pub(super) width: usize,
    beta: f64,
    scale: f64,
}

impl Window {
    /// The narrowest window of this accuracy on an axis whose grid is `oversampling` ≥ 1.25 times as fine. The error of
    /// a window falls like e^(−π w √(1 − 1/σ)) (Barnett 2021, 2001.09405, theorem 7); β after Beatty, Nishimura and Pauly
    /// (2005, eq. 5).
    pub(super) fn new(tolerance: f64, oversampling: f64) -> Self {
        let decay = std::f64::consts::PI * (1.0 - 1.0 / oversampling).sqrt();
        let width = ((SAFETY / tolerance).ln() / decay).ceil().clamp(2.0, MAX_WIDTH as f64);
        let spread = width / oversampling * (oversampling - 0.5);
        let beta = std::f64::consts::PI * (spread * spread - 0.8).max(0.1).sqrt();
        Self { width: width as usize, beta, scale: 1.0 / bessel_i0(beta) }
    }

    pub(super) fn value(self, t: f64) -> f64 {
        let x = 2.0 * t / self.width as f64;
        let inside = 1.0 - x * x;
        if inside < 0.0 { 0.0 } else { self.scale * bessel_i0(self.beta * inside.sqrt()) }
    }

    /// ∫ φ(t) e^(−2πi t ν) dt.
    pub(super) fn transform(self, nu: f64) -> f64 {
        let w = self.width as f64;
        let z = self.beta * self.beta - (std::f64::consts::PI * w * nu).powi(2);
        let sinc =
            if z > 0.0 { z.sqrt().sinh() / z.sqrt() } else { (-z).sqrt().sin() / (-z).sqrt().max(1e-300) };
        w * self.scale * sinc
    }
}

/// Constant in front of the exponential, measured for the tolerances and oversamplings allowed.
const SAFETY: f64 = 4.0;

/// Taps along an axis at most.
pub(super) const MAX_WIDTH: usize = 24;

/// I₀, by its power series: all terms are positive.
pub(crate) fn bessel_i0(x: f64) -> f64 {
    let quarter = 0.25 * x * x;
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > 1e-17 * sum {
        term *= quarter / (k * k);
        sum += term;
        k += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bessel_function_has_its_tabulated_values() {
        for (x, value) in [(0.0, 1.0), (1.0, 1.266_065_877_752_008_4), (10.0, 2_815.716_628_466_254)] {
            assert!((bessel_i0(x) / value - 1.0).abs() < 1e-14, "{x}");
        }
    }

    #[test]
    fn transform_is_the_integral() {
        for (tolerance, oversampling) in [(1e-3, 1.25), (1e-6, 2.0), (1e-9, 1.5)] {
            let window = Window::new(tolerance, oversampling);
            let n = 200_000;
            let h = window.width as f64 / n as f64;
            for nu in [0.0, 0.11, 0.25, 0.4] {
                let at = |i: usize| (i as f64 + 0.5) * h - 0.5 * window.width as f64;
                let cosine = |t: f64| (std::f64::consts::TAU * nu * t).cos();
                let sum: f64 = (0..n).map(|i| window.value(at(i)) * cosine(at(i))).sum::<f64>() * h;
                assert!((sum - window.transform(nu)).abs() < 1e-7, "{nu}: {sum} {}", window.transform(nu));
            }
        }
    }
}
