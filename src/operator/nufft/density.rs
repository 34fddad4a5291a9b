//! How densely a trajectory covers k-space.

use candle_core::Tensor;
use num_complex::Complex;

use super::Nufft;
use crate::error::{Error, Result};
use crate::tensor::{Buffer, Kernel, Real, as_complex_mut, launch};

impl Nufft {
    /// The area of k-space that each sample stands for, `[sample]`, in units of 1/(field of view)^axes: 1 where samples lie
    /// as densely as those of a fast transform. Found by `iterations` of Pipe and Menon (1999): w ← w / C w, where C
    /// spreads samples by the window and takes them back. About 20 do.
    ///
    /// # Errors
    /// [`Error::Parameter`] for no iteration.
    pub fn density_compensation(&self, iterations: usize) -> Result<Tensor> {
        if iterations == 0 {
            return Err(Error::parameter("iterations", iterations, "at least 1"));
        }
        let (dtype, device) = (self.domain.dtype(), self.domain.device());
        let mut weights = Buffer::zeros(&[self.samples()], dtype, device)?;
        let mut grid = Buffer::zeros(&[self.places.points(), 2], dtype, device)?;
        launch(PipeMenon { nufft: self, iterations }, &[&self.weights], &mut [&mut weights, &mut grid])?;
        Ok(weights.freeze())
    }
}

struct PipeMenon<'a> {
    nufft: &'a Nufft,
    iterations: usize,
}

impl Kernel for PipeMenon<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let [out, grid] = outputs else { unreachable!("two outputs") };
        let (places, grid) = (&self.nufft.places, as_complex_mut(grid));
        let mut weights = vec![Complex::new(T::one(), T::zero()); out.len()];
        let mut around = weights.clone();
        for _ in 0..self.iterations {
            places.spread(inputs[0], &weights, grid);
            places.take(inputs[0], grid, &mut around);
            for (w, a) in weights.iter_mut().zip(&around) {
                w.re /= a.re;
            }
        }
        // C integrates to the squared area of the window in grid points.
        let axis = |(window, (n, m)): (&super::Window, (&usize, &usize))| {
            window.transform(0.0).powi(2) * *n as f64 / *m as f64
        };
        let shape = self.nufft.domain.shape();
        let area: f64 =
            self.nufft.windows.iter().zip(shape.iter().zip(self.nufft.grid())).map(axis).product();
        out.iter_mut().zip(&weights).for_each(|(o, w)| *o = w.re * T::of(area));
        Ok(())
    }
}
