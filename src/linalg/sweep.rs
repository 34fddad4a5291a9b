//! One pass over memory that updates arrays and adds up sums for each batch item.

use std::array::{from_mut, from_ref};

use rayon::prelude::*;

use crate::tensor::Real;
use crate::tensor::device::Program;
use crate::tensor::simd::{self, Task};

/// The methods' updates for a device.
pub(super) static PROGRAM: Program = Program { name: "linalg", source: include_str!("linalg.cu") };

/// Elements a task.
const CHUNK: usize = 1 << 13;

/// Calls `work(item, start, chunk)` on fixed chunks of every item of `out`, where `start` is the chunk's
/// place in the whole array, and adds what it returns, in order, for each item.
pub(super) fn sweep<T: Real, const N: usize>(
    out: &mut [T],
    items: usize,
    work: impl Fn(usize, usize, &mut [T]) -> [f64; N] + Sync,
) -> Vec<[f64; N]> {
    sweep2(out, &mut [], items, |item, start, out, _| work(item, start, out))
}

/// [`sweep`] over two arrays of the same length (the second may be empty).
pub(super) fn sweep2<T: Real, const N: usize>(
    first: &mut [T],
    second: &mut [T],
    items: usize,
    work: impl Fn(usize, usize, &mut [T], &mut [T]) -> [f64; N] + Sync,
) -> Vec<[f64; N]> {
    let size = (first.len() / items.max(1)).max(1);
    let per_item = size.div_ceil(CHUNK);
    let mut tasks: Vec<(&mut [T], &mut [T])> = Vec::with_capacity(per_item * items);
    let mut rest = second;
    for item in first.chunks_mut(size) {
        for chunk in item.chunks_mut(CHUNK) {
            let length = if rest.is_empty() { 0 } else { chunk.len() };
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(length);
            rest = tail;
            tasks.push((chunk, head));
        }
    }
    let place = |task: usize| (task / per_item, task / per_item * size + task % per_item * CHUNK);
    let partial: Vec<[f64; N]> = tasks
        .into_par_iter()
        .enumerate()
        .map(|(task, (first, second))| {
            let (item, start) = place(task);
            work(item, start, first, second)
        })
        .collect();
    let add = |parts: &[[f64; N]]| {
        let mut sums = [0.0; N];
        for part in parts {
            sums.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
        sums
    };
    partial.chunks(per_item).map(add).collect()
}

/// Eight running sums, so that the compiler can keep them in vector registers.
#[derive(Clone, Copy, Default)]
pub(super) struct Lanes([f64; 8]);

impl Lanes {
    #[inline(always)]
    pub(super) fn add(&mut self, index: usize, value: f64) {
        self.0[index % 8] += value;
    }
    pub(super) fn total(self) -> f64 {
        self.0.iter().sum()
    }
}

/// x ← x + ρ (x̃ − x) in vector registers, and the sums Σ (x̃ − x)² and Σ x̃²; x̃ is `next`, or x + σ v projected:
/// factor · (x + σ v) with `next` as v.
pub(crate) struct Towards<'a, T> {
    pub(crate) rho: T,
    pub(crate) next: &'a [T],
    /// σ, and the factors of the projection.
    pub(crate) factors: Option<(T, &'a [T])>,
    pub(crate) x: &'a mut [T],
}

impl<T: Real> Task<T> for Towards<'_, T> {
    type Output = [f64; 2];
    #[inline(always)]
    unsafe fn run<L: simd::Lanes<Scalar = T>>(self) -> [f64; 2] {
        let Self { rho, next, factors, x } = self;
        let mut sums = [[0.0; 8]; 2];
        let (next, last) = next.as_chunks::<8>();
        let (x, tail) = x.as_chunks_mut::<8>();
        match factors {
            None => {
                next.iter().zip(x).for_each(|(next, x)| towards(rho, next, x, &mut sums));
                last.iter()
                    .zip(tail)
                    .for_each(|(next, x)| towards(rho, from_ref(next), from_mut(x), &mut sums));
            }
            Some((sigma, factors)) => {
                let (factors, ends) = factors.as_chunks::<8>();
                for ((v, factor), x) in next.iter().zip(factors).zip(x) {
                    let next = std::array::from_fn(|l| factor[l] * (x[l] + sigma * v[l]));
                    towards(rho, &next, x, &mut sums);
                }
                for ((v, factor), x) in last.iter().zip(ends).zip(tail) {
                    towards(rho, &[*factor * (*x + sigma * *v)], from_mut(x), &mut sums);
                }
            }
        }
        sums.map(|sum| sum.iter().sum())
    }
}

#[inline(always)]
fn towards<T: Real, const N: usize>(
    rho: T,
    next: &[T; N],
    x: &mut [T; N],
    [moved, total]: &mut [[f64; 8]; 2],
) {
    for l in 0..N {
        let off = next[l] - x[l];
        moved[l] += (off * off).as_f64();
        total[l] += (next[l] * next[l]).as_f64();
        x[l] += rho * off;
    }
}
