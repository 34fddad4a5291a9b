//! Transforms of one shape, and their passes over rows and columns for kernels that do more on the way.

use std::sync::{Arc, Mutex, PoisonError};

use num_complex::Complex;
use rayon::prelude::*;
use rustfft::{Fft as Line, FftDirection};

use super::columns::Matrix;
use super::{Direction, Origin};
use crate::error::{Error, Result};
use crate::tensor::Real;

/// Lines transformed together: wide enough to read whole cache lines of columns, few enough for the cache.
const LINES: usize = 16;
/// Elements between gathered columns beyond their length, so that they don't fall on the same cache sets.
const PADDING: usize = 8;

/// Orthonormal n-dimensional transforms of one shape, for kernels that hold complex slices.
///
/// The results don't depend on the number of threads: every line is one unit of work.
#[derive(Debug)]
pub struct Plan<T: Real> {
    axes: Vec<Axis<T>>,
    scale: T,
}

/// One transformed axis. Its transforms are not scaled.
pub(crate) struct Axis<T: Real> {
    length: usize,
    /// Elements between neighbours along this axis.
    stride: usize,
    /// Where index 0 of the transform lies on the axis.
    origin: usize,
    lines: [Arc<dyn Line<T>>; 2],
    /// Scratch that is not in use: each piece holds one block of lines.
    scratch: Mutex<Vec<Vec<Complex<T>>>>,
}

impl<T: Real> std::fmt::Debug for Axis<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Axis {{ length: {}, origin: {} }}", self.length, self.origin)
    }
}

impl<T: Real> Plan<T> {
    /// Transforms of items of the given shape.
    ///
    /// ```
    /// use num_complex::Complex;
    /// use wellposed::tensor::fft::{Direction, Origin, Plan};
    /// let plan = Plan::<f64>::new(&[3, 5], Origin::Centre)?;
    /// let mut data = vec![Complex::new(1.0, 0.0); 15];
    /// plan.run_in_place(Direction::Forward, &mut data);
    /// assert!((data[7].re - 15f64.sqrt()).abs() < 1e-12 && data[0].norm() < 1e-12);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where the shape has no axis or an empty one.
    pub fn new(shape: &[usize], origin: Origin) -> Result<Self> {
        if shape.is_empty() || shape.contains(&0) {
            return Err(Error::shape("Fourier transform", "axes with at least one element", shape));
        }
        let mut planner = T::fft_planner().lock().unwrap_or_else(PoisonError::into_inner);
        let axes = (0..shape.len())
            .map(|i| Axis {
                length: shape[i],
                stride: shape[i + 1..].iter().product(),
                origin: if origin == Origin::Centre { shape[i] / 2 } else { 0 },
                lines: [FftDirection::Forward, FftDirection::Inverse].map(|d| planner.plan_fft(shape[i], d)),
                scratch: Mutex::default(),
            })
            .collect();
        let count: usize = shape.iter().product();
        Ok(Self { axes, scale: T::of((count as f64).sqrt().recip()) })
    }

    /// Complex elements of one item.
    pub fn item_len(&self) -> usize {
        self.axes[0].length * self.axes[0].stride
    }

    /// output ← the transform of each item of `input`.
    ///
    /// # Panics
    /// If the lengths differ or are not a multiple of [`Plan::item_len`].
    pub fn run(&self, direction: Direction, input: &[Complex<T>], output: &mut [Complex<T>]) {
        assert_eq!(input.len(), output.len(), "input and output of a Fourier transform");
        self.items(direction, output, |at, _, line| line.copy_from_slice(&input[at..at + line.len()]));
    }

    /// data ← the transform of each item of `data`.
    ///
    /// # Panics
    /// If the length is not a multiple of [`Plan::item_len`].
    pub fn run_in_place(&self, direction: Direction, data: &mut [Complex<T>]) {
        self.items(direction, data, |_, here, line| line.copy_from_slice(here));
    }

    fn items(&self, direction: Direction, data: &mut [Complex<T>], load: impl Load<T>) {
        let item = self.item_len();
        assert!(data.len().is_multiple_of(item), "a Fourier transform of whole items");
        if let [only] = &self.axes[..] {
            return only.rows(data, load, |_, line, scratch| {
                only.line(direction, line, scratch);
                line.iter_mut().for_each(|v| *v = v.scale(self.scale));
            });
        }
        data.par_chunks_mut(item).enumerate().for_each(|(i, data)| {
            self.inner(direction, data, |at, here: &[_], line: &mut [_]| load(i * item + at, here, line));
            self.axes[0].columns(None, data, |_, line, scratch| {
                self.axes[0].line(direction, line, scratch);
                line.iter_mut().for_each(|v| *v = v.scale(self.scale));
            });
        });
    }

    /// The first axis, the one with the longest stride.
    pub(crate) fn outer(&self) -> &Axis<T> {
        &self.axes[0]
    }

    /// The last axis, whose lines are rows.
    pub(crate) fn last(&self) -> &Axis<T> {
        &self.axes[self.axes.len() - 1]
    }

    /// 1/√N, which the single passes leave out.
    pub(crate) fn scale(&self) -> T {
        self.scale
    }

    /// Transforms one item over all axes but the first, without scaling; `load` makes the rows.
    pub(crate) fn inner(&self, direction: Direction, data: &mut [Complex<T>], load: impl Load<T>) {
        self.inner_from(1, direction, data, &load);
    }

    fn inner_from(&self, level: usize, direction: Direction, data: &mut [Complex<T>], load: &impl Load<T>) {
        let axis = &self.axes[level];
        if level + 1 == self.axes.len() {
            return axis.rows(data, load, |_, line, scratch| axis.line(direction, line, scratch));
        }
        let slab = axis.length * axis.stride;
        data.par_chunks_mut(slab).enumerate().for_each(|(i, data)| {
            let load = |at: usize, here: &[_], line: &mut [_]| load(i * slab + at, here, line);
            // Type erasure, or every level of the recursion would be a new type.
            let load: &AnyLoad<T> = &load;
            self.inner_from(level + 1, direction, data, &load);
            axis.columns(None, data, |_, line, scratch| axis.line(direction, line, scratch));
        });
    }

    /// Transforms one item over the axes between the first and the last, where it is, without scaling.
    pub(crate) fn middle(&self, direction: Direction, data: &mut [Complex<T>]) {
        for axis in self.axes.iter().skip(1).rev().skip(1) {
            data.par_chunks_mut(axis.length * axis.stride).for_each(|slab| {
                axis.columns(None, slab, |_, line, scratch| axis.line(direction, line, scratch));
            });
        }
    }
}

/// Writes part of a row from index `at` of the item on: `load(at, here, line)`, where `here` is what the
/// output holds there so far.
pub(crate) trait Load<T>: Fn(usize, &[Complex<T>], &mut [Complex<T>]) + Sync {}
impl<T, F: Fn(usize, &[Complex<T>], &mut [Complex<T>]) + Sync> Load<T> for F {}
type AnyLoad<'a, T> = dyn Fn(usize, &[Complex<T>], &mut [Complex<T>]) + Sync + 'a;

impl<T: Real> Axis<T> {
    /// Elements along the axis.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Where index 0 of a line lies on the axis: line[i] is element (i + origin) mod length.
    pub(crate) fn origin(&self) -> usize {
        self.origin
    }

    /// Transforms one rotated line in place, without scaling.
    pub(crate) fn line(&self, direction: Direction, line: &mut [Complex<T>], scratch: &mut [Complex<T>]) {
        self.lines[direction as usize].process_with_scratch(line, scratch);
    }

    /// Lends scratch for a block of lines and for [`Axis::line`].
    pub(crate) fn with_scratch(&self, work: impl FnOnce(&mut [Complex<T>])) {
        let pool = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let free = pool().pop();
        let mut scratch = free.unwrap_or_else(|| {
            let own = self.lines.iter().map(|l| l.get_inplace_scratch_len()).max().unwrap_or(0);
            vec![Complex::new(T::zero(), T::zero()); LINES * (self.length + PADDING) + own]
        });
        work(&mut scratch);
        pool().push(scratch);
    }

    /// One row: `load(at, line part)` twice, `work(line, scratch)`, `store(at, line part)` twice; `at` counts
    /// within the row.
    pub(crate) fn row(
        &self,
        scratch: &mut [Complex<T>],
        mut load: impl FnMut(usize, &mut [Complex<T>]),
        work: impl FnOnce(&mut [Complex<T>], &mut [Complex<T>]),
        mut store: impl FnMut(usize, &[Complex<T>]),
    ) {
        let (line, scratch) = scratch.split_at_mut(self.length);
        let after = self.length - self.origin;
        load(self.origin, &mut line[..after]);
        load(0, &mut line[after..]);
        work(line, scratch);
        store(self.origin, &line[..after]);
        store(0, &line[after..]);
    }

    /// Passes over contiguous rows: load, `work(row, line, scratch)`, store into `data`.
    pub(crate) fn rows(
        &self,
        data: &mut [Complex<T>],
        load: impl Load<T>,
        work: impl Fn(usize, &mut [Complex<T>], &mut [Complex<T>]) + Sync,
    ) {
        let block = LINES * self.length;
        data.par_chunks_mut(block).enumerate().for_each(|(i, data)| {
            self.with_scratch(|scratch| {
                for (j, data) in data.chunks_exact_mut(self.length).enumerate() {
                    let start = i * block + j * self.length;
                    let (line, scratch) = scratch.split_at_mut(self.length);
                    let after = self.length - self.origin;
                    load(start + self.origin, &data[self.origin..], &mut line[..after]);
                    load(start, &data[..self.origin], &mut line[after..]);
                    work(i * LINES + j, line, scratch);
                    data[self.origin..].copy_from_slice(&line[..after]);
                    data[..self.origin].copy_from_slice(&line[after..]);
                }
            });
        });
    }

    /// Passes over the columns of `source`, or of `data` itself, which are matrices of `length` rows of
    /// `stride` elements: gather, `work(column, line, scratch)`, scatter into `data`.
    pub(crate) fn columns(
        &self,
        source: Option<&[Complex<T>]>,
        data: &mut [Complex<T>],
        work: impl Fn(usize, &mut [Complex<T>], &mut [Complex<T>]) + Sync,
    ) {
        self.columns_of(self.stride, source, data, work);
    }

    /// As [`Axis::columns`], for matrices of `width` elements a row.
    pub(crate) fn columns_of(
        &self,
        width: usize,
        source: Option<&[Complex<T>]>,
        data: &mut [Complex<T>],
        work: impl Fn(usize, &mut [Complex<T>], &mut [Complex<T>]) + Sync,
    ) {
        let pitch = self.length + PADDING;
        assert!(data.len() == self.length * width && source.is_none_or(|s| s.len() == data.len()));
        let to = Matrix::new(data, width);
        let from = source.map(|s| Matrix::read_only(s, width));
        (0..width.div_ceil(LINES)).into_par_iter().for_each(|block| {
            let first = block * LINES;
            let count = LINES.min(width - first);
            self.with_scratch(|scratch| {
                let (lines, scratch) = scratch.split_at_mut(LINES * pitch);
                // SAFETY: blocks are disjoint sets of columns; `data` is borrowed exclusively, `source` shared.
                unsafe { from.as_ref().unwrap_or(&to).gather(first, count, self.origin, lines, pitch) };
                for (c, line) in lines.chunks_exact_mut(pitch).take(count).enumerate() {
                    work(first + c, &mut line[..self.length], scratch);
                }
                // SAFETY: as above.
                unsafe { to.scatter(first, count, self.origin, lines, pitch) };
            });
        });
    }
}
