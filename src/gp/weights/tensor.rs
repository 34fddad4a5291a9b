//! Two and three axes: which features to use, and the posterior that they give.

use ndarray::Array1;

use super::WeightSpace;
use super::basis::{Basis, lattice, spacing};
use super::galerkin::Galerkin;
use super::spectrum::Peak;
use super::tensor_posterior::TensorPosterior;
use super::traces::lines;
use crate::error::{Error, Result};
use crate::gp::problem::{Data, Problem};
use crate::gp::solution::{PdeSolution, Residual, SpectralLine};
use crate::observe::Termination;

/// Share of the resolved frequencies from which on polynomials take the place of sinusoids.
const BROAD: f64 = 1.0 / 3.0;

/// A residual above this calls for wider bands.
const ROUNDING: f64 = 1e-12;

/// A residual above this calls for polynomials, which cost much in several axes.
const POOR: f64 = 1e-8;

/// Envelopes of a carrier for each 2π/length of its band's half-width: π of them would be needed to count the band's
/// sinusoids, the rest is for accuracy.
const ENVELOPES: f64 = 5.0;

/// Off-grid points an axis for the residual, by number of axes.
const CHECKS: [usize; 4] = [0, 257, 61, 23];

struct Fit {
    posterior: TensorPosterior,
    residual: Residual,
    steps: usize,
    termination: Termination,
    unknowns: usize,
    points: usize,
    polynomial: usize,
}

pub(super) fn solve(engine: &WeightSpace, problem: &Problem) -> Result<PdeSolution> {
    let found = lines(engine, problem)?;
    for (axis, peaks) in found.iter().enumerate() {
        let highest = peaks.iter().filter(|p| p.amplitude > 0.0).map(|p| p.frequency).reduce(f64::max);
        if let Some(highest) = highest {
            problem.require_resolution(axis, nodes(engine, problem, axis), highest)?;
        }
    }
    let mut best: Option<Fit> = None;
    for attempt in 0..3 {
        let Some(bases) = features(engine, problem, &found, attempt)? else { continue };
        let fit = match Galerkin::new(problem, bases).and_then(|g| fit(g, engine)) {
            Ok(fit) => fit,
            // The last resort may fail where an earlier attempt did not.
            Err(_) if best.is_some() => continue,
            Err(error) => return Err(error),
        };
        let worst = fit.residual.worst();
        if best.as_ref().is_none_or(|b| worst < b.residual.worst() || b.residual.worst().is_nan()) {
            best = Some(fit);
        }
        let enough = if attempt == 0 { ROUNDING } else { POOR };
        if best.as_ref().is_some_and(|b| b.residual.worst() <= enough) || problem.source_noise > 0.0 {
            break;
        }
    }
    let fit = best.ok_or_else(|| {
        Error::parameter(
            "points",
            nodes(engine, problem, 0),
            "too few for the bands of frequencies in the data",
        )
    })?;
    let spectrum = found
        .iter()
        .enumerate()
        .flat_map(|(axis, peaks)| {
            peaks.iter().map(move |p| SpectralLine { axis, frequency: p.frequency, weight: p.amplitude })
        })
        .collect();
    Ok(PdeSolution {
        posterior: Box::new(fit.posterior),
        residual: fit.residual,
        points: fit.points,
        unknowns: fit.unknowns,
        hyperparameters: vec![("axes with polynomials".into(), fit.polynomial as f64)],
        spectrum,
        termination: fit.termination,
        steps: fit.steps,
        elapsed: std::time::Duration::ZERO,
        warnings: Vec::new(),
    })
}

/// Axes of the grid on which the source is sampled.
fn sample_axes(problem: &Problem) -> Option<&Vec<Array1<f64>>> {
    match &problem.source {
        Data::Samples(samples) => samples.axes.as_ref(),
        _ => None,
    }
}

pub(super) fn nodes(engine: &WeightSpace, problem: &Problem, axis: usize) -> usize {
    sample_axes(problem).map_or(engine.count(problem), |axes| axes[axis].len())
}

/// The features of an axis and the nodes at which they are fitted.
type Features = (Basis, Array1<f64>);

/// The features and nodes of each axis: narrow bands, then wide ones, then polynomials. None where the same as before.
fn features(
    engine: &WeightSpace,
    problem: &Problem,
    lines: &[Vec<Peak>],
    attempt: usize,
) -> Result<Option<Vec<Features>>> {
    let mut all = Vec::new();
    for (axis, peaks) in lines.iter().enumerate() {
        let count = nodes(engine, problem, axis);
        let length = problem.length(axis);
        let periodic = problem.periodic[axis];
        let half_width = engine.half_width * if attempt == 0 { 1.0 } else { 2.0 };
        let basis = if periodic {
            // Only what has the period.
            let unit = spacing(length, engine.extension, true);
            let half = half_width * unit;
            let around = peaks.iter().map(|p| [p.frequency - half, p.frequency + half]);
            let bands: Vec<_> = around.chain([[0.0, half]]).collect();
            Basis::Sinusoids { frequencies: lattice(unit, &bands, &[]) }
        } else {
            let carriers = std::iter::once(0.0).chain(peaks.iter().map(|p| p.frequency)).collect();
            let degree = (ENVELOPES * half_width).ceil() as usize;
            Basis::Modulated { interval: problem.domain[axis], carriers, degree }
        };
        let fixed = sample_axes(problem).map(|axes| axes[axis].clone());
        let broad = basis.len() as f64 > BROAD * 2.0 * count as f64;
        let polynomial = fixed.is_none() && !periodic && (broad || attempt == 2);
        if attempt == 2 && !polynomial {
            return Ok(None);
        }
        let basis =
            if polynomial { Basis::Chebyshev { interval: problem.domain[axis], count } } else { basis };
        let x = fixed.unwrap_or_else(|| basis.nodes(problem.domain[axis], count));
        all.push((basis, x));
    }
    Ok(Some(all))
}

fn fit(galerkin: Galerkin<'_>, engine: &WeightSpace) -> Result<Fit> {
    let problem = galerkin.problem;
    let found = galerkin.solve(engine.newton_steps)?;
    let unknowns = found.free.len();
    let coefficients = galerkin.expand(&found.free)?;
    let axes = galerkin.axes;
    let polynomial = axes.iter().filter(|a| matches!(a.basis, Basis::Chebyshev { .. })).count();
    let points = axes.iter().map(|a| a.nodes.len()).product();
    let mut posterior = TensorPosterior::new(axes, coefficients, found.solver);
    let residual = Residual::measure(problem, &posterior, CHECKS[problem.dim()])?;
    posterior.deviation = problem.source_noise.max(posterior.scale(problem, residual.equation)?);
    let (steps, termination) = (found.steps, found.termination);
    Ok(Fit { posterior, residual, steps, termination, unknowns, points, polynomial })
}
