//! A prior from the data: how fast the source and the boundary data oscillate along each axis.

use std::f64::consts::{PI, TAU};

use ndarray::Array1;

use crate::error::Result;
use crate::gp::kernel::{Envelope, Kernel1d, SpectralMixture};
use crate::gp::problem::{Data, Problem, tensor_grid};

/// Samples on a line: enough for 1000 periods.
const SAMPLES: usize = 8192;
/// Lines parallel to the axis, at these fractions of the other axes.
const LINES: [f64; 3] = [0.123, 0.5, 0.817];

/// The angular frequency ‖g″‖/‖g′‖ of the data along `axis`: that of the tone for a pure tone, and near the highest
/// one that matters for a mixture, since differentiation weighs it up. Data that are samples are not looked at.
pub(in crate::gp) fn angular_frequency(problem: &Problem, axis: usize) -> Result<f64> {
    let mut highest = PI / problem.length(axis);
    let faces = problem.boundary.iter().filter(|b| b.face.axis != axis);
    let sources = std::iter::once((None, &problem.source));
    for (face, data) in sources.chain(faces.map(|b| (Some(b.face), b.condition.data()))) {
        if matches!(data, Data::Samples(_) | Data::Constant(_)) {
            continue;
        }
        for fraction in LINES {
            let mut axes: Vec<Array1<f64>> =
                problem.domain.iter().map(|[a, b]| Array1::from_elem(1, a + fraction * (b - a))).collect();
            let [low, high] = problem.domain[axis];
            axes[axis] = Array1::linspace(low, high, SAMPLES);
            if let Some(face) = face {
                axes[face.axis][0] = problem.coordinate(face);
            }
            let values = data.at(&tensor_grid(&axes))?.to_vec();
            highest = highest.max(mean_frequency(&values, (high - low) / (SAMPLES - 1) as f64));
        }
    }
    Ok(highest)
}

fn mean_frequency(values: &[f64], step: f64) -> f64 {
    let differences = |v: &[f64]| v.windows(2).map(|w| w[1] - w[0]).collect::<Vec<_>>();
    let energy = |v: &[f64]| v.iter().map(|d| d * d).sum::<f64>();
    let first = differences(values);
    let (slope, curvature) = (energy(&first), energy(&differences(&first)));
    let size = energy(values);
    // Rounding of nearly constant data is no oscillation.
    if slope <= 1e-20 * size || slope == 0.0 { 0.0 } else { (curvature / slope).sqrt() / step }
}

/// Components at most in the prior of an axis.
const MAX_COMPONENTS: usize = 40;

/// A mixture with equal weights from 0 to a little above `angular` on an axis of `length`: bumps two cycles per length
/// apart (more where that takes too many), each as wide as their distance, so that the spectrum has no holes.
pub(super) fn prior(angular: f64, length: f64) -> Result<Box<dyn Kernel1d>> {
    let highest = 1.2 * angular / TAU;
    let count = ((highest * length / 2.0).ceil() as usize + 1).clamp(2, MAX_COMPONENTS);
    let spacing = (highest / (count - 1) as f64).max(1.0 / length);
    // e^(−aτ²) has a spectrum of standard deviation √(2a)/2π cycles.
    let a = 0.5 * (TAU * spacing).powi(2);
    let frequencies: Vec<f64> = (0..count).map(|q| highest * q as f64 / (count - 1) as f64).collect();
    let weights = vec![1.0 / count as f64; count];
    Ok(SpectralMixture::new(Envelope::Gaussian, &weights, &vec![a; count], &frequencies)?.boxed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gp::benchmark::case;

    #[test]
    fn the_frequency_of_tones_is_found() -> Result<()> {
        let tone = angular_frequency(&case("poisson-1d-sin")?.problem, 0)?;
        assert!((tone - 100.0).abs() < 1.0, "{tone}");
        let plane = case("plane-wave-2d")?.problem;
        assert!((angular_frequency(&plane, 0)? - 60.0).abs() < 2.0);
        assert!((angular_frequency(&plane, 1)? - 35.0).abs() < 2.0);
        Ok(())
    }
}
