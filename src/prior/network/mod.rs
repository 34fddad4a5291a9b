//! Networks, each a description in terms of the layers beside them; weights come by name from whatever file.
//!
//! | Module | Network |
//! |---|---|
//! | [`unet`] | the U-net of our own priors |
//! | [`diffusers`] | `UNet2DModel` of diffusers |
//! | [`guided`] | the U-net of guided-diffusion (ADM) |
//! | [`ncsnpp`] | NCSN++ of score-SDE |
//! | [`plain`] | denoisers without a U-net's embedding: DnCNN and DRUNet |

mod config;
pub mod diffusers;
pub mod guided;
pub mod ncsnpp;
pub mod plain;
#[cfg(test)]
pub(in crate::prior) mod tests;
pub mod unet;

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Tensor, Var};

use crate::error::{Error, Result};
use crate::prior::Pullback;
use crate::prior::parametrization::Network;

pub use config::UNetConfig;

/// A network as a function of candle tensors, through which candle's backward pass goes.
pub trait Graph: Debug + Send + Sync {
    /// Channels of the argument.
    fn channels(&self) -> usize;
    /// What height and width must be multiples of.
    fn granule(&self) -> usize;
    /// F(x, t) for x `[images, channels, height, width]` and times `[images]`.
    fn run(&self, x: &Tensor, times: &Tensor) -> Result<Tensor>;
}

/// A [`Graph`] behind the interface of all networks. Batches go through in small groups, so that memory stays bounded.
#[derive(Debug)]
pub struct Grouped<G>(Arc<G>);

/// Images that go through the network at a time: enough to share the weights of the coarse levels, few enough for
/// the cache.
const TOGETHER: usize = 2;

impl<G: Graph> Grouped<G> {
    /// The network behind the common interface.
    pub fn new(graph: G) -> Self {
        Self(Arc::new(graph))
    }

    fn parts(x: &Tensor) -> Result<Vec<Tensor>> {
        let images = x.dim(0)?;
        let part = |start| Ok(x.narrow(0, start, TOGETHER.min(images - start))?.contiguous()?);
        (0..images).step_by(TOGETHER).map(part).collect()
    }

    fn times(x: &Tensor, time: f64) -> Result<Tensor> {
        Ok(Tensor::full(time as f32, x.dim(0)?, x.device())?)
    }
}

impl<G: Graph + 'static> Network for Grouped<G> {
    fn channels(&self) -> usize {
        self.0.channels()
    }

    fn granule(&self) -> usize {
        self.0.granule()
    }

    fn forward(&self, x: &Tensor, time: f64) -> Result<Tensor> {
        let parts = Self::parts(x)?
            .iter()
            .map(|x| self.0.run(x, &Self::times(x, time)?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    fn forward_vjp(&self, x: &Tensor, time: f64) -> Result<(Tensor, Pullback)> {
        let mut traces = Vec::new();
        let mut values = Vec::new();
        for x in Self::parts(x)? {
            let x = Var::from_tensor(&x)?;
            let value = self.0.run(x.as_tensor(), &Self::times(&x, time)?)?;
            values.push(value.detach());
            traces.push((x, value));
        }
        let pull = move |g: &Tensor| {
            let mut start = 0;
            let mut out = Vec::new();
            for (x, value) in traces {
                let g = g.narrow(0, start, value.dim(0)?)?.contiguous()?;
                start += value.dim(0)?;
                out.push(gradient(&x, &value, &g)?);
            }
            Ok(Tensor::cat(&out, 0)?)
        };
        Ok((Tensor::cat(&values, 0)?, Pullback::new(pull)))
    }
}

/// Jᵀ g for value = F(x): the gradient of ⟨F(x), g⟩.
fn gradient(x: &Var, value: &Tensor, g: &Tensor) -> Result<Tensor> {
    let gradients = (value * g)?.sum_all()?.backward()?;
    match gradients.get(x.as_tensor()) {
        Some(gradient) => Ok(gradient.clone()),
        None => Err(Error::Unsupported("the network does not depend on its input".into())),
    }
}
