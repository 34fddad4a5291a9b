//! `UNet2DModel` of diffusers (Apache-2.0; Ho et al. 2020, Song et al. 2021), from its config.json.
//!
//! Blocks: `DownBlock2D`, `AttnDownBlock2D`, `UpBlock2D`, `AttnUpBlock2D`, and the same with resampling inside a
//! residual block (`downsample_type` resnet). No class conditioning.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Graph;
use crate::error::{Error, Result};
use crate::prior::layer::{
    Attention, Conv, Dense, Fetch, Fourier, Modulation, Names, Norm, Projection, Resampling, Residual, Shape,
    concatenate, fold, resampled, sinusoids, unfold,
};

/// The fields of config.json that shape the network, with diffusers' defaults.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    /// Side, or height and width, of the training images.
    pub sample_size: serde_json::Value,
    /// Channels of the images.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Map x to 2x − 1 first.
    pub center_input_sample: bool,
    /// `positional` or `fourier`.
    pub time_embedding_type: String,
    /// Shift of the frequencies' exponent.
    pub freq_shift: f64,
    /// cos before sin (positional).
    pub flip_sin_to_cos: bool,
    /// Kinds of the encoder's blocks, from the finest.
    pub down_block_types: Vec<String>,
    /// Kinds of the decoder's blocks, from the coarsest.
    pub up_block_types: Vec<String>,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of each encoder level.
    pub layers_per_block: usize,
    /// Divisor of the sums in the middle block.
    pub mid_block_scale_factor: f64,
    /// Zeros around the image in down convolutions; 0 means one row behind it.
    pub downsample_padding: usize,
    /// `conv` or `resnet`.
    pub downsample_type: String,
    /// `conv` or `resnet`.
    pub upsample_type: String,
    /// Activation; `silu` alone is known.
    pub act_fn: String,
    /// Channels of an attention head; null for one head.
    pub attention_head_dim: Option<usize>,
    /// Groups of the normalisations.
    pub norm_num_groups: usize,
    /// Groups of the normalisation of the attention in the middle, where they differ.
    pub attn_norm_num_groups: Option<usize>,
    /// ε of the normalisations.
    pub norm_eps: f64,
    /// `default` (shift) or `scale_shift`.
    pub resnet_time_scale_shift: String,
    /// Attention in the middle block.
    pub add_attention: bool,
    /// Kind of class conditioning; none is known.
    pub class_embed_type: Option<String>,
    /// Classes; none is known.
    pub num_class_embeds: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        let names = |all: [&str; 4]| all.map(String::from).to_vec();
        Self {
            sample_size: serde_json::Value::Null,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: "positional".into(),
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: names(["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"]),
            up_block_types: names(["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"]),
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: "conv".into(),
            upsample_type: "conv".into(),
            act_fn: "silu".into(),
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: "default".into(),
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
        }
    }
}

/// One field of config.json whose value is none of those known.
fn unknown(field: &str, value: &impl std::fmt::Debug, known: &str) -> Error {
    Error::parameter(format!("`{field}` of config.json"), format!("{value:?}"), format!("known are: {known}"))
}

impl Config {
    /// Whether a block of this kind has attention.
    fn attention(kind: &str, part: &str) -> Result<bool> {
        match kind.strip_suffix(&format!("{part}Block2D")) {
            Some("") => Ok(false),
            Some("Attn") => Ok(true),
            _ if kind == format!("Resnet{part}sampleBlock2D") => Ok(false),
            _ => {
                let known = format!("{part}Block2D, Attn{part}Block2D, Resnet{part}sampleBlock2D");
                Err(unknown("block types", &kind, &known))
            }
        }
    }

    /// Whether the resampling of a block of this kind is inside a residual block.
    fn inside(kind: &str, attention: bool, style: &str, field: &str) -> Result<bool> {
        match style {
            _ if kind.starts_with("Resnet") => Ok(true),
            "conv" => Ok(false),
            "resnet" => Ok(attention),
            other => Err(unknown(field, &other, "conv, resnet")),
        }
    }

    /// Groups of the attention in the middle, which is not normalised where blocks are scaled and shifted.
    fn middle_groups(&self) -> Option<usize> {
        let plain = self.resnet_time_scale_shift == "default";
        self.attn_norm_num_groups.or(plain.then_some(self.norm_num_groups))
    }

    fn check(&self) -> Result<()> {
        let levels = self.block_out_channels.len();
        if levels == 0 || self.down_block_types.len() != levels || self.up_block_types.len() != levels {
            return Err(unknown("block_out_channels", &self.block_out_channels, "one for each block type"));
        }
        if !["silu", "swish"].contains(&&*self.act_fn) {
            return Err(unknown("act_fn", &self.act_fn, "silu"));
        }
        if !["default", "scale_shift"].contains(&&*self.resnet_time_scale_shift) {
            return Err(unknown(
                "resnet_time_scale_shift",
                &self.resnet_time_scale_shift,
                "default, scale_shift",
            ));
        }
        if !["positional", "fourier"].contains(&&*self.time_embedding_type) {
            return Err(unknown("time_embedding_type", &self.time_embedding_type, "positional, fourier"));
        }
        if self.class_embed_type.is_some() || self.num_class_embeds.is_some() {
            return Err(unknown("class_embed_type", &self.class_embed_type, "null: no classes"));
        }
        if self.block_out_channels.contains(&0) || self.layers_per_block == 0 || self.downsample_padding > 1 {
            return Err(unknown("layers_per_block", &self.layers_per_block, "at least 1; padding 0 or 1"));
        }
        Ok(())
    }
}

/// The network with its weights.
#[derive(Debug)]
pub struct DiffusersUNet {
    config: Config,
    /// Frequencies of the Fourier features of ln t, where the embedding is one.
    fourier: Option<Vec<f32>>,
    embed: [Dense; 2],
    conv_in: Conv,
    down: Vec<Level>,
    middle: (Residual, Option<Attention>, Residual),
    up: Vec<Level>,
    norm_out: Norm,
    conv_out: Conv,
}

#[derive(Debug)]
struct Level {
    stages: Vec<(Residual, Option<Attention>)>,
    resample: Option<Resample>,
}

#[derive(Debug)]
enum Resample {
    Down(Conv),
    Up(Conv),
    Inside(Box<Residual>),
}

/// What the parts of the network are made of.
struct Parts<'a> {
    config: &'a Config,
    embedding: usize,
}

impl Parts<'_> {
    fn residual(
        &self,
        name: &str,
        channels: [usize; 2],
        resampling: Option<Resampling>,
        scale: f64,
        fetch: &mut Fetch,
    ) -> Result<Residual> {
        let c = self.config;
        let part = |part: &str| format!("{name}.{part}");
        let names = Names {
            norm1: part("norm1"),
            conv1: part("conv1"),
            embed: part("time_emb_proj"),
            norm2: part("norm2"),
            conv2: part("conv2"),
            shortcut: part("conv_shortcut"),
        };
        let scaled = c.resnet_time_scale_shift == "scale_shift";
        let modulation = if scaled { Modulation::ScaleShift } else { Modulation::Shift };
        let (groups, epsilon) = ([c.norm_num_groups; 2], c.norm_eps);
        let embedding = self.embedding;
        let shape =
            Shape { channels, embedding, groups, epsilon, modulation, resampling, shortcut: false, scale };
        Residual::load(&names, shape, fetch)
    }

    fn attention(
        &self,
        name: &str,
        channels: usize,
        groups: Option<usize>,
        scale: f64,
        fetch: &mut Fetch,
    ) -> Result<Attention> {
        let c = self.config;
        let norm = match groups {
            Some(groups) => {
                Some(Norm::load(&format!("{name}.group_norm"), channels, groups, c.norm_eps, fetch)?)
            }
            None => None,
        };
        let heads = match c.attention_head_dim {
            Some(size) if size > 0 && channels.is_multiple_of(size) => channels / size,
            Some(size) => {
                return Err(unknown("attention_head_dim", &size, &format!("divisors of {channels}")));
            }
            None => 1,
        };
        let names = ["to_q", "to_k", "to_v"].map(|part| format!("{name}.{part}"));
        let projection = Projection::Apart {
            names: [&names[0], &names[1], &names[2]],
            suffixes: [".weight", ".bias"],
            transposed: false,
        };
        let out = [format!("{name}.to_out.0.weight"), format!("{name}.to_out.0.bias")];
        Attention::load(norm, channels, heads, &projection, [&out[0], &out[1]], scale, fetch)
    }

    fn stages(
        &self,
        name: &str,
        channels: &[[usize; 2]],
        attention: bool,
        fetch: &mut Fetch,
    ) -> Result<Vec<(Residual, Option<Attention>)>> {
        let stage = |(j, pair): (usize, &[usize; 2])| {
            let residual = self.residual(&format!("{name}.resnets.{j}"), *pair, None, 1.0, fetch)?;
            if !attention {
                return Ok((residual, None));
            }
            let attention = {
                let name = format!("{name}.attentions.{j}");
                self.attention(&name, pair[1], Some(self.config.norm_num_groups), 1.0, fetch)?
            };
            Ok((residual, Some(attention)))
        };
        channels.iter().enumerate().map(stage).collect()
    }
}

impl DiffusersUNet {
    /// The network of this configuration with weights from `fetch`, under diffusers' names.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the field of config.json that is not known; what `fetch` reports.
    pub fn new(config: Config, fetch: &mut Fetch) -> Result<Self> {
        config.check()?;
        let c = &config;
        let w = &c.block_out_channels;
        let (first, last, levels) = (w[0], w[w.len() - 1], w.len());
        let embedding = 4 * first;
        let fourier = match &*c.time_embedding_type {
            "fourier" => Some(fetch("time_proj.weight", &[first])?.to_vec1()?),
            _ => None,
        };
        let features = if fourier.is_some() { 2 * first } else { first };
        let embed = [
            Dense::load("time_embedding.linear_1", [features, embedding], fetch)?,
            Dense::load("time_embedding.linear_2", [embedding, embedding], fetch)?,
        ];
        let parts = Parts { config: c, embedding };
        let conv_in = Conv::load("conv_in", [c.in_channels, first], 3, fetch)?;
        let mut down = Vec::new();
        for (i, kind) in c.down_block_types.iter().enumerate() {
            let (name, attention) = (format!("down_blocks.{i}"), Config::attention(kind, "Down")?);
            let inputs = if i == 0 { first } else { w[i - 1] };
            let pairs: Vec<_> =
                (0..c.layers_per_block).map(|j| [if j == 0 { inputs } else { w[i] }, w[i]]).collect();
            let stages = parts.stages(&name, &pairs, attention, fetch)?;
            let inside = Config::inside(kind, attention, &c.downsample_type, "downsample_type")?;
            let resample = match (i + 1 == levels, inside) {
                (true, _) => None,
                (_, true) => {
                    let name = format!("{name}.downsamplers.0");
                    Some(Resample::Inside(Box::new(parts.residual(
                        &name,
                        [w[i]; 2],
                        Some(Resampling::Halved),
                        1.0,
                        fetch,
                    )?)))
                }
                _ => {
                    let name = format!("{name}.downsamplers.0.conv");
                    Some(Resample::Down(Conv::strided(&name, [w[i]; 2], c.downsample_padding, 1, fetch)?))
                }
            };
            down.push(Level { stages, resample });
        }
        let scale = 1.0 / c.mid_block_scale_factor;
        let middle = (
            parts.residual("mid_block.resnets.0", [last; 2], None, scale, fetch)?,
            if c.add_attention {
                Some(parts.attention("mid_block.attentions.0", last, c.middle_groups(), scale, fetch)?)
            } else {
                None
            },
            parts.residual("mid_block.resnets.1", [last; 2], None, scale, fetch)?,
        );
        let mut up = Vec::new();
        for (i, kind) in c.up_block_types.iter().enumerate() {
            let (name, attention) = (format!("up_blocks.{i}"), Config::attention(kind, "Up")?);
            let level = levels - 1 - i;
            let width = w[level];
            let below = if i == 0 { last } else { w[level + 1] };
            let input = w[level.saturating_sub(1)];
            let n = c.layers_per_block + 1;
            let pairs: Vec<_> = (0..n)
                .map(|j| [if j == 0 { below } else { width } + if j + 1 == n { input } else { width }, width])
                .collect();
            let stages = parts.stages(&name, &pairs, attention, fetch)?;
            let inside = Config::inside(kind, attention, &c.upsample_type, "upsample_type")?;
            let resample = match (level == 0, inside) {
                (true, _) => None,
                (_, true) => {
                    let name = format!("{name}.upsamplers.0");
                    Some(Resample::Inside(Box::new(parts.residual(
                        &name,
                        [width; 2],
                        Some(Resampling::Doubled),
                        1.0,
                        fetch,
                    )?)))
                }
                _ => Some(Resample::Up(Conv::load(
                    &format!("{name}.upsamplers.0.conv"),
                    [width; 2],
                    3,
                    fetch,
                )?)),
            };
            up.push(Level { stages, resample });
        }
        let norm_out = Norm::load("conv_norm_out", first, c.norm_num_groups, c.norm_eps, fetch)?;
        let conv_out = Conv::load("conv_out", [first, c.out_channels], 3, fetch)?;
        Ok(Self { fourier, embed, conv_in, down, middle, up, norm_out, conv_out, config })
    }

    /// SiLU of the embedding of the times [images].
    fn embedding(&self, times: &Tensor) -> Result<Tensor> {
        let c = &self.config;
        let features = match &self.fourier {
            Some(weights) => {
                let frequencies = weights.iter().map(|w| w * std::f32::consts::TAU).collect();
                Fourier { frequencies, cosine_first: false }.apply(&times.log()?)?
            }
            None => sinusoids(times, c.block_out_channels[0], c.freq_shift, c.flip_sin_to_cos)?,
        };
        let hidden = self.embed[0].apply(&features)?.silu()?;
        Ok(self.embed[1].apply(&hidden)?.silu()?)
    }
}

fn stage((residual, attention): &(Residual, Option<Attention>), x: &Tensor, e: &Tensor) -> Result<Tensor> {
    let x = residual.apply(x, e)?;
    attention.as_ref().map_or(Ok(x.clone()), |attention| attention.apply(&x))
}

impl Graph for DiffusersUNet {
    fn channels(&self) -> usize {
        self.config.in_channels
    }

    fn granule(&self) -> usize {
        1 << (self.config.block_out_channels.len() - 1)
    }

    fn run(&self, x: &Tensor, times: &Tensor) -> Result<Tensor> {
        let e = self.embedding(times)?;
        let x = fold(x, 1)?;
        let x = if self.config.center_input_sample { x.affine(2.0, -1.0)? } else { x };
        let mut h = self.conv_in.apply(&x)?;
        let mut skips = vec![h.clone()];
        for level in &self.down {
            for part in &level.stages {
                h = stage(part, &h, &e)?;
                skips.push(h.clone());
            }
            if let Some(resample) = &level.resample {
                h = resample.apply(&h, &e)?;
                skips.push(h.clone());
            }
        }
        h = self.middle.0.apply(&h, &e)?;
        if let Some(attention) = &self.middle.1 {
            h = attention.apply(&h)?;
        }
        h = self.middle.2.apply(&h, &e)?;
        for level in &self.up {
            for part in &level.stages {
                if let Some(skip) = skips.pop() {
                    h = stage(part, &concatenate(&h, &skip)?, &e)?;
                }
            }
            if let Some(resample) = &level.resample {
                h = resample.apply(&h, &e)?;
            }
        }
        let y = self.conv_out.apply(&self.norm_out.silu(&h)?)?;
        let y = unfold(&y, 1)?;
        if self.fourier.is_some() {
            return Ok(y.broadcast_div(&times.reshape(((), 1, 1, 1))?)?);
        }
        Ok(y)
    }
}

impl Resample {
    fn apply(&self, x: &Tensor, e: &Tensor) -> Result<Tensor> {
        match self {
            Self::Down(conv) => conv.apply(x),
            Self::Up(conv) => conv.apply(&resampled(x, Resampling::Doubled)?),
            Self::Inside(residual) => residual.apply(x, e),
        }
    }
}
