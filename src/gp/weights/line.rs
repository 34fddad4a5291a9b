//! One axis: the equation at the nodes, the boundary conditions and the observations as rows of one regression.

use ndarray::{Array1, Array2, Axis, ShapeBuilder, concatenate, s};
use num_complex::Complex;

use super::basis::{Basis, lattice, spacing};
use super::bayes::{Evidence, Weights};
use super::newton::{linear_coefficients, linearise};
use super::spectrum::{Peak, oscillations, peaks};
use super::{POOR, WeightSpace, boundary_size, sizes};
use crate::error::{Error, Result};
use crate::gp::problem::{Data, Derivative, Problem};
use crate::gp::solution::{PdeSolution, Posterior, Residual, SpectralLine};
use crate::observe::Termination;

/// Rounding error of exact data, relative to their size.
const EXACT: f64 = 1e-13;

/// With noise, boundary data are this exact relative to the size of u, so that rows don't differ too much in size.
const FIRM: f64 = 1e-8;

/// Share of the resolved frequencies from which on polynomials are tried.
const BROAD: f64 = 1.0 / 3.0;

/// Off-grid points at which the final residual is measured.
const CHECKS: usize = 257;

/// A line narrower than this many 2π/length apart from another is the same.
const SAME: f64 = 0.05;

/// The statement of the problem for one set of features.
struct Line<'a> {
    engine: &'a WeightSpace,
    problem: &'a Problem,
    basis: Basis,
    /// Nodes [n, 1] and f there.
    nodes: Array2<f64>,
    source: Array1<f64>,
    /// Sizes of f and of u, estimated beforehand.
    scale: Scale,
}

#[derive(Clone, Copy, Debug)]
struct Scale {
    source: f64,
    solution: f64,
}

/// A fit with one set of features.
struct Fit {
    basis: Basis,
    weights: Weights,
    steps: usize,
    termination: Termination,
    rows: usize,
    /// Residual at off-grid points: rms, and relative to the largest term.
    residual: (f64, f64),
    log_evidence: f64,
}

pub(super) fn solve(engine: &WeightSpace, problem: &Problem) -> Result<PdeSolution> {
    let [low, high] = problem.domain[0];
    let length = high - low;
    let unit = std::f64::consts::TAU / length;
    let samples = Samples::of(engine, problem)?;
    let scale = samples.scale(problem)?;
    let mut lines: Vec<f64> = samples.lines.iter().map(|p| p.frequency).collect();
    if let Some(highest) = lines.iter().copied().reduce(f64::max) {
        problem.require_resolution(0, samples.count, highest)?;
    }
    for w in dispersion(problem, 1.0 / length)? {
        if lines.iter().all(|line| (line - w).abs() > SAME * unit) && resolved(samples.count, length, w) {
            lines.push(w);
        }
    }
    let fit = |basis: Basis| {
        let line = Line::new(engine, problem, basis, &samples, scale)?;
        line.fit()
    };
    let mut half_width = engine.half_width * unit;
    let mut best: Option<Fit> = None;
    let good = |fit: &Fit| fit.residual.1 <= engine.tolerance.max(POOR);
    loop {
        let (basis, covered) = sinusoids(engine, problem, &lines, half_width);
        let broad = covered > BROAD * std::f64::consts::PI * samples.count as f64 / length;
        if broad && !problem.periodic[0] && samples.free {
            break;
        }
        if basis.len() > samples.count {
            break;
        }
        let next = fit(basis)?;
        let residual = next.residual.1;
        let before = best.as_ref().map_or(f64::INFINITY, |b| b.residual.1);
        if residual < before || best.is_none() {
            best = Some(next);
        }
        // Noise is never fitted; and widening that doesn't help is not repeated.
        if problem.source_noise > 0.0
            || residual.is_nan()
            || residual <= engine.tolerance
            || residual > 0.3 * before
        {
            break;
        }
        half_width *= 2.0;
    }
    if samples.free && !problem.periodic[0] && !best.as_ref().is_some_and(good) && problem.source_noise == 0.0
    {
        let polynomials = fit(Basis::Chebyshev { interval: [low, high], count: samples.count })?;
        if best.as_ref().is_none_or(|b| polynomials.residual.1 < b.residual.1) {
            best = Some(polynomials);
        }
    }
    let best = best.ok_or_else(|| {
        Error::parameter("points", samples.count, "too few for the bands of frequencies in the data")
    })?;
    finish(problem, best, &samples)
}

/// What is known of f before any features are chosen.
struct Samples {
    /// Nodes that samples dictate.
    fixed: Option<(Array2<f64>, Array1<f64>)>,
    /// Whether the nodes can be chosen.
    free: bool,
    /// Nodes that will be used.
    count: usize,
    lines: Vec<Peak>,
    size: f64,
}

impl Samples {
    fn of(engine: &WeightSpace, problem: &Problem) -> Result<Self> {
        let [low, high] = problem.domain[0];
        let (fixed, values, step) = match &problem.source {
            Data::Samples(samples) => {
                let (x, f) = (samples.points.clone(), samples.values.clone());
                let even = resampled(x.column(0).to_vec(), f.to_vec(), low, high);
                let step = (high - low) / (even.len().max(2) - 1) as f64;
                (Some((x, f)), even, step)
            }
            source => {
                let n = 4 * engine.count(problem) + 1;
                let x = Array1::linspace(low, high, n).insert_axis(Axis(1));
                (None, source.at(&x)?.to_vec(), (high - low) / (n - 1) as f64)
            }
        };
        let count = fixed.as_ref().map_or(engine.count(problem), |(x, _)| x.nrows());
        let lines = peaks(&values, step, problem.source_noise);
        let size = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        Ok(Self { free: fixed.is_none(), fixed, count, lines, size })
    }

    /// The sizes of f and u: u from the boundary data and from the strongest line, through the symbol of L.
    fn scale(&self, problem: &Problem) -> Result<Scale> {
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
fn resampled(x: Vec<f64>, f: Vec<f64>, low: f64, high: f64) -> Vec<f64> {
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

fn resolved(count: usize, length: f64, w: f64) -> bool {
    w * length < std::f64::consts::PI * (count.max(2) - 1) as f64
}

/// Σ |c_k| ω^k with the coefficients in the middle of the domain: how much L enlarges a sinusoid.
fn symbol_size(problem: &Problem, w: f64) -> Result<f64> {
    let middle = 0.5 * (problem.domain[0][0] + problem.domain[0][1]);
    let mut sum = 0.0;
    for term in &problem.operator.terms {
        sum += term.coefficient.value(&[middle])?.abs() * w.powi(term.derivative.order(0) as i32);
    }
    Ok(if sum > 0.0 { sum } else { 1.0 })
}

/// Frequencies at which L with constant coefficients has solutions of its own.
fn dispersion(problem: &Problem, damping: f64) -> Result<Vec<f64>> {
    let mut symbol = vec![Complex::default(); problem.operator.order(0) + 1];
    for term in &problem.operator.terms {
        let Some(c) = term.coefficient.constant() else { return Ok(Vec::new()) };
        symbol[term.derivative.order(0)] += c;
    }
    Ok(oscillations(&symbol, damping))
}

/// The low band and a band around each line; and how much of the frequency axis they cover.
fn sinusoids(engine: &WeightSpace, problem: &Problem, lines: &[f64], half_width: f64) -> (Basis, f64) {
    let [low, high] = problem.domain[0];
    let periodic = problem.periodic[0];
    let step = spacing(high - low, engine.extension, periodic);
    let mut bands = vec![[0.0, half_width]];
    bands.extend(lines.iter().map(|w| [(w - half_width).max(0.0), w + half_width]));
    let taken: &[f64] = if periodic { &[] } else { lines };
    let frequencies = lattice(step, &bands, taken);
    let covered = frequencies.len() as f64 * step;
    (Basis::Sinusoids { frequencies }, covered)
}

impl<'a> Line<'a> {
    fn new(
        engine: &'a WeightSpace,
        problem: &'a Problem,
        basis: Basis,
        samples: &Samples,
        scale: Scale,
    ) -> Result<Self> {
        let (nodes, source) = match &samples.fixed {
            Some(fixed) => fixed.clone(),
            None => {
                // Square where polynomials interpolate: as many unknowns as conditions.
                let square = matches!(basis, Basis::Chebyshev { .. });
                let count =
                    samples.count - if square { problem.boundary.len().min(samples.count - 1) } else { 0 };
                let nodes = basis.nodes(problem.domain[0], count).insert_axis(Axis(1));
                let source = problem.source.at(&nodes)?;
                (nodes, source)
            }
        };
        Ok(Self { engine, problem, basis, nodes, source, scale })
    }

    /// Prior standard deviations: what f allows at each frequency, f / |L̂(ω)|, ω at least one period in the length.
    fn prior(&self) -> Result<Array1<f64>> {
        let lowest = std::f64::consts::TAU / self.problem.length(0);
        self.basis
            .feature_frequencies()
            .into_iter()
            .map(|w| {
                let by_source = self.scale.source / symbol_size(self.problem, w.max(lowest))?;
                // Boundary data can excite any frequency.
                Ok(by_source.max(EXACT.sqrt() * self.scale.solution))
            })
            .collect()
    }

    /// Rows that don't change: boundary and periodic conditions, observations. (rows, values, deviations)
    fn fixed_rows(&self) -> Result<(Array2<f64>, Array1<f64>, Array1<f64>)> {
        let problem = self.problem;
        let (mut rows, mut values, mut sigma) = (Vec::new(), Vec::new(), Vec::new());
        let noisy = problem.source_noise > 0.0;
        let firmness = if noisy { FIRM } else { EXACT / (self.nodes.nrows() as f64).sqrt() };
        let prior = self.prior()?;
        // Relative to the largest that the prior allows, so that no row drowns the others in its rounding.
        let firm = |row: &Array1<f64>| firmness * sizes(&(row * &prior)).1;
        for boundary in &problem.boundary {
            let at = problem.coordinate(boundary.face);
            let row = self.combination(at, &boundary.condition.terms(boundary.face));
            let value = match boundary.condition.data() {
                Data::Samples(samples) => samples.values[0],
                data => data.value(&[at])?,
            };
            sigma.push(firm(&row).max(problem.boundary_noise));
            values.push(value);
            rows.push(row);
        }
        if problem.periodic[0] && matches!(self.basis, Basis::Chebyshev { .. }) {
            let [low, high] = problem.domain[0];
            for order in 0..problem.order(0) {
                let term = [(Derivative::along(0, order), 1.0)];
                let row = self.combination(high, &term) - self.combination(low, &term);
                sigma.push(firm(&row));
                values.push(0.0);
                rows.push(row);
            }
        }
        for observation in &problem.observations {
            for (x, value) in observation.points.column(0).iter().zip(&observation.values) {
                rows.push(self.combination(*x, &[(observation.derivative, 1.0)]));
                values.push(*value);
                sigma.push(observation.noise);
            }
        }
        let mut matrix = Array2::zeros((rows.len(), self.basis.len()).f());
        for (mut out, row) in matrix.rows_mut().into_iter().zip(&rows) {
            out.assign(row);
        }
        Ok((matrix, values.into(), sigma.into()))
    }

    /// Σ c ∂φ at one point.
    fn combination(&self, x: f64, terms: &[(Derivative, f64)]) -> Array1<f64> {
        let orders: Vec<usize> = terms.iter().map(|(d, _)| d.order(0)).collect();
        let tables = self.basis.derivatives(Array1::from_elem(1, x).view(), &orders);
        let mut row = Array1::zeros(self.basis.len());
        for ((_, c), table) in terms.iter().zip(&tables) {
            row.scaled_add(*c, &table.row(0));
        }
        row
    }

    fn fit(&self) -> Result<Fit> {
        let problem = self.problem;
        let derivatives = problem.derivatives();
        let orders: Vec<usize> = derivatives.iter().map(|d| d.order(0)).collect();
        let tables = self.basis.derivatives(self.nodes.column(0), &orders);
        let linear = linear_coefficients(problem, &self.nodes)?;
        let prior = self.prior()?;
        let (fixed, fixed_values, fixed_sigma) = self.fixed_rows()?;
        let n = self.nodes.nrows();
        let error = problem.source_noise.max(EXACT * self.scale.source);
        let sigma = concatenate![Axis(0), fixed_sigma, Array1::from_elem(n, error)];
        let rows = n + fixed.nrows();
        let evidence = |coefficients: &[Array1<f64>], right: &Array1<f64>| {
            let mut a = Array2::zeros((rows, self.basis.len()).f());
            a.slice_mut(s![..fixed.nrows(), ..]).assign(&fixed);
            combine(&tables, coefficients, fixed.nrows(), &mut a);
            Evidence::new(a, concatenate![Axis(0), fixed_values, *right].view(), sigma.view())
        };
        let mut data = evidence(&linear, &self.source)?;
        let mut weights = data.posterior(prior.view(), 1.0)?;
        let (mut steps, mut termination) = (0, Termination::Completed);
        if !problem.nonlinear.is_empty() {
            termination = Termination::MaxIterations;
            let mut before = f64::INFINITY;
            while steps < self.engine.newton_steps {
                let u: Vec<Array1<f64>> = tables.iter().map(|t| t.dot(&weights.mean)).collect();
                let tangent = linearise(problem, &self.nodes, &linear, &u);
                let mut right = &self.source - &tangent.value;
                let misfit = sizes(&right).0;
                for (c, u) in tangent.coefficients.iter().zip(&u) {
                    right += &(c * u);
                }
                if !misfit.is_finite() {
                    termination = Termination::Diverged;
                    break;
                }
                data = evidence(&tangent.coefficients, &right)?;
                let next = data.posterior(prior.view(), 1.0)?;
                steps += 1;
                let change = tables_change(&tables, &weights, &next);
                weights = next;
                if change <= 1e-13 || (change < 1e-8 && change > 0.3 * before) {
                    termination = Termination::Converged;
                    break;
                }
                before = change;
            }
        }
        if problem.source_noise > 0.0 && self.engine.learn {
            let learned = data.learn(prior.view(), &self.groups(), 10)?;
            weights = data.posterior(learned.view(), 1.0)?;
        }
        let residual = self.residual(&weights)?;
        let log_evidence = weights.log_evidence;
        if problem.source_noise == 0.0 {
            // What the features can't represent is an error of the data, as far as the posterior can tell.
            let inflation = (residual.0 / error).max(1.0);
            let mean = std::mem::take(&mut weights.mean);
            weights = data.posterior(prior.view(), inflation)?;
            weights.mean = mean;
        }
        let basis = self.basis.clone();
        Ok(Fit { basis, weights, steps, termination, rows, residual, log_evidence })
    }

    /// Features whose prior is scaled together: those of one band.
    fn groups(&self) -> Vec<usize> {
        let wide = 3.0 * spacing(self.problem.length(0), self.engine.extension, self.problem.periodic[0]);
        let frequencies = self.basis.feature_frequencies();
        let mut group = 0;
        let mut last = frequencies.first().copied().unwrap_or(0.0);
        frequencies
            .into_iter()
            .map(|w| {
                if w - last > wide {
                    group += 1;
                }
                last = w;
                group
            })
            .collect()
    }

    /// The residual between the nodes: its rms, and that relative to the largest term. At the nodes of samples.
    fn residual(&self, weights: &Weights) -> Result<(f64, f64)> {
        let problem = self.problem;
        let (points, source) = match &problem.source {
            Data::Samples(_) => (self.nodes.clone(), self.source.clone()),
            source => {
                let [low, high] = problem.domain[0];
                // Half a step off the nodes.
                let n = 2 * self.nodes.nrows();
                let half = 0.25 * (high - low) / n as f64;
                let points = Array1::linspace(low + half, high - half, n).insert_axis(Axis(1));
                let f = source.at(&points)?;
                (points, f)
            }
        };
        let orders: Vec<usize> = problem.derivatives().iter().map(|d| d.order(0)).collect();
        let tables = self.basis.derivatives(points.column(0), &orders);
        let u: Vec<Array1<f64>> = tables.iter().map(|t| t.dot(&weights.mean)).collect();
        let linear = linear_coefficients(problem, &points)?;
        let value = linearise(problem, &points, &linear, &u).value;
        let largest = linear.iter().zip(&u).map(|(c, u)| sizes(&(c * u)).0).fold(sizes(&source).0, f64::max);
        let rms = sizes(&(&value - &source)).0;
        Ok((rms, if largest > 0.0 { rms / largest } else { rms }))
    }
}

/// Adds Σ_k c_k(x_i) ∂_k φ_j(x_i) to the rows from `first` on.
fn combine(tables: &[Array2<f64>], coefficients: &[Array1<f64>], first: usize, a: &mut Array2<f64>) {
    for (j, mut column) in a.columns_mut().into_iter().enumerate() {
        let mut part = column.slice_mut(s![first..]);
        for (table, c) in tables.iter().zip(coefficients) {
            part.iter_mut().zip(table.column(j)).zip(c).for_each(|((out, phi), c)| *out += c * phi);
        }
    }
}

/// How much the largest derivative of u changed, relative to itself.
fn tables_change(tables: &[Array2<f64>], before: &Weights, after: &Weights) -> f64 {
    let Some(last) = tables.last() else { return 0.0 };
    let (old, new) = (last.dot(&before.mean), last.dot(&after.mean));
    let size = sizes(&new).0;
    sizes(&(&new - &old)).0 / if size > 0.0 { size } else { 1.0 }
}

fn finish(problem: &Problem, fit: Fit, samples: &Samples) -> Result<PdeSolution> {
    let spectrum = match &fit.basis {
        Basis::Chebyshev { .. } => Vec::new(),
        Basis::Sinusoids { .. } => {
            let largest = samples.lines.first().map_or(1.0, |p| p.amplitude);
            let line =
                |p: &Peak| SpectralLine { axis: 0, frequency: p.frequency, weight: p.amplitude / largest };
            samples.lines.iter().map(line).collect()
        }
    };
    let name = match &fit.basis {
        Basis::Chebyshev { .. } => "polynomials",
        Basis::Sinusoids { .. } => "sinusoids",
    };
    let unknowns = fit.basis.len();
    let posterior = LinePosterior { basis: fit.basis, weights: fit.weights };
    let residual = Residual::measure(problem, &posterior, CHECKS)?;
    Ok(PdeSolution {
        posterior: Box::new(posterior),
        residual,
        points: fit.rows,
        unknowns,
        hyperparameters: vec![(name.into(), unknowns as f64), ("log evidence".into(), fit.log_evidence)],
        spectrum,
        termination: fit.termination,
        steps: fit.steps,
        elapsed: std::time::Duration::ZERO,
        warnings: Vec::new(),
    })
}

#[derive(Debug)]
struct LinePosterior {
    basis: Basis,
    weights: Weights,
}

impl LinePosterior {
    fn features(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array2<f64>> {
        if points.ncols() != 1 {
            return Err(Error::shape("points", "[points, 1]", points.shape()));
        }
        Ok(self.basis.derivatives(points.column(0), &[derivative.order(0)]).swap_remove(0))
    }
}

impl Posterior for LinePosterior {
    fn mean(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array1<f64>> {
        Ok(self.features(points, derivative)?.dot(&self.weights.mean))
    }

    fn variance(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array1<f64>> {
        self.weights.variance(self.features(points, derivative)?.view())
    }

    fn covariance(
        &self,
        a: (&Array2<f64>, Derivative),
        b: (&Array2<f64>, Derivative),
    ) -> Result<Array2<f64>> {
        let left = self.weights.whiten(self.features(a.0, a.1)?.view())?;
        let right = self.weights.whiten(self.features(b.0, b.1)?.view())?;
        Ok(left.t().dot(&right))
    }

    fn sample(
        &self,
        points: &Array2<f64>,
        derivative: Derivative,
        count: usize,
        seed: u64,
    ) -> Result<Array2<f64>> {
        let features = self.features(points, derivative)?;
        Ok(features.dot(&self.weights.sample(count, seed)?).reversed_axes())
    }
}
