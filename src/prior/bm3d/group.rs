//! A stack of alike pieces: its transform, and the two filters.

use super::pass::{AREA, PIECE};
use crate::tensor::Real;

/// Coefficients below this multiple of the noise are noise (λ3D of the paper).
const THRESHOLD: f64 = 2.7;

/// What happens to the coefficients of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Keep what is larger than the noise, as it is.
    Threshold,
    /// c ← c p²/(p² + σ²) with the coefficients p of a first estimate.
    Wiener,
}

/// Orthonormal cosine transform of 8 × 8 pixels.
pub(super) struct Cosine<T> {
    /// [frequency][position].
    forward: [[T; PIECE]; PIECE],
    /// [position][frequency].
    inverse: [[T; PIECE]; PIECE],
}

impl<T: Real> Cosine<T> {
    pub(super) fn new() -> Self {
        let n = PIECE as f64;
        let entry = |k: usize, i: usize| {
            let scale = if k == 0 { (1.0 / n).sqrt() } else { (2.0 / n).sqrt() };
            T::of(scale * (std::f64::consts::PI * k as f64 * (i as f64 + 0.5) / n).cos())
        };
        Self {
            forward: std::array::from_fn(|k| std::array::from_fn(|i| entry(k, i))),
            inverse: std::array::from_fn(|i| std::array::from_fn(|k| entry(k, i))),
        }
    }

    /// C x Cᵀ.
    #[inline(always)]
    pub(super) fn forward(&self, x: &mut [T; AREA]) {
        let mut half = [T::zero(); AREA];
        product_turned(&self.forward, x, &mut half);
        product_turned(&self.forward, &half, x);
    }

    /// Cᵀ x C.
    #[inline(always)]
    pub(super) fn inverse(&self, x: &mut [T; AREA]) {
        let mut half = [T::zero(); AREA];
        product_turned(&self.inverse, x, &mut half);
        product_turned(&self.inverse, &half, x);
    }
}

/// out ← (m x)ᵀ.
#[inline(always)]
fn product_turned<T: Real>(m: &[[T; PIECE]; PIECE], x: &[T; AREA], out: &mut [T; AREA]) {
    for a in 0..PIECE {
        let mut row = [T::zero(); PIECE];
        for b in 0..PIECE {
            for c in 0..PIECE {
                row[c] += m[a][b] * x[b * PIECE + c];
            }
        }
        for c in 0..PIECE {
            out[c * PIECE + a] = row[c];
        }
    }
}

/// Orthonormal Walsh–Hadamard transform across a stack of 2ⁿ pieces, its own inverse.
#[inline(always)]
pub(super) fn across<T: Real>(stack: &mut [[T; AREA]]) {
    let count = stack.len();
    let mut step = 1;
    while step < count {
        for start in (0..count).step_by(2 * step) {
            for k in start..start + step {
                let (left, right) = stack.split_at_mut(k + step);
                for (a, b) in left[k].iter_mut().zip(&mut right[0]) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
        }
        step *= 2;
    }
    let scale = T::of((count as f64).sqrt().recip());
    for v in stack.as_flattened_mut() {
        *v *= scale;
    }
}

/// Filters the coefficients of a stack; `pilot` has those of the first estimate. The energy of the filter, in proportion
/// to the noise that it lets through.
#[inline(always)]
pub(super) fn shrink<T: Real>(stack: &mut [[T; AREA]], pilot: &[[T; AREA]], filter: Filter, sigma: T) -> T {
    let mut energy = T::zero();
    match filter {
        Filter::Threshold => {
            let threshold = T::of(THRESHOLD) * sigma;
            for c in stack.as_flattened_mut() {
                let kept = if c.abs() > threshold { T::one() } else { T::zero() };
                *c *= kept;
                energy += kept;
            }
        }
        Filter::Wiener => {
            let noise = sigma * sigma;
            for (c, p) in stack.as_flattened_mut().iter_mut().zip(pilot.as_flattened()) {
                let gain = *p * *p / (*p * *p + noise);
                *c *= gain;
                energy += gain * gain;
            }
        }
    }
    energy
}
