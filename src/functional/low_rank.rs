//! Series that are of low rank in every small block.

use candle_core::Tensor;
use ndarray::Array2;
use num_complex::Complex64;
use rayon::prelude::*;

use super::penalty_weight;
use crate::error::{Error, Result};
use crate::linalg::dense::{HermitianEigen, matmul};
use crate::linalg::{Proximal, Steps};
use crate::tensor::{Buffer, Field, Kernel, Real, Space, Workspace, as_complex, as_complex_mut, launch};

/// λ Σ_b ‖X_b‖_*, the nuclear norms of the matrices [pixel of the block, frame] that a series [frame, y, x] has in each
/// block of a grid (Trzasko and Manduca 2011; Zhang, Pauly, Levesque 2015). Blocks at the far edges may be smaller.
#[derive(Clone, Debug)]
pub struct LocallyLowRank {
    domain: Space,
    weight: f64,
    block: usize,
}

impl LocallyLowRank {
    /// The penalty of complex series of `space` [frame, y, x] with blocks of `block` pixels a side.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::{functional::LocallyLowRank, linalg::Proximal, tensor::Space};
    /// let space = Space::complex(&[3, 4, 4], DType::F64, &Device::Cpu);
    /// let penalty = LocallyLowRank::new(&space, 1.0, 4)?;
    /// let same = Tensor::ones((3, 4, 4, 2), DType::F64, &Device::Cpu)?; // one block of rank one
    /// assert!((penalty.value(&same)?[0] - 96f64.sqrt()).abs() < 1e-5);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] unless the space is complex with three axes; [`Error::Parameter`] for no block, or a weight that
    /// is negative or not finite.
    pub fn new(space: &Space, weight: f64, block: usize) -> Result<Self> {
        if space.field() != Field::Complex || space.shape().len() != 3 || space.scalars() == 0 {
            return Err(Error::shape(
                "locally low rank",
                "a complex [frame, y, x]",
                &space.tensor_shape(&[]),
            ));
        }
        if block == 0 {
            return Err(Error::parameter("block", block, "at least one pixel"));
        }
        Ok(Self { domain: space.clone(), weight: penalty_weight(weight)?, block })
    }

    fn shape(&self) -> [usize; 3] {
        [self.domain.shape()[0], self.domain.shape()[1], self.domain.shape()[2]]
    }

    /// Rows and columns of each block.
    fn blocks(&self) -> Vec<[std::ops::Range<usize>; 2]> {
        let [_, height, width] = self.shape();
        let ranges = |n: usize| (0..n).step_by(self.block).map(move |i| i..(i + self.block).min(n));
        ranges(height).flat_map(|y| ranges(width).map(move |x| [y.clone(), x])).collect()
    }

    /// The matrix [pixel, frame] of a block.
    fn gather<T: Real>(
        &self,
        series: &[num_complex::Complex<T>],
        [ys, xs]: &[std::ops::Range<usize>; 2],
    ) -> Array2<Complex64> {
        let [frames, height, width] = self.shape();
        let across = xs.len();
        Array2::from_shape_fn((ys.len() * across, frames), |(p, f)| {
            let v = series[(f * height + ys.start + p / across) * width + xs.start + p % across];
            Complex64::new(v.re.as_f64(), v.im.as_f64())
        })
    }
}

/// Singular values, squared, and right singular vectors of a matrix with few columns.
fn gram(matrix: &Array2<Complex64>) -> Result<HermitianEigen<Complex64>> {
    let conjugate = matrix.t().mapv(|v| v.conj());
    HermitianEigen::new("block of a series", matmul(conjugate.view(), matrix.view())?.view())
}

impl Proximal for LocallyLowRank {
    fn domain(&self) -> &Space {
        &self.domain
    }

    fn value(&self, x: &Tensor) -> Result<Vec<f64>> {
        self.domain.check("argument of a penalty", x)?;
        launch(Value(self), &[x], &mut [])
    }

    fn prox(&self, steps: Steps<'_>, x: &mut Buffer, _: &mut Workspace) -> Result<()> {
        let Steps::Uniform(step) = steps else {
            return Err(Error::Unsupported("locally low rank with a step for each element".into()));
        };
        launch(Shrink { penalty: self, threshold: self.weight * step }, &[], &mut [x])
    }
}

struct Value<'a>(&'a LocallyLowRank);

impl Kernel for Value<'_> {
    type Output = Vec<f64>;
    fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<Vec<f64>> {
        let series = as_complex(inputs[0]).chunks_exact(self.0.domain.scalars());
        let norm = |series: &[num_complex::Complex<T>]| -> Result<f64> {
            let blocks = self.0.blocks();
            let each = blocks.par_iter().map(|block| {
                let values = gram(&self.0.gather(series, block))?.values;
                Ok(values.iter().map(|v| v.max(0.0).sqrt()).sum::<f64>())
            });
            Ok(self.0.weight * each.collect::<Result<Vec<f64>>>()?.iter().sum::<f64>())
        };
        series.map(norm).collect()
    }
}

/// Singular values less the threshold: X V diag(max(0, 1 − t/σ)) Vᴴ, so that only a matrix of the frames is decomposed.
struct Shrink<'a> {
    penalty: &'a LocallyLowRank,
    threshold: f64,
}

impl Kernel for Shrink<'_> {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let [frames, height, width] = self.penalty.shape();
        let blocks = self.penalty.blocks();
        for series in as_complex_mut(outputs[0]).chunks_exact_mut(self.penalty.domain.scalars()) {
            let shrunk = blocks
                .par_iter()
                .map(|block| {
                    let matrix = self.penalty.gather(series, block);
                    let eigen = gram(&matrix)?;
                    let mut scaled = eigen.vectors.clone();
                    for (mut column, value) in scaled.columns_mut().into_iter().zip(&eigen.values) {
                        let size = value.max(0.0).sqrt();
                        let keep = if size > self.threshold { 1.0 - self.threshold / size } else { 0.0 };
                        column.mapv_inplace(|v| v * keep);
                    }
                    let filter = matmul(scaled.view(), eigen.vectors.t().mapv(|v| v.conj()).view())?;
                    matmul(matrix.view(), filter.view())
                })
                .collect::<Result<Vec<_>>>()?;
            for ([ys, xs], matrix) in blocks.iter().zip(shrunk) {
                for f in 0..frames {
                    for (p, v) in matrix.column(f).iter().enumerate() {
                        let (y, x) = (ys.start + p / xs.len(), xs.start + p % xs.len());
                        series[(f * height + y) * width + x] =
                            num_complex::Complex::new(T::of(v.re), T::of(v.im));
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::linalg::dense::Svd;
    use crate::tensor::random::{Noise, standard_normal};

    #[test]
    fn is_the_proximal_map_of_its_value() {
        for dtype in [DType::F32, DType::F64] {
            let space = Space::complex(&[3, 7, 6], dtype, &Device::Cpu);
            let penalty = LocallyLowRank::new(&space, 0.7, 4).unwrap();
            crate::testing::check_proximal(&penalty).unwrap();
        }
    }

    #[test]
    fn singular_values_shrink_by_the_threshold() {
        let space = Space::complex(&[4, 5, 5], DType::F64, &Device::Cpu);
        let penalty = LocallyLowRank::new(&space, 2.0, 5).unwrap();
        let x = standard_normal(Noise::new(3, 0), &space, &[]).unwrap();
        let whole = [0..5, 0..5];
        let values = |x: &Tensor| {
            let flat = f64::to_vec(x).unwrap();
            Svd::new("test", penalty.gather(as_complex(&flat), &whole).view()).unwrap().values
        };
        let mut out = Buffer::copy_of(&x).unwrap();
        penalty.prox(Steps::Uniform(1.5), &mut out, &mut Workspace::new()).unwrap();
        for (before, after) in values(&x).iter().zip(values(out.tensor())) {
            assert!(((before - 3.0).max(0.0) - after).abs() < 1e-12);
        }
    }
}
