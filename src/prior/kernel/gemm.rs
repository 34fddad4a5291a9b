//! The matrix product at the heart of every convolution: C ← A B with B packed once.

use super::simd::{Lanes, Vectorised, dispatch};

/// Columns of a panel: B is stored panel by panel, each row of a panel contiguous.
const PANEL: usize = 32;

/// A right-hand matrix [depth, columns], packed; columns are rounded up to a multiple of 16 by zeros.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) depth: usize,
    pub(super) columns: usize,
    data: Vec<f32>,
}

impl Packed {
    /// Packs the matrix whose elements are `at(row, column)`.
    pub(super) fn new(depth: usize, columns: usize, at: impl Fn(usize, usize) -> f32) -> Self {
        let padded = columns.next_multiple_of(16);
        let mut data = vec![0.0; depth * padded];
        for start in (0..padded).step_by(PANEL) {
            let width = PANEL.min(padded - start);
            for row in 0..depth {
                let to = &mut data[start * depth + row * width..][..width];
                for (column, value) in (start..columns).zip(to) {
                    *value = at(row, column);
                }
            }
        }
        Self { depth, columns: padded, data }
    }

    /// c ← a B: `rows` rows of `a` with stride `a_stride`, and of `c` with stride `c_stride`.
    pub(super) fn multiply(&self, rows: usize, a: &[f32], a_stride: usize, c: &mut [f32], c_stride: usize) {
        assert!(rows == 0 || (a.len() >= (rows - 1) * a_stride + self.depth));
        assert!(rows == 0 || (c.len() >= (rows - 1) * c_stride + self.columns));
        dispatch(Multiply { b: self, rows, a: a.as_ptr(), a_stride, c: c.as_mut_ptr(), c_stride });
    }

    /// The product inside a computation that already runs vectorised.
    ///
    /// # Safety
    /// `a` and `c` must be valid for `rows` rows of these strides; see [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn multiply_lanes<V: Lanes>(
        &self,
        rows: usize,
        a: *const f32,
        a_stride: usize,
        c: *mut f32,
        c_stride: usize,
    ) {
        for start in (0..self.columns).step_by(PANEL) {
            let width = PANEL.min(self.columns - start);
            let mut column = 0;
            while column < width {
                let vectors = V::VECTORS.min((width - column) / 16);
                // SAFETY: inside the packed data, and inside `c` as the caller vouches.
                unsafe {
                    let b = self.data.as_ptr().add(start * self.depth + column);
                    let task = Columns {
                        depth: self.depth,
                        a,
                        a_stride,
                        b,
                        width,
                        c: c.add(start + column),
                        c_stride,
                    };
                    match vectors {
                        2 => task.all_rows::<V, 2>(rows),
                        _ => task.all_rows::<V, 1>(rows),
                    }
                }
                column += 16 * vectors;
            }
        }
    }
}

struct Multiply<'a> {
    b: &'a Packed,
    rows: usize,
    a: *const f32,
    a_stride: usize,
    c: *mut f32,
    c_stride: usize,
}

impl Vectorised for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: `Packed::multiply` has checked the lengths.
        unsafe { self.b.multiply_lanes::<V>(self.rows, self.a, self.a_stride, self.c, self.c_stride) }
    }
}

/// All rows of one or two vectors of columns.
#[derive(Clone, Copy)]
struct Columns {
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    width: usize,
    c: *mut f32,
    c_stride: usize,
}

impl Columns {
    #[inline(always)]
    unsafe fn all_rows<V: Lanes, const N: usize>(self, rows: usize) {
        let mut row = 0;
        // SAFETY: as `multiply_lanes`.
        unsafe {
            while V::ROWS == 12 && row + 12 <= rows {
                self.tile::<V, 12, N>(row);
                row += 12;
            }
            while V::ROWS >= 6 && row + 6 <= rows {
                self.tile::<V, 6, N>(row);
                row += 6;
            }
            while row + 4 <= rows {
                self.tile::<V, 4, N>(row);
                row += 4;
            }
            while row < rows {
                self.tile::<V, 1, N>(row);
                row += 1;
            }
        }
    }

    /// The register tile: R rows of N vectors, accumulated over the whole depth.
    #[inline(always)]
    unsafe fn tile<V: Lanes, const R: usize, const N: usize>(self, row: usize) {
        // SAFETY: as `multiply_lanes`.
        unsafe {
            let mut a: [*const f32; R] = std::array::from_fn(|r| self.a.add((row + r) * self.a_stride));
            let mut b = self.b;
            let mut sums = [[V::splat(0.0); N]; R];
            for _ in 0..self.depth {
                let right: [V; N] = std::array::from_fn(|n| V::load(b.add(16 * n)));
                b = b.add(self.width);
                for r in 0..R {
                    let left = V::splat(*a[r]);
                    a[r] = a[r].add(1);
                    for n in 0..N {
                        sums[r][n] = left.fma(right[n], sums[r][n]);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                let c = self.c.add((row + r) * self.c_stride);
                for (n, sum) in sums.iter().enumerate() {
                    sum.store(c.add(16 * n));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::every_instruction_set;
    use super::*;

    #[test]
    fn products_match_on_every_instruction_set() {
        for (rows, depth, columns) in [(1, 3, 5), (7, 16, 16), (12, 9, 48), (29, 33, 80)] {
            let right = |i: usize, j: usize| ((i * 7 + j * 3) % 11) as f32 - 5.0;
            let packed = Packed::new(depth, columns, right);
            let a: Vec<f32> = (0..rows * (depth + 2)).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
            let stride = packed.columns + 3;
            for run in every_instruction_set::<Multiply>() {
                let mut c = vec![f32::NAN; rows * stride];
                let (from, to) = (a.as_ptr(), c.as_mut_ptr());
                let product =
                    Multiply { b: &packed, rows, a: from, a_stride: depth + 2, c: to, c_stride: stride };
                run(product);
                for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
                    let sum: f32 = (0..depth).map(|k| a[i * (depth + 2) + k] * right(k, j)).sum();
                    assert_eq!(c[i * stride + j], sum, "{rows} × {depth} × {columns} at {i}, {j}");
                }
            }
        }
    }
}
