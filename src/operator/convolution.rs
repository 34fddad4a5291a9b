//! Convolution with an arbitrary kernel by the fast Fourier transform.

use candle_core::Tensor;
use num_complex::Complex;
use rayon::prelude::*;

use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::operator::blur::Boundary;
use crate::tensor::device::{Gpu, Program, arguments};
use crate::tensor::fft::{Direction, Origin, Plan};
use crate::tensor::vector::{Weights, multiply_on_device};
use crate::tensor::{Buffer, Field, Kernel, Real, Space, Workspace, as_complex, launch};

static PROGRAM: Program = Program { name: "convolution", source: include_str!("convolution.cu") };

/// The convolution of the last two axes with a kernel, as crop · F⁻¹ diag(transfer) F · pad on a grid that
/// the transform likes. Two real images share one complex transform.
#[derive(Clone, Debug)]
pub(super) struct Convolution {
    space: Space,
    plan: Grid,
    /// The kernel's transform on the padded grid, [height, width, 2], with the scale of a convolution.
    transfer: Tensor,
}

/// Where pixels lie on the padded grid.
#[derive(Clone, Debug)]
struct Grid {
    padded: [usize; 2],
    /// The grid index of the image's first pixel.
    corner: [usize; 2],
    /// The pixel that each grid row and column holds, if any.
    sources: [Vec<Option<usize>>; 2],
    image: [usize; 2],
}

impl Convolution {
    /// `kernel` is row-major with `sides`; its centre is at ⌊side/2⌋.
    pub(super) fn new(space: &Space, kernel: &[f64], sides: [usize; 2], boundary: Boundary) -> Result<Self> {
        let shape = space.shape();
        let image = [shape[shape.len() - 2], shape[shape.len() - 1]];
        let mut padded = image;
        let mut corner = [0; 2];
        if boundary != Boundary::Periodic {
            for axis in 0..2 {
                padded[axis] = good_size(image[axis] + sides[axis] - 1);
                corner[axis] = sides[axis] - 1 - sides[axis] / 2;
            }
        }
        let source = |axis: usize| -> Vec<Option<usize>> {
            let reached =
                if boundary == Boundary::Periodic { padded[axis] } else { image[axis] + sides[axis] - 1 };
            let at = |p: usize| boundary.source(p as isize - corner[axis] as isize, image[axis]);
            (0..padded[axis]).map(|p| if p < reached { at(p) } else { None }).collect()
        };
        let plan = Grid { padded, corner, sources: [source(0), source(1)], image };
        let mut transfer = vec![Complex::new(0.0, 0.0); padded[0] * padded[1]];
        for (i, row) in kernel.chunks_exact(sides[1]).enumerate() {
            for (j, value) in row.iter().enumerate() {
                // The centre goes to index 0; kernels wider than a periodic image wrap around.
                let wrap = |at: usize, axis: usize| {
                    (at as isize - (sides[axis] / 2) as isize).rem_euclid(padded[axis] as isize) as usize
                };
                transfer[wrap(i, 0) * padded[1] + wrap(j, 1)].re += value;
            }
        }
        Plan::<f64>::new(&padded, Origin::Corner)?.run_in_place(Direction::Forward, &mut transfer);
        let scale = ((padded[0] * padded[1]) as f64).sqrt();
        let flat = transfer.iter().flat_map(|z| [z.re * scale, z.im * scale]).collect();
        let transfer = f64::tensor(flat, &[padded[0], padded[1], 2])?;
        Ok(Self {
            space: space.clone(),
            plan,
            transfer: transfer.to_dtype(space.dtype())?.to_device(space.device())?,
        })
    }

    fn launch(&self, adjoint: bool, x: &Tensor, out: &mut Buffer) -> Result<()> {
        let convolve = Convolve { grid: &self.plan, field: self.space.field(), adjoint };
        launch(convolve, &[x, &self.transfer], &mut [out])
    }
}

/// The least number not below `n` with no prime factor above 5.
fn good_size(n: usize) -> usize {
    let smooth = |mut m: usize| {
        for p in [2, 3, 5] {
            while m.is_multiple_of(p) {
                m /= p;
            }
        }
        m == 1
    };
    (n.max(1)..).find(|m| smooth(*m)).unwrap_or(n)
}

struct Convolve<'a> {
    grid: &'a Grid,
    field: Field,
    adjoint: bool,
}

impl Kernel for Convolve<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let [x, transfer] = inputs else { return Ok(()) };
        let padded = self.grid.padded;
        let plan = Plan::<T>::new(&padded, Origin::Corner)?;
        let pixels = self.grid.image[0] * self.grid.image[1];
        // A unit of work fills one complex grid: a complex image, or two real ones.
        let unit = 2 * pixels;
        let transfer = as_complex(transfer);
        let grid = || vec![Complex::new(T::zero(), T::zero()); padded[0] * padded[1]];
        outputs[0].par_chunks_mut(unit).zip(x.par_chunks(unit)).for_each_init(grid, |grid, (out, x)| {
            let parts = self.parts(x.len() / pixels);
            grid.fill(Complex::new(T::zero(), T::zero()));
            parts.iter().for_each(|part| self.place(part, x, grid));
            plan.run_in_place(Direction::Forward, grid);
            grid.par_chunks_mut(1 << 12).zip(transfer.par_chunks(1 << 12)).for_each(|(g, t)| {
                g.iter_mut().zip(t).for_each(|(g, t)| *g *= if self.adjoint { t.conj() } else { *t });
            });
            plan.run_in_place(Direction::Inverse, grid);
            parts.iter().for_each(|part| self.collect(part, grid, out));
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        Some(self.device(gpu))
    }
}

/// One real image within a unit: where it begins, the distance of its pixels, and which part of the
/// complex grid it fills.
struct Part {
    start: usize,
    step: usize,
    imaginary: bool,
}

impl Convolve<'_> {
    /// The same on a device, all planes at once.
    fn device(&self, gpu: &Gpu) -> Result<()> {
        let Grid { padded, corner, sources, image } = self.grid;
        // What each row and column of the grid holds, and what of the grid each row and column of the image adds up.
        let held = |a: usize| {
            let crop = move |p: usize| p.checked_sub(corner[a]).filter(|i| *i < image[a]);
            (0..padded[a]).map(move |p| Vec::from_iter(if self.adjoint { crop(p) } else { sources[a][p] }))
        };
        let added = |a: usize| {
            let copies = move |i: usize| (0..padded[a]).filter(|p| sources[a][*p] == Some(i)).collect();
            (0..image[a]).map(move |i| if self.adjoint { copies(i) } else { vec![i + corner[a]] })
        };
        let lists = |lists: Vec<Vec<usize>>| {
            let mut numbers = vec![0.0];
            lists.iter().for_each(|list| numbers.push(numbers[numbers.len() - 1] + list.len() as f64));
            numbers.extend(lists.iter().flatten().map(|member| *member as f64));
            gpu.upload(&numbers)
        };
        let (pixels, points) = (image[0] * image[1], padded[0] * padded[1]);
        let mixed = self.field == Field::Complex;
        let planes = gpu.output_len(0) / pixels;
        let grids = planes.div_ceil(2);
        let grid = gpu.scratch(2 * grids * points)?;
        let gather = |onto_grid: bool, [rows, columns]: [_; 2]| {
            let (from, to) = if onto_grid { (gpu.input(0), grid) } else { (grid, gpu.output(0)) };
            let ([h, w], [from_h, from_w]) = if onto_grid { (*padded, *image) } else { (*image, *padded) };
            let n = if onto_grid { 2 * grids * points } else { planes * pixels };
            // The two transforms together lack this factor.
            let factor = if onto_grid { 1.0 } else { 1.0 / points as f64 };
            let arrays = arguments![from, to, rows, columns, n, h, w, from_h, from_w, planes];
            let order = arguments![mixed || !onto_grid, mixed || onto_grid, factor];
            gpu.run(&PROGRAM, "gather", n, &[arrays, order].concat())
        };
        gather(true, [lists(held(0).collect())?, lists(held(1).collect())?])?;
        gpu.fourier(padded, grids, false, grid)?;
        let kind = if self.adjoint { Weights::Conjugate } else { Weights::Complex };
        multiply_on_device(gpu, kind, (gpu.input(1), 2 * points), grid, grid, 2 * grids * points)?;
        gpu.fourier(padded, grids, true, grid)?;
        gather(false, [lists(added(0).collect())?, lists(added(1).collect())?])
    }

    fn parts(&self, planes: usize) -> Vec<Part> {
        let pixels = self.grid.image[0] * self.grid.image[1];
        (0..planes)
            .map(|k| match self.field {
                Field::Complex => Part { start: k, step: 2, imaginary: k == 1 },
                Field::Real => Part { start: k * pixels, step: 1, imaginary: k == 1 },
            })
            .collect()
    }

    /// Pads the image onto the grid; for the adjoint, puts it in the corner of the zero grid.
    fn place<T: Real>(&self, part: &Part, x: &[T], grid: &mut [Complex<T>]) {
        let Grid { padded, corner, sources, image } = self.grid;
        grid.par_chunks_mut(padded[1]).enumerate().for_each(|(p, row)| {
            let from =
                if self.adjoint { p.checked_sub(corner[0]).filter(|i| *i < image[0]) } else { sources[0][p] };
            let Some(i) = from else { return };
            let line = &x[part.start + i * image[1] * part.step..];
            let mut put = |q: usize, j: usize| {
                let value = line[j * part.step];
                if part.imaginary { row[q].im = value } else { row[q].re = value }
            };
            if self.adjoint {
                (0..image[1]).for_each(|j| put(corner[1] + j, j));
            } else {
                sources[1]
                    .iter()
                    .enumerate()
                    .filter_map(|(q, j)| j.map(|j| (q, j)))
                    .for_each(|(q, j)| put(q, j));
            }
        });
    }

    /// Crops the image off the grid; for the adjoint, adds up what padding had copied.
    fn collect<T: Real>(&self, part: &Part, grid: &[Complex<T>], out: &mut [T]) {
        let Grid { padded, corner, sources, image } = self.grid;
        let value = |z: &Complex<T>| if part.imaginary { z.im } else { z.re };
        let line = |i: usize| part.start + i * image[1] * part.step;
        if !self.adjoint {
            for i in 0..image[0] {
                let row = &grid[(i + corner[0]) * padded[1] + corner[1]..];
                (0..image[1]).for_each(|j| out[line(i) + j * part.step] = value(&row[j]));
            }
            return;
        }
        for i in 0..image[0] {
            (0..image[1]).for_each(|j| out[line(i) + j * part.step] = T::zero());
        }
        for (row, i) in grid.chunks_exact(padded[1]).zip(&sources[0]) {
            let Some(i) = i else { continue };
            for (z, j) in row.iter().zip(&sources[1]) {
                if let Some(j) = j {
                    out[line(*i) + j * part.step] += value(z);
                }
            }
        }
    }
}

impl LinearOperator for Convolution {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        self.launch(false, x, out)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        self.launch(true, y, out)
    }
}
