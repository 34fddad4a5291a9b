//! Maps and sums over elements, with columns that are constant or repeat over items.

use rayon::prelude::*;

use crate::error::Result;
use crate::functional::group::PROGRAM;
use crate::linalg::Steps;
use crate::tensor::device::{Argument, Gpu, arguments};
use crate::tensor::{Buffer, Kernel, Real, launch};
use candle_core::Tensor;

/// Elements a task.
pub(super) const CHUNK: usize = 1 << 12;

/// One number for each element of an item: a constant, or a tensor that repeats over the items.
#[derive(Clone, Copy)]
pub(super) enum Column<'a> {
    Constant(f64),
    Each(&'a Tensor),
}

impl<'a> Column<'a> {
    pub(super) fn or(tensor: Option<&'a Tensor>, constant: f64) -> Self {
        tensor.map_or(Self::Constant(constant), Self::Each)
    }
}

impl<'a> From<Steps<'a>> for Column<'a> {
    fn from(steps: Steps<'a>) -> Self {
        match steps {
            Steps::Uniform(step) => Self::Constant(step),
            Steps::Each(each) => Self::Each(each),
        }
    }
}

/// A real function of an element and `N` columns.
pub(super) trait Pointwise<const N: usize>: Sync {
    fn at<T: Real>(&self, x: T, columns: [T; N]) -> T;
    /// The name of the same function in `functional.cu`, and its two constants.
    fn on_device(&self) -> (&'static str, [f64; 2]);
}

/// The columns as `functional.cu` takes them, always three.
fn three(gpu: &Gpu, constants: &[Option<f64>]) -> Vec<Argument> {
    let mut next = 0;
    let mut all = Vec::new();
    for k in 0..3 {
        match constants.get(k).copied().unwrap_or(Some(0.0)) {
            Some(value) => all.extend(arguments![0usize, 0usize, value]),
            None => {
                all.extend(arguments![gpu.input(next), gpu.input_len(next), 0.0]);
                next += 1;
            }
        }
    }
    all
}

/// x ← f(x, columns), element by element.
pub(super) fn map<const N: usize>(f: impl Pointwise<N>, columns: [Column; N], x: &mut Buffer) -> Result<()> {
    struct Map<F, const N: usize>(F, [Option<f64>; N]);
    impl<F: Pointwise<N>, const N: usize> Kernel for Map<F, N> {
        type Output = ();
        fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let period = inputs.iter().map(|c| c.len()).min().unwrap_or(outputs[0].len()).max(1);
            for (item, x) in outputs[0].chunks_mut(period).enumerate() {
                let view = Columns::new(self.1, &windows(inputs, item * period, x.len()));
                x.par_chunks_mut(CHUNK).enumerate().for_each(|(index, x)| {
                    let columns = view.at(index * CHUNK, x.len());
                    for (i, x) in x.iter_mut().enumerate() {
                        *x = self.0.at(*x, columns.map(|c| c[i]));
                    }
                });
            }
            Ok(())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
            let (name, [p, q]) = self.0.on_device();
            let n = gpu.output_len(0);
            let arguments = [arguments![gpu.output(0), n, p, q], &three(gpu, &self.1)].concat();
            Some(gpu.run(&PROGRAM, &format!("map_{name}"), n, &arguments))
        }
    }
    let (constants, tensors) = split(columns);
    launch(Map(f, constants), &tensors, &mut [x])
}

/// Σ f(x, columns) over the elements of each of `items` equal parts.
pub(super) fn sum<const N: usize>(
    f: impl Pointwise<N>,
    columns: [Column; N],
    x: &Tensor,
    items: usize,
) -> Result<Vec<f64>> {
    struct Sum<F, const N: usize>(F, [Option<f64>; N], usize);
    impl<F: Pointwise<N>, const N: usize> Kernel for Sum<F, N> {
        type Output = Vec<f64>;
        fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<Vec<f64>> {
            let Some((x, columns)) = inputs.split_last() else { return Ok(Vec::new()) };
            let size = (x.len() / self.2).max(1);
            let total = |(item, x): (usize, &[T])| {
                let view = Columns::new(self.1, &windows(columns, item * size, x.len()));
                let part = |(index, x): (usize, &[T])| {
                    let columns = view.at(index * CHUNK, x.len());
                    let value = |(i, x): (usize, &T)| self.0.at(*x, columns.map(|c| c[i])).as_f64();
                    x.iter().enumerate().map(value).sum::<f64>()
                };
                x.par_chunks(CHUNK).enumerate().map(part).collect::<Vec<f64>>().iter().sum()
            };
            Ok(x.chunks(size).enumerate().map(total).collect())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<Vec<f64>>> {
            let (name, [p, q]) = self.0.on_device();
            let x = gpu.inputs() - 1;
            let arguments = [arguments![gpu.input(x), p, q], &three(gpu, &self.1)].concat();
            let shape = (self.2, gpu.input_len(x) / self.2, 1);
            let sums = gpu.reduce(&PROGRAM, &format!("sum_{name}"), shape, &arguments);
            Some(sums.map(|mut sums| sums.remove(0)))
        }
    }
    let (constants, mut tensors) = split(columns);
    tensors.push(x);
    launch(Sum(f, constants, items.max(1)), &tensors, &mut [])
}

/// The part of every column that belongs to elements `start..start + length`; columns repeat.
fn windows<'a, T>(columns: &[&'a [T]], start: usize, length: usize) -> Vec<&'a [T]> {
    columns.iter().map(|c| &c[start % c.len()..][..length]).collect()
}

fn split<'a, const N: usize>(columns: [Column<'a>; N]) -> ([Option<f64>; N], Vec<&'a Tensor>) {
    let constants = columns.map(|c| if let Column::Constant(value) = c { Some(value) } else { None });
    let tensors = columns.iter().filter_map(|c| if let Column::Each(x) = c { Some(*x) } else { None });
    (constants, tensors.collect())
}

/// Columns as slices, so that one loop, which the compiler vectorises, serves every mixture: constants
/// are spread over one chunk.
struct Columns<'a, T, const N: usize> {
    constants: [Vec<T>; N],
    slices: [Option<&'a [T]>; N],
}

impl<'a, T: Real, const N: usize> Columns<'a, T, N> {
    fn new(constants: [Option<f64>; N], slices: &[&'a [T]]) -> Self {
        let mut next = slices.iter();
        Self {
            slices: constants.map(|c| if c.is_none() { next.next().copied() } else { None }),
            constants: constants.map(|c| c.map_or(Vec::new(), |value| vec![T::of(value); CHUNK])),
        }
    }

    fn at(&self, start: usize, length: usize) -> [&[T]; N] {
        std::array::from_fn(|k| match self.slices[k] {
            Some(slice) => &slice[start..start + length],
            None => &self.constants[k][..length],
        })
    }
}
