//! QR by blocked Householder reflections.
//!
//! faer's own factorisation skips columns that depend on earlier ones to about 16 m ε, and leaves an echelon form.
//! Regressions with a tiny prior live below that threshold, so here every column is reflected, as LAPACK does.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, ShapeBuilder, s};
use num_traits::Float;

use super::{Scalar, adjoint, backend};
use crate::tensor::Real;

/// Columns reflected one by one before the rest is updated by matrix products.
const BLOCK: usize = 16;

/// Q = Π (I − V T Vᴴ) over blocks of columns (compact WY form: Schreiber and Van Loan 1989).
#[derive(Clone, Debug)]
pub struct Reflections<T> {
    blocks: Vec<Block<T>>,
    rows: usize,
    columns: usize,
}

/// Reflections that leave the first `start` rows alone: V [rows − start, b] unit lower trapezoidal, T [b, b] upper
/// triangular.
#[derive(Clone, Debug)]
struct Block<T> {
    start: usize,
    v: Array2<T>,
    v_adjoint: Array2<T>,
    t: Array2<T>,
}

impl<T: Scalar> Reflections<T> {
    /// The reflections that bring `a` (column-major) to triangular form, and that form.
    pub(super) fn new(mut a: Array2<T>) -> Option<(Self, Array2<T>)> {
        let (rows, columns) = a.dim();
        let mut blocks = Vec::new();
        for start in (0..columns).step_by(BLOCK) {
            let end = (start + BLOCK).min(columns);
            let (mut panel, rest) = a.slice_mut(s![start.., start..]).split_at(ndarray::Axis(1), end - start);
            let block = pulp::Arch::new().dispatch(
                #[inline(always)]
                || Block::factorise(start, &mut panel),
            );
            block.apply(rest, true);
            blocks.push(block);
        }
        let r = Array2::from_shape_fn(
            (columns, columns).f(),
            |(i, j)| if i <= j { a[[i, j]] } else { T::zero() },
        );
        Some((Self { blocks, rows, columns }, r))
    }

    pub(super) fn q(&self) -> Array2<T> {
        let mut q = Array2::zeros((self.rows, self.columns).f());
        q.diag_mut().fill(T::one());
        for block in self.blocks.iter().rev() {
            block.apply(q.slice_mut(s![block.start.., ..]), false);
        }
        q
    }

    pub(super) fn q_adjoint(&self, mut b: Array2<T>) -> Array2<T> {
        for block in &self.blocks {
            block.apply(b.slice_mut(s![block.start.., ..]), true);
        }
        b
    }
}

impl<T: Scalar> Block<T> {
    /// Reflects the columns of a panel in place, leaving R in its upper triangle.
    #[inline(always)] // compiled for the vectors of the machine, with what it calls
    fn factorise(start: usize, panel: &mut ArrayViewMut2<T>) -> Self {
        let (m, b) = panel.dim();
        let mut v = Array2::zeros((m, b).f());
        let mut t = Array2::zeros((b, b));
        for j in 0..b {
            let (reflector, tau, beta) = reflector(panel.slice(s![j.., j]).iter().copied().collect());
            for k in j..b {
                let mut column = panel.slice_mut(s![j.., k]);
                let along = tau * dot(&reflector, column.as_slice_memory_order().unwrap_or(&[]));
                column.iter_mut().zip(&reflector).for_each(|(c, r)| *c -= along * *r);
            }
            panel[[j, j]] = beta;
            v.slice_mut(s![j.., j]).iter_mut().zip(&reflector).for_each(|(v, r)| *v = *r);
            // T gains the column −τ T (Vᴴ v).
            let overlaps: Vec<T> = (0..j)
                .map(|i| {
                    let earlier = v.slice(s![j.., i]);
                    dot(earlier.as_slice_memory_order().unwrap_or(&[]), &reflector)
                })
                .collect();
            for i in 0..j {
                let sum = (i..j).fold(T::zero(), |s, k| s + t[[i, k]] * overlaps[k]);
                t[[i, j]] = -(tau * sum);
            }
            t[[j, j]] = tau;
        }
        let v_adjoint = adjoint(v.view());
        Self { start, v, v_adjoint, t }
    }

    /// B ← (I − V T Vᴴ) B, or the adjoint of that, on the rows from `start` on.
    fn apply(&self, b: ArrayViewMut2<T>, adjointly: bool) {
        if b.is_empty() {
            return;
        }
        let product = |x: ArrayView2<T>, y: ArrayView2<T>| {
            let mut out = Array2::zeros((x.nrows(), y.ncols()).f());
            backend::matmul(x, y, out.view_mut());
            out
        };
        let inner = product(self.v_adjoint.view(), b.view());
        let t = if adjointly { adjoint(self.t.view()) } else { self.t.clone() };
        backend::subtract_product(self.v.view(), product(t.view(), inner.view()).view(), b);
    }
}

/// v, τ and β with (I − τ v vᴴ) x = β e₀, τ real; τ is 0 for x that is zero.
#[inline(always)]
fn reflector<T: Scalar>(mut x: Vec<T>) -> (Vec<T>, T, T) {
    let largest = x.iter().map(|v| v.squared_modulus().as_f64().sqrt()).fold(0.0, f64::max);
    let Some(first) = x.first().copied() else { return (x, T::zero(), T::zero()) };
    if largest == 0.0 {
        x.fill(T::zero());
        return (x, T::zero(), T::zero());
    }
    // Scaled, so that squares neither overflow nor underflow.
    let scale = T::of_real(T::Modulus::of(largest));
    let squares = x.iter().fold(0.0, |s, v| s + (*v / scale).squared_modulus().as_f64());
    let norm = T::of_real(T::Modulus::of(squares.sqrt() * largest));
    let head = T::of_real(first.squared_modulus().sqrt());
    let phase = if head.is_zero() { T::one() } else { first / head };
    let beta = -(phase * norm);
    let pivot = first - beta;
    x.iter_mut().for_each(|v| *v /= pivot);
    x[0] = T::one();
    let length = dot(&x, &x);
    let two = T::one() + T::one();
    (x, two / length, beta)
}

/// xᴴ y, in eight partial sums that the compiler can keep in vector registers.
#[inline(always)]
fn dot<T: Scalar>(x: &[T], y: &[T]) -> T {
    let mut sums = [T::zero(); 8];
    let (mut a, mut b) = (x.chunks_exact(8), y.chunks_exact(8));
    for (x, y) in (&mut a).zip(&mut b) {
        for k in 0..8 {
            sums[k] += x[k].conjugate() * y[k];
        }
    }
    let tail = a.remainder().iter().zip(b.remainder()).fold(T::zero(), |s, (x, y)| s + x.conjugate() * *y);
    sums.into_iter().fold(tail, |s, v| s + v)
}
