//! Adaptive-combination coil maps.

use candle_core::Tensor;
use num_complex::Complex;

use super::eigenmaps::{MatrixField, dominant};
use super::low_resolution::images;
use crate::error::{Error, Result};
use crate::tensor::{Buffer, Kernel, Real, as_complex, as_complex_mut, launch, vector};

/// Coil maps as dominant eigenvectors of the local covariance of coil images (Walsh, Gmitro and Marcellin
/// 2000), the noise being white.
#[derive(Clone, Copy, Debug)]
pub struct Walsh {
    /// Points on each side over which the covariance is averaged: the block has side 2 · reach + 1.
    pub reach: usize,
}

impl Default for Walsh {
    fn default() -> Self {
        Self { reach: 3 }
    }
}

impl Walsh {
    /// Maps with Σ|S|² = 1, of the shape of `kspace` [batch…, coil, ky, kx, 2], from images of its central
    /// `region` [height, width].
    ///
    /// # Errors
    /// [`Error::Shape`] where the k-space has no coil axis, [`Error::Parameter`] where the region is empty or
    /// larger than k-space, [`Error::NotFinite`] for NaN.
    pub fn maps(&self, kspace: &Tensor, region: [usize; 2]) -> Result<Tensor> {
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
        launch(Adapt { coils, shape, region, reach: self.reach }, &[kspace], &mut [&mut maps])?;
        Ok(maps.freeze())
    }
}

struct Adapt {
    coils: usize,
    shape: [usize; 2],
    region: [usize; 2],
    reach: usize,
}

impl Kernel for Adapt {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let item = self.shape[0] * self.shape[1];
        let slice = self.coils * item;
        let mut coil_images = vec![Complex::new(T::zero(), T::zero()); slice];
        let mut values = vec![T::zero(); item];
        let slices = as_complex(inputs[0]).chunks_exact(slice);
        for (kspace, maps) in slices.zip(as_complex_mut(outputs[0]).chunks_exact_mut(slice)) {
            images(kspace, self.shape, self.region, &mut coil_images)?;
            let largest = coil_images.iter().map(|v| v.norm_sqr()).fold(T::zero(), T::max).sqrt();
            if largest == T::zero() {
                continue;
            }
            coil_images.iter_mut().for_each(|v| *v = v.unscale(largest));
            let covariance = Covariance { images: &coil_images, shape: self.shape, reach: self.reach };
            let reference = covariance.strongest(self.coils);
            dominant(&covariance, &reference, self.shape[1], maps, &mut values);
        }
        Ok(())
    }
}

/// The covariance of coil images [coil, y, x] over blocks.
struct Covariance<'a, T: Real> {
    images: &'a [Complex<T>],
    shape: [usize; 2],
    reach: usize,
}

impl<T: Real> Covariance<'_, T> {
    /// The unit vector of the coil with the most energy: maps are positive there.
    fn strongest(&self, coils: usize) -> Vec<Complex<T>> {
        let item = self.shape[0] * self.shape[1];
        let energy = |coil: usize| {
            self.images[coil * item..][..item].iter().map(|v| v.norm_sqr().as_f64()).sum::<f64>()
        };
        let best = (0..coils).max_by(|a, b| energy(*a).total_cmp(&energy(*b))).unwrap_or(0);
        (0..coils).map(|c| Complex::new(if c == best { T::one() } else { T::zero() }, T::zero())).collect()
    }
}

impl<T: Real> MatrixField<T> for Covariance<'_, T> {
    fn row(&self, y: usize, pitch: usize, re: &mut [T], im: &mut [T]) {
        let [height, width] = self.shape;
        let item = height * width;
        let coils = self.images.len() / item;
        let rows = y.saturating_sub(self.reach)..(y + self.reach + 1).min(height);
        let mut sums = vec![Complex::new(T::zero(), T::zero()); width];
        let pairs = (0..coils).flat_map(|c| (0..=c).map(move |d| (c, d)));
        for ((c, d), (re, im)) in pairs.zip(re.chunks_mut(pitch).zip(im.chunks_mut(pitch))) {
            sums.fill(Complex::new(T::zero(), T::zero()));
            for row in rows.clone() {
                let of = |coil: usize| &self.images[coil * item + row * width..][..width];
                sums.iter_mut().zip(of(c).iter().zip(of(d))).for_each(|(s, (a, b))| *s += *a * b.conj());
            }
            for x in 0..width {
                let block = &sums[x.saturating_sub(self.reach)..(x + self.reach + 1).min(width)];
                let sum = block.iter().fold(Complex::new(T::zero(), T::zero()), |a, b| a + *b);
                (re[x], im[x]) = (sum.re, sum.im);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::mri::birdcage;
    use crate::tensor::fft;

    #[test]
    fn finds_simulated_maps_of_a_uniform_object() {
        let truth = birdcage(5, [48, 40], 3, DType::F32, &Device::Cpu).unwrap();
        let mut kspace = Buffer::copy_of(&truth).unwrap();
        fft::forward(&truth, 2, &mut kspace).unwrap();
        let maps = Walsh::default().maps(kspace.tensor(), [40, 40]).unwrap();
        let (truth, maps) = (f32::to_vec(&truth).unwrap(), f32::to_vec(&maps).unwrap());
        let (truth, maps) = (as_complex(&truth), as_complex(&maps));
        for (y, x) in [(24, 20), (12, 30), (36, 9)] {
            let at = |c: usize| c * 48 * 40 + y * 40 + x;
            let overlap: Complex<f32> = (0..5).map(|c| truth[at(c)].conj() * maps[at(c)]).sum();
            assert!((overlap.norm() - 1.0).abs() < 0.01, "{overlap}");
        }
    }
}
