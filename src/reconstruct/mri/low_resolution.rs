//! Coil maps as ratios of low-resolution images.

use candle_core::Tensor;
use num_complex::Complex;
use rayon::prelude::*;

use super::region::first;
use crate::error::{Error, Result};
use crate::tensor::fft::{Direction, Origin, Plan};
use crate::tensor::{Buffer, Kernel, Real, as_complex, as_complex_mut, launch, vector};

/// Coil maps S_c = I_c / √Σ|I|² from images I_c of the central `region` [height, width] of `kspace`
/// [batch…, coil, ky, kx, 2] (McKenzie et al. 2002). The maps have the shape of the k-space.
///
/// Robust and quick. No window fades the region out: of 10² samples of a 16-coil brain a Hann window leaves so little
/// that wavelets reach 36.8 dB instead of 39.4 dB, with a dark spot where the blurred images cancel. They carry the phase of the image, so that images are real and not negative where they
/// are smooth; outside the object they are noise of size 1, which [`super::Espirit`] would cut away.
///
/// # Errors
/// [`Error::Shape`] where the k-space has no coil axis, [`Error::Parameter`] where the region is empty or larger
/// than k-space, [`Error::NotFinite`] for NaN.
pub fn low_resolution_maps(kspace: &Tensor, region: [usize; 2]) -> Result<Tensor> {
    let [.., coils, height, width, 2] = *kspace.dims() else {
        return Err(Error::shape("k-space", "[batch…, coil, ky, kx, 2]", kspace.dims()));
    };
    let shape = [height, width];
    if (0..2).any(|i| region[i] == 0 || region[i] > shape[i]) {
        let reason = format!("must be from 1×1 to {height}×{width}; is the centre of k-space sampled?");
        return Err(Error::parameter("calibration region", format!("{region:?}"), reason));
    }
    vector::require_finite("k-space", kspace)?;
    let mut maps = Buffer::zeros(kspace.dims(), kspace.dtype(), kspace.device())?;
    launch(Ratios { coils, shape, region }, &[kspace], &mut [&mut maps])?;
    Ok(maps.freeze())
}

struct Ratios {
    coils: usize,
    shape: [usize; 2],
    region: [usize; 2],
}

impl Kernel for Ratios {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let item = self.shape[0] * self.shape[1];
        let (kspace, maps) = (as_complex(inputs[0]), as_complex_mut(outputs[0]));
        images(kspace, self.shape, self.region, maps)?;
        maps.par_chunks_mut(self.coils * item).for_each(|maps| {
            let mut sizes = vec![T::zero(); item];
            for map in maps.chunks_exact(item) {
                sizes.iter_mut().zip(map).for_each(|(s, v)| *s += v.norm_sqr());
            }
            sizes.iter_mut().for_each(|s| *s = if *s > T::zero() { s.sqrt().recip() } else { T::zero() });
            for map in maps.chunks_exact_mut(item) {
                map.iter_mut().zip(&sizes).for_each(|(v, s)| *v = v.scale(*s));
            }
        });
        Ok(())
    }
}

/// Coil images of the central region of k-space.
pub(super) fn images<T: Real>(
    kspace: &[Complex<T>],
    shape: [usize; 2],
    region: [usize; 2],
    images: &mut [Complex<T>],
) -> Result<()> {
    let [height, width] = shape;
    let (top, left) = (first(height, region[0]), first(width, region[1]));
    let plan = Plan::new(&shape, Origin::Centre)?;
    let item = height * width;
    images.par_chunks_mut(item).zip(kspace.par_chunks(item)).for_each(|(image, kspace)| {
        image.fill(Complex::new(T::zero(), T::zero()));
        for y in top..top + region[0] {
            let row = y * width + left..y * width + left + region[1];
            image[row.clone()].copy_from_slice(&kspace[row]);
        }
        plan.run_in_place(Direction::Inverse, image);
    });
    Ok(())
}
