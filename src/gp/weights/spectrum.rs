//! Which frequencies the data hold: windowed, zero-padded Fourier transforms of lines of samples.

use std::f64::consts::TAU;

use num_complex::Complex;
use realfft::RealFftPlanner;

use super::basis::short_frequency;

/// A spectral line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peak {
    /// Angular frequency.
    pub(super) frequency: f64,
    /// Amplitude of the sinusoid, in the units of the samples.
    pub(super) amplitude: f64,
}

/// Peaks weaker than this fraction of the strongest are not distinguished from the window's side lobes, which the
/// Blackman–Harris window keeps 92 dB down.
const THRESHOLD: f64 = 1e-4;

/// Bins of the unpadded transform that the window's main lobe spans on each side of a line.
const LOBE: f64 = 4.0;

/// Zero padding, as a multiple of the samples.
const PADDING: usize = 4;

/// How far above the rms of the noise's spectrum a line must rise: e^{−16} is the chance of one bin doing so.
const ABOVE_NOISE: f64 = 4.0;

/// The lines that stand out in samples with spacing `step`, strongest first.
///
/// The linear trend is removed, the rest is windowed (Blackman–Harris), padded and transformed; local maxima of the
/// magnitude are refined on a parabola through its logarithm. Maxima closer than the window's main lobe are one line;
/// `noise` is the standard deviation of independent errors in the samples.
pub(super) fn peaks(samples: &[f64], step: f64, noise: f64) -> Vec<Peak> {
    let n = samples.len();
    if n < 8 {
        return Vec::new();
    }
    let magnitude = spectrum(samples);
    let padded = 2 * (magnitude.len() - 1);
    // The window's mean is its leading coefficient; half of a sinusoid's amplitude lies at positive frequencies.
    let gain = 0.5 * WINDOW[0] * n as f64;
    let floor = ABOVE_NOISE * noise * (0.258 * n as f64).sqrt();
    let largest = magnitude.iter().copied().fold(0.0, f64::max);
    let lobe = LOBE * padded as f64 / n as f64;
    let mut maxima: Vec<(f64, f64)> = (1..magnitude.len() - 1)
        .filter(|&k| magnitude[k] > magnitude[k - 1] && magnitude[k] >= magnitude[k + 1])
        .filter(|&k| magnitude[k] > (THRESHOLD * largest).max(floor))
        .map(|k| (vertex(&magnitude, k), magnitude[k]))
        .collect();
    maxima.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (bin, size) in maxima {
        if kept.iter().all(|(other, _)| (bin - other).abs() > lobe) {
            kept.push((bin, size));
        }
    }
    let unit = TAU / (padded as f64 * step);
    kept.into_iter()
        .map(|(bin, size)| Peak { frequency: short_frequency(bin * unit), amplitude: size / gain })
        .collect()
}

/// Blackman–Harris coefficients of four terms.
const WINDOW: [f64; 4] = [0.358_75, 0.488_29, 0.141_28, 0.011_68];

fn spectrum(samples: &[f64]) -> Vec<f64> {
    let n = samples.len();
    let centre = (n - 1) as f64 / 2.0;
    let mean = samples.iter().sum::<f64>() / n as f64;
    let moment: f64 = samples.iter().enumerate().map(|(i, f)| (i as f64 - centre) * f).sum();
    let slope = moment / (n as f64 * (n as f64 * n as f64 - 1.0) / 12.0);
    let mut padded = vec![0.0; good_length(PADDING * n)];
    for (i, (out, f)) in padded.iter_mut().zip(samples).enumerate() {
        let phase = TAU * i as f64 / (n - 1) as f64;
        let window = WINDOW[0] - WINDOW[1] * phase.cos() + WINDOW[2] * (2.0 * phase).cos()
            - WINDOW[3] * (3.0 * phase).cos();
        *out = window * (f - mean - slope * (i as f64 - centre));
    }
    let plan = RealFftPlanner::new().plan_fft_forward(padded.len());
    let mut transformed = vec![Complex::default(); padded.len() / 2 + 1];
    let done = plan.process(&mut padded, &mut transformed);
    debug_assert!(done.is_ok(), "lengths match the plan: {done:?}");
    transformed.iter().map(|z| z.norm()).collect()
}

/// The next even length with factors 2 and 3 only, for which plans are quick to make.
fn good_length(at_least: usize) -> usize {
    let power = at_least.next_power_of_two();
    if power / 4 * 3 >= at_least { power / 4 * 3 } else { power }
}

/// Where the parabola through the logarithms of three neighbours has its vertex.
fn vertex(magnitude: &[f64], k: usize) -> f64 {
    let log = |x: f64| x.max(f64::MIN_POSITIVE).ln();
    let (a, b, c) = (log(magnitude[k - 1]), log(magnitude[k]), log(magnitude[k + 1]));
    let curvature = a - 2.0 * b + c;
    let shift = if curvature < 0.0 { 0.5 * (a - c) / curvature } else { 0.0 };
    k as f64 + shift.clamp(-0.5, 0.5)
}

/// Moduli of the imaginary parts of the roots of Σ cₖ zᵏ whose real parts are at most `damping`: the frequencies at
/// which e^{zx} solves an equation with this symbol.
pub(super) fn oscillations(coefficients: &[Complex<f64>], damping: f64) -> Vec<f64> {
    let degree = coefficients.iter().rposition(|c| c.norm() > 0.0).unwrap_or(0);
    let leading = coefficients.get(degree).copied().unwrap_or_default();
    let scale = (0..degree)
        .map(|k| (coefficients[k].norm() / leading.norm()).powf(1.0 / (degree - k) as f64))
        .fold(0.0, f64::max);
    if degree == 0 || scale == 0.0 {
        return Vec::new();
    }
    // Durand–Kerner: all roots at once, from points on a circle that holds them.
    let mut roots: Vec<Complex<f64>> =
        (0..degree).map(|k| Complex::from_polar(scale, 0.4 + TAU * k as f64 / degree as f64)).collect();
    for _ in 0..200 {
        for k in 0..degree {
            let z = roots[k];
            let value =
                coefficients[..=degree].iter().rev().fold(Complex::<f64>::default(), |s, c| s * z + c)
                    / leading;
            let others: Complex<f64> = (0..degree).filter(|j| *j != k).map(|j| z - roots[j]).product();
            if others.norm() > 0.0 {
                roots[k] = z - value / others;
            }
        }
    }
    roots.iter().filter(|z| z.re.abs() <= damping).map(|z| z.im.abs()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize, length: f64, f: impl Fn(f64) -> f64) -> (Vec<f64>, f64) {
        let step = length / (n - 1) as f64;
        ((0..n).map(|i| f(i as f64 * step)).collect(), step)
    }

    #[test]
    fn lines_are_found_between_bins_and_far_apart_in_size() {
        let (samples, step) = line(1600, TAU, |x| {
            (100.3 * x).sin() + 1e-3 * (37.0 * x + 1.0).cos() + 0.2 * (412.7 * x).sin() + 5.0 - 3.0 * x
        });
        let found = peaks(&samples, step, 0.0);
        for (frequency, amplitude) in [(100.3, 1.0), (412.7, 0.2), (37.0, 1e-3)] {
            let near = found.iter().find(|p| (p.frequency - frequency).abs() < 0.02);
            let near = near.unwrap_or_else(|| panic!("{frequency} not in {found:?}"));
            assert!((near.amplitude / amplitude - 1.0).abs() < 0.1, "{near:?}");
        }
        assert!(found.len() <= 4, "{found:?}");
        assert!((found[0].frequency - 100.3).abs() < 0.02);
    }

    #[test]
    fn noise_makes_no_lines() {
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 / (1u64 << 52) as f64 - 1.0) * 3f64.sqrt()
        };
        let (mut samples, step) = line(1600, TAU, |x| (100.0 * x).sin());
        samples.iter_mut().for_each(|s| *s += 0.1 * noise());
        assert!(peaks(&samples, step, 0.0).len() > 5);
        let found = peaks(&samples, step, 0.1);
        assert!(found.len() == 1 && (found[0].frequency - 100.0).abs() < 0.05, "{found:?}");
    }

    #[test]
    fn dispersion_relations_give_frequencies() {
        let c = Complex::from;
        // u″ + 50² u: z² + 2500.
        assert!(oscillations(&[c(2500.0), c(0.0), c(1.0)], 1.0).iter().all(|w| (w - 50.0).abs() < 1e-9));
        // u″ − 50² u has none.
        assert!(oscillations(&[c(-2500.0), c(0.0), c(1.0)], 1.0).is_empty());
        // u_t + 200 u_x along t, for e^{ix}.
        let found = oscillations(&[Complex::new(0.0, 200.0), c(1.0)], 1.0);
        assert!((found[0] - 200.0).abs() < 1e-9);
        assert!(oscillations(&[c(3.0)], 1.0).is_empty() && oscillations(&[], 1.0).is_empty());
    }
}
