//! Joseph's method (Joseph 1982, "An improved algorithm for reprojecting rays through pixel images") along
//! whichever image axis a ray follows most, and its exact adjoint.
//!
//! The lines of the image (its rows, or its columns when rays run mostly along the rows) are contiguous in
//! memory. Ray j of a view crosses line k at pixel position
//!     u(j, k) = origin + k·per_line + j·per_ray,
//! and takes hat(u − i) of pixel i there, hat(x) = max(0, 1 − |x|). Neighbouring rays read neighbouring pixels,
//! so that a register of rays needs two loads and a shuffle. The adjoint asks for the rays that meet pixel i,
//!     j near v(i, k) = (i − origin − k·per_line)/per_ray,  with weight hat((v − j)·per_ray),
//! which are the same coefficients: it gathers too, without scatter and without atomics.

use rayon::prelude::*;

use crate::operator::ct::transform::transpose;
use crate::tensor::Real;
use crate::tensor::simd::{Lanes, Task};

/// Registers that a block keeps at once: enough to share the work that a line costs, few enough to stay.
pub(super) const REGISTERS: usize = 4;
/// Steps up to this let a register find its neighbours within two registers of memory.
pub(super) const NARROW: f64 = 1.9;
/// Lanes in the widest register.
pub(super) const WIDEST: usize = 16;
/// Scalars that [`Lines::padding`] adds to what a block spans.
const MARGIN: usize = 2 * WIDEST + 8;

/// How the rays of one view cross the lines of the image, in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Lines are columns (the rays run mostly along the rows).
    pub transposed: bool,
    /// Ray j is detector bin bins − 1 − j, so that `per_ray` is positive.
    pub reversed: bool,
    pub origin: f64,
    pub per_line: f64,
    pub per_ray: f64,
    /// Slope of the hat in ray spacings, with which pixels ask for rays: `per_ray` in the adjoint; 1 interpolates
    /// between the two nearest rays.
    pub slope: f64,
    /// Length of a ray between two lines, mm.
    pub length: f64,
}

impl View {
    /// Whether blocks of rays can be projected by [`Project`].
    pub fn narrow(&self) -> bool {
        self.per_ray <= NARROW
    }

    /// Whether blocks of pixels can be back-projected by [`BackProject`].
    pub fn narrow_back(&self) -> bool {
        self.per_ray * NARROW >= 1.0
    }

    /// Elements between the first and the last that a block reads, over both directions.
    fn reach(&self) -> f64 {
        let block = (REGISTERS * WIDEST) as f64;
        let forward = if self.narrow() { block * self.per_ray } else { 0.0 };
        let back = if self.narrow_back() { block / self.per_ray } else { 0.0 };
        forward.max(back)
    }

    /// The lines k in 0..count whose crossing u = start + k·per_line lies in (low, high), perhaps one more on
    /// either side.
    pub fn crossed(&self, start: f64, low: f64, high: f64, count: usize) -> std::ops::Range<usize> {
        if self.per_line == 0.0 {
            return if start > low && start < high { 0..count } else { 0..0 };
        }
        let (a, b) = ((low - start) / self.per_line, (high - start) / self.per_line);
        let bound = |x: f64| x.clamp(0.0, count as f64) as usize;
        bound(a.min(b).floor())..bound(a.max(b).ceil() + 1.0)
    }
}

/// Parallel lines of equal length with zeros between them, wide enough for a block to read past either end.
#[derive(Clone, Debug)]
pub(super) struct Lines<T> {
    data: Vec<T>,
    pub count: usize,
    pub length: usize,
    pad: usize,
}

impl<T: Copy + Default + Send + Sync> Lines<T> {
    pub fn zeros(count: usize, length: usize, pad: usize) -> Self {
        Self { data: vec![T::default(); count * (length + pad) + pad], count, length, pad }
    }

    /// Zeros that the lines need on either side for these views.
    pub fn padding(views: &[View]) -> usize {
        views.iter().map(View::reach).fold(0.0, f64::max).ceil() as usize + MARGIN
    }

    /// Distance between the starts of lines.
    pub fn stride(&self) -> usize {
        self.length + self.pad
    }

    /// The lines for writing: pieces of `stride()` scalars, of which the first `length` belong to the line.
    pub fn writable(&mut self) -> &mut [T] {
        let (pad, end) = (self.pad, self.data.len());
        &mut self.data[pad..end]
    }

    /// The lines become the rows of an image, or its columns: as many as there are lines, of their length.
    pub fn load(&mut self, image: &[T], transposed: bool) {
        let (count, length, stride) = (self.count, self.length, self.stride());
        if transposed {
            return transpose(image, length, count, stride, self.writable());
        }
        let rows = self.writable().par_chunks_mut(stride).zip(image.par_chunks(length));
        rows.for_each(|(line, row)| line[..length].copy_from_slice(row));
    }

    /// Zeros before and after each line.
    pub fn pad(&self) -> usize {
        self.pad
    }

    /// Where the zeros before a line begin.
    ///
    /// # Panics
    /// Where there is no such line.
    pub fn before(&self, index: usize) -> *const T {
        assert!(index < self.count);
        self.data[index * self.stride()..].as_ptr()
    }

    pub fn line(&self, index: usize) -> &[T] {
        let start = self.pad + index * self.stride();
        &self.data[start..start + self.length]
    }
}

/// Positions of a register of neighbours that starts at `first` ≥ 0 and advances by `ramp`: where to read, the
/// whole numbers from there, and the fractions.
///
/// # Safety
/// The instruction set of `L` must be available.
#[inline(always)]
pub(super) unsafe fn positions<L: Lanes>(first: f64, ramp: L::Register) -> (usize, L::Register, L::Register) {
    // SAFETY: `first` is between 0 and the length of an array.
    unsafe {
        let whole = first.to_int_unchecked::<i64>();
        let t = L::add(L::splat(L::Scalar::of(first - whole as f64)), ramp);
        let i = L::floor(t);
        (whole as usize, i, L::sub(t, i))
    }
}

/// 0, step, 2·step, …
///
/// # Safety
/// The instruction set of `L` must be available.
#[inline(always)]
pub(super) unsafe fn ramp<L: Lanes>(step: f64) -> L::Register {
    let values: [L::Scalar; WIDEST] = std::array::from_fn(|l| L::Scalar::of(l as f64 * step));
    // SAFETY: no register is wider.
    unsafe { L::load(values.as_ptr()) }
}

/// One block of rays of one view: out[j] = length · Σₖ Σᵢ hat(u(first + j, k) − i) · image[k][i].
pub(super) struct Project<'a, T> {
    pub image: &'a Lines<T>,
    pub view: &'a View,
    /// First ray of the block.
    pub first: usize,
    /// At most [`block`] sums.
    pub out: &'a mut [T],
}

/// Rays or pixels of a block for element type `T`: a multiple of every register.
pub(super) const BLOCK: usize = REGISTERS * WIDEST;

impl<T: Real> Task<T> for Project<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<L: Lanes<Scalar = T>>(self) {
        let (image, view) = (self.image, self.view);
        let start = view.origin + self.first as f64 * view.per_ray;
        if !view.narrow() {
            return self.one_by_one();
        }
        let part = REGISTERS * L::COUNT;
        for (index, out) in self.out.chunks_mut(part).enumerate() {
            let start = start + (index * part) as f64 * view.per_ray;
            let span = (part - 1) as f64 * view.per_ray;
            let lines = view.crossed(start, -1.0 - span, image.length as f64, image.count);
            // SAFETY: `crossed` keeps start + k·per_line within one pixel of (−1 − span, length), and the padding
            // covers that and the two registers which `pairs` reads.
            unsafe {
                let ramp = ramp::<L>(view.per_ray);
                let mut sums = [L::splat(T::zero()); REGISTERS];
                for line in lines {
                    let u = start + line as f64 * view.per_line + image.pad as f64;
                    let row = image.data.as_ptr().add(line * image.stride());
                    for (b, sum) in sums.iter_mut().enumerate() {
                        let u = u + (b * L::COUNT) as f64 * view.per_ray;
                        let (whole, i, f) = positions::<L>(u, ramp);
                        let (left, right) = L::pairs(row.add(whole), i);
                        *sum = L::add(*sum, L::mul_add(f, L::sub(right, left), left));
                    }
                }
                spill::<L>(&sums, view.length, out);
            }
        }
    }
}

impl<T: Real> Project<'_, T> {
    /// For rays so far apart that neighbours share no pixels.
    fn one_by_one(self) {
        let (image, view) = (self.image, self.view);
        for (j, out) in self.out.iter_mut().enumerate() {
            let start = view.origin + (self.first + j) as f64 * view.per_ray;
            let mut sum = T::zero();
            for k in view.crossed(start, -1.0, image.length as f64, image.count) {
                let u = start + k as f64 * view.per_line;
                let (i, row) = (u.floor(), image.line(k));
                let f = T::of(u - i);
                let at = |i: f64| if i >= 0.0 { row.get(i as usize).copied() } else { None };
                sum += (T::one() - f) * at(i).unwrap_or(T::zero()) + f * at(i + 1.0).unwrap_or(T::zero());
            }
            *out = T::of(view.length) * sum;
        }
    }
}

/// out ← factor · registers, as many as fit.
///
/// # Safety
/// The instruction set of `L` must be available.
#[inline(always)]
pub(super) unsafe fn spill<L: Lanes>(
    registers: &[L::Register; REGISTERS],
    factor: f64,
    out: &mut [L::Scalar],
) {
    let mut values = [L::Scalar::of(0.0); BLOCK];
    // SAFETY: REGISTERS registers fit in BLOCK scalars.
    unsafe {
        let factor = L::splat(L::Scalar::of(factor));
        for (b, register) in registers.iter().enumerate() {
            L::store(values.as_mut_ptr().add(b * L::COUNT), L::mul(*register, factor));
        }
    }
    out.copy_from_slice(&values[..out.len()]);
}

/// One block of pixels of one line: out[i] = Σ_views Σⱼ hat((v(first + i, line) − j)·slope) · rays[view][j].
pub(super) struct BackProject<'a, T> {
    /// One line of rays for each view, in the view's order and times its length.
    pub rays: &'a Lines<T>,
    pub views: &'a [View],
    pub line: usize,
    /// First pixel of the block.
    pub first: usize,
    /// At most [`BLOCK`] sums.
    pub out: &'a mut [T],
}

impl<T: Real> Task<T> for BackProject<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<L: Lanes<Scalar = T>>(self) {
        let part = REGISTERS * L::COUNT;
        for (index, out) in self.out.chunks_mut(part).enumerate() {
            let first = self.first + index * part;
            // SAFETY: passed on.
            unsafe {
                let mut sums = [L::splat(T::zero()); REGISTERS];
                for (index, view) in self.views.iter().enumerate() {
                    if view.narrow_back() {
                        gather::<L>(self.rays, index, view, self.line, first, &mut sums);
                    }
                }
                spill::<L>(&sums, 1.0, out);
            }
        }
        for (index, view) in self.views.iter().enumerate() {
            if !view.narrow_back() {
                one_by_one(self.rays.line(index), view, self.line, self.first, self.out);
            }
        }
    }
}

/// Adds what one view gives to a block of pixels.
///
/// # Safety
/// The instruction set of `L` must be available; `view.narrow_back()` holds.
#[inline(always)]
pub(super) unsafe fn gather<L: Lanes>(
    rays: &Lines<L::Scalar>,
    index: usize,
    view: &View,
    line: usize,
    first: usize,
    sums: &mut [L::Register; REGISTERS],
) {
    let step = 1.0 / view.per_ray;
    let v = (first as f64 - view.origin - line as f64 * view.per_line) * step;
    let span = (REGISTERS * L::COUNT - 1) as f64 * step;
    // A pixel meets up to two rays on either side when rays are closer than pixels.
    let fine = view.slope < 1.0;
    if v + span <= -2.0 || v >= rays.length as f64 + 1.0 {
        return;
    }
    let of = |x: f64| L::Scalar::of(x);
    // SAFETY: v is within two of (−2 − span, length + 1), which the padding covers, and one step is at most NARROW.
    unsafe {
        let ramp = ramp::<L>(step);
        let (zero, one, spacing) = (L::splat(of(0.0)), L::splat(of(1.0)), L::splat(of(view.slope)));
        let far = L::sub(one, spacing);
        let row = rays.data.as_ptr().add(index * rays.stride());
        for (b, sum) in sums.iter_mut().enumerate() {
            let v = v + (b * L::COUNT) as f64 * step + rays.pad as f64;
            let (whole, i, f) = positions::<L>(v, ramp);
            let e = L::mul(f, spacing);
            let near = [L::max(L::sub(one, e), zero), L::max(L::add(far, e), zero)];
            let (a, b) = L::pairs(row.add(whole), i);
            *sum = L::mul_add(near[1], b, L::mul_add(near[0], a, *sum));
            if fine {
                let (a, _) = L::pairs(row.add(whole - 1), i);
                let (_, b) = L::pairs(row.add(whole + 1), i);
                let next = [L::max(L::sub(far, e), zero), L::max(L::sub(L::add(far, e), spacing), zero)];
                *sum = L::mul_add(next[1], b, L::mul_add(next[0], a, *sum));
            }
        }
    }
}

/// Adds what a view with very close rays gives to a block of pixels.
pub(super) fn one_by_one<T: Real>(rays: &[T], view: &View, line: usize, first: usize, out: &mut [T]) {
    for (i, out) in out.iter_mut().enumerate() {
        let v = ((first + i) as f64 - view.origin - line as f64 * view.per_line) / view.per_ray;
        let reach = 1.0 / view.slope;
        let bound = |x: f64| x.clamp(0.0, rays.len() as f64) as usize;
        let from = bound((v - reach).ceil());
        for (j, ray) in rays.iter().enumerate().take(bound((v + reach).floor() + 1.0)).skip(from) {
            let weight = 1.0 - ((v - j as f64) * view.slope).abs();
            *out += T::of(weight.max(0.0)) * *ray;
        }
    }
}
