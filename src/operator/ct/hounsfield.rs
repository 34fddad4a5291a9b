//! Attenuation μ in 1/mm and Hounsfield units: μ = μ_water (1 + HU/1000).

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tensor::{Buffer, Kernel, Real, launch};

/// Attenuation of water at about 70 keV, 1/mm.
pub const MU_WATER: f64 = 0.0192;

/// μ = max(0, μ_water (1 + HU/1000)): nothing attenuates less than vacuum, whatever scanners pad with.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::operator::ct::hounsfield::{MU_WATER, to_attenuation};
/// let hu = Tensor::new(&[-2000f64, -1000.0, 0.0], &Device::Cpu)?;
/// assert_eq!(to_attenuation(&hu, MU_WATER)?.to_vec1::<f64>()?, [0.0, 0.0, 0.0192]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Parameter`] unless μ_water is positive.
pub fn to_attenuation(hu: &Tensor, mu_water: f64) -> Result<Tensor> {
    affine(hu, mu_water, mu_water / 1000.0, mu_water, 0.0)
}

/// HU = 1000 (μ/μ_water − 1).
///
/// # Errors
/// [`Error::Parameter`] unless μ_water is positive.
pub fn from_attenuation(mu: &Tensor, mu_water: f64) -> Result<Tensor> {
    affine(mu, mu_water, 1000.0 / mu_water, -1000.0, f64::NEG_INFINITY)
}

/// max(floor, scale·x + shift).
fn affine(x: &Tensor, mu_water: f64, scale: f64, shift: f64, floor: f64) -> Result<Tensor> {
    struct Affine(f64, f64, f64);
    impl Kernel for Affine {
        type Output = ();
        fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let (scale, shift, floor) = (T::of(self.0), T::of(self.1), T::of(self.2));
            outputs[0]
                .par_iter_mut()
                .with_min_len(1 << 14)
                .for_each(|o| *o = (scale * *o + shift).max(floor));
            Ok(())
        }
    }
    if !(mu_water.is_finite() && mu_water > 0.0) {
        return Err(Error::parameter("attenuation of water", mu_water, "must be positive, in 1/mm"));
    }
    let mut out = Buffer::copy_of(x)?;
    launch(Affine(scale, shift, floor), &[], &mut [&mut out])?;
    Ok(out.freeze())
}
