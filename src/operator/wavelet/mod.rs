//! Orthonormal wavelet transforms.

mod filters;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::operator::separable::{AlongAxis, Sparse};
use crate::tensor::device::{Gpu, Inset};
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch};

/// An orthonormal wavelet with compact support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Haar's, 2 taps.
    Haar,
    /// Daubechies' of extremal phase with this many vanishing moments, 2 to 8, twice as many taps (so that
    /// `Daubechies(2)` is often called D4).
    Daubechies(usize),
    /// Daubechies' least asymmetric with this many vanishing moments, 4 to 8.
    Symlet(usize),
}

impl Family {
    /// The scaling filter h, with Σ h = √2 and Σ h² = 1.
    ///
    /// # Errors
    /// [`Error::Parameter`] where the number of vanishing moments is out of range.
    pub fn filter(self) -> Result<&'static [f64]> {
        use std::f64::consts::FRAC_1_SQRT_2;
        let (found, moments, range) = match self {
            Self::Haar => return Ok(&[FRAC_1_SQRT_2, FRAC_1_SQRT_2]),
            Self::Daubechies(n) => (n.checked_sub(2).and_then(|k| filters::DAUBECHIES.get(k)), n, "2 to 8"),
            Self::Symlet(n) => (n.checked_sub(4).and_then(|k| filters::SYMLETS.get(k)), n, "4 to 8"),
        };
        found
            .copied()
            .ok_or_else(|| Error::parameter("vanishing moments", moments, format!("must be {range}")))
    }
}

/// The periodic orthonormal wavelet transform W of the last axes of an array, real or complex, of any size:
/// Wᴴ W = W Wᴴ = 1. The coefficients have the array's shape, the coarse ones first on every axis. On an axis
/// of odd length the last sample goes on to the coarse band as it is.
#[derive(Clone, Debug)]
pub struct Wavelet {
    space: Space,
    levels: Vec<Level>,
}

/// One level on the coarse block that the finer levels left.
#[derive(Clone, Debug)]
struct Level {
    /// The block's transformed axes.
    block: Vec<usize>,
    /// Analysis and synthesis along each of them.
    matrices: Vec<(Sparse, Sparse)>,
}

impl Wavelet {
    /// `levels` levels over the last `axes` axes of `space`; what precedes them is transformed item by item.
    /// An axis of length 1 is left alone.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{linalg::LinearOperator, operator::{Family, Wavelet}, tensor::Space};
    /// let haar = Wavelet::new(&Space::real(&[4], DType::F64, &Device::Cpu), 1, Family::Haar, 2)?;
    /// let x = Tensor::new(&[1f64, 1., 1., 1.], &Device::Cpu)?;
    /// let y = haar.apply(&x)?.to_vec1::<f64>()?;
    /// assert!((y[0] - 2.0).abs() < 1e-15 && y[1..].iter().all(|y| y.abs() < 1e-15));
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where `axes` or the family is out of range, or there are no levels.
    pub fn new(space: &Space, axes: usize, family: Family, levels: usize) -> Result<Self> {
        let filter = family.filter()?;
        if axes == 0 || axes > space.shape().len() || space.shape().contains(&0) {
            let reason = format!("must be between 1 and {}, and the axes not empty", space.shape().len());
            return Err(Error::parameter("axes", axes, reason));
        }
        if levels == 0 {
            return Err(Error::parameter("levels", levels, "must be at least 1"));
        }
        let mut block = space.shape()[space.shape().len() - axes..].to_vec();
        let mut plans = Vec::with_capacity(levels);
        for _ in 0..levels {
            if block.iter().all(|n| *n == 1) {
                break;
            }
            let pair = |n: &usize| {
                let analysis = analysis(*n, filter);
                (analysis.clone(), analysis.transposed())
            };
            plans.push(Level { matrices: block.iter().map(pair).collect(), block: block.clone() });
            block.iter_mut().for_each(|n| *n = n.div_ceil(2));
        }
        if plans.is_empty() {
            // All axes have length 1: the identity, as one level of 1 × 1 matrices.
            let one = Sparse::new(1, 1, |_| vec![(0, 1.0)]);
            plans.push(Level { matrices: vec![(one.clone(), one); block.len()], block });
        }
        Ok(Self { space: space.clone(), levels: plans })
    }

    /// Weights for an ℓ1 norm of the coefficients: 0 on the coarsest band and 1 on all details, of the shape
    /// of the space (with the complex axis, where there is one).
    ///
    /// # Errors
    /// What the tensor library returns.
    pub fn detail_weights(&self) -> Result<Tensor> {
        let mut weights = Buffer::copy_of(&(self.space.zeros(&[])? + 1.0)?)?;
        let last = &self.levels[self.levels.len() - 1].block;
        let coarse: Vec<usize> = last.iter().map(|n| n.div_ceil(2)).collect();
        let zeros = Buffer::zeros(&[self.block_elements(&coarse)], self.space.dtype(), self.space.device())?;
        self.exchange(&coarse, zeros.tensor(), &mut weights, true)?;
        Ok(weights.freeze())
    }

    /// Elements of a block of one item, with the axes before the transformed ones.
    fn block_elements(&self, block: &[usize]) -> usize {
        let whole = &self.levels[0].block;
        self.space.elements() / whole.iter().product::<usize>() * block.iter().product::<usize>()
    }

    /// Copies the coarse block between a compact array and its place in the full one.
    fn exchange(&self, block: &[usize], from: &Tensor, to: &mut Buffer, into_full: bool) -> Result<()> {
        let kernel =
            CopyBlock { full: &self.levels[0].block, block, components: self.space.components(), into_full };
        launch(kernel, &[from], &mut [to])
    }

    /// Applies a level's matrices to a compact block, the last one into `out`.
    fn level(
        &self,
        level: &Level,
        analysis: bool,
        x: &Tensor,
        out: &mut Buffer,
        ws: &mut Workspace,
    ) -> Result<()> {
        let mut inner = self.space.components();
        let mut held: Option<Buffer> = None;
        for (axis, (forward, backward)) in level.matrices.iter().enumerate().rev() {
            let kernel = AlongAxis { matrix: if analysis { forward } else { backward }, inner };
            if axis == 0 {
                launch(kernel, &[held.as_ref().map_or(x, |h| h.tensor())], &mut [&mut *out])?;
            } else {
                let mut next = ws.take_shape(x.dims(), x.dtype(), x.device())?;
                launch(kernel, &[held.as_ref().map_or(x, |h| h.tensor())], &mut [&mut next])?;
                held.replace(next).into_iter().for_each(|done| ws.give(done));
            }
            inner *= level.block[axis];
        }
        held.into_iter().for_each(|done| ws.give(done));
        Ok(())
    }

    fn compact(&self, block: &[usize], items: usize, ws: &mut Workspace) -> Result<Buffer> {
        ws.take_shape(&[items * self.block_elements(block)], self.space.dtype(), self.space.device())
    }
}

/// The n × n orthonormal matrix of one level: ⌈n/2⌉ coarse rows, then ⌊n/2⌋ detail rows.
fn analysis(n: usize, filter: &[f64]) -> Sparse {
    let (pairs, taps) = (n / 2, filter.len());
    let even = 2 * pairs;
    Sparse::new(n, n, |i| {
        if i < pairs {
            (0..taps).map(|k| ((2 * i + k) % even, filter[k])).collect()
        } else if i < n - pairs {
            vec![(n - 1, 1.0)]
        } else {
            // The mirror filter g[k] = (−1)ᵏ h[taps − 1 − k].
            let first = 2 * (i - (n - pairs));
            let sign = |k: usize| if k.is_multiple_of(2) { 1.0 } else { -1.0 };
            (0..taps).map(|k| ((first + k) % even, sign(k) * filter[taps - 1 - k])).collect()
        }
    })
}

struct CopyBlock<'a> {
    full: &'a [usize],
    block: &'a [usize],
    components: usize,
    into_full: bool,
}

impl Kernel for CopyBlock<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let row = self.block.last().map_or(1, |n| *n) * self.components;
        let full_row = self.full.last().map_or(1, |n| *n) * self.components;
        let full_size = self.full.iter().product::<usize>() * self.components;
        let (axes, rows) =
            (self.block.len() - 1, self.block[..self.block.len() - 1].iter().product::<usize>());
        // Where the block's row `r` begins in the full item.
        let place = |r: usize| {
            let (mut rest, mut at, mut stride) = (r, 0, full_row);
            for axis in (0..axes).rev() {
                at += rest % self.block[axis] * stride;
                rest /= self.block[axis];
                stride *= self.full[axis];
            }
            at
        };
        let (input, output) = (inputs[0], &mut *outputs[0]);
        if self.into_full {
            output.par_chunks_mut(full_size).zip(input.par_chunks(rows * row)).for_each(|(full, block)| {
                for (r, block) in block.chunks_exact(row).enumerate() {
                    full[place(r)..][..row].copy_from_slice(block);
                }
            });
        } else {
            output.par_chunks_mut(rows * row).zip(input.par_chunks(full_size)).for_each(|(block, full)| {
                for (r, block) in block.chunks_exact_mut(row).enumerate() {
                    block.copy_from_slice(&full[place(r)..][..row]);
                }
            });
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let inset = Inset::at_start(self.block, self.full, self.components)?;
        let (from, to) = (gpu.input(0), gpu.output(0));
        Some(if self.into_full {
            let items = gpu.output_len(0) / (self.full.iter().product::<usize>() * self.components);
            gpu.put(&inset, items, from, to)
        } else {
            let items = gpu.input_len(0) / (self.full.iter().product::<usize>() * self.components);
            gpu.cut(&inset, items, from, to)
        })
    }
}

impl LinearOperator for Wavelet {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let items = x.elem_count() / self.space.elements();
        self.level(&self.levels[0], true, x, out, ws)?;
        for level in &self.levels[1..] {
            let (mut coarse, mut next) =
                (self.compact(&level.block, items, ws)?, self.compact(&level.block, items, ws)?);
            self.exchange(&level.block, out.tensor(), &mut coarse, false)?;
            self.level(level, true, coarse.tensor(), &mut next, ws)?;
            self.exchange(&level.block, next.tensor(), out, true)?;
            ws.give(coarse);
            ws.give(next);
        }
        Ok(())
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let items = y.elem_count() / self.space.elements();
        let mut full = ws.take_shape(y.dims(), y.dtype(), y.device())?;
        full.copy_from(y)?;
        for level in self.levels[1..].iter().rev() {
            let (mut coarse, mut next) =
                (self.compact(&level.block, items, ws)?, self.compact(&level.block, items, ws)?);
            self.exchange(&level.block, full.tensor(), &mut coarse, false)?;
            self.level(level, false, coarse.tensor(), &mut next, ws)?;
            self.exchange(&level.block, next.tensor(), &mut full, true)?;
            ws.give(coarse);
            ws.give(next);
        }
        self.level(&self.levels[0], false, full.tensor(), out, ws)?;
        ws.give(full);
        Ok(())
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        out.copy_from(x)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::tensor::random::{Noise, standard_normal};
    use crate::tensor::vector;
    use crate::testing::{check_operator, relative_difference};

    fn families() -> Vec<Family> {
        let daubechies = (2..=8).map(Family::Daubechies);
        [Family::Haar].into_iter().chain(daubechies).chain((4..=8).map(Family::Symlet)).collect()
    }

    #[test]
    fn filters_are_orthonormal_with_their_vanishing_moments() {
        for family in families() {
            let h = family.filter().unwrap();
            let moments = h.len() / 2;
            for shift in 0..moments {
                let product: f64 = h[2 * shift..].iter().zip(h).map(|(a, b)| a * b).sum();
                let expected = if shift == 0 { 1.0 } else { 0.0 };
                assert!(
                    (product - expected).abs() < 4e-16 * h.len() as f64,
                    "{family:?} shifted by {shift}: {product}"
                );
            }
            for power in 0..moments {
                let alternating =
                    |(k, h): (usize, &f64)| if k.is_multiple_of(2) { *h } else { -h } * (k as f64).powi(power as i32);
                let moment: f64 = h.iter().enumerate().map(alternating).sum();
                let size: f64 =
                    h.iter().enumerate().map(|(k, h)| h.abs() * (k as f64).powi(power as i32)).sum();
                assert!(moment.abs() < 1e-14 * size, "{family:?}: moment {power} is {moment:e}");
            }
        }
    }

    #[test]
    fn transforms_are_orthonormal_on_any_shape() {
        for (family, (shape, axes, levels)) in families().into_iter().zip(
            [
                (&[16, 12][..], 2, 2),
                (&[7, 9], 2, 3),
                (&[3, 8, 10], 2, 1),
                (&[6, 5, 11], 3, 2),
                (&[1, 40], 2, 4),
                (&[33], 1, 9),
            ]
            .into_iter()
            .cycle(),
        ) {
            for dtype in [DType::F32, DType::F64] {
                for space in
                    [Space::real(shape, dtype, &Device::Cpu), Space::complex(shape, dtype, &Device::Cpu)]
                {
                    let w = Wavelet::new(&space, axes, family, levels).unwrap();
                    check_operator(&w).unwrap();
                    let x = standard_normal(Noise::new(2, 0), &space, &[2]).unwrap();
                    let y = w.apply(&x).unwrap();
                    let allowed = if dtype == DType::F32 { 2e-6 } else { 1e-14 };
                    assert!(relative_difference(&w.adjoint(&y).unwrap(), &x).unwrap() < allowed);
                    assert!(
                        relative_difference(&w.apply(&w.adjoint(&x).unwrap()).unwrap(), &x).unwrap()
                            < allowed
                    );
                }
            }
        }
    }

    #[test]
    fn haar_is_sums_and_differences() {
        let space = Space::real(&[2, 4], DType::F64, &Device::Cpu);
        let x = Tensor::new(&[[1f64, 3., 5., 7.], [2., 2., 2., 2.]], &Device::Cpu).unwrap();
        let y =
            Wavelet::new(&space, 2, Family::Haar, 1).unwrap().apply(&x).unwrap().to_vec2::<f64>().unwrap();
        let expected = [[4.0, 8.0, -1.0, -1.0], [0.0, 4.0, -1.0, -1.0]];
        for (y, e) in y.iter().flatten().zip(expected.iter().flatten()) {
            assert!((y - e).abs() < 1e-14, "{y} against {e}");
        }
    }

    #[test]
    fn polynomials_leave_no_details_inside() {
        let space = Space::real(&[64], DType::F64, &Device::Cpu);
        let ramp: Vec<f64> = (0..64).map(|i| (i as f64 / 10.0).powi(2)).collect();
        let x = Tensor::from_vec(ramp, 64, &Device::Cpu).unwrap();
        let y = Wavelet::new(&space, 1, Family::Daubechies(3), 1).unwrap().apply(&x).unwrap();
        assert!(y.to_vec1::<f64>().unwrap()[32..62].iter().all(|d| d.abs() < 1e-9));
    }

    #[test]
    fn detail_weights_spare_the_coarsest_band() {
        let space = Space::complex(&[3, 20, 12], DType::F32, &Device::Cpu);
        let w = Wavelet::new(&space, 2, Family::Haar, 2).unwrap();
        let weights = w.detail_weights().unwrap();
        assert_eq!(weights.dims(), [3, 20, 12, 2]);
        let zeros = 3 * 5 * 3 * 2;
        assert_eq!(vector::inner(&weights, &weights, 1).unwrap()[0] as usize, 3 * 20 * 12 * 2 - zeros);
        assert_eq!(
            weights.get(1).unwrap().get(4).unwrap().get(2).unwrap().to_vec1::<f32>().unwrap(),
            [0.0; 2]
        );
    }

    #[test]
    fn bad_parameters_are_refused() {
        let space = Space::real(&[8, 8], DType::F64, &Device::Cpu);
        assert!(Wavelet::new(&space, 3, Family::Haar, 1).is_err());
        assert!(Wavelet::new(&space, 2, Family::Haar, 0).is_err());
        assert!(Wavelet::new(&space, 2, Family::Daubechies(9), 1).is_err());
        assert!(Wavelet::new(&space, 2, Family::Symlet(3), 1).is_err());
    }
}
