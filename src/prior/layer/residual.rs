//! The residual block of all diffusion U-nets.

use candle_core::Tensor;

use super::{Conv, Dense, Fetch, Norm, Resampling, add, add_rows, resampled};
use crate::error::Result;

/// How the noise level enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modulation {
    /// Added to the first convolution's result.
    Shift,
    /// Scale and shift of the second normalisation.
    ScaleShift,
}

/// Names of a block's parts in a file.
pub struct Names {
    pub norm1: String,
    pub conv1: String,
    pub embed: String,
    pub norm2: String,
    pub conv2: String,
    pub shortcut: String,
}

/// The shape of a block.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Channels in and out.
    pub channels: [usize; 2],
    /// Features of the noise level's embedding.
    pub embedding: usize,
    /// Groups of the two normalisations, and their ε.
    pub groups: [usize; 2],
    pub epsilon: f64,
    pub modulation: Modulation,
    /// Change of resolution inside.
    pub resampling: Option<Resampling>,
    /// A 1 × 1 convolution around the block even where the channels stay the same.
    pub shortcut: bool,
    /// Factor of the sum, 1 or 1/√2.
    pub scale: f64,
}

/// x' + conv(SiLU(norm(conv(r(SiLU(norm(x)))) modulated))), x' = r(x) or its 1 × 1 convolution, r a change of
/// resolution or nothing.
#[derive(Debug)]
pub struct Residual {
    norm1: Norm,
    conv1: Conv,
    embed: Dense,
    norm2: Norm,
    conv2: Conv,
    shortcut: Option<Conv>,
    modulation: Modulation,
    resampling: Option<Resampling>,
    scale: f64,
}

impl Residual {
    /// The block with weights under these names; `shortcut`, where given, loads the 1 × 1 convolution around it
    /// from another layout than [outputs, inputs, 1, 1].
    pub fn load(names: &Names, shape: Shape, fetch: &mut Fetch) -> Result<Self> {
        let shortcut = |fetch: &mut Fetch| Conv::load(&names.shortcut, shape.channels, 1, fetch);
        Self::load_with(names, shape, shortcut, fetch)
    }

    /// As [`Residual::load`], where the file has the convolution around the block in another layout.
    pub fn load_with(
        names: &Names,
        shape: Shape,
        shortcut: impl FnOnce(&mut Fetch) -> Result<Conv>,
        fetch: &mut Fetch,
    ) -> Result<Self> {
        let ([x, y], e) = (shape.channels, shape.embedding);
        let features = if shape.modulation == Modulation::ScaleShift { 2 * y } else { y };
        let around = shape.shortcut || x != y;
        Ok(Self {
            norm1: Norm::load(&names.norm1, x, shape.groups[0], shape.epsilon, fetch)?,
            conv1: Conv::load(&names.conv1, [x, y], 3, fetch)?,
            embed: Dense::load(&names.embed, [e, features], fetch)?,
            norm2: Norm::load(&names.norm2, y, shape.groups[1], shape.epsilon, fetch)?,
            conv2: Conv::load(&names.conv2, [y, y], 3, fetch)?,
            shortcut: if around { Some(shortcut(fetch)?) } else { None },
            modulation: shape.modulation,
            resampling: shape.resampling,
            scale: shape.scale,
        })
    }

    /// The block for x [images, height, width, channels] and SiLU of the embedding [images, features].
    pub fn apply(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let mut h = self.norm1.silu(x)?;
        let mut x = x.clone();
        if let Some(resampling) = self.resampling {
            (h, x) = (resampled(&h, resampling)?, resampled(&x, resampling)?);
        }
        let h = self.conv1.apply(&h)?;
        let e = self.embed.apply(embedding)?;
        let h = match self.modulation {
            Modulation::Shift => self.norm2.silu(&add_rows(&h, &e)?)?,
            Modulation::ScaleShift => {
                let half = e.dim(1)? / 2;
                self.norm2.silu_modulated(&h, &e.narrow(1, 0, half)?, &e.narrow(1, half, half)?)?
            }
        };
        let h = self.conv2.apply(&h)?;
        if let Some(shortcut) = &self.shortcut {
            x = shortcut.apply(&x)?;
        }
        add(&h, &x, self.scale)
    }
}
