//! Coil maps as ratios of low-resolution images.

use candle_core::Tensor;
use num_complex::Complex;
use rayon::prelude::*;

use super::region::first;
use crate::error::{Error, Result};
use crate::tensor::fft::{Direction, Origin, Plan};
use crate::tensor::{Buffer, Kernel, Real, as_complex, as_complex_mut, launch, vector};

/// Coil maps S_c = I_c / √Σ|I|² from images I_c of the central `region` [height, width] of `kspace`
/// [batch…, coil, ky, kx, 2], faded out to its edges by a Hann window (as in McKenzie et al. 2002). The maps have
/// the shape of the k-space.
///
/// Robust and quick. They carry the phase of the image, so that images are real and not negative where they
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

/// Coil images of the central region of k-space under a Hann window.
pub(super) fn images<T: Real>(
    kspace: &[Complex<T>],
    shape: [usize; 2],
    region: [usize; 2],
    images: &mut [Complex<T>],
) -> Result<()> {
    let [height, width] = shape;
    let windows: Vec<Vec<T>> = region.iter().map(|n| hann(*n)).collect();
    let (top, left) = (first(height, region[0]), first(width, region[1]));
    let plan = Plan::new(&shape, Origin::Centre)?;
    let item = height * width;
    images.par_chunks_mut(item).zip(kspace.par_chunks(item)).for_each(|(image, kspace)| {
        image.fill(Complex::new(T::zero(), T::zero()));
        for (y, wy) in windows[0].iter().enumerate() {
            let start = (top + y) * width + left;
            let row = image[start..start + region[1]].iter_mut().zip(&kspace[start..]);
            row.zip(&windows[1]).for_each(|((o, v), wx)| *o = v.scale(*wy * *wx));
        }
        plan.run_in_place(Direction::Inverse, image);
    });
    Ok(())
}

/// cos² about index ⌊n/2⌋, positive at every index.
fn hann<T: Real>(n: usize) -> Vec<T> {
    let place = |i: usize| (i as f64 - (n / 2) as f64) / (n + 1) as f64;
    (0..n).map(|i| T::of((std::f64::consts::PI * place(i)).cos().powi(2))).collect()
}
