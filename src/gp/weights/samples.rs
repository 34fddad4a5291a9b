//! What the data of one axis tell before any features are chosen: nodes, lines and sizes.

use ndarray::{Array1, Array2, Axis};
use num_complex::Complex;

use super::basis::uniform;
use super::spectrum::{Peak, oscillations, peaks};
use super::{WeightSpace, boundary_size};
use crate::error::Result;
use crate::gp::problem::{Data, Problem};

/// Samples of f for each node, so that oscillations beyond the nodes' reach are seen.
const OVERSAMPLED: usize = 4;

/// The sizes of f and of u.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) source: f64,
    pub(super) solution: f64,
}

/// The nodes and f there, and the lines of f.
pub(super) struct Samples {
    /// Nodes [n, 1], and f there: equally spaced, or where samples are.
    pub(super) nodes: Array2<f64>,
    pub(super) source: Array1<f64>,
    /// Whether the nodes can be chosen otherwise.
    pub(super) free: bool,
    pub(super) lines: Vec<Peak>,
    size: f64,
}

impl Samples {
    pub(super) fn of(engine: &WeightSpace, problem: &Problem) -> Result<Self> {
        let [low, high] = problem.domain[0];
        let step = |count: usize| (high - low) / (count.max(2) - 1) as f64;
        let (nodes, source, values, free) = match &problem.source {
            Data::Samples(samples) => {
                let (x, f) = (samples.points.clone(), samples.values.clone());
                let even = resampled(&x.column(0).to_vec(), &f.to_vec(), low, high);
                (x, f, even, false)
            }
            source => {
                let count = OVERSAMPLED * (engine.count(problem) - 1) + 1;
                let x = uniform([low, high], count).insert_axis(Axis(1));
                let f = source.at(&x)?;
                let coarse = ndarray::Slice::from(..).step_by(OVERSAMPLED as isize);
                let nodes = x.slice_axis(Axis(0), coarse).to_owned();
                (nodes, f.slice_axis(Axis(0), coarse).to_owned(), f.to_vec(), true)
            }
        };
        let lines = peaks(&values, step(values.len()), problem.source_noise);
        let size = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        Ok(Self { nodes, source, free, lines, size })
    }

    /// How many nodes.
    pub(super) fn count(&self) -> usize {
        self.source.len()
    }

    /// The sizes of f and u: u from the boundary data and from the strongest line, through the symbol of L.
    pub(super) fn scale(&self, problem: &Problem) -> Result<Scale> {
        let unit = std::f64::consts::TAU / problem.length(0);
        let given = boundary_size(problem)?;
        let strongest = self.lines.first().map_or(unit, |p| p.frequency.max(unit));
        let mut source = self.size;
        if source == 0.0 {
            source = given * symbol_size(problem, unit)?;
        }
        let mut solution = given.max(source / symbol_size(problem, strongest)?);
        if source == 0.0 {
            (source, solution) = (1.0, 1.0);
        }
        Ok(Scale { source, solution })
    }
}

/// Values at irregular points, interpolated linearly to as many regular ones.
fn resampled(x: &[f64], f: &[f64], low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|i, j| x[*i].total_cmp(&x[*j]));
    let n = x.len();
    let mut right = 0;
    (0..n)
        .map(|i| {
            let at = low + (high - low) * i as f64 / (n.max(2) - 1) as f64;
            while right < n && x[order[right]] < at {
                right += 1;
            }
            let (a, b) = (order[right.saturating_sub(1)], order[right.min(n - 1)]);
            let gap = x[b] - x[a];
            let t = if gap > 0.0 { ((at - x[a]) / gap).clamp(0.0, 1.0) } else { 1.0 };
            f[a] + t * (f[b] - f[a])
        })
        .collect()
}

/// Whether this many equally spaced nodes have more than two on each period.
pub(super) fn resolved(count: usize, length: f64, w: f64) -> bool {
    w * length < std::f64::consts::PI * (count.max(2) - 1) as f64
}

/// Σ |c_k| ω^k with the coefficients in the middle of the domain: how much L enlarges a sinusoid.
pub(super) fn symbol_size(problem: &Problem, w: f64) -> Result<f64> {
    let middle = 0.5 * (problem.domain[0][0] + problem.domain[0][1]);
    let mut sum = 0.0;
    for term in &problem.operator.terms {
        sum += term.coefficient.value(&[middle])?.abs() * w.powi(term.derivative.order(0) as i32);
    }
    Ok(if sum > 0.0 { sum } else { 1.0 })
}

/// Frequencies at which L with constant coefficients has solutions of its own.
pub(super) fn dispersion(problem: &Problem, damping: f64) -> Result<Vec<f64>> {
    let mut symbol = vec![Complex::default(); problem.operator.order(0) + 1];
    for term in &problem.operator.terms {
        let Some(c) = term.coefficient.constant() else { return Ok(Vec::new()) };
        symbol[term.derivative.order(0)] += c;
    }
    Ok(oscillations(&symbol, damping))
}
