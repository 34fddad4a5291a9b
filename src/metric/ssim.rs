//! Structural similarity.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::metric::{Slices, check_pair};
use crate::tensor::{Kernel, Real, launch};

/// The averaging window of [`Ssim`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Window {
    /// A square of equal weights with this odd side, in pixels.
    Uniform(usize),
    /// A normalised Gaussian of this standard deviation in pixels, cut at ⌊3.5 σ + ½⌋ pixels.
    Gaussian(f64),
}

/// Mean structural similarity (Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13): over all windows that lie
/// inside a slice, the mean of
///
/// (2 μₓμᵣ + C₁)(2 σₓᵣ + C₂) / ((μₓ² + μᵣ² + C₁)(σₓ² + σᵣ² + C₂)), C₁ = (k₁L)², C₂ = (k₂L)².
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::metric::Ssim;
/// let x = Tensor::rand(0f32, 1., (2, 16, 16), &Device::Cpu)?;
/// assert!(Ssim::scikit_image().slices(&x, &x, 1.0)?.iter().all(|s| (s - 1.0).abs() < 1e-12));
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ssim {
    /// Averaging window.
    pub window: Window,
    /// k₁ of the stabilising constant C₁.
    pub k1: f64,
    /// k₂ of the stabilising constant C₂.
    pub k2: f64,
    /// Divides covariances by N − 1 instead of N, the number of pixels of the window.
    pub sample_covariance: bool,
}

impl Ssim {
    /// The default of scikit-image's `structural_similarity`: 7 × 7 equal weights, sample covariance.
    pub fn scikit_image() -> Self {
        Self { window: Window::Uniform(7), k1: 0.01, k2: 0.03, sample_covariance: true }
    }

    /// The original of Wang et al.: Gaussian weights, σ = 1.5 pixels, population covariance. It is scikit-image's
    /// with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`.
    pub fn gaussian() -> Self {
        Self { window: Window::Gaussian(1.5), sample_covariance: false, ..Self::scikit_image() }
    }

    /// fastMRI's SSIM of a magnitude volume [slices, height, width]: scikit-image's, with the volume's maximum
    /// of the reference as data range, averaged over the slices.
    ///
    /// # Errors
    /// As [`Ssim::slices`].
    pub fn fast_mri(x: &Tensor, reference: &Tensor) -> Result<f64> {
        Self::scikit_image().mean(x, reference, super::maximum(reference)?)
    }

    /// The mean over all slices of [slices…, height, width].
    ///
    /// # Errors
    /// As [`Ssim::slices`].
    pub fn mean(&self, x: &Tensor, reference: &Tensor, data_range: f64) -> Result<f64> {
        let slices = self.slices(x, reference, data_range)?;
        Ok(slices.iter().sum::<f64>() / slices.len() as f64)
    }

    /// One value a slice of [slices…, height, width].
    ///
    /// # Errors
    /// Different shapes or element types, values that are not finite, a data range that is not positive, slices
    /// smaller than the window, an even or empty window.
    pub fn slices(&self, x: &Tensor, reference: &Tensor, data_range: f64) -> Result<Vec<f64>> {
        let shape = check_pair(x, reference, data_range)?;
        let weights = self.weights()?;
        let least = weights.len();
        if shape.height < least || shape.width < least {
            return Err(Error::shape("SSIM", format!("slices of at least {least} × {least}"), x.dims()));
        }
        let pixels = (least * least) as f64;
        let job = Similarity {
            shape,
            weights,
            scale: if self.sample_covariance { pixels / (pixels - 1.0) } else { 1.0 },
            c1: (self.k1 * data_range).powi(2),
            c2: (self.k2 * data_range).powi(2),
        };
        launch(job, &[x, reference], &mut [])
    }

    /// The window is the outer product of these weights with themselves.
    fn weights(&self) -> Result<Vec<f64>> {
        match self.window {
            Window::Uniform(side) if side >= 3 && side % 2 == 1 => Ok(vec![1.0 / side as f64; side]),
            Window::Uniform(side) => {
                Err(Error::parameter("SSIM window side", side, "must be odd, and 3 or more"))
            }
            Window::Gaussian(sigma) if sigma > 0.0 && sigma < 1e3 => {
                let radius = (3.5 * sigma + 0.5).floor();
                let steps = -(radius as i64)..=radius as i64;
                let bell: Vec<f64> = steps.map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
                let total: f64 = bell.iter().sum();
                Ok(bell.into_iter().map(|w| w / total).collect())
            }
            Window::Gaussian(sigma) => {
                Err(Error::parameter("SSIM window sigma", sigma, "must be in (0, 1000) pixels"))
            }
        }
    }
}

struct Similarity {
    shape: Slices,
    weights: Vec<f64>,
    scale: f64,
    c1: f64,
    c2: f64,
}

impl Kernel for Similarity {
    type Output = Vec<f64>;
    fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<Vec<f64>> {
        const ROWS: usize = 16;
        let Slices { slices, height, width } = self.shape;
        let (rows, columns) = (height + 1 - self.weights.len(), width + 1 - self.weights.len());
        let blocks = rows.div_ceil(ROWS);
        let partial: Vec<f64> = (0..slices * blocks)
            .into_par_iter()
            .map(|task| {
                let (slice, first) = (task / blocks, task % blocks * ROWS);
                let plane = |k: usize| &inputs[k][slice * height * width..][..height * width];
                let mut moments = vec![[0f64; 5]; width];
                (first..rows.min(first + ROWS))
                    .map(|row| self.row(plane(0), plane(1), row, &mut moments))
                    .sum::<f64>()
            })
            .collect();
        let windows = (rows * columns) as f64;
        Ok(partial.chunks(blocks).map(|slice| slice.iter().sum::<f64>() / windows).collect())
    }
}

impl Similarity {
    /// The sum over the windows whose first row is `row`. `moments` is scratch: for each column the weighted sums
    /// of x, r, x², r², x r down the window.
    fn row<T: Real>(&self, x: &[T], r: &[T], row: usize, moments: &mut [[f64; 5]]) -> f64 {
        let width = self.shape.width;
        moments.fill([0.0; 5]);
        for (i, &weight) in self.weights.iter().enumerate() {
            let start = (row + i) * width;
            let pixels = x[start..start + width].iter().zip(&r[start..start + width]);
            for (sum, (x, r)) in moments.iter_mut().zip(pixels) {
                let (x, r) = (x.as_f64(), r.as_f64());
                let (wx, wr) = (weight * x, weight * r);
                let terms = [wx, wr, wx * x, wr * r, wx * r];
                sum.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
        }
        let mut total = 0.0;
        for window in moments.windows(self.weights.len()) {
            let mut mean = [0f64; 5];
            for (sum, weight) in window.iter().zip(&self.weights) {
                mean.iter_mut().zip(sum).for_each(|(mean, sum)| *mean += weight * sum);
            }
            total += self.index(mean);
        }
        total
    }

    fn index(&self, [x, r, xx, rr, xr]: [f64; 5]) -> f64 {
        let (vx, vr, cov) = (self.scale * (xx - x * x), self.scale * (rr - r * r), self.scale * (xr - x * r));
        (2.0 * x * r + self.c1) * (2.0 * cov + self.c2) / ((x * x + r * r + self.c1) * (vx + vr + self.c2))
    }
}
