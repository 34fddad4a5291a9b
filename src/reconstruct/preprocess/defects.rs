//! Single detector pixels that are far off: zingers, hot and dead pixels.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::reconstruct::preprocess::median;
use crate::tensor::{Buffer, Kernel, Real, launch, vector};

/// Replaces pixels of an exposure that differ from the median of their 3 × 3 neighbourhood by more than `threshold`
/// typical differences (1.4826 times the median absolute one in that exposure) by that median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outliers {
    /// Typical differences, above 0.
    pub threshold: f64,
}

impl Default for Outliers {
    fn default() -> Self {
        Self { threshold: 12.0 }
    }
}

impl Outliers {
    /// The cleaned counts [view, row, column], and how many pixels were replaced.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use wellposed::reconstruct::preprocess::Outliers;
    /// let mut counts: Vec<f64> = (0..48).map(|i| 100.0 + f64::from(i % 5)).collect();
    /// counts[27] = 9000.0;
    /// let counts = Tensor::from_vec(counts, (1, 6, 8), &Device::Cpu)?;
    /// let (clean, replaced) = Outliers::default().remove(&counts)?;
    /// assert_eq!((replaced, clean.max_all()?.to_scalar::<f64>()?), (1, 104.0));
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where the threshold isn't positive, [`Error::Shape`], [`Error::NotFinite`].
    pub fn remove(&self, counts: &Tensor) -> Result<(Tensor, usize)> {
        if !(self.threshold > 0.0 && self.threshold.is_finite()) {
            return Err(Error::parameter("threshold of outliers", self.threshold, "must be positive"));
        }
        let &[_, rows, columns] = counts.dims() else {
            return Err(Error::shape("counts", "[view, row, column]", counts.dims()));
        };
        vector::require_finite("counts", counts)?;
        if counts.elem_count() == 0 {
            return Ok((counts.clone(), 0));
        }
        let mut out = Buffer::copy_of(counts)?;
        let replaced =
            launch(Replace { rows, columns, threshold: self.threshold }, &[counts], &mut [&mut out])?;
        Ok((out.freeze(), replaced))
    }
}

struct Replace {
    rows: usize,
    columns: usize,
    threshold: f64,
}

impl Kernel for Replace {
    type Output = usize;
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<usize> {
        let size = self.rows * self.columns;
        let exposures = outputs[0].par_chunks_mut(size).zip(inputs[0].par_chunks(size));
        Ok(exposures.map(|(out, x)| self.exposure(x, out)).sum())
    }
}

impl Replace {
    fn exposure<T: Real>(&self, x: &[T], out: &mut [T]) -> usize {
        let middle: Vec<f64> = (0..x.len()).map(|pixel| self.around(x, pixel)).collect();
        let mut sizes: Vec<f64> = x.iter().zip(&middle).map(|(x, m)| (x.as_f64() - m).abs()).collect();
        let spread = 1.4826 * median(&mut sizes);
        let mut replaced = 0;
        for ((out, x), middle) in out.iter_mut().zip(x).zip(middle) {
            // Where most pixels equal their neighbours, rounding is all there is.
            if (x.as_f64() - middle).abs() > self.threshold * spread.max(1e-3 * middle.abs()) {
                *out = T::of(middle);
                replaced += 1;
            }
        }
        replaced
    }

    /// The median of the pixels around one, without itself.
    fn around<T: Real>(&self, x: &[T], pixel: usize) -> f64 {
        let (row, column) = (pixel / self.columns, pixel % self.columns);
        let near = |i: usize, n: usize| i.saturating_sub(1)..(i + 2).min(n);
        let mut values = [0.0; 8];
        let mut count = 0;
        for r in near(row, self.rows) {
            for c in near(column, self.columns) {
                if (r, c) != (row, column) {
                    values[count] = x[r * self.columns + c].as_f64();
                    count += 1;
                }
            }
        }
        if count == 0 { x[pixel].as_f64() } else { median(&mut values[..count]) }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn noise_and_edges_stay() {
        use crate::tensor::Space;
        use crate::tensor::random::{Noise, standard_normal};
        let space = Space::real(&[3, 20, 30], DType::F64, &Device::Cpu);
        let noise = f64::to_vec(&standard_normal(Noise::new(1, 0), &space, &[]).unwrap()).unwrap();
        let step = |i: usize| if i % 30 < 15 { 500.0 } else { 520.0 };
        let counts: Vec<f64> = noise.iter().enumerate().map(|(i, n)| step(i) + 5.0 * n).collect();
        let counts = Tensor::from_vec(counts, (3, 20, 30), &Device::Cpu).unwrap();
        assert_eq!(Outliers::default().remove(&counts).unwrap().1, 0);
        assert!(Outliers { threshold: 0.0 }.remove(&counts).is_err());
    }
}
