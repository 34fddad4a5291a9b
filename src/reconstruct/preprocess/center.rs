//! The centre of rotation: the detector column where the axis projects.

use std::f64::consts::{PI, TAU};

use candle_core::Tensor;
use num_complex::Complex;
use rayon::prelude::*;
use rustfft::FftDirection;

use crate::error::{Error, Result};
use crate::tensor::{Kernel, Real, launch, vector};

/// The position of the middle of the detector against the axis in mm, `offset` of
/// [`ParallelBeam`](crate::operator::ct::ParallelBeam), where the axis projects on column `center` of `bins`.
///
/// ```
/// use wellposed::reconstruct::preprocess::center_to_offset;
/// assert_eq!(center_to_offset(296.0, 640, 0.5), 11.75);
/// ```
pub fn center_to_offset(center: f64, bins: usize, pitch: f64) -> f64 {
    ((bins as f64 - 1.0) / 2.0 - center) * pitch
}

/// Finds the centre from one sinogram [views, bins] of parallel rays over half a turn or a full one, evenly spaced
/// (Vo, Drakopoulos, Atwood and Reinhard, Opt. Express 22:19078, 2014): the sinogram, continued over the full turn by its
/// mirror image about the right centre, has no energy in its Fourier transform outside a double wedge.
///
/// With A(k, u) the transform of the half turn followed by zeros, the mirrored half adds (−1)ᵏ conj A(−k, u) e^(−4πi uc/N)
/// for the centre c: one transform serves all centres, and those between columns need no interpolation. Looks for
/// centres in the middle half of the detector; to about a twentieth of a column on good data.
///
/// ```
/// use std::f64::consts::PI;
/// use wellposed::operator::ct::ParallelBeam;
/// use wellposed::phantom::{Contrast, shepp_logan};
/// use wellposed::reconstruct::preprocess::{center_by_sinogram, center_to_offset};
/// let angles: Vec<f64> = (0..90).map(|i| PI * f64::from(i) / 90.0).collect();
/// let beam = ParallelBeam::new(angles, 120, 2.0)?.with_offset(center_to_offset(63.3, 120, 2.0));
/// let data = shepp_logan(Contrast::Modified, 90.0).project::<f64>(&beam)?;
/// assert!((center_by_sinogram(&data, &beam.angles)? - 63.3).abs() < 0.1);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`], [`Error::NotFinite`]; [`Error::Parameter`] where the views are fewer than 8 or don't cover half a
/// turn or a full one.
pub fn center_by_sinogram(sinogram: &Tensor, angles: &[f64]) -> Result<f64> {
    let &[views, bins] = sinogram.dims() else {
        return Err(Error::shape("sinogram", "[views, bins]", sinogram.dims()));
    };
    if angles.len() != views {
        return Err(Error::shape("angles", format!("[{views}], one for each view"), &[angles.len()]));
    }
    vector::require_finite("sinogram", sinogram)?;
    let half = half_turn(angles)?;
    if bins < 8 {
        return Err(Error::parameter("bins", bins, "at least 8 are needed to find a centre"));
    }
    let sinogram = f64::to_vec(sinogram)?;
    let spectrum = Spectrum::new(&sinogram[..half * bins], half, bins);
    let step = 0.25;
    let candidates = ((bins as f64 / 2.0) / step) as usize;
    let at = |k: usize| bins as f64 / 4.0 + k as f64 * step;
    let leaks: Vec<f64> = (0..=candidates).into_par_iter().map(|k| spectrum.leak(at(k))).collect();
    let best = (0..leaks.len()).min_by(|a, b| leaks[*a].total_cmp(&leaks[*b])).unwrap_or(0);
    least(at(best) - step, at(best) + step, 1e-3, |c| Ok(spectrum.leak(c)))
}

/// The number of first views that make half a turn.
fn half_turn(angles: &[f64]) -> Result<usize> {
    let views = angles.len();
    let refuse = |found: String| {
        let reason = "a centre can be found in the sinogram of evenly spaced views, at least 8, over half a turn or more; \
                      find it in the image";
        Err(Error::parameter("angles", found, reason))
    };
    if views < 8 {
        return refuse(format!("{views} views"));
    }
    let step = (angles[views - 1] - angles[0]) / (views - 1) as f64;
    let even =
        angles.iter().enumerate().all(|(i, a)| (a - angles[0] - i as f64 * step).abs() < 0.2 * step.abs());
    let half = PI / step.abs();
    // Views may stop a step or two short of half a turn.
    if !even || !half.is_finite() || half.round() > views as f64 + 2.0 {
        let arc = (angles[views - 1] - angles[0]).to_degrees();
        return refuse(format!("{views} views over {arc:.2}°{}", if even { "" } else { ", uneven" }));
    }
    Ok((half.round() as usize).min(views))
}

/// A(k, u) of half a turn of views followed by as many zeros, at frequencies u along the bins from 2 to where the double
/// wedge leaves no room.
struct Spectrum {
    views: usize,
    bins: usize,
    /// [u, k]
    columns: Vec<Vec<Complex<f64>>>,
}

/// Lowest frequency along the bins that is looked at: below, there is the object's mean.
const LOWEST: usize = 2;

impl Spectrum {
    fn new(sinogram: &[f64], views: usize, bins: usize) -> Self {
        let plan = |length| {
            let mut planner = f64::fft_planner().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            planner.plan_fft(length, FftDirection::Forward)
        };
        let (along_bins, along_views) = (plan(bins), plan(2 * views));
        let highest = (bins / 2).min((views as f64 / PI) as usize + 1);
        let mut columns = vec![vec![Complex::new(0.0, 0.0); 2 * views]; highest.saturating_sub(LOWEST)];
        for (view, line) in sinogram.chunks(bins).enumerate() {
            let mut line: Vec<Complex<f64>> = line.iter().map(|v| Complex::new(*v, 0.0)).collect();
            along_bins.process(&mut line);
            columns.iter_mut().zip(&line[LOWEST..]).for_each(|(column, value)| column[view] = *value);
        }
        columns.par_iter_mut().for_each(|column| along_views.process(column));
        Self { views, bins, columns }
    }

    /// Mean magnitude outside the double wedge |k| ≤ πu, which an object as wide as the detector fills.
    fn leak(&self, center: f64) -> f64 {
        let (mut sum, mut count) = (0.0, 0usize);
        // The lowest orders hold what drifts from view to view.
        let drop = (0.05 * 2.0 * self.views as f64).ceil().min(20.0) as usize;
        for (index, column) in self.columns.iter().enumerate() {
            let u = (index + LOWEST) as f64;
            let turn = Complex::from_polar(1.0, -TAU * u * 2.0 * center / self.bins as f64);
            let lowest = ((PI * u) as usize + 1).max(drop);
            for k in lowest..self.views {
                let sign = if k.is_multiple_of(2) { 1.0 } else { -1.0 };
                let (plus, minus) = (column[k], column[2 * self.views - k]);
                sum +=
                    (plus + turn * minus.conj() * sign).norm() + (minus + turn * plus.conj() * sign).norm();
                count += 2;
            }
        }
        sum / count.max(1) as f64
    }
}

/// Finds the centre from images: the one in `low`…`high` whose image has the least Σ|μ| (Donath, Beckmann
/// and Schreyer, J. Opt. Soc. Am. A 23:1048, 2006): a wrong centre turns points into arcs with positive and negative
/// sides. `image(c)` reconstructs one slice from views over half a turn or little more; over a full turn the two sides
/// meet and the measure says little. Tries every `step` and then refines to a twentieth of that.
///
/// # Errors
/// What `image` returns; [`Error::Parameter`] unless low < high and the step is positive.
pub fn center_by_image(
    low: f64,
    high: f64,
    step: f64,
    mut image: impl FnMut(f64) -> Result<Tensor>,
) -> Result<f64> {
    struct Magnitude;
    impl Kernel for Magnitude {
        type Output = f64;
        fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<f64> {
            Ok(inputs[0].iter().map(|v| v.as_f64().abs()).sum())
        }
    }
    if !(low < high && step > 0.0 && (high - low).is_finite()) {
        let found = format!("{low} to {high} by {step}");
        return Err(Error::parameter("centres to try", found, "expected low < high and a positive step"));
    }
    let mut size = |c: f64| launch(Magnitude, &[&image(c)?], &mut []);
    let mut best = (f64::INFINITY, low);
    for k in 0..=((high - low) / step).floor() as usize {
        let c = low + k as f64 * step;
        let found = size(c)?;
        if found < best.0 {
            best = (found, c);
        }
    }
    least((best.1 - step).max(low), (best.1 + step).min(high), step / 20.0, size)
}

/// Where a function with one minimum between two places has it, by golden section.
fn least(mut low: f64, mut high: f64, within: f64, mut f: impl FnMut(f64) -> Result<f64>) -> Result<f64> {
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut a, mut b) = (high - golden * (high - low), low + golden * (high - low));
    let (mut fa, mut fb) = (f(a)?, f(b)?);
    while high - low > within {
        if fa < fb {
            (high, b, fb) = (b, a, fa);
            a = high - golden * (high - low);
            fa = f(a)?;
        } else {
            (low, a, fa) = (a, b, fb);
            b = low + golden * (high - low);
            fb = f(b)?;
        }
    }
    Ok((low + high) / 2.0)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::ct::{ImageGrid, ParallelBeam, Photons, RayTransform};
    use crate::phantom::{Contrast, shepp_logan};
    use crate::reconstruct::Fbp;

    fn beam(views: usize, arc: f64, center: f64) -> ParallelBeam {
        let angles = (0..views).map(|i| -0.7 + arc * i as f64 / views as f64).collect();
        ParallelBeam::new(angles, 150, 2.0).unwrap().with_offset(center_to_offset(center, 150, 2.0))
    }

    #[test]
    fn centres_are_found_in_noisy_sinograms() {
        for (views, arc, center) in [(120, PI, 80.0), (181, PI * 181.0 / 180.0, 66.4), (240, TAU, 77.25)] {
            let beam = beam(views, arc, center);
            let clean = shepp_logan(Contrast::Modified, 100.0).scaled(0.02).project::<f32>(&beam).unwrap();
            let noisy =
                Photons { open_beam: 1e4, electronic: 0.0 }.measure(&clean, 3).unwrap().line_integrals;
            let found = center_by_sinogram(&noisy, &beam.angles).unwrap();
            println!("centre {center}: found {found:.3}");
            assert!((found - center).abs() < 0.25, "{found}");
        }
    }

    #[test]
    fn images_tell_the_centre() {
        let grid = ImageGrid::new(100, 100, 2.0).unwrap();
        let (head, center) = (shepp_logan(Contrast::Modified, 90.0), 72.6);
        let parallel = beam(120, PI, center);
        let data = head.project::<f32>(&parallel).unwrap();
        let found = center_by_image(65.0, 82.0, 1.0, |c| {
            let beam = parallel.clone().with_offset(center_to_offset(c, 150, 2.0));
            Fbp::default().reconstruct(&RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu)?, &data)
        });
        let found = found.unwrap();
        assert!((found - center).abs() < 0.25, "{found}");
    }

    #[test]
    fn half_a_turn_is_asked_for() {
        let short = beam(60, 2.0, 75.0);
        let data = shepp_logan(Contrast::Modified, 100.0).project::<f32>(&short).unwrap();
        let text = center_by_sinogram(&data, &short.angles).unwrap_err().to_string();
        assert!(text.contains("60 views over 112.") && text.contains("in the image"), "{text}");
        assert!(center_by_sinogram(&data, &short.angles[1..]).is_err());
        assert!(center_by_image(3.0, 2.0, 1.0, |_| Ok(data.clone())).is_err());
    }
}
