//! The singular-value decomposition.

use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::{Scalar, backend, columns, eigen, finite, matmul};
use crate::error::Result;
use crate::tensor::Real;

/// A = U diag(σ) Vᴴ, thin: with k = min(m, n), U [m, k], σ `[k]` descending, Vᴴ [k, n].
///
/// ```
/// use ndarray::array;
/// use wellposed::linalg::dense::Svd;
/// let svd = Svd::new("example", array![[3.0, 0.0], [0.0, -5.0f64]].view())?;
/// assert!((svd.values[0] - 5.0).abs() < 1e-14 && (svd.values[1] - 3.0).abs() < 1e-14);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Svd<T: Scalar> {
    /// U [m, k], orthonormal columns.
    pub u: Array2<T>,
    /// σ `[k]`, descending.
    pub values: Array1<T::Modulus>,
    /// Vᴴ [k, n], orthonormal rows.
    pub v_adjoint: Array2<T>,
}

impl<T: Scalar> Svd<T> {
    /// Decomposes a matrix; `name` is what errors call it.
    ///
    /// # Errors
    /// [`crate::error::Error::Singular`] where the iteration does not converge.
    pub fn new(name: &str, a: ArrayView2<T>) -> Result<Self> {
        finite(name, a)?;
        let (u, values, v_adjoint) =
            backend::svd(columns(a)).ok_or_else(|| eigen::no_convergence(name, "singular value"))?;
        Ok(Self { u, values, v_adjoint })
    }

    /// How many singular values are above `tolerance` times the largest.
    pub fn rank(&self, tolerance: f64) -> usize {
        let largest = self.values.first().map_or(0.0, |s| s.as_f64());
        self.values.iter().take_while(|s| s.as_f64() > tolerance * largest).count()
    }

    /// The minimum-norm least-squares solution V diag(1/σ) Uᴴ B over the singular values above `tolerance` times
    /// the largest.
    ///
    /// # Errors
    /// [`crate::error::Error::Shape`] where B has not as many rows as A.
    pub fn solve(&self, b: ArrayView2<T>, tolerance: f64) -> Result<Array2<T>> {
        let rank = self.rank(tolerance);
        let u = self.u.slice_axis(Axis(1), (..rank).into());
        let mut x = matmul(super::adjoint(u).view(), b)?;
        for (mut row, s) in x.rows_mut().into_iter().zip(&self.values) {
            row.mapv_inplace(|v| v / T::of_real(*s));
        }
        matmul(super::adjoint(self.v_adjoint.slice_axis(Axis(0), (..rank).into())).view(), x.view())
    }
}
