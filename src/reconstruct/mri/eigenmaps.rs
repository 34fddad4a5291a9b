//! Dominant eigenvectors of a Hermitian matrix at every point of an image, many points at a time.

use num_complex::Complex;
use rayon::prelude::*;

use crate::tensor::Real;

/// Points whose eigenvectors are iterated together, one a lane.
const LANES: usize = 16;
const MAX_ITERATIONS: usize = 60;

/// Positive semidefinite matrices [coil, coil] at the points of an image, made row by row.
pub(super) trait MatrixField<T>: Sync {
    /// Writes the lower triangles of row `y`: entry (c, d), d ≤ c, of point x goes to
    /// `out[(c (c + 1)/2 + d) · pitch + x]`, real and imaginary parts apart.
    fn row(&self, y: usize, pitch: usize, re: &mut [T], im: &mut [T]);
}

/// Unit dominant eigenvectors into `maps` [coil, y, x] and eigenvalues into `values` [y, x]. Phases are chosen so
/// that ⟨reference, v⟩ is positive.
pub(super) fn dominant<T: Real>(
    field: &impl MatrixField<T>,
    reference: &[Complex<T>],
    width: usize,
    maps: &mut [Complex<T>],
    values: &mut [T],
) {
    let coils = reference.len();
    let pitch = width.next_multiple_of(LANES);
    let pairs = coils * (coils + 1) / 2;
    let rows: Vec<Vec<Complex<T>>> = values
        .par_chunks_mut(width)
        .enumerate()
        .map(|(y, values)| {
            let (mut re, mut im) = (vec![T::zero(); pairs * pitch], vec![T::zero(); pairs * pitch]);
            field.row(y, pitch, &mut re, &mut im);
            let mut vectors = vec![Complex::new(T::zero(), T::zero()); coils * width];
            let mut block = Block::new(coils);
            for (chunk, values) in values.chunks_mut(LANES).enumerate() {
                let at = chunk * LANES;
                let sizes = block.iterate(&re[at..], &im[at..], pitch);
                values.copy_from_slice(&sizes[..values.len()]);
                block.rotate(reference);
                for (coil, (re, im)) in block.re.iter().zip(&block.im).enumerate() {
                    let to = &mut vectors[coil * width + at..][..values.len()];
                    to.iter_mut().enumerate().for_each(|(lane, v)| *v = Complex::new(re[lane], im[lane]));
                }
            }
            vectors
        })
        .collect();
    let item = rows.len() * width;
    for (y, row) in rows.iter().enumerate() {
        for (coil, part) in row.chunks_exact(width).enumerate() {
            maps[coil * item + y * width..][..width].copy_from_slice(part);
        }
    }
}

/// The vectors of one block of points, by coil.
struct Block<T> {
    re: Vec<[T; LANES]>,
    im: Vec<[T; LANES]>,
    next_re: Vec<[T; LANES]>,
    next_im: Vec<[T; LANES]>,
}

impl<T: Real> Block<T> {
    fn new(coils: usize) -> Self {
        let zeros = || vec![[T::zero(); LANES]; coils];
        // The start is arbitrary, but neither constant nor an axis; later blocks start from their neighbours.
        let start = (0..coils).map(|c| [T::of(1.0 + 0.1 * c as f64); LANES]).collect();
        Self { re: start, im: zeros(), next_re: zeros(), next_im: zeros() }
    }

    /// Power iteration until no vector moves; returns the eigenvalues.
    fn iterate(&mut self, re: &[T], im: &[T], pitch: usize) -> [T; LANES] {
        let still = T::of(1e-9);
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let mut sizes = [T::zero(); LANES];
                for _ in 0..MAX_ITERATIONS {
                    self.multiply(re, im, pitch);
                    let moved;
                    (sizes, moved) = self.normalise();
                    if moved < still {
                        break;
                    }
                }
                sizes
            },
        )
    }

    /// next ← G v.
    #[inline(always)]
    fn multiply(&mut self, re: &[T], im: &[T], pitch: usize) {
        let coils = self.re.len();
        for c in 0..coils {
            let (mut sum_re, mut sum_im) = ([T::zero(); LANES], [T::zero(); LANES]);
            for d in 0..coils {
                let (high, low) = (c.max(d), c.min(d));
                let sign = if d > c { -T::one() } else { T::one() };
                let at = (high * (high + 1) / 2 + low) * pitch;
                let (g_re, g_im) = (&re[at..at + LANES], &im[at..at + LANES]);
                let (v_re, v_im) = (&self.re[d], &self.im[d]);
                for lane in 0..LANES {
                    let g_im = sign * g_im[lane];
                    sum_re[lane] += g_re[lane] * v_re[lane] - g_im * v_im[lane];
                    sum_im[lane] += g_re[lane] * v_im[lane] + g_im * v_re[lane];
                }
            }
            (self.next_re[c], self.next_im[c]) = (sum_re, sum_im);
        }
    }

    /// v ← next/‖next‖; returns the norms and the largest ‖change‖² of a vector.
    #[inline(always)]
    fn normalise(&mut self) -> ([T; LANES], T) {
        let (mut sizes, mut moved) = ([T::zero(); LANES], [T::zero(); LANES]);
        for (re, im) in self.next_re.iter().zip(&self.next_im) {
            for lane in 0..LANES {
                sizes[lane] += re[lane] * re[lane] + im[lane] * im[lane];
            }
        }
        let mut inverse = [T::zero(); LANES];
        for lane in 0..LANES {
            sizes[lane] = sizes[lane].sqrt();
            inverse[lane] = sizes[lane].max(T::min_positive_value()).recip();
        }
        for c in 0..self.re.len() {
            for lane in 0..LANES {
                let (re, im) = (self.next_re[c][lane] * inverse[lane], self.next_im[c][lane] * inverse[lane]);
                let (d_re, d_im) = (re - self.re[c][lane], im - self.im[c][lane]);
                moved[lane] += d_re * d_re + d_im * d_im;
                (self.re[c][lane], self.im[c][lane]) = (re, im);
            }
        }
        (sizes, moved.iter().fold(T::zero(), |a, b| a.max(*b)))
    }

    /// Multiplies each vector by the phase that makes ⟨reference, v⟩ positive.
    fn rotate(&mut self, reference: &[Complex<T>]) {
        for lane in 0..LANES {
            let parts = reference.iter().zip(self.re.iter().zip(&self.im));
            let inner = parts
                .map(|(r, (re, im))| r.conj() * Complex::new(re[lane], im[lane]))
                .fold(Complex::new(T::zero(), T::zero()), |a, b| a + b);
            let size = inner.norm();
            if size > T::zero() {
                let turn = inner.conj() / size;
                for (re, im) in self.re.iter_mut().zip(&mut self.im) {
                    let v = Complex::new(re[lane], im[lane]) * turn;
                    (re[lane], im[lane]) = (v.re, v.im);
                }
            }
        }
    }
}
