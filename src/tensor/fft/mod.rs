//! Batched n-dimensional Fourier transforms of complex arrays, orthonormal (1/√N both ways).
//!
//! [`forward`] and [`inverse`] are centred, as magnetic-resonance imaging has it: index ⌊N/2⌋ of every
//! transformed axis is frequency, or position, zero (fftshift ∘ fft ∘ ifftshift). The shifts cost nothing:
//! every line of data is copied into the cache before its transform and back after it, and the copies
//! rotate it. Columns are gathered many at a time, so that whole cache lines are read.
//!
//! One-dimensional transforms are rustfft's, of any length; their plans are kept for the whole process.

mod columns;
mod plan;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::tensor::device::{Address, Gpu};
use crate::tensor::{Buffer, Kernel, Real, as_complex, as_complex_mut, launch};

pub use plan::Plan;

/// The sign of the exponent: analysis e^{−2πi kn/N} or synthesis e^{+2πi kn/N}.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// X\[k\] = N^{−1/2} Σₙ x\[n\] e^{−2πi kn/N}.
    Forward,
    /// x\[n\] = N^{−1/2} Σₖ X\[k\] e^{+2πi kn/N}.
    Inverse,
}

/// Which index of an axis is position and frequency zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Index ⌊N/2⌋, the convention of images and k-space.
    Centre,
    /// Index 0, the convention of numerical libraries.
    Corner,
}

/// out ← the centred orthonormal Fourier transform of x over its last `axes` complex axes; what precedes
/// them is batch. x has shape [batch…, n₁, …, n_axes, 2].
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use wellposed::tensor::{Buffer, fft};
/// let constant = Tensor::ones((4, 4, 2), DType::F64, &Device::Cpu)?;
/// let mut out = Buffer::copy_of(&constant)?;
/// fft::forward(&constant, 2, &mut out)?;
/// assert_eq!(out.tensor().get(2)?.get(2)?.to_vec1::<f64>()?, [4.0, 4.0]); // all of it at the centre
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] unless x is complex, has that many axes, none of them empty, and `out` has its shape.
pub fn forward(x: &Tensor, axes: usize, out: &mut Buffer) -> Result<()> {
    transform(x, axes, Direction::Forward, Origin::Centre, out)
}

/// out ← the inverse of [`forward`], which is also its adjoint.
///
/// # Errors
/// As [`forward`].
pub fn inverse(x: &Tensor, axes: usize, out: &mut Buffer) -> Result<()> {
    transform(x, axes, Direction::Inverse, Origin::Centre, out)
}

/// out ← the orthonormal Fourier transform of x over its last `axes` complex axes, in either direction and
/// about either origin.
///
/// # Errors
/// As [`forward`].
pub fn transform(
    x: &Tensor,
    axes: usize,
    direction: Direction,
    origin: Origin,
    out: &mut Buffer,
) -> Result<()> {
    struct Transform<'a>(&'a [usize], Direction, Origin);
    impl Kernel for Transform<'_> {
        type Output = ();
        fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let plan = Plan::new(self.0, self.2)?;
            plan.run(self.1, as_complex(inputs[0]), as_complex_mut(outputs[0]));
            Ok(())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
            let Self(shape, direction, origin) = *self;
            let (x, out) = (gpu.input(0), gpu.output(0));
            let items = gpu.input_len(0) / 2 / shape.iter().product::<usize>();
            let axes = three(shape)?;
            Some(if origin == Origin::Corner {
                gpu.copy(x, out, gpu.input_len(0)).and_then(|()| on_device(gpu, items, axes, direction, out))
            } else {
                centred(gpu, items, axes, direction, x, out)
            })
        }
    }
    let rank = x.rank();
    if axes == 0 || rank < axes + 1 || x.dims()[rank - 1] != 2 || x.elem_count() == 0 {
        let expected = format!("[batch…, {axes} axes, 2], none of them empty");
        return Err(Error::shape("Fourier transform", expected, x.dims()));
    }
    if x.dims() != out.dims() {
        return Err(Error::shape("Fourier transform", format!("output of shape {:?}", x.dims()), out.dims()));
    }
    launch(Transform(&x.dims()[rank - 1 - axes..rank - 1], direction, origin), &[x], &mut [out])
}

/// The lengths of one to three axes, those that are missing as 1.
pub(crate) fn three(shape: &[usize]) -> Option<[usize; 3]> {
    match *shape {
        [a] => Some([1, 1, a]),
        [a, b] => Some([1, a, b]),
        [a, b, c] => Some([a, b, c]),
        _ => None,
    }
}

/// The factor that makes an unscaled transform unitary.
pub(crate) fn unitary(axes: [usize; 3]) -> f64 {
    (axes.iter().product::<usize>() as f64).sqrt().recip()
}

/// data ← the unscaled transforms of arrays about index 0.
pub(crate) fn unscaled(
    gpu: &Gpu,
    items: usize,
    axes: [usize; 3],
    direction: Direction,
    data: Address,
) -> Result<()> {
    let lengths: Vec<usize> = axes.iter().copied().skip_while(|n| *n == 1).collect();
    if lengths.is_empty() {
        return Ok(());
    }
    gpu.fourier(&lengths, items, direction == Direction::Inverse, data)
}

fn on_device(gpu: &Gpu, items: usize, axes: [usize; 3], direction: Direction, out: Address) -> Result<()> {
    unscaled(gpu, items, axes, direction, out)?;
    gpu.scale(out, 2 * items * axes.iter().product::<usize>(), unitary(axes))
}

/// out ← the transform of arrays about their middle.
pub(crate) fn centred(
    gpu: &Gpu,
    items: usize,
    axes: [usize; 3],
    direction: Direction,
    x: Address,
    out: Address,
) -> Result<()> {
    let data = gpu.scratch(2 * items * axes.iter().product::<usize>())?;
    gpu.rotate(x, data, (items, axes), false, 1.0)?;
    unscaled(gpu, items, axes, direction, data)?;
    gpu.rotate(data, out, (items, axes), true, unitary(axes))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use num_complex::Complex;

    use super::*;
    use crate::tensor::random::{Noise, standard_normal};
    use crate::tensor::{Space, vector};
    use crate::testing::relative_difference;

    /// The definition, in double precision, one axis after the other.
    fn direct(
        x: &[Complex<f64>],
        shape: &[usize],
        direction: Direction,
        origin: Origin,
    ) -> Vec<Complex<f64>> {
        let sign = if direction == Direction::Forward { -1.0 } else { 1.0 };
        let mut data = x.to_vec();
        for (axis, &n) in shape.iter().enumerate() {
            let stride: usize = shape[axis + 1..].iter().product();
            let zero = if origin == Origin::Centre { (n / 2) as f64 } else { 0.0 };
            data = (0..data.len())
                .map(|at| {
                    let k = at / stride % n;
                    let start = at - k * stride;
                    let sum: Complex<f64> = (0..n)
                        .map(|j| {
                            let turn = (k as f64 - zero) * (j as f64 - zero) / n as f64;
                            data[start + j * stride]
                                * Complex::from_polar(1.0, sign * std::f64::consts::TAU * turn)
                        })
                        .sum();
                    sum / (n as f64).sqrt()
                })
                .collect();
        }
        data
    }

    fn noise(shape: &[usize], dtype: DType) -> Tensor {
        standard_normal(Noise::new(5, 0), &Space::complex(shape, dtype, &Device::Cpu), &[]).unwrap()
    }

    #[test]
    fn agrees_with_the_definition() {
        let shapes: &[&[usize]] =
            &[&[1], &[2], &[7], &[40], &[5, 8], &[17, 6], &[33, 50], &[3, 4, 5], &[9, 2, 21]];
        for shape in shapes {
            for direction in [Direction::Forward, Direction::Inverse] {
                for origin in [Origin::Centre, Origin::Corner] {
                    let x = noise(&[&[3], *shape].concat(), DType::F64);
                    let mut out = Buffer::zeros(x.dims(), DType::F64, &Device::Cpu).unwrap();
                    transform(&x, shape.len(), direction, origin, &mut out).unwrap();
                    let values = f64::to_vec(&x).unwrap();
                    let expected: Vec<_> = as_complex(&values)
                        .chunks(shape.iter().product())
                        .flat_map(|item| direct(item, shape, direction, origin))
                        .flat_map(|v| [v.re, v.im])
                        .collect();
                    let expected = f64::tensor(expected, x.dims()).unwrap();
                    let error = relative_difference(out.tensor(), &expected).unwrap();
                    assert!(error < 1e-13, "{shape:?} {direction:?} {origin:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn is_unitary_in_both_precisions() {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-14)] {
            for shape in [&[4, 64, 48][..], &[2, 37, 101], &[16, 12, 10]] {
                let x = noise(shape, dtype);
                let mut spectrum = Buffer::copy_of(&x).unwrap();
                forward(&x, 2, &mut spectrum).unwrap();
                let (before, after) =
                    (vector::norm(&x, 1).unwrap()[0], vector::norm(spectrum.tensor(), 1).unwrap()[0]);
                assert!((after / before - 1.0).abs() < tolerance);
                let mut back = Buffer::copy_of(&x).unwrap();
                inverse(spectrum.tensor(), 2, &mut back).unwrap();
                assert!(relative_difference(back.tensor(), &x).unwrap() < tolerance);
            }
        }
    }

    #[test]
    fn in_place_equals_out_of_place_on_any_number_of_threads() {
        let x = f32::to_vec(&noise(&[3, 45, 52], DType::F32)).unwrap();
        let plan = Plan::new(&[45, 52], Origin::Centre).unwrap();
        let mut expected = vec![0f32; x.len()];
        plan.run(Direction::Forward, as_complex(&x), as_complex_mut(&mut expected));
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut data = x.clone();
            pool.install(|| plan.run_in_place(Direction::Forward, as_complex_mut(&mut data)));
            assert_eq!(data, expected, "{threads} threads");
        }
    }

    #[test]
    fn refuses_what_it_cannot_transform() {
        let x = Tensor::zeros((4, 4), DType::F32, &Device::Cpu).unwrap();
        let mut out = Buffer::copy_of(&x).unwrap();
        assert!(matches!(forward(&x, 2, &mut out), Err(Error::Shape { .. })));
        let empty = Tensor::zeros((3, 0, 4, 2), DType::F32, &Device::Cpu).unwrap();
        let mut out = Buffer::copy_of(&empty).unwrap();
        assert!(matches!(forward(&empty, 2, &mut out), Err(Error::Shape { .. })));
    }
}
