//! Fully connected layers and embeddings of the noise level, on [images, features].

use candle_core::Tensor;

use super::Fetch;
use crate::error::Result;

/// x ↦ W x + b.
#[derive(Debug)]
pub struct Dense {
    weight: Tensor,
    bias: Tensor,
}

impl Dense {
    /// Weights NAME.weight [outputs, inputs] and NAME.bias [outputs].
    pub fn load(name: &str, [inputs, outputs]: [usize; 2], fetch: &mut Fetch) -> Result<Self> {
        let weight = fetch(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Self { weight, bias: fetch(&format!("{name}.bias"), &[outputs])? })
    }

    /// W x + b for x [images, inputs].
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
    }
}

/// [sin, cos] of x · f for each frequency: [images] to [images, 2 · frequencies].
pub struct Fourier {
    /// Frequencies in radians.
    pub frequencies: Vec<f32>,
    /// cos first.
    pub cosine_first: bool,
}

impl Fourier {
    /// The features of times [images].
    pub fn apply(&self, times: &Tensor) -> Result<Tensor> {
        let frequencies = Tensor::new(&self.frequencies[..], times.device())?;
        let angles = times.unsqueeze(1)?.broadcast_mul(&frequencies)?;
        let (sin, cos) = (angles.sin()?, angles.cos()?);
        Ok(if self.cosine_first { Tensor::cat(&[cos, sin], 1)? } else { Tensor::cat(&[sin, cos], 1)? })
    }
}

/// The frequencies 10000^(−k/(n − shift)) of transformers, n = features/2; odd counts get a zero behind.
pub fn sinusoids(times: &Tensor, features: usize, shift: f64, cosine_first: bool) -> Result<Tensor> {
    let half = features / 2;
    let frequency = |k: usize| (-(10_000f64.ln()) * k as f64 / (half as f64 - shift)).exp() as f32;
    let all = Fourier { frequencies: (0..half).map(frequency).collect(), cosine_first }.apply(times)?;
    Ok(if features % 2 == 1 { all.pad_with_zeros(1, 0, 1)? } else { all })
}
