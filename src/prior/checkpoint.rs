//! Priors on disk: our own format, safetensors with the network's shape and the data's convention as metadata.
//!
//! Metadata entries: `format` = `wellposed-unet-1`; `config`, a JSON object with the fields of
//! [`UNetConfig`] and of [`Card`]; `training`, a JSON object that tells how it was trained (free form). Tensors are
//! f16 or f32, convolutions [out, in, height, width], named after their place in the network:
//! `encoder.LEVEL.BLOCK.res.conv1.weight` and so on.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::prior::Pullback;
use crate::prior::parametrization::{Network, NetworkDenoiser, Prediction};
use crate::prior::unet::{Images, UNet, UNetConfig};
use crate::tensor::Real;

const FORMAT: &str = "wellposed-unet-1";

/// What a file says of a prior besides its weights.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Card {
    /// Short name, `ct` or `brain` for the ones that come along.
    pub name: String,
    /// Smallest and largest value of clean data in network units.
    pub range: (f64, f64),
    /// What the network's units stand for in physical ones.
    pub unit: String,
    /// The physical values at the ends of the range, where these are fixed (−1000 to 1000 HU for CT).
    #[serde(default)]
    pub window: Option<(f64, f64)>,
    /// Standard deviation of the data that the network was preconditioned with.
    pub sigma_data: f64,
    /// The shape of the network.
    #[serde(flatten)]
    pub network: UNetConfig,
    /// How it was trained: steps, slices, validation.
    #[serde(default)]
    pub training: serde_json::Value,
}

/// A prior read from a file: what it says of itself, and the denoiser.
#[derive(Clone, Debug)]
pub struct Prior {
    /// What the file says.
    pub card: Card,
    /// The network, ready to use.
    pub denoiser: NetworkDenoiser,
}

impl Prior {
    /// Reads a prior from a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] naming the tensor that is missing, has the wrong shape or type, or holds
    /// NaN, and what is wrong with the metadata.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::from_bytes(&bytes, path)
    }

    /// Reads a prior from the contents of a file; `path` is what errors name.
    ///
    /// # Errors
    /// As [`Prior::open`].
    pub fn from_bytes(bytes: &[u8], path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fail = |e: &dyn std::fmt::Display| Error::format(path, e);
        let (_, header) =
            SafeTensors::read_metadata(bytes).map_err(|e| fail(&format!("no safetensors file: {e}")))?;
        let entries = header.metadata().clone().unwrap_or_default();
        let entry = |key: &str| {
            entries.get(key).ok_or_else(|| {
                fail(&format!("the metadata entry `{key}` is missing; expected a prior of format {FORMAT}"))
            })
        };
        if entry("format")? != FORMAT {
            return Err(fail(&format!("expected format {FORMAT}, found {}", entry("format")?)));
        }
        let mut card: Card = serde_json::from_str(entry("config")?)
            .map_err(|e| fail(&format!("metadata entry `config`: {e}")))?;
        if let Some(text) = entries.get("training") {
            card.training =
                serde_json::from_str(text).map_err(|e| fail(&format!("metadata entry `training`: {e}")))?;
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| fail(&e))?;
        let mut fetch = |name: &str, shape: &[usize]| {
            let tensor = tensors.tensor(name).map_err(|_| fail(&format!("tensor `{name}` is missing")))?;
            weights(&tensor, shape).map_err(|reason| fail(&format!("tensor `{name}`: {reason}")))
        };
        let network = UNet::new(card.network.clone(), &mut fetch)?;
        if !(card.sigma_data > 0.0 && card.sigma_data.is_finite()) {
            return Err(fail(&format!("sigma_data is {}, expected a positive number", card.sigma_data)));
        }
        let prediction = Prediction::Edm { sigma_data: card.sigma_data };
        let denoiser = NetworkDenoiser::new(Arc::new(CpuUNet(Arc::new(network))), prediction, card.range)?;
        Ok(Self { card, denoiser })
    }
}

/// The elements of a tensor as f32, or what is wrong with it.
fn weights(tensor: &TensorView, shape: &[usize]) -> std::result::Result<Vec<f32>, String> {
    if tensor.shape() != shape {
        return Err(format!("expected shape {shape:?}, found {:?}", tensor.shape()));
    }
    let data = tensor.data();
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F16 => data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        other => return Err(format!("expected element type f16 or f32, found {other:?}")),
    };
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(format!("element {index} is {}", values[index])),
        None => Ok(values),
    }
}

/// The U-net behind the interface of all networks. Batches go through in small groups, so that memory stays bounded.
#[derive(Debug)]
struct CpuUNet(Arc<UNet>);

/// Images that go through the network at a time: enough to share the weights of the coarse levels, few enough for
/// the cache.
const TOGETHER: usize = 2;

impl CpuUNet {
    /// Applies `f` to groups of images and puts the results together again.
    fn groups(x: &Tensor, mut f: impl FnMut(Images) -> Vec<f32>) -> Result<Tensor> {
        let (images, channels, height, width) = x.dims4()?;
        let data = f32::to_vec(x)?;
        let image = channels * height * width;
        let mut out = Vec::with_capacity(data.len());
        for data in data.chunks(TOGETHER * image) {
            out.extend(f(Images { data, images: data.len() / image, height, width }));
        }
        Ok(Tensor::from_vec(out, (images, channels, height, width), x.device())?)
    }
}

impl Network for CpuUNet {
    fn channels(&self) -> usize {
        self.0.config().channels
    }

    fn granule(&self) -> usize {
        self.0.granule()
    }

    fn forward(&self, x: &Tensor, time: f64) -> Result<Tensor> {
        Self::groups(x, |images| self.0.forward(images, time))
    }

    fn forward_vjp(&self, x: &Tensor, time: f64) -> Result<(Tensor, Pullback)> {
        let mut traces = Vec::new();
        let value = Self::groups(x, |images| {
            let (value, trace) = self.0.forward_traced(images, time);
            traces.push(trace);
            value
        })?;
        let network = self.0.clone();
        let pull = move |g: &Tensor| {
            let mut traces = traces.iter();
            Self::groups(g, |g| traces.next().map_or_else(Vec::new, |trace| network.adjoint(trace, g)))
        };
        Ok((value, Pullback::new(pull)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::prior::Denoiser;
    use crate::testing::relative_difference;

    const REFERENCE: &[u8] = include_bytes!("../../tests/reference/unet.safetensors");

    /// The numbers of `draw` in tests/reference/unet.py.
    fn draw(name: &str, shape: &[usize]) -> Vec<f32> {
        let key = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |key, byte| {
            (key ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        let value = |i: u64| {
            let z = key.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0) as f32
        };
        (0..shape.iter().product::<usize>() as u64).map(value).collect()
    }

    fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
        let fan = if shape.len() > 1 { shape[1..].iter().product() } else { 4 };
        let offset = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
        draw(name, shape).iter().map(|v| offset + v / (fan as f32).sqrt()).collect()
    }

    fn config() -> String {
        let (_, header) = SafeTensors::read_metadata(REFERENCE).unwrap();
        header.metadata().as_ref().unwrap()["config"].clone()
    }

    /// The reference network as a file, with one tensor changed by `edit` (`None` leaves it out).
    fn file(config: &str, edit: impl Fn(&str, Vec<f32>) -> Option<Vec<f32>>) -> Vec<u8> {
        let mut all: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        let card: Card = serde_json::from_str(&self::config()).unwrap();
        UNet::new(card.network, &mut |name, shape| {
            let values = weight(name, shape);
            if let Some(values) = edit(name, values.clone()) {
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
        let expected = SafeTensors::deserialize(REFERENCE).unwrap();
        let expected = |name: &str| {
            let values = weights(&expected.tensor(name).unwrap(), &[2, 2, 12, 8]).unwrap();
            Tensor::from_vec(values, (2, 2, 12, 8), &Device::Cpu).unwrap()
        };
        let card: Card = serde_json::from_str(&config()).unwrap();
        let network = UNet::new(card.network, &mut |name, shape| Ok(weight(name, shape))).unwrap();
        let network = CpuUNet(Arc::new(network));
        let images =
            |name: &str| Tensor::from_vec(draw(name, &[2, 2, 12, 8]), (2, 2, 12, 8), &Device::Cpu).unwrap();
        let (value, pull) = network.forward_vjp(&images("x"), -0.37).unwrap();
        let error = relative_difference(&value, &expected("y")).unwrap();
        assert!(error < 1e-5, "{error:e}");
        let error = relative_difference(&pull.pull(&images("g")).unwrap(), &expected("vjp")).unwrap();
        assert!(error < 1e-5, "{error:e}");
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
