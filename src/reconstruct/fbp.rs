//! Filtered back projection.

use std::f64::consts::PI;

use candle_core::Tensor;

use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::operator::ct::RayTransform;
use crate::reconstruct::Window;
use crate::reconstruct::ramp::Ramp;
use crate::tensor::{Buffer, launch, vector};

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
    /// [`crate::error::Error::Parameter`] where the cut-off is out of range, [`crate::error::Error::NotFinite`] where the data are, a shape
    /// error where they are not in the range of the transform.
    pub fn reconstruct(&self, transform: &RayTransform, data: &Tensor) -> Result<Tensor> {
        transform.range().check("line integrals", data)?;
        vector::require_finite("line integrals", data)?;
        let geometry = transform.geometry();
        let ramp = Ramp::new(self, geometry.bins, geometry.pitch, |_| 1.0)?;
        let mut filtered = Buffer::copy_of(data)?;
        launch(ramp, &[], &mut [&mut filtered])?;
        transform.back_project(filtered.tensor(), &view_weights(&geometry.angles, PI))
    }
}

/// Δθ of each view: half the gap between its neighbours modulo `period`. See [`Fbp`].
pub(super) fn view_weights(angles: &[f64], period: f64) -> Vec<f64> {
    let folded: Vec<f64> = angles.iter().map(|a| a.rem_euclid(period)).collect();
    let mut order: Vec<usize> = (0..angles.len()).collect();
    order.sort_by(|a, b| folded[*a].total_cmp(&folded[*b]));
    let n = order.len();
    // gaps[i] lies after view order[i].
    let mut gaps: Vec<f64> = (0..n)
        .map(|i| {
            (folded[order[(i + 1) % n]] - folded[order[i]] + if i + 1 == n { period } else { 0.0 }).max(0.0)
        })
        .collect();
    let mut sorted: Vec<f64> = gaps.iter().copied().filter(|g| *g > 1e-9).collect();
    sorted.sort_by(f64::total_cmp);
    let typical = sorted.get(sorted.len() / 2).copied().unwrap_or(period);
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
    use candle_core::{DType, Device};

    use super::*;
    use crate::metric::psnr;
    use crate::operator::ct::{ImageGrid, ParallelBeam};
    use crate::phantom::{Contrast, shepp_logan};

    #[test]
    fn weights_share_the_half_turn() {
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        let even: Vec<f64> = (0..10).map(|i| PI * f64::from(i) / 10.0).collect();
        assert!(close(&view_weights(&even, PI), &[PI / 10.0; 10]));
        let full: Vec<f64> = (0..20).map(|i| PI * f64::from(i) / 10.0).collect();
        assert!((view_weights(&full, PI).iter().sum::<f64>() - PI).abs() < 1e-12);
        let limited: Vec<f64> = (0..60).map(|i| f64::from(i).to_radians()).collect();
        assert!(close(&view_weights(&limited, PI), &[1f64.to_radians(); 60]));
        assert!(close(&view_weights(&[0.3], PI), &[PI]));
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
