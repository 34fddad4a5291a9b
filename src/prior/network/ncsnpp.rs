//! NCSN++ of score-SDE (Song et al. 2011.13456), from a JSON file with the fields of its configuration's `model`.
//!
//! Residual blocks of kind biggan or ddpm, resampling by FIR filters or by nearest neighbours and means, the image
//! pyramid in (skip, residual) and out (skip), embeddings by Fourier features of ln σ or by sinusoids.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Graph;
use crate::error::{Error, Result};
use crate::prior::layer::{
    Attention, Conv, Dense, Fetch, Fourier, Modulation, Names, Norm, Projection, Resampling, Residual, Shape,
    add, concatenate, fold, resampled, sinusoids, unfold,
};

/// The fields of `config.model` and `config.data`, with the defaults of the continuous VE configurations.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    /// Side of the training images.
    pub image_size: usize,
    /// Channels of the images.
    pub num_channels: usize,
    /// Data are in [−1, 1]; else in [0, 1], which the network maps to [−1, 1] itself.
    pub centered: bool,
    /// Channels of the finest level.
    pub nf: usize,
    /// Factors of the channels of each level.
    pub ch_mult: Vec<usize>,
    /// Residual blocks of each level.
    pub num_res_blocks: usize,
    /// Resolutions with attention.
    pub attn_resolutions: Vec<usize>,
    /// Convolutions in the resampling of ddpm blocks.
    pub resamp_with_conv: bool,
    /// The noise level enters the blocks.
    pub conditional: bool,
    /// FIR filters.
    pub fir: bool,
    /// The filter; [1, 3, 3, 1] alone is known.
    pub fir_kernel: Vec<usize>,
    /// Sums are divided by √2.
    pub skip_rescale: bool,
    /// `biggan` or `ddpm`.
    pub resblock_type: String,
    /// The pyramid of the output: `none` or `output_skip`.
    pub progressive: String,
    /// The pyramid of the input: `none`, `input_skip` or `residual`.
    pub progressive_input: String,
    /// How `input_skip` joins: `sum` or `cat`.
    pub progressive_combine: String,
    /// `fourier` or `positional`.
    pub embedding_type: String,
    /// The output is divided by σ.
    pub scale_by_sigma: bool,
    /// Smallest and largest noise level of the VE equation.
    pub sigma_min: f64,
    /// See `sigma_min`.
    pub sigma_max: f64,
    /// `vesde`, `vpsde` or `subvpsde`.
    pub sde: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_size: 256,
            num_channels: 3,
            centered: false,
            nf: 128,
            ch_mult: vec![1, 1, 2, 2, 2, 2, 2],
            num_res_blocks: 2,
            attn_resolutions: vec![16],
            resamp_with_conv: true,
            conditional: true,
            fir: true,
            fir_kernel: vec![1, 3, 3, 1],
            skip_rescale: true,
            resblock_type: "biggan".into(),
            progressive: "output_skip".into(),
            progressive_input: "input_skip".into(),
            progressive_combine: "sum".into(),
            embedding_type: "fourier".into(),
            scale_by_sigma: true,
            sigma_min: 0.01,
            sigma_max: 348.0,
            sde: "vesde".into(),
        }
    }
}

const EPSILON: f64 = 1e-6;

fn known(field: &str, value: &str, all: &[&str]) -> Result<()> {
    if all.contains(&value) {
        return Ok(());
    }
    Err(Error::parameter(
        format!("`{field}` of the configuration"),
        value,
        format!("known are: {}", all.join(", ")),
    ))
}

impl Config {
    fn check(&self) -> Result<()> {
        known("resblock_type", &self.resblock_type, &["biggan", "ddpm"])?;
        known("progressive", &self.progressive, &["none", "output_skip"])?;
        known("progressive_input", &self.progressive_input, &["none", "input_skip", "residual"])?;
        known("progressive_combine", &self.progressive_combine, &["sum", "cat"])?;
        known("embedding_type", &self.embedding_type, &["fourier", "positional"])?;
        if self.fir && self.fir_kernel != [1, 3, 3, 1] {
            known("fir_kernel", &format!("{:?}", self.fir_kernel), &["[1, 3, 3, 1]"])?;
        }
        if !self.conditional {
            known("conditional", "false", &["true"])?;
        }
        if self.resblock_type == "ddpm" && self.fir && self.resamp_with_conv {
            known("resblock_type", "ddpm with fir and resamp_with_conv", &["biggan", "ddpm without fir"])?;
        }
        if self.ch_mult.is_empty() || self.nf == 0 || self.ch_mult.contains(&0) || self.num_res_blocks == 0 {
            known("ch_mult", &format!("{:?}", self.ch_mult), &["positive factors"])?;
        }
        Ok(())
    }

    fn groups(channels: usize) -> usize {
        (channels / 4).min(32)
    }

    fn scale(&self) -> f64 {
        if self.skip_rescale { std::f64::consts::FRAC_1_SQRT_2 } else { 1.0 }
    }

    fn down(&self) -> Resampling {
        if self.fir { Resampling::FirHalved } else { Resampling::Halved }
    }

    fn up(&self) -> Resampling {
        if self.fir { Resampling::FirDoubled } else { Resampling::Doubled }
    }
}

/// Hands out the modules in the order of the file: `module.all_modules.N`.
struct Modules<'a, 'b> {
    config: &'a Config,
    next: usize,
    fetch: &'a mut Fetch<'b>,
}

impl Modules<'_, '_> {
    fn name(&mut self) -> String {
        self.next += 1;
        format!("all_modules.{}", self.next - 1)
    }

    fn dense(&mut self, channels: [usize; 2]) -> Result<Dense> {
        Dense::load(&self.name(), channels, self.fetch)
    }

    fn conv(&mut self, channels: [usize; 2]) -> Result<Conv> {
        Conv::load(&self.name(), channels, 3, self.fetch)
    }

    fn norm(&mut self, channels: usize) -> Result<Norm> {
        Norm::load(&self.name(), channels, Config::groups(channels), EPSILON, self.fetch)
    }

    fn residual(&mut self, channels: [usize; 2], resampling: Option<Resampling>) -> Result<Residual> {
        let name = self.name();
        let part = |part: &str| format!("{name}.{part}");
        let names = Names {
            norm1: part("GroupNorm_0"),
            conv1: part("Conv_0"),
            embed: part("Dense_0"),
            norm2: part("GroupNorm_1"),
            conv2: part("Conv_1"),
            shortcut: part("Conv_2"),
        };
        let shape = Shape {
            channels,
            embedding: 4 * self.config.nf,
            groups: channels.map(Config::groups),
            epsilon: EPSILON,
            modulation: Modulation::Shift,
            resampling,
            shortcut: resampling.is_some(),
            scale: self.config.scale(),
        };
        if self.config.resblock_type == "biggan" {
            return Residual::load(&names, shape, self.fetch);
        }
        let shortcut = |fetch: &mut Fetch| {
            let weight = fetch(&part("NIN_0.W"), &channels)?.t()?.contiguous()?;
            Conv::pointwise(weight, fetch(&part("NIN_0.b"), &[channels[1]])?)
        };
        Residual::load_with(&names, shape, shortcut, self.fetch)
    }

    fn attention(&mut self, channels: usize) -> Result<Attention> {
        let name = self.name();
        let norm_name = format!("{name}.GroupNorm_0");
        let norm = Norm::load(&norm_name, channels, Config::groups(channels), EPSILON, self.fetch)?;
        let names = [0, 1, 2].map(|i| format!("{name}.NIN_{i}"));
        let projection = Projection::Apart {
            names: [&names[0], &names[1], &names[2]],
            suffixes: [".W", ".b"],
            transposed: true,
        };
        let out = [format!("{name}.NIN_3.W"), format!("{name}.NIN_3.b")];
        Attention::load(
            Some(norm),
            channels,
            1,
            &projection,
            [&out[0], &out[1]],
            self.config.scale(),
            self.fetch,
        )
    }
}

#[derive(Debug)]
struct Down {
    /// A residual block, or the down convolution of ddpm blocks (`None`: means).
    step: Step,
    pyramid: Pyramid,
}

#[derive(Debug)]
enum Step {
    Residual(Box<Residual>),
    Conv(Conv),
    Plain,
}

/// How the image pyramid joins the features.
#[derive(Debug)]
enum Pyramid {
    None,
    /// 1 × 1 convolution of the smaller image, added or appended.
    Skip {
        conv: Conv,
        append: bool,
    },
    /// FIR (or padding) and strided convolution, added.
    Residual(Conv),
}

#[derive(Debug)]
struct Level {
    stages: Vec<(Residual, Option<Attention>)>,
    down: Option<Down>,
}

#[derive(Debug)]
struct Rise {
    stages: Vec<Residual>,
    attention: Option<Attention>,
    /// Into the output's pyramid.
    out: Option<(Norm, Conv)>,
    up: Option<Step>,
}

/// The network with its weights.
#[derive(Debug)]
pub struct NcsnPp {
    config: Config,
    /// Frequencies of the Fourier features.
    fourier: Option<Vec<f32>>,
    embed: [Dense; 2],
    conv_in: Conv,
    encoder: Vec<Level>,
    middle: (Residual, Attention, Residual),
    decoder: Vec<Rise>,
    out: Option<(Norm, Conv)>,
}

impl NcsnPp {
    /// The network of this configuration with weights from `fetch`, under the names `all_modules.N…`.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the field that is not known; what `fetch` reports.
    pub fn new(config: Config, fetch: &mut Fetch) -> Result<Self> {
        config.check()?;
        let c = &config;
        let mut m = Modules { config: c, next: 0, fetch };
        let fourier = if c.embedding_type == "fourier" {
            let name = m.name();
            Some((m.fetch)(&format!("{name}.W"), &[c.nf])?.to_vec1()?)
        } else {
            None
        };
        let features = if fourier.is_some() { 2 * c.nf } else { c.nf };
        let embed = [m.dense([features, 4 * c.nf])?, m.dense([4 * c.nf, 4 * c.nf])?];
        let conv_in = m.conv([c.num_channels, c.nf])?;
        let levels = c.ch_mult.len();
        let attends = |level: usize| c.attn_resolutions.contains(&(c.image_size >> level));
        let (mut skips, mut channels, mut pyramid) = (vec![c.nf], c.nf, c.num_channels);
        let mut encoder = Vec::new();
        for (level, factor) in c.ch_mult.iter().enumerate() {
            let width = c.nf * factor;
            let mut stages = Vec::new();
            for _ in 0..c.num_res_blocks {
                let residual = m.residual([channels, width], None)?;
                channels = width;
                stages.push((residual, if attends(level) { Some(m.attention(width)?) } else { None }));
                skips.push(width);
            }
            let mut down = None;
            if level + 1 < levels {
                let step = m.step(channels, true)?;
                let joined = m.pyramid(&mut pyramid, channels)?;
                if matches!(joined, Pyramid::Skip { append: true, .. }) {
                    channels *= 2;
                }
                skips.push(channels);
                down = Some(Down { step, pyramid: joined });
            }
            encoder.push(Level { stages, down });
        }
        let middle =
            (m.residual([channels; 2], None)?, m.attention(channels)?, m.residual([channels; 2], None)?);
        let mut decoder = Vec::new();
        for (level, factor) in c.ch_mult.iter().enumerate().rev() {
            let width = c.nf * factor;
            let mut stages = Vec::new();
            for _ in 0..=c.num_res_blocks {
                stages.push(m.residual([channels + skips.pop().unwrap_or_default(), width], None)?);
                channels = width;
            }
            let attention = if attends(level) { Some(m.attention(channels)?) } else { None };
            let out = match &*c.progressive {
                "none" => None,
                _ => Some((m.norm(channels)?, m.conv([channels, c.num_channels])?)),
            };
            let up = if level > 0 { Some(m.step(channels, false)?) } else { None };
            decoder.push(Rise { stages, attention, out, up });
        }
        let out = match &*c.progressive {
            "none" => Some((m.norm(channels)?, m.conv([channels, c.num_channels])?)),
            _ => None,
        };
        Ok(Self { fourier, embed, conv_in, encoder, middle, decoder, out, config })
    }

    /// SiLU of the embedding of the times [images].
    fn embedding(&self, times: &Tensor) -> Result<Tensor> {
        let features = match &self.fourier {
            Some(weights) => {
                let frequencies = weights.iter().map(|w| w * std::f32::consts::TAU).collect();
                Fourier { frequencies, cosine_first: false }.apply(&times.log()?)?
            }
            None => sinusoids(times, self.config.nf, 1.0, false)?,
        };
        let hidden = self.embed[0].apply(&features)?.silu()?;
        Ok(self.embed[1].apply(&hidden)?.silu()?)
    }

    fn descend(&self, down: &Down, h: &Tensor, image: &mut Tensor, e: &Tensor) -> Result<Tensor> {
        let h = down.step.apply(h, e, self.config.down())?;
        match &down.pyramid {
            Pyramid::None => Ok(h),
            Pyramid::Skip { conv, append } => {
                *image = resampled(image, self.config.down())?;
                let part = conv.apply(image)?;
                if *append { concatenate(&part, &h) } else { add(&part, &h, 1.0) }
            }
            Pyramid::Residual(conv) => {
                let wide =
                    if self.config.fir { resampled(image, Resampling::FirWidened)? } else { image.clone() };
                *image = add(&conv.apply(&wide)?, &h, self.config.scale())?;
                Ok(image.clone())
            }
        }
    }
}

impl Modules<'_, '_> {
    /// What halves or doubles the resolution.
    fn step(&mut self, channels: usize, down: bool) -> Result<Step> {
        let c = self.config;
        if c.resblock_type == "biggan" {
            let resampling = if down { c.down() } else { c.up() };
            return Ok(Step::Residual(Box::new(self.residual([channels; 2], Some(resampling))?)));
        }
        let name = self.name();
        match (c.resamp_with_conv, down) {
            (false, _) => Ok(Step::Plain),
            (_, true) => {
                Ok(Step::Conv(Conv::strided(&format!("{name}.Conv_0"), [channels; 2], 0, 1, self.fetch)?))
            }
            _ => Ok(Step::Conv(Conv::load(&format!("{name}.Conv_0"), [channels; 2], 3, self.fetch)?)),
        }
    }

    /// How the image joins behind a step down; `image` is the number of its channels.
    fn pyramid(&mut self, image: &mut usize, channels: usize) -> Result<Pyramid> {
        let c = self.config;
        match &*c.progressive_input {
            "none" => Ok(Pyramid::None),
            "input_skip" => {
                let name = format!("{}.Conv_0", self.name());
                let conv = Conv::load(&name, [*image, channels], 1, self.fetch)?;
                Ok(Pyramid::Skip { conv, append: c.progressive_combine == "cat" })
            }
            _ => {
                let name = self.name();
                let pair = [std::mem::replace(image, channels), channels];
                let conv = if c.fir {
                    Conv::strided(&format!("{name}.Conv2d_0"), pair, 0, 0, self.fetch)?
                } else {
                    Conv::strided(&format!("{name}.Conv_0"), pair, 0, 1, self.fetch)?
                };
                Ok(Pyramid::Residual(conv))
            }
        }
    }
}

impl Step {
    fn apply(&self, h: &Tensor, e: &Tensor, resampling: Resampling) -> Result<Tensor> {
        let up = matches!(resampling, Resampling::Doubled | Resampling::FirDoubled);
        match self {
            Self::Residual(residual) => residual.apply(h, e),
            Self::Conv(conv) if up => conv.apply(&resampled(h, resampling)?),
            Self::Conv(conv) => conv.apply(h),
            Self::Plain => resampled(h, resampling),
        }
    }
}

impl Graph for NcsnPp {
    fn channels(&self) -> usize {
        self.config.num_channels
    }

    fn granule(&self) -> usize {
        1 << (self.config.ch_mult.len() - 1)
    }

    fn run(&self, x: &Tensor, times: &Tensor) -> Result<Tensor> {
        let e = self.embedding(times)?;
        let x = fold(x, 1)?;
        let mut image = if self.config.centered { x } else { x.affine(2.0, -1.0)? };
        let mut h = self.conv_in.apply(&image)?;
        let mut skips = vec![h.clone()];
        for level in &self.encoder {
            for (residual, attention) in &level.stages {
                h = residual.apply(&h, &e)?;
                if let Some(attention) = attention {
                    h = attention.apply(&h)?;
                }
                skips.push(h.clone());
            }
            if let Some(down) = &level.down {
                h = self.descend(down, &h, &mut image, &e)?;
                skips.push(h.clone());
            }
        }
        h = self.middle.2.apply(&self.middle.1.apply(&self.middle.0.apply(&h, &e)?)?, &e)?;
        let mut pyramid: Option<Tensor> = None;
        for rise in &self.decoder {
            for residual in &rise.stages {
                if let Some(skip) = skips.pop() {
                    h = residual.apply(&concatenate(&h, &skip)?, &e)?;
                }
            }
            if let Some(attention) = &rise.attention {
                h = attention.apply(&h)?;
            }
            if let Some((norm, conv)) = &rise.out {
                let part = conv.apply(&norm.silu(&h)?)?;
                pyramid = Some(match pyramid {
                    Some(smaller) => add(&resampled(&smaller, self.config.up())?, &part, 1.0)?,
                    None => part,
                });
            }
            if let Some(up) = &rise.up {
                h = up.apply(&h, &e, self.config.up())?;
            }
        }
        let y = match (pyramid, &self.out) {
            (_, Some((norm, conv))) => conv.apply(&norm.silu(&h)?)?,
            (Some(pyramid), None) => pyramid,
            (None, None) => h,
        };
        let y = unfold(&y, 1)?;
        if self.config.scale_by_sigma {
            return Ok(y.broadcast_div(&times.reshape(((), 1, 1, 1))?)?);
        }
        Ok(y)
    }
}
