//! Reconstruction of magnetic-resonance images from k-space.
//!
//! Coil maps come from the fully sampled centre: [`low_resolution_maps`], [`Walsh`] or [`Espirit`], those of volumes
//! through [`volume_maps`]. With them,
//! [`zero_filled`] is the adjoint, [`ConjugateGradientSense`] least squares with a small ridge, [`WaveletSense`]
//! sparse in wavelets and [`TotalVariationSense`] piecewise smooth.
//!
//! Scale. Receivers have arbitrary units, so that the weights of penalties would mean nothing. Every iterative
//! method divides the data by the 99th percentile of the zero-filled magnitude (over all slices at once), and
//! multiplies its result by the same number.

mod coils;
mod conjugate_gradient;
mod cycle_spinning;
mod discrepancy;
mod eigenmaps;
mod espirit;
mod grappa;
mod joint;
mod low_rank;
mod low_resolution;
mod noise;
mod partial_fourier;
mod region;
mod total_variation;
mod volume_maps;
mod walsh;
mod wavelet;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::observe::Solution;
use crate::operator::mri::Encoding;
use crate::tensor::{Buffer, Kernel, Real, as_complex, fft, launch, vector};

pub use coils::{Compressed, compress_coils, compress_coils_along, noise_covariance, prewhiten};
pub use conjugate_gradient::ConjugateGradientSense;
pub use discrepancy::Discrepancy;
pub use espirit::{CoilMaps, Espirit};
pub use grappa::Grappa;
pub use joint::JointMaps;
pub use low_rank::LowRankSense;
pub use low_resolution::low_resolution_maps;
pub use noise::estimate_noise;
pub use partial_fourier::PartialFourier;
pub use region::{calibration_region, sampled_points};
pub use total_variation::TotalVariationSense;
pub use volume_maps::volume_maps;
pub use walsh::Walsh;
pub use wavelet::WaveletSense;

/// The zero-filled image Aᴴ y: missing samples count as zeros, coils are combined by their maps.
///
/// # Errors
/// A shape error where the k-space is not in the range of the encoding; [`Error::NotFinite`] for NaN.
pub fn zero_filled(encoding: &impl Encoding, kspace: &Tensor) -> Result<Tensor> {
    encoding.range().check("k-space", kspace)?;
    vector::require_finite("k-space", kspace)?;
    encoding.adjoint(kspace)
}

/// The root of the sum of squares of the coil images, √Σ_c |F⁻¹ y_c|², real [batch…, y, x], of k-space
/// [batch…, coil, ky, kx, 2]. It needs no maps.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// let kspace = Tensor::ones((3, 8, 8, 2), DType::F32, &Device::Cpu)?;
/// let image = wellposed::reconstruct::mri::root_sum_of_squares(&kspace)?;
/// assert!((image.get(4)?.get(4)?.to_scalar::<f32>()? - 8.0 * 6f32.sqrt()).abs() < 1e-4);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] where there is no coil axis, [`Error::NotFinite`] for NaN.
pub fn root_sum_of_squares(kspace: &Tensor) -> Result<Tensor> {
    struct Combine {
        coils: usize,
        item: usize,
    }
    impl Kernel for Combine {
        type Output = ();
        fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let images = as_complex(inputs[0]).chunks_exact(self.coils * self.item);
            for (images, out) in images.zip(outputs[0].chunks_exact_mut(self.item)) {
                out.fill(T::zero());
                for image in images.chunks_exact(self.item) {
                    out.iter_mut().zip(image).for_each(|(o, v)| *o += v.norm_sqr());
                }
                out.iter_mut().for_each(|o| *o = o.sqrt());
            }
            Ok(())
        }
    }
    let dims = kspace.dims();
    if dims.len() < 4 {
        return Err(Error::shape("k-space", "[batch…, coil, ky, kx, 2]", dims));
    }
    vector::require_finite("k-space", kspace)?;
    let mut images = Buffer::zeros(dims, kspace.dtype(), kspace.device())?;
    fft::inverse(kspace, 2, &mut images)?;
    let [batch @ .., coils, height, width, _] = dims else { unreachable!("rank was checked") };
    let shape = [batch, &[*height, *width]].concat();
    let mut out = Buffer::zeros(&shape, kspace.dtype(), kspace.device())?;
    launch(Combine { coils: *coils, item: height * width }, &[images.tensor()], &mut [&mut out])?;
    Ok(out.freeze())
}

/// Data in units in which the 99th percentile of the zero-filled magnitude is 1.
struct Scaled {
    kspace: Tensor,
    /// Aᴴ y in the same units.
    back: Tensor,
    unit: f64,
}

impl Scaled {
    fn new(encoding: &impl Encoding, kspace: &Tensor) -> Result<Self> {
        let back = zero_filled(encoding, kspace)?;
        let unit = percentile(&back, 0.99)?;
        let times = |x: &Tensor| -> Result<Tensor> {
            let mut out = Buffer::copy_of(x)?;
            vector::accumulate(1.0 / unit, &[], &mut out)?;
            Ok(out.freeze())
        };
        Ok(Self { kspace: times(kspace)?, back: times(&back)?, unit })
    }

    /// The solution in the units of the data, and zero where no coil sees anything: there it is only what the
    /// penalty made up.
    fn undo(&self, encoding: &impl Encoding, solution: Solution) -> Result<Solution> {
        let mut value = Buffer::copy_of(&solution.value)?;
        let support = encoding.support()?;
        vector::multiply(&support, vector::Weights::RealOnComplex, &solution.value, &mut value)?;
        vector::accumulate(self.unit, &[], &mut value)?;
        Ok(Solution { value: value.freeze(), ..solution })
    }
}

/// A quantile of the magnitudes of a complex array; 1 where that is zero.
fn percentile(x: &Tensor, part: f64) -> Result<f64> {
    struct Magnitudes;
    impl Kernel for Magnitudes {
        type Output = Vec<f64>;
        fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<Vec<f64>> {
            Ok(as_complex(inputs[0]).iter().map(|v| v.re.as_f64().hypot(v.im.as_f64())).collect())
        }
    }
    let mut sizes = launch(Magnitudes, &[x], &mut [])?;
    if sizes.is_empty() {
        return Ok(1.0);
    }
    let index = ((sizes.len() - 1) as f64 * part).round() as usize;
    let value = *sizes.select_nth_unstable_by(index, f64::total_cmp).1;
    Ok(if value > 0.0 { value } else { 1.0 })
}

#[cfg(test)]
mod tests;
