//! Separable linear resampling: nearest-neighbour doubling, halving by means, and the FIR filters of StyleGAN2. Folding
//! of squares of pixels into channels.

use rayon::prelude::*;

use super::map::{Map, Shape};
use crate::tensor::memory::zeros;

/// A sparse matrix along one axis.
#[derive(Clone, Debug)]
pub struct Taps {
    /// Length of the input.
    pub inputs: usize,
    /// For each output the inputs that it takes, with their weights.
    pub rows: Vec<Vec<(usize, f32)>>,
}

impl Taps {
    /// From weights `at(output)` of (input, weight), where inputs outside are zero.
    fn new(inputs: usize, outputs: usize, at: impl Fn(isize) -> Vec<(isize, f32)>) -> Self {
        let inside = |(i, w): (isize, f32)| usize::try_from(i).ok().filter(|i| *i < inputs).map(|i| (i, w));
        let rows = (0..outputs as isize).map(|o| at(o).into_iter().filter_map(inside).collect()).collect();
        Self { inputs, rows }
    }

    /// The transposed matrix.
    pub fn transposed(&self) -> Self {
        let mut rows = vec![Vec::new(); self.inputs];
        for (output, row) in self.rows.iter().enumerate() {
            row.iter().for_each(|(input, weight)| rows[*input].push((output, *weight)));
        }
        Self { inputs: self.rows.len(), rows }
    }
}

/// Which resampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resampling {
    /// Every pixel four times.
    Doubled,
    /// Means of 2 × 2 pixels.
    Halved,
    /// Zeros in between, then the filter [1, 3, 3, 1]/4 on each axis.
    FirDoubled,
    /// The filter [1, 3, 3, 1]/8 on each axis, then every second pixel.
    FirHalved,
    /// The filter alone, from 1 pixel before the image to 1 behind it: one pixel more on each axis.
    FirWidened,
}

impl Resampling {
    /// Its matrix along an axis of this length.
    pub fn taps(self, length: usize) -> Taps {
        let n = length;
        match self {
            Self::Doubled => Taps::new(n, 2 * n, |o| vec![(o / 2, 1.0)]),
            Self::Halved => Taps::new(n, n / 2, |o| vec![(2 * o, 0.5), (2 * o + 1, 0.5)]),
            Self::FirDoubled => Taps::new(n, 2 * n, |o| {
                let m = o / 2;
                vec![(if o % 2 == 0 { m - 1 } else { m + 1 }, 0.25), (m, 0.75)]
            }),
            Self::FirHalved => Taps::new(n, n / 2, |o| fir(2 * o - 1)),
            Self::FirWidened => Taps::new(n, n + 1, |o| fir(o - 2)),
        }
    }
}

/// [1, 3, 3, 1]/8 from `first`.
fn fir(first: isize) -> Vec<(isize, f32)> {
    [0.125, 0.375, 0.375, 0.125].into_iter().enumerate().map(|(j, w)| (first + j as isize, w)).collect()
}

/// The map with `rows` applied along the height and `columns` along the width.
pub fn resample(x: Map, rows: &Taps, columns: &Taps) -> Vec<f32> {
    let Shape { images, width, channels, .. } = x.shape;
    let line = columns.rows.len() * channels;
    let mut out = zeros(images * rows.rows.len() * line);
    out.par_chunks_exact_mut(line).enumerate().for_each(|(index, out)| {
        let image = &x.data[index / rows.rows.len() * x.shape.image()..][..x.shape.image()];
        for (y, a) in &rows.rows[index % rows.rows.len()] {
            let from = &image[y * width * channels..][..width * channels];
            for (out, taps) in out.chunks_exact_mut(channels).zip(&columns.rows) {
                for (x, b) in taps {
                    let (weight, pixel) = (a * b, &from[x * channels..][..channels]);
                    out.iter_mut().zip(pixel).for_each(|(o, v)| *o += weight * v);
                }
            }
        }
    });
    out
}

/// Images [images, planes, height · patch, width · patch] as a map of this shape: the squares of patch × patch pixels of
/// each plane become channels.
pub fn fold(x: &[f32], shape: Shape, patch: usize) -> Vec<f32> {
    let Shape { height, width, channels, .. } = shape;
    let planes = channels / (patch * patch);
    let mut out = zeros(shape.elements());
    out.par_chunks_exact_mut(width * channels).enumerate().for_each(|(index, out)| {
        let (image, y) = (index / height, index % height);
        for plane in 0..planes {
            let block = ((image * planes + plane) * height + y) * width * patch * patch;
            let lines = x[block..].chunks_exact(width * patch).take(patch);
            for (channel, line) in lines.enumerate().map(|(u, line)| ((plane * patch + u) * patch, line)) {
                for (pixel, square) in out.chunks_exact_mut(channels).zip(line.chunks_exact(patch)) {
                    pixel[channel..][..patch].copy_from_slice(square);
                }
            }
        }
    });
    out
}

/// The inverse of [`fold`].
pub fn unfold(x: Map, patch: usize) -> Vec<f32> {
    let Shape { height, width, channels, .. } = x.shape;
    let planes = channels / (patch * patch);
    let mut out = zeros(x.data.len());
    out.par_chunks_exact_mut(width * patch).enumerate().for_each(|(index, line)| {
        let (plane, y) = (index / (height * patch), index % (height * patch));
        let row = (plane / planes * height + y / patch) * width * channels;
        let channel = (plane % planes * patch + y % patch) * patch;
        for (square, pixel) in line.chunks_exact_mut(patch).zip(x.data[row..].chunks_exact(channels)) {
            square.copy_from_slice(&pixel[channel..][..patch]);
        }
    });
    out
}
