//! Eigendecompositions.

use ndarray::{Array1, Array2, ArrayView2};
use num_complex::Complex;

use super::{Scalar, backend, columns, finite, square};
use crate::error::{Error, Result};

/// A = V diag(λ) Vᴴ for a symmetric (Hermitian) A, V unitary.
///
/// ```
/// use ndarray::array;
/// use wellposed::linalg::dense::HermitianEigen;
/// let eigen = HermitianEigen::new("example", array![[2.0, 1.0], [1.0, 2.0f64]].view())?;
/// assert!((eigen.values[0] - 1.0).abs() < 1e-14 && (eigen.values[1] - 3.0).abs() < 1e-14);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct HermitianEigen<T: Scalar> {
    /// λ, ascending.
    pub values: Array1<T::Modulus>,
    /// V, one eigenvector a column.
    pub vectors: Array2<T>,
}

impl<T: Scalar> HermitianEigen<T> {
    /// Decomposes a matrix of which only the lower triangle is read; `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Singular`] where the iteration does not converge.
    pub fn new(name: &str, a: ArrayView2<T>) -> Result<Self> {
        square(name, a)?;
        finite(name, a)?;
        let (values, vectors) =
            backend::hermitian_eigen(columns(a)).ok_or_else(|| no_convergence(name, "eigenvalue"))?;
        Ok(Self { values, vectors })
    }
}

/// A V = V diag(λ) for a general real A; λ and V are complex, V is not orthogonal, and A may be defective (then
/// V is singular).
///
/// ```
/// use ndarray::array;
/// use wellposed::linalg::dense::Eigen;
/// let turn = Eigen::new("quarter turn", array![[0.0, -1.0], [1.0, 0.0f64]].view())?;
/// assert!(turn.values.iter().all(|v| (v.norm() - 1.0).abs() < 1e-14 && v.re.abs() < 1e-14));
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Eigen<T> {
    /// λ; complex ones come in conjugate pairs.
    pub values: Array1<Complex<T>>,
    /// V, one eigenvector a column.
    pub vectors: Array2<Complex<T>>,
}

impl<T: Scalar<Modulus = T> + backend::RealElement> Eigen<T>
where
    Complex<T>: Scalar<Modulus = T>,
{
    /// Decomposes a square matrix; `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Singular`] where the iteration does not converge.
    pub fn new(name: &str, a: ArrayView2<T>) -> Result<Self> {
        square(name, a)?;
        finite(name, a)?;
        let (values, vectors) =
            backend::eigen(columns(a)).ok_or_else(|| no_convergence(name, "eigenvalue"))?;
        Ok(Self { values, vectors })
    }
}

pub(super) fn no_convergence(name: &str, what: &str) -> Error {
    Error::Singular {
        name: name.into(),
        reason: format!("the {what} iteration did not converge; scale the matrix"),
    }
}
