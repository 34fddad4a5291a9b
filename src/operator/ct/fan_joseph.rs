//! Joseph's method for rays that diverge from a point in the plane, and its exact adjoint.
//!
//! The rays of a view that follow one image axis are a [`Run`]: on every line they cross they lie in the same
//! order, so that a register of rays reads neighbouring pixels with two loads and a shuffle. The distance between
//! them changes from ray to ray and from line to line, which a table of origins and slopes takes care of.

use std::ops::Range;

use crate::operator::ct::crossing::Crossing;
use crate::operator::ct::joseph::{BLOCK, Lines, NARROW, REGISTERS, WIDEST, spill};
use crate::operator::ct::{ImageGrid, VectorBeam};
use crate::tensor::Real;
use crate::tensor::simd::{Lanes, Task, dispatch};

/// Zeros on either side of an image line: what a block of rays spans at most, and what its registers read.
pub(super) const SPREAD: usize = 2 * BLOCK + 3 * WIDEST;

/// The rays of one view.
pub(super) struct Fan {
    pub runs: Vec<Run>,
}

/// Neighbouring rays that follow the same image axis, in the order in which they cross the lines.
pub(super) struct Run {
    /// Lines are columns.
    pub transposed: bool,
    /// Detector bin of each ray: counting up or down from here.
    bins: Range<usize>,
    reversed: bool,
    rays: Vec<Crossing>,
}

impl Fan {
    pub fn new(grid: &ImageGrid, beam: &VectorBeam, view: usize) -> Self {
        let [x, y, _] = beam.poses[view].source;
        let ray = |bin| {
            let [px, py, _] = beam.pixel(view, 0, bin);
            Crossing::new(grid, [x, y], [px, py])
        };
        let mut runs: Vec<Run> = Vec::with_capacity(3);
        for bin in 0..beam.bins {
            let ray = ray(bin);
            match runs.last_mut() {
                // Rays along one axis, but in opposite directions, are no neighbours on any line.
                Some(run)
                    if run.transposed == ray.transposed && (run.rays[0].along > 0.0) == (ray.along > 0.0) =>
                {
                    run.rays.push(ray);
                    run.bins.end = bin + 1;
                }
                _ => runs.push(Run {
                    transposed: ray.transposed,
                    bins: bin..bin + 1,
                    reversed: false,
                    rays: vec![ray],
                }),
            }
        }
        for run in &mut runs {
            if let [a, b, ..] = run.rays[..] {
                run.reversed = (b.slope < a.slope) == (a.along > 0.0);
                if run.reversed {
                    run.rays.reverse();
                }
            }
        }
        Self { runs }
    }
}

impl Run {
    fn bin(&self, index: usize) -> usize {
        if self.reversed { self.bins.end - 1 - index } else { self.bins.start + index }
    }
}

/// out[bin] ← the line integrals of the rays of a run, through its lines.
pub(super) fn project<T: Real>(image: &Lines<T>, run: &Run, out: &mut [T]) {
    let mut sums = [T::zero(); BLOCK];
    for first in (0..run.rays.len()).step_by(BLOCK) {
        let rays = &run.rays[first..run.rays.len().min(first + BLOCK)];
        let sums = &mut sums[..rays.len()];
        dispatch(Project { image, rays, sums });
        for (index, (sum, ray)) in sums.iter().zip(rays).enumerate() {
            out[run.bin(first + index)] = *sum * T::of(ray.length);
        }
    }
}

/// sums[j] = Σₖ Σᵢ hat(u(j, k) − i) · image[k][i] for at most [`BLOCK`] rays of a run.
struct Project<'a, T> {
    image: &'a Lines<T>,
    rays: &'a [Crossing],
    sums: &'a mut [T],
}

/// A register of rays: the first, and how far the others are from it on line 0 and how that changes.
#[derive(Clone, Copy)]
struct Bundle<R> {
    origin: f64,
    slope: f64,
    apart: R,
    spread: R,
}

impl<T: Real> Task<T> for Project<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<L: Lanes<Scalar = T>>(self) {
        let Self { image, rays, sums } = self;
        let part = REGISTERS * L::COUNT;
        for (rays, sums) in rays.chunks(part).zip(sums.chunks_mut(part)) {
            let lines = lines(rays, image);
            if !narrow(rays, &lines, L::COUNT) {
                one_by_one(image, rays, sums);
                continue;
            }
            // SAFETY: on these lines the rays of the block are within (−1 − span, length + span), and the padding
            // covers span, which `narrow` bounds, and the two registers that `pairs` reads.
            unsafe {
                let bundles: [Bundle<L::Register>; REGISTERS] =
                    std::array::from_fn(|b| bundle::<L>(rays, b * L::COUNT));
                let mut totals = [L::splat(T::zero()); REGISTERS];
                let pad = image.pad() as f64;
                for line in lines {
                    let row = image.before(line);
                    let k = L::splat(T::of(line as f64));
                    for (bundle, total) in bundles.iter().zip(&mut totals) {
                        let u = bundle.origin + line as f64 * bundle.slope + pad;
                        let whole = u.to_int_unchecked::<i64>();
                        let t = L::add(L::splat(T::of(u - whole as f64)), bundle.apart);
                        let t = L::max(L::mul_add(k, bundle.spread, t), L::splat(T::zero()));
                        let i = L::floor(t);
                        let (left, right) = L::pairs(row.add(whole as usize), i);
                        let f = L::sub(t, i);
                        *total = L::add(*total, L::mul_add(f, L::sub(right, left), left));
                    }
                }
                spill::<L>(&totals, 1.0, sums);
            }
        }
    }
}

/// The register of rays from `first` on; the last ray stands in for those that are missing.
///
/// # Safety
/// The instruction set of `L` must be available.
#[inline(always)]
unsafe fn bundle<L: Lanes>(rays: &[Crossing], first: usize) -> Bundle<L::Register> {
    let ray = |lane: usize| rays[(first + lane).min(rays.len() - 1)];
    let Crossing { origin, slope, .. } = ray(0);
    let apart: [L::Scalar; WIDEST] = std::array::from_fn(|l| L::Scalar::of(ray(l).origin - origin));
    let spread: [L::Scalar; WIDEST] = std::array::from_fn(|l| L::Scalar::of(ray(l).slope - slope));
    // SAFETY: no register is wider.
    unsafe { Bundle { origin, slope, apart: L::load(apart.as_ptr()), spread: L::load(spread.as_ptr()) } }
}

/// The lines on which any ray of a block can meet the image.
#[inline(always)]
fn lines<T: Real>(rays: &[Crossing], image: &Lines<T>) -> Range<usize> {
    let (first, last) = (rays[0], rays[rays.len() - 1]);
    let ahead = first.ahead(image.count);
    let right = last.within(-1.0, f64::INFINITY, ahead.clone());
    let left = first.within(f64::NEG_INFINITY, image.length as f64, ahead);
    let start = right.start.max(left.start);
    start..right.end.min(left.end).max(start)
}

/// Whether the rays of every register keep within two registers of memory, on the lines between which their
/// distance is linear, and the block within its padding.
#[inline(always)]
fn narrow(rays: &[Crossing], lines: &Range<usize>, lanes: usize) -> bool {
    if lines.is_empty() {
        return true;
    }
    let ends = [lines.start, lines.end - 1];
    let limit = NARROW * (lanes - 1) as f64;
    let close = |a: &Crossing, b: &Crossing| ends.iter().all(|k| b.at(*k) - a.at(*k) <= limit);
    let registers = rays.chunks(lanes).all(|rays| close(&rays[0], &rays[rays.len() - 1]));
    let steps = rays.windows(2).all(|pair| close(&pair[0], &pair[1]));
    let whole = ends.iter().all(|k| rays[rays.len() - 1].at(*k) - rays[0].at(*k) <= (2 * BLOCK) as f64);
    registers && steps && whole
}

/// For rays so far apart that neighbours share no pixels.
fn one_by_one<T: Real>(image: &Lines<T>, rays: &[Crossing], sums: &mut [T]) {
    for (ray, sum) in rays.iter().zip(sums) {
        *sum = T::zero();
        for k in ray.within(-1.0, image.length as f64, ray.ahead(image.count)) {
            let u = ray.at(k);
            let (i, row) = (u.floor(), image.line(k));
            let f = T::of(u - i);
            let at = |i: f64| if i >= 0.0 { row.get(i as usize).copied() } else { None };
            *sum += (T::one() - f) * at(i).unwrap_or(T::zero()) + f * at(i + 1.0).unwrap_or(T::zero());
        }
    }
}

/// Lines of a [`Band`] at most.
pub(super) const LINES_A_TASK: usize = 32;
/// Pixels on either side of a line of a [`Band`] that take what falls beside the image.
const MARGIN: usize = 3;

/// Neighbouring lines of an image, for the adjoint: the part that one task owns.
pub(super) struct Band<T> {
    /// Lines are columns.
    pub transposed: bool,
    first: usize,
    count: usize,
    stride: usize,
    pixels: Vec<T>,
}

impl<T: Real> Band<T> {
    /// All `count` lines of `length` pixels in bands of [`LINES_A_TASK`] lines.
    pub fn all(transposed: bool, count: usize, length: usize) -> Vec<Self> {
        let stride = length + 2 * MARGIN;
        let band = |first: usize| {
            let count = LINES_A_TASK.min(count - first);
            Self { transposed, first, count, stride, pixels: vec![T::zero(); count * stride] }
        };
        (0..count).step_by(LINES_A_TASK).map(band).collect()
    }

    /// Adds length · hat(u(j, k) − i) · y[j] for all rays of a run that follow these lines.
    pub fn add(&mut self, run: &Run, y: &[T]) {
        if run.transposed == self.transposed {
            dispatch(Scatter { band: self, run, y });
        }
    }

    /// Copies the lines without their margins.
    pub fn write(&self, lines: &mut [T]) {
        let length = self.stride - 2 * MARGIN;
        for (line, row) in lines.chunks_exact_mut(length).zip(self.pixels.chunks_exact(self.stride)) {
            line.copy_from_slice(&row[MARGIN..MARGIN + length]);
        }
    }
}

/// Adds what a run gives to a band, ray by ray: the places on all lines first, then the shares.
struct Scatter<'a, T> {
    band: &'a mut Band<T>,
    run: &'a Run,
    y: &'a [T],
}

impl<T: Real> Task<T> for Scatter<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<L: Lanes<Scalar = T>>(self) {
        let Self { band, run, y } = self;
        let (high, end, stride) =
            ((band.stride - 2 * MARGIN) as f64, band.first + band.count, band.stride as i32);
        let (mut places, mut shares) = ([0i32; LINES_A_TASK], [T::zero(); LINES_A_TASK]);
        for (index, ray) in run.rays.iter().enumerate() {
            let ahead = ray.ahead(end);
            let start = ahead.start.max(band.first);
            let lines = ray.within(-1.0, high, start..ahead.end.max(start));
            let y = y[run.bin(index)] * T::of(ray.length);
            let (count, skipped) = (lines.len(), (lines.start - band.first) as i32);
            for (l, (place, share)) in places.iter_mut().zip(&mut shares).enumerate().take(count) {
                // The line more on either side lies up to one pixel further out.
                let u = ray.origin + (lines.start + l) as f64 * ray.slope + MARGIN as f64;
                let i = (u as i32).clamp(0, stride - 2);
                *place = i + (skipped + l as i32) * stride;
                *share = T::of(u - f64::from(i)) * y;
            }
            for (place, share) in places.iter().zip(&shares).take(count) {
                // SAFETY: a place lies on a line of the band, and is not its last pixel.
                unsafe {
                    let left = band.pixels.as_mut_ptr().add(*place as usize);
                    *left += y - *share;
                    *left.add(1) += *share;
                }
            }
        }
    }
}
