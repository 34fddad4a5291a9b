//! The passes over memory of Cartesian multi-coil encoding.

use num_complex::Complex;
use rayon::prelude::*;

use crate::error::Result;
use crate::operator::mri::device::encode;
use crate::tensor::complex::{add_conjugate_product, multiply, weight};
use crate::tensor::device::Gpu;
use crate::tensor::fft::{Direction, Origin, Plan};
use crate::tensor::{Kernel, Real, as_complex, as_complex_mut};

/// Images whose coil images are held at once: enough work for all threads, without the memory of a volume.
pub(super) const GROUP: usize = 4;

/// How the samples of a column along the first k-space axis are weighted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Column {
    Constant(f64),
    Varying,
}

/// Array sizes, in complex numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) coils: usize,
    /// Image sizes, of one slice.
    pub(super) item: usize,
    /// Slices with maps of their own.
    pub(super) sets: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Pass {
    Apply,
    Adjoint,
    Normal,
    /// AᴴA where every column is sampled evenly: no transform along columns is left.
    NormalRows,
}

/// A, Aᴴ or AᴴA. Inputs: argument, maps, mask columns. Outputs: value, and coil images for Aᴴ and AᴴA.
pub(super) struct Encode<'a> {
    pub(super) pass: Pass,
    pub(super) sizes: Sizes,
    pub(super) shape: &'a [usize],
    pub(super) kinds: &'a [Column],
}

impl Kernel for Encode<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let work = Encoding {
            plan: Plan::new(self.shape, Origin::Centre)?,
            sizes: self.sizes,
            kinds: self.kinds,
            maps: as_complex(inputs[1]),
            columns: inputs[2],
        };
        let input = as_complex(inputs[0]);
        let (out, rest) = outputs.split_first_mut().expect("a kernel has an output");
        let out = as_complex_mut(out);
        let Sizes { coils, item, .. } = self.sizes;
        match self.pass {
            Pass::Apply => work.apply(input, out),
            Pass::NormalRows => work.normal_rows(input, out),
            Pass::Adjoint | Pass::Normal => {
                let coil_images = as_complex_mut(rest[0]);
                for (group, out) in out.chunks_mut(GROUP * item).enumerate() {
                    let first = group * GROUP;
                    let coil_images = &mut coil_images[..out.len() * coils];
                    match self.pass {
                        Pass::Adjoint => work.to_coil_images(&input[first * coils * item..], coil_images),
                        _ => work.filter(first, &input[first * item..], coil_images),
                    }
                    work.combine(first, coil_images, out);
                }
            }
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        encode(gpu, self.pass, self.sizes, self.shape)
    }
}

/// The passes over memory of one launch.
struct Encoding<'a, T: Real> {
    plan: Plan<T>,
    sizes: Sizes,
    kinds: &'a [Column],
    maps: &'a [Complex<T>],
    columns: &'a [T],
}

impl<T: Real> Encoding<'_, T> {
    /// The map of a coil for image number `image`.
    fn map(&self, image: usize, coil: usize) -> &[Complex<T>] {
        let Sizes { coils, item, sets } = self.sizes;
        &self.maps[(image % sets * coils + coil) * item..][..item]
    }

    /// The weights of a column, in line order.
    fn weights(&self, column: usize) -> &[T] {
        let length = self.plan.outer().length();
        &self.columns[column * length..(column + 1) * length]
    }

    fn apply(&self, x: &[Complex<T>], out: &mut [Complex<T>]) {
        let Sizes { coils, item, .. } = self.sizes;
        let (axis, scale) = (self.plan.outer(), self.plan.scale());
        out.par_chunks_mut(item).enumerate().for_each(|(index, out)| {
            let (image, coil) = (index / coils, index % coils);
            let (x, map) = (&x[image * item..(image + 1) * item], self.map(image, coil));
            self.plan.inner(Direction::Forward, out, |at, _: &[_], line: &mut [_]| {
                multiply(&x[at..], &map[at..], line);
            });
            axis.columns(None, out, |column, line, scratch| {
                if self.kinds[column] == Column::Constant(0.0) {
                    return line.fill(Complex::new(T::zero(), T::zero()));
                }
                axis.line(Direction::Forward, line, scratch);
                weight(self.weights(column), scale, line);
            });
        });
    }

    /// Coil images before the transform of their rows, from k-space.
    fn to_coil_images(&self, y: &[Complex<T>], coil_images: &mut [Complex<T>]) {
        let item = self.sizes.item;
        let (axis, scale) = (self.plan.outer(), self.plan.scale());
        coil_images.par_chunks_mut(item).zip(y.par_chunks(item)).for_each(|(out, y)| {
            axis.columns(Some(y), out, |column, line, scratch| {
                if self.kinds[column] == Column::Constant(0.0) {
                    return line.fill(Complex::new(T::zero(), T::zero()));
                }
                weight(self.weights(column), scale, line);
                axis.line(Direction::Inverse, line, scratch);
            });
            self.plan.middle(Direction::Inverse, out);
        });
    }

    /// Coil images of Fᴴ M² F S x before the last transform of their rows.
    fn filter(&self, first: usize, x: &[Complex<T>], coil_images: &mut [Complex<T>]) {
        let Sizes { coils, item, .. } = self.sizes;
        let (axis, scale) = (self.plan.outer(), self.plan.scale());
        // Without their transforms, evenly sampled columns lack the factor that F and Fᴴ have together.
        let length = T::of(axis.length() as f64);
        coil_images.par_chunks_mut(item).enumerate().for_each(|(index, out)| {
            let (image, coil) = (index / coils, index % coils);
            let (x, map) = (&x[image * item..(image + 1) * item], self.map(first + image, coil));
            self.plan.inner(Direction::Forward, out, |at, _: &[_], line: &mut [_]| {
                multiply(&x[at..], &map[at..], line);
            });
            axis.columns(None, out, |column, line, scratch| match self.kinds[column] {
                Column::Constant(w) => {
                    let w = T::of(w) * scale;
                    line.iter_mut().for_each(|v| *v = v.scale(w * w * length));
                }
                Column::Varying => {
                    axis.line(Direction::Forward, line, scratch);
                    weight(self.weights(column), scale, line);
                    weight(self.weights(column), scale, line);
                    axis.line(Direction::Inverse, line, scratch);
                }
            });
            self.plan.middle(Direction::Inverse, out);
        });
    }

    /// out ← Σ_c conj(S_c) · (rows of coil image c transformed).
    fn combine(&self, first: usize, coil_images: &[Complex<T>], out: &mut [Complex<T>]) {
        self.image_rows(first, out, |image, coil, at, row, scratch| {
            let Sizes { coils, item, .. } = self.sizes;
            let source = &coil_images[((image - first) * coils + coil) * item + at..];
            let map = &self.map(image, coil)[at..];
            let axis = self.plan.last();
            axis.row(
                scratch,
                |i, line| line.copy_from_slice(&source[i..i + line.len()]),
                |line, scratch| axis.line(Direction::Inverse, line, scratch),
                |i, line| add_conjugate_product(&map[i..], line, &mut row[i..i + line.len()]),
            );
        });
    }

    /// out ← AᴴA x with transforms along rows only.
    fn normal_rows(&self, x: &[Complex<T>], out: &mut [Complex<T>]) {
        let axis = self.plan.last();
        let scale = T::of(1.0 / axis.length() as f64);
        let squared: Vec<T> = (0..axis.length())
            .map(|i| match self.kinds[(i + axis.origin()) % axis.length()] {
                Column::Constant(w) => T::of(w * w) * scale,
                Column::Varying => unreachable!("only where every column is constant"),
            })
            .collect();
        self.image_rows(0, out, |image, coil, at, row, scratch| {
            let (x, map) = (&x[image * self.sizes.item + at..], &self.map(image, coil)[at..]);
            axis.row(
                scratch,
                |i, line| multiply(&x[i..], &map[i..], line),
                |line, scratch| {
                    axis.line(Direction::Forward, line, scratch);
                    weight(&squared, T::one(), line);
                    axis.line(Direction::Inverse, line, scratch);
                },
                |i, line| add_conjugate_product(&map[i..], line, &mut row[i..i + line.len()]),
            );
        });
    }

    /// Clears every row of the images `out` and calls `add(image, coil, start of the row, row, scratch)` for each
    /// coil in order.
    fn image_rows(
        &self,
        first: usize,
        out: &mut [Complex<T>],
        add: impl Fn(usize, usize, usize, &mut [Complex<T>], &mut [Complex<T>]) + Sync,
    ) {
        const ROWS: usize = 8;
        let (axis, item) = (self.plan.last(), self.sizes.item);
        let length = axis.length();
        out.par_chunks_mut(item).enumerate().for_each(|(image, out)| {
            out.par_chunks_mut(ROWS * length).enumerate().for_each(|(block, rows)| {
                axis.with_scratch(|scratch| {
                    for (i, row) in rows.chunks_exact_mut(length).enumerate() {
                        row.fill(Complex::new(T::zero(), T::zero()));
                        for coil in 0..self.sizes.coils {
                            add(first + image, coil, (block * ROWS + i) * length, row, scratch);
                        }
                    }
                });
            });
        });
    }
}
