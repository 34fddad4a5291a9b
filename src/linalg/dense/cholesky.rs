//! The Cholesky factorisation.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use num_traits::Float;

use super::{Scalar, Triangle, adjoint, backend, column, columns, finite, rows, square, vector};
use crate::error::{Error, Result};
use crate::tensor::Real;

/// A = L Lᴴ with L lower triangular, for a symmetric (Hermitian) positive definite A.
#[derive(Clone, Debug)]
pub struct Cholesky<T> {
    factor: Array2<T>,
    upper: Array2<T>,
}

impl<T: Scalar> Cholesky<T> {
    /// Factorises a matrix of which only the lower triangle is read; `name` is what errors call it.
    ///
    /// ```
    /// use ndarray::array;
    /// use wellposed::linalg::dense::Cholesky;
    /// let a = array![[4.0, 2.0], [2.0, 3.0]];
    /// let factor = Cholesky::new("example", a.view())?;
    /// assert!((factor.log_determinant() - 8f64.ln()).abs() < 1e-14);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotPositiveDefinite`] with the failing pivot.
    pub fn new(name: &str, a: ArrayView2<T>) -> Result<Self> {
        square(name, a)?;
        finite(name, a)?;
        match backend::cholesky(columns(a)) {
            Some(factor) => {
                let upper = adjoint(factor.view());
                Ok(Self { factor, upper })
            }
            None => {
                let (pivot, value) = failing_pivot(a);
                Err(Error::NotPositiveDefinite { name: name.into(), pivot, value })
            }
        }
    }

    /// L, with zeros above its diagonal.
    pub fn factor(&self) -> ArrayView2<'_, T> {
        self.factor.view()
    }

    /// A⁻¹ B.
    ///
    /// # Errors
    /// [`Error::Shape`] where B has not as many rows as A.
    pub fn solve(&self, b: ArrayView2<T>) -> Result<Array2<T>> {
        rows("right-hand side of a Cholesky solve", self.factor.nrows(), b)?;
        let mut x = columns(b);
        backend::solve_triangular(self.factor.view(), Triangle::Lower, &mut x);
        backend::solve_triangular(self.upper.view(), Triangle::Upper, &mut x);
        Ok(x)
    }

    /// A⁻¹ b.
    ///
    /// # Errors
    /// As [`Cholesky::solve`].
    pub fn solve_vector(&self, b: ArrayView1<T>) -> Result<Array1<T>> {
        Ok(vector(self.solve(column(b))?))
    }

    /// L⁻¹ B, whose squared columns are Bᴴ A⁻¹ B.
    ///
    /// # Errors
    /// As [`Cholesky::solve`].
    pub fn whiten(&self, b: ArrayView2<T>) -> Result<Array2<T>> {
        rows("argument of whitening", self.factor.nrows(), b)?;
        let mut x = columns(b);
        backend::solve_triangular(self.factor.view(), Triangle::Lower, &mut x);
        Ok(x)
    }

    /// A⁻¹. Prefer [`Cholesky::solve`] where the inverse itself is not wanted.
    pub fn inverse(&self) -> Array2<T> {
        let mut x = columns(Array2::eye(self.factor.nrows()).view());
        backend::solve_triangular(self.factor.view(), Triangle::Lower, &mut x);
        backend::solve_triangular(self.upper.view(), Triangle::Upper, &mut x);
        x
    }

    /// ln det A = 2 Σ ln L_ii.
    pub fn log_determinant(&self) -> f64 {
        self.factor.diag().iter().map(|d| 2.0 * d.real_part().as_f64().ln()).sum()
    }
}

/// The first pivot of the plain algorithm that is not positive, and its value; the smallest one where rounding
/// stopped only the blocked algorithm.
fn failing_pivot<T: Scalar>(a: ArrayView2<T>) -> (usize, f64) {
    let n = a.nrows();
    let mut l = Array2::<T>::zeros((n, n));
    let mut smallest = (0, f64::INFINITY);
    for k in 0..n {
        let squares = l.row(k).iter().map(|x| x.squared_modulus()).fold(T::Modulus::of(0.0), |s, x| s + x);
        let pivot = a[[k, k]].real_part() - squares;
        if pivot.as_f64() <= 0.0 {
            return (k, pivot.as_f64());
        }
        if pivot.as_f64() < smallest.1 {
            smallest = (k, pivot.as_f64());
        }
        let root = T::of_real(pivot.sqrt());
        l[[k, k]] = root;
        for i in k + 1..n {
            let dot = (0..k).fold(T::zero(), |s, j| s + l[[i, j]] * l[[k, j]].conjugate());
            l[[i, k]] = (a[[i, k]] - dot) / root;
        }
    }
    smallest
}
