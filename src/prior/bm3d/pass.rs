//! One pass over an image: reference pieces on a grid, those alike around each, their stack filtered and put back.

use rayon::prelude::*;

use super::group::{Cosine, Filter, across, shrink};
use crate::operator::bessel_i0;
use crate::tensor::Real;
use crate::tensor::simd::{Lanes, Task, dispatch};

/// Side of a piece in pixels.
pub(super) const PIECE: usize = 8;
/// Pixels of a piece.
pub(super) const AREA: usize = PIECE * PIECE;
/// Distance between reference pieces.
const STRIDE: usize = 3;
/// Alike pieces are looked for this far from a reference.
const REACH: usize = 19;
/// Most pieces of a stack in the first and in the second pass: powers of two.
const MOST: [usize; 2] = [16, 32];
/// Shape of the Kaiser window under which pieces overlap.
const KAISER: f64 = 2.0;
/// Rows of reference pieces that are worked on at once.
const ROWS: usize = 4;
/// Candidates whose distances are summed at once.
const LANES: usize = 16;

/// A pass over the planes of an image (one, or the real and the imaginary part).
pub(super) struct Pass<'a, T> {
    pub(super) shape: [usize; 2],
    pub(super) noisy: &'a [Vec<T>],
    /// What is known of the clean image so far; its first plane decides which pieces are alike.
    pub(super) pilot: &'a [Vec<T>],
    pub(super) filter: Filter,
    pub(super) sigma: T,
}

impl<T: Real> Pass<'_, T> {
    /// The filtered planes.
    pub(super) fn run(&self) -> Vec<Vec<T>> {
        let [height, width] = self.shape;
        let guide = self.guide();
        let context = Context { cosine: Cosine::new(), window: kaiser(), columns: grid(width) };
        let bands: Vec<Band<T>> = grid(height)
            .par_chunks(ROWS)
            .map(|rows| dispatch(Work { pass: self, guide: &guide, context: &context, rows }))
            .collect();
        // In the order of the rows, whatever thread was first.
        let mut sums = vec![vec![T::zero(); height * width]; self.noisy.len() + 1];
        for band in &bands {
            for (sum, part) in sums.iter_mut().zip(&band.sums) {
                sum[band.top * width..].iter_mut().zip(part).for_each(|(s, p)| *s += *p);
            }
        }
        let weights = sums.pop().unwrap_or_default();
        for plane in &mut sums {
            plane.iter_mut().zip(&weights).for_each(|(v, w)| *v /= *w);
        }
        sums
    }

    /// The plane that pieces are compared in, its rows padded so that whole registers can be read at their ends.
    fn guide(&self) -> Vec<T> {
        let [height, width] = self.shape;
        let mut guide = vec![T::zero(); height * (width + LANES)];
        for (padded, row) in guide.chunks_exact_mut(width + LANES).zip(self.pilot[0].chunks_exact(width)) {
            padded[..width].copy_from_slice(row);
        }
        guide
    }
}

/// What all bands share.
struct Context<T> {
    cosine: Cosine<T>,
    window: [T; AREA],
    columns: Vec<usize>,
}

/// The reference pieces of some rows: plain loops, which the compiler gives the registers of the instruction set that they are
/// dispatched to.
struct Work<'a, T> {
    pass: &'a Pass<'a, T>,
    guide: &'a [T],
    context: &'a Context<T>,
    rows: &'a [usize],
}

/// What these add to the rows of the image from `top` on.
struct Band<T> {
    top: usize,
    width: usize,
    /// Weighted planes, and the weights.
    sums: Vec<Vec<T>>,
}

impl<T: Real> Band<T> {
    fn new(pass: &Pass<'_, T>, rows: &[usize]) -> Self {
        let [height, width] = pass.shape;
        let top = rows[0].saturating_sub(REACH);
        let bottom = (rows[rows.len() - 1] + REACH + PIECE).min(height);
        Self { top, width, sums: vec![vec![T::zero(); (bottom - top) * width]; pass.noisy.len() + 1] }
    }

    /// Puts the pieces of a stack, one for each plane, back to their places under the window.
    #[inline(always)]
    fn add(&mut self, places: &[[usize; 2]], stacks: &[Vec<[T; AREA]>], weight: T, window: &[T; AREA]) {
        let (planes, weights) = self.sums.split_at_mut(stacks.len());
        for (k, [y, x]) in places.iter().enumerate() {
            for row in 0..PIECE {
                let at = (y - self.top + row) * self.width + x;
                let window = &window[row * PIECE..][..PIECE];
                for (plane, stack) in planes.iter_mut().zip(stacks) {
                    let piece = &stack[k][row * PIECE..][..PIECE];
                    let sum = &mut plane[at..][..PIECE];
                    for i in 0..PIECE {
                        sum[i] += weight * window[i] * piece[i];
                    }
                }
                let sum = &mut weights[0][at..][..PIECE];
                for i in 0..PIECE {
                    sum[i] += weight * window[i];
                }
            }
        }
    }
}

/// Places of pieces, those nearest to the reference first.
struct Found<T> {
    distances: [T; MOST[1]],
    places: [[usize; 2]; MOST[1]],
    count: usize,
}

impl<T: Real> Found<T> {
    /// Keeps a place if it is among the `most` nearest; of equals the first ones.
    #[inline(always)]
    fn offer(&mut self, distance: T, place: [usize; 2], most: usize) {
        if self.count == most {
            if distance >= self.distances[most - 1] {
                return;
            }
            self.count -= 1;
        }
        let mut at = self.count;
        while at > 0 && distance < self.distances[at - 1] {
            self.distances[at] = self.distances[at - 1];
            self.places[at] = self.places[at - 1];
            at -= 1;
        }
        (self.distances[at], self.places[at]) = (distance, place);
        self.count += 1;
    }

    /// The largest power of two of them.
    fn stack(&self) -> &[[usize; 2]] {
        &self.places[..1 << self.count.ilog2()]
    }
}

impl<T: Real> Task<T> for Work<'_, T> {
    type Output = Band<T>;

    #[inline(always)]
    unsafe fn run<L: Lanes<Scalar = T>>(self) -> Band<T> {
        let Self { pass, context, rows, .. } = self;
        let mut band = Band::new(pass, rows);
        let mut stacks = vec![vec![[T::zero(); AREA]; MOST[1]]; pass.noisy.len()];
        let mut pilot = vec![[T::zero(); AREA]; MOST[1]];
        for &y in rows {
            for &x in &context.columns {
                let found = self.nearest([y, x]);
                let places = found.stack();
                let count = places.len();
                let mut energy = T::zero();
                for (p, stack) in stacks.iter_mut().enumerate() {
                    self.gather(&pass.noisy[p], places, stack);
                    if pass.filter == Filter::Wiener {
                        self.gather(&pass.pilot[p], places, &mut pilot);
                    }
                    energy += shrink(&mut stack[..count], &pilot[..count], pass.filter, pass.sigma);
                    across(&mut stack[..count]);
                    for piece in &mut stack[..count] {
                        context.cosine.inverse(piece);
                    }
                }
                // Less noise, more weight; a stack without signal counts no more than one with a single coefficient.
                band.add(places, &stacks, energy.max(T::one()).recip(), &context.window);
            }
        }
        band
    }
}

impl<T: Real> Work<'_, T> {
    /// The coefficients of the pieces of a plane at these places.
    #[inline(always)]
    fn gather(&self, plane: &[T], places: &[[usize; 2]], stack: &mut [[T; AREA]]) {
        let width = self.pass.shape[1];
        for (piece, [y, x]) in stack.iter_mut().zip(places) {
            for row in 0..PIECE {
                let from = &plane[(y + row) * width + x..][..PIECE];
                piece[row * PIECE..][..PIECE].copy_from_slice(from);
            }
            self.context.cosine.forward(piece);
        }
        across(&mut stack[..places.len()]);
    }

    /// The reference at [y, x] itself and the pieces around that are nearest to it.
    #[inline(always)]
    fn nearest(&self, [y, x]: [usize; 2]) -> Found<T> {
        let [height, width] = self.pass.shape;
        let most = MOST[usize::from(self.pass.filter == Filter::Wiener)];
        let stride = width + LANES;
        let mut reference = [T::zero(); AREA];
        for i in 0..PIECE {
            reference[i * PIECE..][..PIECE].copy_from_slice(&self.guide[(y + i) * stride + x..][..PIECE]);
        }
        let between = |at: usize, side: usize| (at.saturating_sub(REACH), (at + REACH).min(side - PIECE));
        let ((top, bottom), (left, right)) = (between(y, height), between(x, width));
        let mut found =
            Found { distances: [T::neg_infinity(); MOST[1]], places: [[y, x]; MOST[1]], count: 1 };
        for row in top..=bottom {
            for start in (left..=right).step_by(LANES) {
                let mut distances = [T::zero(); LANES];
                for i in 0..PIECE {
                    // The rows are padded: what is read beyond a row's end isn't looked at.
                    let pixels = &self.guide[(row + i) * stride + start..][..LANES + PIECE - 1];
                    for j in 0..PIECE {
                        let value = reference[i * PIECE + j];
                        for k in 0..LANES {
                            let difference = pixels[j + k] - value;
                            distances[k] += difference * difference;
                        }
                    }
                }
                for (column, distance) in (start..=right).zip(distances) {
                    if [row, column] != [y, x] {
                        found.offer(distance, [row, column], most);
                    }
                }
            }
        }
        found
    }
}

/// Places of reference pieces along an axis; the last touches the end.
fn grid(side: usize) -> Vec<usize> {
    let last = side - PIECE;
    let mut places: Vec<usize> = (0..last).step_by(STRIDE).collect();
    places.push(last);
    places
}

/// The product of two Kaiser windows I₀(β √(1 − t²))/I₀(β).
fn kaiser<T: Real>() -> [T; AREA] {
    let at = |i: usize| {
        let t = 2.0 * i as f64 / (PIECE - 1) as f64 - 1.0;
        bessel_i0(KAISER * (1.0 - t * t).max(0.0).sqrt()) / bessel_i0(KAISER)
    };
    std::array::from_fn(|i| T::of(at(i / PIECE) * at(i % PIECE)))
}
