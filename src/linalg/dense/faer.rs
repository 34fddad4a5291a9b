//! The factorisations by faer, on the calling thread. Matrices given away are column-major.

use faer::dyn_stack::{MemBuffer, MemStack, StackReq};
use faer::linalg::cholesky::llt::factor as llt;
use faer::linalg::evd::ComputeEigenvectors;
use faer::linalg::lu::partial_pivoting::factor as lu_factor;
use faer::linalg::svd::ComputeSvdVectors;
use faer::linalg::triangular_solve as substitution;
use faer::linalg::{evd, svd as faer_svd};
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, ShapeBuilder, s};
use num_complex::Complex;

pub(super) use super::householder::Reflections;
use super::{Scalar, Triangle};

/// What faer needs of an element.
pub trait Element: faer::traits::ComplexField {}
impl<T: faer::traits::ComplexField> Element for T {}
/// What faer needs of a real element.
pub trait RealElement: faer::traits::RealField {}
impl<T: faer::traits::RealField> RealElement for T {}

fn view<T>(a: ArrayView2<'_, T>) -> MatRef<'_, T> {
    let (rows, columns, strides) = (a.nrows(), a.ncols(), [a.strides()[0], a.strides()[1]]);
    // SAFETY: pointer, shape and strides describe the borrowed array, whose lifetime the result keeps.
    unsafe { MatRef::from_raw_parts(a.as_ptr(), rows, columns, strides[0], strides[1]) }
}

fn view_mut<T>(mut a: ArrayViewMut2<'_, T>) -> MatMut<'_, T> {
    let (rows, columns, strides) = (a.nrows(), a.ncols(), [a.strides()[0], a.strides()[1]]);
    // SAFETY: as in `view`; the borrow is exclusive.
    unsafe { MatMut::from_raw_parts_mut(a.as_mut_ptr(), rows, columns, strides[0], strides[1]) }
}

fn scratch<R>(need: StackReq, work: impl FnOnce(&mut MemStack) -> R) -> R {
    work(MemStack::new(&mut MemBuffer::new(need)))
}

fn zeros<T: Scalar>(rows: usize, columns: usize) -> Array2<T> {
    Array2::zeros((rows, columns).f())
}

pub(super) fn matmul<T: Scalar>(a: ArrayView2<T>, b: ArrayView2<T>, out: ArrayViewMut2<T>) {
    faer::linalg::matmul::matmul(view_mut(out), Accum::Replace, view(a), view(b), T::one(), Par::Seq);
}

/// out ← out − A B.
pub(super) fn subtract_product<T: Scalar>(a: ArrayView2<T>, b: ArrayView2<T>, out: ArrayViewMut2<T>) {
    faer::linalg::matmul::matmul(view_mut(out), Accum::Add, view(a), view(b), -T::one(), Par::Seq);
}

pub(super) fn solve_triangular<T: Scalar>(a: ArrayView2<T>, part: Triangle, b: &mut Array2<T>) {
    let (a, b) = (view(a), view_mut(b.view_mut()));
    match part {
        Triangle::Lower => substitution::solve_lower_triangular_in_place(a, b, Par::Seq),
        Triangle::UnitLower => substitution::solve_unit_lower_triangular_in_place(a, b, Par::Seq),
        Triangle::Upper => substitution::solve_upper_triangular_in_place(a, b, Par::Seq),
    }
}

pub(super) fn cholesky<T: Scalar>(mut a: Array2<T>) -> Option<Array2<T>> {
    let n = a.nrows();
    let need = llt::cholesky_in_place_scratch::<T>(n, Par::Seq, Default::default());
    scratch(need, |stack| {
        let a = view_mut(a.view_mut());
        llt::cholesky_in_place(a, Default::default(), Par::Seq, stack, Default::default()).ok()
    })?;
    for (j, mut column) in a.columns_mut().into_iter().enumerate() {
        column.slice_mut(s![..j]).fill(T::zero());
    }
    Some(a)
}

pub(super) fn lu<T: Scalar>(mut a: Array2<T>) -> Option<(Array2<T>, Vec<usize>)> {
    let n = a.nrows();
    let (mut order, mut inverse) = (vec![0usize; n], vec![0usize; n]);
    let need = lu_factor::lu_in_place_scratch::<usize, T>(n, n, Par::Seq, Default::default());
    scratch(need, |stack| {
        let a = view_mut(a.view_mut());
        lu_factor::lu_in_place(a, &mut order, &mut inverse, Par::Seq, stack, Default::default());
    });
    Some((a, order))
}

pub(super) fn hermitian_eigen<T: Scalar>(a: Array2<T>) -> Option<(Array1<T::Modulus>, Array2<T>)> {
    let n = a.nrows();
    let mut values = Array1::<T>::zeros(n);
    let mut vectors = zeros::<T>(n, n);
    let yes = ComputeEigenvectors::Yes;
    let need = evd::self_adjoint_evd_scratch::<T>(n, yes, Par::Seq, Default::default());
    scratch(need, |stack| {
        let diagonal = faer::diag::DiagMut::from_slice_mut(values.as_slice_mut()?);
        let vectors = Some(view_mut(vectors.view_mut()));
        evd::self_adjoint_evd(view(a.view()), diagonal, vectors, Par::Seq, stack, Default::default()).ok()
    })?;
    Some((values.mapv(|v| v.real_part()), vectors))
}

pub(super) type Triple<T> = (Array2<T>, Array1<<T as Scalar>::Modulus>, Array2<T>);

pub(super) fn svd<T: Scalar>(a: Array2<T>) -> Option<Triple<T>> {
    let (m, n) = a.dim();
    let k = m.min(n);
    let mut values = Array1::<T>::zeros(k);
    let (mut u, mut v) = (zeros::<T>(m, k), zeros::<T>(n, k));
    let thin = ComputeSvdVectors::Thin;
    let need = faer_svd::svd_scratch::<T>(m, n, thin, thin, Par::Seq, Default::default());
    scratch(need, |stack| {
        let diagonal = faer::diag::DiagMut::from_slice_mut(values.as_slice_mut()?);
        let (u, v) = (Some(view_mut(u.view_mut())), Some(view_mut(v.view_mut())));
        faer_svd::svd(view(a.view()), diagonal, u, v, Par::Seq, stack, Default::default()).ok()
    })?;
    Some((u, values.mapv(|v| v.real_part()), super::adjoint(v.view())))
}

pub(super) type Pair<T> = (Array1<Complex<T>>, Array2<Complex<T>>);

pub(super) fn eigen<T: Scalar<Modulus = T> + RealElement>(a: Array2<T>) -> Option<Pair<T>>
where
    Complex<T>: Scalar<Modulus = T>,
{
    let n = a.nrows();
    if n == 0 {
        return Some((Array1::zeros(0), Array2::zeros((0, 0))));
    }
    let (mut re, mut im) = (vec![T::zero(); n], vec![T::zero(); n]);
    let mut packed = zeros::<T>(n, n);
    let (no, yes) = (ComputeEigenvectors::No, ComputeEigenvectors::Yes);
    let need = evd::evd_scratch::<T>(n, no, yes, Par::Seq, Default::default());
    scratch(need, |stack| {
        let re = faer::diag::DiagMut::from_slice_mut(&mut re);
        let im = faer::diag::DiagMut::from_slice_mut(&mut im);
        let right = Some(view_mut(packed.view_mut()));
        evd::evd_real(view(a.view()), re, im, None, right, Par::Seq, stack, Default::default()).ok()
    })?;
    let mut vectors = Array2::zeros((n, n));
    let mut j = 0;
    while j < n {
        // A conjugate pair is stored as the real and the imaginary part of its first vector.
        let pair = !im[j].is_zero() && j + 1 < n;
        for i in 0..n {
            let imaginary = if pair { packed[[i, j + 1]] } else { T::zero() };
            vectors[[i, j]] = Complex::new(packed[[i, j]], imaginary);
            if pair {
                vectors[[i, j + 1]] = vectors[[i, j]].conjugate();
            }
        }
        j += if pair { 2 } else { 1 };
    }
    Some((re.iter().zip(&im).map(|(re, im)| Complex::new(*re, *im)).collect(), vectors))
}
