//! Bayesian linear regression by QR: features with a Gaussian prior on their weights, rows with Gaussian errors.

use std::f64::consts::TAU;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, ShapeBuilder, s};

use crate::error::Result;
use crate::linalg::dense::{Qr, Triangle, solve_triangular};
use crate::tensor::Space;
use crate::tensor::random::{Noise, standard_normal};

/// Rows A w = b + ε, each divided by the standard deviation of its ε, brought to triangular form: all that the data
/// say about w.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    r: Array2<f64>,
    z: Array1<f64>,
    /// ‖b‖² − ‖z‖², what no w explains.
    unexplained: f64,
    /// Rows, and Σ ln σ over them.
    rows: usize,
    log_sigma: f64,
}

/// The posterior of weights w = S v, v ~ N(0, I) before the data.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    /// E[w].
    pub(super) mean: Array1<f64>,
    /// S, the prior's standard deviations.
    prior: Array1<f64>,
    /// Upper triangular; RᵀR is the posterior precision of v.
    r: Array2<f64>,
    /// ln p(b).
    pub(super) log_evidence: f64,
}

impl Evidence {
    /// Of rows [rows, features] with right-hand sides and the standard deviations of their errors.
    pub(super) fn new(mut a: Array2<f64>, b: ArrayView1<f64>, sigma: ArrayView1<f64>) -> Result<Self> {
        let (rows, features) = a.dim();
        let precision = sigma.mapv(|s| 1.0 / s);
        for mut column in a.columns_mut() {
            column *= &precision;
        }
        let mut b = &b * &precision;
        if rows < features {
            // Empty rows say nothing and make the factorisation possible.
            let mut padded = Array2::zeros((features, features).f());
            padded.slice_mut(s![..rows, ..]).assign(&a);
            a = padded;
            b.append(Axis(0), Array1::zeros(features - rows).view()).map_err(candle_core::Error::wrap)?;
        }
        let squared = b.dot(&b);
        let qr = Qr::of("equation rows", a)?;
        let z = qr.q_adjoint(b.insert_axis(Axis(1)).view())?.column(0).to_owned();
        let unexplained = (squared - z.dot(&z)).max(0.0);
        let log_sigma = sigma.iter().map(|s| s.ln()).sum();
        Ok(Self { r: qr.r().to_owned(), z, unexplained, rows, log_sigma })
    }

    /// The posterior for prior standard deviations `prior`, with all errors `inflation` times as large as stated.
    pub(super) fn posterior(&self, prior: ArrayView1<f64>, inflation: f64) -> Result<Weights> {
        let m = self.z.len();
        let mut stacked = Array2::zeros((2 * m, m).f());
        for (j, mut column) in stacked.columns_mut().into_iter().enumerate() {
            let scale = prior[j] / inflation;
            column.slice_mut(s![..=j]).zip_mut_with(&self.r.slice(s![..=j, j]), |o, r| *o = scale * r);
            column[m + j] = 1.0;
        }
        let mut right = Array2::zeros((2 * m, 1));
        right.slice_mut(s![..m, 0]).assign(&(&self.z / inflation));
        let qr = Qr::of("posterior", stacked)?;
        let z = qr.q_adjoint(right.view())?;
        let mut r = qr.r().to_owned();
        // RᵀR ≥ I, so |R_jj| ≥ 1: what is smaller has drowned in the rounding of large rows.
        r.diag_mut().mapv_inplace(|d| if d.abs() < 1.0 { 1f64.copysign(d) } else { d });
        let v = solve_triangular(r.view(), Triangle::Upper, z.view())?;
        let explained = z.iter().map(|z| z * z).sum::<f64>();
        let total = (self.z.dot(&self.z) + self.unexplained) / inflation.powi(2);
        let log_determinant: f64 = r.diag().iter().map(|d| d.abs().ln()).sum();
        let n = self.rows as f64;
        let log_evidence = -0.5 * (total - explained)
            - log_determinant
            - self.log_sigma
            - n * inflation.ln()
            - 0.5 * n * TAU.ln();
        Ok(Weights { mean: &v.column(0) * &prior, prior: prior.to_owned(), r, log_evidence })
    }

    /// Prior standard deviations that raise the evidence: expectation maximisation of one factor for each group of
    /// features, `groups[j]` being the group of feature j.
    pub(super) fn learn(
        &self,
        prior: ArrayView1<f64>,
        groups: &[usize],
        steps: usize,
    ) -> Result<Array1<f64>> {
        let count = groups.iter().max().map_or(0, |g| g + 1);
        let mut prior = prior.to_owned();
        for _ in 0..steps {
            let posterior = self.posterior(prior.view(), 1.0)?;
            let variance = posterior.weight_variance()?;
            let (mut energy, mut members) = (vec![0.0; count], vec![0.0; count]);
            for (j, &group) in groups.iter().enumerate() {
                energy[group] += (posterior.mean[j].powi(2) + variance[j]) / prior[j].powi(2);
                members[group] += 1.0;
            }
            for (s, &group) in prior.iter_mut().zip(groups) {
                *s *= (energy[group] / members[group]).sqrt().clamp(1e-2, 1e2);
            }
        }
        Ok(prior)
    }
}

impl Weights {
    /// R⁻ᵀ S Φᵀ for features Φ [points, features]: its columns' inner products are posterior covariances.
    pub(super) fn whiten(&self, features: ArrayView2<f64>) -> Result<Array2<f64>> {
        let scaled = &features * &self.prior;
        // R upper, so Rᵀ is lower.
        solve_triangular(self.r.t(), Triangle::Lower, scaled.t())
    }

    /// Posterior variances of Φ w.
    pub(super) fn variance(&self, features: ArrayView2<f64>) -> Result<Array1<f64>> {
        Ok(self.whiten(features)?.map_axis(Axis(0), |column| column.dot(&column)))
    }

    fn weight_variance(&self) -> Result<Array1<f64>> {
        let inverse = solve_triangular(self.r.view(), Triangle::Upper, Array2::eye(self.prior.len()).view())?;
        Ok(inverse.map_axis(Axis(1), |row| row.dot(&row)) * &self.prior * &self.prior)
    }

    /// Draws of w, one a column [features, count].
    pub(super) fn sample(&self, count: usize, seed: u64) -> Result<Array2<f64>> {
        let m = self.prior.len();
        let space = Space::real(&[m, count], candle_core::DType::F64, &candle_core::Device::Cpu);
        let normal = standard_normal(Noise::new(seed, 0), &space, &[])?.flatten_all()?.to_vec1::<f64>()?;
        let normal = Array2::from_shape_vec((m, count), normal).map_err(candle_core::Error::wrap)?;
        let mut draws = solve_triangular(self.r.view(), Triangle::Upper, normal.view())?;
        for ((mut row, scale), mean) in draws.rows_mut().into_iter().zip(&self.prior).zip(&self.mean) {
            row.mapv_inplace(|v| mean + scale * v);
        }
        Ok(draws)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::linalg::dense::Cholesky;

    fn example() -> (Array2<f64>, Array1<f64>, Array1<f64>, Array1<f64>) {
        let a = Array2::from_shape_fn((9, 4), |(i, j)| ((i * 7 + j * 3) as f64).sin());
        let b = Array1::from_shape_fn(9, |i| (i as f64).cos());
        (a, b, Array1::linspace(0.1, 0.5, 9), array![1.0, 0.5, 2.0, 3.0])
    }

    #[test]
    fn it_agrees_with_the_dense_gaussian_formulas() -> Result<()> {
        let (a, b, sigma, prior) = example();
        let found = Evidence::new(a.clone(), b.view(), sigma.view())?.posterior(prior.view(), 1.0)?;
        // Cov b = A S² Aᵀ + σ², w | b = S² Aᵀ (Cov b)⁻¹ b.
        let covariance =
            (&a * &prior.mapv(|s| s * s)).dot(&a.t()) + Array2::from_diag(&sigma.mapv(|s| s * s));
        let factor = Cholesky::new("Cov b", covariance.view())?;
        let dual = factor.solve_vector(b.view())?;
        let mean = a.t().dot(&dual) * &prior * &prior;
        assert!((&found.mean - &mean).iter().all(|d| d.abs() < 1e-12));
        let log = -0.5 * b.dot(&dual) - 0.5 * factor.log_determinant() - 4.5 * TAU.ln();
        assert!((found.log_evidence - log).abs() < 1e-10, "{} {log}", found.log_evidence);
        let test = array![[1.0, 2.0, -1.0, 0.5]];
        let cross = (&test * &prior.mapv(|s| s * s)).dot(&a.t());
        let gain = cross.dot(&factor.solve(cross.t())?)[[0, 0]];
        let before: f64 = test.iter().zip(&prior).map(|(t, s)| (t * s).powi(2)).sum();
        assert!((found.variance(test.view())?[0] - (before - gain)).abs() < 1e-12);
        Ok(())
    }

    #[test]
    fn draws_have_the_posterior_moments() -> Result<()> {
        let (a, b, sigma, prior) = example();
        let found = Evidence::new(a, b.view(), sigma.view())?.posterior(prior.view(), 1.0)?;
        let draws = found.sample(20_000, 5)?;
        let mean = draws.mean_axis(Axis(1)).unwrap_or_default();
        let deviation = found.weight_variance()?.mapv(f64::sqrt);
        for j in 0..4 {
            assert!((mean[j] - found.mean[j]).abs() < 0.03 * deviation[j]);
            assert!((draws.row(j).std(0.0) / deviation[j] - 1.0).abs() < 0.03);
        }
        Ok(())
    }

    #[test]
    fn learning_raises_the_evidence() -> Result<()> {
        let (a, b, sigma, prior) = example();
        let evidence = Evidence::new(a, b.view(), sigma.view())?;
        let before = evidence.posterior(prior.view(), 1.0)?.log_evidence;
        let learned = evidence.learn(prior.view(), &[0, 0, 1, 1], 20)?;
        assert!(evidence.posterior(learned.view(), 1.0)?.log_evidence > before);
        Ok(())
    }

    #[test]
    fn fewer_rows_than_features_leave_the_prior() -> Result<()> {
        let evidence = Evidence::new(array![[1.0, 0.0]], array![2.0].view(), array![1e-9].view())?;
        let found = evidence.posterior(array![1.0, 3.0].view(), 1.0)?;
        assert!((found.mean[0] - 2.0).abs() < 1e-12 && found.mean[1] == 0.0);
        assert!((found.variance(array![[0.0, 1.0]].view())?[0] - 9.0).abs() < 1e-12);
        Ok(())
    }
}
