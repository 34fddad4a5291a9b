//! Parity with other implementations: see the scripts in tests/reference.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::diffusers::DiffusersUNet;
use super::guided::GuidedUNet;
use super::ncsnpp::NcsnPp;
use super::plain::{DnCnn, DruNet};
use super::{Graph, gradient};
use crate::error::Result;
use crate::prior::layer::{Fetch, Tape};
use crate::testing::relative_difference;

/// The numbers of `draw` in tests/reference/record.py: FNV-1a of the name, then SplitMix64.
pub fn draw(name: &str, shape: &[usize]) -> Tensor {
    let key = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |key, byte| {
        (key ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    let value = |i: u64| {
        let z = key.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0) as f32
    };
    let count = shape.iter().product::<usize>() as u64;
    Tensor::from_iter((0..count).map(value), &Device::Cpu).unwrap().reshape(shape).unwrap()
}

/// The weight of this name, as `weight` in tests/reference/record.py.
pub fn weight(name: &str, shape: &[usize]) -> Tensor {
    let fan = if shape.len() > 1 { shape[1..].iter().product() } else { 4 };
    let offset = if shape.len() == 1 && name.ends_with("weight") { 1.0 } else { 0.0 };
    draw(name, shape).affine(1.0 / (fan as f64).sqrt(), offset).unwrap()
}

/// Builds each network of a file of references and compares value and gradient, the latter from its tape and by candle.
fn agree<C: DeserializeOwned, G: Graph>(file: &[u8], build: impl Fn(C, &mut Fetch) -> Result<G>) {
    #[derive(Deserialize)]
    struct Case {
        config: serde_json::Value,
        times: Vec<f32>,
    }
    let tensors = SafeTensors::deserialize(file).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(file).unwrap();
    let cases: HashMap<String, String> = metadata.metadata().clone().unwrap();
    let mut on_tape = 0;
    for (name, text) in cases {
        let case: Case = serde_json::from_str(&text).unwrap();
        let config: C = serde_json::from_value(case.config).unwrap();
        let network = build(config, &mut |name, shape| Ok(weight(name, shape))).unwrap();
        let expected = |part: &str| {
            let view = tensors.tensor(&format!("{name}.{part}")).unwrap();
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            Tensor::from_iter(values, &Device::Cpu).unwrap().reshape(view.shape()).unwrap()
        };
        let vjp = expected("vjp");
        let x = Var::from_tensor(&draw("x", vjp.dims())).unwrap();
        let times = Tensor::new(&case.times[..], &Device::Cpu).unwrap();
        let (y, tape) = Tape::record(|| network.run(x.as_tensor(), &times));
        let y = y.unwrap();
        assert_eq!(y.dims(), expected("y").dims(), "{name}");
        let error = relative_difference(&y, &expected("y")).unwrap();
        assert!(error < 2e-5, "{name}: value {error:e}");
        let g = draw("g", y.dims());
        let read = tape.pull(&x, &y, &g).unwrap();
        on_tape += usize::from(read.is_some());
        for found in read.into_iter().chain([gradient(&x, &y, &g).unwrap()]) {
            let error = relative_difference(&found, &vjp).unwrap();
            assert!(error < 1e-4, "{name}: gradient {error:e}");
        }
    }
    assert!(on_tape > 0, "no network consists of layers alone");
}

#[test]
fn diffusers_unet() {
    agree(include_bytes!("../../../tests/reference/diffusers_unet.safetensors"), DiffusersUNet::new);
}

#[test]
fn guided_diffusion() {
    agree(include_bytes!("../../../tests/reference/guided.safetensors"), GuidedUNet::new);
}

#[test]
fn score_sde() {
    agree(include_bytes!("../../../tests/reference/ncsnpp.safetensors"), NcsnPp::new);
}

#[test]
fn denoisers() {
    let file = include_bytes!("../../../tests/reference/plain.safetensors");
    agree(file, |config: serde_json::Value, fetch: &mut Fetch| -> Result<Box<dyn Graph>> {
        Ok(match config["nc"].is_array() {
            true => Box::new(DruNet::new(&serde_json::from_value(config).unwrap(), fetch)?),
            false => Box::new(DnCnn::new(&serde_json::from_value(config).unwrap(), fetch)?),
        })
    });
}

impl Graph for Box<dyn Graph> {
    fn channels(&self) -> usize {
        self.as_ref().channels()
    }
    fn granule(&self) -> usize {
        self.as_ref().granule()
    }
    fn run(&self, x: &Tensor, times: &Tensor) -> Result<Tensor> {
        self.as_ref().run(x, times)
    }
}
