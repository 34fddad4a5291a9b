//! Separable footprints: a projector of cone beams that knows the width of voxels and of detector pixels.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::operator::ct::transform::transpose;
use crate::operator::ct::vectors::check_views;
use crate::operator::ct::{ConeBeam, ImageGrid, VolumeGrid};
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch};

/// The cone-beam transform by separable footprints (Long, Fessler and Balter 2010, SF-TR with the amplitude A2): the
/// mean over each detector pixel of the shadow of each voxel, a trapezoid along the rows times a rectangle along the
/// columns.
///
/// Domain [slices, height, width] in 1/mm, range [rows, views, bins]; leading axes are batch. Where voxels project
/// to about a pixel it agrees with [`ConeTransform`](super::ConeTransform), which is faster; where they project to several
/// pixels, or several to one, it leaves no gaps and no aliases. The adjoint uses the very coefficients.
#[derive(Clone, Debug)]
pub struct FootprintTransform {
    grid: VolumeGrid,
    beam: ConeBeam,
    domain: Space,
    range: Space,
    sights: Vec<Sight>,
}

/// Where the source and the detector of a view stand.
#[derive(Clone, Copy, Debug)]
struct Sight {
    sin: f64,
    cos: f64,
    /// Height of the source, mm.
    z: f64,
}

impl FootprintTransform {
    /// The transform of volumes on `grid` along the rays of `beam`, in `F32` or `F64`.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::linalg::LinearOperator;
    /// use wellposed::operator::ct::{ConeBeam, FanBeam, FootprintTransform, ImageGrid, VolumeGrid};
    /// let grid = VolumeGrid::new(9, ImageGrid::new(16, 16, 2.0)?, 2.0)?;
    /// let beam = ConeBeam::new(FanBeam::new(vec![0.0, 1.0], 31, 2.0, 100.0, 50.0)?, 9, 2.0)?;
    /// let transform = FootprintTransform::new(&grid, &beam, DType::F64, &Device::Cpu)?;
    /// let projections = transform.apply(&Tensor::ones((9, 16, 16), DType::F64, &Device::Cpu)?)?;
    /// // The central ray of the first view runs along the columns: 16 pixels of 2 mm.
    /// assert!((projections.get(4)?.get(0)?.get(15)?.to_scalar::<f64>()? - 32.0).abs() < 0.01);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where the grid or the beam is invalid, a source lies inside the volume, or a view misses
    /// it; [`Error::Unsupported`] for a tilted panel.
    pub fn new(grid: &VolumeGrid, beam: &ConeBeam, dtype: DType, device: &Device) -> Result<Self> {
        grid.validate()?;
        beam.validate()?;
        beam.vectors().expect_hits(grid)?;
        if beam.tilt != 0.0 {
            let reason = "footprints are separable on an upright panel only; Joseph's method takes any";
            return Err(Error::Unsupported(format!("a tilt of {} rad: {reason}", beam.tilt)));
        }
        let sight = |(angle, z): (&f64, f64)| Sight { sin: angle.sin(), cos: angle.cos(), z };
        Ok(Self {
            grid: *grid,
            beam: beam.clone(),
            domain: Space::real(&[grid.slices, grid.image.height, grid.image.width], dtype, device),
            range: Space::real(&[beam.rows, beam.views(), beam.fan.bins], dtype, device),
            sights: beam.fan.angles.iter().zip(beam.heights()).map(sight).collect(),
        })
    }

    /// The voxels.
    pub fn grid(&self) -> &VolumeGrid {
        &self.grid
    }

    /// The rays.
    pub fn beam(&self) -> &ConeBeam {
        &self.beam
    }

    /// The transform to these views alone, in this order.
    pub(super) fn part(&self, views: &[usize]) -> Result<Self> {
        check_views(views, self.sights.len())?;
        let mut part = self.clone();
        part.beam.fan.angles = views.iter().map(|view| self.beam.fan.angles[*view]).collect();
        // A helix keeps its heights, which depend on all angles.
        part.sights = views.iter().map(|view| self.sights[*view]).collect();
        part.range = self.range.with_shape(&[self.beam.rows, views.len(), self.beam.fan.bins]);
        Ok(part)
    }

    /// Length of the ray to a pixel over that of its projection on the plane of the slices.
    fn climb(&self, bin: usize, row: usize) -> f64 {
        let (distance, t) = (self.beam.fan.distance(), self.row_edge(row) + self.beam.row_pitch / 2.0);
        let flat = if self.beam.fan.curved { distance } else { distance.hypot(self.beam.fan.position(bin)) };
        flat.hypot(t) / flat
    }

    /// Lower edge of a row on the detector, above the source's height.
    fn row_edge(&self, row: usize) -> f64 {
        (row as f64 - self.beam.rows as f64 / 2.0) * self.beam.row_pitch + self.beam.row_offset
    }

    /// The shadow of the voxels over a pixel of the image.
    fn shadow(&self, sight: &Sight, row: usize, column: usize) -> Shadow {
        let ImageGrid { pixel, .. } = self.grid.image;
        let (fan, (x, y)) = (&self.beam.fan, self.grid.image.center_of(row, column));
        let of = |x: f64, y: f64| {
            let ahead = fan.source_origin - x * sight.sin + y * sight.cos;
            (ahead, x * sight.cos + y * sight.sin)
        };
        let place = |(ahead, aside): (f64, f64)| {
            let tangent = aside / ahead;
            fan.distance() * if fan.curved { tangent.atan() } else { tangent }
        };
        let half = pixel / 2.0;
        let mut corners = [(-half, -half), (half, -half), (-half, half), (half, half)]
            .map(|(dx, dy)| place(of(x + dx, y + dy)));
        corners.sort_unstable_by(f64::total_cmp);
        let (ahead, aside) = of(x, y);
        let square = ahead * ahead + aside * aside;
        // Direction from the source to the voxel, whose chord through a square is the pixel over its larger component.
        let (dx, dy) = (aside * sight.cos - ahead * sight.sin, aside * sight.sin + ahead * sight.cos);
        let chord = pixel * square.sqrt() / dx.abs().max(dy.abs());
        let magnification = fan.distance() / if fan.curved { square.sqrt() } else { ahead };
        let low = (-(self.grid.slices as f64) / 2.0 * self.grid.thickness - sight.z) * magnification;
        let first = (low - self.row_edge(0)) / self.beam.row_pitch;
        let step = self.grid.thickness * magnification / self.beam.row_pitch;
        let edge = fan.position(0) - fan.pitch / 2.0;
        let corners = corners.map(|s| (s - edge) / fan.pitch);
        Shadow { corners, chord, first, step }
    }
}

/// The footprint of a line of voxels along z, in units of detector pixels from the detector's lower edges.
struct Shadow {
    /// Where the trapezoid along the bins begins, is flat, and ends.
    corners: [f64; 4],
    /// Its height, mm.
    chord: f64,
    /// Lower edge of the first slice, and the height of a slice.
    first: f64,
    step: f64,
}

impl Shadow {
    /// The bins that the trapezoid meets, each with the trapezoid's integral over it.
    #[inline(always)]
    fn bins(&self, count: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let bound = |x: f64| x.clamp(0.0, count as f64) as usize;
        let range = bound(self.corners[0].floor())..bound(self.corners[3].ceil());
        range.map(|bin| (bin, self.chord * (self.area(bin as f64 + 1.0) - self.area(bin as f64))))
    }

    /// Integral of the trapezoid of height 1 up to `s`.
    #[inline(always)]
    fn area(&self, s: f64) -> f64 {
        let [a, b, c, d] = self.corners;
        let ramp = |from: f64, to: f64, s: f64| {
            let into = (s - from).clamp(0.0, to - from);
            if to > from { into * into / (2.0 * (to - from)) } else { 0.0 }
        };
        let fall = (s - c).clamp(0.0, d - c);
        ramp(a, b, s) + (s - b).clamp(0.0, c - b) + fall - ramp(c, d, s)
    }

    /// Calls `share(slice, row, height)` for every slice and row that overlap, with the height of the overlap in rows.
    #[inline(always)]
    fn overlaps(&self, slices: usize, rows: usize, mut share: impl FnMut(usize, usize, f64)) {
        let edge = |slice: usize| self.first + slice as f64 * self.step;
        let mut slice = ((-self.first / self.step).floor().max(0.0) as usize).min(slices);
        let mut row = (edge(slice).max(0.0) as usize).min(rows);
        while slice < slices && row < rows {
            let (top, end) = (edge(slice + 1), row as f64 + 1.0);
            let height = top.min(end) - edge(slice).max(row as f64);
            if height > 0.0 {
                share(slice, row, height);
            }
            if top <= end { slice += 1 } else { row += 1 }
        }
    }
}

impl LinearOperator for FootprintTransform {
    fn domain(&self) -> &Space {
        &self.domain
    }

    fn range(&self) -> &Space {
        &self.range
    }

    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(Forward(self), &[x], &mut [out])
    }

    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(Back(self), &[y], &mut [out])
    }
}

struct Forward<'a>(&'a FootprintTransform);

impl Kernel for Forward<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let a = self.0;
        let (slices, rows, bins) = (a.grid.slices, a.beam.rows, a.beam.fan.bins);
        let (voxels, rays, width) = (a.domain.elements(), a.range.elements(), a.grid.image.width);
        // Lines along z, and projections in the order [view, bin, row].
        let (mut lines, mut traced) = (vec![T::zero(); voxels], vec![T::zero(); rays]);
        for (x, out) in inputs[0].chunks(voxels).zip(outputs[0].chunks_mut(rays)) {
            transpose(x, slices, voxels / slices, slices, &mut lines);
            traced.par_chunks_mut(bins * rows).zip(&a.sights).for_each(|(out, sight)| {
                out.fill(T::zero());
                let mut column = vec![T::zero(); rows];
                for (pixel, line) in lines.chunks(slices).enumerate() {
                    let shadow = a.shadow(sight, pixel / width, pixel % width);
                    column.fill(T::zero());
                    shadow.overlaps(slices, rows, |slice, row, height| {
                        column[row] += T::of(height) * line[slice];
                    });
                    for (bin, weight) in shadow.bins(bins) {
                        let weight = T::of(weight);
                        let to = out[bin * rows..].iter_mut().zip(&column);
                        to.for_each(|(to, from)| *to += weight * *from);
                    }
                }
                for (at, out) in out.iter_mut().enumerate() {
                    *out *= T::of(a.climb(at / rows, at % rows));
                }
            });
            transpose(&traced, a.sights.len() * bins, rows, rays / rows, out);
        }
        Ok(())
    }
}

struct Back<'a>(&'a FootprintTransform);

impl Kernel for Back<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let a = self.0;
        let (slices, rows, bins) = (a.grid.slices, a.beam.rows, a.beam.fan.bins);
        let (voxels, rays, width) = (a.domain.elements(), a.range.elements(), a.grid.image.width);
        let (mut lines, mut traced) = (vec![T::zero(); voxels], vec![T::zero(); rays]);
        for (y, out) in inputs[0].chunks(rays).zip(outputs[0].chunks_mut(voxels)) {
            transpose(y, rows, rays / rows, rows, &mut traced);
            traced.par_chunks_mut(rows).enumerate().for_each(|(line, ray)| {
                for (row, ray) in ray.iter_mut().enumerate() {
                    *ray *= T::of(a.climb(line % bins, row));
                }
            });
            lines.par_chunks_mut(slices * width).enumerate().for_each(|(row, lines)| {
                lines.fill(T::zero());
                let mut column = vec![T::zero(); rows];
                for (sight, traced) in a.sights.iter().zip(traced.chunks(bins * rows)) {
                    for (at, line) in lines.chunks_mut(slices).enumerate() {
                        let shadow = a.shadow(sight, row, at);
                        column.fill(T::zero());
                        for (bin, weight) in shadow.bins(bins) {
                            let weight = T::of(weight);
                            let from = column.iter_mut().zip(&traced[bin * rows..]);
                            from.for_each(|(to, from)| *to += weight * *from);
                        }
                        shadow.overlaps(slices, rows, |slice, row, height| {
                            line[slice] += T::of(height) * column[row];
                        });
                    }
                }
            });
            transpose(&lines, voxels / slices, slices, voxels / slices, out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;
    use crate::metric::psnr;
    use crate::operator::ct::{ConeTransform, FanBeam, Projector, VectorBeam};
    use crate::phantom::{Contrast, Ellipse, Ellipsoid, Ellipsoids, shepp_logan_3d};
    use crate::reconstruct::OsSart;
    use crate::testing::{check_operator, relative_difference};

    fn beams() -> Vec<(VolumeGrid, ConeBeam)> {
        let grid = |slices, height, width, thickness| {
            VolumeGrid::new(slices, ImageGrid::new(height, width, 1.0).unwrap(), thickness).unwrap()
        };
        let angles: Vec<f64> = (0..7).map(|i| TAU * f64::from(i) / 7.0).collect();
        let fan = |bins, pitch| FanBeam::new(angles.clone(), bins, pitch, 40.0, 30.0).unwrap();
        let cone = |bins, pitch, rows, row_pitch| ConeBeam::new(fan(bins, pitch), rows, row_pitch).unwrap();
        vec![
            (grid(9, 14, 17, 1.0), cone(21, 2.2, 11, 2.0)),
            (grid(9, 17, 14, 1.3), ConeBeam { row_offset: 3.0, feed: 9.0, ..cone(21, 2.2, 11, 2.0) }),
            // Pixels much smaller than voxels, much larger, and a detector that sees a part.
            (grid(5, 8, 8, 2.0), cone(90, 0.4, 60, 0.4)),
            (grid(20, 16, 16, 0.5), cone(6, 9.0, 3, 8.0)),
            (
                grid(9, 14, 14, 1.0),
                ConeBeam { fan: fan(9, 1.5).curved().with_offset(4.0), ..cone(9, 1.5, 4, 1.0) },
            ),
            (grid(1, 1, 1, 1.0), cone(1, 1.0, 1, 1.0)),
        ]
    }

    #[test]
    fn adjoint_is_exact() {
        for (grid, beam) in beams() {
            for dtype in [DType::F32, DType::F64] {
                check_operator(&FootprintTransform::new(&grid, &beam, dtype, &Device::Cpu).unwrap()).unwrap();
            }
        }
    }

    /// Length of a ray in a box.
    fn chord(source: [f64; 3], pixel: [f64; 3], middle: [f64; 3], half: [f64; 3]) -> f64 {
        let d: [f64; 3] = std::array::from_fn(|a| pixel[a] - source[a]);
        let (mut near, mut far) = (0.0f64, f64::INFINITY);
        for a in 0..3 {
            let t = [-half[a], half[a]].map(|h| (middle[a] + h - source[a]) / d[a]);
            near = near.max(t[0].min(t[1]));
            far = far.min(t[0].max(t[1]));
        }
        (far - near).max(0.0) * d.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// Means over the detector's pixels of exact chords through one voxel.
    fn exact(grid: &VolumeGrid, rays: &VectorBeam, voxel: [usize; 3]) -> Vec<f64> {
        const FINE: usize = 24;
        let (x, y) = grid.image.center_of(voxel[1], voxel[2]);
        let half = [grid.image.pixel / 2.0, grid.image.pixel / 2.0, grid.thickness / 2.0];
        let middle = [x, y, grid.z_of(voxel[0])];
        let part = |k: usize| (k as f64 + 0.5) / FINE as f64 - 0.5;
        let mut out = Vec::new();
        for (row, view, bin) in (0..rays.rows)
            .flat_map(|r| (0..rays.views()).flat_map(move |v| (0..rays.bins).map(move |b| (r, v, b))))
        {
            let sum: f64 = (0..FINE * FINE)
                .map(|k| {
                    let place = rays.place(view, row as f64 + part(k / FINE), bin as f64 + part(k % FINE));
                    chord(rays.poses[view].source, place, middle, half)
                })
                .sum();
            out.push(sum / (FINE * FINE) as f64);
        }
        out
    }

    #[test]
    fn a_voxel_casts_the_mean_of_its_chords() {
        // Far from the source, so that the footprint is nearly separable.
        let grid = VolumeGrid::new(3, ImageGrid::new(4, 4, 2.0).unwrap(), 3.0).unwrap();
        let angles: Vec<f64> = (0..9).map(|i| TAU * f64::from(i) / 9.0 + 0.1).collect();
        for (bins, pitch, rows, row_pitch) in [(20, 1.1, 20, 1.3), (7, 4.0, 5, 5.0), (40, 0.5, 40, 0.6)] {
            let fan = FanBeam::new(angles.clone(), bins, pitch, 200.0, 100.0).unwrap();
            for fan in [fan.clone(), fan.curved()] {
                let beam = ConeBeam { row_offset: 0.4, ..ConeBeam::new(fan, rows, row_pitch).unwrap() };
                let transform = FootprintTransform::new(&grid, &beam, DType::F64, &Device::Cpu).unwrap();
                for voxel in [[0, 0, 0], [1, 2, 3], [2, 3, 1]] {
                    let mut x = vec![0.0; 48];
                    x[(voxel[0] * 4 + voxel[1]) * 4 + voxel[2]] = 1.0;
                    let x = Tensor::from_vec(x, (3, 4, 4), &Device::Cpu).unwrap();
                    let exact = exact(&grid, &beam.vectors(), voxel);
                    let exact = Tensor::from_vec(exact, transform.range().shape(), &Device::Cpu).unwrap();
                    let error = relative_difference(&transform.apply(&x).unwrap(), &exact).unwrap();
                    assert!(error < 0.02, "{bins} bins, voxel {voxel:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn projections_of_an_ellipsoid_meet_the_closed_form() {
        let grid = VolumeGrid::new(128, ImageGrid::new(192, 192, 0.5).unwrap(), 0.75).unwrap();
        let egg = Ellipsoid {
            middle: Ellipse { value: 0.02, center: (4.0, -6.0), axes: (41.0, 30.0), angle: 0.5 },
            z: 3.0,
            height: 42.0,
        };
        let fan = FanBeam::covering(&grid.image, 2, 2.0, 300.0, 200.0).unwrap();
        let beam = ConeBeam::new(fan, 141, 1.25).unwrap();
        let bodies = Ellipsoids(vec![egg]);
        let volume = bodies.volume::<f32>(&grid, 4).unwrap();
        let exact = bodies.trace::<f32>(&beam.vectors(), 3).unwrap();
        let footprint = FootprintTransform::new(&grid, &beam, DType::F32, &Device::Cpu).unwrap();
        let joseph = ConeTransform::new(&grid, &beam.vectors(), DType::F32, &Device::Cpu).unwrap();
        let error = |a: &dyn LinearOperator| relative_difference(&a.apply(&volume).unwrap(), &exact).unwrap();
        let errors = [error(&footprint), error(&joseph)];
        println!("relative errors of footprints and of Joseph's method: {errors:.5?}");
        assert!(errors[0] < 0.005, "{errors:?}");
    }

    /// PSNR of OS-SART from exact means over the detector's pixels, by footprints and by Joseph's method, where a voxel
    /// projects to `finer` pixels.
    fn reconstructed(size: usize, finer: f64) -> [f64; 2] {
        let side = 128.0 / size as f64;
        let grid = VolumeGrid::new(size, ImageGrid::new(size, size, side).unwrap(), side).unwrap();
        let pitch = 2.0 * side / finer;
        let bins = (1.6 * size as f64 * finer) as usize;
        let angles = (0..90).map(|i| TAU * f64::from(i) / 90.0).collect();
        let beam =
            ConeBeam::new(FanBeam::new(angles, bins, pitch, 300.0, 300.0).unwrap(), bins, pitch).unwrap();
        let head = Ellipsoids(shepp_logan_3d(Contrast::Modified, 60.0));
        let (data, truth) =
            (head.trace::<f32>(&beam.vectors(), 3).unwrap(), head.volume::<f32>(&grid, 4).unwrap());
        let quality = |a: &dyn Projector| {
            let start = std::time::Instant::now();
            let sart = OsSart { max_iterations: 10, ..OsSart::default() };
            let found = sart.solve(a, &data, None, &mut ()).unwrap().value;
            println!("{size}³, {finer} pixels a voxel: {:.1} s", start.elapsed().as_secs_f64());
            psnr(&found, &truth, 1.0).unwrap()
        };
        let footprint = FootprintTransform::new(&grid, &beam, DType::F32, &Device::Cpu).unwrap();
        let joseph = ConeTransform::new(&grid, &beam.vectors(), DType::F32, &Device::Cpu).unwrap();
        [quality(&footprint), quality(&joseph)]
    }

    #[test]
    fn footprints_gain_where_pixels_and_voxels_differ() {
        let found = [1.0, 0.5].map(|finer| reconstructed(24, finer));
        println!("footprints against Joseph's method: {found:.2?} dB");
        assert!(found[0][0] > found[0][1] - 0.5, "{found:?}");
        assert!(found[1][0] > found[1][1], "{found:?}");
    }

    #[test]
    fn tilted_panels_are_refused() {
        let (grid, beam) = beams().remove(0);
        let tilted = ConeBeam { tilt: 0.1, ..beam };
        let refused = FootprintTransform::new(&grid, &tilted, DType::F32, &Device::Cpu).unwrap_err();
        assert!(refused.to_string().contains("upright"), "{refused}");
    }
}
