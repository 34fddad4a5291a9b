//! Multi-coil encoding along any trajectory, A = F S with a non-uniform transform F.

use candle_core::Tensor;
use num_complex::Complex;
use rayon::prelude::*;

use super::Encoding;
use super::device::PROGRAM;
use crate::error::{Error, Result};
use crate::linalg::{LinearOperator, PowerIteration};
use crate::operator::{Nufft, Toeplitz};
use crate::tensor::complex::{add_conjugate_product, multiply};
use crate::tensor::device::{Argument, Gpu, arguments};
use crate::tensor::{
    Buffer, Field, Kernel, Real, Space, Workspace, as_complex, as_complex_mut, launch, vector,
};

/// Power iteration comes from below; this is what it may have missed.
const MARGIN: f64 = 1.1;

/// Multi-coil encoding (A x)_c = √W F (S_c x) along a trajectory: coil maps S, the non-uniform transform F, and weights W
/// of the samples, 1 unless given (Pruessmann et al. 2001).
///
/// Domain [y, x], range [coil, sample]; with maps for each slice [slices, y, x] and [slices, coil, sample]; one more axis
/// in front of y for volumes. AᴴA is a convolution, and costs the same for any number of samples.
#[derive(Clone, Debug)]
pub struct NonCartesianSense {
    domain: Space,
    range: Space,
    maps: Tensor,
    fourier: Nufft,
    /// √W.
    weights: Option<Tensor>,
    normal: Toeplitz,
    /// A bound of its eigenvalues.
    largest: f64,
}

impl NonCartesianSense {
    /// Encoding with `maps` [coil, y, x, 2], or [slices, coil, y, x, 2] for slices with maps of their own, along the
    /// trajectory of `fourier`. Weights W of the samples, such as [`Nufft::density_compensation`], even out the spectrum
    /// of AᴴA, which speeds methods up but is not what noise asks for; data must then be multiplied by √W, see
    /// [`NonCartesianSense::weigh`].
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use wellposed::{linalg::LinearOperator, operator::{Accuracy, Nufft, mri::*}, tensor::Space};
    /// let maps = birdcage(4, [32, 32], 1, DType::F32, &Device::Cpu)?;
    /// let k = Trajectory::Radial { spokes: 20 }.points([32, 32], 64)?;
    /// let fourier = Nufft::new(&Space::complex(&[32, 32], DType::F32, &Device::Cpu), &k, Accuracy::default())?;
    /// let encoding = NonCartesianSense::new(&maps, fourier, None)?;
    /// assert_eq!(encoding.range().shape(), [4, 20 * 64]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where the parts don't fit together, [`Error::NotFinite`] where maps or weights hold NaN,
    /// [`Error::Parameter`] where a weight is negative.
    pub fn new(maps: &Tensor, fourier: Nufft, weights: Option<&Tensor>) -> Result<Self> {
        let (shape, given) = (fourier.domain().shape(), maps.dims());
        let axes = shape.len();
        let fits = (given.len() == axes + 2 || given.len() == axes + 3)
            && given[given.len() - 1] == 2
            && given[given.len() - 1 - axes..given.len() - 1] == *shape
            && maps.elem_count() > 0;
        if !fits {
            let expected = format!("[(slices,) coil, {shape:?} as the transform, 2]");
            return Err(Error::shape("coil maps", expected, given));
        }
        vector::require_finite("coil maps", maps)?;
        let (slices, coils) = (&given[..given.len() - 2 - axes], given[given.len() - 2 - axes]);
        let domain = fourier.domain().with_shape(&[slices, shape].concat());
        let range = domain.with_shape(&[slices, &[coils, fourier.samples()]].concat());
        if let Some(w) = weights {
            vector::require_finite("weights of samples", w)?;
            if let Some(negative) = f64::to_vec(w)?.into_iter().find(|w| *w < 0.0) {
                return Err(Error::parameter("weights of samples", negative, "must not be negative"));
            }
        }
        let normal = fourier.toeplitz(weights)?;
        let roots = match weights {
            Some(w) => Some(w.sqrt()?.to_dtype(domain.dtype())?.to_device(domain.device())?),
            None => None,
        };
        let maps = maps.to_dtype(domain.dtype())?.to_device(domain.device())?.contiguous()?;
        let largest =
            MARGIN * PowerIteration { max_iterations: 60, tolerance: 1e-3, seed: 0 }.norm(&normal)?;
        Ok(Self { domain, range, maps, fourier, weights: roots, normal, largest })
    }

    /// The coil maps.
    pub fn maps(&self) -> &Tensor {
        &self.maps
    }

    /// The transform along the trajectory.
    pub fn fourier(&self) -> &Nufft {
        &self.fourier
    }

    /// √W y: measured data as the encoding makes them. The data themselves where there are no weights.
    ///
    /// # Errors
    /// A shape error where the data are not in the range.
    pub fn weigh(&self, y: &Tensor) -> Result<Tensor> {
        self.range.check("k-space", y)?;
        let Some(roots) = &self.weights else { return Ok(y.clone()) };
        let mut out = Buffer::copy_of(y)?;
        vector::multiply(roots, vector::Weights::RealOnComplex, y, &mut out)?;
        Ok(out.freeze())
    }

    fn sizes(&self) -> Sizes {
        let item = self.fourier.domain().scalars();
        let sets = self.domain.scalars() / item;
        Sizes { item, sets, coils: self.maps.elem_count() / 2 / item / sets }
    }

    fn coil_images(&self, x: &Tensor, ws: &mut Workspace) -> Result<Buffer> {
        let sizes = self.sizes();
        let images = x.elem_count() / 2 / sizes.item;
        let shape = [&[images, sizes.coils], self.fourier.domain().shape(), &[2]].concat();
        ws.take_shape(&shape, self.domain.dtype(), self.domain.device())
    }
}

impl Encoding for NonCartesianSense {
    fn image_shape(&self) -> &[usize] {
        self.fourier.domain().shape()
    }

    fn support(&self) -> Result<Tensor> {
        let mut out = self.domain.with_field(Field::Real).buffer(&[])?;
        launch(Seen(self.sizes()), &[&self.maps], &mut [&mut out])?;
        Ok(out.freeze())
    }

    fn squared_norm_bound(&self) -> Result<f64> {
        let mut energy = self.domain.with_field(Field::Real).buffer(&[])?;
        let brightest = launch(Seen(self.sizes()), &[&self.maps], &mut [&mut energy])?;
        let bound = brightest * self.largest;
        Ok(if bound > 0.0 { bound } else { 1.0 })
    }

    fn noise_energy(&self) -> Result<f64> {
        let samples = self.fourier.samples();
        let each = match &self.weights {
            Some(roots) => vector::inner(roots, roots, 1)?[0],
            None => samples as f64,
        };
        Ok(2.0 * each * (self.range.scalars() / samples.max(1)) as f64)
    }
}

impl LinearOperator for NonCartesianSense {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let mut images = self.coil_images(x, ws)?;
        launch(Expand(self.sizes()), &[x, &self.maps], &mut [&mut images])?;
        self.fourier.apply_into(images.tensor(), out, ws)?;
        ws.give(images);
        if let Some(roots) = &self.weights {
            let plain = out.tensor().copy()?;
            vector::multiply(roots, vector::Weights::RealOnComplex, &plain, out)?;
        }
        Ok(())
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let mut images = self.coil_images(out.tensor(), ws)?;
        self.fourier.adjoint_into(&self.weigh(y)?, &mut images, ws)?;
        launch(Combine(self.sizes()), &[images.tensor(), &self.maps], &mut [out])?;
        ws.give(images);
        Ok(())
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let (mut images, mut filtered) = (self.coil_images(x, ws)?, self.coil_images(x, ws)?);
        launch(Expand(self.sizes()), &[x, &self.maps], &mut [&mut images])?;
        self.normal.apply_into(images.tensor(), &mut filtered, ws)?;
        launch(Combine(self.sizes()), &[filtered.tensor(), &self.maps], &mut [out])?;
        ws.give(images);
        ws.give(filtered);
        Ok(())
    }
}

/// Array sizes, in complex numbers: of one image, and how many coils and sets of maps there are.
#[derive(Clone, Copy)]
struct Sizes {
    item: usize,
    coils: usize,
    sets: usize,
}

impl Sizes {
    /// `expand` or `combine` of sense.cu, whose last arguments are `more`.
    fn on_device(self, gpu: &Gpu, function: &str, images: usize, more: &[Argument]) -> Result<()> {
        let arrays = arguments![gpu.input(0), gpu.input(1), gpu.output(0)];
        let sizes = arguments![false, images, 0usize, self.coils, self.sets, 1usize, 1usize, self.item];
        gpu.run(&PROGRAM, function, gpu.output_len(0) / 2, &[arrays, sizes, more].concat())
    }

    /// The maps of image `i`.
    fn maps<T: Real>(self, maps: &[Complex<T>], i: usize) -> &[Complex<T>] {
        &maps[i % self.sets * self.coils * self.item..][..self.coils * self.item]
    }
}

/// Coil images S_c x.
struct Expand(Sizes);

impl Kernel for Expand {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Sizes { item, coils, .. } = self.0;
        let (x, maps) = (as_complex(inputs[0]), as_complex(inputs[1]));
        as_complex_mut(outputs[0]).par_chunks_mut(item).enumerate().for_each(|(i, out)| {
            let (image, coil) = (i / coils, i % coils);
            let map = &self.0.maps(maps, image)[coil * item..][..item];
            multiply(map, &x[image * item..][..item], out);
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        Some(self.0.on_device(gpu, "expand", gpu.input_len(0) / 2 / self.0.item, &[]))
    }
}

/// Σ_c S̄_c x_c.
struct Combine(Sizes);

impl Kernel for Combine {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Sizes { item, coils, .. } = self.0;
        let (images, maps) = (as_complex(inputs[0]), as_complex(inputs[1]));
        as_complex_mut(outputs[0]).par_chunks_mut(item).enumerate().for_each(|(i, out)| {
            out.fill(Complex::new(T::zero(), T::zero()));
            let own = self.0.maps(maps, i).chunks_exact(item);
            for (map, image) in own.zip(images[i * coils * item..].chunks_exact(item)) {
                add_conjugate_product(map, image, out);
            }
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        Some(self.0.on_device(gpu, "combine", gpu.output_len(0) / 2 / self.0.item, arguments![1.0]))
    }
}

/// 1 where Σ|S|² is positive; returns its largest value.
struct Seen(Sizes);

impl Kernel for Seen {
    type Output = f64;
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<f64> {
        let Sizes { item, coils, .. } = self.0;
        let mut brightest = 0.0f64;
        let sets = as_complex(inputs[0]).chunks_exact(coils * item);
        for (maps, out) in sets.zip(outputs[0].chunks_exact_mut(item)) {
            out.fill(T::zero());
            for map in maps.chunks_exact(item) {
                out.iter_mut().zip(map).for_each(|(o, v)| *o += v.norm_sqr());
            }
            brightest = out.iter().fold(brightest, |m, v| m.max(v.as_f64()));
            out.iter_mut().for_each(|o| *o = if *o > T::zero() { T::one() } else { T::zero() });
        }
        Ok(brightest)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::Accuracy;
    use crate::operator::mri::{Sense, Trajectory, birdcage};
    use crate::tensor::random::{Noise, standard_normal};
    use crate::testing::{check_operator, relative_difference};

    fn noise(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
        standard_normal(Noise::new(seed, 0), &Space::complex(shape, dtype, &Device::Cpu), &[]).unwrap()
    }

    fn radial(shape: [usize; 2], dtype: DType) -> Nufft {
        let k = Trajectory::GoldenRadial { spokes: 15 }.points(shape, 24).unwrap();
        Nufft::new(&Space::complex(&shape, dtype, &Device::Cpu), &k, Accuracy::default()).unwrap()
    }

    /// The convolution equals the transforms in turn to the accuracy of the gridding only.
    fn check(encoding: &NonCartesianSense) {
        let dtype = encoding.domain().dtype();
        let draw = |space: &Space| standard_normal(Noise::new(1, 2), space, &[2]).unwrap();
        let (x, y) = (draw(encoding.domain()), draw(encoding.range()));
        let (ax, ay) = (encoding.apply(&x).unwrap(), encoding.adjoint(&y).unwrap());
        let (left, right) = (vector::inner(&ax, &y, 1).unwrap()[0], vector::inner(&x, &ay, 1).unwrap()[0]);
        let size = vector::norm(&ax, 1).unwrap()[0] * vector::norm(&y, 1).unwrap()[0];
        assert!((left - right).abs() < 64.0 * crate::testing::epsilon(dtype) * size);
        let difference = relative_difference(&encoding.normal(&x).unwrap(), &encoding.adjoint(&ax).unwrap());
        assert!(difference.unwrap() < 1e-3);
    }

    #[test]
    fn adjoint_and_normal_fit() {
        let shape = [14, 18];
        for dtype in [DType::F32, DType::F64] {
            for maps in [&[3, 14, 18][..], &[2, 3, 14, 18]] {
                let maps = noise(maps, dtype, 3);
                let fourier = radial(shape, dtype);
                let density = fourier.density_compensation(10).unwrap();
                check(&NonCartesianSense::new(&maps, fourier.clone(), None).unwrap());
                check(&NonCartesianSense::new(&maps, fourier, Some(&density)).unwrap());
            }
        }
        check_operator(&radial(shape, DType::F64).toeplitz(None).unwrap()).unwrap();
    }

    #[test]
    fn cartesian_points_encode_as_sense() {
        let shape = [12, 10];
        let k: Vec<f64> = (0..120).flat_map(|i| [(i / 10) as f64 - 6.0, (i % 10) as f64 - 5.0]).collect();
        let k = Tensor::from_vec(k, (120, 2), &Device::Cpu).unwrap();
        let space = Space::complex(&shape, DType::F64, &Device::Cpu);
        let fourier = Nufft::new(&space, &k, Accuracy { tolerance: 1e-9, oversampling: 2.0 }).unwrap();
        let maps = birdcage(4, shape, 2, DType::F64, &Device::Cpu).unwrap();
        let sense = Sense::new(&maps, &Tensor::ones((12, 10), DType::F64, &Device::Cpu).unwrap()).unwrap();
        let x = noise(&shape, DType::F64, 6);
        let expected = sense.apply(&x).unwrap().reshape((4, 120, 2)).unwrap();
        let encoding = NonCartesianSense::new(&maps, fourier, None).unwrap();
        assert!(relative_difference(&encoding.apply(&x).unwrap(), &expected).unwrap() < 1e-8);
        assert!((encoding.squared_norm_bound().unwrap() - 1.0).abs() < 0.2);
    }

    #[test]
    fn the_bound_is_one() {
        let shape = [20, 20];
        let maps = birdcage(4, shape, 2, DType::F64, &Device::Cpu).unwrap();
        let encoding = NonCartesianSense::new(&maps, radial(shape, DType::F64), None).unwrap();
        let norm = PowerIteration { max_iterations: 300, tolerance: 1e-8, seed: 1 }.norm(&encoding).unwrap();
        let bound = encoding.squared_norm_bound().unwrap();
        assert!(norm * norm <= bound && bound < 1.5 * norm * norm, "{} {bound}", norm * norm);
        assert!(encoding.support().unwrap().min_all().unwrap().to_scalar::<f64>().unwrap() == 1.0);
    }
}
