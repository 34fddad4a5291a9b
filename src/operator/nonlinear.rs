//! Nonlinear measurements: magnitudes, sensors that clip, blurs in linear light, and chains of them.

use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::{Linear, LinearOperator, NonlinearOperator};
use crate::operator::{Algebra, Fourier, Pad};
use crate::tensor::device::{Gpu, Program, arguments};
use crate::tensor::{Buffer, Field, Kernel, Real, Space, Workspace, as_complex, as_complex_mut, launch};

static PROGRAM: Program = Program { name: "nonlinear", source: include_str!("nonlinear.cu") };

/// Elements a task.
const CHUNK: usize = 1 << 13;

/// Fourier magnitudes |F P x| of a real image, P the zero padding to n + 2⌊`oversampling` · n/8⌋ pixels a side
/// and F the centred orthonormal transform: phase retrieval as in Chung et al. (2023), whose "oversampling 2"
/// makes 384 pixels of 256.
///
/// ```
/// use candle_core::{DType, Device};
/// use wellposed::{linalg::NonlinearOperator, operator::phase_retrieval, tensor::Space};
/// let magnitudes = phase_retrieval(&Space::real(&[16, 16], DType::F32, &Device::Cpu), 2.0)?;
/// assert_eq!(magnitudes.range().shape(), [24, 24]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] where `image` is not real [.., height, width], [`Error::Parameter`] where the oversampling
/// is negative or not finite.
pub fn phase_retrieval(image: &Space, oversampling: f64) -> Result<Chain> {
    if !(oversampling >= 0.0 && oversampling.is_finite()) {
        return Err(Error::parameter("oversampling", oversampling, "must be at least 0"));
    }
    let &[.., height, width] = image.shape() else {
        return Err(Error::shape("phase retrieval", "[.., height, width]", image.shape()));
    };
    let padded = |n: usize| n + 2 * (oversampling * n as f64 / 8.0) as usize;
    let pad = Pad::complex(image, [padded(height), padded(width)])?;
    let fourier = Fourier::new(pad.range(), 2)?;
    let magnitude = Magnitude::new(fourier.range())?;
    Chain::new(vec![Arc::new(Linear(pad.then(fourier)?.shared())), Arc::new(magnitude)])
}

/// `blur` in linear light: y = (k ∗ xᵞ)^(1/γ) for intensities x ≥ 0, the nonlinear blur of a camera whose
/// response is the power 1/γ.
///
/// # Errors
/// [`Error::Parameter`] where γ is not positive, [`Error::Shape`] where the blur changes the shape or is complex.
pub fn camera_blur(blur: Arc<dyn LinearOperator>, gamma: f64) -> Result<Chain> {
    let decode = Pointwise::new(blur.domain(), Curve::Power { exponent: gamma })?;
    let encode = Pointwise::new(blur.range(), Curve::Power { exponent: 1.0 / gamma })?;
    Chain::new(vec![Arc::new(decode), Arc::new(Linear(blur)), Arc::new(encode)])
}

/// A curve for [`Pointwise`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Curve {
    /// max(lower, min(upper, gain · x)): a sensor that saturates. High-dynamic-range recovery has gain 2 on
    /// [−1, 1].
    Clip {
        /// The factor before clipping.
        gain: f64,
        /// The least value.
        lower: f64,
        /// The largest value.
        upper: f64,
    },
    /// x + shift: another zero of the scale.
    Shift {
        /// What is added.
        shift: f64,
    },
    /// max(x, 1e-6)^exponent, with slope 0 below 1e-6.
    Power {
        /// The exponent, positive.
        exponent: f64,
    },
}

/// The floor of [`Curve::Power`], which keeps the slope of roots finite.
const FLOOR: f64 = 1e-6;

impl Curve {
    /// Its number and parameters on a device.
    fn code(self) -> (usize, [f64; 3]) {
        match self {
            Self::Clip { gain, lower, upper } => (0, [gain, lower, upper]),
            Self::Shift { shift } => (1, [shift, 0.0, 0.0]),
            Self::Power { exponent } => (2, [exponent, 0.0, 0.0]),
        }
    }

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        match self {
            Self::Clip { gain, lower, upper } => (T::of(gain) * x).max(T::of(lower)).min(T::of(upper)),
            Self::Shift { shift } => x + T::of(shift),
            Self::Power { exponent } => x.max(T::of(FLOOR)).powf(T::of(exponent)),
        }
    }

    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        match self {
            Self::Clip { gain, lower, upper } => {
                let y = T::of(gain) * x;
                if y > T::of(lower) && y < T::of(upper) { T::of(gain) } else { T::zero() }
            }
            Self::Shift { .. } => T::one(),
            Self::Power { exponent } if x > T::of(FLOOR) => T::of(exponent) * x.powf(T::of(exponent - 1.0)),
            Self::Power { .. } => T::zero(),
        }
    }
}

/// xᵢ ↦ f(xᵢ) on a real space.
#[derive(Clone, Debug)]
pub struct Pointwise {
    space: Space,
    curve: Curve,
}

impl Pointwise {
    /// `curve` on every element of `space`.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::{linalg::NonlinearOperator, operator::{Curve, Pointwise}, tensor::Space};
    /// let space = Space::real(&[3], DType::F64, &Device::Cpu);
    /// let sensor = Pointwise::new(&space, Curve::Clip { gain: 2.0, lower: -1.0, upper: 1.0 })?;
    /// let x = Tensor::new(&[-0.9f64, 0.2, 0.7], &Device::Cpu)?;
    /// assert_eq!(sensor.apply(&x)?.to_vec1::<f64>()?, [-1.0, 0.4, 1.0]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where the space is complex or the curve's numbers are out of range.
    pub fn new(space: &Space, curve: Curve) -> Result<Self> {
        let good = match curve {
            Curve::Clip { gain, lower, upper } => gain.is_finite() && lower < upper,
            Curve::Shift { shift } => shift.is_finite(),
            Curve::Power { exponent } => exponent > 0.0 && exponent.is_finite(),
        };
        if !good || space.field() == Field::Complex {
            let reason =
                "needs a real space, a finite gain and lower < upper, a finite shift, or a positive exponent";
            return Err(Error::parameter("curve", format!("{curve:?} on {space}"), reason));
        }
        Ok(Self { space: space.clone(), curve })
    }
}

/// f(x) with one input, f'(x) · v with two.
struct Evaluate(Curve);

impl Kernel for Evaluate {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        outputs[0].par_chunks_mut(CHUNK).enumerate().for_each(|(index, out)| {
            let x = &inputs[0][index * CHUNK..];
            match inputs.get(1) {
                None => out.iter_mut().zip(x).for_each(|(o, x)| *o = self.0.value(*x)),
                Some(v) => {
                    let pairs = x.iter().zip(&v[index * CHUNK..]);
                    out.iter_mut().zip(pairs).for_each(|(o, (x, v))| *o = self.0.slope(*x) * *v);
                }
            }
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let (n, (curve, [a, b, c])) = (gpu.output_len(0), self.0.code());
        let rest = arguments![gpu.output(0), n, curve, a, b, c];
        let (function, inputs) = match gpu.inputs() {
            1 => ("values", arguments![gpu.input(0)]),
            _ => ("slopes", arguments![gpu.input(0), gpu.input(1)]),
        };
        Some(gpu.run(&PROGRAM, function, n, &[inputs, rest].concat()))
    }
}

impl NonlinearOperator for Pointwise {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(Evaluate(self.curve), &[x], &mut [out])
    }
    fn vjp_into(&self, x: &Tensor, v: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(Evaluate(self.curve), &[x, v], &mut [out])
    }
}

/// z ↦ |z| from a complex to a real space. Where z = 0 the slope is taken as 0.
#[derive(Clone, Debug)]
pub struct Magnitude {
    domain: Space,
    range: Space,
}

impl Magnitude {
    /// Magnitudes of the numbers of a complex space.
    ///
    /// # Errors
    /// [`Error::Parameter`] where the space is real.
    pub fn new(domain: &Space) -> Result<Self> {
        if domain.field() == Field::Real {
            return Err(Error::parameter("domain of magnitudes", domain, "must be complex"));
        }
        Ok(Self { domain: domain.clone(), range: domain.with_field(Field::Real) })
    }
}

struct Modulus;

impl Kernel for Modulus {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let z = as_complex(inputs[0]);
        outputs[0].par_chunks_mut(CHUNK).zip(z.par_chunks(CHUNK)).for_each(|(out, z)| {
            out.iter_mut().zip(z).for_each(|(o, z)| *o = (z.re * z.re + z.im * z.im).sqrt());
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let n = gpu.output_len(0);
        Some(gpu.run(&PROGRAM, "modulus", n, arguments![gpu.input(0), gpu.output(0), n]))
    }
}

/// v z/|z|.
struct AlongPhase;

impl Kernel for AlongPhase {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (z, v) = (as_complex(inputs[0]), inputs[1]);
        let pairs = z.par_chunks(CHUNK).zip(v.par_chunks(CHUNK));
        as_complex_mut(outputs[0]).par_chunks_mut(CHUNK).zip(pairs).for_each(|(out, (z, v))| {
            for (o, (z, v)) in out.iter_mut().zip(z.iter().zip(v)) {
                let size = (z.re * z.re + z.im * z.im).sqrt();
                *o = if size > T::zero() { z.scale(*v / size) } else { z.scale(T::zero()) };
            }
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let n = gpu.input_len(1);
        let arrays = arguments![gpu.input(0), gpu.input(1), gpu.output(0), n];
        Some(gpu.run(&PROGRAM, "along_phase", n, arrays))
    }
}

impl NonlinearOperator for Magnitude {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(Modulus, &[x], &mut [out])
    }
    fn vjp_into(&self, x: &Tensor, v: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(AlongPhase, &[x, v], &mut [out])
    }
}

/// x ↦ Aₙ(… A₂(A₁(x))).
#[derive(Clone, Debug)]
pub struct Chain {
    links: Vec<Arc<dyn NonlinearOperator>>,
}

impl Chain {
    /// `links` one after the other, the first one first.
    ///
    /// # Errors
    /// [`Error::Parameter`] where there are none, [`Error::Shape`] where a range is not the next domain.
    pub fn new(links: Vec<Arc<dyn NonlinearOperator>>) -> Result<Self> {
        if links.is_empty() {
            return Err(Error::parameter("links", 0, "a chain needs at least one operator"));
        }
        for pair in links.windows(2) {
            pair[1].domain().expect_same("domain of a link", pair[0].range())?;
        }
        Ok(Self { links })
    }

    /// The values after all links but the last.
    fn inner(&self, x: &Tensor, ws: &mut Workspace) -> Result<Vec<Buffer>> {
        let batch = self.domain().check("argument of a chain", x)?;
        let mut values: Vec<Buffer> = Vec::with_capacity(self.links.len());
        for link in &self.links[..self.links.len() - 1] {
            let mut next = ws.take(link.range(), batch)?;
            link.apply_into(values.last().map_or(x, Buffer::tensor), &mut next, ws)?;
            values.push(next);
        }
        Ok(values)
    }
}

impl NonlinearOperator for Chain {
    fn domain(&self) -> &Space {
        self.links[0].domain()
    }
    fn range(&self) -> &Space {
        self.links[self.links.len() - 1].range()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let values = self.inner(x, ws)?;
        let last = &self.links[self.links.len() - 1];
        last.apply_into(values.last().map_or(x, Buffer::tensor), out, ws)?;
        values.into_iter().for_each(|value| ws.give(value));
        Ok(())
    }
    fn vjp_into(&self, x: &Tensor, v: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let batch = self.domain().check("argument of a chain", x)?;
        let mut values = self.inner(x, ws)?;
        let mut cotangent: Option<Buffer> = None;
        for link in self.links[1..].iter().rev() {
            let Some(argument) = values.pop() else { break };
            let mut next = ws.take(link.domain(), batch)?;
            link.vjp_into(argument.tensor(), cotangent.as_ref().map_or(v, Buffer::tensor), &mut next, ws)?;
            ws.give(argument);
            cotangent.replace(next).into_iter().for_each(|done| ws.give(done));
        }
        self.links[0].vjp_into(x, cotangent.as_ref().map_or(v, Buffer::tensor), out, ws)?;
        cotangent.into_iter().for_each(|done| ws.give(done));
        Ok(())
    }
}
