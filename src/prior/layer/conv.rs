//! Convolutions.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result as CandleResult, Shape, Tensor};

use super::ops::{done, map, read, slice};
use super::tape::{apply1, apply3};
use super::{Fetch, device};
use crate::error::{Error, Result};
use crate::prior::kernel::conv::{self, Geometry, weight_gradient};
use crate::prior::kernel::map::{self as maps, Map};
use crate::prior::{Precision, precision};
use crate::tensor::Real;

/// A convolution with kernels of size 1 or 3.
#[derive(Debug)]
pub struct Conv {
    geometry: Geometry,
    weight: Tensor,
    bias: Tensor,
    /// The kernel of constant weights, and what stands for it on a device.
    ready: OnceLock<Arc<conv::Conv>>,
    matrix: OnceLock<Tensor>,
}

impl Conv {
    /// Kernels `size` × `size` that keep the image's size; weights NAME.weight and NAME.bias.
    pub fn load(name: &str, channels: [usize; 2], size: usize, fetch: &mut Fetch) -> Result<Self> {
        let [inputs, outputs] = channels;
        Self::with(
            name,
            Geometry { inputs, outputs, size, stride: 1, before: size / 2, after: size / 2 },
            fetch,
        )
    }

    /// 3 × 3 kernels at every second pixel, with `before` zeros before the image and one behind.
    pub fn strided(
        name: &str,
        channels: [usize; 2],
        before: usize,
        after: usize,
        fetch: &mut Fetch,
    ) -> Result<Self> {
        let [inputs, outputs] = channels;
        Self::with(name, Geometry { inputs, outputs, size: 3, stride: 2, before, after }, fetch)
    }

    fn with(name: &str, geometry: Geometry, fetch: &mut Fetch) -> Result<Self> {
        let Geometry { inputs, outputs, size, .. } = geometry;
        let weight = fetch(&format!("{name}.weight"), &[outputs, inputs, size, size])?;
        Ok(Self::new(geometry, weight, fetch(&format!("{name}.bias"), &[outputs])?))
    }

    /// From weights [outputs, inputs, size, size] and a bias [outputs].
    pub fn new(geometry: Geometry, weight: Tensor, bias: Tensor) -> Self {
        Self { geometry, weight, bias, ready: OnceLock::new(), matrix: OnceLock::new() }
    }

    /// A 1 × 1 convolution.
    pub fn pointwise(weight: Tensor, bias: Tensor) -> Result<Self> {
        let (outputs, inputs) = (weight.dim(0)?, weight.dim(1)?);
        let geometry = Geometry { inputs, outputs, size: 1, stride: 1, before: 0, after: 0 };
        Ok(Self::new(geometry, weight.reshape((outputs, inputs, 1, 1))?, bias))
    }

    /// The convolution of x [images, height, width, inputs].
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let g = self.geometry;
        let (_, height, width, channels) = x.dims4()?;
        if channels != g.inputs || height.min(width) + g.before + g.after < g.size {
            let expected = format!("[images, height, width, {}], large enough for the kernel", g.inputs);
            return Err(Error::shape("argument of a convolution", expected, x.dims()));
        }
        let precision = precision();
        if !x.device().is_cpu() && !x.track_op() && !self.learns() {
            return device::convolve(g, &x.contiguous()?, self.matrix()?, &self.bias, precision);
        }
        if !x.device().is_cpu() || precision != Precision::F32 {
            return self.portable(x, precision);
        }
        // Weights may have been reshaped since they were fetched; biases are as they came.
        if self.learns() {
            let kernel = Arc::new(self.kernel()?);
            return apply3([x, &self.weight, &self.bias], Trained(kernel));
        }
        apply1(x, Constant(self.constant()?))
    }

    /// Whether the weights learn.
    pub(super) fn learns(&self) -> bool {
        self.bias.is_variable()
    }

    /// The kernel of constant weights.
    pub(super) fn constant(&self) -> Result<Arc<conv::Conv>> {
        if let Some(kernel) = self.ready.get() {
            return Ok(kernel.clone());
        }
        let kernel = Arc::new(self.kernel()?);
        Ok(self.ready.get_or_init(|| kernel).clone())
    }

    /// Constant weights as a matrix [size² · inputs, outputs].
    pub(super) fn matrix(&self) -> Result<&Tensor> {
        if let Some(matrix) = self.matrix.get() {
            return Ok(matrix);
        }
        let Geometry { inputs, outputs, size, .. } = self.geometry;
        let matrix =
            self.weight.permute((2, 3, 1, 0))?.contiguous()?.reshape((size * size * inputs, outputs))?;
        Ok(self.matrix.get_or_init(|| matrix))
    }

    fn kernel(&self) -> Result<conv::Conv> {
        Ok(conv::Conv::new(self.geometry, f32::to_vec(&self.weight)?, f32::to_vec(&self.bias)?))
    }

    /// The same by candle's operations, on any device and in any precision.
    pub(super) fn portable(&self, x: &Tensor, precision: Precision) -> Result<Tensor> {
        let Geometry { stride, before, after, .. } = self.geometry;
        let x = x.permute((0, 3, 1, 2))?;
        let x = x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?.contiguous()?;
        let y = precision.factor(&x)?.conv2d(&precision.factor(&self.weight)?, 0, stride, 1, 1)?;
        Ok(precision.product(y.permute((0, 2, 3, 1))?)?.broadcast_add(&self.bias)?)
    }
}

fn forward(kernel: &conv::Conv, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
    let x = map(x, layout)?;
    Ok(done(kernel.apply(x), &kernel.geometry().output(x.shape).dims()))
}

fn input_gradient(kernel: &Arc<conv::Conv>, x: &Tensor, g: &Tensor) -> CandleResult<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let shape = maps::Shape { images, height, width, channels };
    g.contiguous()?.apply_op1_no_bwd(&InputGradient(kernel.clone(), shape))
}

/// A convolution with constant weights.
struct Constant(Arc<conv::Conv>);

impl CustomOp1 for Constant {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        forward(&self.0, x, layout)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> CandleResult<Option<Tensor>> {
        Ok(Some(input_gradient(&self.0, x, g)?))
    }
}

/// A convolution whose weights learn.
struct Trained(Arc<conv::Conv>);

impl CustomOp3 for Trained {
    fn name(&self) -> &'static str {
        "trained convolution"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        forward(&self.0, x, layout)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let geometry = self.0.geometry();
        let (images, height, width, channels) = x.dims4()?;
        let shape = maps::Shape { images, height, width, channels };
        let (dw, db) = read([x, g], |[x, g]| {
            weight_gradient(geometry, Map::new(shape, x), Map::new(geometry.output(shape), g))
        })?;
        let dw = Tensor::from_vec(dw, weight.shape(), x.device())?;
        let db = Tensor::from_vec(db, bias.shape(), x.device())?;
        Ok((Some(input_gradient(&self.0, x, g)?), Some(dw), Some(db)))
    }
}

struct InputGradient(Arc<conv::Conv>, maps::Shape);

impl CustomOp1 for InputGradient {
    fn name(&self) -> &'static str {
        "input gradient of a convolution"
    }

    fn cpu_fwd(&self, g: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let g = Map::new(self.0.geometry().output(self.1), slice(g, layout)?);
        Ok(done(self.0.input_gradient(g, self.1), &self.1.dims()))
    }
}
