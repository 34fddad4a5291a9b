//! Products and sums of symmetric factors, by the eigendecomposition of each.

use ndarray::{Array1, Array2, ArrayD, ArrayView2, ArrayViewD};
use num_traits::{Float, Zero};

use super::{for_each_indexed, kronecker_product};
use crate::error::{Error, Result};
use crate::linalg::dense::{HermitianEigen, Scalar};
use crate::tensor::Real;

/// How symmetric factors make one large matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combination {
    /// A ⊗ B ⊗ C, with eigenvalues λ_i μ_j ν_k.
    Product,
    /// A ⊗ I ⊗ I + I ⊗ B ⊗ I + I ⊗ I ⊗ C, with eigenvalues λ_i + μ_j + ν_k.
    Sum,
}

/// A Kronecker product or sum of symmetric factors plus a multiple of the identity, solved in the eigenvectors of
/// each factor.
#[derive(Clone, Debug)]
pub struct KroneckerEigen<T> {
    combination: Combination,
    values: Vec<Array1<T>>,
    vectors: Vec<Array2<T>>,
    transposed: Vec<Array2<T>>,
}

impl<T: Scalar<Modulus = T> + Real> KroneckerEigen<T> {
    /// Decomposes symmetric factors, of which only the lower triangles are read.
    ///
    /// ```
    /// use ndarray::array;
    /// use wellposed::linalg::kronecker::{Combination, KroneckerEigen};
    /// let a = array![[2.0, 0.0], [0.0, 3.0f64]];
    /// let product = KroneckerEigen::new(&[a.view(), a.view()], Combination::Product)?;
    /// assert!((product.log_determinant(0.0)? - 1296f64.ln()).abs() < 1e-13);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`HermitianEigen::new`].
    pub fn new(factors: &[ArrayView2<T>], combination: Combination) -> Result<Self> {
        let (mut values, mut vectors) = (Vec::new(), Vec::new());
        for (axis, factor) in factors.iter().enumerate() {
            let eigen = HermitianEigen::new(&format!("Kronecker factor {axis}"), *factor)?;
            values.push(eigen.values);
            vectors.push(eigen.vectors);
        }
        let transposed = vectors.iter().map(|v| v.t().to_owned()).collect();
        Ok(Self { combination, values, vectors, transposed })
    }

    /// Eigenvalue of the multi-index `index`.
    pub fn eigenvalue(&self, index: &[usize]) -> T {
        let each = self.values.iter().zip(index).map(|(values, i)| values[*i]);
        match self.combination {
            Combination::Product => each.fold(<T as num_traits::One>::one(), |p, v| p * v),
            Combination::Sum => each.fold(<T as Zero>::zero(), |s, v| s + v),
        }
    }

    /// (A + shift · I)⁻¹ b for b [n₀, n₁, …].
    ///
    /// # Errors
    /// [`Error::Shape`]; [`Error::Singular`] where an eigenvalue plus the shift is zero to working precision.
    pub fn solve(&self, shift: T, b: ArrayViewD<T>) -> Result<ArrayD<T>> {
        let tiny = <T as Float>::epsilon() * (self.largest() + Float::abs(shift));
        let mut y = kronecker_product(&self.transposed, b)?;
        let mut fault = None;
        for_each_indexed(&mut y, |index, value| {
            let lambda = self.eigenvalue(index) + shift;
            if Float::abs(lambda) <= tiny {
                fault = Some(index.to_vec());
            }
            *value /= lambda;
        });
        if let Some(index) = fault {
            return Err(Error::Singular {
                name: "Kronecker system".into(),
                reason: format!("eigenvalue {index:?} plus the shift is zero; add to the shift"),
            });
        }
        kronecker_product(&self.vectors, y.view())
    }

    /// ln det(A + shift · I).
    ///
    /// # Errors
    /// [`Error::NotPositiveDefinite`] where an eigenvalue plus the shift is not positive.
    pub fn log_determinant(&self, shift: T) -> Result<f64> {
        let shape: Vec<usize> = self.values.iter().map(Array1::len).collect();
        let mut sum = 0.0;
        for (flat, index) in ndarray::indices(shape).into_iter().enumerate() {
            let lambda = (self.eigenvalue(ndarray::Dimension::slice(&index)) + shift).as_f64();
            if lambda.is_nan() || lambda <= 0.0 {
                return Err(Error::NotPositiveDefinite {
                    name: "Kronecker system".into(),
                    pivot: flat,
                    value: lambda,
                });
            }
            sum += lambda.ln();
        }
        Ok(sum)
    }

    fn largest(&self) -> T {
        let each = self
            .values
            .iter()
            .map(|v| v.iter().fold(<T as Zero>::zero(), |m, x| Float::max(m, Float::abs(*x))));
        match self.combination {
            Combination::Product => each.fold(<T as num_traits::One>::one(), |p, v| p * v),
            Combination::Sum => each.fold(<T as Zero>::zero(), |s, v| s + v),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, IxDyn, array};

    use super::*;
    use crate::linalg::dense::{Cholesky, Lu};

    fn covariance(n: usize, scale: f64) -> Array2<f64> {
        Array2::from_shape_fn((n, n), |(i, j)| (-(i as f64 - j as f64).powi(2) / scale).exp())
            + Array2::<f64>::eye(n) * 0.1
    }

    fn dense(a: &Array2<f64>, b: &Array2<f64>, combination: Combination) -> Array2<f64> {
        let (n, m) = (a.nrows(), b.nrows());
        Array2::from_shape_fn((n * m, n * m), |(i, j)| {
            let (p, q) = (a[[i / m, j / m]], b[[i % m, j % m]]);
            let same = |x: usize, y: usize| f64::from(u8::from(x == y));
            match combination {
                Combination::Product => p * q,
                Combination::Sum => p * same(i % m, j % m) + same(i / m, j / m) * q,
            }
        })
    }

    #[test]
    fn solves_and_determinants_agree_with_dense_matrices() {
        let (a, b) = (covariance(6, 3.0), covariance(4, 1.5));
        let right = Array::from_shape_fn(IxDyn(&[6, 4]), |i| (i[0] * 4 + i[1]) as f64 - 7.0);
        for combination in [Combination::Product, Combination::Sum] {
            let solver = KroneckerEigen::new(&[a.view(), b.view()], combination).unwrap();
            let full = dense(&a, &b, combination) + Array2::<f64>::eye(24) * 0.3;
            let flat = Array1::from_iter(right.iter().copied());
            let exact = Lu::new("dense", full.view()).unwrap().solve_vector(flat.view()).unwrap();
            let found = solver.solve(0.3, right.view()).unwrap();
            assert!(found.iter().zip(&exact).all(|(x, y)| (x - y).abs() < 1e-11));
            let log = Cholesky::new("dense", full.view()).unwrap().log_determinant();
            assert!((solver.log_determinant(0.3).unwrap() - log).abs() < 1e-11);
        }
    }

    #[test]
    fn singular_and_indefinite_systems_are_reported() {
        let a = array![[1.0, 0.0], [0.0, -1.0]];
        let solver = KroneckerEigen::new(&[a.view(), a.view()], Combination::Sum).unwrap();
        let b = Array::zeros(IxDyn(&[2, 2]));
        assert!(matches!(solver.solve(0.0, b.view()), Err(Error::Singular { .. })));
        assert!(matches!(solver.log_determinant(0.0), Err(Error::NotPositiveDefinite { pivot: 0, .. })));
        assert!(solver.solve(0.5, Array::zeros(IxDyn(&[3, 2])).view()).is_err());
    }
}
