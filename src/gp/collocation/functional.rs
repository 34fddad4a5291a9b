//! Linear functionals of u at points, and their covariances under a product kernel.

use std::collections::BTreeSet;

use ndarray::{Array1, Array2};
use rayon::prelude::*;

use crate::gp::kernel::{Kernel1d, ORDERS};
use crate::gp::problem::Derivative;

/// u ↦ Σ_pieces Σ c ∂u(x): one row of the collocation system. All but periodic rows have one piece.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Functional {
    pub pieces: Vec<Piece>,
}

/// Σ c ∂u(x) at one point.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub x: Vec<f64>,
    pub terms: Vec<(Derivative, f64)>,
}

impl Functional {
    /// Σ c ∂u(x).
    pub fn at(x: Vec<f64>, terms: Vec<(Derivative, f64)>) -> Self {
        Self { pieces: vec![Piece { x, terms }] }
    }
}

/// The functionals ∂u(x) for all rows x of `points`.
pub(super) fn evaluations(points: &Array2<f64>, derivative: Derivative) -> Vec<Functional> {
    points.rows().into_iter().map(|x| Functional::at(x.to_vec(), vec![(derivative, 1.0)])).collect()
}

/// v Π_d k_d(x_d − y_d).
#[derive(Clone, Debug)]
pub(super) struct ProductKernel {
    pub axes: Vec<Box<dyn Kernel1d>>,
    pub variance: f64,
}

/// Where derivatives of one axis' kernel come from: evaluated for each pair of points, or looked up by lag where all
/// coordinates lie on a lattice.
enum AxisTable<'a> {
    Direct(&'a dyn Kernel1d),
    Lattice { low: f64, step: f64, lags: Vec<[f64; ORDERS]> },
}

impl AxisTable<'_> {
    /// k⁽ⁿ⁾(x − y), n = 0 … 4.
    fn derivatives(&self, x: f64, y: f64) -> [f64; ORDERS] {
        match self {
            Self::Direct(kernel) => kernel.derivatives(x - y),
            Self::Lattice { low, step, lags } => {
                let index = |c: f64| ((c - low) / step).round() as isize;
                let lag = index(x) - index(y);
                let mut k = lags[lag.unsigned_abs()];
                if lag < 0 {
                    k[1] = -k[1];
                    k[3] = -k[3];
                }
                k
            }
        }
    }
}

/// (low, step, size) of the smallest lattice that holds all coordinates, if one of at most 8 times as many sites does.
fn lattice(coordinates: impl Iterator<Item = f64>) -> Option<(f64, f64, usize)> {
    // The order of the bits of a float plus an offset is that of its value; here only distinctness matters.
    let distinct: BTreeSet<u64> = coordinates.map(f64::to_bits).collect();
    let mut sorted: Vec<f64> = distinct.into_iter().map(f64::from_bits).collect();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (*sorted.first()?, *sorted.last()?);
    let span = high - low;
    // Gaps that are rounding errors of one site don't set the step.
    let gaps = sorted.windows(2).map(|w| w[1] - w[0]).filter(|gap| *gap > 1e-10 * span);
    let smallest = gaps.fold(f64::INFINITY, f64::min);
    let sites = (span / smallest).round();
    if !sites.is_finite() || sites > 8.0 * sorted.len() as f64 {
        return None;
    }
    let step = span / sites;
    let fits = |c: &f64| {
        let at = (c - low) / step;
        (at - at.round()).abs() < 1e-7
    };
    sorted.iter().all(fits).then_some((low, step, sites as usize + 1))
}

impl ProductKernel {
    fn tables(&self, rows: &[&[Functional]]) -> Vec<AxisTable<'_>> {
        let mut tables = Vec::with_capacity(self.axes.len());
        for (axis, kernel) in self.axes.iter().enumerate() {
            let coordinates = pieces(rows).map(|piece| piece.x[axis]);
            tables.push(match lattice(coordinates) {
                None => AxisTable::Direct(kernel.as_ref()),
                Some((low, step, sites)) => {
                    let at = |i: usize| kernel.derivatives(i as f64 * step);
                    AxisTable::Lattice { low, step, lags: (0..sites).into_par_iter().map(at).collect() }
                }
            });
        }
        tables
    }

    /// Cov[ℓᵢ u, ℓ′ⱼ u], shape [rows of a, rows of b].
    pub fn covariance(&self, a: &[Functional], b: &[Functional]) -> Array2<f64> {
        let tables = self.tables(&[a, b]);
        let mut out = Array2::zeros((a.len(), b.len()));
        if let Some(values) = out.as_slice_mut() {
            values.par_chunks_mut(b.len().max(1)).zip(a).for_each(|(out, a)| {
                for (out, b) in out.iter_mut().zip(b) {
                    *out = self.variance * pair(&tables, a, b);
                }
            });
        }
        out
    }

    /// Var[ℓᵢ u], shape [rows].
    pub fn variances(&self, rows: &[Functional]) -> Array1<f64> {
        let tables: Vec<_> = self.axes.iter().map(|k| AxisTable::Direct(k.as_ref())).collect();
        rows.iter().map(|row| self.variance * pair(&tables, row, row)).collect()
    }

    /// Σᵢⱼ Wᵢⱼ ∂Cov[ℓᵢ u, ℓⱼ u]/∂θ for symmetric W, over the hyperparameters of all axes, one axis after the other.
    pub fn pull_back(&self, rows: &[Functional], weights: &Array2<f64>) -> Vec<f64> {
        let tables = self.tables(&[rows]);
        (0..self.axes.len()).flat_map(|axis| self.pull_back_axis(&tables, axis, rows, weights)).collect()
    }

    fn pull_back_axis(
        &self,
        tables: &[AxisTable<'_>],
        axis: usize,
        rows: &[Functional],
        weights: &Array2<f64>,
    ) -> Vec<f64> {
        let kernel = self.axes[axis].as_ref();
        let count = kernel.parameters().len();
        // First contract with everything but this axis: one weight for each separation and order.
        let row_sums = |i: usize| -> Vec<(f64, [f64; ORDERS])> {
            let mut sums = Vec::with_capacity(i + 1);
            for j in 0..=i {
                let w = self.variance * if i == j { weights[[i, j]] } else { 2.0 * weights[[i, j]] };
                for (a, b) in piece_pairs(&rows[i], &rows[j]) {
                    sums.push((a.x[axis] - b.x[axis], partial(tables, axis, a, b).map(|s| s * w)));
                }
            }
            sums
        };
        let contract = |pairs: Vec<(f64, [f64; ORDERS])>| -> Vec<f64> {
            let mut gradients: [Vec<f64>; ORDERS] = std::array::from_fn(|_| vec![0.0; count]);
            let mut sum = vec![0.0; count];
            for (tau, s) in pairs {
                kernel.gradients(tau, &mut gradients);
                for (s, gradient) in s.iter().zip(&gradients).filter(|(s, _)| **s != 0.0) {
                    sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += s * g);
                }
            }
            sum
        };
        let add = |mut a: Vec<f64>, b: Vec<f64>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        };
        match &tables[axis] {
            // Collected in row order, so that the sum doesn't depend on the number of threads.
            AxisTable::Direct(_) => (0..rows.len())
                .into_par_iter()
                .map(|i| contract(row_sums(i)))
                .collect::<Vec<_>>()
                .into_iter()
                .fold(vec![0.0; count], add),
            AxisTable::Lattice { step, lags, .. } => {
                let mut by_lag = vec![[0.0; ORDERS]; lags.len()];
                for i in 0..rows.len() {
                    for (tau, s) in row_sums(i) {
                        let odd = if tau < 0.0 { -1.0 } else { 1.0 };
                        let slot = &mut by_lag[(tau.abs() / step).round() as usize];
                        for (n, s) in s.into_iter().enumerate() {
                            slot[n] += if n % 2 == 1 { odd * s } else { s };
                        }
                    }
                }
                contract(by_lag.into_iter().enumerate().map(|(i, s)| (i as f64 * step, s)).collect())
            }
        }
    }
}

fn pieces<'a>(rows: &[&'a [Functional]]) -> impl Iterator<Item = &'a Piece> {
    rows.iter().flat_map(|set| set.iter()).flat_map(|row| &row.pieces)
}

fn piece_pairs<'a>(a: &'a Functional, b: &'a Functional) -> impl Iterator<Item = (&'a Piece, &'a Piece)> {
    a.pieces.iter().flat_map(move |p| b.pieces.iter().map(move |q| (p, q)))
}

/// Σ_kl c_k c_l Π_d (−1)^(order of l along d) k_d⁽ᵏ⁺ˡ⁾, over all pieces.
fn pair(tables: &[AxisTable<'_>], a: &Functional, b: &Functional) -> f64 {
    let mut sum = 0.0;
    for (a, b) in piece_pairs(a, b) {
        let k = axis_derivatives(tables, a, b);
        for (p, c) in &a.terms {
            for (q, d) in &b.terms {
                let product: f64 =
                    (0..tables.len()).map(|axis| k[axis][p.order(axis) + q.order(axis)]).product();
                sum += c * d * sign(*q) * product;
            }
        }
    }
    sum
}

/// As [`pair`] for one pair of pieces, without the factor of `axis`, sorted by the order along it.
fn partial(tables: &[AxisTable<'_>], axis: usize, a: &Piece, b: &Piece) -> [f64; ORDERS] {
    let k = axis_derivatives(tables, a, b);
    let mut sums = [0.0; ORDERS];
    for (p, c) in &a.terms {
        for (q, d) in &b.terms {
            let others = (0..tables.len()).filter(|other| *other != axis);
            let product: f64 = others.map(|other| k[other][p.order(other) + q.order(other)]).product();
            sums[p.order(axis) + q.order(axis)] += c * d * sign(*q) * product;
        }
    }
    sums
}

fn axis_derivatives(tables: &[AxisTable<'_>], a: &Piece, b: &Piece) -> [[f64; ORDERS]; 3] {
    let mut k = [[0.0; ORDERS]; 3];
    for (axis, table) in tables.iter().enumerate() {
        k[axis] = table.derivatives(a.x[axis], b.x[axis]);
    }
    k
}

fn sign(derivative: Derivative) -> f64 {
    if derivative.total().is_multiple_of(2) { 1.0 } else { -1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lattices_are_found() {
        let found = lattice(Array1::linspace(0.0, 1.0, 11).into_iter().chain([0.5, 1.0])).expect("lattice");
        assert!((found.1 - 0.1).abs() < 1e-12 && found.2 == 11);
        assert!(lattice([0.0, 0.1, 0.2718, 1.0].into_iter()).is_none());
        assert!(lattice(std::iter::empty()).is_none());
    }
}
