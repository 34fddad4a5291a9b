//! Slices side by side: the place where a ray crosses a line, and the weights there, are found once for
//! [`STACK`] slices of a volume.
//!
//! A pixel becomes the register of its values in all slices, so that interpolation needs two loads and no shuffle.
//! The operations on a slice, and their order, are those of [`joseph`](super::joseph): the bits are the same.

use rayon::prelude::*;

use crate::operator::ct::ImageGrid;
use crate::operator::ct::joseph::{BLOCK, Lines, REGISTERS, View, WIDEST, positions, ramp};
use crate::operator::ct::transform::{Class, LINES_A_TASK, VIEWS_A_TASK};
use crate::tensor::Real;
use crate::tensor::simd::{Lanes, Task, dispatch};

/// Slices of a stack: the widest register.
pub(super) const STACK: usize = WIDEST;

/// The values of a pixel in all slices, on cache lines of their own.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Stack<T>([T; STACK]);

/// Whether so many slices are faster side by side than one after the other.
pub(super) fn pays(slices: usize) -> bool {
    slices >= 4
}

/// The projections `out` of at most [`STACK`] slices `x`, whose views are all narrow.
pub(super) fn project<T: Real>(grid: &ImageGrid, classes: &[Class; 2], bins: usize, x: &[T], out: &mut [T]) {
    let (height, width) = (grid.height, grid.width);
    let pixels = side_by_side(x, height * width);
    let mut rows = across(out, classes.iter().map(|c| c.views.len()).sum(), bins);
    for (class, transposed) in classes.iter().zip([false, true]) {
        if class.views.is_empty() {
            continue;
        }
        let (count, length) = if transposed { (width, height) } else { (height, width) };
        let mut image = Lines::<Stack<T>>::zeros(count, length, Lines::<Stack<T>>::padding(&class.views));
        image.load(&pixels, transposed);
        let mut work: Vec<(&View, Vec<&mut [T]>)> = class
            .views
            .iter()
            .zip(&class.places)
            .map(|(view, place)| (view, std::mem::take(&mut rows[*place])))
            .collect();
        work.par_chunks_mut(VIEWS_A_TASK).for_each(|group| {
            let mut sums = vec![[Stack::default(); BLOCK]; group.len()];
            for first in (0..bins).step_by(BLOCK) {
                let count = BLOCK.min(bins - first);
                dispatch(Project { image: &image, group, first, count, sums: &mut sums });
                for ((view, rows), sums) in group.iter_mut().zip(&sums) {
                    for (slice, row) in rows.iter_mut().enumerate() {
                        for (j, sum) in (first..).zip(&sums[..count]) {
                            row[if view.reversed { bins - 1 - j } else { j }] = sum.0[slice];
                        }
                    }
                }
            }
        });
    }
}

/// The back projection `out` of at most [`STACK`] slices `y`, whose views are all narrow.
pub(super) fn back_project<T: Real>(
    grid: &ImageGrid,
    classes: &[Class; 2],
    bins: usize,
    y: &[T],
    out: &mut [T],
) {
    let (height, width) = (grid.height, grid.width);
    let rays = classes.iter().map(|c| c.views.len()).sum::<usize>() * bins;
    let [by_row, by_column] =
        [(&classes[0], width, height), (&classes[1], height, width)].map(|(class, length, count)| {
            if class.views.is_empty() { Vec::new() } else { lines(class, bins, rays, y, length, count) }
        });
    across(out, height, width).into_par_iter().enumerate().for_each(|(row, mut slices)| {
        for column in 0..width {
            let one = by_row.get(row * width + column);
            let other = by_column.get(column * height + row);
            for (slice, out) in slices.iter_mut().enumerate() {
                let value = one.map_or(T::zero(), |s| s.0[slice]);
                out[column] = other.map_or(value, |s| value + s.0[slice]);
            }
        }
    });
}

/// What the views of a class give to `count` lines of `length` pixels.
fn lines<T: Real>(
    class: &Class,
    bins: usize,
    slice: usize,
    y: &[T],
    length: usize,
    count: usize,
) -> Vec<Stack<T>> {
    let pad = Lines::<Stack<T>>::padding(&class.views);
    let mut rays = Lines::<Stack<T>>::zeros(class.views.len(), bins, pad);
    let stride = rays.stride();
    let rows = rays.writable().par_chunks_mut(stride).zip(class.views.par_iter().zip(&class.places));
    rows.for_each(|(line, (view, place))| {
        let line = &mut line[..bins];
        let factor = T::of(view.length);
        for (s, y) in y.chunks(slice).enumerate() {
            line.iter_mut().zip(&y[place * bins..]).for_each(|(l, y)| l.0[s] = *y * factor);
        }
        if view.reversed {
            line.reverse();
        }
    });
    let mut out = vec![Stack::default(); count * length];
    out.par_chunks_mut(length * LINES_A_TASK).enumerate().for_each(|(task, lines)| {
        let line = task * LINES_A_TASK;
        for first in (0..length).step_by(BLOCK) {
            dispatch(BackProject { rays: &rays, views: &class.views, line, first, length, lines });
        }
    });
    out
}

/// Slices of `length` elements, interleaved; zeros where there are fewer than [`STACK`].
fn side_by_side<T: Real>(slices: &[T], length: usize) -> Vec<Stack<T>> {
    const PART: usize = 1 << 10;
    let mut out = vec![Stack::default(); length];
    out.par_chunks_mut(PART).enumerate().for_each(|(part, out)| {
        for (s, slice) in slices.chunks(length).enumerate() {
            out.iter_mut().zip(&slice[part * PART..]).for_each(|(o, v)| o.0[s] = *v);
        }
    });
    out
}

/// The rows of an image in every slice.
fn across<T>(slices: &mut [T], rows: usize, length: usize) -> Vec<Vec<&mut [T]>> {
    let mut all: Vec<Vec<&mut [T]>> = (0..rows).map(|_| Vec::with_capacity(STACK)).collect();
    for slice in slices.chunks_mut(rows * length) {
        slice.chunks_mut(length).zip(&mut all).for_each(|(row, all)| all.push(row));
    }
    all
}

/// A block of rays of some views.
struct Project<'a, 'b, T> {
    image: &'a Lines<Stack<T>>,
    group: &'a [(&'b View, Vec<&'b mut [T]>)],
    first: usize,
    /// Rays of the block.
    count: usize,
    sums: &'a mut [[Stack<T>; BLOCK]],
}

impl<T: Real> Task<T> for Project<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<L: Lanes<Scalar = T>>(self) {
        let part = REGISTERS * L::COUNT;
        for (index, begin) in (0..self.count).step_by(part).enumerate() {
            for b in 0..(part.min(self.count - begin)).div_ceil(L::COUNT) {
                // Views inside: they share this strip of the image while it is in the cache.
                for ((view, _), sums) in self.group.iter().zip(&mut *self.sums) {
                    let start = view.origin + self.first as f64 * view.per_ray;
                    let start = start + (index * part) as f64 * view.per_ray;
                    let out = &mut sums[begin + b * L::COUNT..][..L::COUNT];
                    // SAFETY: the caller's.
                    unsafe { project_register::<L>(self.image, view, start, b, out) }
                }
            }
        }
    }
}

/// Rays b·COUNT.. of a part that begins at `start`.
///
/// # Safety
/// The instruction set of `L` must be available; `view.narrow()` holds, and the image is padded for it.
#[inline(always)]
unsafe fn project_register<L: Lanes>(
    image: &Lines<Stack<L::Scalar>>,
    view: &View,
    start: f64,
    b: usize,
    out: &mut [Stack<L::Scalar>],
) {
    let ahead = (b * L::COUNT) as f64 * view.per_ray;
    let span = (REGISTERS * L::COUNT - 1) as f64 * view.per_ray;
    let lines = view.crossed(start, -1.0 - span, image.length as f64, image.count);
    // SAFETY: `crossed` keeps the part within one pixel of the line, and the padding covers that.
    unsafe {
        let ramp = ramp::<L>(view.per_ray);
        for register in (0..STACK).step_by(L::COUNT) {
            let mut sums = [L::splat(L::Scalar::of(0.0)); WIDEST];
            for line in lines.clone() {
                let u = start + line as f64 * view.per_line + image.pad() as f64;
                let (whole, i, f) = positions::<L>(u + ahead, ramp);
                let (i, f) = (L::whole(i), array::<L>(f));
                let row = image.before(line).add(whole);
                for l in 0..L::COUNT {
                    let pixel = row.add(i[l] as usize).cast::<L::Scalar>().add(register);
                    let (left, right) = (L::load(pixel), L::load(pixel.add(STACK)));
                    sums[l] = L::add(sums[l], L::mul_add(L::splat(f[l]), L::sub(right, left), left));
                }
            }
            let length = L::splat(L::Scalar::of(view.length));
            for (out, sum) in out.iter_mut().zip(sums) {
                L::store(out.0[register..].as_mut_ptr(), L::mul(sum, length));
            }
        }
    }
}

/// A block of pixels of some neighbouring lines.
struct BackProject<'a, T> {
    rays: &'a Lines<Stack<T>>,
    views: &'a [View],
    /// Number of the first line.
    line: usize,
    /// First pixel of the block.
    first: usize,
    length: usize,
    lines: &'a mut [Stack<T>],
}

impl<T: Real> Task<T> for BackProject<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<L: Lanes<Scalar = T>>(self) {
        let part = REGISTERS * L::COUNT;
        let count = BLOCK.min(self.length - self.first);
        for begin in (0..count).step_by(part) {
            for b in 0..(part.min(count - begin)).div_ceil(L::COUNT) {
                // Lines inside: they share the rays while those are in the cache.
                for (k, line) in (self.line..).zip(self.lines.chunks_mut(self.length)) {
                    let from = self.first + begin;
                    let to = (from + (b + 1) * L::COUNT).min(self.length);
                    let out = &mut line[from + b * L::COUNT..to];
                    // SAFETY: the caller's.
                    unsafe { gather_register::<L>(self.rays, self.views, k, from, b, out) }
                }
            }
        }
    }
}

/// Pixels b·COUNT.. of a part that begins at pixel `first` of a line.
///
/// # Safety
/// The instruction set of `L` must be available; `view.narrow_back()` holds for all views, and the rays are padded
/// for them.
#[inline(always)]
unsafe fn gather_register<L: Lanes>(
    rays: &Lines<Stack<L::Scalar>>,
    views: &[View],
    line: usize,
    first: usize,
    b: usize,
    out: &mut [Stack<L::Scalar>],
) {
    let of = |x: f64| L::Scalar::of(x);
    // SAFETY: as in `joseph::gather`.
    unsafe {
        let (zero, one) = (L::splat(of(0.0)), L::splat(of(1.0)));
        for register in (0..STACK).step_by(L::COUNT) {
            let mut sums = [zero; WIDEST];
            for (index, view) in views.iter().enumerate() {
                let step = 1.0 / view.per_ray;
                let v = (first as f64 - view.origin - line as f64 * view.per_line) * step;
                let span = (REGISTERS * L::COUNT - 1) as f64 * step;
                if v + span <= -2.0 || v >= rays.length as f64 + 1.0 {
                    continue;
                }
                let spacing = L::splat(of(view.slope));
                let far = L::sub(one, spacing);
                let v = v + (b * L::COUNT) as f64 * step + rays.pad() as f64;
                let (whole, i, f) = positions::<L>(v, ramp::<L>(step));
                let e = L::mul(f, spacing);
                let near =
                    [L::max(L::sub(one, e), zero), L::max(L::add(far, e), zero)].map(|w| array::<L>(w));
                let next = [L::max(L::sub(far, e), zero), L::max(L::sub(L::add(far, e), spacing), zero)];
                let next = next.map(|w| array::<L>(w));
                let i = L::whole(i);
                let row = rays.before(index).add(whole);
                for l in 0..L::COUNT {
                    let ray = row.add(i[l] as usize).cast::<L::Scalar>().add(register);
                    let add = |sum, weight, ray| L::mul_add(L::splat(weight), L::load(ray), sum);
                    sums[l] = add(add(sums[l], near[0][l], ray), near[1][l], ray.add(STACK));
                    if view.slope < 1.0 {
                        sums[l] = add(sums[l], next[0][l], ray.sub(STACK));
                        sums[l] = add(sums[l], next[1][l], ray.add(2 * STACK));
                    }
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                L::store(out.0[register..].as_mut_ptr(), sum);
            }
        }
    }
}

/// The lanes of a register.
///
/// # Safety
/// The instruction set of `L` must be available.
#[inline(always)]
unsafe fn array<L: Lanes>(register: L::Register) -> [L::Scalar; WIDEST] {
    let mut out = [L::Scalar::of(0.0); WIDEST];
    // SAFETY: no register is wider.
    unsafe { L::store(out.as_mut_ptr(), register) };
    out
}
