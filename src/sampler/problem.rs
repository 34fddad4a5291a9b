//! What a sampler is given: data, how they came about, and a prior.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::linalg::{LinearOperator, NonlinearOperator};
use crate::prior::{Denoiser, Pullback};
use crate::sampler::Measured;
use crate::sampler::misfit::{Forward, Misfit};
use crate::tensor::{Buffer, Field, Space, vector};

/// The measurement y = A x + n, n ~ N(0, noise²), of images x in the data range of the prior.
///
/// Samplers take A to be scaled to ‖A‖ ≈ 1 where they say so; images in other units are brought to the
/// prior's range by folding the affine map into the data (y − A·offset) before.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    measurement: Option<(Forward<'a>, &'a Tensor)>,
    roots: Option<&'a Tensor>,
    start: Option<&'a Tensor>,
    prior: &'a dyn Denoiser,
    noise: f64,
    chunk: usize,
    image: Image<'a>,
}

/// What is made of the number of the first image, D(part) and c ↦ Jᵀ c.
type AtPart<'a> = dyn FnMut(usize, &Tensor, &Pullback) -> Result<Vec<Tensor>> + 'a;

#[derive(Clone, Copy, Debug)]
enum Image<'a> {
    /// Batch axes of the data, before an image of the operator's domain.
    Measured(&'a [usize]),
    Free(&'a [usize], DType, &'a Device),
}

impl<'a> Problem<'a> {
    /// Data with their operator (of one image), the standard deviation of their noise, and the prior.
    ///
    /// # Errors
    /// Data outside the operator's range or not finite, a negative noise level, a prior that can't denoise
    /// images of the operator's domain.
    pub fn new(
        operator: &'a dyn LinearOperator,
        data: &'a Tensor,
        noise: f64,
        prior: &'a dyn Denoiser,
    ) -> Result<Self> {
        Self::measured(Forward::Linear(operator), data, noise, prior)
    }

    /// The same for data y = A(x) + n of an operator that need not be linear, for samplers that ask for no more than the
    /// gradient of the misfit: [`crate::sampler::Dps`], and [`crate::sampler::Daps`] with Langevin steps. A is expected
    /// to map the prior's range to data of about its size.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::{operator::{Curve, Pointwise}, tensor::Space};
    /// use wellposed::{prior::gaussian::Gaussian, sampler::{Dps, Problem, sample}};
    /// let image = Space::real(&[1, 2], DType::F64, &Device::Cpu);
    /// // A sensor that saturates at ½ says no more than that the second pixel is bright.
    /// let sensor = Pointwise::new(&image, Curve::Clip { gain: 1.0, lower: -0.5, upper: 0.5 })?;
    /// let prior = Gaussian::white(&[1, 2], 0.0, 0.5)?;
    /// let data = Tensor::new(&[[0.2f64, 0.5]], &Device::Cpu)?;
    /// let problem = Problem::nonlinear(&sensor, &data, 0.01, &prior)?;
    /// let found = sample(&Dps { steps: 100, ..Dps::default() }, &problem, 1, &mut ())?.value;
    /// assert!(found.get(0)?.get(1)?.to_scalar::<f64>()? > 0.3);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Problem::new`].
    pub fn nonlinear(
        operator: &'a dyn NonlinearOperator,
        data: &'a Tensor,
        noise: f64,
        prior: &'a dyn Denoiser,
    ) -> Result<Self> {
        Self::measured(Forward::Nonlinear(operator), data, noise, prior)
    }

    fn measured(forward: Forward<'a>, data: &'a Tensor, noise: f64, prior: &'a dyn Denoiser) -> Result<Self> {
        let batch = forward.range().check("data", data)?;
        vector::require_finite("data", data)?;
        prior.check(forward.domain())?;
        if !noise.is_finite() || noise < 0.0 {
            return Err(Error::parameter("noise", noise, "a standard deviation is at least 0"));
        }
        Ok(Self {
            measurement: Some((forward, data)),
            roots: None,
            start: None,
            prior,
            noise,
            chunk: 8,
            image: Image::Measured(batch),
        })
    }

    /// No data: samples of the prior itself, of this tensor shape (batch axes, image, complex axis).
    ///
    /// # Errors
    /// What the prior's check reports.
    pub fn unconditional(
        prior: &'a dyn Denoiser,
        shape: &'a [usize],
        dtype: DType,
        device: &'a Device,
    ) -> Result<Self> {
        let image = Image::Free(shape, dtype, device);
        let problem =
            Self { measurement: None, roots: None, start: None, prior, noise: 0.0, chunk: 8, image };
        if shape.len() < problem.image_rank() {
            return Err(Error::shape("samples", "[batch…, height, width] (complex: and 2)", shape));
        }
        prior.check(&problem.image_space())?;
        Ok(problem)
    }

    /// How many images go through the network at once (8 by default): more is faster, less needs less memory.
    pub fn with_chunk(self, chunk: usize) -> Self {
        Self { chunk: chunk.max(1), ..self }
    }

    /// Gives every datum its own precision: from now on the operator is diag(`roots`) A, with `roots` of the shape
    /// of the data (without a complex axis) or of one item of it. The data must be weighted already.
    ///
    /// # Errors
    /// [`Error::Shape`]; [`Error::Unsupported`] without data; [`Error::NotFinite`].
    pub fn weighted(self, roots: &'a Tensor) -> Result<Self> {
        let operator = self.given()?.0.linear()?;
        operator.range().with_field(Field::Real).check("weights of the data", roots)?;
        vector::require_finite("weights of the data", roots)?;
        Ok(Self { roots: Some(roots), ..self })
    }

    /// Starts samplers at this estimate with noise of their first level added, rather than at noise alone. It has the
    /// shape of the samples.
    ///
    /// # Errors
    /// [`Error::Shape`]; [`Error::NotFinite`].
    pub fn starting_at(self, start: &'a Tensor) -> Result<Self> {
        let expected = self.image_space().tensor_shape(self.batch());
        if start.dims() != expected {
            return Err(Error::shape("start of the sampler", format!("{expected:?}"), start.dims()));
        }
        vector::require_finite("start of the sampler", start)?;
        Ok(Self { start: Some(start), ..self })
    }

    /// The estimate that samplers start at.
    pub fn start(&self) -> Option<&'a Tensor> {
        self.start
    }

    /// The prior.
    pub fn prior(&self) -> &'a dyn Denoiser {
        self.prior
    }

    /// Standard deviation of the noise of the data.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    fn given(&self) -> Result<(Forward<'a>, &'a Tensor)> {
        self.measurement.ok_or_else(|| Error::Unsupported("this sampler needs data".into()))
    }

    /// The misfit of all images.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without data.
    pub fn misfit(&self) -> Result<Misfit<'a>> {
        let (forward, data) = self.given()?;
        Ok(Misfit::new(forward, self.roots.cloned(), data.clone()))
    }

    /// The misfit of `count` images from number `first` on, with one batch axis.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without data.
    pub fn misfit_of(&self, first: usize, count: usize) -> Result<Misfit<'a>> {
        let (forward, data) = self.given()?;
        let (roots, data) = self.some(forward.range(), data, first, count)?;
        Ok(Misfit::new(forward, roots, data))
    }

    /// The operator and the data.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without data, or where the operator is not linear.
    pub fn measurement(&self) -> Result<(Measured<'a>, &'a Tensor)> {
        let (forward, data) = self.given()?;
        Ok((Measured::new(forward.linear()?, self.roots.cloned()), data))
    }

    /// The operator and the data of `count` images from number `first` on, with one batch axis.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without data, or where the operator is not linear.
    pub fn part(&self, first: usize, count: usize) -> Result<(Measured<'a>, Tensor)> {
        let (forward, data) = self.given()?;
        let operator = forward.linear()?;
        let (roots, data) = self.some(operator.range(), data, first, count)?;
        Ok((Measured::new(operator, roots), data))
    }

    /// Weights and data of `count` images from number `first` on.
    fn some(
        &self,
        range: &Space,
        data: &Tensor,
        first: usize,
        count: usize,
    ) -> Result<(Option<Tensor>, Tensor)> {
        let of = |x: &Tensor, item: &[usize]| -> Result<Tensor> {
            Ok(x.reshape([&[self.items()], item].concat())?.narrow(0, first, count)?)
        };
        let roots = match self.roots {
            Some(roots) if roots.dims() != range.shape() => Some(of(roots, range.shape())?),
            roots => roots.cloned(),
        };
        Ok((roots, of(data, &range.tensor_shape(&[]))?))
    }

    /// Whether there are data.
    pub fn is_conditional(&self) -> bool {
        self.measurement.is_some()
    }

    fn image_rank(&self) -> usize {
        2 + usize::from(self.prior.field() == Field::Complex)
    }

    /// The space of one image.
    pub fn image_space(&self) -> Space {
        match (self.image, self.measurement) {
            (Image::Free(shape, dtype, device), _) => {
                let at = shape.len() - self.image_rank();
                Space::real(&shape[at..at + 2], dtype, device).with_field(self.prior.field())
            }
            (Image::Measured(_), Some((forward, _))) => forward.domain().clone(),
            (Image::Measured(_), None) => unreachable!("made by `new` only"),
        }
    }

    /// The batch axes.
    pub fn batch(&self) -> &'a [usize] {
        match self.image {
            Image::Measured(batch) => batch,
            Image::Free(shape, ..) => &shape[..shape.len() - self.image_rank()],
        }
    }

    /// Number of images.
    pub fn items(&self) -> usize {
        self.batch().iter().product()
    }

    /// A buffer for all images.
    pub fn buffer(&self) -> Result<Buffer> {
        self.image_space().buffer(self.batch())
    }

    /// Clamps denoised images to the prior's range. That of complex images is the size of most magnitudes, no bound.
    pub(super) fn clamp(&self, x: &mut Buffer) -> Result<()> {
        let (low, high) = self.prior.range();
        if self.prior.field() == Field::Real { vector::clamp(low, high, x) } else { Ok(()) }
    }

    /// out ← D(x, σ), a few images at a time.
    pub fn denoise_into(&self, x: &Tensor, sigma: f64, out: &mut Buffer) -> Result<()> {
        self.denoise_mirrored_into(x, sigma, &[], out)
    }

    /// out ← M D(M x, σ) with M the mirror of each image along `axes` of its own.
    pub fn denoise_mirrored_into(
        &self,
        x: &Tensor,
        sigma: f64,
        axes: &[usize],
        out: &mut Buffer,
    ) -> Result<()> {
        // The images of a part have a batch axis before their own.
        let axes: Vec<usize> = axes.iter().map(|axis| axis + 1).collect();
        let denoise = |part: &Tensor| -> Result<Tensor> {
            if axes.is_empty() {
                return self.prior.denoise(part, sigma);
            }
            let mirrored = part.flip(&axes)?.contiguous()?;
            Ok(self.prior.denoise(&mirrored, sigma)?.flip(&axes)?.contiguous()?)
        };
        self.in_chunks(x, |part| Ok(vec![denoise(part)?]), &mut [out])
    }

    /// denoised ← D(x, σ) and pulled ← Jᵀ c, c = cotangent(first image, D(part)), a few images at a time.
    pub fn denoise_and_pull(
        &self,
        x: &Tensor,
        sigma: f64,
        cotangent: &mut dyn FnMut(usize, &Tensor) -> Result<Tensor>,
        denoised: &mut Buffer,
        pulled: &mut Buffer,
    ) -> Result<()> {
        let mut work = |first: usize, d: &Tensor, pullback: &Pullback| {
            Ok(vec![d.clone(), pullback.pull(&cotangent(first, d)?)?])
        };
        self.linearised(x, sigma, &mut work, &mut [denoised, pulled])
    }

    /// out ← correct(first image, D(part), c ↦ Jᵀ c), a few images at a time.
    pub fn denoise_and_correct(
        &self,
        x: &Tensor,
        sigma: f64,
        correct: &mut dyn FnMut(usize, &Tensor, &Pullback) -> Result<Tensor>,
        out: &mut Buffer,
    ) -> Result<()> {
        let mut work = |first: usize, d: &Tensor, pullback: &Pullback| Ok(vec![correct(first, d, pullback)?]);
        self.linearised(x, sigma, &mut work, &mut [out])
    }

    /// outs ← work(first image, D(part), c ↦ Jᵀ c), a few images at a time.
    fn linearised(
        &self,
        x: &Tensor,
        sigma: f64,
        work: &mut AtPart<'_>,
        outs: &mut [&mut Buffer],
    ) -> Result<()> {
        let mut first = 0;
        let part = |part: &Tensor| {
            let (d, pullback) = self.prior.denoise_vjp(part, sigma)?;
            let results = work(first, &d, &pullback)?;
            first += part.dim(0)?;
            Ok(results)
        };
        self.in_chunks(x, part, outs)
    }

    fn in_chunks(
        &self,
        x: &Tensor,
        mut work: impl FnMut(&Tensor) -> Result<Vec<Tensor>>,
        outs: &mut [&mut Buffer],
    ) -> Result<()> {
        let items = self.items();
        let flat = x.reshape([&[items], &self.image_space().tensor_shape(&[])[..]].concat())?;
        let size = self.image_space().elements();
        for first in (0..items).step_by(self.chunk) {
            let part = flat.narrow(0, first, self.chunk.min(items - first))?;
            for (result, out) in work(&part)?.iter().zip(outs.iter_mut()) {
                vector::copy_at(result, out, first * size)?;
            }
        }
        Ok(())
    }
}
