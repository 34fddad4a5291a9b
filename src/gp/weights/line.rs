//! One axis: the equation at the nodes, the boundary conditions and the observations as rows of one regression.

use ndarray::{Array1, Array2, ArrayView1, Axis, ShapeBuilder, concatenate, s};

use super::basis::{Basis, lattice, spacing};
use super::bayes::{Evidence, Weights};
use super::line_posterior::LinePosterior;
use super::samples::{Samples, Scale, dispersion, resolved, symbol_size};
use super::spectrum::Peak;
use super::{POOR, WeightSpace, sizes};
use crate::error::{Error, Result};
use crate::gp::newton::{Linearisation, line_search, linear_coefficients, linearise};
use crate::gp::problem::{Data, Derivative, Problem};
use crate::gp::solution::{PdeSolution, Residual, SpectralLine};
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

/// A fit with one set of features.
struct Fit {
    posterior: LinePosterior,
    steps: usize,
    termination: Termination,
    rows: usize,
    /// Relative residual of the equation off the nodes.
    residual: f64,
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
        problem.require_resolution(0, samples.count(), highest)?;
    }
    for w in dispersion(problem, 1.0 / length)? {
        if lines.iter().all(|line| (line - w).abs() > SAME * unit) && resolved(samples.count(), length, w) {
            lines.push(w);
        }
    }
    let fit = |basis: Basis| {
        let line = Line::new(engine, problem, basis, &samples, scale)?;
        line.fit()
    };
    let mut half_width = engine.half_width * unit;
    let mut best: Option<Fit> = None;
    let good = |fit: &Fit| fit.residual <= engine.tolerance.max(POOR);
    loop {
        let (basis, covered) = sinusoids(engine, problem, &lines, half_width);
        let broad = covered > BROAD * std::f64::consts::PI * samples.count() as f64 / length;
        if broad && !problem.periodic[0] && samples.free {
            break;
        }
        if basis.len() > samples.count() {
            break;
        }
        let next = fit(basis)?;
        let residual = next.residual;
        let before = best.as_ref().map_or(f64::INFINITY, |b| b.residual);
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
        let polynomials = fit(Basis::Chebyshev { interval: [low, high], count: samples.count() })?;
        if best.as_ref().is_none_or(|b| polynomials.residual < b.residual) {
            best = Some(polynomials);
        }
    }
    let best = best.ok_or_else(|| {
        Error::parameter("points", samples.count(), "too few for the bands of frequencies in the data")
    })?;
    finish(problem, best, &samples)
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

/// Rows that Newton's method doesn't change, their right-hand sides and the standard deviations of their errors.
struct FixedRows {
    matrix: Array2<f64>,
    values: Array1<f64>,
    sigma: Array1<f64>,
}

/// The regression: derivatives of the features at the nodes, coefficients of L there, fixed rows, and the error of f.
struct System {
    tables: Vec<Array2<f64>>,
    linear: Vec<Array1<f64>>,
    fixed: FixedRows,
    error: f64,
}

impl System {
    /// The rows of the equation with these coefficients and right-hand sides, below the fixed ones.
    fn evidence(&self, coefficients: &[Array1<f64>], right: &Array1<f64>) -> Result<Evidence> {
        let (first, n) = (self.fixed.values.len(), right.len());
        let mut a = Array2::zeros((first + n, self.fixed.matrix.ncols()).f());
        a.slice_mut(s![..first, ..]).assign(&self.fixed.matrix);
        combine(&self.tables, coefficients, first, &mut a);
        let sigma = concatenate![Axis(0), self.fixed.sigma, Array1::from_elem(n, self.error)];
        Evidence::new(a, concatenate![Axis(0), self.fixed.values, *right].view(), sigma.view())
    }

    /// Every derivative of u at the nodes.
    fn values(&self, mean: &Array1<f64>) -> Vec<Array1<f64>> {
        self.tables.iter().map(|t| t.dot(mean)).collect()
    }
}

impl<'a> Line<'a> {
    fn new(
        engine: &'a WeightSpace,
        problem: &'a Problem,
        basis: Basis,
        samples: &Samples,
        scale: Scale,
    ) -> Result<Self> {
        let (nodes, source) = if let Basis::Chebyshev { count, .. } = basis {
            // Square where polynomials interpolate: as many unknowns as conditions.
            let count = count - problem.boundary.len().min(count - 1);
            let nodes = basis.nodes(problem.domain[0], count).insert_axis(Axis(1));
            let source = problem.source.at(&nodes)?;
            (nodes, source)
        } else {
            (samples.nodes.clone(), samples.source.clone())
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

    /// Boundary and periodic conditions, and observations.
    fn fixed_rows(&self) -> Result<FixedRows> {
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
        Ok(FixedRows { matrix, values: values.into(), sigma: sigma.into() })
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

    fn fit(self) -> Result<Fit> {
        let problem = self.problem;
        let orders: Vec<usize> = problem.derivatives().iter().map(|d| d.order(0)).collect();
        let system = System {
            tables: self.basis.derivatives(self.nodes.column(0), &orders),
            linear: linear_coefficients(problem, &self.nodes)?,
            fixed: self.fixed_rows()?,
            error: problem.source_noise.max(EXACT * self.scale.source),
        };
        let mut prior = self.prior()?;
        let mut data = system.evidence(&system.linear, &self.source)?;
        let mut weights = data.posterior(prior.view(), 1.0)?;
        let (mut steps, mut termination) = (0, Termination::Completed);
        if !problem.nonlinear.is_empty() {
            (steps, termination) = self.newton(&system, prior.view(), &mut data, &mut weights)?;
        }
        if problem.source_noise > 0.0 && self.engine.learn {
            prior = data.learn(prior.view(), &self.groups(), 10)?;
            weights = data.posterior(prior.view(), 1.0)?;
        }
        let log_evidence = weights.log_evidence;
        let rows = self.nodes.nrows() + system.fixed.values.len();
        let mut posterior = LinePosterior::new(self.basis, weights.mean, data, prior);
        let residual = Residual::equation(problem, &posterior, CHECKS)?;
        if problem.source_noise == 0.0 {
            // What the features can't represent is an error of the data, as far as the posterior can tell.
            posterior.inflation = (residual.rms() / system.error).max(1.0);
        }
        Ok(Fit { posterior, steps, termination, rows, residual: residual.relative(), log_evidence })
    }

    /// Newton's method, damped, from the solution without N.
    fn newton(
        &self,
        system: &System,
        prior: ArrayView1<f64>,
        data: &mut Evidence,
        weights: &mut Weights,
    ) -> Result<(usize, Termination)> {
        let at = |u: &[Array1<f64>]| linearise(self.problem, &self.nodes, &system.linear, u);
        let misfit = |there: &Linearisation| sizes(&(&self.source - &there.value)).0;
        let mut u = system.values(&weights.mean);
        let mut tangent = at(&u);
        let mut before = f64::INFINITY;
        for step in 1..=self.engine.newton_steps {
            let mut right = &self.source - &tangent.value;
            for (c, u) in tangent.coefficients.iter().zip(&u) {
                right += &(c * u);
            }
            if right.iter().any(|v| !v.is_finite()) {
                return Ok((step, Termination::Diverged));
            }
            *data = system.evidence(&tangent.coefficients, &right)?;
            let mut next = data.posterior(prior, 1.0)?;
            let full = system.values(&next.mean);
            let blend = |length: f64| -> Vec<Array1<f64>> {
                u.iter().zip(&full).map(|(u, v)| u + &((v - u) * length)).collect()
            };
            let mut found = None;
            let length = line_search(misfit(&tangent), 1e-8 * self.scale.source, |length| {
                let there = at(&blend(length));
                let merit = misfit(&there);
                found = Some(there);
                Ok(merit)
            })?;
            let (Some(length), Some(there)) = (length, found) else {
                return Ok((step, Termination::Diverged));
            };
            let moved = blend(length);
            let change = relative_change(&u, &moved);
            next.mean = &weights.mean + &((&next.mean - &weights.mean) * length);
            *weights = next;
            (u, tangent) = (moved, there);
            if change <= 1e-13 || (change < 1e-8 && change > 0.3 * before) {
                return Ok((step, Termination::Converged));
            }
            before = change;
        }
        Ok((self.engine.newton_steps, Termination::MaxIterations))
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

/// How much the highest derivative of u changed, relative to itself.
fn relative_change(before: &[Array1<f64>], after: &[Array1<f64>]) -> f64 {
    let (Some(old), Some(new)) = (before.last(), after.last()) else { return 0.0 };
    let size = sizes(new).0;
    sizes(&(new - old)).0 / if size > 0.0 { size } else { 1.0 }
}

fn finish(problem: &Problem, fit: Fit, samples: &Samples) -> Result<PdeSolution> {
    let spectrum = match &fit.posterior.basis {
        Basis::Chebyshev { .. } => Vec::new(),
        Basis::Sinusoids { .. } | Basis::Modulated { .. } => {
            let largest = samples.lines.first().map_or(1.0, |p| p.amplitude);
            let line =
                |p: &Peak| SpectralLine { axis: 0, frequency: p.frequency, weight: p.amplitude / largest };
            samples.lines.iter().map(line).collect()
        }
    };
    let polynomial = matches!(fit.posterior.basis, Basis::Chebyshev { .. });
    let name = if polynomial { "polynomials" } else { "sinusoids" };
    let unknowns = fit.posterior.basis.len();
    let residual = Residual::measure(problem, &fit.posterior, CHECKS)?;
    Ok(PdeSolution {
        posterior: Box::new(fit.posterior),
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
