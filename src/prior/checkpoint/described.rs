//! Networks whose files don't say what they are: a JSON file beside the weights does.
//!
//! ```json
//! {
//!   "format": "guided-diffusion",
//!   "weights": "model.pt",
//!   "network": { "image_size": 256, "num_channels": 128, "in_channels": 1, "learn_sigma": true },
//!   "range": [-1, 1], "unit": "HU", "window": [-1000, 1000]
//! }
//! ```
//!
//! `format` is one of `guided-diffusion`, `score-sde`, `dncnn`, `drunet`; `network` has the fields of
//! [`guided::Config`], [`ncsnpp::Config`], [`plain::DnCnnConfig`] or [`plain::DruNetConfig`]. `weights` is relative
//! to the JSON file and by default the .pt, .pth or .safetensors of the same name. The rest may be left out.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::tensors::Tensors;
use super::{Description, Prior};
use crate::error::{Error, Result};
use crate::prior::network::guided::{self, GuidedUNet};
use crate::prior::network::ncsnpp::{self, NcsnPp};
use crate::prior::network::plain::{self, DnCnn, DruNet};
use crate::prior::parametrization::{DiscreteTimes, Prediction, Times};
use crate::prior::schedule::{Betas, Sde};

#[derive(Debug, Deserialize)]
struct File {
    format: Format,
    weights: Option<PathBuf>,
    #[serde(default)]
    network: serde_json::Value,
    name: Option<String>,
    range: Option<(f64, f64)>,
    #[serde(default)]
    unit: String,
    window: Option<(f64, f64)>,
    #[serde(default)]
    training: serde_json::Value,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Format {
    GuidedDiffusion,
    ScoreSde,
    #[serde(rename = "dncnn")]
    DnCnn,
    #[serde(rename = "drunet")]
    DruNet,
}

/// Reads the network that the JSON file at `path` describes.
pub(super) fn open(path: &Path, device: &Device) -> Result<Prior> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let file: File = serde_json::from_str(&text).map_err(|e| Error::format(path, e))?;
    let weights = match &file.weights {
        Some(name) => path.with_file_name("").join(name),
        None => ["pt", "pth", "ckpt", "safetensors"]
            .iter()
            .map(|ending| path.with_extension(ending))
            .find(|p| p.is_file())
            .ok_or_else(|| Error::format(path, "no weights beside it: name them in `weights`"))?,
    };
    let mut tensors = Tensors::open(&weights)?.on(device);
    match file.format {
        Format::GuidedDiffusion => guided(file, path, &mut tensors),
        Format::ScoreSde => score_sde(file, path, &mut tensors),
        Format::DnCnn => dncnn(file, path, &mut tensors),
        Format::DruNet => drunet(file, path, &mut tensors),
    }
}

fn network<T: DeserializeOwned + Default>(file: &File, path: &Path) -> Result<T> {
    if file.network.is_null() {
        return Ok(T::default());
    }
    T::deserialize(&file.network).map_err(|e| Error::format(path, format!("`network`: {e}")))
}

fn description(
    file: File,
    path: &Path,
    tensors: &Tensors,
    family: &'static str,
    range: (f64, f64),
    says: String,
) -> Description {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Description {
        name: file.name.unwrap_or(stem),
        family,
        parameters: tensors.parameters(),
        range: file.range.unwrap_or(range),
        unit: file.unit,
        window: file.window,
        says,
        size: None,
        network: file.network,
        training: file.training,
    }
}

fn guided(file: File, path: &Path, tensors: &mut Tensors) -> Result<Prior> {
    let config: guided::Config = network(&file, path)?;
    let steps = config.diffusion_steps;
    let betas = match &*config.noise_schedule {
        // The published table is of 1000 steps; others keep its sum.
        "linear" => {
            let scale = 1000.0 / steps.max(1) as f64;
            Betas::Linear { start: scale * 1e-4, end: scale * 0.02 }
        }
        "cosine" => Betas::Cosine,
        other => {
            return Err(Error::format(
                path,
                format!("`noise_schedule` is {other}; known are: linear, cosine"),
            ));
        }
    };
    if config.rescale_timesteps && steps != 1000 {
        let reason =
            format!("`rescale_timesteps` with {steps} steps is not known, with 1000 it changes nothing");
        return Err(Error::format(path, reason));
    }
    let times = Times::Discrete(DiscreteTimes::new(betas, steps)?);
    let target = if config.predict_xstart { "x₀" } else { "noise" };
    let variance = if config.learn_sigma { " and variance" } else { "" };
    let says = format!("{target}{variance}, {} β, {steps} steps", config.noise_schedule);
    let prediction = if config.predict_xstart { Prediction::Sample(times) } else { Prediction::Noise(times) };
    let size = config.image_size;
    let graph = GuidedUNet::new(config, &mut |name, shape| tensors.fetch(name, shape))?;
    let family = "U-net of guided-diffusion (ADM)";
    let description = description(file, path, tensors, family, (-1.0, 1.0), says);
    Description { size: Some([size; 2]), ..description }.prior(graph, prediction)
}

fn score_sde(file: File, path: &Path, tensors: &mut Tensors) -> Result<Prior> {
    let config: ncsnpp::Config = network(&file, path)?;
    let scaled = |sde| Times::Continuous { sde, scale: 999.0 };
    let prediction = match &*config.sde {
        "vesde" => Prediction::Score(Times::Sigma),
        // The published code turns the output's sign and divides it by the standard deviation: it is ε.
        "vpsde" => Prediction::Noise(scaled(Sde::VP)),
        "subvpsde" => Prediction::Noise(scaled(Sde::SUB_VP)),
        other => {
            return Err(Error::format(path, format!("`sde` is {other}; known are: vesde, vpsde, subvpsde")));
        }
    };
    let says = match &*config.sde {
        "vesde" => format!("score, variance exploding, σ {} to {}", config.sigma_min, config.sigma_max),
        sde => format!("noise, {sde}"),
    };
    let range = if config.centered { (-1.0, 1.0) } else { (0.0, 1.0) };
    let size = config.image_size;
    let graph = NcsnPp::new(config, &mut |name, shape| tensors.fetch(name, shape))?;
    let description = description(file, path, tensors, "NCSN++ of score-SDE", range, says);
    Description { size: Some([size; 2]), ..description }.prior(graph, prediction)
}

fn dncnn(file: File, path: &Path, tensors: &mut Tensors) -> Result<Prior> {
    let config: plain::DnCnnConfig = network(&file, path)?;
    let graph = DnCnn::new(&config, &mut |name, shape| tensors.fetch(name, shape))?;
    let says = format!("x − x₀ at σ {:.4}; other levels are scaled to it", config.sigma);
    let description = description(file, path, tensors, "DnCNN", (0.0, 1.0), says);
    description.prior(graph, Prediction::Residual { sigma: config.sigma })
}

fn drunet(file: File, path: &Path, tensors: &mut Tensors) -> Result<Prior> {
    let config: plain::DruNetConfig = network(&file, path)?;
    let graph = DruNet::new(&config, &mut |name, shape| tensors.fetch(name, shape))?;
    let description = description(file, path, tensors, "DRUNet", (0.0, 1.0), "x₀, told σ".into());
    description.prior(graph, Prediction::Sample(Times::Sigma))
}
