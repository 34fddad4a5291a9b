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

use candle_core::{Device, Tensor, Var};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::prior::Pullback;
use crate::prior::layer::Tape;
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

    /// What `work` makes of every part: several at a time on the processor, where candle runs much on one thread.
    fn each<T: Send, R: Send>(
        device: &Device,
        parts: Vec<T>,
        work: impl Fn(T) -> Result<R> + Send + Sync,
    ) -> Result<Vec<R>> {
        if device.is_cpu() {
            parts.into_par_iter().map(work).collect()
        } else {
            parts.into_iter().map(work).collect()
        }
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
        let run = |x: Tensor| self.0.run(&x, &Self::times(&x, time)?);
        Ok(Tensor::cat(&Self::each(x.device(), Self::parts(x)?, run)?, 0)?)
    }

    fn forward_vjp(&self, x: &Tensor, time: f64) -> Result<(Tensor, Pullback)> {
        let run = |x: Tensor| {
            let (x, times) = (Var::from_tensor(&x)?, Self::times(&x, time)?);
            let (value, tape) = Tape::record(|| self.0.run(x.as_tensor(), &times));
            Ok((x, value?, tape))
        };
        let traces = Self::each(x.device(), Self::parts(x)?, run)?;
        let values: Vec<Tensor> = traces.iter().map(|(_, value, _)| value.detach()).collect();
        let pull = move |g: &Tensor| {
            let back = |((x, value, tape), g): (&(Var, Tensor, Tape), Tensor)| {
                tape.pull(x, value, &g)?.map_or_else(|| gradient(x, value, &g), Ok)
            };
            let pairs = traces.iter().zip(Self::parts(g)?).collect();
            Ok(Tensor::cat(&Self::each(g.device(), pairs, back)?, 0)?)
        };
        Ok((Tensor::cat(&values, 0)?, Pullback::new(pull)))
    }
}

/// Jᵀ g for value = F(x) by candle: the gradient of ⟨F(x), g⟩.
fn gradient(x: &Var, value: &Tensor, g: &Tensor) -> Result<Tensor> {
    let gradients = (value * g)?.sum_all()?.backward()?;
    match gradients.get(x.as_tensor()) {
        Some(gradient) => Ok(gradient.clone()),
        None => Err(Error::Unsupported("the network does not depend on its input".into())),
    }
}
