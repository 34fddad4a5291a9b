//! Feature maps, channels last, with storage that is used again.

use std::sync::{Arc, Mutex};

/// Buffers that a pool keeps: about as many as live at once in a forward pass; the oldest goes first.
const KEPT: usize = 32;

/// Storage for feature maps: a dropped [`Map`] gives its memory back, so that a network in steady state
/// allocates nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<f32>>>>);

impl Pool {
    /// A map of arbitrary contents.
    pub(super) fn map(&self, shape: Shape) -> Map {
        let wanted = shape.elements();
        let mut free = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let fits = |v: &Vec<f32>| v.len() >= wanted && v.len() <= 2 * wanted;
        let data = match free.iter().rposition(fits) {
            Some(index) => free.remove(index),
            None => vec![0.0; wanted],
        };
        Map { shape, data, pool: self.clone() }
    }
}

/// Images of a batch, height, width, channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
}

impl Shape {
    pub(super) fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Elements of one image.
    pub(super) fn image(self) -> usize {
        self.pixels() * self.channels
    }

    pub(super) fn elements(self) -> usize {
        self.images * self.image()
    }

    pub(super) fn with_channels(self, channels: usize) -> Self {
        Self { channels, ..self }
    }
}

/// A feature map [images, height, width, channels], row-major.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) shape: Shape,
    data: Vec<f32>,
    pool: Pool,
}

impl Drop for Map {
    fn drop(&mut self) {
        let mut free = self.pool.0.lock().unwrap_or_else(|e| e.into_inner());
        if free.len() == KEPT {
            free.remove(0);
        }
        free.push(std::mem::take(&mut self.data));
    }
}

impl Map {
    pub(super) fn data(&self) -> &[f32] {
        &self.data[..self.shape.elements()]
    }

    pub(super) fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.shape.elements()]
    }

    /// Another map from the same pool.
    pub(super) fn like(&self, shape: Shape) -> Map {
        self.pool.map(shape)
    }

    pub(super) fn copy(&self) -> Map {
        let mut out = self.like(self.shape);
        out.data_mut().copy_from_slice(self.data());
        out
    }

    /// self ← self + other.
    pub(super) fn add(&mut self, other: &Map) {
        self.data_mut().iter_mut().zip(other.data()).for_each(|(a, b)| *a += b);
    }

    /// The channels of `self`, then those of `other`.
    pub(super) fn concatenated(&self, other: &Map) -> Map {
        let (a, b) = (self.shape.channels, other.shape.channels);
        let mut out = self.like(self.shape.with_channels(a + b));
        let pixels = self.data().chunks_exact(a).zip(other.data().chunks_exact(b));
        for (out, (left, right)) in out.data_mut().chunks_exact_mut(a + b).zip(pixels) {
            out[..a].copy_from_slice(left);
            out[a..].copy_from_slice(right);
        }
        out
    }

    /// The first `channels` channels, and the rest: the adjoint of `concatenated`.
    pub(super) fn split(&self, channels: usize) -> (Map, Map) {
        let all = self.shape.channels;
        let mut left = self.like(self.shape.with_channels(channels));
        let mut right = self.like(self.shape.with_channels(all - channels));
        let halves =
            left.data_mut().chunks_exact_mut(channels).zip(right.data_mut().chunks_exact_mut(all - channels));
        for (x, (left, right)) in self.data().chunks_exact(all).zip(halves) {
            left.copy_from_slice(&x[..channels]);
            right.copy_from_slice(&x[channels..]);
        }
        (left, right)
    }

    /// Every pixel four times: nearest-neighbour upsampling by 2.
    pub(super) fn doubled(&self) -> Map {
        let Shape { height, width, channels, .. } = self.shape;
        let mut out = self.like(Shape { height: 2 * height, width: 2 * width, ..self.shape });
        let line = width * channels;
        for (out, row) in out.data_mut().chunks_exact_mut(4 * line).zip(self.data().chunks_exact(line)) {
            let (first, second) = out.split_at_mut(2 * line);
            for (pair, pixel) in first.chunks_exact_mut(2 * channels).zip(row.chunks_exact(channels)) {
                pair[..channels].copy_from_slice(pixel);
                pair[channels..].copy_from_slice(pixel);
            }
            second.copy_from_slice(first);
        }
        out
    }

    /// Sums of 2 × 2 pixels: the adjoint of `doubled`.
    pub(super) fn halved_by_sums(&self) -> Map {
        let Shape { height, width, channels, .. } = self.shape;
        let mut out = self.like(Shape { height: height / 2, width: width / 2, ..self.shape });
        let line = width * channels;
        let rows = out.data_mut().chunks_exact_mut(line / 2);
        for (out, x) in rows.zip(self.data().chunks_exact(2 * line)) {
            for (c, out) in out.iter_mut().enumerate() {
                let at = c / channels * 2 * channels + c % channels;
                *out = x[at] + x[at + channels] + x[at + line] + x[at + line + channels];
            }
        }
        out
    }

    /// Zeros between the pixels, each pixel at the even places of twice the size.
    pub(super) fn spread(&self, height: usize, width: usize) -> Map {
        let Shape { height: h, width: w, channels, .. } = self.shape;
        let mut out = self.like(Shape { height, width, ..self.shape });
        out.data_mut().fill(0.0);
        let image = out.shape.image();
        for (out, x) in out.data_mut().chunks_exact_mut(image).zip(self.data().chunks_exact(h * w * channels))
        {
            for (index, pixel) in x.chunks_exact(channels).enumerate() {
                let at = (index / w * 2 * width + index % w * 2) * channels;
                out[at..at + channels].copy_from_slice(pixel);
            }
        }
        out
    }
}
