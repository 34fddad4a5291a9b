//! Features along one axis: sinusoids at chosen frequencies, or Chebyshev polynomials.

use std::f64::consts::{PI, TAU};

use ndarray::{Array1, Array2, ArrayView1, ShapeBuilder};

/// Features φ_j(x) of one coordinate.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Basis {
    /// cos ωx and sin ωx for each ω, and the constant for ω = 0. The phase is the plain product ωx, whose rounding a
    /// user's source shares; phases from another origin, or by recurrences, cost digits of the low frequencies.
    Sinusoids {
        /// ω, ascending.
        frequencies: Vec<f64>,
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
            Self::Sinusoids { frequencies } => {
                frequencies.iter().map(|w| if *w == 0.0 { 1 } else { 2 }).sum()
            }
            Self::Chebyshev { count, .. } => *count,
        }
    }

    /// An angular frequency for each feature: its own, or that of a polynomial's oscillation in the middle.
    pub(super) fn feature_frequencies(&self) -> Vec<f64> {
        match self {
            Self::Sinusoids { frequencies } => frequencies
                .iter()
                .flat_map(|w| std::iter::repeat_n(*w, if *w == 0.0 { 1 } else { 2 }))
                .collect(),
            Self::Chebyshev { interval: [low, high], count } => {
                (0..*count).map(|k| 2.0 * k as f64 / (high - low)).collect()
            }
        }
    }

    /// The derivatives of the given orders at points x: one matrix [points, features] each, column-major.
    pub(super) fn derivatives(&self, x: ArrayView1<f64>, orders: &[usize]) -> Vec<Array2<f64>> {
        match self {
            Self::Sinusoids { frequencies } => sinusoids(frequencies, x, orders, self.len()),
            Self::Chebyshev { interval, count } => chebyshev(*interval, *count, x, orders),
        }
    }

    /// The points at which an equation is best stated for these features.
    pub(super) fn nodes(&self, [low, high]: [f64; 2], count: usize) -> Array1<f64> {
        match self {
            Self::Sinusoids { .. } => Array1::linspace(low, high, count),
            Self::Chebyshev { .. } => (0..count)
                .map(|i| {
                    let xi = -((i as f64 + 0.5) * PI / count as f64).cos();
                    0.5 * (low + high) + 0.5 * (high - low) * xi
                })
                .collect(),
        }
    }
}

/// A line closer than this to a lattice frequency, in spacings, adds nothing to it.
const SAME: f64 = 1e-3;

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
    let mut out: Vec<Array2<f64>> = orders.iter().map(|_| Array2::zeros((n, features).f())).collect();
    let (mut cos, mut sin) = (vec![0.0; n], vec![0.0; n]);
    let mut column = 0;
    for &w in frequencies {
        for (i, x) in x.iter().enumerate() {
            (sin[i], cos[i]) = (w * x).sin_cos();
        }
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
        column += if w == 0.0 { 1 } else { 2 };
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

/// The frequency lattice of an axis of this length: that of period 2·`extension`·length, or that of the length itself
/// where u is periodic.
pub(super) fn spacing(length: f64, extension: f64, periodic: bool) -> f64 {
    if periodic { TAU / length } else { PI / (extension * length) }
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
        for basis in [&waves, &polynomials] {
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
