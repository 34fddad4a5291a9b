//! Built-in problems with known solutions.
//!
//! The error of a solution is its relative ℓ2 distance from the exact one on a uniform grid with both ends: 300 points
//! in 1-D, 300² in 2-D, 100³ in 3-D.

mod cases;
mod exact;
mod jet;

pub use cases::cases;
pub use exact::{Exact, Profile};
pub use jet::Jet;

use ndarray::{Array1, ArrayD};

use super::problem::{Data, Derivative, Problem};
use super::solution::PdeSolution;
use crate::error::{Error, Result};
use crate::tensor::Space;
use crate::tensor::random::{Noise, standard_normal};

/// Where a case comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The published GP-HM benchmarks (Fang et al., 2311.04465), and Poisson in three dimensions.
    Reference,
    /// The classical equations.
    Equations,
    /// Solutions without sharp spectral lines, where polynomials do better than sinusoids.
    Broadband,
    /// Kept out of every choice of a default.
    Untuned,
}

/// A problem whose solution is known.
#[derive(Clone, Debug)]
pub struct Case {
    /// The name on the command line.
    pub name: &'static str,
    /// Where it comes from.
    pub group: Group,
    /// Equation and solution in one line.
    pub summary: &'static str,
    /// Points per axis that the error is reported for.
    pub points: usize,
    /// The problem.
    pub problem: Problem,
    /// Its solution.
    pub exact: Exact,
}

/// The built-in case called `name`.
///
/// ```
/// let case = wellposed::gp::benchmark::case("poisson-1d-sin")?;
/// assert_eq!(case.points, 400);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// No case has that name; the message lists those that exist.
pub fn case(name: &str) -> Result<Case> {
    let all = cases();
    let names: Vec<_> = all.iter().map(|case| case.name).collect();
    let missing = Error::parameter("case", name, format!("the built-in cases are {}", names.join(", ")));
    all.into_iter().find(|case| case.name == name).ok_or(missing)
}

impl Case {
    /// The uniform test grid.
    pub fn test_axes(&self) -> Vec<Array1<f64>> {
        self.problem.uniform_axes([300, 300, 100][self.problem.dim() - 1])
    }

    /// ‖u − u*‖ / ‖u*‖ of the posterior mean on the test grid.
    ///
    /// # Errors
    /// Those of the posterior.
    pub fn error_l2(&self, solution: &PdeSolution) -> Result<f64> {
        let axes = self.test_axes();
        Ok(relative_l2(&solution.mean_on_grid(&axes)?, &self.exact.on_grid(&axes, Derivative::VALUE)))
    }

    /// The share of the test grid where the exact solution lies within 1.96 posterior standard deviations of the mean.
    /// In more than one dimension 30 points per axis are used.
    ///
    /// # Errors
    /// Those of the posterior.
    pub fn coverage(&self, solution: &PdeSolution) -> Result<f64> {
        let axes = self.problem.uniform_axes([300, 30, 10][self.problem.dim() - 1]);
        let points = super::problem::tensor_grid(&axes);
        let (mean, deviation) = (solution.mean(&points)?, solution.deviation(&points)?);
        let exact = self.exact.on_grid(&axes, Derivative::VALUE).into_flat();
        Ok(covered(&mean, &deviation, &exact))
    }

    /// The same problem with its source known only on a uniform grid of `points` per axis, with Gaussian errors of
    /// standard deviation `level` · rms(f).
    ///
    /// # Errors
    /// The source can't be sampled, or has no size to scale the noise with.
    pub fn noisy(&self, points: usize, level: f64, seed: u64) -> Result<Self> {
        let axes = self.problem.uniform_axes(points);
        let mut values = self.problem.source.on_grid(&axes)?;
        let rms = (values.iter().map(|v| v * v).sum::<f64>() / values.len().max(1) as f64).sqrt();
        if rms == 0.0 {
            return Err(Error::parameter("noise", level, "relative noise needs a source that is not zero"));
        }
        let space = Space::real(&[values.len()], candle_core::DType::F64, &candle_core::Device::Cpu);
        let noise = standard_normal(Noise::new(seed, 0), &space, &[])?.to_vec1::<f64>()?;
        values.iter_mut().zip(noise).for_each(|(v, n)| *v += level * rms * n);
        let problem = self.problem.clone().source(Data::grid_samples(axes, values)?);
        let problem = Problem { source_noise: level * rms, ..problem };
        Ok(Self { problem, ..self.clone() })
    }
}

/// The share of points where `exact` lies within 1.96 standard deviations of the mean.
///
/// ```
/// use ndarray::array;
/// let exact = array![0.1, 0.3];
/// assert_eq!(wellposed::gp::benchmark::covered(&array![0.0, 0.0], &array![0.1, 0.1], &exact), 0.5);
/// ```
pub fn covered(mean: &Array1<f64>, deviation: &Array1<f64>, exact: &Array1<f64>) -> f64 {
    // Where the data are exact, rounding is all that is left.
    let inside = |m: f64, s: f64, u: f64| (m - u).abs() <= 1.96 * s + 1e-12;
    let hits = (0..mean.len()).filter(|&i| inside(mean[i], deviation[i], exact[i])).count();
    hits as f64 / mean.len().max(1) as f64
}

/// ‖a − b‖ / ‖b‖.
pub fn relative_l2(a: &ArrayD<f64>, b: &ArrayD<f64>) -> f64 {
    let error: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (error / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gp::problem::tensor_grid;

    #[test]
    fn every_case_is_valid_and_its_name_unique() {
        let all = cases();
        for case in &all {
            assert!(case.problem.validate().is_ok(), "{}: {:?}", case.name, case.problem.validate());
            assert_eq!(all.iter().filter(|other| other.name == case.name).count(), 1);
        }
        assert!(case("nothing").is_err());
    }

    /// The source of every case equals L u + N(u) with derivatives of u by central differences.
    #[test]
    fn sources_agree_with_differences_of_the_exact_solution() -> Result<()> {
        for case in cases() {
            let p = &case.problem;
            let points = tensor_grid(&p.off_grid_axes(5));
            let inner = |x: &[f64], d: Derivative| difference(&case.exact, x, d, 1e-5);
            let (mut error, mut size) = (0.0_f64, 1e-300_f64);
            for x in points.rows() {
                let x = x.to_vec();
                let mut sum = -p.source.value(&x)?;
                for term in &p.operator.terms {
                    let part = term.coefficient.value(&x)? * inner(&x, term.derivative);
                    (sum, size) = (sum + part, size.max(part.abs()));
                }
                for term in &p.nonlinear {
                    let u: Vec<_> = term.arguments.iter().map(|&d| inner(&x, d)).collect();
                    sum += term.value(&x, &u);
                }
                error = error.max(sum.abs());
            }
            assert!(error < 3e-4 * size, "{}: {error:e} of {size:e}", case.name);
        }
        Ok(())
    }

    /// Central differences, axis by axis.
    fn difference(u: &Exact, x: &[f64], d: Derivative, step: f64) -> f64 {
        let Some(axis) = (0..x.len()).find(|&axis| d.order(axis) > 0) else {
            return u.value(x, Derivative::VALUE);
        };
        let at = |shift: f64| {
            let mut y = x.to_vec();
            y[axis] += shift;
            u.value(&y, Derivative::VALUE)
        };
        match d.order(axis) {
            1 => (at(step) - at(-step)) / (2.0 * step),
            _ => (at(step) - 2.0 * at(0.0) + at(-step)) / (step * step),
        }
    }

    #[test]
    fn noise_has_the_stated_size() -> Result<()> {
        let clean = case("poisson-1d-sin")?;
        let noisy = clean.noisy(1600, 0.05, 3)?;
        let Data::Samples(samples) = &noisy.problem.source else { unreachable!("sampled") };
        let error = &samples.values - &clean.problem.source.at(&samples.points)?;
        let rms = (error.mapv(|e| e * e).sum() / 1600.0).sqrt();
        assert!((rms / noisy.problem.source_noise - 1.0).abs() < 0.1);
        assert!(clean.noisy(100, 0.05, 3)?.problem.validate().is_ok());
        Ok(())
    }
}
