//! Coil maps that agree with all samples, given the image.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::{Cgls, LinearOperator};
use crate::operator::{Algebra, Compose, Diagonal, Fourier};
use crate::tensor::{Buffer, Kernel, Real, Space, as_complex, as_complex_mut, launch, vector};

/// Half of joint estimation of image and coils (JSENSE: Ying and Sheng 2007): smooth corrections of given maps, from all
/// samples and an image that was made with those maps. Image and maps take turns; a pass or two mend what a small
/// calibration region got wrong.
///
/// For each coil min_c ‖F(x (S + c)) − y‖² + μ ‖W F c‖², W(k) = (1 + |k|²/k₀²)³ with k in cycles per field of view, as the
/// Sobolev norm of Uecker et al. (2008); then Σ|S|² = 1 again where some map was not 0.
#[derive(Clone, Copy, Debug)]
pub struct JointMaps {
    /// k₀ in cycles per field of view: corrections are smoother than that.
    pub cutoff: f64,
    /// μ > 0, for images whose mean square is 1.
    pub weight: f64,
    /// Steps of conjugate gradients.
    pub iterations: usize,
}

impl Default for JointMaps {
    fn default() -> Self {
        Self { cutoff: 10.0, weight: 3e-4, iterations: 40 }
    }
}

impl JointMaps {
    /// Better maps than `maps` [slice, coil, image…, 2], given the `image` [slice, image…, 2] that was made with them of
    /// `kspace` [slice, coil, sample…, 2]. `sampling` takes an image to the samples of a single coil.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::{operator::mri::*, reconstruct::mri::JointMaps, tensor::random::Noise};
    /// let full = Tensor::ones((24, 24), DType::F64, &Device::Cpu)?;
    /// let truth = birdcage(4, [24, 24], 1, DType::F64, &Device::Cpu)?;
    /// let image = Tensor::ones((24, 24, 2), DType::F64, &Device::Cpu)?;
    /// let kspace = measure(&Sense::new(&truth, &full)?, &image, 0.0, Noise::default())?;
    /// let sampling = Arc::new(Sense::single_coil(&full, DType::F64, &Device::Cpu)?);
    /// let wrong = truth.flip(&[0])?;
    /// let better = JointMaps { weight: 1e-8, ..JointMaps::default() };
    /// let maps = better.maps(&wrong.unsqueeze(0)?, &image.unsqueeze(0)?, sampling, &kspace.unsqueeze(0)?)?;
    /// let left = (maps.get(0)? - &truth)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
    /// assert!(left < 0.1 * (wrong - truth)?.sqr()?.sum_all()?.to_scalar::<f64>()?);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where a setting is out of range; [`Error::Shape`] where the arrays don't belong together;
    /// [`Error::NotFinite`] for NaN.
    pub fn maps(
        &self,
        maps: &Tensor,
        image: &Tensor,
        sampling: Arc<dyn LinearOperator>,
        kspace: &Tensor,
    ) -> Result<Tensor> {
        for (name, value) in [("cutoff", self.cutoff), ("weight", self.weight)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::parameter(name, value, "must be positive"));
            }
        }
        let space = sampling.domain().clone();
        let &[slices] = space.check("image", image)? else {
            return Err(Error::shape("image", "[slice, image…, 2]", image.dims()));
        };
        let &[count, coils] = space.check("coil maps", maps)? else {
            return Err(Error::shape("coil maps", "[slice, coil, image…, 2]", maps.dims()));
        };
        let samples = [&[slices, coils], &sampling.range().tensor_shape(&[])[..]].concat();
        if count != slices || kspace.elem_count() != samples.iter().product::<usize>() {
            return Err(Error::shape("k-space", format!("{samples:?}, as maps and image"), kspace.dims()));
        }
        for (name, x) in [("coil maps", maps), ("image", image), ("k-space", kspace)] {
            vector::require_finite(name, x)?;
        }
        let kspace = kspace.reshape(samples)?;
        let smooth = self.smooth(&space)?;
        let better = (0..slices)
            .map(|i| self.of_slice(&maps.get(i)?, &image.get(i)?, &sampling, &smooth, &kspace.get(i)?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&better, 0)?)
    }

    /// z ↦ F⁻¹ W⁻¹ z.
    fn smooth(&self, space: &Space) -> Result<Arc<dyn LinearOperator>> {
        let shape = space.shape();
        let place = |index: usize| {
            let mut rest = index;
            let squares = shape.iter().rev().map(|n| {
                let k = (rest % n) as f64 - (n / 2) as f64;
                rest /= n;
                k * k
            });
            squares.sum::<f64>()
        };
        let damping = |index| (1.0 + place(index) / self.cutoff.powi(2)).powi(-3);
        let weights = f64::tensor((0..shape.iter().product()).map(damping).collect(), shape)?;
        let weights = weights.to_dtype(space.dtype())?.to_device(space.device())?;
        let back = Fourier::new(space, shape.len())?.adjoint_operator();
        Ok(Diagonal::real(space, &weights)?.then(back)?.shared())
    }

    /// Maps [coil, image…, 2] of one slice.
    fn of_slice(
        &self,
        maps: &Tensor,
        image: &Tensor,
        sampling: &Arc<dyn LinearOperator>,
        smooth: &Arc<dyn LinearOperator>,
        kspace: &Tensor,
    ) -> Result<Tensor> {
        let space = sampling.domain();
        let item: usize = space.shape().iter().product();
        let size = vector::norm(image, 1)?[0] / (item as f64).sqrt();
        if size == 0.0 {
            return Ok(maps.clone());
        }
        let times = Diagonal::complex(space, &(image / size)?)?;
        let seen = Compose::new(sampling.clone(), Arc::new(times))?;
        let mut residual = Buffer::copy_of(&seen.apply(maps)?)?;
        vector::accumulate(-1.0, &[(1.0 / size, kspace)], &mut residual)?;
        let solver = Cgls { max_iterations: self.iterations, tolerance: 1e-4, damping: self.weight };
        let through = Compose::new(Arc::new(seen), smooth.clone())?;
        let found = solver.solve(&through, residual.tensor(), None, &mut ())?.value;
        let mut better = Buffer::copy_of(maps)?;
        launch(Corrected { item }, &[maps, &smooth.apply(&found)?], &mut [&mut better])?;
        Ok(better.freeze())
    }
}

/// (S + c)/√Σ|S + c|² where some S isn't 0, [coil, item].
struct Corrected {
    item: usize,
}

impl Kernel for Corrected {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (maps, corrections) = (as_complex(inputs[0]), as_complex(inputs[1]));
        let out = as_complex_mut(outputs[0]);
        for i in 0..self.item {
            let coils = || (i..maps.len()).step_by(self.item);
            if coils().all(|at| maps[at].norm_sqr() == T::zero()) {
                continue;
            }
            let size = coils().map(|at| (maps[at] + corrections[at]).norm_sqr()).sum::<T>().sqrt();
            for at in coils() {
                let value = maps[at] + corrections[at];
                out[at] = if size > T::zero() { value.unscale(size) } else { maps[at] };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::mri::{Sampling, Sense, birdcage};
    use crate::tensor::random::{Noise, standard_normal};
    use crate::testing::relative_difference;

    const SHAPE: [usize; 2] = [24, 20];

    /// A disc with texture, [1, y, x, 2].
    fn image() -> Tensor {
        let space = Space::complex(&SHAPE, DType::F64, &Device::Cpu);
        let texture = (standard_normal(Noise::new(4, 0), &space, &[1]).unwrap() * 0.2).unwrap();
        let inside = |i: usize| {
            let [y, x] = [(i / SHAPE[1]) as f64 - 12.0, (i % SHAPE[1]) as f64 - 10.0];
            f64::from(u8::from(x.hypot(y) < 9.0))
        };
        let disc = f64::tensor((0..SHAPE[0] * SHAPE[1]).map(inside).collect(), &[24, 20, 1]).unwrap();
        (texture + 1.0).unwrap().broadcast_mul(&disc).unwrap()
    }

    /// Maps of each of `count` coils that sum to 1, and those times a smooth error, both [1, coil, y, x, 2].
    fn right_and_wrong(count: usize) -> [Tensor; 2] {
        let right = birdcage(count, SHAPE, 1, DType::F64, &Device::Cpu).unwrap();
        let place = |i: usize| (i / SHAPE[1] % SHAPE[0]) as f64 / 24.0 + (i / 480) as f64;
        let factor = |i: usize| 1.0 + 0.3 * (4.0 * place(i)).sin();
        let factors = f64::tensor((0..480 * count).map(factor).collect(), &[count, 24, 20, 1]).unwrap();
        let wrong = right.broadcast_mul(&factors).unwrap();
        let size = wrong.sqr().unwrap().sum_keepdim(3).unwrap().sum_keepdim(0).unwrap().sqrt().unwrap();
        [right, wrong.broadcast_div(&size).unwrap()].map(|maps| maps.unsqueeze(0).unwrap())
    }

    #[test]
    fn smooth_errors_of_maps_are_found_from_a_part_of_the_samples() {
        let mask = Sampling { acceleration: 2.0, ..Sampling::default() }.draw(SHAPE).unwrap();
        let mask = mask.to_dtype(DType::F64).unwrap();
        let [right, wrong] = right_and_wrong(4);
        let kspace = Sense::new(&right, &mask).unwrap().apply(&image()).unwrap();
        let sampling = Arc::new(Sense::single_coil(&mask, DType::F64, &Device::Cpu).unwrap());
        let found = JointMaps { weight: 1e-7, iterations: 200, ..JointMaps::default() }
            .maps(&wrong, &image(), sampling, &kspace)
            .unwrap();
        // Where there is something to see.
        let seen =
            image().sqr().unwrap().sum_keepdim(3).unwrap().gt(0.0).unwrap().to_dtype(DType::F64).unwrap();
        let inside = |maps: &Tensor| maps.broadcast_mul(&seen.unsqueeze(1).unwrap()).unwrap();
        let error = |maps: &Tensor| relative_difference(&inside(maps), &inside(&right)).unwrap();
        assert!(
            error(&wrong) > 0.1 && error(&found) < 0.1 * error(&wrong),
            "{} {}",
            error(&wrong),
            error(&found)
        );
        let energy = found.sqr().unwrap().sum(4).unwrap().sum(1).unwrap();
        assert!(
            (energy - 1.0).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-12
        );
    }

    #[test]
    fn empty_places_stay_empty_and_misfits_are_refused() {
        let [right, _] = right_and_wrong(2);
        let full = Tensor::ones((24, 20), DType::F64, &Device::Cpu).unwrap();
        let sampling = || Arc::new(Sense::single_coil(&full, DType::F64, &Device::Cpu).unwrap());
        let kspace = Sense::new(&right, &full).unwrap().apply(&image()).unwrap();
        let half = Tensor::cat(
            &[right.narrow(2, 0, 12).unwrap(), right.narrow(2, 12, 12).unwrap().zeros_like().unwrap()],
            2,
        );
        let found = JointMaps::default().maps(&half.unwrap(), &image(), sampling(), &kspace).unwrap();
        let below = found.narrow(2, 12, 12).unwrap().abs().unwrap().sum_all().unwrap();
        assert_eq!(below.to_scalar::<f64>().unwrap(), 0.0);
        let method = JointMaps::default();
        assert!(method.maps(&right, &image().get(0).unwrap(), sampling(), &kspace).is_err());
        assert!(method.maps(&right, &image(), sampling(), &kspace.narrow(1, 0, 1).unwrap()).is_err());
        assert!(JointMaps { cutoff: 0.0, ..method }.maps(&right, &image(), sampling(), &kspace).is_err());
    }
}
