//! AᴴWA of a non-uniform Fourier transform, as a convolution.

use candle_core::Tensor;
use num_complex::Complex;
use rayon::prelude::*;

use super::Nufft;
use super::device::convolve;
use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::device::Gpu;
use crate::tensor::fft::{self, Direction, Origin, Plan};
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, as_complex, as_complex_mut, launch};

/// AᴴWA for a [`Nufft`] A and weights W of its samples. It commutes with shifts but for what leaves the image, so that it
/// is a product in the Fourier space of images twice as wide: no gridding, whatever the number of samples (Fessler,
/// Lee, Olafsson, Shi and Noll 2005).
///
/// Domain and range are those of images; self-adjoint to rounding, and equal to the two transforms in turn to their
/// accuracy.
#[derive(Clone, Debug)]
pub struct Toeplitz {
    space: Space,
    /// The spectrum of the point-spread function, real, on twice as many points along every axis.
    spectrum: Tensor,
}

impl Nufft {
    /// AᴴWA with `weights` `[sample]`, or AᴴA.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::{linalg::LinearOperator, operator::{Accuracy, Nufft}, tensor::Space};
    /// let space = Space::complex(&[16, 16], DType::F64, &Device::Cpu);
    /// let trajectory = Tensor::new(&[[0.0, 0.0], [1.5, -7.25]], &Device::Cpu)?;
    /// let nufft = Nufft::new(&space, &trajectory, Accuracy { tolerance: 1e-9, ..Accuracy::default() })?;
    /// let x = Tensor::randn(0.0, 1.0, (16, 16, 2), &Device::Cpu)?;
    /// let difference = (nufft.toeplitz(None)?.apply(&x)? - nufft.normal(&x)?)?;
    /// assert!(difference.abs()?.max_all()?.to_scalar::<f64>()? < 1e-7);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where the weights are not one for each sample.
    pub fn toeplitz(&self, weights: Option<&Tensor>) -> Result<Toeplitz> {
        let samples = self.samples();
        let weights = match weights {
            Some(w) if w.dims() == [samples] => f64::to_vec(w)?,
            Some(w) => return Err(Error::shape("weights of samples", format!("[{samples}]"), w.dims())),
            None => vec![1.0; samples],
        };
        let shape = self.domain.shape();
        let axes = shape.len();
        let double: Vec<usize> = shape.iter().map(|n| 2 * n).collect();
        let host = candle_core::Device::Cpu;
        let wide = Space::complex(&double, candle_core::DType::F64, &host);
        let twice: Vec<f64> = self.trajectory.iter().map(|k| 2.0 * k).collect();
        let trajectory = Tensor::from_vec(twice, (samples, axes), &host)?;
        let transform = Nufft::new(&wide, &trajectory, self.accuracy)?;
        let values: Vec<f64> = weights.into_iter().flat_map(|w| [w, 0.0]).collect();
        let mut response =
            f64::to_vec(&transform.adjoint(&Tensor::from_vec(values, (samples, 2), &host)?)?)?;
        // Distances of −N never occur in an image; without them the response is Hermitian and its spectrum real.
        for (i, v) in as_complex_mut(&mut response).iter_mut().enumerate() {
            let (mut rest, mut edge) = (i, false);
            for n in double.iter().rev() {
                edge |= rest % n == 0;
                rest /= n;
            }
            if edge {
                *v = Complex::ZERO;
            }
        }
        let response = f64::tensor(response, &wide.tensor_shape(&[]))?;
        let mut spectrum = Buffer::copy_of(&response)?;
        fft::forward(&response, axes, &mut spectrum)?;
        let scale = (1 << axes) as f64;
        let values = f64::to_vec(spectrum.tensor())?;
        let real: Vec<f64> = as_complex(&values).iter().map(|v| scale * v.re).collect();
        let spectrum = f64::tensor(real, &double)?;
        let spectrum = spectrum.to_dtype(self.domain.dtype())?.to_device(self.domain.device())?;
        Ok(Toeplitz { space: self.domain.clone(), spectrum })
    }
}

impl LinearOperator for Toeplitz {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let shape = [self.spectrum.dims(), &[2]].concat();
        let mut wide = ws.take_shape(&shape, self.space.dtype(), self.space.device())?;
        launch(Convolve(self.space.shape()), &[x, &self.spectrum], &mut [out, &mut wide])?;
        ws.give(wide);
        Ok(())
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.apply_into(y, out, ws)
    }
}

/// Pad, transform, multiply, transform back, cut. The shape is that of the image.
struct Convolve<'a>(&'a [usize]);

impl Convolve<'_> {
    /// The row of the image at a row of the padded one.
    fn row(&self, mut wide: usize) -> Option<usize> {
        let (mut row, mut stride) = (0, 1);
        for n in self.0[..self.0.len() - 1].iter().rev() {
            let i = wide % (2 * n);
            if i >= *n {
                return None;
            }
            row += i * stride;
            stride *= n;
            wide /= 2 * n;
        }
        Some(row)
    }
}

impl Kernel for Convolve<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let [out, wide] = outputs else { unreachable!("two outputs") };
        let (x, out, wide) = (as_complex(inputs[0]), as_complex_mut(out), as_complex_mut(wide));
        let double: Vec<usize> = self.0.iter().map(|n| 2 * n).collect();
        let plan = Plan::new(&double, Origin::Centre)?;
        let n = self.0[self.0.len() - 1];
        let item: usize = self.0.iter().product();
        let zero = Complex::new(T::zero(), T::zero());
        for (x, out) in x.chunks_exact(item).zip(out.chunks_exact_mut(item)) {
            wide.par_chunks_mut(2 * n).enumerate().for_each(|(i, line)| {
                line.fill(zero);
                if let Some(row) = self.row(i) {
                    line[..n].copy_from_slice(&x[row * n..][..n]);
                }
            });
            plan.run_in_place(Direction::Forward, wide);
            let lines = wide.par_chunks_mut(2 * n).zip(inputs[1].par_chunks(2 * n));
            lines.for_each(|(v, w)| v.iter_mut().zip(w).for_each(|(v, w)| *v = v.scale(*w)));
            plan.run_in_place(Direction::Inverse, wide);
            let rows = wide.chunks_exact(2 * n).enumerate().filter(|(i, _)| self.row(*i).is_some());
            out.chunks_exact_mut(n).zip(rows).for_each(|(o, (_, line))| o.copy_from_slice(&line[..n]));
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        convolve(gpu, self.0)
    }
}
