//! What was sampled, and which part of it calibrates coils.

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::tensor::{Kernel, Real, as_complex, launch};

/// The mask [ky, kx] of the points at which any coil of any slice of `kspace` [batch…, coil, ky, kx, 2] is not
/// zero: for files that don't say what was sampled.
///
/// # Errors
/// [`Error::Shape`] where the k-space has no coil axis.
pub fn sampled_points(kspace: &Tensor) -> Result<Tensor> {
    struct Seen(usize);
    impl Kernel for Seen {
        type Output = Vec<f32>;
        fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<Vec<f32>> {
            let mut seen = vec![0.0; self.0];
            for item in as_complex(inputs[0]).chunks_exact(self.0) {
                seen.iter_mut()
                    .zip(item)
                    .filter(|(_, v)| v.norm_sqr() > T::zero())
                    .for_each(|(s, _)| *s = 1.0);
            }
            Ok(seen)
        }
    }
    let [_, .., height, width, 2] = kspace.dims() else {
        return Err(Error::shape("k-space", "[batch…, coil, ky, kx, 2]", kspace.dims()));
    };
    let seen = launch(Seen(height * width), &[kspace], &mut [])?;
    Ok(Tensor::from_vec(seen, (*height, *width), &Device::Cpu)?)
}

/// Height and width of the largest fully sampled rectangle about the centre of `mask` [ky, kx] with at most
/// `side`² samples: the largest square, and what it can grow by along either axis. So masks of lines, which
/// have few of them in the centre, give long rectangles with as many samples.
///
/// ```
/// use wellposed::{operator::mri::Sampling, reconstruct::mri::calibration_region};
/// let mask = Sampling::default().draw([64, 100])?;
/// let [height, width] = calibration_region(&mask, 24)?;
/// assert!(height >= 48 && width >= 8);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] unless the mask is [ky, kx].
pub fn calibration_region(mask: &Tensor, side: usize) -> Result<[usize; 2]> {
    let Ok((height, width)) = mask.dims2() else {
        return Err(Error::shape("sampling mask", "[ky, kx]", mask.dims()));
    };
    let values = f64::to_vec(mask)?;
    let full = |h: usize, w: usize| {
        let (top, left) = (first(height, h), first(width, w));
        (top..top + h).all(|y| (left..left + w).all(|x| values[y * width + x] != 0.0))
    };
    let most = side.saturating_mul(side);
    let square = (0..=side.min(height).min(width)).take_while(|s| full(*s, *s)).last().unwrap_or(0);
    let h = (square..=height).take_while(|h| h * square <= most && full(*h, square)).last().unwrap_or(square);
    let w = (square..=width).take_while(|w| w * h <= most && full(h, *w)).last().unwrap_or(square);
    Ok([h, w])
}

/// Where a block of `part` of `whole` samples starts so that its own centre ⌊part/2⌋ is the centre.
pub(super) fn first(whole: usize, part: usize) -> usize {
    whole / 2 - part / 2
}
