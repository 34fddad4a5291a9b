//! Our own format: safetensors with the network's shape and the data's convention as metadata.
//!
//! Metadata entries: `format` = `wellposed-unet-1`; `config`, a JSON object with the fields of [`UNetConfig`] and of
//! [`Header`]; `training`, a JSON object that tells how it was trained (free form). Tensors are f16 or f32,
//! convolutions [out, in, height, width], named after their place in the network:
//! `encoder.LEVEL.BLOCK.res.conv1.weight` and so on.

use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::tensors::Tensors;
use super::{Description, Prior};
use crate::error::{Error, Result};
use crate::prior::network::UNetConfig;
use crate::prior::network::unet::UNet;
use crate::prior::parametrization::Prediction;
use crate::tensor::Real;

const FORMAT: &str = "wellposed-unet-1";

/// The metadata entry `config`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Header {
    /// Short name.
    pub name: String,
    /// Smallest and largest value of clean data.
    pub range: (f64, f64),
    /// What the network's units stand for.
    pub unit: String,
    #[serde(default)]
    /// The physical values at the ends of the range.
    pub window: Option<(f64, f64)>,
    #[serde(default)]
    /// Height and width in training.
    pub size: Option<[usize; 2]>,
    /// Standard deviation of the data that the network was preconditioned with.
    pub sigma_data: f64,
    #[serde(flatten)]
    /// The shape of the network.
    pub network: UNetConfig,
}

/// Whether the contents of a file are of our own format.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    let entries = SafeTensors::read_metadata(bytes).ok().and_then(|(_, m)| m.metadata().clone());
    entries.is_some_and(|entries| entries.contains_key("format"))
}

/// Reads a prior from the contents of a file.
pub(super) fn read(bytes: &[u8], path: &Path, device: &Device) -> Result<Prior> {
    let fail = |e: &dyn std::fmt::Display| Error::format(path, e);
    let (_, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| fail(&format!("no safetensors file: {e}")))?;
    let entries = metadata.metadata().clone().unwrap_or_default();
    let entry = |key: &str| {
        entries.get(key).ok_or_else(|| {
            fail(&format!("the metadata entry `{key}` is missing; expected a prior of format {FORMAT}"))
        })
    };
    if entry("format")? != FORMAT {
        return Err(fail(&format!("expected format {FORMAT}, found {}", entry("format")?)));
    }
    let header: Header =
        serde_json::from_str(entry("config")?).map_err(|e| fail(&format!("metadata entry `config`: {e}")))?;
    let training = match entries.get("training") {
        Some(text) => {
            serde_json::from_str(text).map_err(|e| fail(&format!("metadata entry `training`: {e}")))?
        }
        None => serde_json::Value::Null,
    };
    let sigma_data = header.sigma_data;
    if !(sigma_data > 0.0 && sigma_data.is_finite()) {
        return Err(fail(&format!("sigma_data is {sigma_data}, expected a positive number")));
    }
    let mut tensors = Tensors::from_safetensors(bytes, path)?.on(device);
    let network = UNet::new(header.network.clone(), &mut |name, shape| tensors.fetch(name, shape))?;
    let description = Description {
        name: header.name,
        family: "U-net of wellposed, on folded pixels",
        parameters: tensors.parameters(),
        range: header.range,
        unit: header.unit,
        window: header.window,
        says: format!("EDM residual, standard deviation {sigma_data} of the data"),
        size: header.size,
        network: serde_json::to_value(&header.network).map_err(|e| fail(&e))?,
        training,
    };
    description.prior(network, Prediction::Edm { sigma_data })
}

/// The contents of a file: weights in f16.
///
/// # Errors
/// [`Error::Unsupported`] where the header or the weights can't be encoded.
pub fn encode(
    header: &Header,
    training: &serde_json::Value,
    weights: &[(String, Tensor)],
) -> Result<Vec<u8>> {
    let fail = |e: &dyn std::fmt::Display| Error::Unsupported(format!("the prior as a file: {e}"));
    let mut data = Vec::new();
    for (name, tensor) in weights {
        let values = f32::to_vec(tensor)?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
        data.push((name.as_str(), tensor.dims().to_vec(), bytes));
    }
    let mut views = Vec::new();
    for (name, shape, bytes) in &data {
        views.push((*name, TensorView::new(Dtype::F16, shape.clone(), bytes).map_err(|e| fail(&e))?));
    }
    let config = serde_json::to_string(header).map_err(|e| fail(&e))?;
    let entries = [
        ("format".to_string(), FORMAT.to_string()),
        ("config".into(), config),
        ("training".into(), training.to_string()),
    ];
    safetensors::serialize(views, Some(entries.into())).map_err(|e| fail(&e))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::prior::Denoiser;
    use crate::prior::network::Grouped;
    use crate::prior::network::tests::{draw, weight};
    use crate::prior::parametrization::Network;
    use crate::testing::relative_difference;

    const REFERENCE: &[u8] = include_bytes!("../../../tests/reference/unet.safetensors");

    fn config() -> String {
        let (_, header) = SafeTensors::read_metadata(REFERENCE).unwrap();
        header.metadata().as_ref().unwrap()["config"].clone()
    }

    /// The reference network as a file, with one tensor changed by `edit` (`None` leaves it out).
    fn file(config: &str, edit: impl Fn(&str, Vec<f32>) -> Option<Vec<f32>>) -> Vec<u8> {
        let mut all: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        let header: Header = serde_json::from_str(&self::config()).unwrap();
        UNet::new(header.network, &mut |name, shape| {
            let values = weight(name, shape);
            if let Some(values) = edit(name, f32::to_vec(&values)?) {
                let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                all.push((name.into(), shape.to_vec(), bytes));
            }
            Ok(values)
        })
        .unwrap();
        let views = all.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        let meta = [("format".to_string(), FORMAT.to_string()), ("config".into(), config.into())];
        safetensors::serialize(views, Some(meta.into())).unwrap()
    }

    #[test]
    fn network_and_gradient_agree_with_pytorch() {
        let mut expected = Tensors::from_safetensors(REFERENCE, Path::new("reference")).unwrap();
        let mut expected = |name: &str| expected.fetch(name, &[2, 2, 12, 8]).unwrap();
        let header: Header = serde_json::from_str(&config()).unwrap();
        let network = UNet::new(header.network, &mut |name, shape| Ok(weight(name, shape))).unwrap();
        let network = Grouped::new(network);
        let images = |name: &str| draw(name, &[2, 2, 12, 8]);
        let (value, pull) = network.forward_vjp(&images("x"), -0.37).unwrap();
        let error = relative_difference(&value, &expected("y")).unwrap();
        assert!(error < 1e-5, "{error:e}");
        let vjp = expected("vjp");
        // A pullback may be used again.
        for _ in 0..2 {
            let error = relative_difference(&pull.pull(&images("g")).unwrap(), &vjp).unwrap();
            assert!(error < 1e-5, "{error:e}");
        }
        let plain = network.forward(&images("x"), -0.37).unwrap();
        assert_eq!(f32::to_vec(&plain).unwrap(), f32::to_vec(&value).unwrap());
    }

    #[test]
    fn a_prior_from_a_file_denoises_any_size_and_batch() {
        let prior = Prior::from_bytes(&file(&config(), |_, v| Some(v)), "tiny").unwrap();
        assert_eq!(prior.card.name, "reference");
        let space = crate::tensor::Space::complex(&[10, 7], DType::F64, &Device::Cpu);
        let noise = crate::tensor::random::Noise::new(1, 0);
        let x = crate::tensor::random::standard_normal(noise, &space, &[3]).unwrap();
        let (value, pull) = prior.denoiser.denoise_vjp(&x, 0.7).unwrap();
        let alone = prior.denoiser.denoise(&x.get(2).unwrap(), 0.7).unwrap();
        assert_eq!(f64::to_vec(&value.get(2).unwrap()).unwrap(), f64::to_vec(&alone).unwrap());
        assert_eq!(pull.pull(&x).unwrap().dims(), x.dims());
    }

    #[test]
    fn broken_files_are_refused_by_name() {
        let message = |bytes: &[u8]| Prior::from_bytes(bytes, "my.safetensors").unwrap_err().to_string();
        let name = "decoder.1.1.res.conv2.weight";
        let missing = message(&file(&config(), |n, v| (n != name).then_some(v)));
        assert_eq!(missing, format!("my.safetensors: tensor `{name}` is missing"));
        let broken = message(&file(&config(), |n, mut v| {
            if n == name {
                v[3] = f32::NAN;
            }
            Some(v)
        }));
        assert_eq!(broken, format!("my.safetensors: tensor `{name}`: element 3 is NaN"));
        let other = config().replace("\"embedding\": 16", "\"embedding\": 24");
        let shape = message(&file(&other, |_, v| Some(v)));
        assert!(shape.contains("tensor `embed1.weight`: expected shape [24, 8], found [16, 8]"), "{shape}");
        let whole = file(&config(), |_, v| Some(v));
        assert!(message(&whole[..whole.len() / 2]).starts_with("my.safetensors: "));
        assert!(message(REFERENCE).contains("`format` is missing"));
        let odd = config().replace("[16, 32]", "[16, 33]");
        assert!(message(&file(&odd, |_, v| Some(v))).contains("multiples of 16"));
    }
}
