//! Dense factorisations of [`ndarray`] matrices over `f32`, `f64` and their complex numbers.
//!
//! ndarray is the matrix type of dense linear algebra on the host. The arithmetic is faer's by default, and
//! LAPACK's with the feature `openblas`; nothing else in the crate knows which. faer runs on the calling thread
//! only, so that results don't depend on the number of threads: parallel callers factorise several matrices at
//! once.
//!
//! Every constructor reports NaN and infinities ([`Error::NotFinite`]) and wrong shapes ([`Error::Shape`]).

#[cfg(not(feature = "openblas"))]
#[path = "faer.rs"]
mod backend;
#[cfg(feature = "openblas")]
#[path = "lapack.rs"]
mod backend;
mod cholesky;
mod eigen;
#[cfg(not(feature = "openblas"))]
mod householder;
mod lu;
mod qr;
mod svd;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::ops::Neg;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, LinalgScalar, ShapeBuilder};
use num_complex::Complex;
use num_traits::NumAssign;

pub use cholesky::Cholesky;
pub use eigen::{Eigen, HermitianEigen};
pub use lu::Lu;
pub use qr::Qr;
pub use svd::Svd;

use crate::error::{Error, Result};
use crate::tensor::Real;

/// An element of a dense matrix: `f32`, `f64`, `Complex<f32>` or `Complex<f64>`.
pub trait Scalar:
    LinalgScalar + NumAssign + Neg<Output = Self> + Debug + Send + Sync + backend::Element
{
    /// The type of moduli, singular values and eigenvalues of Hermitian matrices.
    type Modulus: Real + Scalar<Modulus = Self::Modulus>;
    /// The complex conjugate.
    fn conjugate(self) -> Self;
    /// The real part.
    fn real_part(self) -> Self::Modulus;
    /// The scalar with this real part and no imaginary part.
    fn of_real(value: Self::Modulus) -> Self;
    /// |x|².
    fn squared_modulus(self) -> Self::Modulus;
    /// Whether it is neither NaN nor infinite.
    fn finite(self) -> bool;
}

macro_rules! scalar {
    ($real:ty) => {
        impl Scalar for $real {
            type Modulus = $real;
            fn conjugate(self) -> Self {
                self
            }
            fn real_part(self) -> $real {
                self
            }
            fn of_real(value: $real) -> Self {
                value
            }
            fn squared_modulus(self) -> $real {
                self * self
            }
            fn finite(self) -> bool {
                self.is_finite()
            }
        }

        impl Scalar for Complex<$real> {
            type Modulus = $real;
            fn conjugate(self) -> Self {
                self.conj()
            }
            fn real_part(self) -> $real {
                self.re
            }
            fn of_real(value: $real) -> Self {
                Complex::new(value, 0.0)
            }
            fn squared_modulus(self) -> $real {
                self.norm_sqr()
            }
            fn finite(self) -> bool {
                self.re.is_finite() && self.im.is_finite()
            }
        }
    };
}

scalar!(f32);
scalar!(f64);

/// Which triangle of a matrix is read; the other may hold anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triangle {
    /// On and below the diagonal.
    Lower,
    /// Below the diagonal, with ones on it.
    UnitLower,
    /// On and above the diagonal.
    Upper,
}

/// The product A B, [rows of A, columns of B].
///
/// ```
/// use ndarray::array;
/// use wellposed::linalg::dense::matmul;
/// let product = matmul(array![[1.0, 2.0]].view(), array![[3.0], [4.0]].view())?;
/// assert_eq!(product, array![[11.0]]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] where A has not as many columns as B has rows.
pub fn matmul<T: Scalar>(a: ArrayView2<T>, b: ArrayView2<T>) -> Result<Array2<T>> {
    if a.ncols() != b.nrows() {
        return Err(Error::shape("matmul: right factor", format!("[{}, columns]", a.ncols()), b.shape()));
    }
    let mut out = Array2::zeros((a.nrows(), b.ncols()));
    if !out.is_empty() && a.ncols() > 0 {
        backend::matmul(a, b, out.view_mut());
    }
    Ok(out)
}

/// X of A X = B for triangular A, by substitution.
///
/// ```
/// use ndarray::array;
/// use wellposed::linalg::dense::{Triangle, solve_triangular};
/// let x = solve_triangular(array![[2.0, 1.0], [0.0, 4.0]].view(), Triangle::Upper, array![[3.0], [4.0]].view())?;
/// assert_eq!(x, array![[1.0], [1.0]]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`]; [`Error::Singular`] where the diagonal has a zero.
pub fn solve_triangular<T: Scalar>(a: ArrayView2<T>, part: Triangle, b: ArrayView2<T>) -> Result<Array2<T>> {
    square("triangular matrix", a)?;
    rows("right-hand side", a.nrows(), b)?;
    if let Some(index) = a.diag().iter().position(|d| part != Triangle::UnitLower && d.is_zero()) {
        return Err(Error::Singular {
            name: "triangular matrix".into(),
            reason: format!("element {index} of its diagonal is zero"),
        });
    }
    let mut x = columns(b);
    backend::solve_triangular(a, part, &mut x);
    Ok(x)
}

/// A copy in column-major order, which the factorisations work on.
fn columns<T: Scalar>(a: ArrayView2<T>) -> Array2<T> {
    let mut copy = Array2::zeros(a.raw_dim().f());
    copy.assign(&a);
    copy
}

/// A vector as a matrix of one column.
fn column<T: Scalar>(b: ArrayView1<'_, T>) -> ArrayView2<'_, T> {
    b.insert_axis(Axis(1))
}

/// The single column of a matrix, as a vector.
fn vector<T: Scalar>(x: Array2<T>) -> Array1<T> {
    x.index_axis_move(Axis(1), 0)
}

/// The conjugate transpose, as a view of the transpose for real scalars.
fn adjoint<T: Scalar>(a: ArrayView2<T>) -> Array2<T> {
    a.t().mapv(T::conjugate)
}

fn square<T>(name: &str, a: ArrayView2<T>) -> Result<()> {
    if a.nrows() != a.ncols() {
        return Err(Error::shape(name, "a square matrix", a.shape()));
    }
    Ok(())
}

fn rows<T>(name: &str, expected: usize, b: ArrayView2<T>) -> Result<()> {
    if b.nrows() != expected {
        return Err(Error::shape(name, format!("[{expected}, columns]"), b.shape()));
    }
    Ok(())
}

fn finite<T: Scalar>(name: &str, a: ArrayView2<T>) -> Result<()> {
    let count = a.iter().filter(|x| !x.finite()).count();
    match a.indexed_iter().find(|(_, x)| !x.finite()) {
        None => Ok(()),
        Some(((i, j), _)) => {
            Err(Error::NotFinite { name: name.into(), count, total: a.len(), first: vec![i, j] })
        }
    }
}
