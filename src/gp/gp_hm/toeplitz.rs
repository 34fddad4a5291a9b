//! Symmetric positive-definite Toeplitz matrices: Durbin's recursion and Gohberg and Semencul's formula by FFT.

use std::fmt;
use std::sync::Arc;

use num_complex::Complex64;
use rustfft::{Fft, FftPlanner};

use crate::error::{Error, Result};

/// FFTs long enough for products of Toeplitz matrices of size n with vectors.
#[derive(Clone)]
pub(super) struct Transform {
    n: usize,
    length: usize,
    forward: Arc<dyn Fft<f64>>,
    inverse: Arc<dyn Fft<f64>>,
}

impl fmt::Debug for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transform({} in {})", self.n, self.length)
    }
}

impl Transform {
    pub fn new(n: usize) -> Self {
        let length = (2 * n).next_power_of_two();
        let mut planner = FftPlanner::new();
        Self {
            n,
            length,
            forward: planner.plan_fft_forward(length),
            inverse: planner.plan_fft_inverse(length),
        }
    }

    /// The spectrum of `values`, zero-padded.
    pub fn spectrum(&self, values: &[f64]) -> Vec<Complex64> {
        let mut padded = vec![Complex64::ZERO; self.length];
        padded.iter_mut().zip(values).for_each(|(p, v)| p.re = *v);
        self.forward.process(&mut padded);
        padded
    }

    /// The real part of the inverse transform.
    pub fn back(&self, mut spectrum: Vec<Complex64>) -> Vec<f64> {
        self.inverse.process(&mut spectrum);
        let scale = 1.0 / self.length as f64;
        spectrum.into_iter().map(|z| z.re * scale).collect()
    }

    /// The spectrum of the circulant that holds the Toeplitz matrix with T_ij = `lags`[i − j] below the diagonal and
    /// `parity` times that above.
    pub fn circulant(&self, lags: &[f64], parity: f64) -> Vec<Complex64> {
        let mut column = vec![0.0; self.length];
        for (l, value) in lags.iter().enumerate() {
            column[l] = *value;
            if l > 0 {
                column[self.length - l] = parity * value;
            }
        }
        self.spectrum(&column)
    }

    /// The product of a circulant, given by its spectrum, with a vector: its first n elements.
    pub fn product(&self, circulant: &[Complex64], vector: &[f64]) -> Vec<f64> {
        let mut z = self.spectrum(vector);
        z.iter_mut().zip(circulant).for_each(|(z, c)| *z *= c);
        let mut out = self.back(z);
        out.truncate(self.n);
        out
    }

    /// Sums of the matrix Σ x yᵀ along its diagonals from Σ x̂ ȳ̂: below the main one plus `parity` times above.
    pub fn diagonal_sums(&self, cross: Vec<Complex64>, parity: f64) -> Vec<f64> {
        let c = self.back(cross);
        (0..self.n).map(|l| if l == 0 { c[0] } else { c[l] + parity * c[self.length - l] }).collect()
    }
}

/// K⁻¹ of a symmetric positive-definite Toeplitz matrix K, in O(n²) once and O(n log n) a product.
#[derive(Clone, Debug)]
pub(super) struct ToeplitzInverse {
    transform: Transform,
    matrix: Vec<Complex64>,
    /// The first column x of K⁻¹ and (0, x_{n−1}, …, x₁), and their spectra.
    generators: [Vec<f64>; 2],
    spectra: [Vec<Complex64>; 2],
    /// ln det K.
    pub log_determinant: f64,
}

impl ToeplitzInverse {
    /// From the first column of K.
    pub fn new(transform: &Transform, lags: &[f64]) -> Result<Self> {
        let (x, log_determinant) = durbin(lags)?;
        let mut y = vec![0.0; x.len()];
        y.iter_mut().skip(1).zip(x.iter().skip(1).rev()).for_each(|(y, x)| *y = *x);
        let spectra = [transform.spectrum(&x), transform.spectrum(&y)];
        Ok(Self {
            transform: transform.clone(),
            matrix: transform.circulant(lags, 1.0),
            generators: [x, y],
            spectra,
            log_determinant,
        })
    }

    /// K⁻¹ b, refined twice: the formula alone loses digits where K is nearly singular.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x = self.apply(b);
        for _ in 0..2 {
            let kx = self.transform.product(&self.matrix, &x);
            let residual: Vec<f64> = b.iter().zip(&kx).map(|(b, k)| b - k).collect();
            x.iter_mut().zip(self.apply(&residual)).for_each(|(x, d)| *x += d);
        }
        x
    }

    /// K⁻¹ = (L(x) L(x)ᵀ − L(y) L(y)ᵀ)/x₀ with lower triangular Toeplitz matrices L (Gohberg and Semencul 1972).
    fn apply(&self, b: &[f64]) -> Vec<f64> {
        let n = self.transform.n;
        let b = self.transform.spectrum(b);
        let mut sum = vec![Complex64::ZERO; b.len()];
        for (spectrum, sign) in self.spectra.iter().zip([1.0, -1.0]) {
            let lower = b.iter().zip(spectrum).map(|(b, s)| b * s.conj()).collect();
            let inner = self.transform.spectrum(&self.transform.back(lower)[..n]);
            for ((sum, s), inner) in sum.iter_mut().zip(spectrum).zip(&inner) {
                *sum += s * inner * sign;
            }
        }
        let scale = 1.0 / self.generators[0][0];
        let mut out = self.transform.back(sum);
        out.truncate(n);
        out.iter_mut().for_each(|v| *v *= scale);
        out
    }

    /// Sums of K⁻¹ over both diagonals at each distance from the main one, shape [n].
    pub fn diagonal_sums(&self) -> Vec<f64> {
        let n = self.transform.n;
        let mut cross = vec![Complex64::ZERO; self.spectra[0].len()];
        for ((x, spectrum), sign) in self.generators.iter().zip(&self.spectra).zip([1.0, -1.0]) {
            // Element (m + l, m) of L(x)L(x)ᵀ and its like occur n − l − m times on a diagonal.
            let weighted: Vec<f64> = x.iter().enumerate().map(|(i, x)| (n - i) as f64 * x).collect();
            for ((c, w), s) in cross.iter_mut().zip(self.transform.spectrum(&weighted)).zip(spectrum) {
                *c += w * s.conj() * sign;
            }
        }
        let sums = self.transform.back(cross);
        let x0 = self.generators[0][0];
        (0..n).map(|l| if l == 0 { sums[0] / x0 } else { 2.0 * sums[l] / x0 }).collect()
    }
}

/// The first column of K⁻¹ and ln det K by Durbin's recursion (Golub and Van Loan, algorithm 4.7.1).
fn durbin(lags: &[f64]) -> Result<(Vec<f64>, f64)> {
    let n = lags.len();
    let fail =
        |pivot, value| Error::NotPositiveDefinite { name: "Toeplitz Gram matrix".into(), pivot, value };
    let k0 = lags.first().copied().unwrap_or(0.0);
    if k0.is_nan() || k0 <= 0.0 {
        return Err(fail(0, k0));
    }
    let r: Vec<f64> = lags.iter().map(|l| l / k0).collect();
    let mut a = vec![0.0; n];
    let mut old = vec![0.0; n];
    a[0] = 1.0;
    let mut beta = 1.0_f64;
    let mut log_determinant = n as f64 * k0.ln();
    for k in 1..n {
        let dot: f64 = a[..k].iter().zip(r[1..=k].iter().rev()).map(|(a, r)| a * r).sum();
        let alpha = -dot / beta;
        old[..=k].copy_from_slice(&a[..=k]);
        a[..=k].iter_mut().zip(old[..=k].iter().rev()).for_each(|(a, o)| *a += alpha * o);
        beta *= 1.0 - alpha * alpha;
        if beta.is_nan() || beta <= 0.0 {
            return Err(fail(k, beta * k0));
        }
        log_determinant += beta.ln();
    }
    let scale = 1.0 / (beta * k0);
    Ok((a.into_iter().map(|a| a * scale).collect(), log_determinant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::dense::Cholesky;
    use ndarray::Array2;

    #[test]
    fn agrees_with_a_dense_inverse() -> Result<()> {
        let n = 37;
        let lags: Vec<f64> = (0..n)
            .map(|i| (-(i as f64) / 6.0).exp() * (i as f64).cos() + if i == 0 { 0.1 } else { 0.0 })
            .collect();
        let dense = Array2::from_shape_fn((n, n), |(i, j)| lags[i.abs_diff(j)]);
        let factor = Cholesky::new("test", dense.view())?;
        let fast = ToeplitzInverse::new(&Transform::new(n), &lags)?;
        assert!((fast.log_determinant - factor.log_determinant()).abs() < 1e-12 * n as f64);
        let inverse = factor.inverse();
        let b: Vec<f64> = (0..n).map(|i| (i * i % 7) as f64 - 3.0).collect();
        let exact = inverse.dot(&ndarray::Array1::from(b.clone()));
        for (x, e) in fast.solve(&b).iter().zip(&exact) {
            assert!((x - e).abs() < 1e-11);
        }
        let sums = fast.diagonal_sums();
        for (l, sum) in sums.iter().enumerate() {
            let direct: f64 =
                inverse.indexed_iter().filter(|((i, j), _)| i.abs_diff(*j) == l).map(|(_, v)| v).sum();
            assert!((sum - direct).abs() < 1e-10, "{l}: {sum} {direct}");
        }
        assert!(ToeplitzInverse::new(&Transform::new(2), &[1.0, 2.0]).is_err());
        Ok(())
    }
}
