//! Frequencies of each axis of a box, from lines through the source and along the faces.

use std::f64::consts::TAU;

use ndarray::{Array1, Array2, Axis as Direction};
use num_complex::Complex;

use super::WeightSpace;
use super::spectrum::{Peak, oscillations, peaks};
use crate::error::{Error, Result};
use crate::gp::problem::{Data, Problem};

/// Lines of data an axis: positions of the other coordinates, as fractions of their range.
const PLACES: [f64; 4] = [0.0, 0.381_966, 0.723_607, 1.0];

/// Lines of other axes that are combined in search of frequencies that the equation itself prescribes.
const COMBINED: usize = 8;

/// Peaks below this fraction of the strongest of the same data are ignored.
const FAINT: f64 = 1e-4;

/// The lines of each axis, strongest first.
pub(super) fn lines(engine: &WeightSpace, problem: &Problem) -> Result<Vec<Vec<Peak>>> {
    let mut all = Vec::new();
    for axis in 0..problem.dim() {
        let mut found = along(engine, problem, axis, &problem.source, None, problem.source_noise)?;
        for boundary in problem.boundary.iter().filter(|b| b.face.axis != axis) {
            let at = (boundary.face.axis, problem.coordinate(boundary.face));
            let data = boundary.condition.data();
            found.extend(along(engine, problem, axis, data, Some(at), problem.boundary_noise)?);
        }
        all.push(merged(found, TAU / problem.length(axis)));
    }
    for axis in 0..problem.dim() {
        let own = dispersion(engine, problem, axis, &all)?;
        let unit = TAU / problem.length(axis);
        for frequency in own {
            if all[axis].iter().all(|p| (p.frequency - frequency).abs() > unit) {
                all[axis].push(Peak { frequency, amplitude: 0.0 });
            }
        }
    }
    Ok(all)
}

/// Peaks of one set of data along an axis, with amplitudes relative to the largest of them.
fn along(
    engine: &WeightSpace,
    problem: &Problem,
    axis: usize,
    data: &Data,
    fixed: Option<(usize, f64)>,
    noise: f64,
) -> Result<Vec<Peak>> {
    if data.constant().is_some() {
        return Ok(Vec::new());
    }
    let others: Vec<usize> =
        (0..problem.dim()).filter(|d| *d != axis && fixed.is_none_or(|(face, _)| face != *d)).collect();
    let mut found: Vec<Peak> = Vec::new();
    let count = PLACES.len().pow(others.len() as u32);
    for line in 0..count {
        let place = |k: usize| PLACES[line / PLACES.len().pow(k as u32) % PLACES.len()];
        let (values, step) = match data {
            Data::Samples(samples) => {
                let Some(axes) = samples.axes.as_ref() else {
                    return Err(Error::Unsupported(
                        "samples of a source or of boundary data must lie on a tensor grid; scattered ones are for \
                         the collocation engine"
                            .into(),
                    ));
                };
                let mut values = samples
                    .values
                    .clone()
                    .into_shape_with_order(axes.iter().map(Array1::len).collect::<Vec<_>>())
                    .map_err(candle_core::Error::wrap)?;
                for d in (0..axes.len()).rev().filter(|d| *d != axis) {
                    let fraction = others.iter().position(|o| *o == d).map_or(0.0, place);
                    let index = (fraction * (axes[d].len() - 1) as f64) as usize;
                    values = values.index_axis_move(Direction(d), index);
                }
                (
                    values.iter().copied().collect::<Vec<f64>>(),
                    problem.length(axis) / (axes[axis].len().max(2) - 1) as f64,
                )
            }
            data => {
                let n = 4 * engine.count(problem) + 1;
                let [low, high] = problem.domain[axis];
                let mut points = Array2::zeros((n, problem.dim()));
                points.column_mut(axis).assign(&Array1::linspace(low, high, n));
                for (k, d) in others.iter().enumerate() {
                    let [low, high] = problem.domain[*d];
                    points.column_mut(*d).fill(low + place(k) * (high - low));
                }
                if let Some((face, at)) = fixed {
                    points.column_mut(face).fill(at);
                }
                (data.at(&points)?.to_vec(), (high - low) / (n - 1) as f64)
            }
        };
        found.extend(peaks(&values, step, noise));
    }
    let largest = found.iter().map(|p| p.amplitude).fold(0.0, f64::max);
    found.retain(|p| p.amplitude > FAINT * largest);
    found.iter_mut().for_each(|p| p.amplitude /= largest);
    Ok(found)
}

/// Peaks without those within one `unit` of a stronger one.
fn merged(mut found: Vec<Peak>, unit: f64) -> Vec<Peak> {
    found.sort_by(|a, b| b.amplitude.total_cmp(&a.amplitude));
    let mut kept: Vec<Peak> = Vec::new();
    for peak in found {
        if kept.iter().all(|k| (k.frequency - peak.frequency).abs() > unit) {
            kept.push(peak);
        }
    }
    kept
}

/// Frequencies along an axis at which L with constant coefficients has solutions of its own, where the other axes
/// oscillate as their data do: the dispersion relation of a wave.
fn dispersion(engine: &WeightSpace, problem: &Problem, axis: usize, lines: &[Vec<Peak>]) -> Result<Vec<f64>> {
    let mut choices: Vec<Vec<f64>> = vec![vec![]];
    for d in (0..problem.dim()).filter(|d| *d != axis) {
        let own = lines[d].iter().take(COMBINED).map(|p| p.frequency).chain([0.0]);
        choices = own.flat_map(|w| choices.iter().map(move |c| [c.as_slice(), &[w]].concat())).collect();
    }
    let mut found = Vec::new();
    for choice in choices {
        let mut symbol = vec![Complex::default(); problem.operator.order(axis) + 1];
        for term in &problem.operator.terms {
            let Some(c) = term.coefficient.constant() else { return Ok(Vec::new()) };
            let others = (0..problem.dim()).filter(|d| *d != axis).zip(&choice);
            let factor: Complex<f64> =
                others.map(|(d, w)| Complex::new(0.0, *w).powu(term.derivative.order(d) as u32)).product();
            symbol[term.derivative.order(axis)] += c * factor;
        }
        let damping = 1.0 / problem.length(axis);
        let longest =
            std::f64::consts::PI * super::tensor::nodes(engine, problem, axis) as f64 / problem.length(axis);
        found.extend(oscillations(&symbol, damping).into_iter().filter(|w| *w > 0.0 && *w < longest));
    }
    Ok(found)
}
