//! Joseph's method for rays in any direction, one by one, and its exact adjoint.
//!
//! A ray is followed along the axis on which it passes most voxels; in each plane of voxels across that axis it takes
//! four by bilinear interpolation.

use std::ops::Range;

use rayon::prelude::*;

use crate::operator::ct::cone_transform::Sums;
use crate::operator::ct::crossing::{ahead, within};
use crate::operator::ct::joseph::Lines;
use crate::operator::ct::{VectorBeam, VolumeGrid};
use crate::tensor::Real;

/// The axis that a ray follows, by what is counted along it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Rows,
    Columns,
    Slices,
}

/// The views of a beam that are traced ray by ray.
#[derive(Clone, Debug)]
pub(super) struct Oblique {
    views: Vec<usize>,
    /// Whether any ray follows z.
    climbs: bool,
}

/// A ray that crosses plane k at (a, b) = origin + k·slope, where (k, a, b) are (row, column, slice), (column, row,
/// slice) or (slice, row, column).
struct Ray {
    axis: Axis,
    origin: [f64; 2],
    slope: [f64; 2],
    start: f64,
    along: f64,
    /// Length of the ray between two planes, mm.
    length: f64,
}

impl Ray {
    fn new(grid: &VolumeGrid, beam: &VectorBeam, view: usize, row: usize, bin: usize) -> Self {
        let (source, pixel) = (beam.poses[view].source, beam.pixel(view, row, bin));
        let d: [f64; 3] = std::array::from_fn(|a| pixel[a] - source[a]);
        let (column, row) = grid.image.place_of(source[0], source[1]);
        let slice = source[2] / grid.thickness + (grid.slices as f64 - 1.0) / 2.0;
        let (columns, rows, slices) =
            (d[0] / grid.image.pixel, -d[1] / grid.image.pixel, d[2] / grid.thickness);
        let (axis, [start, a, b], [along, da, db]) = if slices.abs() > rows.abs().max(columns.abs()) {
            (Axis::Slices, [slice, row, column], [slices, rows, columns])
        } else if rows.abs() >= columns.abs() {
            (Axis::Rows, [row, column, slice], [rows, columns, slices])
        } else {
            (Axis::Columns, [column, row, slice], [columns, rows, slices])
        };
        let slope = [da / along, db / along];
        let length = (d[0] * d[0] + d[1] * d[1] + d[2] * d[2]).sqrt() / along.abs();
        Self { axis, origin: [a - start * slope[0], b - start * slope[1]], slope, start, along, length }
    }

    /// The planes of `among` that the ray crosses inside the volume, perhaps one more on either side.
    fn planes(&self, counts: [usize; 2], among: Range<usize>) -> Range<usize> {
        let ahead = ahead(self.start, self.along, among.end);
        let from = ahead.start.max(among.start);
        let mut planes = from..ahead.end.max(from);
        for (axis, count) in counts.iter().enumerate() {
            planes = within(self.origin[axis], self.slope[axis], (-1.0, *count as f64), planes);
        }
        planes
    }

    /// The four voxels of plane k with their weights, where they are inside.
    #[inline(always)]
    fn taps(&self, k: usize, counts: [usize; 2]) -> impl Iterator<Item = ([usize; 2], f64)> {
        let [a, b] = [0, 1].map(|axis| self.origin[axis] + k as f64 * self.slope[axis]);
        let (i, j) = (a.floor(), b.floor());
        let (f, g) = (a - i, b - j);
        let all = [
            (i, j, (1.0 - f) * (1.0 - g)),
            (i, j + 1.0, (1.0 - f) * g),
            (i + 1.0, j, f * (1.0 - g)),
            (i + 1.0, j + 1.0, f * g),
        ];
        let inside =
            move |(i, j): (f64, f64)| i >= 0.0 && j >= 0.0 && i < counts[0] as f64 && j < counts[1] as f64;
        all.into_iter()
            .filter(move |(i, j, _)| inside((*i, *j)))
            .map(|(i, j, weight)| ([i as usize, j as usize], weight))
    }
}

impl Axis {
    /// Planes, and voxels along the two other axes.
    fn counts(self, grid: &VolumeGrid) -> (usize, [usize; 2]) {
        let (height, width) = (grid.image.height, grid.image.width);
        match self {
            Self::Rows => (height, [width, grid.slices]),
            Self::Columns => (width, [height, grid.slices]),
            Self::Slices => (grid.slices, [height, width]),
        }
    }
}

impl Oblique {
    pub fn new(grid: &VolumeGrid, beam: &VectorBeam, views: Vec<usize>) -> Self {
        let climbs = views.par_iter().any(|view| {
            let climbs = |row, bin| Ray::new(grid, beam, *view, row, bin).axis == Axis::Slices;
            (0..beam.rows).any(|row| (0..beam.bins).any(|bin| climbs(row, bin)))
        });
        Self { views, climbs }
    }

    /// traced[view, bin, row] ← the line integrals of these views through the lines along z [row, column].
    pub fn project<T: Real>(&self, grid: &VolumeGrid, beam: &VectorBeam, lines: &Lines<T>, traced: &mut [T]) {
        let (rows, width) = (beam.rows, grid.image.width);
        let mut all: Vec<Option<&mut [T]>> = traced.chunks_mut(beam.bins * rows).map(Some).collect();
        let work: Vec<(usize, &mut [T])> =
            self.views.iter().filter_map(|view| all[*view].take().map(|out| (*view, out))).collect();
        work.into_par_iter().for_each(|(view, out)| {
            for (index, out) in out.iter_mut().enumerate() {
                let ray = Ray::new(grid, beam, view, index % rows, index / rows);
                let (count, across) = ray.axis.counts(grid);
                let voxel = |k: usize, [a, b]: [usize; 2]| match ray.axis {
                    Axis::Rows => lines.line(k * width + a)[b],
                    Axis::Columns => lines.line(a * width + k)[b],
                    Axis::Slices => lines.line(a * width + b)[k],
                };
                let mut sum = T::zero();
                for k in ray.planes(across, 0..count) {
                    for (at, weight) in ray.taps(k, across) {
                        sum += T::of(weight) * voxel(k, at);
                    }
                }
                *out = sum * T::of(ray.length);
            }
        });
    }

    /// Adds the adjoint of [`Oblique::project`] for y [rows, views, bins].
    pub fn back_project<T: Real>(&self, grid: &VolumeGrid, beam: &VectorBeam, y: &[T], sums: &mut Sums<T>) {
        if self.views.is_empty() {
            return;
        }
        let stride = sums.stride;
        self.scatter(grid, beam, y, Axis::Rows, stride, &mut sums.rows);
        self.scatter(grid, beam, y, Axis::Columns, stride, &mut sums.columns);
        if self.climbs {
            sums.slices = vec![T::zero(); grid.slices * grid.image.height * grid.image.width];
            self.scatter(grid, beam, y, Axis::Slices, grid.image.width, &mut sums.slices);
        }
    }

    /// Adds what the rays along one axis give to `volume` [k, a, b], whose lines along b are `stride` apart. A task
    /// owns its planes and sees the rays in their order, so that the sums don't depend on the number of tasks.
    fn scatter<T: Real>(
        &self,
        grid: &VolumeGrid,
        beam: &VectorBeam,
        y: &[T],
        axis: Axis,
        stride: usize,
        volume: &mut [T],
    ) {
        let (count, across) = axis.counts(grid);
        let plane = across[0] * stride;
        let planes = count.div_ceil(2 * rayon::current_num_threads());
        volume.par_chunks_mut(plane * planes).enumerate().for_each(|(task, volume)| {
            let first = task * planes;
            for view in &self.views {
                for (row, bin) in (0..beam.rows).flat_map(|row| (0..beam.bins).map(move |bin| (row, bin))) {
                    let ray = Ray::new(grid, beam, *view, row, bin);
                    if ray.axis != axis {
                        continue;
                    }
                    let y = y[(row * beam.views() + view) * beam.bins + bin] * T::of(ray.length);
                    for k in ray.planes(across, first..count.min(first + planes)) {
                        let volume = &mut volume[(k - first) * plane..];
                        for ([a, b], weight) in ray.taps(k, across) {
                            volume[a * stride + b] += T::of(weight) * y;
                        }
                    }
                }
            }
        });
    }
}
