//! Sparse matrices along axes: the engine of separable blurs, resampling and wavelets.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::tensor::device::{Gpu, Program, Table, arguments};
use crate::tensor::simd::{Lanes, Task, dispatch};
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch};

static PROGRAM: Program = Program { name: "separable", source: include_str!("separable.cu") };

/// A sparse matrix, row by row.
#[derive(Clone)]
pub(super) struct Sparse {
    columns: usize,
    /// Where each row's entries begin, and where the last ends.
    starts: Vec<usize>,
    entries: Vec<(usize, f64)>,
    /// Both on a device.
    table: Table,
}

impl Sparse {
    /// The matrix whose row `i` holds `row(i)`: pairs of column and value; equal columns add up.
    pub(super) fn new(rows: usize, columns: usize, row: impl Fn(usize) -> Vec<(usize, f64)>) -> Self {
        let (mut starts, mut entries) = (vec![0], Vec::new());
        for i in 0..rows {
            let mut found = row(i);
            found.sort_by_key(|(column, _)| *column);
            for (column, value) in found {
                match entries[starts[i]..].last_mut() {
                    Some((last, sum)) if *last == column => *sum += value,
                    _ => entries.push((column, value)),
                }
            }
            starts.push(entries.len());
        }
        Self { columns, starts, entries, table: Table::default() }
    }

    pub(super) fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn transposed(&self) -> Self {
        let mut rows: Vec<Vec<(usize, f64)>> = vec![Vec::new(); self.columns];
        for i in 0..self.rows() {
            self.entries[self.starts[i]..self.starts[i + 1]]
                .iter()
                .for_each(|(j, value)| rows[*j].push((i, *value)));
        }
        Self::new(self.columns, self.rows(), |j| rows[j].clone())
    }
}

impl std::fmt::Debug for Sparse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sparse({} × {}, {} entries)", self.rows(), self.columns, self.entries.len())
    }
}

/// y[o, i, :] = Σⱼ Mᵢⱼ x[o, j, :] for x of shape [outer, columns, inner].
pub(super) struct AlongAxis<'a> {
    pub(super) matrix: &'a Sparse,
    pub(super) inner: usize,
}

/// Elements a task writes, about.
const TASK: usize = 1 << 14;
/// Neighbouring elements that are summed together, in registers.
const WIDTH: usize = 32;

impl Kernel for AlongAxis<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (rows, columns, inner) = (self.matrix.rows(), self.matrix.columns, self.inner);
        let taps: Vec<(usize, T)> = self.matrix.entries.iter().map(|(j, w)| (*j, T::of(*w))).collect();
        let row = |i: usize| &taps[self.matrix.starts[i]..self.matrix.starts[i + 1]];
        if inner >= WIDTH / 2 {
            let per_task = (TASK / inner).max(1);
            outputs[0].par_chunks_mut(per_task * inner).enumerate().for_each(|(task, out)| {
                for (k, out) in out.chunks_exact_mut(inner).enumerate() {
                    let (outer, i) = ((task * per_task + k) / rows, (task * per_task + k) % rows);
                    dispatch(SumRows { taps: row(i), x: &inputs[0][outer * columns * inner..], out });
                }
            });
            return Ok(());
        }
        // Lines of the last axis lie the wrong way for vector registers: turn a few of them at a time.
        let lines = WIDTH / inner;
        let scratch = || (vec![T::zero(); columns * lines * inner], vec![T::zero(); lines * inner]);
        outputs[0]
            .par_chunks_mut(lines * rows * inner)
            .zip(inputs[0].par_chunks(lines * columns * inner))
            .for_each_init(scratch, |(turned, sums), (out, x)| {
                let wide = x.len() / columns;
                turn(x, columns, inner, &mut turned[..x.len()]);
                for i in 0..rows {
                    dispatch(SumRows { taps: row(i), x: turned, out: &mut sums[..wide] });
                    for (line, sum) in sums[..wide].chunks_exact(inner).enumerate() {
                        out[(line * rows + i) * inner..][..inner].copy_from_slice(sum);
                    }
                }
            });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let Sparse { columns, starts, entries, table } = self.matrix;
        let numbers = || {
            let entries = entries.iter().flat_map(|(column, value)| [*column as f64, *value]);
            starts.iter().map(|start| *start as f64).chain(entries).collect()
        };
        Some(gpu.table(table, numbers).and_then(|table| {
            let (n, rows) = (gpu.output_len(0), self.matrix.rows());
            let sizes = arguments![n, rows, *columns, self.inner];
            let arrays = arguments![gpu.input(0), gpu.output(0), table];
            gpu.run(&PROGRAM, "along_axis", n, &[arrays, sizes].concat())
        }))
    }
}

/// [lines, columns, inner] → [columns, lines, inner].
fn turn<T: Real>(x: &[T], columns: usize, inner: usize, out: &mut [T]) {
    let wide = x.len() / columns;
    for (line, x) in x.chunks_exact(columns * inner).enumerate() {
        for (j, x) in x.chunks_exact(inner).enumerate() {
            out[j * wide + line * inner..][..inner].copy_from_slice(x);
        }
    }
}

/// out ← Σ w · x[j], rows of the length of `out`.
struct SumRows<'a, T> {
    taps: &'a [(usize, T)],
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Task<T> for SumRows<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<L: Lanes<Scalar = T>>(self) {
        let length = self.out.len();
        let mut start = 0;
        for out in self.out.chunks_mut(WIDTH) {
            if let Ok(out) = <&mut [T; WIDTH]>::try_from(&mut *out) {
                let mut sums = [T::zero(); WIDTH];
                for (j, w) in self.taps {
                    let x = &self.x[j * length + start..][..WIDTH];
                    sums.iter_mut().zip(x).for_each(|(s, x)| *s += *w * *x);
                }
                *out = sums;
            } else {
                out.fill(T::zero());
                for (j, w) in self.taps {
                    let x = &self.x[j * length + start..];
                    out.iter_mut().zip(x).for_each(|(s, x)| *s += *w * *x);
                }
            }
            start += WIDTH;
        }
    }
}

/// One matrix for each of some axes, applied one after the other.
#[derive(Clone, Debug)]
pub(super) struct Separable {
    domain: Space,
    range: Space,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    matrix: Sparse,
    transposed: Sparse,
    /// Elements of an item behind the axis.
    inner: usize,
    /// Elements of an item before and after the step.
    before: usize,
    after: usize,
}

impl Separable {
    /// `matrices` for the last axes of `domain`, the first for the first of them; their columns must be the
    /// lengths of those axes.
    pub(super) fn new(domain: &Space, matrices: Vec<Sparse>) -> Self {
        let mut shape = domain.shape().to_vec();
        let first = shape.len() - matrices.len();
        let mut steps = Vec::with_capacity(matrices.len());
        for (k, matrix) in matrices.into_iter().enumerate() {
            debug_assert_eq!(matrix.columns(), shape[first + k]);
            let inner = shape[first + k + 1..].iter().product::<usize>() * domain.components();
            let before = shape.iter().product::<usize>() * domain.components();
            shape[first + k] = matrix.rows();
            let after = shape.iter().product::<usize>() * domain.components();
            steps.push(Step { transposed: matrix.transposed(), matrix, inner, before, after });
        }
        Self { domain: domain.clone(), range: domain.with_shape(&shape), steps }
    }

    fn chain(
        &self,
        x: &Tensor,
        out: &mut Buffer,
        ws: &mut Workspace,
        steps: &[(&Sparse, usize, usize, usize)],
    ) -> Result<()> {
        let mut held: Option<Buffer> = None;
        for (k, (matrix, inner, before, after)) in steps.iter().enumerate() {
            let kernel = AlongAxis { matrix, inner: *inner };
            let items = x.elem_count() / steps[0].2.max(1);
            debug_assert_eq!(
                held.as_ref().map_or(x.elem_count(), |h| h.tensor().elem_count()),
                items * before
            );
            if k + 1 == steps.len() {
                launch(kernel, &[held.as_ref().map_or(x, |h| h.tensor())], &mut [&mut *out])?;
            } else {
                let mut next = ws.take_shape(&[items * after], x.dtype(), x.device())?;
                launch(kernel, &[held.as_ref().map_or(x, |h| h.tensor())], &mut [&mut next])?;
                held.replace(next).into_iter().for_each(|done| ws.give(done));
            }
        }
        held.into_iter().for_each(|done| ws.give(done));
        Ok(())
    }
}

impl LinearOperator for Separable {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let steps: Vec<_> = self.steps.iter().map(|s| (&s.matrix, s.inner, s.before, s.after)).collect();
        self.chain(x, out, ws, &steps)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let steps: Vec<_> =
            self.steps.iter().rev().map(|s| (&s.transposed, s.inner, s.after, s.before)).collect();
        self.chain(y, out, ws, &steps)
    }
}
