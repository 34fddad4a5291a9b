//! The passes over memory of Cartesian multi-coil encoding.

use num_complex::Complex;
use rayon::prelude::*;

use super::lines::Lines;
use crate::error::Result;
use crate::operator::mri::device::encode;
use crate::tensor::complex::{add_conjugate_product, multiply, weight};
use crate::tensor::device::Gpu;
use crate::tensor::fft::{Direction, Origin, Plan};
use crate::tensor::{Kernel, Real, as_complex, as_complex_mut};

/// Images that are worked on at once: enough work for all threads, without the memory of a volume.
const IMAGES: usize = 4;
/// Coils whose images follow one another, and are summed while they are in the cache. The sums of such groups are
/// added in the end, so that results don't depend on the number of threads.
const COILS: usize = 4;
/// Rows that are one task.
pub(super) const ROWS: usize = 8;

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

impl Sizes {
    fn groups(self) -> usize {
        self.coils.div_ceil(COILS)
    }

    /// What a pass needs besides for each image: of every group a coil image, and a sum, unless it goes into the output.
    fn spare(self) -> usize {
        (2 * self.groups() - 1) * self.item
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pass {
    Apply,
    Adjoint,
    Normal,
}

/// A, Aᴴ or AᴴA. Inputs: argument, maps, mask columns. Outputs: value, and for Aᴴ and AᴴA [`Encode::spare`] numbers.
pub(super) struct Encode<'a> {
    pub(super) pass: Pass,
    pub(super) sizes: Sizes,
    pub(super) shape: &'a [usize],
    pub(super) kinds: &'a [Column],
    pub(super) lines: &'a Lines,
}

impl Encode<'_> {
    /// Complex numbers of the second output, for this many images.
    pub(super) fn spare(&self, images: usize) -> usize {
        if self.along_rows() { 0 } else { images.min(IMAGES) * self.sizes.spare() }
    }

    /// Whether AᴴA needs no transform along columns, since each of them is sampled evenly.
    fn along_rows(&self) -> bool {
        self.pass == Pass::Normal
            && self.shape.len() == 2
            && self.kinds.iter().all(|kind| *kind != Column::Varying)
    }
}

impl Kernel for Encode<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let along_rows = self.along_rows();
        let work = Encoding {
            plan: Plan::new(self.shape, Origin::Centre)?,
            sizes: self.sizes,
            kinds: self.kinds,
            lines: self.lines,
            maps: as_complex(inputs[1]),
            columns: inputs[2],
        };
        let input = as_complex(inputs[0]);
        let (out, rest) = outputs.split_first_mut().expect("a kernel has an output");
        let out = as_complex_mut(out);
        match self.pass {
            Pass::Apply => work.apply(input, out),
            _ if along_rows => work.normal_rows(input, out),
            pass => work.back(pass, input, out, as_complex_mut(rest[0])),
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        encode(gpu, self.pass, self.sizes, self.shape)
    }
}

/// The passes over memory of one launch.
pub(super) struct Encoding<'a, T: Real> {
    pub(super) plan: Plan<T>,
    pub(super) sizes: Sizes,
    kinds: &'a [Column],
    lines: &'a Lines,
    maps: &'a [Complex<T>],
    columns: &'a [T],
}

impl<T: Real> Encoding<'_, T> {
    /// The map of a coil for image number `image`.
    pub(super) fn map(&self, image: usize, coil: usize) -> &[Complex<T>] {
        let Sizes { coils, item, sets } = self.sizes;
        &self.maps[(image % sets * coils + coil) * item..][..item]
    }

    /// The weights of a column, in line order.
    pub(super) fn weights(&self, column: usize) -> &[T] {
        let length = self.plan.outer().length();
        &self.columns[column * length..(column + 1) * length]
    }

    fn apply(&self, x: &[Complex<T>], out: &mut [Complex<T>]) {
        let Sizes { coils, item, .. } = self.sizes;
        out.par_chunks_mut(item).enumerate().for_each(|(index, out)| {
            let (image, coil) = (index / coils, index % coils);
            let (x, map) = (&x[image * item..(image + 1) * item], self.map(image, coil));
            match self.lines {
                Lines::None => self.to_points(x, map, out),
                Lines::Columns(sampled) => self.to_columns(sampled, x, map, out),
                Lines::Rows => self.to_rows(x, map, out),
            }
        });
    }

    /// Aᴴ or AᴴA.
    fn back(&self, pass: Pass, input: &[Complex<T>], out: &mut [Complex<T>], spare: &mut [Complex<T>]) {
        let Sizes { coils, item, .. } = self.sizes;
        let groups = self.sizes.groups();
        for (batch, out) in out.chunks_mut(IMAGES * item).enumerate() {
            let spares = spare.par_chunks_mut(self.sizes.spare());
            out.par_chunks_mut(item).zip(spares).enumerate().for_each(|(i, (out, spare))| {
                let image = batch * IMAGES + i;
                let (coil_images, sums) = spare.split_at_mut(groups * item);
                let mut targets = vec![&mut *out];
                targets.extend(sums.chunks_exact_mut(item));
                let tasks = targets.par_iter_mut().zip(coil_images.par_chunks_mut(item));
                tasks.enumerate().for_each(|(group, (sum, coil_image))| {
                    for coil in group * COILS..coils.min((group + 1) * COILS) {
                        self.add_coil(pass, (image, coil), input, coil_image, sum);
                    }
                });
                for sum in sums.chunks_exact(item) {
                    out.iter_mut().zip(sum).for_each(|(o, v)| *o += *v);
                }
            });
        }
    }

    /// sum ← sum + what one coil contributes; the first of a group begins the sum.
    fn add_coil(
        &self,
        pass: Pass,
        (image, coil): (usize, usize),
        input: &[Complex<T>],
        coil_image: &mut [Complex<T>],
        sum: &mut [Complex<T>],
    ) {
        let Sizes { coils, item, .. } = self.sizes;
        let (map, first) = (self.map(image, coil), coil.is_multiple_of(COILS));
        if pass == Pass::Normal {
            let x = &input[image * item..][..item];
            if *self.lines == Lines::Rows {
                self.filter_rows(x, map, coil_image);
                return self.add_products(first, map, coil_image, sum);
            }
            self.filter(x, map, coil_image);
            return self.add_rows(first, map, coil_image, sum);
        }
        let y = &input[(image * coils + coil) * item..][..item];
        match self.lines {
            Lines::None => {
                self.back_from_points(y, coil_image);
                self.add_rows(first, map, coil_image, sum);
            }
            Lines::Columns(sampled) => self.add_columns(sampled, y, coil_image, (first, map, sum)),
            Lines::Rows => {
                self.back_from_rows(y, coil_image);
                self.add_products(first, map, coil_image, sum);
            }
        }
    }

    /// K-space of S_c x.
    fn to_points(&self, x: &[Complex<T>], map: &[Complex<T>], out: &mut [Complex<T>]) {
        let (axis, scale) = (self.plan.outer(), self.plan.scale());
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
    }

    /// The coil image before the transform of its rows, from k-space.
    fn back_from_points(&self, y: &[Complex<T>], coil_image: &mut [Complex<T>]) {
        let (axis, scale) = (self.plan.outer(), self.plan.scale());
        axis.columns(Some(y), coil_image, |column, line, scratch| {
            if self.kinds[column] == Column::Constant(0.0) {
                return line.fill(Complex::new(T::zero(), T::zero()));
            }
            weight(self.weights(column), scale, line);
            axis.line(Direction::Inverse, line, scratch);
        });
        self.plan.middle(Direction::Inverse, coil_image);
    }

    /// The coil image of Fᴴ M² F S_c x before the last transform of its rows.
    fn filter(&self, x: &[Complex<T>], map: &[Complex<T>], coil_image: &mut [Complex<T>]) {
        let (axis, scale) = (self.plan.outer(), self.plan.scale());
        // Without their transforms, evenly sampled columns lack the factor that F and Fᴴ have together.
        let length = T::of(axis.length() as f64);
        self.plan.inner(Direction::Forward, coil_image, |at, _: &[_], line: &mut [_]| {
            multiply(&x[at..], &map[at..], line);
        });
        axis.columns(None, coil_image, |column, line, scratch| match self.kinds[column] {
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
        self.plan.middle(Direction::Inverse, coil_image);
    }

    /// sum ← sum + conj(S_c) · (rows of the coil image transformed).
    fn add_rows(&self, first: bool, map: &[Complex<T>], coil_image: &[Complex<T>], sum: &mut [Complex<T>]) {
        let axis = self.plan.last();
        self.sum_rows(first, sum, |at, row, scratch| {
            let (source, map) = (&coil_image[at..], &map[at..]);
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
        let Sizes { coils, item, .. } = self.sizes;
        let axis = self.plan.last();
        let scale = T::of(1.0 / axis.length() as f64);
        let squared: Vec<T> = (0..axis.length())
            .map(|i| match self.kinds[(i + axis.origin()) % axis.length()] {
                Column::Constant(w) => T::of(w * w) * scale,
                Column::Varying => unreachable!("only where every column is constant"),
            })
            .collect();
        out.par_chunks_mut(item).enumerate().for_each(|(image, out)| {
            self.sum_rows(true, out, |at, row, scratch| {
                for coil in 0..coils {
                    let (x, map) = (&x[image * item + at..], &self.map(image, coil)[at..]);
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
                }
            });
        });
    }

    /// Calls `add(start of the row, row, scratch)` for each row of an image, cleared before if it is to `begin`.
    pub(super) fn sum_rows(
        &self,
        begin: bool,
        sum: &mut [Complex<T>],
        add: impl Fn(usize, &mut [Complex<T>], &mut [Complex<T>]) + Sync,
    ) {
        let axis = self.plan.last();
        let length = axis.length();
        sum.par_chunks_mut(ROWS * length).enumerate().for_each(|(block, rows)| {
            if begin {
                rows.fill(Complex::new(T::zero(), T::zero()));
            }
            axis.with_scratch(|scratch| {
                for (i, row) in rows.chunks_exact_mut(length).enumerate() {
                    add((block * ROWS + i) * length, row, scratch);
                }
            });
        });
    }
}
