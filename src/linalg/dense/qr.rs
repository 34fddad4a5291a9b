//! The QR factorisation.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};

use super::{Scalar, Triangle, backend, column, columns, finite, rows, vector};
use crate::error::{Error, Result};
use crate::tensor::Real;

/// A = Q R by Householder reflections, for A [m, n] with m ≥ n: Q [m, n] has orthonormal columns, R [n, n] is
/// upper triangular.
#[derive(Clone, Debug)]
pub struct Qr<T: Scalar> {
    reflections: backend::Reflections<T>,
    r: Array2<T>,
    rows: usize,
}

impl<T: Scalar> Qr<T> {
    /// Factorises a matrix; `name` is what errors call it.
    ///
    /// ```
    /// use ndarray::array;
    /// use wellposed::linalg::dense::Qr;
    /// // The line through (0, 1), (1, 3), (2, 5).
    /// let a = array![[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]];
    /// let fit: ndarray::Array1<f64> = Qr::new("line", a.view())?.solve_vector(array![1.0, 3.0, 5.0].view())?;
    /// assert!((fit[0] - 1.0).abs() < 1e-14 && (fit[1] - 2.0).abs() < 1e-14);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where A has fewer rows than columns.
    pub fn new(name: &str, a: ArrayView2<T>) -> Result<Self> {
        finite(name, a)?;
        Self::of(name, columns(a))
    }

    /// [`Qr::new`] of a matrix that is given away and not searched for NaN; column-major saves a copy.
    pub(crate) fn of(name: &str, a: Array2<T>) -> Result<Self> {
        if a.nrows() < a.ncols() {
            return Err(Error::shape(name, "at least as many rows as columns", a.shape()));
        }
        let rows = a.nrows();
        let a = if a.is_empty() || a.strides()[0] == 1 { a } else { columns(a.view()) };
        let (reflections, r) = backend::Reflections::new(a).ok_or_else(|| Error::Singular {
            name: name.into(),
            reason: "its QR factorisation failed".into(),
        })?;
        Ok(Self { reflections, r, rows })
    }

    /// R [n, n], upper triangular.
    pub fn r(&self) -> ArrayView2<'_, T> {
        self.r.view()
    }

    /// Q [m, n].
    pub fn q(&self) -> Array2<T> {
        self.reflections.q()
    }

    /// Qᴴ B [n, columns], without forming Q.
    ///
    /// # Errors
    /// [`Error::Shape`] where B has not as many rows as A.
    pub fn q_adjoint(&self, b: ArrayView2<T>) -> Result<Array2<T>> {
        rows("argument of Qᴴ", self.rows, b)?;
        let full = self.reflections.q_adjoint(columns(b));
        Ok(full.slice_move(s![..self.r.nrows(), ..]))
    }

    /// The least-squares solution argmin ‖A X − B‖ = R⁻¹ Qᴴ B.
    ///
    /// # Errors
    /// [`Error::Shape`]; [`Error::Singular`] where R has a diagonal element below ε times the largest one.
    pub fn solve(&self, b: ArrayView2<T>) -> Result<Array2<T>> {
        let size = |d: &T| d.squared_modulus().as_f64().sqrt();
        let largest = self.r.diag().iter().map(size).fold(0.0, f64::max);
        let epsilon = <T::Modulus as num_traits::Float>::epsilon().as_f64();
        if let Some(index) = self.r.diag().iter().position(|d| size(d) <= epsilon * largest) {
            return Err(Error::Singular {
                name: "matrix of a least-squares problem".into(),
                reason: format!("column {index} depends on those before it; drop it or add a regularisation"),
            });
        }
        let mut x = columns(self.q_adjoint(b)?.view());
        backend::solve_triangular(self.r.view(), Triangle::Upper, &mut x);
        Ok(x)
    }

    /// [`Qr::solve`] of one right-hand side.
    ///
    /// # Errors
    /// As [`Qr::solve`].
    pub fn solve_vector(&self, b: ArrayView1<T>) -> Result<Array1<T>> {
        Ok(vector(self.solve(column(b))?))
    }
}
