//! Beam hardening: a thick object lets through a harder spectrum than a thin one, and looks thinner than it is.

use candle_core::Tensor;
use ndarray::{Array1, Array2};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::dense::Qr;
use crate::tensor::{Buffer, Kernel, Real, launch, vector};

/// The polynomial c₁ p + c₂ p² + … that makes measured line integrals p proportional to the path through one material
/// (Herman, Phys. Med. Biol. 24:81, 1979). Air stays 0.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamHardening {
    /// c₁, c₂, …
    pub coefficients: Vec<f64>,
}

impl BeamHardening {
    /// The polynomial of this degree that fits pairs (measured, ideal) best.
    ///
    /// ```
    /// use wellposed::reconstruct::preprocess::BeamHardening;
    /// let pairs: Vec<(f64, f64)> = (0..9).map(|i| f64::from(i) / 2.0).map(|p| (p, p + 0.1 * p * p)).collect();
    /// let fit = BeamHardening::fit(&pairs, 2)?;
    /// assert!((fit.coefficients[0] - 1.0).abs() < 1e-9 && (fit.coefficients[1] - 0.1).abs() < 1e-9);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where the degree isn't in 1…8 or numbers are not finite; [`Error::Shape`], [`Error::Singular`]
    /// where there are fewer (different) measured values than coefficients.
    pub fn fit(pairs: &[(f64, f64)], degree: usize) -> Result<Self> {
        if !(1..=8).contains(&degree) {
            return Err(Error::parameter("degree", degree, "must be in 1…8"));
        }
        if pairs.iter().any(|(p, q)| !(p.is_finite() && q.is_finite())) {
            return Err(Error::parameter("pairs", format!("{pairs:?}"), "must be finite"));
        }
        // Powers of what is at most 1 in size.
        let size = pairs.iter().map(|(p, _)| p.abs()).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let powers =
            Array2::from_shape_fn((pairs.len(), degree), |(i, k)| (pairs[i].0 / size).powi(k as i32 + 1));
        let ideal: Array1<f64> = pairs.iter().map(|(_, q)| *q).collect();
        let fit = Qr::new("powers of the measured values", powers.view())?.solve_vector(ideal.view())?;
        Ok(Self { coefficients: fit.iter().enumerate().map(|(k, c)| c / size.powi(k as i32 + 1)).collect() })
    }

    /// Corrected line integrals, of any shape.
    ///
    /// # Errors
    /// [`Error::Parameter`] where there is no coefficient or one isn't finite; [`Error::NotFinite`].
    pub fn correct(&self, line_integrals: &Tensor) -> Result<Tensor> {
        if self.coefficients.is_empty() || self.coefficients.iter().any(|c| !c.is_finite()) {
            let found = format!("{:?}", self.coefficients);
            return Err(Error::parameter("beam-hardening coefficients", found, "at least one, all finite"));
        }
        vector::require_finite("line integrals", line_integrals)?;
        let mut out = Buffer::copy_of(line_integrals)?;
        launch(Horner(&self.coefficients), &[], &mut [&mut out])?;
        Ok(out.freeze())
    }
}

struct Horner<'a>(&'a [f64]);

impl Kernel for Horner<'_> {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let coefficients: Vec<T> = self.0.iter().rev().map(|c| T::of(*c)).collect();
        outputs[0].par_iter_mut().with_min_len(1 << 12).for_each(|p| {
            *p = coefficients.iter().fold(T::zero(), |sum, c| (sum + *c) * *p);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn two_energies_become_straight() {
        // Half of the photons at μ = .3, half at .2, through 0 to 20 of thickness.
        let seen = |d: f64| -(0.5 * (-0.3 * d).exp() + 0.5 * (-0.2 * d).exp()).ln();
        let depths: Vec<f64> = (0..=40).map(|i| f64::from(i) / 2.0).collect();
        let pairs: Vec<(f64, f64)> = depths.iter().map(|d| (seen(*d), 0.25 * d)).collect();
        let correction = BeamHardening::fit(&pairs, 4).unwrap();
        let p =
            Tensor::from_vec(depths.iter().map(|d| seen(*d)).collect::<Vec<_>>(), 41, &Device::Cpu).unwrap();
        let straight = correction.correct(&p).unwrap().to_vec1::<f64>().unwrap();
        let off = |values: &[f64]| {
            values.iter().zip(&depths).map(|(v, d)| (v - 0.25 * d).abs()).fold(0.0, f64::max)
        };
        assert!(off(&straight) < 0.01 && off(&p.to_vec1::<f64>().unwrap()) > 0.3, "{}", off(&straight));
        assert!(BeamHardening::fit(&pairs[..1], 1).is_err() && BeamHardening::fit(&pairs, 9).is_err());
        assert!(BeamHardening { coefficients: vec![] }.correct(&p).is_err());
    }
}
