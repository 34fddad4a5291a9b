//! Priors on disk: our own format, and the files of other projects.
//!
//! | What lies there | Read as |
//! |---|---|
//! | `.safetensors` with our metadata | [the format of `wellposed prior train`](own) |
//! | a folder with `config.json` | [a diffusers model or pipeline](diffusers) |
//! | `.json`, or `.pt`/`.pth`/`.safetensors` with a `.json` of the same name | [a described network](described): guided-diffusion, score-SDE, DnCNN, DRUNet |

pub mod described;
pub mod diffusers;
pub mod own;
mod tensors;

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::prior::Denoiser;
use crate::prior::network::{Graph, Grouped};
use crate::prior::parametrization::{NetworkDenoiser, Prediction};

/// What a file says of a prior besides its weights.
#[derive(Clone, Debug, Serialize)]
pub struct Card {
    /// Short name, `ct` or `brain` for the ones that come along.
    pub name: String,
    /// The architecture, and whose file it is.
    pub family: String,
    /// Channels of the images: 1 for real ones, 2 for re and im.
    pub channels: usize,
    /// Numbers learned.
    pub parameters: usize,
    /// Smallest and largest value of clean data in network units.
    pub range: (f64, f64),
    /// What the network's units stand for in physical ones.
    pub unit: String,
    /// The physical values at the ends of the range, where these are fixed (−1000 to 1000 HU for CT).
    pub window: Option<(f64, f64)>,
    /// What the network's output stands for.
    pub prediction: String,
    /// Height and width of the images in training, where known.
    pub size: Option<[usize; 2]>,
    /// What heights and widths are padded to multiples of.
    pub granule: usize,
    /// The shape of the network, as the file states it.
    pub network: serde_json::Value,
    /// How it was trained: steps, slices, validation.
    pub training: serde_json::Value,
}

/// A prior, as read from a file or as it comes along: what it says of itself, and the denoiser.
#[derive(Clone, Debug)]
pub struct Prior {
    /// What it says.
    pub card: Card,
    /// The denoiser, ready to use.
    pub denoiser: Arc<dyn Denoiser>,
}

impl Prior {
    /// Reads a prior from a file or folder, whose kind is recognised by the contents.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] naming the tensor that is missing, has the wrong shape or type, or holds
    /// NaN, and what is wrong with the metadata; [`Error::Parameter`] naming a field of a configuration that is not
    /// known.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(path, &Device::Cpu)
    }

    /// [`Prior::open`] with the network on this device.
    ///
    /// # Errors
    /// As [`Prior::open`].
    pub fn open_on(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            return diffusers::open(path, device);
        }
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        let beside = path.with_extension("json");
        match &*ending {
            "json" => described::open(path, device),
            "pt" | "pth" | "bin" | "ckpt" if !beside.exists() => {
                let reason = format!(
                    "this file doesn't say what network it holds: describe it in {}",
                    beside.display()
                );
                Err(Error::format(path, reason))
            }
            "pt" | "pth" | "bin" | "ckpt" => described::open(&beside, device),
            _ => {
                let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
                if beside.exists() && !own::is_ours(&bytes) {
                    return described::open(&beside, device);
                }
                own::read(&bytes, path, device)
            }
        }
    }

    /// Reads a prior of our own format from the contents of a file; `path` is what errors name.
    ///
    /// # Errors
    /// As [`Prior::open`].
    pub fn from_bytes(bytes: &[u8], path: impl AsRef<Path>) -> Result<Self> {
        Self::from_bytes_on(bytes, path, &Device::Cpu)
    }

    /// [`Prior::from_bytes`] with the network on this device.
    ///
    /// # Errors
    /// As [`Prior::open`].
    pub fn from_bytes_on(bytes: &[u8], path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        own::read(bytes, path.as_ref(), device)
    }
}

#[cfg(test)]
mod tests;

/// What the reader of a format knows of a prior.
struct Description {
    name: String,
    family: &'static str,
    parameters: usize,
    range: (f64, f64),
    unit: String,
    window: Option<(f64, f64)>,
    /// The prediction in words.
    says: String,
    size: Option<[usize; 2]>,
    network: serde_json::Value,
    training: serde_json::Value,
}

impl Description {
    /// The prior of a network.
    fn prior(self, network: impl Graph + 'static, prediction: Prediction) -> Result<Prior> {
        let card = Card {
            name: self.name,
            family: self.family.into(),
            channels: network.channels(),
            parameters: self.parameters,
            range: self.range,
            unit: self.unit,
            window: self.window,
            prediction: self.says,
            size: self.size,
            granule: network.granule(),
            network: self.network,
            training: self.training,
        };
        let network = Arc::new(Grouped::new(network));
        let denoiser = NetworkDenoiser::new(network, prediction, card.range)?;
        Ok(Prior { card, denoiser: Arc::new(denoiser) })
    }
}
