//! Batched n-dimensional Fourier transforms of complex arrays, orthonormal (1/√N both ways).
//!
//! [`forward`] and [`inverse`] are centred, as magnetic-resonance imaging has it: index ⌊N/2⌋ of every
//! transformed axis is frequency, or position, zero (fftshift ∘ fft ∘ ifftshift). The shifts cost nothing:
//! every line of data is copied into the cache before its transform and back after it, and the copies
//! rotate it. Columns are gathered many at a time, so that whole cache lines are read.
//!
//! One-dimensional transforms are rustfft's, of any length; their plans are kept for the whole process.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use num_complex::Complex;
use rayon::prelude::*;
use rustfft::{Fft as Line, FftDirection};

use crate::error::{Error, Result};
use crate::tensor::{Buffer, Kernel, Real, as_complex, as_complex_mut, launch};

/// Lines transformed together: wide enough to read whole cache lines of columns, few enough for the cache.
const LINES: usize = 16;
/// Elements between gathered columns beyond their length, so that they don't fall on the same cache sets.
const PADDING: usize = 8;

/// The sign of the exponent: analysis e^{−2πi kn/N} or synthesis e^{+2πi kn/N}.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// X[k] = N^{−1/2} Σₙ x[n] e^{−2πi kn/N}.
    Forward,
    /// x[n] = N^{−1/2} Σₖ X[k] e^{+2πi kn/N}.
    Inverse,
}

/// Which index of an axis is position and frequency zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Index ⌊N/2⌋, the convention of images and k-space.
    Centre,
    /// Index 0, the convention of numerical libraries.
    Corner,
}

/// out ← the centred orthonormal Fourier transform of x over its last `axes` complex axes; what precedes
/// them is batch. x has shape [batch…, n₁, …, n_axes, 2].
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use wellposed::tensor::{Buffer, fft};
/// let constant = Tensor::ones((4, 4, 2), DType::F64, &Device::Cpu)?;
/// let mut out = Buffer::copy_of(&constant)?;
/// fft::forward(&constant, 2, &mut out)?;
/// assert_eq!(out.tensor().get(2)?.get(2)?.to_vec1::<f64>()?, [4.0, 4.0]); // all of it at the centre
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] unless x is complex, has that many axes, none of them empty, and `out` has its shape.
pub fn forward(x: &Tensor, axes: usize, out: &mut Buffer) -> Result<()> {
    transform(x, axes, Direction::Forward, Origin::Centre, out)
}

/// out ← the inverse of [`forward`], which is also its adjoint.
///
/// # Errors
/// As [`forward`].
pub fn inverse(x: &Tensor, axes: usize, out: &mut Buffer) -> Result<()> {
    transform(x, axes, Direction::Inverse, Origin::Centre, out)
}

/// out ← the orthonormal Fourier transform of x over its last `axes` complex axes, in either direction and
/// about either origin.
///
/// # Errors
/// As [`forward`].
pub fn transform(
    x: &Tensor,
    axes: usize,
    direction: Direction,
    origin: Origin,
    out: &mut Buffer,
) -> Result<()> {
    struct Transform<'a>(&'a [usize], Direction, Origin);
    impl Kernel for Transform<'_> {
        type Output = ();
        fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let plan = Plan::new(self.0, self.1, self.2)?;
            plan.run(as_complex(inputs[0]), as_complex_mut(outputs[0]));
            Ok(())
        }
    }
    let rank = x.rank();
    if axes == 0 || rank < axes + 1 || x.dims()[rank - 1] != 2 || x.elem_count() == 0 {
        let expected = format!("[batch…, {axes} axes, 2], none of them empty");
        return Err(Error::shape("Fourier transform", expected, x.dims()));
    }
    if x.dims() != out.dims() {
        return Err(Error::shape("Fourier transform", format!("output of shape {:?}", x.dims()), out.dims()));
    }
    launch(Transform(&x.dims()[rank - 1 - axes..rank - 1], direction, origin), &[x], &mut [out])
}

/// An orthonormal n-dimensional transform of one shape, for kernels that hold complex slices.
///
/// The results don't depend on the number of threads: every line is one unit of work.
#[derive(Debug)]
pub struct Plan<T: Real> {
    axes: Vec<Axis<T>>,
    scale: T,
}

/// One transformed axis.
struct Axis<T: Real> {
    length: usize,
    /// Elements between neighbours along this axis.
    stride: usize,
    /// Where index 0 of the transform lies on the axis.
    origin: usize,
    line: Arc<dyn Line<T>>,
    /// Scratch that is not in use: each piece holds one block of lines.
    scratch: Mutex<Vec<Vec<Complex<T>>>>,
}

impl<T: Real> std::fmt::Debug for Axis<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Axis {{ length: {}, origin: {} }}", self.length, self.origin)
    }
}

impl<T: Real> Plan<T> {
    /// A transform of items of the given shape.
    ///
    /// ```
    /// use num_complex::Complex;
    /// use wellposed::tensor::fft::{Direction, Origin, Plan};
    /// let plan = Plan::<f64>::new(&[3, 5], Direction::Forward, Origin::Centre)?;
    /// let mut data = vec![Complex::new(1.0, 0.0); 15];
    /// plan.run_in_place(&mut data);
    /// assert!((data[7].re - 15f64.sqrt()).abs() < 1e-12 && data[0].norm() < 1e-12);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where the shape has no axis or an empty one.
    pub fn new(shape: &[usize], direction: Direction, origin: Origin) -> Result<Self> {
        if shape.is_empty() || shape.contains(&0) {
            return Err(Error::shape("Fourier transform", "axes with at least one element", shape));
        }
        let sense = match direction {
            Direction::Forward => FftDirection::Forward,
            Direction::Inverse => FftDirection::Inverse,
        };
        let mut planner = T::fft_planner().lock().unwrap_or_else(PoisonError::into_inner);
        let axes = (0..shape.len())
            .map(|i| Axis {
                length: shape[i],
                stride: shape[i + 1..].iter().product(),
                origin: if origin == Origin::Centre { shape[i] / 2 } else { 0 },
                line: planner.plan_fft(shape[i], sense),
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
    pub fn run(&self, input: &[Complex<T>], output: &mut [Complex<T>]) {
        assert_eq!(input.len(), output.len(), "input and output of a Fourier transform");
        self.items(Some(input), output);
    }

    /// data ← the transform of each item of `data`.
    ///
    /// # Panics
    /// If the length is not a multiple of [`Plan::item_len`].
    pub fn run_in_place(&self, data: &mut [Complex<T>]) {
        self.items(None, data);
    }

    fn items(&self, input: Option<&[Complex<T>]>, output: &mut [Complex<T>]) {
        let item = self.item_len();
        assert!(output.len().is_multiple_of(item), "a Fourier transform of whole items");
        if self.axes.len() == 1 {
            return self.axes[0].rows(input, output, self.scale);
        }
        output.par_chunks_mut(item).enumerate().for_each(|(i, output)| {
            self.level(0, input.map(|x| &x[i * item..(i + 1) * item]), output);
        });
    }

    /// Transforms `data` over axis `level` and all later ones, the later ones first.
    fn level(&self, level: usize, input: Option<&[Complex<T>]>, output: &mut [Complex<T>]) {
        let (axis, inner) = (&self.axes[level], self.axes[level].stride);
        if level + 2 == self.axes.len() {
            self.axes[level + 1].rows(input, output, T::one());
        } else {
            output.par_chunks_mut(inner).enumerate().for_each(|(i, output)| {
                self.level(level + 1, input.map(|x| &x[i * inner..(i + 1) * inner]), output);
            });
        }
        axis.columns(output, if level == 0 { self.scale } else { T::one() });
    }
}

impl<T: Real> Axis<T> {
    fn with_scratch(&self, work: impl FnOnce(&mut [Complex<T>])) {
        let pool = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = LINES * (self.length + PADDING) + self.line.get_inplace_scratch_len();
        let free = pool().pop();
        let mut scratch = free.unwrap_or_else(|| vec![Complex::new(T::zero(), T::zero()); needed]);
        work(&mut scratch);
        pool().push(scratch);
    }

    /// Transforms contiguous lines from `input`, or where they are, into `output`.
    fn rows(&self, input: Option<&[Complex<T>]>, output: &mut [Complex<T>], scale: T) {
        let block = LINES * self.length;
        output.par_chunks_mut(block).enumerate().for_each(|(i, output)| {
            self.with_scratch(|scratch| {
                let (line, scratch) = scratch.split_at_mut(self.length);
                for (j, output) in output.chunks_exact_mut(self.length).enumerate() {
                    let start = i * block + j * self.length;
                    let from = input.map_or(&*output, |x| &x[start..start + self.length]);
                    let (before, after) = from.split_at(self.origin);
                    line[..after.len()].copy_from_slice(after);
                    line[after.len()..].copy_from_slice(before);
                    self.line.process_with_scratch(line, scratch);
                    store(line, self.origin, scale, output);
                }
            });
        });
    }

    /// Transforms the columns of `data`, which is a matrix of `length` rows of `stride` elements.
    fn columns(&self, data: &mut [Complex<T>], scale: T) {
        let width = self.stride;
        let matrix = Matrix { start: data.as_mut_ptr(), rows: self.length, width };
        (0..width.div_ceil(LINES)).into_par_iter().for_each(|block| {
            let first = block * LINES;
            let count = LINES.min(width - first);
            let pitch = self.length + PADDING;
            self.with_scratch(|scratch| {
                let (lines, scratch) = scratch.split_at_mut(LINES * pitch);
                // SAFETY: blocks are disjoint sets of columns, and `data` is borrowed exclusively.
                unsafe { matrix.gather(first, count, self.origin, lines, pitch) };
                for line in lines.chunks_exact_mut(pitch).take(count) {
                    self.line.process_with_scratch(&mut line[..self.length], scratch);
                }
                // SAFETY: as above.
                unsafe { matrix.scatter(first, count, self.origin, lines, pitch, scale) };
            });
        });
    }
}

/// output[(i + origin) mod N] ← scale · line[i].
fn store<T: Real>(line: &[Complex<T>], origin: usize, scale: T, output: &mut [Complex<T>]) {
    let (low, high) = output.split_at_mut(origin);
    let (first, second) = line.split_at(high.len());
    if scale == T::one() {
        high.copy_from_slice(first);
        low.copy_from_slice(second);
    } else {
        high.iter_mut().zip(first).for_each(|(o, v)| *o = v.scale(scale));
        low.iter_mut().zip(second).for_each(|(o, v)| *o = v.scale(scale));
    }
}

/// A row-major matrix whose disjoint column blocks are worked on by several threads.
struct Matrix<T> {
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
    /// `count` elements of row `row` from column `first` on.
    ///
    /// # Safety
    /// No other thread may touch these elements meanwhile.
    #[allow(clippy::mut_from_ref)]
    unsafe fn row(&self, row: usize, first: usize, count: usize) -> &mut [Complex<T>] {
        debug_assert!(row < self.rows && first + count <= self.width);
        // SAFETY: in bounds of the borrowed matrix; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.width + first), count) }
    }

    /// lines[c·pitch + i] ← element ((i + origin) mod rows, first + c), for each column c < count.
    ///
    /// # Safety
    /// No other thread may touch these columns meanwhile.
    unsafe fn gather(
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
                    std::array::from_fn(|k| unsafe { &*self.row(row.start + k, first, count) });
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

    /// The inverse of [`Matrix::gather`], times `scale`.
    ///
    /// # Safety
    /// As [`Matrix::gather`].
    unsafe fn scatter(
        &self,
        first: usize,
        count: usize,
        origin: usize,
        lines: &[Complex<T>],
        pitch: usize,
        scale: T,
    ) {
        // SAFETY: as in `gather`.
        self.tiles(origin, |i, row| match row.len() {
            TILE => {
                let rows: [&mut [Complex<T>]; TILE] =
                    std::array::from_fn(|k| unsafe { self.row(row.start + k, first, count) });
                for c in 0..count {
                    let line = &lines[c * pitch + i..][..TILE];
                    for k in 0..TILE {
                        rows[k][c] = line[k].scale(scale);
                    }
                }
            }
            _ => {
                for (k, row) in row.enumerate() {
                    let row = unsafe { self.row(row, first, count) };
                    row.iter_mut().enumerate().for_each(|(c, v)| *v = lines[c * pitch + i + k].scale(scale));
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::tensor::random::{Noise, standard_normal};
    use crate::tensor::{Space, vector};
    use crate::testing::relative_difference;

    /// The definition, in double precision, one axis after the other.
    fn direct(
        x: &[Complex<f64>],
        shape: &[usize],
        direction: Direction,
        origin: Origin,
    ) -> Vec<Complex<f64>> {
        let sign = if direction == Direction::Forward { -1.0 } else { 1.0 };
        let mut data = x.to_vec();
        for (axis, &n) in shape.iter().enumerate() {
            let stride: usize = shape[axis + 1..].iter().product();
            let zero = if origin == Origin::Centre { (n / 2) as f64 } else { 0.0 };
            data = (0..data.len())
                .map(|at| {
                    let k = at / stride % n;
                    let start = at - k * stride;
                    let sum: Complex<f64> = (0..n)
                        .map(|j| {
                            let turn = (k as f64 - zero) * (j as f64 - zero) / n as f64;
                            data[start + j * stride]
                                * Complex::from_polar(1.0, sign * std::f64::consts::TAU * turn)
                        })
                        .sum();
                    sum / (n as f64).sqrt()
                })
                .collect();
        }
        data
    }

    fn noise(shape: &[usize], dtype: DType) -> Tensor {
        standard_normal(Noise::new(5, 0), &Space::complex(shape, dtype, &Device::Cpu), &[]).unwrap()
    }

    #[test]
    fn agrees_with_the_definition() {
        let shapes: &[&[usize]] =
            &[&[1], &[2], &[7], &[40], &[5, 8], &[17, 6], &[33, 50], &[3, 4, 5], &[9, 2, 21]];
        for shape in shapes {
            for direction in [Direction::Forward, Direction::Inverse] {
                for origin in [Origin::Centre, Origin::Corner] {
                    let x = noise(&[&[3], *shape].concat(), DType::F64);
                    let mut out = Buffer::zeros(x.dims(), DType::F64, &Device::Cpu).unwrap();
                    transform(&x, shape.len(), direction, origin, &mut out).unwrap();
                    let values = f64::to_vec(&x).unwrap();
                    let expected: Vec<_> = as_complex(&values)
                        .chunks(shape.iter().product())
                        .flat_map(|item| direct(item, shape, direction, origin))
                        .flat_map(|v| [v.re, v.im])
                        .collect();
                    let expected = f64::tensor(expected, x.dims()).unwrap();
                    let error = relative_difference(out.tensor(), &expected).unwrap();
                    assert!(error < 1e-13, "{shape:?} {direction:?} {origin:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn is_unitary_in_both_precisions() {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-14)] {
            for shape in [&[4, 64, 48][..], &[2, 37, 101], &[16, 12, 10]] {
                let x = noise(shape, dtype);
                let mut spectrum = Buffer::copy_of(&x).unwrap();
                forward(&x, 2, &mut spectrum).unwrap();
                let (before, after) =
                    (vector::norm(&x, 1).unwrap()[0], vector::norm(spectrum.tensor(), 1).unwrap()[0]);
                assert!((after / before - 1.0).abs() < tolerance);
                let mut back = Buffer::copy_of(&x).unwrap();
                inverse(spectrum.tensor(), 2, &mut back).unwrap();
                assert!(relative_difference(back.tensor(), &x).unwrap() < tolerance);
            }
        }
    }

    #[test]
    fn in_place_equals_out_of_place_on_any_number_of_threads() {
        let x = f32::to_vec(&noise(&[3, 45, 52], DType::F32)).unwrap();
        let plan = Plan::new(&[45, 52], Direction::Forward, Origin::Centre).unwrap();
        let mut expected = vec![0f32; x.len()];
        plan.run(as_complex(&x), as_complex_mut(&mut expected));
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut data = x.clone();
            pool.install(|| plan.run_in_place(as_complex_mut(&mut data)));
            assert_eq!(data, expected, "{threads} threads");
        }
    }

    #[test]
    fn refuses_what_it_cannot_transform() {
        let x = Tensor::zeros((4, 4), DType::F32, &Device::Cpu).unwrap();
        let mut out = Buffer::copy_of(&x).unwrap();
        assert!(matches!(forward(&x, 2, &mut out), Err(Error::Shape { .. })));
        let empty = Tensor::zeros((3, 0, 4, 2), DType::F32, &Device::Cpu).unwrap();
        let mut out = Buffer::copy_of(&empty).unwrap();
        assert!(matches!(forward(&empty, 2, &mut out), Err(Error::Shape { .. })));
    }
}
