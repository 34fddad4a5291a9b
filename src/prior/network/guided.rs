//! The U-net of guided-diffusion (ADM; Dhariwal & Nichol 2021), from a JSON file with its training flags.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Graph;
use crate::error::{Error, Result};
use crate::prior::layer::{
    Attention, Conv, Dense, Fetch, Modulation, Names, Norm, Order, Projection, Resampling, Residual, Shape,
    concatenate, fold, resampled, sinusoids, unfold,
};

/// The flags of guided-diffusion's scripts, with their defaults.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    /// Side of the training images.
    pub image_size: usize,
    /// Channels of the images (3 in guided-diffusion itself).
    pub in_channels: usize,
    /// Channels of the finest level.
    pub num_channels: usize,
    /// Residual blocks of each level.
    pub num_res_blocks: usize,
    /// Factors of the channels of each level, separated by commas; empty for the default of the image size.
    pub channel_mult: String,
    /// Resolutions with attention, separated by commas.
    pub attention_resolutions: String,
    /// Heads of the attention, where `num_head_channels` is −1.
    pub num_heads: usize,
    /// Channels of a head, or −1.
    pub num_head_channels: i64,
    /// Heads in the decoder, or −1 for as many as in the encoder.
    pub num_heads_upsample: i64,
    /// Scale and shift by the noise level, rather than a shift alone.
    pub use_scale_shift_norm: bool,
    /// Resampling inside residual blocks.
    pub resblock_updown: bool,
    /// q of all heads first, then k, then v.
    pub use_new_attention_order: bool,
    /// Twice the channels come out: prediction and variance.
    pub learn_sigma: bool,
    /// The network knows classes (1000); samples are of class `class`.
    pub class_cond: bool,
    /// The class to take.
    pub class: usize,
    /// Steps of the noise schedule.
    pub diffusion_steps: usize,
    /// `linear` or `cosine`.
    pub noise_schedule: String,
    /// The network predicts x₀ rather than ε.
    pub predict_xstart: bool,
    /// The times that the network sees run to 1000 whatever the number of steps.
    pub rescale_timesteps: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_size: 64,
            in_channels: 3,
            num_channels: 128,
            num_res_blocks: 2,
            channel_mult: String::new(),
            attention_resolutions: "16,8".into(),
            num_heads: 4,
            num_head_channels: -1,
            num_heads_upsample: -1,
            use_scale_shift_norm: true,
            resblock_updown: false,
            use_new_attention_order: false,
            learn_sigma: false,
            class_cond: false,
            class: 0,
            diffusion_steps: 1000,
            noise_schedule: "linear".into(),
            predict_xstart: false,
            rescale_timesteps: false,
        }
    }
}

const CLASSES: usize = 1000;
/// Groups of all normalisations, and their ε.
const GROUPS: usize = 32;
const EPSILON: f64 = 1e-5;

impl Config {
    fn numbers(field: &str, text: &str) -> Result<Vec<usize>> {
        let number = |t: &str| t.trim().parse::<usize>().ok().filter(|n| *n > 0);
        let numbers: Option<Vec<_>> = text.split(',').filter(|t| !t.trim().is_empty()).map(number).collect();
        numbers.ok_or_else(|| Error::parameter(field, text, "expected positive numbers separated by commas"))
    }

    fn widths(&self) -> Result<Vec<usize>> {
        let factors = match (&*self.channel_mult, self.image_size) {
            ("", 512) => {
                return Ok([0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
                    .map(|f| (f * self.num_channels as f64) as usize)
                    .to_vec());
            }
            ("", 256) => vec![1, 1, 2, 2, 4, 4],
            ("", 128) => vec![1, 1, 2, 3, 4],
            ("", 64) => vec![1, 2, 3, 4],
            ("", size) => {
                return Err(Error::parameter("image_size", size, "has no default: state `channel_mult`"));
            }
            (text, _) => Self::numbers("channel_mult", text)?,
        };
        Ok(factors.iter().map(|f| f * self.num_channels).collect())
    }

    fn heads(&self, channels: usize, decoder: bool) -> usize {
        match (usize::try_from(self.num_head_channels), usize::try_from(self.num_heads_upsample)) {
            (Ok(size), _) if size > 0 => channels / size,
            (_, Ok(heads)) if decoder && heads > 0 => heads,
            _ => self.num_heads,
        }
    }
}

/// The network with its weights.
#[derive(Debug)]
pub struct GuidedUNet {
    config: Config,
    levels: usize,
    embed: [Dense; 2],
    class: Option<Tensor>,
    conv_in: Conv,
    encoder: Vec<Vec<Part>>,
    middle: Vec<Part>,
    decoder: Vec<Vec<Part>>,
    norm_out: Norm,
    conv_out: Conv,
}

#[derive(Debug)]
enum Part {
    Residual(Box<Residual>),
    Attention(Attention),
    Down(Conv),
    Up(Conv),
}

impl Part {
    fn apply(&self, x: &Tensor, e: &Tensor) -> Result<Tensor> {
        match self {
            Self::Residual(residual) => residual.apply(x, e),
            Self::Attention(attention) => attention.apply(x),
            Self::Down(conv) => conv.apply(x),
            Self::Up(conv) => conv.apply(&resampled(x, Resampling::Doubled)?),
        }
    }
}

impl Config {
    fn residual(
        &self,
        name: &str,
        channels: [usize; 2],
        resampling: Option<Resampling>,
        fetch: &mut Fetch,
    ) -> Result<Part> {
        let part = |part: &str| format!("{name}.{part}");
        let names = Names {
            norm1: part("in_layers.0"),
            conv1: part("in_layers.2"),
            embed: part("emb_layers.1"),
            norm2: part("out_layers.0"),
            conv2: part("out_layers.3"),
            shortcut: part("skip_connection"),
        };
        let shape = Shape {
            channels,
            embedding: 4 * self.num_channels,
            groups: [GROUPS; 2],
            epsilon: EPSILON,
            modulation: if self.use_scale_shift_norm { Modulation::ScaleShift } else { Modulation::Shift },
            resampling,
            shortcut: false,
            scale: 1.0,
        };
        Ok(Part::Residual(Box::new(Residual::load(&names, shape, fetch)?)))
    }

    fn attention(&self, name: &str, channels: usize, decoder: bool, fetch: &mut Fetch) -> Result<Part> {
        let norm = Norm::load(&format!("{name}.norm"), channels, GROUPS, EPSILON, fetch)?;
        let order = if self.use_new_attention_order { Order::QueriesFirst } else { Order::HeadsFirst };
        let qkv = Projection::Joint { name: &format!("{name}.qkv"), order, axes: 1 };
        let out = [format!("{name}.proj_out.weight"), format!("{name}.proj_out.bias")];
        let heads = self.heads(channels, decoder);
        Ok(Part::Attention(Attention::load(
            Some(norm),
            channels,
            heads,
            &qkv,
            [&out[0], &out[1]],
            1.0,
            fetch,
        )?))
    }
}

impl GuidedUNet {
    /// The network of these flags with weights from `fetch`, under guided-diffusion's names.
    ///
    /// # Errors
    /// [`Error::Parameter`] for flags that make no network; what `fetch` reports.
    pub fn new(config: Config, fetch: &mut Fetch) -> Result<Self> {
        let c = &config;
        let widths = c.widths()?;
        let resolutions = Config::numbers("attention_resolutions", &c.attention_resolutions)?;
        let attends = |level: usize| resolutions.iter().any(|r| c.image_size / r == 1 << level);
        let (levels, embedding) = (widths.len(), 4 * c.num_channels);
        let embed = [
            Dense::load("time_embed.0", [c.num_channels, embedding], fetch)?,
            Dense::load("time_embed.2", [embedding, embedding], fetch)?,
        ];
        let class = if c.class_cond {
            if c.class >= CLASSES {
                return Err(Error::parameter("class", c.class, format!("there are {CLASSES}")));
            }
            Some(fetch("label_emb.weight", &[CLASSES, embedding])?.narrow(0, c.class, 1)?)
        } else {
            None
        };
        let conv_in = Conv::load("input_blocks.0.0", [c.in_channels, widths[0]], 3, fetch)?;
        let mut skips = vec![widths[0]];
        let mut channels = widths[0];
        let mut encoder = Vec::new();
        for (level, width) in widths.iter().enumerate() {
            for _ in 0..c.num_res_blocks {
                let name = format!("input_blocks.{}", encoder.len() + 1);
                let mut parts = vec![c.residual(&format!("{name}.0"), [channels, *width], None, fetch)?];
                channels = *width;
                if attends(level) {
                    parts.push(c.attention(&format!("{name}.1"), channels, false, fetch)?);
                }
                encoder.push(parts);
                skips.push(channels);
            }
            if level + 1 < levels {
                let name = format!("input_blocks.{}.0", encoder.len() + 1);
                encoder.push(vec![if c.resblock_updown {
                    c.residual(&name, [channels; 2], Some(Resampling::Halved), fetch)?
                } else {
                    Part::Down(Conv::strided(&format!("{name}.op"), [channels; 2], 1, 1, fetch)?)
                }]);
                skips.push(channels);
            }
        }
        let middle = vec![
            c.residual("middle_block.0", [channels; 2], None, fetch)?,
            c.attention("middle_block.1", channels, false, fetch)?,
            c.residual("middle_block.2", [channels; 2], None, fetch)?,
        ];
        let mut decoder = Vec::new();
        for (level, width) in widths.iter().enumerate().rev() {
            for j in 0..=c.num_res_blocks {
                let name = format!("output_blocks.{}", decoder.len());
                let inputs = channels + skips.pop().unwrap_or_default();
                let mut parts = vec![c.residual(&format!("{name}.0"), [inputs, *width], None, fetch)?];
                channels = *width;
                if attends(level) {
                    parts.push(c.attention(&format!("{name}.1"), channels, true, fetch)?);
                }
                if level > 0 && j == c.num_res_blocks {
                    let name = format!("{name}.{}", parts.len());
                    parts.push(if c.resblock_updown {
                        c.residual(&name, [channels; 2], Some(Resampling::Doubled), fetch)?
                    } else {
                        Part::Up(Conv::load(&format!("{name}.conv"), [channels; 2], 3, fetch)?)
                    });
                }
                decoder.push(parts);
            }
        }
        let outputs = if c.learn_sigma { 2 * c.in_channels } else { c.in_channels };
        let norm_out = Norm::load("out.0", channels, GROUPS, EPSILON, fetch)?;
        let conv_out = Conv::load("out.2", [channels, outputs], 3, fetch)?;
        Ok(Self { levels, embed, class, conv_in, encoder, middle, decoder, norm_out, conv_out, config })
    }

    /// SiLU of the embedding of the times [images].
    fn embedding(&self, times: &Tensor) -> Result<Tensor> {
        let features = sinusoids(times, self.config.num_channels, 0.0, true)?;
        let e = self.embed[1].apply(&self.embed[0].apply(&features)?.silu()?)?;
        let e = self.class.as_ref().map_or(Ok(e.clone()), |class| e.broadcast_add(class))?;
        Ok(e.silu()?)
    }
}

impl Graph for GuidedUNet {
    fn channels(&self) -> usize {
        self.config.in_channels
    }

    fn granule(&self) -> usize {
        1 << (self.levels - 1)
    }

    fn run(&self, x: &Tensor, times: &Tensor) -> Result<Tensor> {
        let e = self.embedding(times)?;
        let mut h = self.conv_in.apply(&fold(x, 1)?)?;
        let mut skips = vec![h.clone()];
        let through = |parts: &[Part], x: Tensor| parts.iter().try_fold(x, |x, part| part.apply(&x, &e));
        for parts in &self.encoder {
            h = through(parts, h)?;
            skips.push(h.clone());
        }
        h = through(&self.middle, h)?;
        for parts in &self.decoder {
            if let Some(skip) = skips.pop() {
                h = through(parts, concatenate(&h, &skip)?)?;
            }
        }
        let y = self.conv_out.apply(&self.norm_out.silu(&h)?)?;
        unfold(&y, 1)
    }
}
