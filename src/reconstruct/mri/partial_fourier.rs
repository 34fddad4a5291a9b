//! Partial Fourier: k-space of which one side wasn't measured, from the image's smooth phase.

use candle_core::Tensor;
use num_complex::Complex;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tensor::fft::{Direction, Origin, Plan};
use crate::tensor::{Buffer, Kernel, Real, as_complex, as_complex_mut, launch, vector};

/// How the missing side is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialFourier {
    /// Measured samples without partner count twice, and the real part is taken after the phase is removed (Noll,
    /// Nishimura, Macovski 1991). One step.
    Homodyne,
    /// Projections in turn onto images of the known phase and onto the measured samples (Haacke, Lindskog, Lin 1991).
    Pocs {
        /// How often; 10 to 20 do.
        iterations: usize,
    },
}

impl PartialFourier {
    /// Images [batch…, y, x, 2] of `kspace` [batch…, ky, kx, 2], each coil on its own; `mask` [ky, kx] says what was
    /// measured: all lines on one side of the centre and some on the other, along ky or along kx. The phase is that of the
    /// symmetric part about the centre, under a Hann window.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::{reconstruct::mri::PartialFourier, tensor::{Buffer, fft}};
    /// let image = Tensor::ones((16, 16, 2), DType::F64, &Device::Cpu)?;
    /// let mut kspace = Buffer::copy_of(&image)?;
    /// fft::forward(&image, 2, &mut kspace)?;
    /// let mask = Tensor::cat(&[&Tensor::zeros((5, 16), DType::F64, &Device::Cpu)?,
    ///     &Tensor::ones((11, 16), DType::F64, &Device::Cpu)?], 0)?;
    /// let found = PartialFourier::Pocs { iterations: 10 }.images(kspace.tensor(), &mask)?;
    /// assert!((found - image)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-9);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where the mask is not of this kind; [`Error::Shape`]; [`Error::NotFinite`] for NaN.
    pub fn images(self, kspace: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let [.., height, width, 2] = *kspace.dims() else {
            return Err(Error::shape("k-space", "[batch…, ky, kx, 2]", kspace.dims()));
        };
        if mask.dims() != [height, width] {
            return Err(Error::shape("sampling mask", format!("[{height}, {width}]"), mask.dims()));
        }
        vector::require_finite("k-space", kspace)?;
        let side = Side::of(&f64::to_vec(mask)?, [height, width])?;
        let mut out = Buffer::zeros(kspace.dims(), kspace.dtype(), kspace.device())?;
        launch(Complete { method: self, shape: [height, width], side }, &[kspace], &mut [&mut out])?;
        Ok(out.freeze())
    }
}

/// Which lines were measured.
struct Side {
    /// Of ky, or of kx.
    axis: usize,
    known: std::ops::Range<usize>,
}

impl Side {
    fn of(mask: &[f64], shape: [usize; 2]) -> Result<Self> {
        let [height, width] = shape;
        let bad = |reason: &str| Err(Error::parameter("sampling mask", "partial Fourier", reason));
        let rows =
            (0..height).all(|y| (0..width).all(|x| (mask[y * width + x] != 0.0) == (mask[y * width] != 0.0)));
        let columns =
            (0..width).all(|x| (0..height).all(|y| (mask[y * width + x] != 0.0) == (mask[x] != 0.0)));
        let (axis, lines): (usize, Vec<bool>) = match (rows, columns) {
            (true, _) => (0, (0..height).map(|y| mask[y * width] != 0.0).collect()),
            (_, true) => (1, (0..width).map(|x| mask[x] != 0.0).collect()),
            _ => return bad("needs whole lines"),
        };
        let n = lines.len();
        let first = lines.iter().position(|k| *k).unwrap_or(n);
        let last = lines.iter().rposition(|k| *k).map_or(0, |l| l + 1);
        if lines[first.min(last)..last].iter().any(|k| !k) || (first > 0 && last < n) {
            return bad("the measured lines must be one block that reaches one end of k-space");
        }
        if !(first..last).contains(&(n / 2)) {
            return bad("the centre of k-space was not measured");
        }
        Ok(Self { axis, known: first..last })
    }

    /// How many lines about the centre have their partner.
    fn symmetric(&self, n: usize) -> usize {
        (n / 2 - self.known.start).min(self.known.end - 1 - n / 2)
    }
}

struct Complete {
    method: PartialFourier,
    shape: [usize; 2],
    side: Side,
}

impl Complete {
    /// A weight for every line.
    fn lines(&self, weight: impl Fn(usize) -> f64) -> Vec<f64> {
        (0..self.shape[self.side.axis]).map(weight).collect()
    }

    fn weigh<T: Real>(&self, lines: &[f64], item: &mut [Complex<T>]) {
        for (i, v) in item.iter_mut().enumerate() {
            let line = if self.side.axis == 0 { i / self.shape[1] } else { i % self.shape[1] };
            *v = v.scale(T::of(lines[line]));
        }
    }
}

impl Kernel for Complete {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let plan = Plan::new(&self.shape, Origin::Centre)?;
        let n = self.shape[self.side.axis];
        let (middle, reach) = ((n / 2) as f64, self.side.symmetric(n));
        let window = self.lines(|l| {
            let d = (l as f64 - middle) / (reach as f64 + 1.0);
            if d.abs() < 1.0 { (0.5 * std::f64::consts::PI * d).cos().powi(2) } else { 0.0 }
        });
        let known = self.lines(|l| f64::from(u8::from(self.side.known.contains(&l))));
        // Twice where there is no partner, once at the centre, a ramp in between.
        let low_side = self.side.known.start > 0;
        let doubled = self.lines(|l| {
            let d = (l as f64 - middle) / (reach as f64 + 1.0) * if low_side { 1.0 } else { -1.0 };
            known[l] * (1.0 + d).clamp(0.0, 2.0)
        });
        let item = self.shape[0] * self.shape[1];
        let images =
            as_complex_mut(outputs[0]).par_chunks_mut(item).zip(as_complex(inputs[0]).par_chunks(item));
        images.for_each(|(out, measured)| {
            let mut phase = measured.to_vec();
            self.weigh(&window, &mut phase);
            plan.run_in_place(Direction::Inverse, &mut phase);
            for v in &mut phase {
                let size = v.norm();
                *v = if size > T::zero() { v.unscale(size) } else { Complex::new(T::one(), T::zero()) };
            }
            out.copy_from_slice(measured);
            match self.method {
                PartialFourier::Homodyne => {
                    self.weigh(&doubled, out);
                    plan.run_in_place(Direction::Inverse, out);
                    out.iter_mut().zip(&phase).for_each(|(v, p)| *v = p.scale((*v * p.conj()).re));
                }
                PartialFourier::Pocs { iterations } => {
                    self.weigh(&known, out);
                    plan.run_in_place(Direction::Inverse, out);
                    for _ in 0..iterations {
                        out.iter_mut().zip(&phase).for_each(|(v, p)| *v = p.scale(v.norm()));
                        plan.run_in_place(Direction::Forward, out);
                        for (i, (v, m)) in out.iter_mut().zip(measured).enumerate() {
                            let line =
                                if self.side.axis == 0 { i / self.shape[1] } else { i % self.shape[1] };
                            if known[line] != 0.0 {
                                *v = *m;
                            }
                        }
                        plan.run_in_place(Direction::Inverse, out);
                    }
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::tensor::fft;
    use crate::testing::relative_difference;

    /// A disc with a smooth phase, its k-space, and the mask of `lines` of its rows.
    fn scan(n: usize, lines: std::ops::Range<usize>) -> (Tensor, Tensor, Tensor) {
        let mut values = Vec::new();
        for i in 0..n * n {
            let (y, x) = ((i / n) as f64 / n as f64 - 0.5, (i % n) as f64 / n as f64 - 0.5);
            let size = f64::from(u8::from(y.hypot(x) < 0.35)) * (1.0 + 0.3 * f64::from(u8::from(x > 0.1)));
            let phase = 1.2 * x - 0.8 * y + 0.5;
            values.extend([size * phase.cos(), size * phase.sin()]);
        }
        let image = f64::tensor(values, &[n, n, 2]).unwrap();
        let mask: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(lines.contains(&(i / n))))).collect();
        let mask = f64::tensor(mask, &[n, n]).unwrap();
        let mut kspace = Buffer::copy_of(&image).unwrap();
        fft::forward(&image, 2, &mut kspace).unwrap();
        let kspace = kspace.freeze().broadcast_mul(&mask.unsqueeze(2).unwrap()).unwrap();
        (image, kspace, mask)
    }

    #[test]
    fn both_beat_zero_filling_on_either_side() {
        for lines in [24..64, 0..41] {
            let (image, kspace, mask) = scan(64, lines);
            let mut zero = Buffer::copy_of(&kspace).unwrap();
            fft::inverse(&kspace, 2, &mut zero).unwrap();
            let zero = relative_difference(zero.tensor(), &image).unwrap();
            for method in [PartialFourier::Homodyne, PartialFourier::Pocs { iterations: 20 }] {
                let found = method.images(&kspace, &mask).unwrap();
                let error = relative_difference(&found, &image).unwrap();
                assert!(error < 0.5 * zero, "{method:?}: {error} against {zero}");
                // Along kx the same.
                let turned = |x: &Tensor| x.transpose(0, 1).unwrap().contiguous().unwrap();
                let along = method.images(&turned(&kspace), &turned(&mask)).unwrap();
                assert!(relative_difference(&turned(&along), &found).unwrap() < 1e-12);
            }
        }
    }

    #[test]
    fn masks_of_another_kind_are_refused() {
        let (_, kspace, _) = scan(16, 0..16);
        let mask = |f: &dyn Fn(usize, usize) -> bool| {
            let values: Vec<f64> = (0..256).map(|i| f64::from(u8::from(f(i / 16, i % 16)))).collect();
            f64::tensor(values, &[16, 16]).unwrap()
        };
        let pocs = PartialFourier::Pocs { iterations: 3 };
        for bad in [
            mask(&|y, x| y > x),
            mask(&|y, _| y % 2 == 0),
            mask(&|y, _| (3..12).contains(&y)),
            mask(&|y, _| y < 6),
        ] {
            assert!(matches!(pocs.images(&kspace, &bad), Err(Error::Parameter { .. })));
        }
        let half = DType::F32;
        assert!(pocs.images(&kspace, &Tensor::ones((4, 4), half, &Device::Cpu).unwrap()).is_err());
    }
}
