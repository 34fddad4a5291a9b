//! Filtered back projection.

use candle_core::Tensor;
use rayon::prelude::*;
use realfft::RealFftPlanner;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::operator::ct::RayTransform;
use crate::tensor::{Buffer, Kernel, Real, launch, vector};

/// The window that tempers the ramp |f|, over x = f/cut-off in 0…1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Window {
    /// 1: the band-limited ramp of Ramachandran and Lakshminarayanan (1971), sharpest and noisiest.
    #[default]
    RamLak,
    /// sin(πx/2)/(πx/2), of Shepp and Logan (1974).
    SheppLogan,
    /// cos(πx/2).
    Cosine,
    /// .54 + .46 cos(πx).
    Hamming,
    /// .5 + .5 cos(πx).
    Hann,
}

impl Window {
    fn at(self, x: f64) -> f64 {
        use std::f64::consts::{FRAC_PI_2, PI};
        match self {
            Self::RamLak => 1.0,
            Self::SheppLogan if x == 0.0 => 1.0,
            Self::SheppLogan => (FRAC_PI_2 * x).sin() / (FRAC_PI_2 * x),
            Self::Cosine => (FRAC_PI_2 * x).cos(),
            Self::Hamming => 0.54 + 0.46 * (PI * x).cos(),
            Self::Hann => 0.5 + 0.5 * (PI * x).cos(),
        }
    }
}

/// Filtered back projection μ(x) = Σ_θ Δθ (p_θ ∗ h)(s(x)) (Kak and Slaney 1988, section 3.3), with the ramp
/// sampled in space, h(0) = 1/4τ², h(n odd) = −1/(πnτ)², so that the mean isn't lost, and data zero-padded so
/// that the convolution doesn't wrap around.
///
/// Views may lie anywhere: Δθ is half the gap between a view's neighbours modulo π; a gap of more than four times
/// the median is taken as missing data and not filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fbp {
    /// Window on the ramp.
    pub window: Window,
    /// Frequency above which nothing passes, as a part of the detector's Nyquist frequency, in (0, 1].
    pub cutoff: f64,
}

impl Default for Fbp {
    fn default() -> Self {
        Self { window: Window::RamLak, cutoff: 1.0 }
    }
}

impl Fbp {
    /// The image [batch…, height, width] in 1/mm from line integrals [batch…, views, bins].
    ///
    /// ```
    /// use std::f64::consts::PI;
    /// use candle_core::{DType, Device};
    /// use wellposed::operator::ct::{ImageGrid, ParallelBeam, RayTransform};
    /// use wellposed::{phantom::{Contrast, shepp_logan}, reconstruct::Fbp};
    /// let grid = ImageGrid::new(64, 64, 4.0)?;
    /// let beam = ParallelBeam::covering(&grid, 90, PI)?;
    /// let data = shepp_logan(Contrast::Modified, 128.0).project::<f32>(&beam)?;
    /// let transform = RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu)?;
    /// let image = Fbp::default().reconstruct(&transform, &data)?;
    /// assert!((image.get(32)?.get(32)?.to_scalar::<f32>()? - 0.2).abs() < 0.05);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where the cut-off is out of range, [`Error::NotFinite`] where the data are, a shape
    /// error where they are not in the range of the transform.
    pub fn reconstruct(&self, transform: &RayTransform, data: &Tensor) -> Result<Tensor> {
        if !(self.cutoff > 0.0 && self.cutoff <= 1.0) {
            return Err(Error::parameter(
                "cut-off",
                self.cutoff,
                "must be in (0, 1] of the Nyquist frequency",
            ));
        }
        transform.range().check("line integrals", data)?;
        vector::require_finite("line integrals", data)?;
        let geometry = transform.geometry();
        let response = self.response(geometry.bins, geometry.pitch);
        let mut filtered = Buffer::copy_of(data)?;
        launch(Ramp { bins: geometry.bins, response }, &[], &mut [&mut filtered])?;
        transform.back_project(filtered.tensor(), &view_weights(&geometry.angles))
    }

    /// The filter's real frequency response at f = 0 … Nyquist, for rows padded to a power of two of at least
    /// twice their length, divided by that length as the inverse transform wants it.
    fn response(&self, bins: usize, pitch: f64) -> Vec<f64> {
        use std::f64::consts::PI;
        let length = (2 * bins).next_power_of_two().max(4);
        let kernel = |n: usize| match n.min(length - n) {
            0 => 0.25,
            n if n % 2 == 1 => -1.0 / (PI * n as f64).powi(2),
            _ => 0.0,
        };
        let mut samples: Vec<f64> = (0..length).map(kernel).collect();
        let transform = RealFftPlanner::new().plan_fft_forward(length);
        let mut spectrum = transform.make_output_vec();
        if transform.process(&mut samples, &mut spectrum).is_err() {
            unreachable!("the vectors were made by the plan");
        }
        let nyquist = (length / 2) as f64;
        let window = |k: usize| {
            let x = k as f64 / nyquist / self.cutoff;
            if x > 1.0 { 0.0 } else { self.window.at(x) }
        };
        spectrum.iter().enumerate().map(|(k, h)| h.re * window(k) / (pitch * length as f64)).collect()
    }
}

/// Convolves rows of `bins` elements in place with the filter of this frequency response.
struct Ramp {
    bins: usize,
    response: Vec<f64>,
}

impl Kernel for Ramp {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let length = 2 * (self.response.len() - 1);
        let mut planner = RealFftPlanner::<T>::new();
        let (forward, inverse) = (planner.plan_fft_forward(length), planner.plan_fft_inverse(length));
        let response: Vec<T> = self.response.iter().map(|h| T::of(*h)).collect();
        let buffers = || {
            let scratch = forward.get_scratch_len().max(inverse.get_scratch_len());
            (forward.make_input_vec(), forward.make_output_vec(), vec![T::zero().into(); scratch])
        };
        outputs[0]
            .par_chunks_mut(self.bins)
            .try_for_each_init(buffers, |(line, spectrum, scratch), row| {
                line[..row.len()].copy_from_slice(row);
                line[row.len()..].fill(T::zero());
                forward.process_with_scratch(line, spectrum, scratch)?;
                spectrum.iter_mut().zip(&response).for_each(|(s, h)| *s = s.scale(*h));
                inverse.process_with_scratch(spectrum, line, scratch)?;
                row.copy_from_slice(&line[..row.len()]);
                Ok(())
            })
            .map_err(|e: realfft::FftError| Error::Unsupported(format!("filtering of projections: {e}")))
    }
}

/// Δθ of each view: half the gap between its neighbours modulo π. See [`Fbp`].
fn view_weights(angles: &[f64]) -> Vec<f64> {
    use std::f64::consts::PI;
    let folded: Vec<f64> = angles.iter().map(|a| a.rem_euclid(PI)).collect();
    let mut order: Vec<usize> = (0..angles.len()).collect();
    order.sort_by(|a, b| folded[*a].total_cmp(&folded[*b]));
    let n = order.len();
    // gaps[i] lies after view order[i].
    let mut gaps: Vec<f64> = (0..n)
        .map(|i| (folded[order[(i + 1) % n]] - folded[order[i]] + if i + 1 == n { PI } else { 0.0 }).max(0.0))
        .collect();
    let mut sorted: Vec<f64> = gaps.iter().copied().filter(|g| *g > 1e-9).collect();
    sorted.sort_by(f64::total_cmp);
    let typical = sorted.get(sorted.len() / 2).copied().unwrap_or(PI);
    // Few views are all there is, whatever the gaps; otherwise a wide gap is an arc that was not measured.
    if n > 4 {
        gaps.iter_mut().filter(|g| **g > 4.0 * typical).for_each(|g| *g = typical);
    }
    let mut weights = vec![0.0; n];
    for i in 0..n {
        weights[order[i]] += gaps[i] / 2.0;
        weights[order[(i + 1) % n]] += gaps[i] / 2.0;
    }
    weights
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use candle_core::{DType, Device};

    use super::*;
    use crate::metric::psnr;
    use crate::operator::ct::{ImageGrid, ParallelBeam};
    use crate::phantom::{Contrast, shepp_logan};

    #[test]
    fn weights_share_the_half_turn() {
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        let even: Vec<f64> = (0..10).map(|i| PI * f64::from(i) / 10.0).collect();
        assert!(close(&view_weights(&even), &[PI / 10.0; 10]));
        let full: Vec<f64> = (0..20).map(|i| PI * f64::from(i) / 10.0).collect();
        assert!((view_weights(&full).iter().sum::<f64>() - PI).abs() < 1e-12);
        let limited: Vec<f64> = (0..60).map(|i| f64::from(i).to_radians()).collect();
        assert!(close(&view_weights(&limited), &[1f64.to_radians(); 60]));
        assert!(close(&view_weights(&[0.3]), &[PI]));
    }

    fn quality(window: Window, pitch: f64) -> f64 {
        let grid = ImageGrid::new(256, 256, 1.0).unwrap();
        let angles = (0..180).map(|i| PI * f64::from(i) / 180.0).collect();
        let beam = ParallelBeam::new(angles, (367.0 / pitch) as usize, pitch).unwrap();
        let head = shepp_logan(Contrast::Modified, 128.0);
        let transform = RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu).unwrap();
        let data = head.project::<f32>(&beam).unwrap();
        let image = Fbp { window, cutoff: 1.0 }.reconstruct(&transform, &data).unwrap();
        psnr(&image, &head.picture::<f32>(&grid, 8).unwrap(), 1.0).unwrap()
    }

    #[test]
    fn reconstructs_the_head() {
        use Window::*;
        let found = [RamLak, SheppLogan, Cosine, Hamming, Hann].map(|w| quality(w, 1.0));
        println!("PSNR by window: {found:.2?}; bins of half a pixel {:.2}", quality(RamLak, 0.5));
        assert!(found[0] >= 32.5, "{found:?}");
        assert!(found.windows(2).all(|w| w[0] > w[1]) && found[4] > 28.0, "{found:?}");
        assert!(quality(RamLak, 0.5) > 31.0);
    }

    #[test]
    fn a_cutoff_out_of_range_is_refused() {
        let grid = ImageGrid::new(8, 8, 1.0).unwrap();
        let beam = ParallelBeam::covering(&grid, 4, PI).unwrap();
        let transform = RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu).unwrap();
        let data = transform.range().zeros(&[]).unwrap();
        let fbp = |cutoff| Fbp { cutoff, ..Fbp::default() }.reconstruct(&transform, &data);
        assert!(fbp(0.0).is_err() && fbp(1.1).is_err() && fbp(f64::NAN).is_err() && fbp(0.5).is_ok());
    }
}
