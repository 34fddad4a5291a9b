//! A training run on disk: safetensors with weights, moments and average in f32, and how it was set up.

use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::{Settings, Trainer};
use crate::error::{Error, Result};
use crate::prior::checkpoint::own::Header;
use crate::tensor::{Buffer, Real};

const FORMAT: &str = "wellposed-training-1";

impl Trainer {
    /// The state as the contents of a file; `notes` come back with it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it can't be encoded.
    pub fn to_bytes(&self, notes: &serde_json::Value) -> Result<Vec<u8>> {
        let fail = |e: &dyn std::fmt::Display| Error::Unsupported(format!("the state of the training: {e}"));
        let arrays = [
            ("weights", &self.weights),
            ("mean", &self.mean),
            ("square", &self.square),
            ("average", &self.average),
        ];
        let mut data = Vec::new();
        for (name, buffer) in arrays {
            let bytes: Vec<u8> = f32::to_vec(buffer.tensor())?.iter().flat_map(|v| v.to_le_bytes()).collect();
            data.push((name, bytes));
        }
        let mut views = Vec::new();
        for (name, bytes) in &data {
            views.push((
                *name,
                TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(|e| fail(&e))?,
            ));
        }
        let entries = [
            ("format".to_string(), FORMAT.to_string()),
            ("header".into(), serde_json::to_string(&self.header).map_err(|e| fail(&e))?),
            ("settings".into(), serde_json::to_string(&self.settings).map_err(|e| fail(&e))?),
            ("step".into(), self.step.to_string()),
            ("notes".into(), notes.to_string()),
        ];
        safetensors::serialize(views, Some(entries.into())).map_err(|e| fail(&e))
    }

    /// Goes on from a saved state: the trainer and the notes. `path` is what errors name.
    ///
    /// # Errors
    /// [`Error::Format`] where these are not the contents of such a file.
    pub fn from_bytes(bytes: &[u8], path: &Path, device: &Device) -> Result<(Self, serde_json::Value)> {
        let fail = |e: &dyn std::fmt::Display| Error::format(path, e);
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| fail(&e))?;
        let entries = metadata.metadata().clone().unwrap_or_default();
        let entry = |key: &str| {
            entries.get(key).ok_or_else(|| fail(&format!("no state of a training: `{key}` is missing")))
        };
        if entry("format")? != FORMAT {
            return Err(fail(&format!("expected format {FORMAT}, found {}", entry("format")?)));
        }
        let header: Header = serde_json::from_str(entry("header")?).map_err(|e| fail(&e))?;
        let settings: Settings = serde_json::from_str(entry("settings")?).map_err(|e| fail(&e))?;
        let notes = serde_json::from_str(entry("notes")?).map_err(|e| fail(&e))?;
        let mut trainer = Self::new(header, settings, device)?;
        trainer.step = entry("step")?.parse().map_err(|e| fail(&e))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| fail(&e))?;
        let count = trainer.parameters();
        let read = |name: &str| -> Result<Buffer> {
            let view = tensors.tensor(name).map_err(|_| fail(&format!("tensor `{name}` is missing")))?;
            if view.dtype() != Dtype::F32 || view.shape() != [count] {
                let found = format!("{:?} {:?}", view.dtype(), view.shape());
                return Err(fail(&format!("tensor `{name}`: expected F32 [{count}], found {found}")));
            }
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            Buffer::copy_of(&Tensor::from_vec(values.collect::<Vec<f32>>(), count, device)?)
        };
        (trainer.weights, trainer.mean) = (read("weights")?, read("mean")?);
        (trainer.square, trainer.average) = (read("square")?, read("average")?);
        Ok((trainer, notes))
    }
}
