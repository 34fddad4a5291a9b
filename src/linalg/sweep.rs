//! One pass over memory that updates arrays and adds up sums for each batch item.

use rayon::prelude::*;

use crate::tensor::Real;
use crate::tensor::device::Program;

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
