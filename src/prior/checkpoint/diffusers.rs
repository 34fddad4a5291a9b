//! Folders of diffusers: a model (`config.json` with weights), or a pipeline with `unet` and `scheduler` inside.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::tensors::Tensors;
use super::{Description, Prior};
use crate::error::{Error, Result};
use crate::prior::network::diffusers::{Config, DiffusersUNet};
use crate::prior::parametrization::{DiscreteTimes, Prediction, Times};
use crate::prior::schedule::Betas;

/// Names of the weights' file.
const WEIGHTS: [&str; 2] = ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"];

/// The fields of scheduler_config.json that say what the output stands for, with diffusers' defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Scheduler {
    num_train_timesteps: usize,
    beta_start: f64,
    beta_end: f64,
    beta_schedule: String,
    prediction_type: String,
    trained_betas: Option<Vec<f64>>,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 1e-4,
            beta_end: 0.02,
            beta_schedule: "linear".into(),
            prediction_type: "epsilon".into(),
            trained_betas: None,
        }
    }
}

impl Scheduler {
    fn prediction(&self, path: &Path) -> Result<Prediction> {
        let fail = |field: &str, found: &str, known: &str| {
            Err(Error::format(path, format!("`{field}` is {found}; known are: {known}")))
        };
        let (start, end) = (self.beta_start, self.beta_end);
        if self.trained_betas.is_some() {
            return fail("trained_betas", "a table", "null");
        }
        let betas = match &*self.beta_schedule {
            "linear" => Betas::Linear { start, end },
            "scaled_linear" => Betas::ScaledLinear { start, end },
            "squaredcos_cap_v2" => Betas::Cosine,
            other => return fail("beta_schedule", other, "linear, scaled_linear, squaredcos_cap_v2"),
        };
        let times = Times::Discrete(DiscreteTimes::new(betas, self.num_train_timesteps)?);
        match &*self.prediction_type {
            "epsilon" => Ok(Prediction::Noise(times)),
            "sample" => Ok(Prediction::Sample(times)),
            "v_prediction" => Ok(Prediction::Velocity(times)),
            other => fail("prediction_type", other, "epsilon, sample, v_prediction"),
        }
    }
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::format(path, e))
}

/// Reads a model or pipeline. Data are taken to lie in [−1, 1], as diffusers' own training does.
pub(super) fn open(folder: &Path, device: &Device) -> Result<Prior> {
    let inner = folder.join("unet");
    let model = if inner.join("config.json").is_file() { inner } else { folder.to_path_buf() };
    let config_path = model.join("config.json");
    if !config_path.is_file() {
        return Err(Error::format(
            folder,
            "expected a model of diffusers: neither config.json nor unet/config.json",
        ));
    }
    let raw: serde_json::Value = json(&config_path)?;
    if let Some(class) = raw.get("_class_name").and_then(|c| c.as_str())
        && class != "UNet2DModel"
    {
        return Err(Error::format(&config_path, format!("expected a UNet2DModel, found {class}")));
    }
    let config: Config = json(&config_path)?;
    let places =
        ["scheduler_config.json", "scheduler/scheduler_config.json", "../scheduler/scheduler_config.json"];
    let scheduler: Option<PathBuf> = places.iter().map(|p| model.join(p)).find(|p| p.is_file());
    let scheduler = scheduler.ok_or_else(|| {
        Error::format(folder, "scheduler_config.json is missing: it says what the network predicts")
    })?;
    let settings: Scheduler = json(&scheduler)?;
    let weights = WEIGHTS.iter().map(|name| model.join(name)).find(|p| p.is_file());
    let weights = weights
        .ok_or_else(|| Error::format(&model, format!("neither {} is there", WEIGHTS.join(" nor "))))?;
    let mut tensors = Tensors::open(&weights)?.on(device);
    tensors.rename(legacy);
    let size = match &config.sample_size {
        serde_json::Value::Number(n) => n.as_u64().map(|n| [n as usize; 2]),
        other => serde_json::from_value(other.clone()).ok(),
    };
    let network = DiffusersUNet::new(config.clone(), &mut |name, shape| tensors.fetch(name, shape))?;
    let description = Description {
        name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        family: "UNet2DModel of diffusers",
        parameters: tensors.parameters(),
        range: (-1.0, 1.0),
        unit: String::new(),
        window: None,
        says: format!(
            "{}, {} β, {} steps",
            settings.prediction_type, settings.beta_schedule, settings.num_train_timesteps
        ),
        size,
        network: serde_json::to_value(&config).map_err(|e| Error::format(&config_path, e))?,
        training: serde_json::Value::Null,
    };
    description.prior(network, settings.prediction(&scheduler)?)
}

/// The names of attention layers before diffusers 0.17.
fn legacy(name: &str) -> Option<String> {
    let pairs = [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];
    pairs.iter().find_map(|(old, new)| {
        let (stem, end) = name.rsplit_once(&format!(".{old}."))?;
        Some(format!("{stem}.{new}.{end}"))
    })
}
