//! Kronecker products and sums of small dense factors: one per axis of an array, never formed.

mod operator;
mod spectral;
mod sylvester;

use ndarray::{Array2, ArrayD, ArrayView2, ArrayViewD, IxDyn};

pub use operator::KroneckerOperator;
pub use spectral::{Combination, KroneckerEigen};
pub use sylvester::SylvesterSolver;

use super::dense::{Scalar, matmul};
use crate::error::{Error, Result};

/// The product of a matrix A [m, n_axis] with an array along one axis: n_axis becomes m.
///
/// ```
/// use ndarray::{array, Array};
/// use wellposed::linalg::kronecker::mode_product;
/// let x = array![[1.0, 2.0], [3.0, 4.0]].into_dyn();
/// let sums = mode_product(array![[1.0, 1.0]].view(), x.view(), 1)?;
/// assert_eq!(sums, array![[3.0], [7.0]].into_dyn());
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] where the array has no such axis or another length along it.
pub fn mode_product<T: Scalar>(a: ArrayView2<T>, x: ArrayViewD<T>, axis: usize) -> Result<ArrayD<T>> {
    if x.shape().get(axis) != Some(&a.ncols()) {
        return Err(Error::shape(
            "mode product",
            format!("length {} along axis {axis}", a.ncols()),
            x.shape(),
        ));
    }
    let mut shape = x.shape().to_vec();
    let (outer, inner) = around(&shape, axis);
    shape[axis] = a.nrows();
    let x = x.as_standard_layout();
    let Some(elements) = x.as_slice() else { unreachable!("standard layout is contiguous") };
    let view = |slab: usize, rows, columns| {
        let part = &elements[slab * rows * columns..(slab + 1) * rows * columns];
        ArrayView2::from_shape((rows, columns), part)
            .map_err(|e| Error::parameter("mode product", axis, e.to_string()))
    };
    let product = if inner == 1 {
        matmul(view(0, outer, a.ncols())?, a.t())?.into_raw_vec_and_offset().0
    } else {
        let mut all = Vec::with_capacity(outer * a.nrows() * inner);
        for slab in 0..outer {
            all.extend_from_slice(&matmul(a, view(slab, a.ncols(), inner)?)?.into_raw_vec_and_offset().0);
        }
        all
    };
    ArrayD::from_shape_vec(IxDyn(&shape), product)
        .map_err(|e| Error::parameter("mode product", axis, e.to_string()))
}

/// The product of A₀ ⊗ A₁ ⊗ … with an array: one matrix for each axis.
///
/// # Errors
/// [`Error::Shape`] where numbers or lengths of axes differ.
pub fn kronecker_product<T: Scalar>(factors: &[Array2<T>], x: ArrayViewD<T>) -> Result<ArrayD<T>> {
    if factors.len() != x.ndim() {
        return Err(Error::shape("Kronecker product", format!("{} axes", factors.len()), x.shape()));
    }
    let mut product = x.to_owned();
    for (axis, a) in factors.iter().enumerate() {
        product = mode_product(a.view(), product.view(), axis)?;
    }
    Ok(product)
}

/// How many elements lie before and after an axis.
fn around(shape: &[usize], axis: usize) -> (usize, usize) {
    (shape[..axis].iter().product(), shape[axis + 1..].iter().product())
}

/// Calls `f` with each element and its multi-index, row-major.
fn for_each_indexed<T>(x: &mut ArrayD<T>, mut f: impl FnMut(&[usize], &mut T)) {
    for (index, value) in x.indexed_iter_mut() {
        f(ndarray::Dimension::slice(&index), value);
    }
}
