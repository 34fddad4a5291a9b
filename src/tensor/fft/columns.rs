//! Blocks of columns of a matrix, gathered as contiguous lines and scattered back.

use num_complex::Complex;

use crate::tensor::Real;

/// A row-major matrix whose disjoint column blocks are worked on by several threads.
pub(super) struct Matrix<T> {
    start: *mut Complex<T>,
    rows: usize,
    width: usize,
}

// SAFETY: threads touch disjoint columns only, see the contracts of the methods.
unsafe impl<T: Send> Send for Matrix<T> {}
unsafe impl<T: Send> Sync for Matrix<T> {}

/// Rows moved together: eight elements of a gathered column fill a cache line.
const TILE: usize = 8;

impl<T: Real> Matrix<T> {
    /// A matrix that may be written to.
    pub(super) fn new(data: &mut [Complex<T>], width: usize) -> Self {
        Self { start: data.as_mut_ptr(), rows: data.len() / width, width }
    }

    /// A matrix that is only gathered from.
    pub(super) fn read_only(data: &[Complex<T>], width: usize) -> Self {
        Self { start: data.as_ptr().cast_mut(), rows: data.len() / width, width }
    }

    /// `count` elements of row `row` from column `first` on.
    ///
    /// # Safety
    /// No other thread may write to these elements meanwhile.
    unsafe fn row(&self, row: usize, first: usize, count: usize) -> &[Complex<T>] {
        debug_assert!(row < self.rows && first + count <= self.width);
        // SAFETY: in bounds of the borrowed matrix; not written to, by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(row * self.width + first), count) }
    }

    /// As [`Matrix::row`], for writing.
    ///
    /// # Safety
    /// The matrix was made by [`Matrix::new`], and no other thread may touch these elements meanwhile.
    #[allow(clippy::mut_from_ref)]
    unsafe fn row_mut(&self, row: usize, first: usize, count: usize) -> &mut [Complex<T>] {
        debug_assert!(row < self.rows && first + count <= self.width);
        // SAFETY: in bounds of the exclusively borrowed matrix; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.width + first), count) }
    }

    /// lines[c·pitch + i] ← element ((i + origin) mod rows, first + c), for each column c < count.
    ///
    /// # Safety
    /// No other thread may write to these columns meanwhile.
    pub(super) unsafe fn gather(
        &self,
        first: usize,
        count: usize,
        origin: usize,
        lines: &mut [Complex<T>],
        pitch: usize,
    ) {
        // SAFETY: rows below `rows`, columns as promised by the caller.
        self.tiles(origin, |i, row| match row.len() {
            TILE => {
                let rows: [&[Complex<T>]; TILE] =
                    std::array::from_fn(|k| unsafe { self.row(row.start + k, first, count) });
                for c in 0..count {
                    let line = &mut lines[c * pitch + i..][..TILE];
                    for k in 0..TILE {
                        line[k] = rows[k][c];
                    }
                }
            }
            _ => {
                for (k, row) in row.enumerate() {
                    let row = unsafe { self.row(row, first, count) };
                    row.iter().enumerate().for_each(|(c, v)| lines[c * pitch + i + k] = *v);
                }
            }
        });
    }

    /// The inverse of [`Matrix::gather`].
    ///
    /// # Safety
    /// As [`Matrix::row_mut`], for these columns.
    pub(super) unsafe fn scatter(
        &self,
        first: usize,
        count: usize,
        origin: usize,
        lines: &[Complex<T>],
        pitch: usize,
    ) {
        // SAFETY: as in `gather`.
        self.tiles(origin, |i, row| match row.len() {
            TILE => {
                let rows: [&mut [Complex<T>]; TILE] =
                    std::array::from_fn(|k| unsafe { self.row_mut(row.start + k, first, count) });
                for c in 0..count {
                    let line = &lines[c * pitch + i..][..TILE];
                    for k in 0..TILE {
                        rows[k][c] = line[k];
                    }
                }
            }
            _ => {
                for (k, row) in row.enumerate() {
                    let row = unsafe { self.row_mut(row, first, count) };
                    row.iter_mut().enumerate().for_each(|(c, v)| *v = lines[c * pitch + i + k]);
                }
            }
        });
    }

    /// Calls `visit(i, rows)` for tiles of rows, where i is the place of the tile's first row in the rotated
    /// column.
    fn tiles(&self, origin: usize, mut visit: impl FnMut(usize, std::ops::Range<usize>)) {
        let after = self.rows - origin;
        for (start, length, place) in [(origin, after, 0), (0, origin, after)] {
            for i in (0..length).step_by(TILE) {
                visit(place + i, start + i..start + length.min(i + TILE));
            }
        }
    }
}
