//! Joseph's method for detectors whose columns run along z, and its exact adjoint.
//!
//! The rays to one detector column lie in a plane that contains z. They cross an image line at the same pixel
//! position, and between the lines of voxels along z on either side of it they lie at equal distances,
//!     z(i, k) = start(k) + i·step(k)  in slices,
//! so that a register of detector rows reads neighbouring voxels with two loads and a shuffle; so does a register
//! of voxels that asks, in the adjoint, for the rays that meet it.

use rayon::prelude::*;

use crate::operator::ct::cone_transform::Sums;
use crate::operator::ct::crossing::Crossing;
use crate::operator::ct::joseph::{
    BLOCK, Lines, NARROW, REGISTERS, View, WIDEST, gather, one_by_one, positions, spill,
};
use crate::operator::ct::{VectorBeam, VolumeGrid};
use crate::tensor::Real;
use crate::tensor::simd::{Lanes, Task, dispatch};

/// Image lines that a back-projection task computes.
const LINES_A_TASK: usize = 4;

/// The views of a beam that can be traced column by column.
#[derive(Clone, Debug)]
pub(super) struct Upright {
    views: Vec<usize>,
}

/// The rays to one detector column.
struct Column {
    /// In the plane of the slices.
    ray: Crossing,
    /// Slice of the source, not whole.
    source: f64,
    /// Slices from the source to the pixel of row 0, and from one row to the next, over the lines to the detector.
    first: f64,
    step: f64,
}

impl Column {
    fn new(grid: &VolumeGrid, beam: &VectorBeam, view: usize, bin: usize) -> Self {
        let pose = &beam.poses[view];
        let pixel = beam.pixel(view, 0, bin);
        let ray = Crossing::new(&grid.image, [pose.source[0], pose.source[1]], [pixel[0], pixel[1]]);
        let scale = 1.0 / (grid.thickness * ray.along);
        Self {
            ray,
            source: pose.source[2] / grid.thickness + (grid.slices as f64 - 1.0) / 2.0,
            first: (pixel[2] - pose.source[2]) * scale,
            step: pose.v[2] * scale,
        }
    }

    /// Slice of row 0 on line k, and the step to the next row.
    #[inline(always)]
    fn heights(&self, line: usize) -> (f64, f64) {
        let lines = line as f64 - self.ray.start;
        (self.source + lines * self.first, lines * self.step)
    }

    /// Length of the ray to a row between two lines, mm.
    fn length(&self, grid: &VolumeGrid, row: usize) -> f64 {
        let climb = (self.first + row as f64 * self.step) * grid.thickness;
        (self.ray.length * self.ray.length + climb * climb).sqrt()
    }
}

impl Upright {
    /// Zeros that lines along z need on either side.
    pub const PADDING: usize = 4 * WIDEST + 8;

    /// The views that can be traced by column, and the others.
    pub fn split(grid: &VolumeGrid, beam: &VectorBeam) -> (Self, Vec<usize>) {
        let fits = |view: &usize| {
            let v = beam.poses[*view].v;
            let upright = v[0] == 0.0 && v[1] == 0.0 && v[2] > 0.0 && beam.poses[*view].u[2] == 0.0;
            upright && (0..beam.bins).all(|bin| Self::shallow(grid, beam, *view, bin))
        };
        let (views, others) = (0..beam.views()).partition(fits);
        (Self { views }, others)
    }

    /// Whether the rays to a column climb by at most a slice a line, and lie close enough on all lines.
    fn shallow(grid: &VolumeGrid, beam: &VectorBeam, view: usize, bin: usize) -> bool {
        let column = Column::new(grid, beam, view, bin);
        let lines = if column.ray.transposed { grid.image.width } else { grid.image.height };
        let last = column.first + (beam.rows - 1) as f64 * column.step;
        let ahead = column.ray.ahead(lines);
        let close = |k: usize| column.heights(k).1 <= NARROW;
        let dense = ahead.is_empty() || (close(ahead.start) && close(ahead.end - 1));
        column.first.abs().max(last.abs()) <= 1.0 && dense
    }

    /// traced[view, bin, row] ← the line integrals of these views through the lines along z.
    pub fn project<T: Real>(&self, grid: &VolumeGrid, beam: &VectorBeam, lines: &Lines<T>, traced: &mut [T]) {
        let rows = beam.rows;
        let mut all: Vec<Option<&mut [T]>> = traced.chunks_mut(beam.bins * rows).map(Some).collect();
        let work: Vec<(usize, &mut [T])> =
            self.views.iter().filter_map(|view| all[*view].take().map(|out| (*view, out))).collect();
        work.into_par_iter().for_each(|(view, out)| {
            for (bin, out) in out.chunks_mut(rows).enumerate() {
                let column = Column::new(grid, beam, view, bin);
                for first in (0..rows).step_by(BLOCK) {
                    let out = &mut out[first..rows.min(first + BLOCK)];
                    dispatch(Project { grid, lines, column: &column, first, out });
                }
                out.iter_mut().enumerate().for_each(|(row, out)| *out *= T::of(column.length(grid, row)));
            }
        });
    }

    /// Adds the adjoint of [`Upright::project`] for y [rows, views, bins].
    pub fn back_project<T: Real>(&self, grid: &VolumeGrid, beam: &VectorBeam, y: &[T], sums: &mut Sums<T>) {
        if self.views.is_empty() {
            return;
        }
        let rays = self.rays(grid, beam, y);
        let stride = sums.stride;
        let (height, width) = (grid.image.height, grid.image.width);
        let passes = [(false, width, &mut sums.rows), (true, height, &mut sums.columns)];
        for (transposed, across, volume) in passes {
            volume.par_chunks_mut(across * stride * LINES_A_TASK).enumerate().for_each(|(task, planes)| {
                for (place, view) in self.views.iter().enumerate() {
                    for bin in 0..beam.bins {
                        let column = Column::new(grid, beam, *view, bin);
                        if column.ray.transposed == transposed {
                            let index = place * beam.bins + bin;
                            let first = task * LINES_A_TASK;
                            let planes = &mut *planes;
                            dispatch(BackProject {
                                rays: &rays,
                                index,
                                column: &column,
                                first,
                                across,
                                stride,
                                planes,
                            });
                        }
                    }
                }
            });
        }
    }

    /// y of these views times the lengths of the rays: one line of detector rows for each column.
    fn rays<T: Real>(&self, grid: &VolumeGrid, beam: &VectorBeam, y: &[T]) -> Lines<T> {
        let step = View {
            transposed: false,
            reversed: false,
            origin: 0.0,
            per_line: 0.0,
            per_ray: 1.0 / NARROW,
            slope: 1.0 / NARROW,
            length: 1.0,
        };
        let mut rays = Lines::zeros(self.views.len() * beam.bins, beam.rows, Lines::<T>::padding(&[step]));
        let (stride, apart) = (rays.stride(), beam.views() * beam.bins);
        rays.writable().par_chunks_mut(stride * beam.bins).zip(&self.views).for_each(|(lines, view)| {
            for (bin, line) in lines.chunks_mut(stride).enumerate() {
                let column = Column::new(grid, beam, *view, bin);
                for (row, ray) in line[..beam.rows].iter_mut().enumerate() {
                    *ray = y[row * apart + view * beam.bins + bin] * T::of(column.length(grid, row));
                }
            }
        });
        rays
    }
}

/// One block of rows of one column: out[i] = Σₖ of the volume where ray first + i crosses line k.
struct Project<'a, T> {
    grid: &'a VolumeGrid,
    lines: &'a Lines<T>,
    column: &'a Column,
    first: usize,
    out: &'a mut [T],
}

impl<T: Real> Task<T> for Project<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<L: Lanes<Scalar = T>>(self) {
        let Self { grid, lines, column, .. } = self;
        let (height, width) = (grid.image.height, grid.image.width);
        // Lines along z lie in the order [row, column].
        let (count, across, per_line, per_pixel) =
            if column.ray.transposed { (width, height, 1, width) } else { (height, width, width, 1) };
        let beside = height * width;
        let (slices, pad) = (lines.length as f64, lines.pad() as f64);
        let part = REGISTERS * L::COUNT;
        for (index, out) in self.out.chunks_mut(part).enumerate() {
            let first = (self.first + index * part) as f64;
            // SAFETY: a register is read only where it begins within its span before the line or on it, and a
            // register spans less than two, which the padding covers.
            unsafe {
                let iota = L::load(std::array::from_fn::<T, WIDEST, _>(|l| T::of(l as f64)).as_ptr());
                let mut sums = [L::splat(T::zero()); REGISTERS];
                for k in column.ray.within(-1.0, across as f64, column.ray.ahead(count)) {
                    let u = column.ray.at(k);
                    let (start, step) = column.heights(k);
                    let z = start + first * step;
                    let span = (L::COUNT - 1) as f64 * step;
                    if z >= slices || z + part as f64 * step <= -1.0 || u <= -1.0 || u >= across as f64 {
                        continue;
                    }
                    let i = u.floor();
                    let line = |i: f64| {
                        let inside = i >= 0.0 && i < across as f64;
                        lines.before(if inside { k * per_line + i as usize * per_pixel } else { beside })
                    };
                    let (near, far, f) = (line(i), line(i + 1.0), L::splat(T::of(u - i)));
                    let ramp = L::mul(iota, L::splat(T::of(step)));
                    for (b, sum) in sums.iter_mut().enumerate() {
                        let z = z + (b * L::COUNT) as f64 * step;
                        if z >= slices || z + span <= -1.0 {
                            continue;
                        }
                        let (whole, below, g) = positions::<L>(z + pad, ramp);
                        let (a, b) = L::pairs(near.add(whole), below);
                        let near = L::mul_add(g, L::sub(b, a), a);
                        let (a, b) = L::pairs(far.add(whole), below);
                        let far = L::mul_add(g, L::sub(b, a), a);
                        *sum = L::add(*sum, L::mul_add(f, L::sub(far, near), near));
                    }
                }
                spill::<L>(&sums, 1.0, out);
            }
        }
    }
}

/// Adds what the rays of one column give to some planes of voxels.
struct BackProject<'a, T> {
    rays: &'a Lines<T>,
    /// The column's line of rays.
    index: usize,
    column: &'a Column,
    /// Number of the first plane.
    first: usize,
    /// Lines along z in a plane, and their distance.
    across: usize,
    stride: usize,
    planes: &'a mut [T],
}

impl<T: Real> Task<T> for BackProject<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<L: Lanes<Scalar = T>>(self) {
        let Self { rays, index, column, first, across, stride, planes } = self;
        let plane = across * stride;
        let count = planes.len() / plane;
        let ahead = column.ray.ahead(first + count);
        let from = ahead.start.max(first);
        let part = REGISTERS * L::COUNT;
        for k in column.ray.within(-1.0, across as f64, from..ahead.end.max(from)) {
            let u = column.ray.at(k);
            if u <= -1.0 || u >= across as f64 {
                continue;
            }
            let i = u.floor();
            let f = u - i;
            let (start, step) = column.heights(k);
            let view = View {
                transposed: false,
                reversed: false,
                origin: start,
                per_line: 0.0,
                per_ray: step,
                slope: step,
                length: 1.0,
            };
            // Voxels that any ray of the column meets.
            let bound = |z: f64| z.clamp(0.0, stride as f64) as usize;
            let (low, high) = (bound(start - 1.0), bound(start + (rays.length - 1) as f64 * step + 2.0));
            let planes = &mut planes[(k - first) * plane..(k - first + 1) * plane];
            for z in (low / part * part..high).step_by(part) {
                // SAFETY: `stride` is a multiple of every register.
                unsafe {
                    let mut sums = [L::splat(T::zero()); REGISTERS];
                    if view.narrow_back() {
                        gather::<L>(rays, index, &view, 0, z, &mut sums);
                    } else {
                        let mut values = [T::zero(); BLOCK];
                        one_by_one(rays.line(index), &view, 0, z, &mut values[..part]);
                        for (b, sum) in sums.iter_mut().enumerate() {
                            *sum = L::load(values.as_ptr().add(b * L::COUNT));
                        }
                    }
                    for (i, share) in [(i, 1.0 - f), (i + 1.0, f)] {
                        if i < 0.0 || i >= across as f64 {
                            continue;
                        }
                        let line = &mut planes[i as usize * stride..][z..stride.min(z + part)];
                        let share = L::splat(T::of(share));
                        for (sum, to) in sums.iter().zip(line.chunks_exact_mut(L::COUNT)) {
                            let to = to.as_mut_ptr();
                            L::store(to, L::mul_add(share, *sum, L::load(to)));
                        }
                    }
                }
            }
        }
    }
}
