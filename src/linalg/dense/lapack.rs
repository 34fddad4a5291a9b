//! The factorisations by LAPACK and BLAS (the system's OpenBLAS, through ndarray-linalg). Matrices given away
//! are column-major.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, linalg::general_mat_mul};
use ndarray_linalg::{
    AllocatedArray, AllocatedArrayMut, CholeskyInto, Diag, Eig, EighInto, JobSvd, Lapack, QRInto, SVDDCInto,
    SolveTriangularInplace, UPLO,
};
use num_complex::Complex;
use num_traits::ToPrimitive;

use super::{Scalar, Triangle};
use crate::tensor::Real;

/// What LAPACK needs of an element.
pub trait Element: Lapack {}
impl<T: Lapack> Element for T {}
/// What LAPACK needs of a real element.
pub trait RealElement: Lapack {}
impl RealElement for f32 {}
impl RealElement for f64 {}

pub(super) fn matmul<T: Scalar>(a: ArrayView2<T>, b: ArrayView2<T>, mut out: ArrayViewMut2<T>) {
    general_mat_mul(T::one(), &a, &b, T::zero(), &mut out);
}

pub(super) fn solve_triangular<T: Scalar>(a: ArrayView2<T>, part: Triangle, b: &mut Array2<T>) {
    if b.is_empty() {
        return;
    }
    let (part, diagonal) = match part {
        Triangle::Lower => (UPLO::Lower, Diag::NonUnit),
        Triangle::UnitLower => (UPLO::Lower, Diag::Unit),
        Triangle::Upper => (UPLO::Upper, Diag::NonUnit),
    };
    let solved = super::columns(a).solve_triangular_inplace(part, diagonal, b).map(|_| ());
    assert!(solved.is_ok(), "shapes and the diagonal are checked by the callers: {solved:?}");
}

pub(super) fn cholesky<T: Scalar>(a: Array2<T>) -> Option<Array2<T>> {
    a.cholesky_into(UPLO::Lower).ok()
}

pub(super) fn lu<T: Scalar>(mut a: Array2<T>) -> Option<(Array2<T>, Vec<usize>)> {
    let layout = a.layout().ok()?;
    let pivots = T::lu(layout, a.as_allocated_mut().ok()?).ok()?;
    let mut order: Vec<usize> = (0..a.nrows()).collect();
    for (row, exchanged) in pivots.into_iter().enumerate() {
        order.swap(row, usize::try_from(exchanged).ok()? - 1);
    }
    Some((a, order))
}

/// An orthonormal basis of the columns, formed explicitly.
#[derive(Clone, Debug)]
pub struct Reflections<T> {
    q: Array2<T>,
}

impl<T: Scalar> Reflections<T> {
    /// The basis, and the triangular factor.
    pub(super) fn new(a: Array2<T>) -> Option<(Self, Array2<T>)> {
        let (q, r) = a.qr_into().ok()?;
        Some((Self { q }, r))
    }

    pub(super) fn q(&self) -> Array2<T> {
        self.q.clone()
    }

    pub(super) fn q_adjoint(&self, b: Array2<T>) -> Array2<T> {
        super::adjoint(self.q.view()).dot(&b)
    }
}

fn modulus<T: Scalar>(value: impl ToPrimitive) -> T::Modulus {
    T::Modulus::of(value.to_f64().unwrap_or(f64::NAN))
}

fn moduli<T: Scalar>(values: Array1<<T as ndarray_linalg::Scalar>::Real>) -> Array1<T::Modulus> {
    values.mapv(modulus::<T>)
}

pub(super) fn hermitian_eigen<T: Scalar>(a: Array2<T>) -> Option<(Array1<T::Modulus>, Array2<T>)> {
    let (values, vectors) = a.eigh_into(UPLO::Lower).ok()?;
    Some((moduli::<T>(values), vectors))
}

pub(super) type Triple<T> = (Array2<T>, Array1<<T as Scalar>::Modulus>, Array2<T>);

pub(super) fn svd<T: Scalar>(a: Array2<T>) -> Option<Triple<T>> {
    let (u, values, v_adjoint) = a.svddc_into(JobSvd::Some).ok()?;
    Some((u?, moduli::<T>(values), v_adjoint?))
}

pub(super) type Pair<T> = (Array1<Complex<T>>, Array2<Complex<T>>);

pub(super) fn eigen<T: Scalar<Modulus = T> + RealElement>(a: Array2<T>) -> Option<Pair<T>>
where
    Complex<T>: Scalar<Modulus = T>,
{
    let (values, vectors) = a.eig().ok()?;
    let plain = |z: T::Complex| {
        let part = modulus::<T>;
        Complex::new(part(ndarray_linalg::Scalar::re(&z)), part(ndarray_linalg::Scalar::im(&z)))
    };
    Some((values.mapv(plain), vectors.mapv(plain)))
}
