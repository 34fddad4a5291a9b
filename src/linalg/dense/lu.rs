//! The LU factorisation with row exchanges.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

use super::{Scalar, Triangle, backend, column, columns, finite, rows, square, vector};
use crate::error::{Error, Result};
use crate::tensor::Real;

/// P A = L U with partial pivoting, for a general square A.
#[derive(Clone, Debug)]
pub struct Lu<T> {
    /// U on and above the diagonal, L below it.
    packed: Array2<T>,
    /// Row i of P A is this row of A.
    order: Vec<usize>,
}

impl<T: Scalar> Lu<T> {
    /// Factorises a matrix; `name` is what errors call it.
    ///
    /// ```
    /// use ndarray::array;
    /// use wellposed::linalg::dense::Lu;
    /// let factor = Lu::new("example", array![[0.0, 2.0], [1.0, 0.0]].view())?;
    /// assert_eq!(factor.solve_vector(array![2.0, 3.0].view())?, array![3.0, 1.0]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Singular`] where a pivot is smaller than ε·n times the largest one.
    pub fn new(name: &str, a: ArrayView2<T>) -> Result<Self> {
        square(name, a)?;
        finite(name, a)?;
        let (packed, order) = backend::lu(columns(a))
            .ok_or_else(|| Error::Singular { name: name.into(), reason: "a pivot is exactly zero".into() })?;
        let sizes: Vec<f64> = packed.diag().iter().map(|d| d.squared_modulus().as_f64().sqrt()).collect();
        let largest = sizes.iter().copied().fold(0.0, f64::max);
        let smallest = sizes.iter().copied().enumerate().min_by(|x, y| x.1.total_cmp(&y.1));
        let epsilon = <T::Modulus as num_traits::Float>::epsilon().as_f64();
        match smallest {
            // A zero matrix has NaN pivots.
            Some((pivot, size)) if size.is_nan() || size <= epsilon * sizes.len() as f64 * largest => {
                Err(Error::Singular {
                    name: name.into(),
                    reason: format!("pivot {pivot} is {size:e} where the largest is {largest:e}"),
                })
            }
            _ => Ok(Self { packed, order }),
        }
    }

    /// A⁻¹ B.
    ///
    /// # Errors
    /// [`Error::Shape`] where B has not as many rows as A.
    pub fn solve(&self, b: ArrayView2<T>) -> Result<Array2<T>> {
        rows("right-hand side of an LU solve", self.order.len(), b)?;
        let mut x = columns(b.select(Axis(0), &self.order).view());
        backend::solve_triangular(self.packed.view(), Triangle::UnitLower, &mut x);
        backend::solve_triangular(self.packed.view(), Triangle::Upper, &mut x);
        Ok(x)
    }

    /// A⁻¹ b.
    ///
    /// # Errors
    /// As [`Lu::solve`].
    pub fn solve_vector(&self, b: ArrayView1<T>) -> Result<Array1<T>> {
        Ok(vector(self.solve(column(b))?))
    }

    /// A⁻¹. Prefer [`Lu::solve`] where the inverse itself is not wanted.
    ///
    /// # Errors
    /// None that a factorised matrix can cause.
    pub fn inverse(&self) -> Result<Array2<T>> {
        self.solve(Array2::eye(self.order.len()).view())
    }

    /// ln |det A|.
    pub fn log_abs_determinant(&self) -> f64 {
        self.packed.diag().iter().map(|d| 0.5 * d.squared_modulus().as_f64().ln()).sum()
    }
}
