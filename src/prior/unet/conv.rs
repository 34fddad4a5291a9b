//! Convolutions with their input gradients. Weights are transformed once: Winograd's form for 3 × 3 kernels of
//! stride 1, packed matrices for the others (patches are gathered block by block, never as a whole).

use std::cell::RefCell;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::gemm::Packed;
use super::map::{Map, Shape};
use super::winograd::{Plane, Winograd};

/// Output pixels a task of the gathering form.
const BLOCK: usize = 24;

/// A convolution with kernels [out][in][size][size], zero padding size/2, stride 1 or 2.
///
/// Maps may have more channels than the kernels where these are no multiple of 16: outputs are rounded up, the
/// added channels zero.
#[derive(Debug)]
pub(super) struct Conv {
    size: usize,
    stride: usize,
    inputs: usize,
    outputs: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
    forward: Form,
    backward: OnceLock<Form>,
}

#[derive(Debug)]
enum Form {
    Winograd(Winograd),
    Gather(Packed),
}

impl Conv {
    /// From weights [out][in][size][size] and a bias [out].
    pub(super) fn new(weights: Vec<f32>, mut bias: Vec<f32>, size: usize, stride: usize) -> Self {
        let outputs = bias.len();
        let inputs = weights.len() / (outputs * size * size);
        let at = |out: usize, input: usize, r: usize, c: usize| -> f32 {
            weights[((out * inputs + input) * size + r) * size + c]
        };
        let forward = if size == 3 && stride == 1 && inputs.is_multiple_of(16) {
            Form::Winograd(Winograd::new(
                outputs,
                inputs,
                |o, i, r, c| if o < outputs { at(o, i, r, c) } else { 0.0 },
            ))
        } else {
            Form::Gather(Packed::new(size * size * inputs, outputs, |row, out| {
                at(out, row % inputs, row / inputs / size, row / inputs % size)
            }))
        };
        bias.resize(outputs.next_multiple_of(16), 0.0);
        Self { size, stride, inputs, outputs, weights, bias, forward, backward: OnceLock::new() }
    }

    /// Output channels, rounded up to a multiple of 16.
    pub(super) fn channels(&self) -> usize {
        self.bias.len()
    }

    /// The convolution of x.
    pub(super) fn apply(&self, x: &Map) -> Map {
        let halve = |n: usize| n.div_ceil(self.stride);
        let shape = Shape {
            height: halve(x.shape.height),
            width: halve(x.shape.width),
            channels: self.channels(),
            ..x.shape
        };
        let mut out = x.like(shape);
        self.run(x, &mut out, false);
        out
    }

    /// out ← out + the convolution of x (stride 1).
    pub(super) fn add_to(&self, x: &Map, out: &mut Map) {
        self.run(x, out, true);
    }

    fn run(&self, x: &Map, out: &mut Map, accumulate: bool) {
        match &self.forward {
            Form::Winograd(conv) => {
                let plane = Plane { height: x.shape.height, width: x.shape.width };
                conv.apply(x.data(), &self.bias, plane, accumulate, out.data_mut());
            }
            Form::Gather(packed) => gather(self, packed, x, out, accumulate),
        }
    }

    /// The adjoint: the gradient with respect to an input of height and width as in `shape`.
    pub(super) fn adjoint(&self, g: &Map, shape: Shape) -> Map {
        let form = self.backward.get_or_init(|| self.transposed());
        let spread;
        let g = if self.stride == 2 {
            spread = g.spread(shape.height, shape.width);
            &spread
        } else {
            g
        };
        let mut out = g.like(g.shape.with_channels(self.inputs.next_multiple_of(16)));
        let none = vec![0.0; out.shape.channels];
        match form {
            Form::Winograd(conv) => {
                let plane = Plane { height: g.shape.height, width: g.shape.width };
                conv.apply(g.data(), &none, plane, false, out.data_mut());
            }
            Form::Gather(packed) => {
                let (rows, c) = (g.shape.images * g.shape.pixels(), g.shape.channels);
                matrix(packed, rows, g.data(), c, &none, out.data_mut(), false);
            }
        }
        out
    }

    /// Flipped kernels with inputs and outputs exchanged.
    fn transposed(&self) -> Form {
        let (n, inputs, outputs) = (self.size, self.inputs, self.outputs);
        let at = |out: usize, input: usize, r: usize, c: usize| -> f32 {
            if out < outputs && input < inputs {
                self.weights[((out * inputs + input) * n + r) * n + c]
            } else {
                0.0
            }
        };
        if n == 1 {
            return Form::Gather(Packed::new(self.channels(), inputs, |row, column| at(row, column, 0, 0)));
        }
        Form::Winograd(Winograd::new(inputs, self.channels(), |o, i, r, c| at(i, o, n - 1 - r, n - 1 - c)))
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// out ← x B + bias (+ out), row by row.
fn matrix(
    b: &Packed,
    rows: usize,
    x: &[f32],
    stride: usize,
    bias: &[f32],
    out: &mut [f32],
    accumulate: bool,
) {
    assert!(rows * stride == x.len());
    let columns = b.columns;
    out.par_chunks_mut(BLOCK * columns).zip(x.par_chunks(BLOCK * stride)).for_each(|(out, x)| {
        let count = out.len() / columns;
        finish(b, count, x, stride, bias, out, accumulate);
    });
}

/// out ← a B + bias (+ out) for a block of rows.
fn finish(
    b: &Packed,
    count: usize,
    a: &[f32],
    stride: usize,
    bias: &[f32],
    out: &mut [f32],
    accumulate: bool,
) {
    if !accumulate {
        b.multiply(count, a, stride, out, b.columns);
        for pixel in out.chunks_exact_mut(b.columns) {
            pixel.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
        }
        return;
    }
    PRODUCT.with_borrow_mut(|product| {
        product.resize(product.len().max(out.len()), 0.0);
        b.multiply(count, a, stride, product, b.columns);
        for (pixel, sum) in out.chunks_exact_mut(b.columns).zip(product.chunks_exact(b.columns)) {
            pixel.iter_mut().zip(sum.iter().zip(bias)).for_each(|(o, (s, b))| *o += s + b);
        }
    });
}

thread_local! {
    static PRODUCT: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A convolution as a matrix product over gathered patches.
fn gather(conv: &Conv, b: &Packed, x: &Map, out: &mut Map, accumulate: bool) {
    let (size, stride, pad) = (conv.size, conv.stride, conv.size / 2);
    let Shape { height, width, channels, .. } = x.shape;
    if size == 1 && stride == 1 {
        return matrix(
            b,
            x.shape.images * x.shape.pixels(),
            x.data(),
            channels,
            &conv.bias,
            out.data_mut(),
            accumulate,
        );
    }
    let (out_width, out_image) = (out.shape.width, out.shape.image());
    let (depth, inputs) = (b.depth, conv.inputs);
    for (x, out) in x.data().chunks_exact(x.shape.image()).zip(out.data_mut().chunks_exact_mut(out_image)) {
        out.par_chunks_mut(BLOCK * b.columns).enumerate().for_each(|(block, out)| {
            SCRATCH.with_borrow_mut(|patches| {
                patches.resize(patches.len().max(BLOCK * depth), 0.0);
                let count = out.len() / b.columns;
                for (index, patch) in patches.chunks_exact_mut(depth).enumerate().take(count) {
                    let pixel = block * BLOCK + index;
                    let (row, column) = (pixel / out_width * stride, pixel % out_width * stride);
                    for (tap, patch) in patch.chunks_exact_mut(inputs).enumerate() {
                        let y = (row + tap / size).wrapping_sub(pad);
                        let z = (column + tap % size).wrapping_sub(pad);
                        if y < height && z < width {
                            patch.copy_from_slice(&x[(y * width + z) * channels..][..inputs]);
                        } else {
                            patch.fill(0.0);
                        }
                    }
                }
                finish(b, count, patches, depth, &conv.bias, out, accumulate);
            });
        });
    }
}
