//! Simulated scans: receive coils around the object, and receiver noise.

use candle_core::{DType, Device, Tensor};
use num_complex::Complex;
use rayon::prelude::*;

use super::Sense;
use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::random::{Noise, normal};
use crate::tensor::{Buffer, Real, vector};

/// Maps [coil, y, x, 2] of `coils` receive coils on a circle around the field of view, with Σ|S|² = 1 at every
/// point.
///
/// Each coil is a long straight wire across the plane: by Biot and Savart its transverse field at z = x + iy is
/// ∝ 1/(z − z_c), smooth in magnitude and phase within the circle. The wires lie at about 1.8 times the half
/// width of the field of view; the seed moves each a little and sets its phase.
///
/// ```
/// use candle_core::{Device, DType};
/// let maps = wellposed::operator::mri::birdcage(8, [64, 64], 1, DType::F32, &Device::Cpu)?;
/// assert_eq!(maps.dims(), [8, 64, 64, 2]);
/// assert!((maps.sqr()?.sum((0, 3))?.get(5)?.get(7)?.to_scalar::<f32>()? - 1.0).abs() < 1e-5);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Parameter`] for no coil, [`Error::Shape`] for an empty field of view.
pub fn birdcage(coils: usize, shape: [usize; 2], seed: u64, dtype: DType, device: &Device) -> Result<Tensor> {
    if coils == 0 {
        return Err(Error::parameter("coils", coils, "at least one is needed"));
    }
    let [height, width] = shape;
    if height * width == 0 {
        return Err(Error::shape("coil maps", "[y, x] with at least one point each", &shape));
    }
    let noise = Noise::new(seed, 0x636f_696c);
    let wires: Vec<(Complex<f64>, Complex<f64>)> = (0..coils as u64)
        .map(|coil| {
            let ((turn, reach), phase) = (noise.uniform_pair(coil), noise.at(1).uniform(coil));
            let angle = std::f64::consts::TAU * (coil as f64 + 0.3 * (turn - 0.5)) / coils as f64;
            let place = Complex::from_polar(1.8 + 0.2 * (reach - 0.5), angle);
            (place, Complex::from_polar(1.0, std::f64::consts::TAU * phase))
        })
        .collect();
    let item = height * width;
    let mut maps = vec![0.0; 2 * coils * item];
    let points: Vec<Vec<Complex<f64>>> = (0..item)
        .into_par_iter()
        .map(|i| {
            let part = |k: usize, n: usize| (k as f64 - (n / 2) as f64) / (0.5 * n as f64);
            let z = Complex::new(part(i % width, width), part(i / width, height));
            let fields: Vec<_> = wires.iter().map(|(place, phase)| phase / (z - place)).collect();
            let size = fields.iter().map(|f| f.norm_sqr()).sum::<f64>().sqrt();
            fields.into_iter().map(|f| f / size).collect()
        })
        .collect();
    for (i, fields) in points.iter().enumerate() {
        for (coil, field) in fields.iter().enumerate() {
            let at = 2 * (coil * item + i);
            (maps[at], maps[at + 1]) = (field.re, field.im);
        }
    }
    Ok(f64::tensor(maps, &[coils, height, width, 2])?.to_dtype(dtype)?.to_device(device)?)
}

/// K-space of an image with receiver noise: M (F S x + n), where the real and the imaginary part of every n are
/// normal with standard deviation `sigma`. With orthonormal transforms that is also the noise of a fully
/// sampled image.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use wellposed::{operator::mri::{Sampling, Sense, birdcage, measure}, tensor::random::Noise};
/// let maps = birdcage(4, [32, 32], 1, DType::F32, &Device::Cpu)?;
/// let encoding = Sense::new(&maps, &Sampling::default().draw([32, 32])?)?;
/// let image = Tensor::ones((32, 32, 2), DType::F32, &Device::Cpu)?;
/// let kspace = measure(&encoding, &image, 0.01, Noise::new(1, 0))?;
/// assert_eq!(kspace.dims(), [4, 32, 32, 2]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Parameter`] where sigma is negative or not finite; a shape error where the image does not fit.
pub fn measure(encoding: &Sense, image: &Tensor, sigma: f64, noise: Noise) -> Result<Tensor> {
    if !(sigma >= 0.0 && sigma.is_finite()) {
        return Err(Error::parameter("sigma", sigma, "must be at least 0"));
    }
    let clean = encoding.apply(image)?;
    let mut draw = Buffer::copy_of(&clean)?;
    normal(noise, &mut draw)?;
    let mut noisy = Buffer::copy_of(&clean)?;
    vector::multiply(encoding.mask(), vector::Weights::RealOnComplex, draw.tensor(), &mut noisy)?;
    vector::accumulate(sigma, &[(1.0, &clean)], &mut noisy)?;
    Ok(noisy.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::mri::Sampling;

    #[test]
    fn coils_are_normalised_smooth_and_seeded() {
        let draw = |seed| birdcage(6, [40, 48], seed, DType::F64, &Device::Cpu).unwrap();
        let values = f64::to_vec(&draw(2)).unwrap();
        let maps: Vec<&[Complex<f64>]> = crate::tensor::as_complex(&values).chunks(40 * 48).collect();
        for i in 0..40 * 48 {
            let energy: f64 = maps.iter().map(|m| m[i].norm_sqr()).sum();
            assert!((energy - 1.0).abs() < 1e-12);
        }
        let steepest = maps.iter().flat_map(|m| m.windows(2)).enumerate();
        let steepest = steepest.filter(|(i, _)| i % (40 * 48 - 1) % 48 != 47);
        assert!(steepest.map(|(_, w)| (w[1] - w[0]).norm()).fold(0.0, f64::max) < 0.15);
        assert_ne!(values, f64::to_vec(&draw(3)).unwrap());
    }

    #[test]
    fn noise_has_its_standard_deviation_where_sampled() {
        let maps = birdcage(4, [64, 64], 1, DType::F32, &Device::Cpu).unwrap();
        let encoding = Sense::new(&maps, &Sampling::default().draw([64, 64]).unwrap()).unwrap();
        let zero = encoding.domain().zeros(&[]).unwrap();
        let noise = f32::to_vec(&measure(&encoding, &zero, 0.5, Noise::new(1, 0)).unwrap()).unwrap();
        let sampled: Vec<f32> = noise.into_iter().filter(|v| *v != 0.0).collect();
        assert_eq!(sampled.len(), 2 * 4 * 64 * 16);
        let variance = sampled.iter().map(|v| f64::from(v * v)).sum::<f64>() / sampled.len() as f64;
        assert!((variance / 0.25 - 1.0).abs() < 5.0 * (2.0 / sampled.len() as f64).sqrt());
    }
}
