//! BM3D: a denoiser that learned nothing, for images of any kind.

mod group;
mod pass;

use candle_core::Tensor;
use num_complex::Complex;

use self::group::Filter;
use self::pass::{PIECE, Pass};
use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::operator::{Blur, Boundary};
use crate::prior::{Denoiser, Pullback, require_level};
use crate::tensor::{Buffer, Field, Kernel, Real, Space, as_complex, as_complex_mut, launch};

/// Block matching and three-dimensional filtering (Dabov, Foi, Katkovnik, Egiazarian 2007): pieces of 8² pixels that look
/// alike are stacked, transformed along all three axes, where they are sparse, and thresholded; a second pass groups the
/// result of the first again and filters the noisy image with its spectrum (Wiener).
///
/// No training and no units: D(c x, c σ) = c D(x, σ). Images whose smallest details repeat, such as heads, lose less of
/// them than to a small network. What is not seen through noise it can't invent: where data are few a trained prior is
/// better. Complex images are freed of their smooth phase first, pieces are matched by the part that is then real, and
/// both parts are filtered together. It is not differentiable.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use wellposed::prior::{Denoiser, bm3d::Bm3d};
/// use wellposed::tensor::{Field, Space, random::{Noise, standard_normal}};
/// let space = Space::real(&[32, 32], DType::F32, &Device::Cpu);
/// let noise = standard_normal(Noise::default(), &space, &[])?;
/// let clean = Bm3d::new(Field::Real).denoise(&(noise * 0.1)?.affine(1.0, 3.0)?, 0.1)?;
/// assert!((clean - 3.0)?.abs()?.max_all()?.to_scalar::<f32>()? < 0.05);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bm3d {
    field: Field,
}

/// Standard deviation in pixels of the Gaussian window whose mean phase is taken for that of the pixel in its middle.
const PHASE_WINDOW: f64 = 5.6;

impl Bm3d {
    /// For real or for complex images.
    pub fn new(field: Field) -> Self {
        Self { field }
    }

    /// Height and width of images of these dimensions.
    fn shape(&self, dims: &[usize]) -> Result<[usize; 2]> {
        let shape = match (self.field, dims) {
            (Field::Real, [.., height, width]) | (Field::Complex, [.., height, width, 2]) => {
                [*height, *width]
            }
            (Field::Real, _) => return Err(Error::shape("image", "[batch…, height, width]", dims)),
            (Field::Complex, _) => return Err(Error::shape("image", "[batch…, height, width, 2]", dims)),
        };
        if shape.iter().any(|side| *side < PIECE) {
            return Err(Error::shape("image", format!("at least {PIECE} × {PIECE} pixels for BM3D"), dims));
        }
        Ok(shape)
    }
}

impl Denoiser for Bm3d {
    fn field(&self) -> Field {
        self.field
    }

    fn range(&self) -> (f64, f64) {
        (-1.0, 1.0)
    }

    fn check(&self, image: &Space) -> Result<()> {
        if image.field() != self.field {
            let named = |field| if field == Field::Real { "real" } else { "complex" };
            let reason = format!("this is a denoiser of {} images", named(self.field));
            return Err(Error::parameter("image", named(image.field()), reason));
        }
        self.shape(&image.tensor_shape(&[])).map(drop)
    }

    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        require_level(sigma)?;
        let shape = self.shape(x.dims())?;
        let mut out = Buffer::zeros(x.dims(), x.dtype(), x.device())?;
        match self.field {
            Field::Real => launch(OfReal { shape, sigma }, &[x], &mut [&mut out])?,
            Field::Complex => {
                let space = Space::complex(&shape, x.dtype(), x.device());
                let smooth = Blur::gaussian(&space, PHASE_WINDOW, Boundary::Zero)?.apply(x)?;
                launch(OfComplex { shape, sigma }, &[x, &smooth], &mut [&mut out])?;
            }
        }
        Ok(out.freeze())
    }

    fn denoise_vjp(&self, _: &Tensor, _: f64) -> Result<(Tensor, Pullback)> {
        let reason = "gradients through BM3D, which compares and thresholds; take a network";
        Err(Error::Unsupported(reason.into()))
    }
}

/// Both passes on the planes of one image, whose first decides which pieces are alike.
fn denoised<T: Real>(planes: &[Vec<T>], shape: [usize; 2], sigma: f64) -> Vec<Vec<T>> {
    let sigma = T::of(sigma);
    let first = Pass { shape, noisy: planes, pilot: planes, filter: Filter::Threshold, sigma }.run();
    Pass { shape, noisy: planes, pilot: &first, filter: Filter::Wiener, sigma }.run()
}

struct OfReal {
    shape: [usize; 2],
    sigma: f64,
}

impl Kernel for OfReal {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let item = self.shape[0] * self.shape[1];
        for (x, out) in inputs[0].chunks_exact(item).zip(outputs[0].chunks_exact_mut(item)) {
            out.copy_from_slice(&denoised(&[x.to_vec()], self.shape, self.sigma)[0]);
        }
        Ok(())
    }
}

struct OfComplex {
    shape: [usize; 2],
    sigma: f64,
}

impl Kernel for OfComplex {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let item = self.shape[0] * self.shape[1];
        let images = as_complex(inputs[0]).chunks_exact(item).zip(as_complex(inputs[1]).chunks_exact(item));
        for ((x, smooth), out) in images.zip(as_complex_mut(outputs[0]).chunks_exact_mut(item)) {
            let phases: Vec<Complex<T>> = smooth.iter().map(|v| unit(*v)).collect();
            let flat = || x.iter().zip(&phases).map(|(v, phase)| v * phase.conj());
            let planes = [flat().map(|v| v.re).collect(), flat().map(|v| v.im).collect()];
            let clean = denoised(&planes, self.shape, self.sigma);
            for (i, (out, phase)) in out.iter_mut().zip(&phases).enumerate() {
                *out = Complex::new(clean[0][i], clean[1][i]) * phase;
            }
        }
        Ok(())
    }
}

/// v/|v|; 1 for 0.
fn unit<T: Real>(v: Complex<T>) -> Complex<T> {
    let size = v.re.hypot(v.im);
    if size > T::zero() { v / size } else { Complex::new(T::one(), T::zero()) }
}

#[cfg(test)]
mod tests;
