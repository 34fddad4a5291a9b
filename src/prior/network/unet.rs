//! The U-net of wellposed's own priors.
//!
//! Squares of `patch` × `patch` pixels are first folded into channels, so that the network runs at a fraction of
//! the resolution. Each level has residual blocks with scale and shift by the noise level, with self-attention on
//! some levels; every encoder block hands its output to the decoder block of the same place. Down: a 3 × 3
//! convolution of stride 2. Up: a 1 × 1 convolution, then each pixel four times.

use candle_core::Tensor;

use super::{Graph, UNetConfig};
use crate::error::Result;
use crate::prior::layer::{
    Attention, Conv, Dense, Fetch, Fourier, Modulation, Names, Norm, Order, Projection, Resampling, Residual,
    Shape, concatenate, fold, resampled, unfold,
};

const EPSILON: f64 = 1e-5;

/// The network with its weights.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    embed: [Dense; 2],
    conv_in: Conv,
    encoder: Vec<Vec<Stage>>,
    down: Vec<Conv>,
    middle: Vec<Stage>,
    decoder: Vec<Vec<Stage>>,
    up: Vec<Conv>,
    norm_out: Norm,
    conv_out: Conv,
}

/// A residual block, with self-attention behind it on some levels.
#[derive(Debug)]
struct Stage {
    residual: Residual,
    attention: Option<Attention>,
}

impl Stage {
    fn load(
        name: &str,
        channels: [usize; 2],
        attention: bool,
        c: &UNetConfig,
        fetch: &mut Fetch,
    ) -> Result<Self> {
        let part = |part: &str| format!("{name}.res.{part}");
        let names = Names {
            norm1: part("norm1"),
            conv1: part("conv1"),
            embed: part("embed"),
            norm2: part("norm2"),
            conv2: part("conv2"),
            shortcut: part("shortcut"),
        };
        let shape = Shape {
            channels,
            embedding: c.embedding,
            groups: [c.groups; 2],
            epsilon: EPSILON,
            modulation: Modulation::ScaleShift,
            resampling: None,
            shortcut: false,
            scale: 1.0,
        };
        let residual = Residual::load(&names, shape, fetch)?;
        let attention = if attention { Some(Self::attention(name, channels[1], c, fetch)?) } else { None };
        Ok(Self { residual, attention })
    }

    fn attention(name: &str, channels: usize, c: &UNetConfig, fetch: &mut Fetch) -> Result<Attention> {
        let part = |part: &str| format!("{name}.attention.{part}");
        let norm = Norm::load(&part("norm"), channels, c.groups, EPSILON, fetch)?;
        let qkv = Projection::Joint { name: &part("qkv"), order: Order::QueriesFirst, axes: 2 };
        let out = [part("proj.weight"), part("proj.bias")];
        Attention::load(Some(norm), channels, channels / c.head, &qkv, [&out[0], &out[1]], 1.0, fetch)
    }

    fn apply(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let x = self.residual.apply(x, embedding)?;
        self.attention.as_ref().map_or(Ok(x.clone()), |attention| attention.apply(&x))
    }
}

impl UNet {
    /// The network of this configuration with weights from `fetch`.
    ///
    /// # Errors
    /// [`crate::error::Error::Parameter`] for a configuration that makes no network; what `fetch` reports.
    pub fn new(config: UNetConfig, fetch: &mut Fetch) -> Result<Self> {
        config.check()?;
        let (w, c) = (&config.widths, &config);
        let (last, pixels) = (w[w.len() - 1], c.channels * c.patch * c.patch);
        let level = |part: &str, i: usize, inputs: usize, fetch: &mut Fetch| -> Result<Vec<Stage>> {
            let name = |j: usize| format!("{part}.{i}.{j}");
            (0..c.depths[i])
                .map(|j| Stage::load(&name(j), [inputs, w[i]], c.attention[i], c, fetch))
                .collect()
        };
        let levels = 0..w.len();
        let embed = [
            Dense::load("embed1", [2 * c.frequencies, c.embedding], fetch)?,
            Dense::load("embed2", [c.embedding, c.embedding], fetch)?,
        ];
        let conv_in = Conv::load("conv_in", [pixels, w[0]], 3, fetch)?;
        let encoder = levels.clone().map(|i| level("encoder", i, w[i], fetch)).collect::<Result<_>>()?;
        let down =
            |i: usize, fetch: &mut Fetch| Conv::strided(&format!("down.{i}"), [w[i], w[i + 1]], 1, 1, fetch);
        let down = (0..w.len() - 1).map(|i| down(i, fetch)).collect::<Result<_>>()?;
        let middle = vec![
            Stage::load("middle.0", [last, last], true, c, fetch)?,
            Stage::load("middle.1", [last, last], false, c, fetch)?,
        ];
        let decoder = levels.map(|i| level("decoder", i, 2 * w[i], fetch)).collect::<Result<_>>()?;
        let up = |i: usize, fetch: &mut Fetch| Conv::load(&format!("up.{i}"), [w[i + 1], w[i]], 1, fetch);
        let up = (0..w.len() - 1).map(|i| up(i, fetch)).collect::<Result<_>>()?;
        let norm_out = Norm::load("norm_out", w[0], c.groups, EPSILON, fetch)?;
        let conv_out = Conv::load("conv_out", [w[0], pixels], 3, fetch)?;
        Ok(Self { embed, conv_in, encoder, down, middle, decoder, up, norm_out, conv_out, config })
    }

    /// SiLU of the embedding of the times [images].
    fn embedding(&self, times: &Tensor) -> Result<Tensor> {
        let n = self.config.frequencies;
        let (low, high) = (0.5f64.ln(), 64f64.ln());
        let frequency = |k: usize| (low + (high - low) * k as f64 / (n - 1) as f64).exp() as f32;
        let features = Fourier { frequencies: (0..n).map(frequency).collect(), cosine_first: true };
        let hidden = self.embed[0].apply(&features.apply(times)?)?.silu()?;
        Ok(self.embed[1].apply(&hidden)?.silu()?)
    }
}

impl Graph for UNet {
    fn channels(&self) -> usize {
        self.config.channels
    }

    fn granule(&self) -> usize {
        self.config.patch << (self.config.widths.len() - 1)
    }

    fn run(&self, x: &Tensor, times: &Tensor) -> Result<Tensor> {
        let embedding = self.embedding(times)?;
        let mut h = self.conv_in.apply(&fold(x, self.config.patch)?)?;
        let mut skips = Vec::new();
        for (i, level) in self.encoder.iter().enumerate() {
            if i > 0 {
                h = self.down[i - 1].apply(&h)?;
            }
            for stage in level {
                h = stage.apply(&h, &embedding)?;
                skips.push(h.clone());
            }
        }
        for stage in &self.middle {
            h = stage.apply(&h, &embedding)?;
        }
        for (i, level) in self.decoder.iter().enumerate().rev() {
            for stage in level {
                let skip = skips.pop().map_or_else(|| Ok(h.zeros_like()?), Ok::<_, crate::error::Error>)?;
                h = stage.apply(&concatenate(&h, &skip)?, &embedding)?;
            }
            if i > 0 {
                h = resampled(&self.up[i - 1].apply(&h)?, Resampling::Doubled)?;
            }
        }
        unfold(&self.conv_out.apply(&self.norm_out.silu(&h)?)?, self.config.patch)
    }
}
