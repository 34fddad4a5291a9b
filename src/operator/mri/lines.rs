//! Encoding where whole lines are sampled: transforms of lines that aren't can be left out.

use num_complex::Complex;
use rayon::prelude::*;

use super::encode::{Column, Encoding, ROWS};
use crate::tensor::Real;
use crate::tensor::complex::{add_conjugate_product, multiply, weight};
use crate::tensor::fft::Direction;

/// Lines that a mask [ky, kx] samples as wholes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Lines {
    /// None to speak of, or the mask has another number of axes.
    None,
    /// Many columns hold no sample: these do.
    Columns(Vec<usize>),
    /// Every row is sampled evenly.
    Rows,
}

impl Lines {
    /// The lines of a mask of `shape`, whose columns are sampled as `kinds` says.
    pub(super) fn of(shape: &[usize], mask: &[f64], kinds: &[Column]) -> Self {
        let &[_, width] = shape else { return Self::None };
        let sampled: Vec<usize> = (0..width).filter(|c| kinds[*c] != Column::Constant(0.0)).collect();
        if !sampled.is_empty() && 4 * sampled.len() <= 3 * width {
            return Self::Columns(sampled);
        }
        let even = mask.chunks_exact(width).all(|row| row.iter().all(|w| *w == row[0]));
        if even && kinds.contains(&Column::Varying) { Self::Rows } else { Self::None }
    }
}

fn zero<T: Real>() -> Complex<T> {
    Complex::new(T::zero(), T::zero())
}

impl<T: Real> Encoding<'_, T> {
    /// K-space of S_c x in these columns. Before the transforms along them they lie side by side at the start of `out`.
    pub(super) fn to_columns(
        &self,
        sampled: &[usize],
        x: &[Complex<T>],
        map: &[Complex<T>],
        out: &mut [Complex<T>],
    ) {
        let (axis, last, scale) = (self.plan.outer(), self.plan.last(), self.plan.scale());
        let (width, kept, places) = (last.length(), sampled.len(), self.places(sampled));
        let compact = &mut out[..axis.length() * kept];
        compact.par_chunks_mut(ROWS * kept).enumerate().for_each(|(block, rows)| {
            last.with_scratch(|scratch| {
                for (i, row) in rows.chunks_exact_mut(kept).enumerate() {
                    let at = (block * ROWS + i) * width;
                    let load = |i: usize, line: &mut [_]| multiply(&x[at + i..], &map[at + i..], line);
                    let work = |line: &mut [_], scratch: &mut [_]| {
                        last.line(Direction::Forward, line, scratch);
                        row.iter_mut().zip(&places).for_each(|(o, place)| *o = line[*place]);
                    };
                    last.row(scratch, load, work, |_, _| ());
                }
            });
        });
        axis.columns_of(kept, None, compact, |column, line, scratch| {
            axis.line(Direction::Forward, line, scratch);
            weight(self.weights(sampled[column]), scale, line);
        });
        // From the last row on, so that no row is overwritten before it is moved.
        let mut line = vec![zero(); kept];
        for row in (0..axis.length()).rev() {
            line.copy_from_slice(&out[row * kept..(row + 1) * kept]);
            let out = &mut out[row * width..(row + 1) * width];
            out.fill(zero());
            line.iter().zip(sampled).for_each(|(v, column)| out[*column] = *v);
        }
    }

    /// sum ← sum + conj(S_c) · Fᴴ M y, from these columns.
    pub(super) fn add_columns(
        &self,
        sampled: &[usize],
        y: &[Complex<T>],
        coil_image: &mut [Complex<T>],
        (first, map, sum): (bool, &[Complex<T>], &mut [Complex<T>]),
    ) {
        let (axis, last, scale) = (self.plan.outer(), self.plan.last(), self.plan.scale());
        let (width, kept, places) = (last.length(), sampled.len(), self.places(sampled));
        let compact = &mut coil_image[..axis.length() * kept];
        compact.par_chunks_mut(ROWS * kept).zip(y.par_chunks(ROWS * width)).for_each(|(rows, y)| {
            for (row, y) in rows.chunks_exact_mut(kept).zip(y.chunks_exact(width)) {
                row.iter_mut().zip(sampled).for_each(|(o, column)| *o = y[*column]);
            }
        });
        axis.columns_of(kept, None, compact, |column, line, scratch| {
            weight(self.weights(sampled[column]), scale, line);
            axis.line(Direction::Inverse, line, scratch);
        });
        let compact = &coil_image[..axis.length() * kept];
        self.sum_rows(first, sum, |at, row, scratch| {
            let (source, map) = (&compact[at / width * kept..][..kept], &map[at..]);
            last.row(
                scratch,
                |_, line| line.fill(zero()),
                |line, scratch| {
                    source.iter().zip(&places).for_each(|(v, place)| line[*place] = *v);
                    last.line(Direction::Inverse, line, scratch);
                },
                |i, line| add_conjugate_product(&map[i..], line, &mut row[i..i + line.len()]),
            );
        });
    }

    /// Where columns lie in lines along rows.
    fn places(&self, columns: &[usize]) -> Vec<usize> {
        let last = self.plan.last();
        columns.iter().map(|c| (c + last.length() - last.origin()) % last.length()).collect()
    }

    /// K-space of S_c x in rows that are sampled.
    pub(super) fn to_rows(&self, x: &[Complex<T>], map: &[Complex<T>], out: &mut [Complex<T>]) {
        let (axis, last, scale) = (self.plan.outer(), self.plan.last(), self.plan.scale());
        self.expand(x, map, out);
        axis.columns(None, out, |_, line, scratch| axis.line(Direction::Forward, line, scratch));
        let copy = |_: usize, here: &[_], line: &mut [_]| line.copy_from_slice(here);
        last.rows(out, copy, |row, line, scratch| match self.row_weight(row) {
            w if w == T::zero() => line.fill(zero()),
            w => {
                last.line(Direction::Forward, line, scratch);
                line.iter_mut().for_each(|v| *v = v.scale(w * scale));
            }
        });
    }

    /// The coil image of Fᴴ M y from rows that are sampled.
    pub(super) fn back_from_rows(&self, y: &[Complex<T>], coil_image: &mut [Complex<T>]) {
        let (axis, last, scale) = (self.plan.outer(), self.plan.last(), self.plan.scale());
        let load = |at: usize, _: &[_], line: &mut [Complex<T>]| {
            let w = self.row_weight(at / last.length()) * scale;
            if w == T::zero() {
                return line.fill(zero());
            }
            line.iter_mut().zip(&y[at..]).for_each(|(o, v)| *o = v.scale(w));
        };
        last.rows(coil_image, load, |row, line, scratch| {
            if self.row_weight(row) != T::zero() {
                last.line(Direction::Inverse, line, scratch);
            }
        });
        axis.columns(None, coil_image, |_, line, scratch| axis.line(Direction::Inverse, line, scratch));
    }

    /// The coil image of Fᴴ M² F S_c x: along rows that are sampled evenly, F and Fᴴ cancel.
    pub(super) fn filter_rows(&self, x: &[Complex<T>], map: &[Complex<T>], coil_image: &mut [Complex<T>]) {
        let axis = self.plan.outer();
        let scale = T::of(1.0 / axis.length() as f64);
        self.expand(x, map, coil_image);
        axis.columns(None, coil_image, |column, line, scratch| {
            axis.line(Direction::Forward, line, scratch);
            weight(self.weights(column), T::one(), line);
            weight(self.weights(column), scale, line);
            axis.line(Direction::Inverse, line, scratch);
        });
    }

    /// out ← S_c x.
    fn expand(&self, x: &[Complex<T>], map: &[Complex<T>], out: &mut [Complex<T>]) {
        let chunk = ROWS * self.plan.last().length();
        let factors = x.par_chunks(chunk).zip(map.par_chunks(chunk));
        out.par_chunks_mut(chunk).zip(factors).for_each(|(out, (x, map))| multiply(x, map, out));
    }

    /// sum ← sum + conj(S_c) · coil image.
    pub(super) fn add_products(
        &self,
        first: bool,
        map: &[Complex<T>],
        coil_image: &[Complex<T>],
        sum: &mut [Complex<T>],
    ) {
        self.sum_rows(first, sum, |at, row, _| add_conjugate_product(&map[at..], &coil_image[at..], row));
    }

    /// The weight of a row that is sampled evenly.
    fn row_weight(&self, row: usize) -> T {
        let axis = self.plan.outer();
        self.weights(0)[(row + axis.length() - axis.origin()) % axis.length()]
    }
}
