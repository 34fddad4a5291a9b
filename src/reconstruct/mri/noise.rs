//! The noise of k-space, for want of a noise scan.

use candle_core::Tensor;
use ndarray::{Array2, ArrayView2, Axis, s};
use num_complex::Complex64;

use super::coils::adjoint;
use crate::error::{Error, Result};
use crate::linalg::dense::{HermitianEigen, matmul};
use crate::tensor::{Real, as_complex};

/// Of so many channels one is taken to hold little but noise in the outer columns.
const CHANNELS: usize = 4;

/// The standard deviation of the noise of the real (or imaginary) part of the samples of `kspace`
/// [(batch…, coil,) line, sample, 2], where none was measured: from the median size of what was sampled in the outer
/// quarter of its columns, where there is little signal.
///
/// Channels see the same signal and each their own noise. Of four and more channels, those orthonormal combinations
/// are looked at that hold least, a quarter of them; half of the samples says which these are and the other half how
/// much they hold. On small matrices, whose outer columns are full of signal, that is much closer. Channels are taken to be
/// equally noisy, as they are after [`super::prewhiten`]; of others this is the noise of the quieter ones. What signal is
/// left makes it too large.
///
/// ```
/// use candle_core::{DType, Device};
/// use wellposed::{reconstruct::mri::estimate_noise, tensor::{Space, random::{Noise, standard_normal}}};
/// let noise = standard_normal(Noise::new(1, 0), &Space::complex(&[8, 64, 64], DType::F32, &Device::Cpu), &[])?;
/// assert!((estimate_noise(&noise)? - 1.0).abs() < 0.03);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] where the array is not k-space, [`Error::Parameter`] where nothing was sampled there.
pub fn estimate_noise(kspace: &Tensor) -> Result<f64> {
    let &[ref batch @ .., lines, columns, 2] = kspace.dims() else {
        return Err(Error::shape("k-space", "[(batch…, coil,) ky, kx, 2]", kspace.dims()));
    };
    let channels = batch.last().copied().unwrap_or(1).max(1);
    let (axis, edge) = (kspace.rank() - 2, (columns / 8).max(1).min(columns));
    let outer =
        Tensor::cat(&[kspace.narrow(axis, 0, edge)?, kspace.narrow(axis, columns - edge, edge)?], axis)?;
    let by_sample = outer.reshape(((), channels, lines * 2 * edge, 2))?.transpose(1, 2)?.flatten_all()?;
    let values = f64::to_vec(&by_sample)?;
    let sampled: Vec<Complex64> = as_complex(&values)
        .chunks_exact(channels)
        .filter(|sample| sample.iter().any(|v| *v != Complex64::ZERO))
        .flatten()
        .copied()
        .collect();
    let samples = sampled.len() / channels;
    if samples == 0 {
        return Err(Error::parameter("noise", "unknown", "the outer columns of k-space hold no samples"));
    }
    let sampled = ArrayView2::from_shape((samples, channels), &sampled).map_err(candle_core::Error::wrap)?;
    if channels < CHANNELS || samples < 4 * channels {
        return Ok(median_deviation(sampled.iter()));
    }
    let quiet = quietest(sampled.slice(s![..;2, ..]), channels / CHANNELS)?;
    Ok(median_deviation(matmul(sampled.slice(s![1..;2, ..]), quiet.view())?.iter()))
}

/// The orthonormal combinations [channel, combination] of least energy in `samples` [sample, channel].
fn quietest(samples: ArrayView2<Complex64>, count: usize) -> Result<Array2<Complex64>> {
    let gram = matmul(adjoint(samples).view(), samples)?;
    let eigen = HermitianEigen::new("coil covariance", gram.view())?;
    Ok(eigen.vectors.select(Axis(1), &(0..count).collect::<Vec<_>>()))
}

/// The deviation of normal numbers, by the median of the sizes of their parts that are not 0.
fn median_deviation<'a>(values: impl Iterator<Item = &'a Complex64>) -> f64 {
    let mut sizes: Vec<f64> = values.flat_map(|v| [v.re.abs(), v.im.abs()]).filter(|v| *v > 0.0).collect();
    if sizes.is_empty() {
        return 0.0;
    }
    let middle = sizes.len() / 2;
    let (_, median, _) = sizes.select_nth_unstable_by(middle, f64::total_cmp);
    // The median of |n| is 0.6745 σ for normal n.
    1.4826 * *median
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::linalg::LinearOperator;
    use crate::operator::mri::{Pattern, Sampling, Sense, birdcage};
    use crate::tensor::Space;
    use crate::tensor::random::{Noise, standard_normal};

    fn normal(shape: &[usize], seed: u64) -> Tensor {
        standard_normal(Noise::new(seed, 0), &Space::complex(shape, DType::F64, &Device::Cpu), &[]).unwrap()
    }

    /// Where the outer columns are full of signal, sampled in part, the noise is found below it.
    #[test]
    fn finds_noise_below_the_signal_of_small_matrices() {
        let shape = [48, 48];
        let maps = birdcage(8, shape, 1, DType::F64, &Device::Cpu).unwrap();
        let pattern = Pattern::PoissonDisc { calibration: 8, growth: 1.0, corners: true };
        let mask = Sampling { pattern, acceleration: 3.0, seed: 4 }.draw(shape).unwrap();
        let sense = Sense::new(&maps, &mask).unwrap();
        // A white object: as much signal at the edges as in the middle.
        let signal = sense.apply(&normal(&shape, 1)).unwrap();
        let sampled = signal.abs().unwrap().gt(0.0).unwrap().to_dtype(DType::F64).unwrap();
        let deviation = 0.02;
        let noise = (normal(&[8, 48, 48], 2).mul(&sampled).unwrap() * deviation).unwrap();
        let scan = (&signal + noise).unwrap();
        let found = estimate_noise(&scan).unwrap() / deviation;
        assert!(found > 0.95 && found < 1.5, "{found}");
        // One channel alone can't tell.
        assert!(estimate_noise(&scan.get(0).unwrap()).unwrap() > 10.0 * deviation);
    }

    #[test]
    fn a_scan_without_outer_samples_is_refused() {
        let nothing = Tensor::zeros((4, 8, 8, 2), DType::F64, &Device::Cpu).unwrap();
        assert!(matches!(estimate_noise(&nothing), Err(Error::Parameter { .. })));
        assert!(matches!(estimate_noise(&nothing.flatten_all().unwrap()), Err(Error::Shape { .. })));
    }
}
