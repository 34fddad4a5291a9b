//! The ray transform of a slice.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::operator::ct::device::{Way, parallel};
use crate::operator::ct::joseph::{BLOCK, BackProject, Lines, Project, View};
use crate::operator::ct::stack::{self, STACK};
use crate::operator::ct::{ImageGrid, ParallelBeam};
use crate::tensor::device::{Gpu, Table};
use crate::tensor::simd::dispatch;
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch};

/// Views that share a strip of the image while it is in the cache.
pub(super) const VIEWS_A_TASK: usize = 8;
/// Image lines that a back-projection task computes.
pub(super) const LINES_A_TASK: usize = 4;

/// The parallel-beam ray transform (A μ)(θ, s) = ∫ μ dl by linear interpolation (Joseph 1982).
///
/// Domain [height, width] in 1/mm, range [views, bins]; leading axes are slices, which share the work on
/// coefficients: many together take much less time than each alone, and give the same bits. The adjoint uses the
/// very coefficients of the transform, for every pitch, offset and angle.
#[derive(Clone, Debug)]
pub struct RayTransform {
    grid: ImageGrid,
    geometry: ParallelBeam,
    domain: Space,
    range: Space,
    /// Views whose lines are rows, then views whose lines are columns, with their places in the sinogram.
    classes: [Class; 2],
    /// The views, for a device.
    table: Table,
}

/// The views that follow one image axis.
#[derive(Clone, Debug, Default)]
pub(super) struct Class {
    pub views: Vec<View>,
    /// Row of each in the sinogram.
    pub places: Vec<usize>,
}

impl RayTransform {
    /// The transform of images on `grid` to the views and bins of `geometry`, in `F32` or `F64`.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use std::f64::consts::PI;
    /// use wellposed::{linalg::LinearOperator, operator::ct::{ImageGrid, ParallelBeam, RayTransform}};
    /// let grid = ImageGrid::new(16, 16, 2.0)?;
    /// let beam = ParallelBeam::covering(&grid, 4, PI)?;
    /// let transform = RayTransform::new(&grid, &beam, DType::F64, &Device::Cpu)?;
    /// let sinogram = transform.apply(&Tensor::ones((16, 16), DType::F64, &Device::Cpu)?)?;
    /// // The first view looks along the columns: 16 pixels of 2 mm.
    /// assert_eq!(sinogram.get(0)?.get(beam.bins / 2)?.to_scalar::<f64>()?, 32.0);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where the grid or the geometry is invalid, or a view misses the image.
    pub fn new(grid: &ImageGrid, geometry: &ParallelBeam, dtype: DType, device: &Device) -> Result<Self> {
        grid.validate()?;
        geometry.validate()?;
        geometry.expect_hits(grid)?;
        let mut classes = [Class::default(), Class::default()];
        for (place, angle) in geometry.angles.iter().enumerate() {
            let view = view(grid, geometry, *angle);
            let class = &mut classes[usize::from(view.transposed)];
            class.views.push(view);
            class.places.push(place);
        }
        Ok(Self {
            grid: *grid,
            geometry: geometry.clone(),
            domain: Space::real(&[grid.height, grid.width], dtype, device),
            range: Space::real(&[geometry.views(), geometry.bins], dtype, device),
            classes,
            table: Table::default(),
        })
    }

    /// The pixels.
    pub fn grid(&self) -> &ImageGrid {
        &self.grid
    }

    /// Σ_θ w_θ q_θ(s(x)): in every pixel the sum over views of the data at the place where the pixel projects,
    /// interpolated linearly between bins, times the view's weight: the second half of filtered back projection.
    /// (The adjoint instead uses the projector's coefficients, which leave ripples.)
    ///
    /// # Errors
    /// A shape error where `q` isn't in the range; [`Error::Parameter`] unless there is one weight a view.
    pub fn back_project(&self, q: &Tensor, weights: &[f64]) -> Result<Tensor> {
        let batch = self.range.check("filtered projections", q)?;
        if weights.len() != self.geometry.views() {
            let reason = format!("one for each of {} views", self.geometry.views());
            return Err(Error::parameter("view weights", weights.len(), reason));
        }
        let mut interpolating = self.clone();
        for class in &mut interpolating.classes {
            for (view, place) in class.views.iter_mut().zip(&class.places) {
                (view.slope, view.length) = (1.0, weights[*place]);
            }
        }
        let mut out = self.domain.buffer(batch)?;
        launch(Back(&interpolating), &[q], &mut [&mut out])?;
        Ok(out.freeze())
    }

    fn on_device(&self, gpu: &Gpu, way: Way) -> Result<()> {
        let both = self.classes.iter().flat_map(|class| class.places.iter().zip(&class.views));
        let mut views: Vec<_> = both.collect();
        views.sort_by_key(|(place, _)| **place);
        let views: Vec<View> = views.into_iter().map(|(_, view)| *view).collect();
        parallel(gpu, way, &self.grid, self.geometry.bins, &views, &self.table)
    }

    /// The rays.
    pub fn geometry(&self) -> &ParallelBeam {
        &self.geometry
    }

    fn all(&self, property: fn(&View) -> bool) -> bool {
        self.classes.iter().flat_map(|class| &class.views).all(property)
    }
}

/// Rays s_j of angle θ against rows k where |cos θ| ≥ |sin θ|: on row k, y = cy − k (in pixels), the ray is at
/// x = (s_j − y sin θ)/cos θ; against columns otherwise: y = (s_j − x cos θ)/sin θ, the row cy − y.
fn view(grid: &ImageGrid, geometry: &ParallelBeam, angle: f64) -> View {
    let (sin, cos) = angle.sin_cos();
    let (cx, cy) = ((grid.width as f64 - 1.0) / 2.0, (grid.height as f64 - 1.0) / 2.0);
    let (first, pitch) = (geometry.position(0) / grid.pixel, geometry.pitch / grid.pixel);
    let transposed = cos.abs() < sin.abs();
    let (origin, per_line, per_ray, length) = if transposed {
        (cy - (first + cx * cos) / sin, cos / sin, -pitch / sin, grid.pixel / sin.abs())
    } else {
        (cx + (first - cy * sin) / cos, sin / cos, pitch / cos, grid.pixel / cos.abs())
    };
    let reversed = per_ray < 0.0;
    let origin = if reversed { origin + (geometry.bins - 1) as f64 * per_ray } else { origin };
    let per_ray = per_ray.abs();
    View { transposed, reversed, origin, per_line, per_ray, slope: per_ray, length }
}

impl LinearOperator for RayTransform {
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

struct Forward<'a>(&'a RayTransform);

impl Kernel for Forward<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (pixels, rays) = (self.0.domain.elements(), self.0.range.elements());
        for (x, out) in inputs[0].chunks(STACK * pixels).zip(outputs[0].chunks_mut(STACK * rays)) {
            if stack::pays(x.len() / pixels) && self.0.all(View::narrow) {
                stack::project(&self.0.grid, &self.0.classes, self.0.geometry.bins, x, out);
                continue;
            }
            for (x, out) in x.chunks(pixels).zip(out.chunks_mut(rays)) {
                for (class, transposed) in self.0.classes.iter().zip([false, true]) {
                    if !class.views.is_empty() {
                        self.project(class, &self.lines(class, x, transposed), out);
                    }
                }
            }
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        Some(self.0.on_device(gpu, Way::Forward))
    }
}

impl Forward<'_> {
    /// The rows or columns of an image, padded.
    fn lines<T: Real>(&self, class: &Class, x: &[T], transposed: bool) -> Lines<T> {
        let (height, width) = (self.0.grid.height, self.0.grid.width);
        let (count, length) = if transposed { (width, height) } else { (height, width) };
        let mut lines = Lines::zeros(count, length, Lines::<T>::padding(&class.views));
        lines.load(x, transposed);
        lines
    }

    fn project<T: Real>(&self, class: &Class, image: &Lines<T>, out: &mut [T]) {
        let bins = self.0.geometry.bins;
        // Each view writes its own row of the sinogram; hand the rows of this class out in order.
        let mut rows: Vec<Option<&mut [T]>> = out.chunks_mut(bins).map(Some).collect();
        let mut work: Vec<(&View, &mut [T])> = class
            .views
            .iter()
            .zip(&class.places)
            .filter_map(|(view, place)| rows[*place].take().map(|row| (view, row)))
            .collect();
        work.par_chunks_mut(VIEWS_A_TASK).for_each(|group| {
            for first in (0..bins).step_by(BLOCK) {
                for (view, row) in group.iter_mut() {
                    let out = &mut row[first..bins.min(first + BLOCK)];
                    dispatch(Project { image, view, first, out });
                }
            }
            group.iter_mut().filter(|(view, _)| view.reversed).for_each(|(_, row)| row.reverse());
        });
    }
}

struct Back<'a>(&'a RayTransform);

impl Kernel for Back<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (pixels, rays) = (self.0.domain.elements(), self.0.range.elements());
        for (y, out) in inputs[0].chunks(STACK * rays).zip(outputs[0].chunks_mut(STACK * pixels)) {
            if stack::pays(y.len() / rays) && self.0.all(View::narrow_back) {
                stack::back_project(&self.0.grid, &self.0.classes, self.0.geometry.bins, y, out);
                continue;
            }
            y.chunks(rays).zip(out.chunks_mut(pixels)).for_each(|(y, out)| self.slice(y, out));
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        Some(self.0.on_device(gpu, Way::Back))
    }
}

impl Back<'_> {
    /// Overwrites one slice.
    fn slice<T: Real>(&self, y: &[T], out: &mut [T]) {
        let (height, width) = (self.0.grid.height, self.0.grid.width);
        let [by_rows, by_columns] = &self.0.classes;
        self.back_project(by_rows, y, width, out);
        if !by_columns.views.is_empty() {
            let mut columns = vec![T::zero(); height * width];
            self.back_project(by_columns, y, height, &mut columns);
            add_transposed(&columns, height, width, out);
        }
    }

    /// Overwrites `lines`, each of `length` pixels, with what the views of a class give.
    fn back_project<T: Real>(&self, class: &Class, y: &[T], length: usize, lines: &mut [T]) {
        let bins = self.0.geometry.bins;
        let mut rays = Lines::zeros(class.views.len(), bins, Lines::<T>::padding(&class.views));
        let stride = rays.stride();
        let rows = rays.writable().par_chunks_mut(stride).zip(class.views.par_iter().zip(&class.places));
        rows.for_each(|(line, (view, place))| {
            let line = &mut line[..bins];
            let factor = T::of(view.length);
            line.iter_mut().zip(&y[place * bins..]).for_each(|(l, y)| *l = *y * factor);
            if view.reversed {
                line.reverse();
            }
        });
        lines.par_chunks_mut(length * LINES_A_TASK).enumerate().for_each(|(task, lines)| {
            for first in (0..length).step_by(BLOCK) {
                for (index, line) in lines.chunks_mut(length).enumerate() {
                    let out = &mut line[first..length.min(first + BLOCK)];
                    let line = task * LINES_A_TASK + index;
                    dispatch(BackProject { rays: &rays, views: &class.views, line, first, out });
                }
            }
        });
    }
}

/// Side of the square tiles that transposition moves.
const TILE: usize = 32;

/// to[column·stride + row] ← x[row·width + column].
pub(super) fn transpose<T: Copy + Send + Sync>(
    x: &[T],
    height: usize,
    width: usize,
    stride: usize,
    to: &mut [T],
) {
    to.par_chunks_mut(stride * TILE).enumerate().for_each(|(band, to)| {
        for top in (0..height).step_by(TILE) {
            for (column, line) in to.chunks_mut(stride).enumerate().take(width - band * TILE) {
                for row in top..height.min(top + TILE) {
                    line[row] = x[row * width + band * TILE + column];
                }
            }
        }
    });
}

/// out[row·width + column] += columns[column·height + row].
pub(super) fn add_transposed<T: Real>(columns: &[T], height: usize, width: usize, out: &mut [T]) {
    out.par_chunks_mut(width * TILE).enumerate().for_each(|(band, out)| {
        for left in (0..width).step_by(TILE) {
            for (row, line) in out.chunks_mut(width).enumerate() {
                for column in left..width.min(left + TILE) {
                    line[column] += columns[column * height + band * TILE + row];
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use crate::testing::check_operator;

    fn beams() -> Vec<(ImageGrid, ParallelBeam)> {
        let grid = |h, w, pixel| ImageGrid::new(h, w, pixel).unwrap();
        let even = |views, arc: f64| (0..views).map(|i| arc * i as f64 / views as f64).collect::<Vec<_>>();
        let beam = |angles, bins, pitch| ParallelBeam::new(angles, bins, pitch).unwrap();
        vec![
            (grid(33, 33, 1.0), beam(even(24, PI), 49, 1.0)),
            (grid(20, 47, 0.7), beam(even(17, 2.0 * PI), 60, 0.7).with_offset(3.3)),
            (grid(70, 31, 2.0), beam(even(9, -PI), 37, 2.5).with_offset(-11.0)),
            (grid(40, 40, 1.0), beam(even(12, PI), 130, 0.6)),
            (grid(40, 40, 1.0), beam(even(12, PI), 300, 0.2)),
            (grid(40, 30, 1.0), beam(even(12, PI), 13, 3.7)),
            (grid(130, 150, 1.0), beam(vec![0.3], 211, 1.0)),
            (grid(25, 25, 1.0), beam(vec![PI / 4.0, 3.0 * PI / 4.0, 5.0 * PI / 4.0, -PI / 2.0, 0.0], 9, 1.0)),
            (grid(1, 1, 1.0), beam(even(5, PI), 1, 1.0)),
        ]
    }

    #[test]
    fn adjoint_is_exact_for_every_geometry() {
        for (grid, beam) in beams() {
            for dtype in [DType::F32, DType::F64] {
                check_operator(&RayTransform::new(&grid, &beam, dtype, &Device::Cpu).unwrap()).unwrap();
            }
        }
    }

    #[test]
    fn slices_together_give_the_bits_of_slices_alone() {
        use crate::tensor::random::{Noise, standard_normal};
        for (grid, beam) in beams() {
            for dtype in [DType::F32, DType::F64] {
                let transform = RayTransform::new(&grid, &beam, dtype, &Device::Cpu).unwrap();
                let x = standard_normal(Noise::new(5, 0), transform.domain(), &[STACK + 7]).unwrap();
                let y = transform.apply(&x).unwrap();
                let back = transform.adjoint(&y).unwrap();
                let bits = |x: &Tensor| f64::to_vec(&x.contiguous().unwrap()).unwrap();
                for slice in 0..STACK + 7 {
                    let alone = transform.apply(&x.get(slice).unwrap()).unwrap();
                    assert!(bits(&alone) == bits(&y.get(slice).unwrap()), "forward of {slice}, {beam:?}");
                    let alone = transform.adjoint(&y.get(slice).unwrap()).unwrap();
                    assert!(bits(&alone) == bits(&back.get(slice).unwrap()), "back of {slice}, {beam:?}");
                }
            }
        }
    }

    /// The definition, ray by ray and line by line, in mm.
    fn reference(grid: &ImageGrid, beam: &ParallelBeam, x: &[f64]) -> Vec<f64> {
        let mut out = Vec::new();
        let at = |row: i64, column: i64| {
            let inside = row >= 0 && column >= 0 && row < grid.height as i64 && column < grid.width as i64;
            if inside { x[row as usize * grid.width + column as usize] } else { 0.0 }
        };
        let (left, top) = grid.center_of(0, 0);
        for angle in &beam.angles {
            let (sin, cos) = angle.sin_cos();
            for bin in 0..beam.bins {
                let s = beam.position(bin);
                let mut sum = 0.0;
                if cos.abs() >= sin.abs() {
                    for row in 0..grid.height {
                        let y = grid.center_of(row, 0).1;
                        let u = ((s - y * sin) / cos - left) / grid.pixel;
                        let (i, f) = (u.floor() as i64, u - u.floor());
                        sum += (1.0 - f) * at(row as i64, i) + f * at(row as i64, i + 1);
                    }
                } else {
                    for column in 0..grid.width {
                        let x = grid.center_of(0, column).0;
                        let u = (top - (s - x * cos) / sin) / grid.pixel;
                        let (i, f) = (u.floor() as i64, u - u.floor());
                        sum += (1.0 - f) * at(i, column as i64) + f * at(i + 1, column as i64);
                    }
                }
                out.push(sum * grid.pixel / cos.abs().max(sin.abs()));
            }
        }
        out
    }

    #[test]
    fn projections_are_those_of_the_definition() {
        use crate::tensor::random::{Noise, standard_normal};
        use crate::testing::relative_difference;
        for (grid, beam) in beams() {
            for (dtype, allowed) in [(DType::F32, 2e-5), (DType::F64, 1e-12)] {
                let transform = RayTransform::new(&grid, &beam, dtype, &Device::Cpu).unwrap();
                let x = standard_normal(Noise::new(3, 0), transform.domain(), &[]).unwrap();
                let expected = reference(&grid, &beam, &f64::to_vec(&x).unwrap());
                let expected = Tensor::from_vec(expected, transform.range().shape(), &Device::Cpu).unwrap();
                let found = transform.apply(&x).unwrap().to_dtype(DType::F64).unwrap();
                let difference = relative_difference(&found, &expected).unwrap();
                assert!(difference < allowed, "{grid:?} {beam:?}: {difference:e}");
            }
        }
    }
}
