//! The residual block of all diffusion U-nets.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape as Dimensions, Tensor};

use super::ops::{done, map, read};
use super::tape::apply1;
use super::{Conv, Dense, Fetch, Norm, Resampling, add, add_rows, resampled};
use crate::error::Result;
use crate::prior::kernel::map::{self as maps, Map};
use crate::prior::kernel::residual as kernel;
use crate::prior::{Precision, precision};
use crate::tensor::Real;

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
    /// Channels that come in.
    channels: usize,
    /// The block of constant weights as one operation, where it is of such a kind.
    fused: OnceLock<Option<Arc<kernel::Residual>>>,
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
            channels: x,
            fused: OnceLock::new(),
        })
    }

    /// The block for x [images, height, width, channels] and SiLU of the embedding [images, features].
    pub fn apply(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let exact = precision() == Precision::F32;
        let fits = x.device().is_cpu() && exact && !embedding.track_op() && x.dim(3)? == self.channels;
        let Some(block) = fits.then(|| self.fused()).transpose()?.flatten() else {
            return self.layers(x, embedding);
        };
        let modulation = self.kernel_modulation(embedding)?;
        let op = Fused { block, modulation, h: x.track_op().then(Mutex::default) };
        apply1(x, op)
    }

    fn fused(&self) -> Result<Option<Arc<kernel::Residual>>> {
        if let Some(fused) = self.fused.get() {
            return Ok(fused.clone());
        }
        let fused = if self.conv1.learns() || self.resampling.is_some() {
            None
        } else {
            let shortcut = self.shortcut.as_ref().map(Conv::constant).transpose()?;
            let convs = [self.conv1.constant()?, self.conv2.constant()?];
            let norms = [self.norm1.kernel(true), self.norm2.kernel(true)];
            kernel::Residual::new(norms, convs, shortcut, self.scale as f32).map(Arc::new)
        };
        Ok(self.fused.get_or_init(|| fused).clone())
    }

    fn kernel_modulation(&self, embedding: &Tensor) -> Result<kernel::Modulation> {
        let images = embedding.dim(0)?;
        let values =
            |[gamma, beta]: [Tensor; 2]| -> Result<_> { Ok([f32::to_vec(&gamma)?, f32::to_vec(&beta)?]) };
        let e = self.embed.apply(embedding)?;
        let norm1 = values(self.norm1.coefficients(images, None)?)?;
        Ok(match self.modulation {
            Modulation::Shift => {
                let norm2 = values(self.norm2.coefficients(images, None)?)?;
                kernel::Modulation { norm1, norm2, shift: Some(f32::to_vec(&e)?) }
            }
            Modulation::ScaleShift => {
                let [scale, shift] = halves(&e)?;
                let norm2 = values(self.norm2.coefficients(images, Some((&scale, &shift)))?)?;
                kernel::Modulation { norm1, norm2, shift: None }
            }
        })
    }

    /// The block layer by layer: with weights that learn, changes of resolution, on another device, or rounded.
    pub(super) fn layers(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
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
                let [scale, shift] = halves(&e)?;
                self.norm2.silu_modulated(&h, &scale, &shift)?
            }
        };
        let h = self.conv2.apply(&h)?;
        if let Some(shortcut) = &self.shortcut {
            x = shortcut.apply(&x)?;
        }
        add(&h, &x, self.scale)
    }
}

/// Scale and shift of the channels, from features [images, 2 channels].
fn halves(e: &Tensor) -> Result<[Tensor; 2]> {
    let half = e.dim(1)? / 2;
    Ok([e.narrow(1, 0, half)?, e.narrow(1, half, half)?])
}

/// The whole block; its gradient is with respect to x alone.
struct Fused {
    block: Arc<kernel::Residual>,
    modulation: kernel::Modulation,
    /// What the gradient needs, where one may be asked for.
    h: Option<Mutex<Vec<f32>>>,
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "residual block"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Dimensions)> {
        let x = map(x, layout)?;
        let mut h = self.h.as_ref().map(|h| h.lock().unwrap_or_else(PoisonError::into_inner));
        let out = self.block.apply(x, &self.modulation, h.as_deref_mut());
        Ok(done(out, &x.shape.with_channels(self.block.outputs()).dims()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> CandleResult<Option<Tensor>> {
        let (images, height, width, channels) = x.dims4()?;
        let shape = maps::Shape { images, height, width, channels };
        let Some(h) = &self.h else { candle_core::bail!("the block was run without a gradient in view") };
        let h = h.lock().unwrap_or_else(PoisonError::into_inner);
        let found = read([x, g], |[x, g]| {
            let g = Map::new(shape.with_channels(self.block.outputs()), g);
            self.block.input_gradient(Map::new(shape, x), &self.modulation, &h, g)
        })?;
        Ok(Some(Tensor::from_vec(found, x.shape(), x.device())?))
    }
}
