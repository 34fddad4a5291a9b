//! The ray transform of a volume along divergent rays.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::operator::ct::device::{Way, cone};
use crate::operator::ct::joseph::Lines;
use crate::operator::ct::oblique::Oblique;
use crate::operator::ct::transform::transpose;
use crate::operator::ct::upright::Upright;
use crate::operator::ct::{VectorBeam, VolumeGrid};
use crate::tensor::device::{Gpu, Table};
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch};

/// The cone-beam ray transform (A μ)(row, view, bin) = ∫ μ dl by bilinear interpolation in the planes that a ray
/// crosses (Joseph 1982), for sources and detectors anywhere.
///
/// Domain [slices, height, width] in 1/mm, range [rows, views, bins]; leading axes are batch. The adjoint uses the
/// very coefficients of the transform. Views whose detector columns run along z (circles, helices, offsets,
/// curved rows) are vectorised along z; tilted panels and free vectors are traced ray by ray, about ten times slower.
/// Memory: two more copies of the volume and one of the projections while it works.
#[derive(Clone, Debug)]
pub struct ConeTransform {
    grid: VolumeGrid,
    beam: VectorBeam,
    domain: Space,
    range: Space,
    upright: Upright,
    oblique: Oblique,
    /// The views, for a device.
    table: Table,
}

impl ConeTransform {
    /// The transform of volumes on `grid` along the rays of `beam`, in `F32` or `F64`.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::linalg::LinearOperator;
    /// use wellposed::operator::ct::{ConeBeam, ConeTransform, FanBeam, ImageGrid, VolumeGrid};
    /// let grid = VolumeGrid::new(8, ImageGrid::new(16, 16, 2.0)?, 2.0)?;
    /// let beam = ConeBeam::new(FanBeam::new(vec![0.0, 1.0], 31, 2.0, 100.0, 50.0)?, 9, 2.0)?;
    /// let transform = ConeTransform::new(&grid, &beam.vectors(), DType::F64, &Device::Cpu)?;
    /// let projections = transform.apply(&Tensor::ones((8, 16, 16), DType::F64, &Device::Cpu)?)?;
    /// // The central ray of the first view runs along the columns: 16 pixels of 2 mm.
    /// assert_eq!(projections.get(4)?.get(0)?.get(15)?.to_scalar::<f64>()?, 32.0);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::error::Error::Parameter`] where the grid or the beam is invalid, a source lies inside the volume, or a
    /// view misses it.
    pub fn new(grid: &VolumeGrid, beam: &VectorBeam, dtype: DType, device: &Device) -> Result<Self> {
        grid.validate()?;
        beam.validate()?;
        beam.expect_hits(grid)?;
        let (upright, others) = Upright::split(grid, beam);
        Ok(Self {
            grid: *grid,
            beam: beam.clone(),
            domain: Space::real(&[grid.slices, grid.image.height, grid.image.width], dtype, device),
            range: Space::real(&[beam.rows, beam.views(), beam.bins], dtype, device),
            upright,
            oblique: Oblique::new(grid, beam, others),
            table: Table::default(),
        })
    }

    /// The voxels.
    pub fn grid(&self) -> &VolumeGrid {
        &self.grid
    }

    /// The rays.
    pub fn beam(&self) -> &VectorBeam {
        &self.beam
    }
}

impl LinearOperator for ConeTransform {
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

struct Forward<'a>(&'a ConeTransform);

impl Kernel for Forward<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let a = self.0;
        let (voxels, rays) = (a.domain.elements(), a.range.elements());
        let plane = voxels / a.grid.slices;
        // One line along z for each pixel of a slice, and one of zeros for what lies beside the volume.
        let mut lines = Lines::zeros(plane + 1, a.grid.slices, Upright::PADDING);
        // [view, bin, row], the order in which the rays are traced.
        let mut traced = vec![T::zero(); rays];
        for (x, out) in inputs[0].chunks(voxels).zip(outputs[0].chunks_mut(rays)) {
            let stride = lines.stride();
            transpose(x, a.grid.slices, plane, stride, &mut lines.writable()[..plane * stride]);
            a.upright.project(&a.grid, &a.beam, &lines, &mut traced);
            a.oblique.project(&a.grid, &a.beam, &lines, &mut traced);
            transpose(&traced, a.beam.views() * a.beam.bins, a.beam.rows, rays / a.beam.rows, out);
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        Some(cone(gpu, Way::Forward, &self.0.grid, &self.0.beam, &self.0.table))
    }
}

struct Back<'a>(&'a ConeTransform);

impl Kernel for Back<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let a = self.0;
        let (voxels, rays) = (a.domain.elements(), a.range.elements());
        for (y, out) in inputs[0].chunks(rays).zip(outputs[0].chunks_mut(voxels)) {
            let mut sums = Sums::zeros(&a.grid);
            a.upright.back_project(&a.grid, &a.beam, y, &mut sums);
            a.oblique.back_project(&a.grid, &a.beam, y, &mut sums);
            sums.write(&a.grid, out);
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        Some(cone(gpu, Way::Back, &self.0.grid, &self.0.beam, &self.0.table))
    }
}

/// Volumes in the three orders in which planes of voxels are contiguous, so that a task can own some planes; their sum
/// is the back projection.
pub(super) struct Sums<T> {
    /// [row, column, slice], each line along z `stride` long.
    pub rows: Vec<T>,
    /// [column, row, slice], likewise.
    pub columns: Vec<T>,
    /// [slice, row, column]; empty where no ray runs along z.
    pub slices: Vec<T>,
    /// Slices, rounded up so that a register can be stored at the end of a line.
    pub stride: usize,
}

impl<T: Real> Sums<T> {
    fn zeros(grid: &VolumeGrid) -> Self {
        let stride = grid.slices.next_multiple_of(super::joseph::WIDEST);
        let lines = || vec![T::zero(); grid.image.height * grid.image.width * stride];
        Self { rows: lines(), columns: lines(), slices: Vec::new(), stride }
    }

    fn write(&self, grid: &VolumeGrid, out: &mut [T]) {
        let (height, width, stride) = (grid.image.height, grid.image.width, self.stride);
        out.par_chunks_mut(width).enumerate().for_each(|(line, out)| {
            let (slice, row) = (line / height, line % height);
            for (column, out) in out.iter_mut().enumerate() {
                let (by_row, by_column) = (row * width + column, column * height + row);
                *out = self.rows[by_row * stride + slice] + self.columns[by_column * stride + slice];
            }
            if !self.slices.is_empty() {
                out.iter_mut().zip(&self.slices[line * width..]).for_each(|(out, s)| *out += *s);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{PI, TAU};

    use super::*;
    use crate::operator::ct::{ConeBeam, FanBeam, ImageGrid, Pose};
    use crate::phantom::{Contrast, Ellipse, Ellipsoid, Ellipsoids, shepp_logan_3d};
    use crate::tensor::random::{Noise, standard_normal};
    use crate::testing::{check_operator, relative_difference};

    fn even(views: usize, arc: f64) -> Vec<f64> {
        (0..views).map(|i| arc * i as f64 / views as f64).collect()
    }

    fn grid(slices: usize, height: usize, width: usize, thickness: f64) -> VolumeGrid {
        VolumeGrid::new(slices, ImageGrid::new(height, width, 1.0).unwrap(), thickness).unwrap()
    }

    fn fan(angles: Vec<f64>, bins: usize, pitch: f64) -> FanBeam {
        FanBeam::new(angles, bins, pitch, 40.0, 30.0).unwrap()
    }

    fn beams() -> Vec<(VolumeGrid, VectorBeam)> {
        let circle = ConeBeam::new(fan(even(7, TAU), 21, 2.2), 11, 2.0).unwrap();
        let fine = ConeBeam::new(fan(even(3, TAU), 9, 1.5), 90, 0.5).unwrap();
        let helix = ConeBeam::new(fan(even(16, 3.0 * TAU), 15, 2.5), 6, 2.5).unwrap();
        let free = |k: usize| {
            let (k, turn) = (k as f64, 0.8 * k as f64);
            let at = |r: f64, z: f64| [r * turn.cos() - 1.0, r * turn.sin() + 0.5, z];
            let (sin, cos) = (turn + 0.1).sin_cos();
            Pose {
                source: at(35.0 + k, 4.0 * k - 8.0),
                detector: at(-30.0, 3.0 - k),
                u: [-1.4 * sin, 1.4 * cos, 0.2],
                v: [0.2 * cos, 0.1, 1.5],
            }
        };
        // From above: the rays run along z.
        let above = Pose {
            source: [1.0, 2.0, 60.0],
            detector: [0.0, 0.0, -30.0],
            u: [1.9, 0.3, 0.0],
            v: [-0.3, 1.9, 0.0],
        };
        let poses = (0..5).map(free).chain([above]).collect();
        vec![
            (grid(9, 14, 17, 1.0), circle.vectors()),
            (
                grid(9, 17, 14, 1.3),
                ConeBeam { row_offset: 3.0, fan: circle.fan.clone().with_offset(-6.0), ..circle.clone() }
                    .vectors(),
            ),
            (grid(9, 14, 14, 1.0), ConeBeam { tilt: 0.2, ..circle.clone() }.vectors()),
            (
                grid(70, 8, 9, 1.0),
                ConeBeam { fan: circle.fan.clone().curved(), rows: 50, row_pitch: 1.8, ..circle.clone() }
                    .vectors(),
            ),
            (grid(40, 8, 8, 1.0), fine.vectors()),
            (
                grid(5, 12, 12, 6.0),
                ConeBeam { fan: fan(even(5, PI + 0.8), 20, 1.5), ..circle.clone() }.vectors(),
            ),
            // Steeper than a slice a line, and rows far apart.
            (grid(40, 10, 10, 0.2), circle.vectors()),
            (grid(30, 12, 12, 1.0), ConeBeam { feed: 9.0, ..helix }.vectors()),
            (grid(11, 12, 13, 1.0), VectorBeam::new(poses, 10, 12).unwrap()),
            (grid(1, 1, 1, 1.0), ConeBeam::new(fan(vec![0.1], 1, 1.0), 1, 1.0).unwrap().vectors()),
        ]
    }

    #[test]
    fn adjoint_is_exact_for_every_geometry() {
        for (grid, beam) in beams() {
            for dtype in [DType::F32, DType::F64] {
                check_operator(&ConeTransform::new(&grid, &beam, dtype, &Device::Cpu).unwrap()).unwrap();
            }
        }
    }

    /// The definition, ray by ray and plane by plane, in mm. Rays that `upright` views trace follow an axis of the
    /// slices even where z is steeper in mm; none of these is.
    fn reference(grid: &VolumeGrid, beam: &VectorBeam, x: &[f64]) -> Vec<f64> {
        let (height, width) = (grid.image.height, grid.image.width);
        let counts = [width, height, grid.slices];
        let (left, top) = grid.image.center_of(0, 0);
        let (first, steps) = ([left, top, grid.z_of(0)], [1.0, -1.0, grid.thickness]);
        let at = |i: [i64; 3]| {
            let inside = (0..3).all(|a| i[a] >= 0 && i[a] < counts[a] as i64);
            if inside { x[(i[2] as usize * height + i[1] as usize) * width + i[0] as usize] } else { 0.0 }
        };
        let mut out = Vec::new();
        for (row, view, bin) in (0..beam.rows)
            .flat_map(|r| (0..beam.views()).flat_map(move |v| (0..beam.bins).map(move |b| (r, v, b))))
        {
            let (s, p) = (beam.poses[view].source, beam.pixel(view, row, bin));
            let start: [f64; 3] = std::array::from_fn(|a| (s[a] - first[a]) / steps[a]);
            let d: [f64; 3] = std::array::from_fn(|a| (p[a] - s[a]) / steps[a]);
            let main = if d[2].abs() > d[0].abs().max(d[1].abs()) {
                2
            } else {
                usize::from(d[1].abs() >= d[0].abs())
            };
            let (a, b) = ((main + 1) % 3, (main + 2) % 3);
            let mut sum = 0.0;
            for k in 0..counts[main] {
                let t = (k as f64 - start[main]) / d[main];
                let (ya, yb) = (start[a] + t * d[a], start[b] + t * d[b]);
                let (i, j) = (ya.floor(), yb.floor());
                for (di, dj) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
                    let mut index = [0i64; 3];
                    (index[main], index[a], index[b]) = (k as i64, (i + di) as i64, (j + dj) as i64);
                    let weight = (1.0 - (ya - i - di).abs()) * (1.0 - (yb - j - dj).abs());
                    sum += if t > 0.0 { weight * at(index) } else { 0.0 };
                }
            }
            let length = (0..3).map(|a| (p[a] - s[a]).powi(2)).sum::<f64>().sqrt();
            out.push(sum * length / d[main].abs());
        }
        out
    }

    #[test]
    fn projections_are_those_of_the_definition() {
        for (grid, beam) in beams() {
            for (dtype, allowed) in [(DType::F32, 3e-5), (DType::F64, 1e-12)] {
                let transform = ConeTransform::new(&grid, &beam, dtype, &Device::Cpu).unwrap();
                let x = standard_normal(Noise::new(3, 0), transform.domain(), &[]).unwrap();
                let expected = reference(&grid, &beam, &f64::to_vec(&x).unwrap());
                let expected = Tensor::from_vec(expected, transform.range().shape(), &Device::Cpu).unwrap();
                let found = transform.apply(&x).unwrap().to_dtype(DType::F64).unwrap();
                let difference = relative_difference(&found, &expected).unwrap();
                assert!(difference < allowed, "{grid:?} {beam:?}: {difference:e}");
            }
        }
    }

    #[test]
    fn most_scans_are_traced_by_column() {
        let oblique = |at: usize| {
            let (grid, beam) = &beams()[at];
            Upright::split(grid, beam).1.len()
        };
        assert_eq!([0, 1, 3, 4, 7].map(oblique), [0; 5]);
        assert_eq!((oblique(2), oblique(8)), (7, 6));
    }

    #[test]
    fn projections_of_ellipsoids_meet_the_closed_form() {
        let grid = VolumeGrid::new(128, ImageGrid::new(192, 192, 0.5).unwrap(), 0.75).unwrap();
        let egg = Ellipsoid {
            middle: Ellipse { value: 0.02, center: (4.0, -6.0), axes: (41.0, 30.0), angle: 0.5 },
            z: 3.0,
            height: 42.0,
        };
        let circle =
            ConeBeam::new(FanBeam::covering(&grid.image, 6, TAU, 300.0, 200.0).unwrap(), 141, 1.25).unwrap();
        let beams = [
            circle.clone(),
            ConeBeam { row_offset: 8.0, fan: circle.fan.clone().with_offset(11.0), ..circle.clone() },
            ConeBeam { tilt: 0.1, ..circle.clone() },
            ConeBeam { feed: 20.0, ..circle },
        ];
        for (bodies, allowed) in
            [(Ellipsoids(vec![egg]), 0.005), (Ellipsoids(shepp_logan_3d(Contrast::Original, 48.0)), 0.02)]
        {
            let volume = bodies.volume::<f32>(&grid, 4).unwrap();
            for beam in &beams {
                let rays = beam.vectors();
                let transform = ConeTransform::new(&grid, &rays, DType::F32, &Device::Cpu).unwrap();
                let found = transform.apply(&volume).unwrap();
                let exact = bodies.trace::<f32>(&rays, 3).unwrap();
                let error = relative_difference(&found, &exact).unwrap();
                println!("{} bodies: {error:.5}", bodies.0.len());
                assert!(error < allowed, "{error}");
            }
        }
    }
}
