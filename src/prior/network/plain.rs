//! Plug-and-play denoisers: DnCNN (Zhang et al. 2017) and DRUNet (Zhang et al. 2021), by the names of KAIR's files.
//!
//! Both see data in [0, 1]. DRUNet gets the noise level as one more channel; DnCNN knows one level alone.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Graph;
use crate::error::{Error, Result};
use crate::prior::layer::{Conv, Fetch, add, concatenate, fold, relu, unfold};

/// A chain of 3 × 3 convolutions and ReLUs that gives the noise: x − D(x).
#[derive(Debug)]
pub struct DnCnn {
    channels: usize,
    layers: Vec<Conv>,
}

/// The shape of a DnCNN without batch normalisation (merge it into the convolutions).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct DnCnnConfig {
    /// Channels of the images.
    pub in_nc: usize,
    /// Channels inside.
    pub nc: usize,
    /// Convolutions.
    pub nb: usize,
    /// Noise level that the network was trained for, in units of [0, 1] data.
    pub sigma: f64,
}

impl Default for DnCnnConfig {
    fn default() -> Self {
        Self { in_nc: 1, nc: 64, nb: 17, sigma: 25.0 / 255.0 }
    }
}

impl DnCnn {
    /// The network with weights `model.0`, `model.2`, … from `fetch`.
    ///
    /// # Errors
    /// [`Error::Parameter`] for fewer than two convolutions; what `fetch` reports.
    pub fn new(config: &DnCnnConfig, fetch: &mut Fetch) -> Result<Self> {
        if config.nb < 2 || config.nc == 0 || config.in_nc == 0 {
            return Err(Error::parameter("nb", config.nb, "at least 2 convolutions with channels"));
        }
        let width = |layer: usize| if layer == 0 || layer == config.nb { config.in_nc } else { config.nc };
        let layer = |i: usize| Conv::load(&format!("model.{}", 2 * i), [width(i), width(i + 1)], 3, fetch);
        Ok(Self { channels: config.in_nc, layers: (0..config.nb).map(layer).collect::<Result<_>>()? })
    }
}

impl Graph for DnCnn {
    fn channels(&self) -> usize {
        self.channels
    }

    fn granule(&self) -> usize {
        1
    }

    fn run(&self, x: &Tensor, _: &Tensor) -> Result<Tensor> {
        let mut h = fold(x, 1)?;
        for (i, layer) in self.layers.iter().enumerate() {
            h = layer.apply(&h)?;
            if i + 1 < self.layers.len() {
                h = relu(&h)?;
            }
        }
        unfold(&h, 1)
    }
}

/// A U-net of plain residual blocks without biases that gives the clean image; time is the noise level.
#[derive(Debug)]
pub struct DruNet {
    channels: usize,
    head: Conv,
    down: Vec<(Vec<Block>, Conv)>,
    body: Vec<Block>,
    up: Vec<(Conv, Vec<Block>)>,
    tail: Conv,
}

/// The shape of a DRUNet.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct DruNetConfig {
    /// Channels of the images, without that of the noise level.
    pub in_nc: usize,
    /// Channels of each level.
    pub nc: Vec<usize>,
    /// Residual blocks of each level.
    pub nb: usize,
}

impl Default for DruNetConfig {
    fn default() -> Self {
        Self { in_nc: 1, nc: vec![64, 128, 256, 512], nb: 4 }
    }
}

/// x + conv(ReLU(conv(x))).
#[derive(Debug)]
struct Block([Conv; 2]);

/// A convolution without bias.
fn unbiased(name: &str, channels: [usize; 2], fetch: &mut Fetch) -> Result<Conv> {
    Conv::load(name, channels, 3, &mut |name, shape| without_bias(name, shape, fetch))
}

fn without_bias(name: &str, shape: &[usize], fetch: &mut Fetch) -> Result<Tensor> {
    match name.ends_with(".bias") {
        true => Ok(Tensor::zeros(shape, candle_core::DType::F32, &candle_core::Device::Cpu)?),
        false => fetch(name, shape),
    }
}

impl Block {
    fn load(name: &str, width: usize, fetch: &mut Fetch) -> Result<Self> {
        Ok(Self([
            unbiased(&format!("{name}.res.0"), [width; 2], fetch)?,
            unbiased(&format!("{name}.res.2"), [width; 2], fetch)?,
        ]))
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        add(x, &self.0[1].apply(&relu(&self.0[0].apply(x)?)?)?, 1.0)
    }
}

impl DruNet {
    /// The network with weights `m_head`, `m_down1.0`, … from `fetch`.
    ///
    /// # Errors
    /// [`Error::Parameter`] for fewer than two levels; what `fetch` reports.
    pub fn new(config: &DruNetConfig, fetch: &mut Fetch) -> Result<Self> {
        let w = &config.nc;
        if w.len() < 2 || w.contains(&0) || config.nb == 0 || config.in_nc == 0 {
            return Err(Error::parameter("nc", format!("{w:?}"), "at least two levels with channels"));
        }
        let zeros = |n: usize| Tensor::zeros(n, candle_core::DType::F32, &candle_core::Device::Cpu);
        let blocks = |name: &str, first: usize, width: usize, fetch: &mut Fetch| -> Result<Vec<Block>> {
            (0..config.nb).map(|j| Block::load(&format!("{name}.{}", first + j), width, fetch)).collect()
        };
        let head = unbiased("m_head", [config.in_nc + 1, w[0]], fetch)?;
        let mut down = Vec::new();
        for i in 0..w.len() - 1 {
            let name = format!("m_down{}", i + 1);
            let stages = blocks(&name, 0, w[i], fetch)?;
            // A 2 × 2 convolution of stride 2 is a matrix on folded pixels, ordered channel, row, column.
            let weight = fetch(&format!("{name}.{}.weight", config.nb), &[w[i + 1], w[i], 2, 2])?;
            down.push((stages, Conv::pointwise(weight.reshape((w[i + 1], 4 * w[i]))?, zeros(w[i + 1])?)?));
        }
        let body = blocks("m_body", 0, w[w.len() - 1], fetch)?;
        let mut up = Vec::new();
        for i in (0..w.len() - 1).rev() {
            let name = format!("m_up{}", i + 1);
            // The transposed convolution: [inputs, outputs, 2, 2].
            let weight = fetch(&format!("{name}.0.weight"), &[w[i + 1], w[i], 2, 2])?;
            let weight = weight.reshape((w[i + 1], 4 * w[i]))?.t()?.contiguous()?;
            up.push((Conv::pointwise(weight, zeros(4 * w[i])?)?, blocks(&name, 1, w[i], fetch)?));
        }
        let tail = unbiased("m_tail", [w[0], config.in_nc], fetch)?;
        Ok(Self { channels: config.in_nc, head, down, body, up, tail })
    }
}

impl Graph for DruNet {
    fn channels(&self) -> usize {
        self.channels
    }

    fn granule(&self) -> usize {
        1 << self.down.len()
    }

    fn run(&self, x: &Tensor, times: &Tensor) -> Result<Tensor> {
        let (images, _, height, width) = x.dims4()?;
        let level = times.reshape((images, 1, 1, 1))?.broadcast_as((images, height, width, 1))?;
        let x = concatenate(&fold(x, 1)?, &level)?;
        let run = |blocks: &[Block], x: Tensor| blocks.iter().try_fold(x, |x, block| block.apply(&x));
        let mut h = self.head.apply(&x)?;
        let mut skips = Vec::new();
        for (blocks, conv) in &self.down {
            skips.push(h.clone());
            h = run(blocks, h)?;
            h = conv.apply(&fold(&unfold(&h, 1)?, 2)?)?;
        }
        skips.push(h.clone());
        h = run(&self.body, h)?;
        for (conv, blocks) in &self.up {
            if let Some(skip) = skips.pop() {
                h = add(&h, &skip, 1.0)?;
            }
            h = fold(&unfold(&conv.apply(&h)?, 2)?, 1)?;
            h = run(blocks, h)?;
        }
        if let Some(skip) = skips.pop() {
            h = add(&h, &skip, 1.0)?;
        }
        unfold(&self.tail.apply(&h)?, 1)
    }
}
