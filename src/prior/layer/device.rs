//! Fused layers on a device, for networks that are evaluated without gradients.

use candle_core::Tensor;

use crate::error::Result;
use crate::prior::Precision;
use crate::prior::kernel::conv::Geometry;
use crate::prior::kernel::map::Shape;
use crate::prior::kernel::norm::Norm;
use crate::tensor::device::{Gpu, Program, arguments};
use crate::tensor::{Buffer, Kernel, Real, launch};

static PROGRAM: Program = Program { name: "layer", source: include_str!("layer.cu") };

/// Pixels that a block adds up.
const CHUNK: usize = 256;

/// f(γ x̂ + β) of a contiguous x [images, height, width, channels], γ and β [images, channels].
pub(super) fn normalise(norm: &Norm, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let mut out = Buffer::zeros(x.dims(), x.dtype(), x.device())?;
    let kernel = Fused { norm, images, pixels: height * width, channels };
    launch(kernel, &[x, gamma, beta], &mut [&mut out])?;
    Ok(out.freeze())
}

struct Fused<'a> {
    norm: &'a Norm,
    images: usize,
    pixels: usize,
    channels: usize,
}

impl Kernel for Fused<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Self { norm, pixels, channels, .. } = self;
        let width = channels / norm.groups;
        let items = inputs[0].chunks(pixels * channels).zip(outputs[0].chunks_mut(pixels * channels));
        for (image, (x, out)) in items.enumerate() {
            for group in 0..norm.groups {
                let members = || {
                    let place = move |i: usize| i / width * channels + group * width + i % width;
                    (0..pixels * width).map(place)
                };
                let count = (pixels * width) as f64;
                let mean = members().map(|i| x[i].as_f64()).sum::<f64>() / count;
                let variance = members().map(|i| (x[i].as_f64() - mean).powi(2)).sum::<f64>() / count;
                let scale = 1.0 / (variance + norm.epsilon).sqrt();
                for i in members() {
                    let c = image * channels + i % channels;
                    let y = inputs[1][c].as_f64() * (x[i].as_f64() - mean) * scale + inputs[2][c].as_f64();
                    out[i] = T::of(if norm.silu { y / (1.0 + (-y).exp()) } else { y });
                }
            }
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let Self { norm, images, pixels, channels } = *self;
        let (pieces, groups) = (pixels.div_ceil(CHUNK), norm.groups);
        let work = || {
            // Two doubles a channel, in elements of either type.
            let partial = gpu.scratch(images * pieces * channels * 4)?;
            let statistics = gpu.scratch(images * groups * 4)?;
            let sums = arguments![gpu.input(0), partial, pixels, channels, CHUNK, pieces];
            gpu.run_blocks(&PROGRAM, "channel_sums", images * pieces, sums)?;
            let all = arguments![partial, statistics, pixels, channels, pieces, groups, norm.epsilon];
            gpu.run_blocks(&PROGRAM, "statistics", images * groups, all)?;
            let n = gpu.output_len(0);
            let arrays = arguments![gpu.input(0), gpu.input(1), gpu.input(2), gpu.output(0), statistics];
            let sizes = arguments![n, pixels, channels, groups, norm.silu];
            gpu.run(&PROGRAM, "normalise", n, &[arrays, sizes].concat())
        };
        Some(work())
    }
}

/// Elements of the matrix that a convolution makes of some images at once: 1 GiB in f32.
const COLUMNS: usize = 1 << 28;

/// The convolution of a contiguous x [images, height, width, inputs]: every pixel's neighbourhood becomes a row, and the
/// rows are multiplied by `weight` [size² · inputs, outputs].
pub(super) fn convolve(
    geometry: Geometry,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    precision: Precision,
) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let to = geometry.output(Shape { images, height, width, channels });
    let weight = precision.factor(weight)?;
    let row = geometry.size * geometry.size * channels;
    let pixels = to.height * to.width;
    let at_once = (COLUMNS / (pixels * row)).clamp(1, images);
    let mut parts = Vec::new();
    for first in (0..images).step_by(at_once) {
        let count = at_once.min(images - first);
        let part = x.narrow(0, first, count)?.contiguous()?;
        let rows = if geometry.size == 1 && geometry.stride == 1 {
            part.reshape((count * pixels, channels))?
        } else {
            let mut out = Buffer::zeros(&[count * pixels, row], x.dtype(), x.device())?;
            launch(
                Columns(geometry, Shape { images: count, height, width, channels }),
                &[&part],
                &mut [&mut out],
            )?;
            out.freeze()
        };
        let y = precision.product(precision.factor(&rows)?.matmul(&weight)?)?;
        parts.push(y.broadcast_add(bias)?);
    }
    let all = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0)? };
    Ok(all.reshape(&to.dims()[..])?)
}

/// The neighbourhoods [pixels, taps · channels] of a map.
struct Columns(Geometry, Shape);

impl Kernel for Columns {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Self(g, from) = self;
        let (to, c) = (g.output(from), from.channels);
        for (place, out) in outputs[0].chunks_mut(c).enumerate() {
            let (pixel, tap) = (place / (g.size * g.size), place % (g.size * g.size));
            let (line, column) = (pixel / to.width, pixel % to.width);
            let (image, row) = (line / to.height, line % to.height);
            let y = (row * g.stride + tap / g.size).checked_sub(g.before).filter(|y| *y < from.height);
            let x = (column * g.stride + tap % g.size).checked_sub(g.before).filter(|x| *x < from.width);
            match (y, x) {
                (Some(y), Some(x)) => {
                    out.copy_from_slice(&inputs[0][((image * from.height + y) * from.width + x) * c..][..c]);
                }
                _ => out.fill(T::zero()),
            }
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let Self(g, from) = *self;
        let (to, n) = (g.output(from), gpu.output_len(0));
        let sizes = arguments![n, from.height, from.width, from.channels, to.height, to.width];
        let taps = arguments![g.size, g.stride, g.before];
        let arrays = arguments![gpu.input(0), gpu.output(0)];
        Some(gpu.run(&PROGRAM, "columns", n, &[arrays, sizes, taps].concat()))
    }
}
