//! Back projection along divergent rays as filtered back projection wants it: in every voxel the data at the place
//! where it projects, interpolated linearly, over the square of its distance from the source.

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::operator::ct::joseph::{BLOCK, Lines, NARROW, REGISTERS, WIDEST, positions, spill};
use crate::operator::ct::transform::transpose;
use crate::operator::ct::upright::Upright;
use crate::operator::ct::{ConeBeam, FanBeam, ImageGrid, VolumeGrid};
use crate::tensor::device::{Gpu, Program, arguments};
use crate::tensor::simd::{Lanes, Task, dispatch};
use crate::tensor::{Kernel, Real, Space, launch};

static PROGRAM: Program = Program { name: "distance weighted", source: include_str!("distance_weighted.cu") };

/// Where the pixels of a slice project in one view.
struct Sight {
    sin: f64,
    cos: f64,
    /// Source to origin and to the detector, mm.
    source: f64,
    distance: f64,
    /// Bin = place/pitch + shift.
    pitch: f64,
    shift: f64,
    curved: bool,
}

/// Bin of a pixel, not whole; detector over source distance of the pixel; 1/L².
struct Seen {
    bin: f64,
    magnification: f64,
    weight: f64,
}

impl Sight {
    fn all(beam: &FanBeam) -> Vec<Self> {
        let sight = |angle: &f64| {
            let ((sin, cos), distance) = (angle.sin_cos(), beam.distance());
            let pitch = if beam.curved { beam.pitch / distance } else { beam.pitch };
            let shift = (beam.bins as f64 - 1.0) / 2.0 - beam.offset / beam.pitch;
            Self { sin, cos, source: beam.source_origin, distance, pitch, shift, curved: beam.curved }
        };
        beam.angles.iter().map(sight).collect()
    }

    /// All of it, and the sizes of the image, for a device.
    fn tables(beam: &FanBeam, grid: &ImageGrid) -> [Vec<f64>; 2] {
        let sights = Self::all(beam);
        let common = sights.first().map_or(Vec::new(), |s| {
            vec![s.source, s.distance, s.pitch, s.shift, if s.curved { 1.0 } else { 0.0 }]
        });
        let sizes = [grid.height as f64, grid.width as f64, beam.bins as f64, grid.pixel];
        let turns = sights.iter().flat_map(|s| [s.sin, s.cos]).collect();
        [turns, [&sizes[..], &common].concat()]
    }

    /// L is the pixel's distance from the source along the central ray, for a curved detector along the pixel's own.
    #[inline(always)]
    fn of(&self, x: f64, y: f64) -> Seen {
        let ahead = self.source - x * self.sin + y * self.cos;
        let aside = x * self.cos + y * self.sin;
        if self.curved {
            let square = ahead * ahead + aside * aside;
            let bin = aside.atan2(ahead) / self.pitch + self.shift;
            return Seen { bin, magnification: self.distance / square.sqrt(), weight: 1.0 / square };
        }
        let magnification = self.distance / ahead;
        let bin = aside * magnification / self.pitch + self.shift;
        Seen { bin, magnification, weight: 1.0 / (ahead * ahead) }
    }
}

/// Σ_β q_β(bin(x))/L² [batch…, height, width] from filtered data q [batch…, views, bins].
///
/// # Errors
/// A shape error where `q` isn't that.
pub(crate) fn back_project_fan(grid: &ImageGrid, beam: &FanBeam, q: &Tensor) -> Result<Tensor> {
    let range = Space::real(&[beam.views(), beam.bins], q.dtype(), q.device());
    let batch = range.check("filtered projections", q)?;
    let mut out = range.with_shape(&[grid.height, grid.width]).buffer(batch)?;
    launch(Fan { grid, beam }, &[q], &mut [&mut out])?;
    Ok(out.freeze())
}

struct Fan<'a> {
    grid: &'a ImageGrid,
    beam: &'a FanBeam,
}

impl Kernel for Fan<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Self { grid, beam } = self;
        let (sights, bins) = (Sight::all(beam), beam.bins);
        let items =
            inputs[0].chunks(beam.views() * bins).zip(outputs[0].chunks_mut(grid.height * grid.width));
        for (q, out) in items {
            out.par_chunks_mut(grid.width).enumerate().for_each(|(row, out)| {
                out.fill(T::zero());
                for (sight, q) in sights.iter().zip(q.chunks(bins)) {
                    for (column, out) in out.iter_mut().enumerate() {
                        let (x, y) = grid.center_of(row, column);
                        let Seen { bin, weight, .. } = sight.of(x, y);
                        let i = bin.floor();
                        if i < 0.0 || i + 1.0 >= bins as f64 {
                            continue;
                        }
                        let (f, at) = (T::of(bin - i), i as usize);
                        *out += T::of(weight) * (q[at] + f * (q[at + 1] - q[at]));
                    }
                }
            });
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let run = || {
            let [sights, sizes] = Sight::tables(self.beam, self.grid);
            let (sights, sizes, n) = (gpu.upload(&sights)?, gpu.upload(&sizes)?, gpu.output_len(0));
            let arrays = arguments![gpu.input(0), gpu.output(0), sights, sizes, n, self.beam.views()];
            gpu.run(&PROGRAM, "fan", n, arrays)
        };
        Some(run())
    }
}

/// As [`back_project_fan`] for a panel: some slices of `grid`, [batch…, slices, height, width], from q
/// [batch…, rows, views, bins].
///
/// # Errors
/// A shape error where `q` isn't that; [`Error::Unsupported`] for a tilted panel or a helix.
pub(crate) fn back_project_cone(
    grid: &VolumeGrid,
    slices: Range<usize>,
    beam: &ConeBeam,
    q: &Tensor,
) -> Result<Tensor> {
    if beam.tilt != 0.0 || beam.feed != 0.0 {
        let found = format!("a tilt of {} rad and a feed of {} mm", beam.tilt, beam.feed);
        let reason = "filtered back projection needs a circle and an upright panel; iterative methods don't";
        return Err(Error::Unsupported(format!("{found}: {reason}")));
    }
    let range = Space::real(&[beam.rows, beam.views(), beam.fan.bins], q.dtype(), q.device());
    let batch = range.check("filtered projections", q)?;
    let mut out = range.with_shape(&[slices.len(), grid.image.height, grid.image.width]).buffer(batch)?;
    launch(Cone { grid, slices, beam }, &[q], &mut [&mut out])?;
    Ok(out.freeze())
}

struct Cone<'a> {
    grid: &'a VolumeGrid,
    slices: Range<usize>,
    beam: &'a ConeBeam,
}

impl Kernel for Cone<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Self { grid, slices, beam } = self;
        let (first, slices) = (slices.start, slices.len());
        let (lines, plane) = (beam.views() * beam.fan.bins, grid.image.height * grid.image.width);
        let sights = Sight::all(&beam.fan);
        let mut rays = Lines::zeros(lines, beam.rows, Upright::PADDING);
        let mut voxels = vec![T::zero(); plane * slices];
        for (q, out) in inputs[0].chunks(lines * beam.rows).zip(outputs[0].chunks_mut(plane * slices)) {
            let stride = rays.stride();
            transpose(q, beam.rows, lines, stride, &mut rays.writable()[..lines * stride]);
            let width = grid.image.width;
            voxels.par_chunks_mut(slices * width).enumerate().for_each(|(row, voxels)| {
                for (column, line) in voxels.chunks_mut(slices).enumerate() {
                    let place = grid.image.center_of(row, column);
                    dispatch(Gather { grid, first, beam, sights: &sights, rays: &rays, place, line });
                }
            });
            transpose(&voxels, plane, slices, plane, out);
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let Self { grid, slices, beam } = self;
        let run = || {
            let [sights, sizes] = Sight::tables(&beam.fan, &grid.image);
            let (sights, sizes, n) = (gpu.upload(&sights)?, gpu.upload(&sizes)?, gpu.output_len(0));
            let from_middle = slices.start as f64 - (grid.slices as f64 - 1.0) / 2.0;
            let per_slice = grid.thickness / beam.row_pitch;
            let arrays = arguments![gpu.input(0), gpu.output(0), sights, sizes, n, beam.views(), beam.rows];
            let rest = arguments![slices.len(), from_middle, per_slice, middle_row(beam)];
            gpu.run(&PROGRAM, "cone", n, &[arrays, rest].concat())
        };
        Some(run())
    }
}

/// The row of height 0, not whole.
fn middle_row(beam: &ConeBeam) -> f64 {
    (beam.rows as f64 - 1.0) / 2.0 - beam.row_offset / beam.row_pitch
}

/// One line of voxels along z: they project on a line along the detector's columns at equal distances.
struct Gather<'a, T> {
    grid: &'a VolumeGrid,
    /// Slice of the first voxel of the line.
    first: usize,
    beam: &'a ConeBeam,
    sights: &'a [Sight],
    /// [view, bin], each line along the rows.
    rays: &'a Lines<T>,
    place: (f64, f64),
    line: &'a mut [T],
}

impl<T: Real> Gather<'_, T> {
    /// The left one of the two detector columns, where between them, row of the first slice, rows a slice, weight.
    #[inline(always)]
    fn seen(&self, view: usize) -> Option<(usize, f64, f64, f64, f64)> {
        let Seen { bin, magnification, weight } = self.sights[view].of(self.place.0, self.place.1);
        let left = bin.floor();
        if left < 0.0 || left + 1.0 >= self.beam.fan.bins as f64 {
            return None;
        }
        let step = self.grid.thickness * magnification / self.beam.row_pitch;
        let start =
            middle_row(self.beam) + (self.first as f64 - (self.grid.slices as f64 - 1.0) / 2.0) * step;
        Some((view * self.beam.fan.bins + left as usize, bin - left, start, step, weight))
    }

    /// For slices so far apart that neighbours share no rows.
    fn one_by_one(self) {
        self.line.fill(T::zero());
        for view in 0..self.sights.len() {
            let Some((index, f, start, step, weight)) = self.seen(view) else { continue };
            let (a, b) = (self.rays.line(index), self.rays.line(index + 1));
            for (slice, out) in self.line.iter_mut().enumerate() {
                let v = start + slice as f64 * step;
                let (i, rows) = (v.floor(), a.len() as f64);
                if i < -1.0 || i >= rows {
                    continue;
                }
                let at =
                    |line: &[T], i: f64| if i < 0.0 || i >= rows { 0.0 } else { line[i as usize].as_f64() };
                let mixed = |line| at(line, i) + (v - i) * (at(line, i + 1.0) - at(line, i));
                *out += T::of(weight * (mixed(a) + f * (mixed(b) - mixed(a))));
            }
        }
    }
}

impl<T: Real> Task<T> for Gather<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<L: Lanes<Scalar = T>>(self) {
        let closest = (0..self.sights.len()).filter_map(|view| self.seen(view)).map(|seen| seen.3);
        if closest.fold(0.0, f64::max) > NARROW {
            return self.one_by_one();
        }
        let (rows, pad, part) = (self.rays.length as f64, self.rays.pad() as f64, REGISTERS * L::COUNT);
        for first in (0..self.line.len()).step_by(part) {
            // SAFETY: a register is read only where it begins within its span before the line or on it, and a
            // register spans less than two, which the padding covers.
            unsafe {
                let iota = L::load(std::array::from_fn::<T, WIDEST, _>(|l| T::of(l as f64)).as_ptr());
                let mut sums = [L::splat(T::zero()); REGISTERS];
                for view in 0..self.sights.len() {
                    let Some((index, f, start, step, weight)) = self.seen(view) else { continue };
                    let (near, far) = (self.rays.before(index), self.rays.before(index + 1));
                    let (f, weight) = (L::splat(T::of(f)), L::splat(T::of(weight)));
                    let (v, span) = (start + first as f64 * step, (L::COUNT - 1) as f64 * step);
                    let ramp = L::mul(iota, L::splat(T::of(step)));
                    for (b, sum) in sums.iter_mut().enumerate() {
                        let v = v + (b * L::COUNT) as f64 * step;
                        if v >= rows || v + span <= -1.0 {
                            continue;
                        }
                        let (whole, below, g) = positions::<L>(v + pad, ramp);
                        let (a, b) = L::pairs(near.add(whole), below);
                        let near = L::mul_add(g, L::sub(b, a), a);
                        let (a, b) = L::pairs(far.add(whole), below);
                        let far = L::mul_add(g, L::sub(b, a), a);
                        *sum = L::mul_add(weight, L::mul_add(f, L::sub(far, near), near), *sum);
                    }
                }
                let out = &mut self.line[first..];
                let count = out.len().min(part);
                spill::<L>(&sums, 1.0, &mut out[..count]);
            }
        }
    }
}

const _: () = assert!(BLOCK == REGISTERS * WIDEST, "a block holds all registers");
