//! Receive channels before reconstruction: noise made white, and many channels made few.

use candle_core::Tensor;
use ndarray::{Array2, ArrayView2, Axis};
use num_complex::{Complex, Complex64};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::dense::{Cholesky, HermitianEigen, Svd, matmul};
use crate::tensor::fft::{Direction, Origin, transform};
use crate::tensor::{Buffer, Kernel, Real, as_complex, as_complex_mut, launch, vector};

/// The covariance Ψ [coil, coil] of the channels' noise from `noise` [coil, sample, 2] without signal: Ψ = Σ n nᴴ / 2
/// over the number of samples, so that for independent channels of deviation σ in the real and in the imaginary part it
/// is σ² on the diagonal.
///
/// # Errors
/// [`Error::Shape`] unless noise is [coil, sample, 2] with at least as many samples as coils; [`Error::NotFinite`].
pub fn noise_covariance(noise: &Tensor) -> Result<Array2<Complex64>> {
    let &[coils, samples, 2] = noise.dims() else {
        return Err(Error::shape("noise scan", "[coil, sample, 2]", noise.dims()));
    };
    if samples < coils || coils == 0 {
        return Err(Error::shape("noise scan", "at least as many samples as coils", noise.dims()));
    }
    vector::require_finite("noise scan", noise)?;
    let values = f64::to_vec(noise)?;
    let n =
        ArrayView2::from_shape((coils, samples), as_complex(&values)).map_err(candle_core::Error::wrap)?;
    Ok(matmul(n, adjoint(n).view())? / Complex64::from(2.0 * samples as f64))
}

/// L⁻¹ y for the Cholesky factor L of the noise `covariance`: channels whose noise is independent and of deviation 1 in
/// real and imaginary parts (Pruessmann et al. 2001, section on noise). `kspace` is [batch…, coil, ky, kx, 2]; this
/// comes before everything else.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::reconstruct::mri::{noise_covariance, prewhiten};
/// let noise = Tensor::randn(0f32, 3.0, (4, 1000, 2), &Device::Cpu)?;
/// let kspace = Tensor::randn(0f32, 3.0, (4, 16, 16, 2), &Device::Cpu)?;
/// let white = prewhiten(&kspace, &noise_covariance(&noise)?)?;
/// assert!((white.sqr()?.mean_all()?.to_scalar::<f32>()? - 1.0).abs() < 0.2);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::NotPositiveDefinite`] where a channel has no noise of its own; a shape error where the channels differ.
pub fn prewhiten(kspace: &Tensor, covariance: &Array2<Complex64>) -> Result<Tensor> {
    let factor = Cholesky::new("noise covariance", covariance.view())?;
    mix(kspace, coil_axis(kspace)?, &factor.whiten(Array2::eye(covariance.nrows()).view())?)
}

/// K-space of fewer, virtual coils.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// [batch…, virtual coil, ky, kx, 2].
    pub kspace: Tensor,
    /// The part of the energy that they hold.
    pub kept: f64,
}

/// The `coils` combinations of channels that hold most of the energy of `kspace` [batch…, coil, ky, kx, 2], by
/// singular-value decomposition over all samples (Buehrer et al. 2007; Huang et al. 2008). They are orthonormal, so
/// that white noise stays white.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::reconstruct::mri::compress_coils;
/// let one = Tensor::randn(0f32, 1.0, (1, 16, 16, 2), &Device::Cpu)?;
/// let kspace = Tensor::cat(&[&one, &(&one * 2.0)?, &(&one * -1.0)?], 0)?;
/// let compressed = compress_coils(&kspace, 1)?; // three channels that see the same
/// assert!(compressed.kept > 0.999999);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] where there is no coil axis; [`Error::Parameter`] unless 1 ≤ `coils` ≤ channels;
/// [`Error::NotFinite`] for NaN.
pub fn compress_coils(kspace: &Tensor, coils: usize) -> Result<Compressed> {
    let channels = check(kspace, coils)?;
    let axis = coil_axis(kspace)?;
    let item = kspace.dims()[axis + 1..].iter().product::<usize>() / 2;
    let gram = launch(Gram { channels, item }, &[kspace], &mut [])?;
    let (basis, kept) = leading(&gram, coils)?;
    Ok(Compressed { kspace: mix(kspace, axis, &adjoint(basis.view()))?, kept })
}

/// As [`compress_coils`], with combinations of their own at each position along the fully sampled readout, aligned with
/// those of its neighbours (geometric coil compression: Zhang, Pauly, Vasanawala, Lustig 2013). Fewer coils hold as
/// much. `readout` is 0 where ky is fully sampled and 1 where kx is.
///
/// # Errors
/// As [`compress_coils`]; [`Error::Parameter`] where `readout` is neither.
pub fn compress_coils_along(kspace: &Tensor, coils: usize, readout: usize) -> Result<Compressed> {
    let channels = check(kspace, coils)?;
    if readout > 1 {
        return Err(Error::parameter("readout", readout, "0 for ky or 1 for kx"));
    }
    let mut shape = kspace.dims().to_vec();
    let axis = coil_axis(kspace)?;
    let [height, width] = [shape[axis + 1], shape[axis + 2]];
    let (positions, lines) = if readout == 0 { (height, width) } else { (width, height) };
    // [batch, coil, line, position, 2], and positions in front for what happens at each.
    let split = kspace.reshape(((), channels, height, width, 2))?;
    let ordered = if readout == 0 { split.transpose(2, 3)?.contiguous()? } else { split };
    let hybrid = one_way(&ordered, Direction::Inverse)?.permute([3, 0, 1, 2, 4])?.contiguous()?;
    let grams = (0..positions)
        .map(|x| launch(Gram { channels, item: lines }, &[&hybrid.get(x)?], &mut []))
        .collect::<Result<Vec<_>>>()?;
    let bases = grams.iter().map(|g| leading(g, coils)).collect::<Result<Vec<_>>>()?;
    let strength: Vec<f64> = grams.iter().map(energy).collect();
    let total: f64 = strength.iter().sum();
    let kept = bases.iter().zip(&strength).map(|((_, kept), s)| kept * s).sum::<f64>()
        / total.max(f64::MIN_POSITIVE);
    let aligned = align(bases.into_iter().map(|(basis, _)| basis).collect())?;
    let parts = (0..positions)
        .map(|x| mix(&hybrid.get(x)?, 1, &adjoint(aligned[x].view())))
        .collect::<Result<Vec<_>>>()?;
    let mixed = Tensor::stack(&parts, 0)?.permute([1, 2, 3, 0, 4])?.contiguous()?;
    let back = one_way(&mixed, Direction::Forward)?;
    let back = if readout == 0 { back.transpose(2, 3)?.contiguous()? } else { back };
    shape[axis] = coils;
    Ok(Compressed { kspace: back.reshape(shape)?, kept })
}

/// The transform along the last axis.
fn one_way(x: &Tensor, direction: Direction) -> Result<Tensor> {
    let mut out = Buffer::copy_of(x)?;
    transform(x, 1, direction, Origin::Centre, &mut out)?;
    Ok(out.freeze())
}

/// The axis of coils, in front of ky, kx and the parts.
fn coil_axis(kspace: &Tensor) -> Result<usize> {
    let [.., _, _, _, 2] = *kspace.dims() else {
        return Err(Error::shape("k-space", "[batch…, coil, ky, kx, 2]", kspace.dims()));
    };
    Ok(kspace.rank() - 4)
}

/// The number of channels.
fn check(kspace: &Tensor, coils: usize) -> Result<usize> {
    let [.., channels, _, _, 2] = *kspace.dims() else {
        return Err(Error::shape("k-space", "[batch…, coil, ky, kx, 2]", kspace.dims()));
    };
    if !(1..=channels).contains(&coils) {
        return Err(Error::parameter("virtual coils", coils, format!("must lie between 1 and {channels}")));
    }
    vector::require_finite("k-space", kspace)?;
    Ok(channels)
}

/// The eigenvectors of the `count` largest eigenvalues, largest first, and the part of the energy that they hold.
fn leading(gram: &Array2<Complex64>, count: usize) -> Result<(Array2<Complex64>, f64)> {
    let eigen = HermitianEigen::new("coil covariance", gram.view())?;
    let channels = gram.nrows();
    let order: Vec<usize> = (0..count).map(|i| channels - 1 - i).collect();
    let held: f64 = order.iter().map(|i| eigen.values[*i]).sum();
    let total = energy(gram);
    Ok((eigen.vectors.select(Axis(1), &order), if total > 0.0 { held / total } else { 1.0 }))
}

fn energy(gram: &Array2<Complex64>) -> f64 {
    gram.diag().iter().map(|v| v.re).sum()
}

/// Turns each basis within its span so that it is closest to that of its neighbour, from the middle outwards: what a
/// virtual coil sees then changes smoothly along the readout.
fn align(mut bases: Vec<Array2<Complex64>>) -> Result<Vec<Array2<Complex64>>> {
    let middle = bases.len() / 2;
    let outwards = (middle + 1..bases.len()).map(|x| (x, x - 1)).chain((0..middle).rev().map(|x| (x, x + 1)));
    for (x, neighbour) in outwards {
        let overlap = matmul(adjoint(bases[x].view()).view(), bases[neighbour].view())?;
        let svd = Svd::new("overlap of coil bases", overlap.view())?;
        let turn = matmul(svd.u.view(), svd.v_adjoint.view())?;
        bases[x] = matmul(bases[x].view(), turn.view())?;
    }
    Ok(bases)
}

/// Σ y yᴴ over everything but the channels of [batch, channel, item], the sizes in complex numbers.
struct Gram {
    channels: usize,
    item: usize,
}

impl Kernel for Gram {
    type Output = Array2<Complex64>;
    fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<Array2<Complex64>> {
        let Self { channels, item } = self;
        let product = |i: usize, j: usize| -> Complex64 {
            let sets = as_complex(inputs[0]).chunks_exact(channels * item);
            let inner = |set: &[Complex<T>]| -> Complex64 {
                let pairs = set[i * item..][..item].iter().zip(&set[j * item..][..item]);
                pairs.fold(Complex64::ZERO, |sum, (a, b)| sum + double(*a) * double(*b).conj())
            };
            sets.map(inner).sum()
        };
        // Each element is one sum, in order: the same for any number of threads.
        let lower: Vec<Vec<Complex64>> =
            (0..channels).into_par_iter().map(|i| (0..=i).map(|j| product(i, j)).collect()).collect();
        Ok(Array2::from_shape_fn(
            (channels, channels),
            |(i, j)| {
                if i >= j { lower[i][j] } else { lower[j][i].conj() }
            },
        ))
    }
}

fn double<T: Real>(v: Complex<T>) -> Complex64 {
    Complex::new(v.re.as_f64(), v.im.as_f64())
}

/// The combinations `matrix` [out, in] of the channels of `x` [batch…, in, …, 2], whose channel axis is `axis`.
fn mix(x: &Tensor, axis: usize, matrix: &Array2<Complex64>) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    if shape[axis] != matrix.ncols() {
        return Err(Error::shape("k-space", format!("{} coils, as the matrix", matrix.ncols()), &shape));
    }
    let item = shape[axis + 1..].iter().product::<usize>() / 2;
    shape[axis] = matrix.nrows();
    let mut out = Buffer::zeros(&shape, x.dtype(), x.device())?;
    launch(Mix { matrix, item }, &[x], &mut [&mut out])?;
    Ok(out.freeze())
}

struct Mix<'a> {
    matrix: &'a Array2<Complex64>,
    item: usize,
}

impl Kernel for Mix<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (made, given) = self.matrix.dim();
        let x = as_complex(inputs[0]);
        as_complex_mut(outputs[0]).par_chunks_mut(self.item).enumerate().for_each(|(i, out)| {
            out.fill(Complex::new(T::zero(), T::zero()));
            let set = &x[i / made * given * self.item..];
            for (w, channel) in self.matrix.row(i % made).iter().zip(set.chunks_exact(self.item)) {
                let w = Complex::new(T::of(w.re), T::of(w.im));
                out.iter_mut().zip(channel).for_each(|(o, v)| *o += w * v);
            }
        });
        Ok(())
    }
}

pub(super) fn adjoint(a: ArrayView2<Complex64>) -> Array2<Complex64> {
    a.t().mapv(|v| v.conj())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::linalg::LinearOperator;
    use crate::operator::mri::{Sense, birdcage};
    use crate::tensor::Space;
    use crate::tensor::random::{Noise, standard_normal};
    use crate::testing::relative_difference;

    fn noise(shape: &[usize], seed: u64) -> Tensor {
        standard_normal(Noise::new(seed, 0), &Space::complex(shape, DType::F64, &Device::Cpu), &[]).unwrap()
    }

    /// K-space of a smooth object seen by `coils` coils, all sampled.
    fn kspace(coils: usize) -> Tensor {
        let shape = [24, 20];
        let maps = birdcage(coils, shape, 1, DType::F64, &Device::Cpu).unwrap();
        let full = Tensor::ones((24, 20), DType::F64, &Device::Cpu).unwrap();
        Sense::new(&maps, &full).unwrap().apply(&noise(&[24, 20], 2)).unwrap()
    }

    #[test]
    fn whitened_noise_is_white() {
        let channels = mix(
            &noise(&[3, 20_000], 1),
            0,
            &Array2::from_shape_fn((3, 3), |(i, j)| {
                Complex64::new([2.0, 0.4, 0.1][i.abs_diff(j)], 0.3 * (i as f64 - j as f64))
            }),
        )
        .unwrap();
        let covariance = noise_covariance(&channels).unwrap();
        let white = prewhiten(&channels.reshape((3, 200, 100, 2)).unwrap(), &covariance).unwrap();
        let again = noise_covariance(&white.reshape((3, 20_000, 2)).unwrap()).unwrap();
        for ((i, j), v) in again.indexed_iter() {
            assert!((v - Complex64::from(f64::from(u8::from(i == j)))).norm() < 1e-10, "{again:?}");
        }
        // One coil without noise of its own can't be divided by it.
        let dead = Tensor::cat(&[&channels, &channels.narrow(0, 0, 1).unwrap()], 0).unwrap();
        assert!(prewhiten(&kspace(4), &noise_covariance(&dead).unwrap()).is_err());
    }

    #[test]
    fn all_virtual_coils_lose_nothing_and_few_keep_most() {
        let full = kspace(12);
        let energy = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        for readout in [None, Some(0), Some(1)] {
            let run = |coils| match readout {
                None => compress_coils(&full, coils).unwrap(),
                Some(axis) => compress_coils_along(&full, coils, axis).unwrap(),
            };
            let all = run(12);
            assert!(
                (energy(&all.kspace) / energy(&full) - 1.0).abs() < 1e-12 && (all.kept - 1.0).abs() < 1e-12
            );
            let few = run(4);
            assert_eq!(few.kspace.dims(), [4, 24, 20, 2]);
            assert!((energy(&few.kspace) / energy(&full) - few.kept).abs() < 1e-10 && few.kept > 0.9);
        }
        let (plain, along) =
            (compress_coils(&full, 3).unwrap().kept, compress_coils_along(&full, 3, 0).unwrap().kept);
        assert!(along > plain, "{along} {plain}");
    }

    #[test]
    fn virtual_coils_are_smooth_along_the_readout() {
        // The same object everywhere along ky: the virtual coils of neighbours must then be nearly the same.
        let line = kspace(8);
        let compressed = compress_coils_along(&line, 3, 0).unwrap().kspace;
        let plain = compress_coils(&line, 3).unwrap().kspace;
        // Both see the same image energy at each point of the readout, up to the parts that they lost.
        assert!(
            relative_difference(
                &compressed.sqr().unwrap().sum_all().unwrap(),
                &plain.sqr().unwrap().sum_all().unwrap()
            )
            .unwrap()
                < 0.1
        );
        assert!(compress_coils_along(&line, 3, 2).is_err() && compress_coils(&line, 9).is_err());
    }
}
