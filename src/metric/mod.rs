//! Image quality metrics: PSNR, SSIM, NMSE, relative ℓ2, RMSE, MAE, per slice and per volume.
//!
//! Arrays are real, [slices…, height, width], f32 or f64; sums are in double precision. The data range (the
//! L of PSNR and SSIM) is always an argument: 2000 HU for a CT window of −1000…1000 HU, the reference's
//! maximum over the volume for MR magnitudes, as fastMRI has it.

mod ssim;

use candle_core::Tensor;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::tensor::{Kernel, Real, launch, vector};

pub use ssim::{Ssim, Window};

/// The scores of one slice, or of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Peak signal-to-noise ratio, 10 log₁₀(L² / MSE), in dB; infinite (JSON: null) for equal arrays.
    pub psnr: f64,
    /// Structural similarity, as scikit-image's default; for a volume the mean over its slices.
    pub ssim: f64,
    /// ‖x − r‖² / ‖r‖².
    pub nmse: f64,
    /// ‖x − r‖ / ‖r‖.
    pub relative_l2: f64,
    /// Root mean square error, in the units of the arrays.
    pub rmse: f64,
    /// Mean absolute error, in the units of the arrays.
    pub mae: f64,
}

/// How a volume differs from a reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The data range L that PSNR and SSIM used.
    pub data_range: f64,
    /// Over the whole volume.
    pub volume: Scores,
    /// Slice by slice.
    pub slices: Vec<Scores>,
}

/// All scores of `x` against `reference`, arrays of shape [slices…, height, width].
///
/// With `data_range` = the reference's [`maximum`], PSNR, NMSE and SSIM of the volume are fastMRI's.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::metric::compare;
/// let reference = Tensor::arange(0f32, 256., &Device::Cpu)?.reshape((1, 16, 16))?;
/// let x = (&reference + 1.0)?;
/// let comparison = compare(&x, &reference, 255.0)?;
/// assert!((comparison.volume.psnr - 20.0 * 255f64.log10()).abs() < 1e-9);
/// assert_eq!(comparison.volume.rmse, 1.0);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// Different shapes or element types, values that are not finite, a data range that is not positive, a
/// slice smaller than SSIM's 7 × 7 window.
pub fn compare(x: &Tensor, reference: &Tensor, data_range: f64) -> Result<Comparison> {
    let shape = check_pair(x, reference, data_range)?;
    let similarity = Ssim::scikit_image().slices(x, reference, data_range)?;
    let parts = sums(x, reference, shape.slices)?;
    let total = parts.iter().fold(Sums::default(), |a, b| a.plus(b));
    let mean = similarity.iter().sum::<f64>() / similarity.len() as f64;
    let slices = parts.iter().zip(&similarity).map(|(part, &s)| part.scores(s, data_range)).collect();
    Ok(Comparison { data_range, volume: total.scores(mean, data_range), slices })
}

/// Peak signal-to-noise ratio of all elements, 10 log₁₀(L² / MSE) with L = `data_range`, in dB.
///
/// # Errors
/// As [`compare`].
pub fn psnr(x: &Tensor, reference: &Tensor, data_range: f64) -> Result<f64> {
    check_pair(x, reference, data_range)?;
    Ok(sums(x, reference, 1)?[0].scores(0.0, data_range).psnr)
}

/// ‖x − r‖ / ‖r‖ over all elements.
///
/// # Errors
/// As [`compare`].
pub fn relative_l2(x: &Tensor, reference: &Tensor) -> Result<f64> {
    check_pair(x, reference, 1.0)?;
    Ok(sums(x, reference, 1)?[0].scores(0.0, 1.0).relative_l2)
}

/// The largest element: fastMRI's data range when taken over the reference volume.
pub fn maximum(x: &Tensor) -> Result<f64> {
    Ok(extrema(x)?.1)
}

/// The smallest and the largest element.
///
/// # Errors
/// [`Error::Shape`] for an empty array.
pub fn extrema(x: &Tensor) -> Result<(f64, f64)> {
    struct Extrema;
    impl Kernel for Extrema {
        type Output = (f64, f64);
        fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<(f64, f64)> {
            let start = (f64::INFINITY, f64::NEG_INFINITY);
            Ok(inputs[0].iter().fold(start, |(low, high), v| (low.min(v.as_f64()), high.max(v.as_f64()))))
        }
    }
    if x.elem_count() == 0 {
        return Err(Error::shape("extrema", "at least one element", x.dims()));
    }
    launch(Extrema, &[x], &mut [])
}

/// The axes of a checked pair of arrays, with leading axes flattened.
#[derive(Clone, Copy)]
struct Slices {
    slices: usize,
    height: usize,
    width: usize,
}

fn check_pair(x: &Tensor, reference: &Tensor, data_range: f64) -> Result<Slices> {
    if x.dims() != reference.dims() {
        return Err(Error::shape(
            "compared array",
            format!("{:?}, that of the reference", reference.dims()),
            x.dims(),
        ));
    }
    let &[ref batch @ .., height, width] = x.dims() else {
        return Err(Error::shape("compared array", "[slices…, height, width]", x.dims()));
    };
    if x.elem_count() == 0 {
        return Err(Error::shape("compared array", "at least one element", x.dims()));
    }
    if !(data_range > 0.0 && data_range.is_finite()) {
        return Err(Error::parameter("data range", data_range, "must be positive and finite"));
    }
    vector::require_finite("compared array", x)?;
    vector::require_finite("reference", reference)?;
    Ok(Slices { slices: batch.iter().product(), height, width })
}

/// Sums over the elements of a slice, from which every point-wise score follows.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: f64,
    squared_error: f64,
    absolute_error: f64,
    squared_reference: f64,
}

impl Sums {
    fn plus(&self, other: &Self) -> Self {
        Self {
            count: self.count + other.count,
            squared_error: self.squared_error + other.squared_error,
            absolute_error: self.absolute_error + other.absolute_error,
            squared_reference: self.squared_reference + other.squared_reference,
        }
    }

    fn scores(&self, ssim: f64, data_range: f64) -> Scores {
        let mean_square = self.squared_error / self.count;
        let nmse = if self.squared_error == 0.0 { 0.0 } else { self.squared_error / self.squared_reference };
        Scores {
            psnr: 10.0 * (data_range * data_range / mean_square).log10(),
            ssim,
            nmse,
            relative_l2: nmse.sqrt(),
            rmse: mean_square.sqrt(),
            mae: self.absolute_error / self.count,
        }
    }
}

fn sums(x: &Tensor, reference: &Tensor, items: usize) -> Result<Vec<Sums>> {
    struct Difference(usize);
    impl Kernel for Difference {
        type Output = Vec<Sums>;
        fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<Vec<Sums>> {
            let size = inputs[0].len() / self.0;
            let pairs = inputs[0].chunks(size).zip(inputs[1].chunks(size));
            Ok(pairs.map(|(x, r)| slice_sums(x, r)).collect())
        }
    }
    launch(Difference(items), &[x, reference], &mut [])
}

fn slice_sums<T: Real>(x: &[T], reference: &[T]) -> Sums {
    const LANES: usize = 8;
    let mut lanes = [[0f64; 3]; LANES];
    for (x, r) in x.chunks(LANES).zip(reference.chunks(LANES)) {
        for (lane, (x, r)) in lanes.iter_mut().zip(x.iter().zip(r)) {
            let (r, error) = (r.as_f64(), x.as_f64() - r.as_f64());
            *lane = [lane[0] + error * error, lane[1] + error.abs(), lane[2] + r * r];
        }
    }
    let total = |k: usize| lanes.iter().map(|lane| lane[k]).sum::<f64>();
    Sums {
        count: x.len() as f64,
        squared_error: total(0),
        absolute_error: total(1),
        squared_reference: total(2),
    }
}

#[cfg(test)]
mod tests;
