//! Multi-head self-attention over pixels, in blocks: the matrix of weights of all pairs never exists.

use rayon::prelude::*;

use super::gemm::Packed;
use super::map::Map;
use super::simd::exp;
use crate::tensor::memory::zeros;

/// Queries a task, and keys a block.
const QUERIES: usize = 24;
const KEYS: usize = 256;

/// Softmax attention of one head of one image: where its q, k, v lie in the map [pixels, 3 · channels].
struct Head<'a> {
    pixels: usize,
    channels: usize,
    size: usize,
    start: usize,
    qkv: &'a [f32],
    /// For each block of keys: its first key, (K/√d)ᵀ and V.
    blocks: Vec<(usize, Packed, Packed)>,
}

impl<'a> Head<'a> {
    fn new(qkv: &'a [f32], channels: usize, size: usize, head: usize) -> Self {
        let pixels = qkv.len() / (3 * channels);
        let start = head * size;
        let at =
            |which: usize, pixel: usize, j: usize| qkv[pixel * 3 * channels + which * channels + start + j];
        let scale = 1.0 / (size as f32).sqrt();
        let block = |first: usize| {
            let count = KEYS.min(pixels - first);
            let keys = Packed::new(size, count, |j, key| at(1, first + key, j) * scale);
            let values = Packed::new(count, size, |key, j| at(2, first + key, j));
            (first, keys, values)
        };
        let blocks = (0..pixels).step_by(KEYS).map(block).collect();
        Self { pixels, channels, size, start, qkv, blocks }
    }

    /// Attention of the queries from `first`, [queries, size] with rows of `stride`; and for each query the
    /// maximum and the sum of its weights' exponentials.
    fn forward(&self, first: usize, out: &mut [f32], stride: usize) -> Vec<(f32, f32)> {
        let count = QUERIES.min(self.pixels - first);
        let queries = &self.qkv[first * 3 * self.channels + self.start..];
        let mut stats = vec![(f32::NEG_INFINITY, 0f32); count];
        let mut scores = vec![0.0; count * KEYS];
        let mut part = vec![0.0; count * stride];
        out[..count * stride].fill(0.0);
        for (start, keys, values) in &self.blocks {
            let n = KEYS.min(self.pixels - start);
            keys.multiply(count, queries, 3 * self.channels, &mut scores, KEYS);
            let rows = stats.iter_mut().zip(out.chunks_exact_mut(stride));
            for (row, ((top, total), out)) in scores.chunks_exact_mut(KEYS).zip(rows) {
                let highest = row[..n].iter().fold(*top, |a, b| a.max(*b));
                let shrink = if *top == highest { 1.0 } else { exp(*top - highest) };
                row[..n].iter_mut().for_each(|s| *s = exp(*s - highest));
                *total = *total * shrink + row[..n].iter().sum::<f32>();
                *top = highest;
                out.iter_mut().for_each(|o| *o *= shrink);
            }
            values.multiply(count, &scores, KEYS, &mut part, stride);
            out.iter_mut().zip(&part).for_each(|(o, p)| *o += p);
        }
        for (out, (_, total)) in out.chunks_exact_mut(stride).zip(&stats) {
            out.iter_mut().for_each(|o| *o /= total);
        }
        stats
    }

    /// Gradients [pixels, 3 · size] (q, k, v of this head) of `g`, the gradient of the whole output.
    fn adjoint(&self, g: &[f32]) -> Vec<f32> {
        let (d, stride) = (self.size, self.size.next_multiple_of(16));
        let mut out = vec![0.0; self.pixels * 3 * d];
        let scale = 1.0 / (d as f32).sqrt();
        for first in (0..self.pixels).step_by(QUERIES) {
            let count = QUERIES.min(self.pixels - first);
            let mut value = vec![0.0; QUERIES * stride];
            let stats = self.forward(first, &mut value, stride);
            let of_query = |i: usize, j: usize| g[(first + i) * self.channels + self.start + j];
            let along: Vec<f32> =
                (0..count).map(|i| (0..d).map(|j| of_query(i, j) * value[i * stride + j]).sum()).collect();
            let queries = &self.qkv[first * 3 * self.channels + self.start..];
            let at = |which: usize, pixel: usize, j: usize| {
                self.qkv[pixel * 3 * self.channels + which * self.channels + self.start + j]
            };
            let cotangents = Packed::new(count, d, of_query);
            let query_rows = Packed::new(count, d, |i, j| at(0, first + i, j) * scale);
            for (start, keys, _) in &self.blocks {
                let n = KEYS.min(self.pixels - start);
                let mut p = vec![0.0; count * KEYS];
                keys.multiply(count, queries, 3 * self.channels, &mut p, KEYS);
                for (row, (top, total)) in p.chunks_exact_mut(KEYS).zip(&stats) {
                    row[..n].iter_mut().for_each(|s| *s = exp(*s - top) / total);
                }
                // dS = P ∘ (dO Vᵀ − rowsum(dO ∘ O)); dQ = dS K/√d; dK = dSᵀ Q/√d; dV = Pᵀ dO.
                let values = Packed::new(d, n, |j, key| at(2, start + key, j));
                let mut ds = vec![0.0; count * KEYS];
                values.multiply(
                    count,
                    &g[first * self.channels + self.start..],
                    self.channels,
                    &mut ds,
                    KEYS,
                );
                for (i, (ds, p)) in ds.chunks_exact_mut(KEYS).zip(p.chunks_exact(KEYS)).enumerate() {
                    ds[..n].iter_mut().zip(p).for_each(|(s, p)| *s = p * (*s - along[i]));
                }
                let key_rows = Packed::new(n, d, |key, j| at(1, start + key, j) * scale);
                let mut dq = vec![0.0; count * stride];
                key_rows.multiply(count, &ds, KEYS, &mut dq, stride);
                add_rows(&mut out[first * 3 * d..], 3 * d, &dq, stride, count, d);
                let flip = |m: &[f32]| -> Vec<f32> {
                    (0..n * count).map(|i| m[i % count * KEYS + i / count]).collect()
                };
                let mut dk = vec![0.0; n * stride];
                query_rows.multiply(n, &flip(&ds), count, &mut dk, stride);
                add_rows(&mut out[start * 3 * d + d..], 3 * d, &dk, stride, n, d);
                cotangents.multiply(n, &flip(&p), count, &mut dk, stride);
                add_rows(&mut out[start * 3 * d + 2 * d..], 3 * d, &dk, stride, n, d);
            }
        }
        out
    }
}

fn add_rows(to: &mut [f32], to_stride: usize, from: &[f32], from_stride: usize, rows: usize, columns: usize) {
    for row in 0..rows {
        let to = &mut to[row * to_stride..][..columns];
        to.iter_mut().zip(&from[row * from_stride..]).for_each(|(a, b)| *a += b);
    }
}

fn heads<'a>(qkv: &Map<'a>, heads: usize) -> Vec<Head<'a>> {
    let channels = qkv.shape.channels / 3;
    let image = qkv.shape.image();
    let data = qkv.data;
    (0..qkv.shape.images * heads)
        .into_par_iter()
        .map(|i| Head::new(&data[i / heads * image..][..image], channels, channels / heads, i % heads))
        .collect()
}

/// softmax(Q Kᵀ/√d) V for the map [q, k, v] of 3 · channels.
pub fn attend(qkv: Map, count: usize) -> Vec<f32> {
    let channels = qkv.shape.channels / 3;
    let (size, stride) = (channels / count, (channels / count).next_multiple_of(16));
    let shape = qkv.shape.with_channels(channels);
    let mut out = zeros(shape.elements());
    let heads = heads(&qkv, count);
    out.par_chunks_exact_mut(shape.image()).enumerate().for_each(|(index, out)| {
        out.par_chunks_mut(QUERIES * channels).enumerate().for_each(|(block, out)| {
            let mut values = vec![0.0; QUERIES * stride];
            let rows = out.len() / channels;
            for (h, head) in heads[index * count..][..count].iter().enumerate() {
                head.forward(block * QUERIES, &mut values[..rows * stride], stride);
                for (out, value) in out.chunks_exact_mut(channels).zip(values.chunks_exact(stride)) {
                    out[h * size..][..size].copy_from_slice(&value[..size]);
                }
            }
        });
    });
    out
}

/// The gradient with respect to [q, k, v].
pub fn attend_adjoint(qkv: Map, count: usize, g: Map) -> Vec<f32> {
    let channels = qkv.shape.channels / 3;
    let size = channels / count;
    let mut out = zeros(qkv.shape.elements());
    let heads = heads(&qkv, count);
    out.par_chunks_exact_mut(qkv.shape.image()).enumerate().for_each(|(index, out)| {
        let g = &g.data[index * g.shape.image()..][..g.shape.image()];
        let parts: Vec<Vec<f32>> = heads[index * count..][..count].par_iter().map(|h| h.adjoint(g)).collect();
        for (h, part) in parts.iter().enumerate() {
            for (out, part) in out.chunks_exact_mut(3 * channels).zip(part.chunks_exact(3 * size)) {
                for which in 0..3 {
                    out[which * channels + h * size..][..size].copy_from_slice(&part[which * size..][..size]);
                }
            }
        }
    });
    out
}
