//! The ray transform of a slice along divergent rays.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::operator::ct::device::{Way, fan};
use crate::operator::ct::fan_joseph::{Band, Fan, LINES_A_TASK, SPREAD, project};
use crate::operator::ct::joseph::Lines;
use crate::operator::ct::transform::add_transposed;
use crate::operator::ct::{ImageGrid, VectorBeam, VolumeGrid};
use crate::tensor::device::{Gpu, Table};
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch};

/// Views whose rays are at hand at once in the back projection.
const VIEWS_AT_ONCE: usize = 64;

/// The fan-beam ray transform (A μ)(β, j) = ∫ μ dl by linear interpolation (Joseph 1982), for sources and detectors
/// anywhere in the plane.
///
/// Domain [height, width] in 1/mm, range [views, bins]; leading axes are slices. The adjoint uses the very
/// coefficients of the transform.
#[derive(Clone, Debug)]
pub struct FanTransform {
    grid: ImageGrid,
    beam: VectorBeam,
    domain: Space,
    range: Space,
    /// Rays and views, for a device.
    tables: [Table; 2],
}

impl FanTransform {
    /// The transform of images on `grid` along the rays of `beam`, in `F32` or `F64`.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use std::f64::consts::TAU;
    /// use wellposed::{linalg::LinearOperator, operator::ct::{FanBeam, FanTransform, ImageGrid}};
    /// let grid = ImageGrid::new(16, 16, 2.0)?;
    /// let beam = FanBeam::covering(&grid, 4, TAU, 100.0, 50.0)?;
    /// let transform = FanTransform::new(&grid, &beam.vectors(), DType::F64, &Device::Cpu)?;
    /// let sinogram = transform.apply(&Tensor::ones((16, 16), DType::F64, &Device::Cpu)?)?;
    /// // The central ray of the first view runs along the columns: 16 pixels of 2 mm.
    /// assert_eq!(sinogram.get(0)?.get(beam.bins / 2)?.to_scalar::<f64>()?, 32.0);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where the grid or the beam is invalid, leaves the plane z = 0, has a source inside the
    /// image, or a view misses the image.
    pub fn new(grid: &ImageGrid, beam: &VectorBeam, dtype: DType, device: &Device) -> Result<Self> {
        grid.validate()?;
        beam.validate()?;
        if beam.rows != 1 {
            return Err(Error::parameter("detector rows", beam.rows, "a fan beam has one"));
        }
        let aside = |p: &super::Pose| p.source[2] != 0.0 || p.detector[2] != 0.0 || p.u[2] != 0.0;
        if let Some(view) = beam.poses.iter().position(aside) {
            let pose = format!("{:?}", beam.poses[view]);
            return Err(Error::parameter(
                format!("pose of view {view}"),
                pose,
                "a fan beam lies in the plane z = 0",
            ));
        }
        beam.expect_hits(&VolumeGrid::new(1, *grid, grid.pixel)?)?;
        Ok(Self {
            grid: *grid,
            beam: beam.clone(),
            domain: Space::real(&[grid.height, grid.width], dtype, device),
            range: Space::real(&[beam.views(), beam.bins], dtype, device),
            tables: Default::default(),
        })
    }

    /// The pixels.
    pub fn grid(&self) -> &ImageGrid {
        &self.grid
    }

    /// The rays.
    pub fn beam(&self) -> &VectorBeam {
        &self.beam
    }

    fn fan(&self, view: usize) -> Fan {
        Fan::new(&self.grid, &self.beam, view)
    }
}

impl LinearOperator for FanTransform {
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

struct Forward<'a>(&'a FanTransform);

impl Kernel for Forward<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let a = self.0;
        let ImageGrid { height, width, .. } = a.grid;
        let (mut rows, mut columns) =
            (Lines::zeros(height, width, SPREAD), Lines::zeros(width, height, SPREAD));
        for (x, out) in inputs[0].chunks(height * width).zip(outputs[0].chunks_mut(a.range.elements())) {
            rows.load(x, false);
            columns.load(x, true);
            out.par_chunks_mut(a.beam.bins).enumerate().for_each(|(view, out)| {
                for run in &a.fan(view).runs {
                    project(if run.transposed { &columns } else { &rows }, run, out);
                }
            });
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        Some(fan(gpu, Way::Forward, &self.0.grid, &self.0.beam, &self.0.tables))
    }
}

struct Back<'a>(&'a FanTransform);

impl Kernel for Back<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let a = self.0;
        let ImageGrid { height, width, .. } = a.grid;
        let mut columns = vec![T::zero(); height * width];
        for (y, out) in inputs[0].chunks(a.range.elements()).zip(outputs[0].chunks_mut(height * width)) {
            let mut bands = Band::all(false, height, width);
            bands.extend(Band::all(true, width, height));
            for (first, y) in
                (0..a.beam.views()).step_by(VIEWS_AT_ONCE).zip(y.chunks(VIEWS_AT_ONCE * a.beam.bins))
            {
                let views = first..a.beam.views().min(first + VIEWS_AT_ONCE);
                let fans: Vec<Fan> = views.into_par_iter().map(|view| a.fan(view)).collect();
                // A band owns its lines and sees the rays in their order, whatever the number of threads.
                bands.par_iter_mut().for_each(|band| {
                    for (fan, y) in fans.iter().zip(y.chunks(a.beam.bins)) {
                        fan.runs.iter().for_each(|run| band.add(run, y));
                    }
                });
            }
            let [mut rows, mut across] =
                [out.chunks_mut(width * LINES_A_TASK), columns.chunks_mut(height * LINES_A_TASK)];
            for band in &bands {
                let lines = if band.transposed { across.next() } else { rows.next() };
                lines.into_iter().for_each(|lines| band.write(lines));
            }
            add_transposed(&columns, height, width, out);
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        Some(fan(gpu, Way::Back, &self.0.grid, &self.0.beam, &self.0.tables))
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{PI, TAU};

    use super::*;
    use crate::operator::ct::{FanBeam, Pose};
    use crate::phantom::{Contrast, shepp_logan};
    use crate::tensor::random::{Noise, standard_normal};
    use crate::testing::{check_operator, relative_difference};

    fn even(views: usize, arc: f64) -> Vec<f64> {
        (0..views).map(|i| arc * i as f64 / views as f64).collect()
    }

    fn beams() -> Vec<(ImageGrid, VectorBeam)> {
        let grid = |h, w, pixel| ImageGrid::new(h, w, pixel).unwrap();
        let fan = |angles, bins, pitch, so, od| FanBeam::new(angles, bins, pitch, so, od).unwrap();
        let flat = fan(even(24, TAU), 61, 2.0, 60.0, 60.0);
        let free = |k: usize| {
            let (k, turn) = (k as f64, 0.3 * k as f64);
            let at = |r: f64| [r * turn.cos() - 3.0, r * turn.sin() + k, 0.0];
            let u = [-1.3 * (turn + 0.2).sin(), 1.3 * (turn + 0.2).cos(), 0.0];
            Pose { source: at(70.0 + 5.0 * k), detector: at(-40.0), u, v: [0.0, 0.0, 1.0] }
        };
        vec![
            (grid(33, 33, 1.0), flat.vectors()),
            (grid(33, 33, 1.0), flat.clone().curved().with_offset(9.0).vectors()),
            (grid(20, 47, 0.7), fan(even(17, PI + 0.6), 60, 1.1, 50.0, 0.0).with_offset(-3.3).vectors()),
            // A wide fan whose rays follow both axes in one view, rays far apart, rays very close.
            (grid(40, 40, 1.0), fan(even(12, TAU), 90, 2.0, 30.0, 40.0).vectors()),
            (grid(40, 30, 1.0), fan(even(12, TAU), 13, 9.7, 80.0, 70.0).vectors()),
            (grid(40, 40, 1.0), fan(even(7, TAU), 300, 0.3, 60.0, 30.0).vectors()),
            (grid(130, 150, 1.0), fan(vec![0.3], 300, 1.5, 400.0, 300.0).vectors()),
            (grid(25, 25, 1.0), fan(even(8, TAU), 9, 1.0, 40.0, 30.0).vectors()),
            (grid(30, 24, 0.9), VectorBeam::new((0..9).map(free).collect(), 1, 50).unwrap()),
            (grid(1, 1, 1.0), fan(even(5, PI), 1, 1.0, 10.0, 10.0).vectors()),
        ]
    }

    #[test]
    fn adjoint_is_exact_for_every_geometry() {
        for (grid, beam) in beams() {
            for dtype in [DType::F32, DType::F64] {
                check_operator(&FanTransform::new(&grid, &beam, dtype, &Device::Cpu).unwrap()).unwrap();
            }
        }
    }

    /// The definition, ray by ray and line by line, in mm.
    fn reference(grid: &ImageGrid, beam: &VectorBeam, x: &[f64]) -> Vec<f64> {
        let at = |row: i64, column: i64| {
            let inside = row >= 0 && column >= 0 && row < grid.height as i64 && column < grid.width as i64;
            if inside { x[row as usize * grid.width + column as usize] } else { 0.0 }
        };
        let (left, top) = grid.center_of(0, 0);
        let mut out = Vec::new();
        for (view, bin) in (0..beam.views()).flat_map(|v| (0..beam.bins).map(move |b| (v, b))) {
            let (s, p) = (beam.poses[view].source, beam.pixel(view, 0, bin));
            let (dx, dy) = (p[0] - s[0], p[1] - s[1]);
            let mut sum = 0.0;
            if dy.abs() >= dx.abs() {
                for row in 0..grid.height {
                    let t = (grid.center_of(row, 0).1 - s[1]) / dy;
                    let u = (s[0] + t * dx - left) / grid.pixel;
                    let (i, f) = (u.floor() as i64, u - u.floor());
                    if t > 0.0 {
                        sum += (1.0 - f) * at(row as i64, i) + f * at(row as i64, i + 1);
                    }
                }
            } else {
                for column in 0..grid.width {
                    let t = (grid.center_of(0, column).0 - s[0]) / dx;
                    let u = (top - s[1] - t * dy) / grid.pixel;
                    let (i, f) = (u.floor() as i64, u - u.floor());
                    if t > 0.0 {
                        sum += (1.0 - f) * at(i, column as i64) + f * at(i + 1, column as i64);
                    }
                }
            }
            out.push(sum * grid.pixel * dx.hypot(dy) / dx.abs().max(dy.abs()));
        }
        out
    }

    #[test]
    fn projections_are_those_of_the_definition() {
        for (grid, beam) in beams() {
            for (dtype, allowed) in [(DType::F32, 3e-5), (DType::F64, 1e-12)] {
                let transform = FanTransform::new(&grid, &beam, dtype, &Device::Cpu).unwrap();
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
    fn projections_of_the_head_meet_the_closed_form() {
        let grid = ImageGrid::new(512, 512, 1.0).unwrap();
        let head = shepp_logan(Contrast::Modified, 256.0);
        let picture = head.picture::<f32>(&grid, 8).unwrap();
        for curved in [false, true] {
            let mut beam = FanBeam::covering(&grid, 60, TAU, 800.0, 400.0).unwrap().with_offset(0.4);
            beam.curved = curved;
            let rays = beam.vectors();
            let transform = FanTransform::new(&grid, &rays, DType::F32, &Device::Cpu).unwrap();
            let found = transform.apply(&picture).unwrap();
            let error = relative_difference(&found, &head.trace::<f32>(&rays, 8).unwrap()).unwrap();
            println!("curved {curved}: {error:.5}");
            assert!(error < 0.005, "{error}");
        }
    }

    #[test]
    fn what_is_no_fan_is_refused() {
        let grid = ImageGrid::new(20, 20, 1.0).unwrap();
        let new = |beam: &VectorBeam| FanTransform::new(&grid, beam, DType::F32, &Device::Cpu).map(drop);
        let fan = FanBeam::new(vec![0.0, 1.0], 31, 1.0, 40.0, 0.0).unwrap();
        new(&fan.vectors()).unwrap();
        assert!(
            new(&fan.clone().with_offset(80.0).vectors())
                .unwrap_err()
                .to_string()
                .contains("miss the volume")
        );
        let mut raised = fan.vectors();
        raised.poses[1].source[2] = 1.0;
        assert!(new(&raised).unwrap_err().to_string().contains("pose of view 1"));
        assert!(new(&VectorBeam { rows: 2, ..fan.vectors() }).unwrap_err().to_string().contains("rows = 2"));
    }
}
