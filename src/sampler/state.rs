//! What a sampler carries from step to step, and its form on disk.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::tensor::Buffer;

/// Noise streams: the starting point, the steps, the corrector, everything else.
pub(super) const START: u32 = 0;
pub(super) const STEPS: u32 = 1;
pub(super) const CORRECTOR: u32 = 2;
pub(super) const INNER: u32 = 3;

/// The state of a run: named arrays, the number of finished steps, and the seed. One form for all samplers,
/// so that any run can be saved and resumed.
#[derive(Debug)]
pub struct State {
    /// Finished steps.
    pub iteration: usize,
    /// The seed of all noise.
    pub seed: u64,
    buffers: Vec<(&'static str, Buffer)>,
}

impl State {
    /// A state before the first step. It must hold an array named `estimate`.
    pub fn new(seed: u64, buffers: Vec<(&'static str, Buffer)>) -> Self {
        Self { iteration: 0, seed, buffers }
    }

    /// The current estimate of the clean images.
    pub fn estimate(&self) -> &Tensor {
        self.get("estimate").tensor()
    }

    /// Gives the estimate away.
    pub fn into_estimate(mut self) -> Tensor {
        let at = self.position("estimate");
        self.buffers.swap_remove(at).1.freeze()
    }

    fn position(&self, name: &str) -> usize {
        let at = self.buffers.iter().position(|(n, _)| *n == name);
        at.unwrap_or_else(|| panic!("the sampler's state has no array `{name}`"))
    }

    /// The array of this name.
    ///
    /// # Panics
    /// Where the sampler did not make it in its `init`.
    pub fn get(&self, name: &str) -> &Buffer {
        &self.buffers[self.position(name)].1
    }

    /// Several arrays at once, in the order of `names`, for reading and writing.
    ///
    /// # Panics
    /// Where a name is missing or named twice.
    pub fn many<const N: usize>(&mut self, names: [&str; N]) -> [&mut Buffer; N] {
        let places = names.map(|name| self.position(name));
        let mut slots = self.buffers.iter_mut().map(|(_, b)| Some(b)).collect::<Vec<_>>();
        places.map(|at| slots[at].take().expect("each array is named once"))
    }

    /// The state as safetensors bytes. `identity` describes the run (method, parameters, data); a later
    /// [`State::restore`] refuses another one.
    pub fn to_bytes(&self, identity: &str) -> Result<Vec<u8>> {
        let tensors: Vec<(String, Tensor)> = self
            .buffers
            .iter()
            .map(|(n, b)| Ok(((*n).to_string(), b.tensor().to_device(&Device::Cpu)?)))
            .collect::<Result<_>>()?;
        let metadata = HashMap::from([
            ("identity".to_string(), identity.to_string()),
            ("iteration".to_string(), self.iteration.to_string()),
            ("seed".to_string(), self.seed.to_string()),
        ]);
        safetensors::serialize(tensors.iter().map(|(n, t)| (n.as_str(), t)), Some(metadata))
            .map_err(|e| Error::Unsupported(format!("checkpoint: {e}")))
    }

    /// Overwrites a fresh state (from the same sampler's `init`) with a saved one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the bytes are damaged, come from another run, or lack an array.
    pub fn restore(&mut self, bytes: &[u8], identity: &str) -> Result<()> {
        let refuse = |why: String| Error::Unsupported(format!("checkpoint: {why}"));
        let (_, header) =
            safetensors::SafeTensors::read_metadata(bytes).map_err(|e| refuse(e.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let field = |name: &str| metadata.get(name).ok_or_else(|| refuse(format!("`{name}` is missing")));
        if field("identity")? != identity {
            return Err(refuse(format!(
                "made by another run: {}, this run is {identity}",
                field("identity")?
            )));
        }
        let number = |name: &str| -> Result<u64> {
            field(name)?.parse().map_err(|_| refuse(format!("`{name}` is not a number")))
        };
        let (iteration, seed) = (number("iteration")?, number("seed")?);
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
        for (name, buffer) in &mut self.buffers {
            let saved = tensors.get(*name).ok_or_else(|| refuse(format!("array `{name}` is missing")))?;
            if saved.dims() != buffer.dims() || saved.dtype() != buffer.tensor().dtype() {
                return Err(Error::shape(
                    format!("checkpoint array `{name}`"),
                    format!("{:?}", buffer.dims()),
                    saved.dims(),
                ));
            }
            let device = buffer.tensor().device().clone();
            buffer.copy_from(&saved.to_device(&device)?)?;
        }
        (self.iteration, self.seed) = (iteration as usize, seed);
        Ok(())
    }
}
