//! Convolutions with the gradients of input and weights. Weights are transformed once: Winograd's form for 3 × 3
//! kernels of stride 1, packed matrices for the others (patches are gathered block by block, never as a whole).

use std::cell::RefCell;
use std::sync::OnceLock;

use gemm::Parallelism;
use rayon::prelude::*;

use super::gemm::Packed;
use super::map::{Map, Shape, resize};
use super::winograd::{Epilogue, Plane, Winograd};
use crate::tensor::memory::zeros;

/// Output pixels a task of the gathering form.
const BLOCK: usize = 24;

/// The shape of a convolution with kernels [outputs][inputs][size][size], size 1 or 3, on an image with zeros
/// around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub inputs: usize,
    pub outputs: usize,
    pub size: usize,
    pub stride: usize,
    /// Zeros before the first row and column.
    pub before: usize,
    /// Zeros behind the last row and column.
    pub after: usize,
}

impl Geometry {
    /// The shape of the result for images of this shape, whose sides must be at least 1 with the zeros.
    pub fn output(&self, x: Shape) -> Shape {
        let side = |n: usize| (n + self.before + self.after - self.size) / self.stride + 1;
        Shape { height: side(x.height), width: side(x.width), channels: self.outputs, ..x }
    }

    /// Where output (0, 0) lies in the input: under the middle of the kernel.
    fn middle(&self) -> usize {
        self.size / 2 - self.before
    }

    fn keeps_size(&self) -> bool {
        self.stride == 1 && self.before == self.size / 2 && self.after == self.size / 2
    }
}

/// A convolution, ready to run.
#[derive(Debug)]
pub struct Conv {
    geometry: Geometry,
    weights: Vec<f32>,
    /// Rounded up by zeros to a multiple of 16 channels.
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
    /// From weights [outputs][inputs][size][size] and a bias [outputs].
    pub fn new(geometry: Geometry, weights: Vec<f32>, mut bias: Vec<f32>) -> Self {
        let Geometry { inputs, outputs, size, before, .. } = geometry;
        assert!((size == 1 || size == 3) && before <= size / 2);
        assert_eq!((weights.len(), bias.len()), (outputs * inputs * size * size, outputs));
        let forward = if size == 3 && geometry.keeps_size() && inputs.is_multiple_of(16) {
            Form::Winograd(Winograd::new(outputs, inputs, |o, i| kernel(&weights, o * inputs + i)))
        } else {
            Form::Gather(Packed::new(size * size * inputs, outputs, |row, out| {
                weights[(out * inputs + row % inputs) * size * size + row / inputs]
            }))
        };
        bias.resize(outputs.next_multiple_of(16), 0.0);
        Self { geometry, weights, bias, forward, backward: OnceLock::new() }
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The convolution of x.
    pub fn apply(&self, x: Map) -> Vec<f32> {
        let shape = self.geometry.output(x.shape);
        let channels = self.bias.len();
        let mut out = zeros(shape.with_channels(channels).elements());
        match &self.forward {
            Form::Winograd(conv) => {
                let plane = Plane { height: x.shape.height, width: x.shape.width };
                conv.apply(x.data, Epilogue::bias(&self.bias), plane, &mut out);
            }
            Form::Gather(packed) => self.gather(packed, x, shape, &mut out),
        }
        if channels == shape.channels { out } else { resize(&out, channels, shape.channels) }
    }

    /// Whether it is a 3 × 3 convolution of stride 1 whose channels all come in vectors.
    pub(super) fn is_plain(&self) -> bool {
        let Geometry { inputs, outputs, size, .. } = self.geometry;
        size == 3 && self.geometry.keeps_size() && inputs.is_multiple_of(16) && outputs.is_multiple_of(16)
    }

    /// Whether it is a 1 × 1 convolution of stride 1 whose channels all come in vectors.
    pub(super) fn is_pointwise(&self) -> bool {
        let Geometry { inputs, outputs, size, stride, .. } = self.geometry;
        size == 1 && stride == 1 && inputs.is_multiple_of(16) && outputs.is_multiple_of(16)
    }

    /// Into an array of the result's size; `base` is for plain convolutions alone.
    pub(super) fn apply_into(&self, x: Map, base: Option<&[f32]>, scale: f32, out: &mut [f32]) {
        run(&self.forward, x, Epilogue { bias: &self.bias, base, scale }, out);
    }

    /// The input gradient of a plain or pointwise convolution, times `scale`.
    pub(super) fn input_gradient_into(&self, g: Map, scale: f32, out: &mut [f32]) {
        let none = vec![0.0; self.geometry.inputs];
        let form = self.backward.get_or_init(|| self.transposed());
        run(form, g, Epilogue { bias: &none, base: None, scale }, out);
    }

    /// The gradient with respect to an input of this shape, of the gradient g of the result.
    pub fn input_gradient(&self, g: Map, x: Shape) -> Vec<f32> {
        let form = self.backward.get_or_init(|| self.transposed());
        let (channels, inputs) = (self.bias.len(), self.geometry.inputs);
        let wide;
        let g = if g.shape.channels == channels {
            g
        } else {
            wide = g.resized(channels);
            Map::new(g.shape.with_channels(channels), &wide)
        };
        let spread;
        let g = if self.geometry.keeps_size() {
            g
        } else {
            spread = g.spread(x.height, x.width, self.geometry.stride, self.geometry.middle());
            Map::new(x.with_channels(channels), &spread)
        };
        let padded = inputs.next_multiple_of(16);
        let mut out = zeros(x.with_channels(padded).elements());
        let none = vec![0.0; padded];
        run(form, g, Epilogue::bias(&none), &mut out);
        if padded == inputs { out } else { resize(&out, padded, inputs) }
    }

    /// Flipped kernels with inputs and outputs exchanged.
    fn transposed(&self) -> Form {
        let Geometry { inputs, outputs, size, .. } = self.geometry;
        let channels = self.bias.len();
        if size == 1 {
            return Form::Gather(Packed::new(channels, inputs, |o, i| {
                if o < outputs { self.weights[o * inputs + i] } else { 0.0 }
            }));
        }
        Form::Winograd(Winograd::new(inputs, channels, |i, o| {
            if o >= outputs {
                return [[0.0; 3]; 3];
            }
            let k = kernel(&self.weights, o * inputs + i);
            std::array::from_fn(|r| std::array::from_fn(|c| k[2 - r][2 - c]))
        }))
    }

    /// The convolution as a matrix product over gathered patches.
    fn gather(&self, b: &Packed, x: Map, shape: Shape, out: &mut [f32]) {
        let Geometry { inputs, size, stride, before, .. } = self.geometry;
        let Shape { height, width, channels, .. } = x.shape;
        if size == 1 && stride == 1 {
            return matrix(b, x.data, channels, &self.bias, out);
        }
        let image = shape.with_channels(b.columns).image();
        let columns = shape.width;
        for (x, out) in x.data.chunks_exact(x.shape.image()).zip(out.chunks_exact_mut(image)) {
            out.par_chunks_mut(BLOCK * b.columns).enumerate().for_each(|(block, out)| {
                SCRATCH.with_borrow_mut(|patches| {
                    patches.resize(patches.len().max(BLOCK * b.depth), 0.0);
                    let count = out.len() / b.columns;
                    for (index, patch) in patches.chunks_exact_mut(b.depth).enumerate().take(count) {
                        let pixel = block * BLOCK + index;
                        let (row, column) = (pixel / columns * stride, pixel % columns * stride);
                        for (tap, patch) in patch.chunks_exact_mut(inputs).enumerate() {
                            let y = (row + tap / size).wrapping_sub(before);
                            let z = (column + tap % size).wrapping_sub(before);
                            if y < height && z < width {
                                patch.copy_from_slice(&x[(y * width + z) * channels..][..inputs]);
                            } else {
                                patch.fill(0.0);
                            }
                        }
                    }
                    product(b, patches, b.depth, &self.bias, out);
                });
            });
        }
    }
}

/// A plain or pointwise convolution.
fn run(form: &Form, x: Map, end: Epilogue, out: &mut [f32]) {
    match form {
        Form::Winograd(conv) => {
            let plane = Plane { height: x.shape.height, width: x.shape.width };
            conv.apply(x.data, end, plane, out);
        }
        Form::Gather(packed) => {
            assert!(end.base.is_none() && end.scale == 1.0);
            matrix(packed, x.data, x.shape.channels, end.bias, out);
        }
    }
}

/// Kernel number `index` of an array of 3 × 3 kernels.
fn kernel(weights: &[f32], index: usize) -> [[f32; 3]; 3] {
    let k = &weights[9 * index..][..9];
    std::array::from_fn(|r| std::array::from_fn(|c| k[3 * r + c]))
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// out ← x B + bias, row by row.
fn matrix(b: &Packed, x: &[f32], stride: usize, bias: &[f32], out: &mut [f32]) {
    out.par_chunks_mut(BLOCK * b.columns)
        .zip(x.par_chunks(BLOCK * stride))
        .for_each(|(out, x)| product(b, x, stride, bias, out));
}

/// out ← a B + bias for a block of rows.
fn product(b: &Packed, a: &[f32], stride: usize, bias: &[f32], out: &mut [f32]) {
    b.multiply(out.len() / b.columns, a, stride, out, b.columns);
    for pixel in out.chunks_exact_mut(b.columns) {
        pixel.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
    }
}

/// The gradients with respect to weights and bias, of the gradient g of the result, summed over images.
///
/// For each tap of the kernel it is one matrix product, [inputs, pixels] · [pixels, outputs]: x and g lie on grids
/// with a margin of zeros and of equal width, where a tap is a shift.
pub fn weight_gradient(geometry: Geometry, x: Map, g: Map) -> (Vec<f32>, Vec<f32>) {
    let Geometry { inputs, outputs, size, stride, .. } = geometry;
    let margin = size / 2;
    let (height, width) = (x.shape.height + 2 * margin, x.shape.width + 2 * margin);
    let (image_x, image_g) = (height * width * inputs, height * width * outputs);
    let (wide_x, wide_g);
    let plain = margin == 0 && stride == 1;
    let (a, b) = if plain {
        (x.data, g.data)
    } else {
        wide_x = x.spread(height, width, 1, margin);
        wide_g = g.spread(height, width, stride, margin + geometry.middle());
        (&wide_x[..], &wide_g[..])
    };
    // Blocks of inputs: enough tasks for the threads, and always the same.
    let block = inputs.div_ceil(if size == 1 { 8 } else { 1 }).max(16).min(inputs);
    let blocks = inputs.div_ceil(block);
    let parts: Vec<Vec<f32>> = (0..size * size * blocks)
        .into_par_iter()
        .map(|task| {
            let (tap, first) = (task / blocks, task % blocks * block);
            let rows = block.min(inputs - first);
            // g at pixel p meets x at p + shift; p runs where both are inside the grid.
            let middle = margin * width + margin;
            let at = tap / size * width + tap % size;
            let (skip_x, skip_g) = (at.saturating_sub(middle), middle.saturating_sub(at));
            let depth = height * width - skip_x - skip_g;
            let mut out = vec![0.0f32; rows * outputs];
            for image in 0..x.shape.images {
                let left = &a[image * image_x + skip_x * inputs + first..];
                let right = &b[image * image_g + skip_g * outputs..][..depth * outputs];
                assert!(left.len() >= (depth - 1) * inputs + rows);
                // SAFETY: out is [rows, outputs], left [depth, rows] with rows of `inputs` elements, right
                // [depth, outputs]; the lengths are checked.
                unsafe {
                    gemm::gemm(
                        rows,
                        outputs,
                        depth,
                        out.as_mut_ptr(),
                        1,
                        outputs as isize,
                        image > 0,
                        left.as_ptr(),
                        inputs as isize,
                        1,
                        right.as_ptr(),
                        1,
                        outputs as isize,
                        1.0f32,
                        1.0f32,
                        false,
                        false,
                        false,
                        Parallelism::None,
                    );
                }
            }
            out
        })
        .collect();
    let mut weights = vec![0.0; outputs * inputs * size * size];
    for (task, part) in parts.iter().enumerate() {
        let (tap, first) = (task / blocks, task % blocks * block);
        for (row, values) in part.chunks_exact(outputs).enumerate() {
            for (o, value) in values.iter().enumerate() {
                weights[(o * inputs + first + row) * size * size + tap] = *value;
            }
        }
    }
    (weights, column_sums(g.data, outputs))
}

/// Σ of each channel over pixels and images.
fn column_sums(g: &[f32], channels: usize) -> Vec<f32> {
    const RUN: usize = 1024;
    let parts: Vec<Vec<f64>> = g
        .par_chunks(RUN * channels)
        .map(|run| {
            let mut sums = vec![0.0; channels];
            for pixel in run.chunks_exact(channels) {
                sums.iter_mut().zip(pixel).for_each(|(s, v)| *s += f64::from(*v));
            }
            sums
        })
        .collect();
    (0..channels).map(|c| parts.iter().map(|p| p[c]).sum::<f64>() as f32).collect()
}
