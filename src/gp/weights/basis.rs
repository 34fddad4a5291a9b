//! Features along one axis: sinusoids at chosen frequencies, or Chebyshev polynomials.

use std::f64::consts::{PI, TAU};

use ndarray::{Array1, Array2, ArrayView1, ShapeBuilder};

use super::sinusoid::sin_cos;

/// Features φ_j(x) of one coordinate.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Basis {
    /// cos ωx and sin ωx for each ω, and the constant for ω = 0. The phase is the plain product ωx, which is exact for
    /// the nodes and frequencies of this module: see [`SHORT`].
    Sinusoids {
        /// ω, ascending.
        frequencies: Vec<f64>,
    },
    /// T_k(ξ) cos ωx and T_k(ξ) sin ωx for each ω and k below `degree`: the bands around the ω as smooth envelopes, which
    /// are nearly orthogonal where sinusoids of neighbouring frequencies are not.
    Modulated {
        /// [low, high] of the axis.
        interval: [f64; 2],
        /// ω, 0 among them.
        carriers: Vec<f64>,
        /// How many envelopes.
        degree: usize,
    },
    /// T_k(ξ), ξ ∈ [−1, 1] over the axis, for k below `count`.
    Chebyshev {
        /// [low, high] of the axis.
        interval: [f64; 2],
        /// How many.
        count: usize,
    },
}

impl Basis {
    /// How many features.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Sinusoids { frequencies } => frequencies.iter().map(|w| waves(*w)).sum(),
            Self::Modulated { carriers, degree, .. } => {
                degree * carriers.iter().map(|w| waves(*w)).sum::<usize>()
            }
            Self::Chebyshev { count, .. } => *count,
        }
    }

    /// An angular frequency for each feature: its own, or that of a polynomial's oscillation in the middle.
    pub(super) fn feature_frequencies(&self) -> Vec<f64> {
        match self {
            Self::Sinusoids { frequencies } => repeated(frequencies),
            Self::Modulated { carriers, degree, .. } => repeated(carriers).repeat(*degree),
            Self::Chebyshev { interval: [low, high], count } => {
                (0..*count).map(|k| 2.0 * k as f64 / (high - low)).collect()
            }
        }
    }

    /// The derivatives of the given orders at points x: one matrix [points, features] each, column-major.
    pub(super) fn derivatives(&self, x: ArrayView1<f64>, orders: &[usize]) -> Vec<Array2<f64>> {
        match self {
            Self::Sinusoids { frequencies } => sinusoids(frequencies, x, orders, self.len()),
            Self::Modulated { interval, carriers, degree } => {
                modulated(*interval, carriers, *degree, x, orders)
            }
            Self::Chebyshev { interval, count } => chebyshev(*interval, *count, x, orders),
        }
    }

    /// The points at which an equation is best stated for these features.
    pub(super) fn nodes(&self, [low, high]: [f64; 2], count: usize) -> Array1<f64> {
        match self {
            Self::Sinusoids { .. } | Self::Modulated { .. } => uniform([low, high], count),
            Self::Chebyshev { .. } => {
                let quantum = quantum([low, high]);
                let node = |i: usize| {
                    let xi = -((i as f64 + 0.5) * PI / count as f64).cos();
                    rounded(0.5 * (low + high) + 0.5 * (high - low) * xi, quantum).clamp(low, high)
                };
                (0..count).map(node).collect()
            }
        }
    }
}

/// Bits of a node's coordinate, of a lattice's spacing, and of a line's frequency. Products of nodes with frequencies
/// then fit the 53 bits of a double: sources like sin 200x and the features lose no digit of their phase, where
/// rounding of phases around 10³ would cost three.
const SHORT: [i32; 3] = [30, 11, 23];

/// The nearest multiple of `quantum`.
fn rounded(x: f64, quantum: f64) -> f64 {
    (x / quantum).round() * quantum
}

/// The power of two that `size` has `bits` bits above.
fn power_below(size: f64, bits: i32) -> f64 {
    2f64.powi(size.abs().max(f64::MIN_POSITIVE).log2().floor() as i32 - bits)
}

fn quantum([low, high]: [f64; 2]) -> f64 {
    power_below(high - low, SHORT[0])
}

/// Equally spaced coordinates with both ends, those inside rounded to few bits.
pub(super) fn uniform([low, high]: [f64; 2], count: usize) -> Array1<f64> {
    let quantum = quantum([low, high]);
    let mut x = Array1::linspace(low, high, count).mapv(|x| rounded(x, quantum).clamp(low, high));
    if let Some(last) = count.checked_sub(1) {
        (x[last], x[0]) = (high, low);
    }
    x
}

/// The frequency of a line, rounded to few bits.
pub(super) fn short_frequency(w: f64) -> f64 {
    rounded(w, power_below(w, SHORT[2]))
}

/// A line closer than this to a lattice frequency, in spacings, adds nothing to it.
const SAME: f64 = 1e-3;

/// How many features oscillate with ω: the cosine and the sine, or the constant.
fn waves(w: f64) -> usize {
    if w == 0.0 { 1 } else { 2 }
}

/// Each ω as often as there are features.
fn repeated(frequencies: &[f64]) -> Vec<f64> {
    frequencies.iter().flat_map(|w| std::iter::repeat_n(*w, waves(*w))).collect()
}

/// The sinusoids of a set of bands: multiples of `spacing` inside them, and their centres.
///
/// `bands` are [low, high]; `lines` are frequencies that are taken as they are.
pub(super) fn lattice(spacing: f64, bands: &[[f64; 2]], lines: &[f64]) -> Vec<f64> {
    let mut indices: Vec<u64> = bands
        .iter()
        .flat_map(|[low, high]| {
            let first = (low.max(0.0) / spacing - 1e-9).ceil() as u64;
            let last = (high / spacing + 1e-9).floor() as u64;
            first..=last
        })
        .collect();
    indices.sort_unstable();
    indices.dedup();
    let mut all: Vec<f64> = indices.into_iter().map(|k| k as f64 * spacing).collect();
    for line in lines {
        // A line on the lattice would be there twice.
        if all.iter().all(|w| (w - line).abs() > SAME * spacing) {
            all.push(*line);
        }
    }
    all.sort_by(f64::total_cmp);
    all
}

fn sinusoids(frequencies: &[f64], x: ArrayView1<f64>, orders: &[usize], features: usize) -> Vec<Array2<f64>> {
    let n = x.len();
    let x = x.to_vec();
    let mut out: Vec<Array2<f64>> = orders.iter().map(|_| Array2::zeros((n, features).f())).collect();
    let (mut cos, mut sin) = (vec![0.0; n], vec![0.0; n]);
    let mut column = 0;
    for &w in frequencies {
        sin_cos(w, &x, &mut sin, &mut cos);
        for (matrix, &order) in out.iter_mut().zip(orders) {
            let scale = w.powi(order as i32);
            // dᵏ/dφᵏ of cos and sin: (cos, sin), (−sin, cos), (−cos, −sin), (sin, −cos).
            let (first, second, a, b) = match order % 4 {
                0 => (&cos, &sin, scale, scale),
                1 => (&sin, &cos, -scale, scale),
                2 => (&cos, &sin, -scale, -scale),
                _ => (&sin, &cos, scale, -scale),
            };
            matrix.column_mut(column).iter_mut().zip(first).for_each(|(o, v)| *o = a * v);
            if w != 0.0 {
                matrix.column_mut(column + 1).iter_mut().zip(second).for_each(|(o, v)| *o = b * v);
            }
        }
        column += waves(w);
    }
    out
}

/// Orders of differentiation that a problem may contain, with the value.
const ORDERS: usize = 5;

/// T_k and its derivatives by the three-term recurrence, differentiated.
fn chebyshev([low, high]: [f64; 2], count: usize, x: ArrayView1<f64>, orders: &[usize]) -> Vec<Array2<f64>> {
    let scale = 2.0 / (high - low);
    let mut out: Vec<Array2<f64>> = orders.iter().map(|_| Array2::zeros((x.len(), count).f())).collect();
    for (i, x) in x.iter().enumerate() {
        let xi = (x - 0.5 * (low + high)) * scale;
        let (mut before, mut now) = ([0.0; ORDERS], [0.0; ORDERS]);
        now[0] = 1.0;
        for k in 0..count {
            for (matrix, &order) in out.iter_mut().zip(orders) {
                matrix[[i, k]] = now[order] * scale.powi(order as i32);
            }
            let first = if k == 0 { 1.0 } else { 2.0 };
            let next = std::array::from_fn(|m| {
                let lower = if m > 0 { m as f64 * now[m - 1] } else { 0.0 };
                first * (xi * now[m] + lower) - before[m]
            });
            before = std::mem::replace(&mut now, next);
        }
    }
    out
}

/// Products of envelopes and waves, differentiated by Leibniz's rule; the lowest envelopes of all waves first.
fn modulated(
    interval: [f64; 2],
    carriers: &[f64],
    degree: usize,
    x: ArrayView1<f64>,
    orders: &[usize],
) -> Vec<Array2<f64>> {
    let all: Vec<usize> = (0..=orders.iter().copied().max().unwrap_or(0)).collect();
    let envelopes = chebyshev(interval, degree, x, &all);
    let count = carriers.iter().map(|w| waves(*w)).sum();
    let waves = sinusoids(carriers, x, &all, count);
    let product = |order: usize| {
        let mut out = Array2::zeros((x.len(), count * degree).f());
        for (j, mut column) in out.columns_mut().into_iter().enumerate() {
            let mut binomial = 1.0;
            for m in 0..=order {
                let (wave, envelope) = (&waves[order - m], &envelopes[m]);
                ndarray::Zip::from(&mut column)
                    .and(wave.column(j % count))
                    .and(envelope.column(j / count))
                    .for_each(|o, w, e| *o += binomial * w * e);
                binomial *= (order - m) as f64 / (m + 1) as f64;
            }
        }
        out
    };
    orders.iter().map(|order| product(*order)).collect()
}

/// The frequency lattice of an axis of this length: that of period 2·`extension`·length, or that of the length itself
/// where u is periodic.
pub(super) fn spacing(length: f64, extension: f64, periodic: bool) -> f64 {
    if periodic {
        return TAU / length;
    }
    let exact = PI / (extension * length);
    rounded(exact, power_below(exact, SHORT[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(basis: &Basis, x: Array1<f64>) {
        let step = 1e-5;
        let here = basis.derivatives(x.view(), &[0, 1, 2, 3, 4]);
        let after = basis.derivatives((&x + step).view(), &[0, 1, 2, 3]);
        let before = basis.derivatives((&x - step).view(), &[0, 1, 2, 3]);
        assert_eq!(here[0].ncols(), basis.len());
        assert_eq!(basis.feature_frequencies().len(), basis.len());
        for order in 0..4 {
            let difference = (&after[order] - &before[order]) / (2.0 * step);
            let error = (&difference - &here[order + 1]).iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let size = here[order + 1].iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(error < 1e-6 * size, "{basis:?} order {order}: {error:e} of {size:e}");
        }
    }

    #[test]
    fn derivatives_agree_with_differences() {
        let waves = Basis::Sinusoids { frequencies: vec![0.0, 1.5, 20.0] };
        let polynomials = Basis::Chebyshev { interval: [-1.0, 2.0], count: 7 };
        let both = Basis::Modulated { interval: [-1.0, 2.0], carriers: vec![0.0, 15.0], degree: 3 };
        for basis in [&waves, &both, &polynomials] {
            check(basis, Array1::linspace(-0.9, 1.9, 100));
            check(basis, ndarray::array![0.1, 0.7, 1.1]);
        }
    }

    #[test]
    fn chebyshev_values_are_cosines() {
        let basis = Basis::Chebyshev { interval: [-1.0, 1.0], count: 9 };
        let value = &basis.derivatives(ndarray::array![0.3].view(), &[0])[0];
        assert!((0..9).all(|k| (value[[0, k]] - (k as f64 * 0.3f64.acos()).cos()).abs() < 1e-14));
    }

    #[test]
    fn lattices_hold_bands_and_lines_once() {
        let all = lattice(0.5, &[[0.0, 1.0], [0.9, 2.1]], &[1.5, 7.3]);
        assert_eq!(all, [0.0, 0.5, 1.0, 1.5, 2.0, 7.3]);
    }
}
