//! Files of other projects, from the disk to D(x, σ): against the formulas of each project's own sampler.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::Prior;
use crate::error::Result;
use crate::prior::Denoiser;
use crate::prior::layer::Fetch;
use crate::prior::network::Graph;
use crate::prior::network::diffusers::DiffusersUNet;
use crate::prior::network::guided::GuidedUNet;
use crate::prior::network::ncsnpp::NcsnPp;
use crate::prior::network::plain::{DnCnn, DruNet};
use crate::prior::network::tests::{draw, weight};
use crate::testing::relative_difference;

fn score_sde(sde: &str) -> Value {
    let plain = json!({
        "image_size": 16, "num_channels": 1, "centered": true, "nf": 16, "ch_mult": [1, 2], "num_res_blocks": 1,
        "attn_resolutions": [8], "resamp_with_conv": true, "fir": true, "fir_kernel": [1, 3, 3, 1], "skip_rescale": true,
        "resblock_type": "biggan", "progressive": "none", "progressive_input": "residual", "progressive_combine": "sum",
        "embedding_type": if sde == "vesde" { "fourier" } else { "positional" }, "scale_by_sigma": sde == "vesde",
    });
    with(plain, "sde", sde)
}

fn unet2d() -> Value {
    json!({
        "_class_name": "UNet2DModel", "sample_size": 16, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": [16, 32], "norm_num_groups": 8, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    })
}

fn guided() -> Value {
    json!({
        "image_size": 16, "in_channels": 1, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,2",
        "attention_resolutions": "8", "num_heads": 2, "use_scale_shift_norm": true, "resblock_updown": true,
        "use_new_attention_order": false, "learn_sigma": true,
    })
}

fn with(mut config: Value, key: &str, value: impl Into<Value>) -> Value {
    config[key] = value.into();
    config
}

/// The network of a configuration with the weights of a formula, which are also written as safetensors.
fn network<G: Graph>(config: &Value, file: &Path, build: impl Fn(&Value, &mut Fetch) -> Result<G>) -> G {
    let mut weights = HashMap::new();
    let network = build(config, &mut |name, shape| {
        let tensor = weight(name, shape);
        weights.insert(name.to_string(), tensor.clone());
        Ok(tensor)
    });
    candle_core::safetensors::save(&weights, file).unwrap();
    network.unwrap()
}

fn read<C: serde::de::DeserializeOwned>(config: &Value) -> C {
    serde_json::from_value(config.clone()).unwrap()
}

/// F(x, t) of images [1, 1, height, width], the first channel.
fn run(network: &impl Graph, x: &Tensor, time: f64) -> Tensor {
    let y = network.run(x, &Tensor::new(&[time as f32], &Device::Cpu).unwrap()).unwrap();
    y.narrow(1, 0, 1).unwrap()
}

fn write(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

/// D(x, σ) of the prior in this file or folder is `expected`, for x of so many pixels a side.
fn check(path: &Path, x: &Tensor, sigma: f64, expected: &Tensor) {
    let prior = Prior::open(path).unwrap().denoiser;
    let found = prior.denoise(&x.squeeze(0).unwrap().squeeze(0).unwrap(), sigma).unwrap();
    let expected = expected.squeeze(0).unwrap().squeeze(0).unwrap();
    let error = relative_difference(&found, &expected).unwrap();
    assert!(error < 1e-5, "{} at σ = {sigma}: {error:e}", path.display());
}

#[test]
fn networks_of_score_sde() {
    let folder = tempfile::tempdir().unwrap();
    let (model, weights) = (folder.path().join("model.json"), folder.path().join("model.safetensors"));
    let x = draw("x", &[1, 1, 16, 16]);
    for sde in ["vesde", "vpsde", "subvpsde"] {
        let config = score_sde(sde);
        write(&model, &json!({ "format": "score-sde", "network": config }));
        let net = network(&config, &weights, |config, fetch| NcsnPp::new(read(config), fetch));
        for time in [0.1f64, 0.6] {
            // Song et al. (2021), appendix C: the mean and the standard deviation at this time.
            let mean = (-0.25 * time * time * (20.0 - 0.1) - 0.5 * time * 0.1).exp();
            let deviation = match sde {
                "vpsde" => (1.0 - mean * mean).sqrt(),
                _ => 1.0 - mean * mean,
            };
            let (sigma, score) = if sde == "vesde" {
                (time, run(&net, &x, time))
            } else {
                // Their `get_score_fn`: −F(x, 999 t) over the deviation, the score of the scaled image.
                let scaled = (&x * mean).unwrap();
                let score = (run(&net, &scaled, 999.0 * time) / -deviation).unwrap();
                (deviation / mean, (score * mean).unwrap())
            };
            // Tweedie's formula.
            let expected = (&x + (score * (sigma * sigma)).unwrap()).unwrap();
            check(&model, &x, sigma, &expected);
        }
    }
}

#[test]
fn models_of_diffusers() {
    let folder = tempfile::tempdir().unwrap();
    let x = draw("x", &[1, 1, 16, 16]);
    write(&folder.path().join("config.json"), &unet2d());
    let weights = folder.path().join("diffusion_pytorch_model.safetensors");
    let net = network(&unet2d(), &weights, |config, fetch| DiffusersUNet::new(read(config), fetch));
    for prediction in ["epsilon", "sample", "v_prediction"] {
        let scheduler = json!({
            "num_train_timesteps": 500, "beta_start": 2e-4, "beta_end": 0.03, "beta_schedule": "scaled_linear",
            "prediction_type": prediction,
        });
        write(&folder.path().join("scheduler_config.json"), &scheduler);
        let mut kept = 1.0f64;
        for step in 0..400 {
            let root = |beta: f64| beta.sqrt();
            let beta = root(2e-4) + (root(0.03) - root(2e-4)) * f64::from(step) / 499.0;
            kept *= 1.0 - beta * beta;
            if step % 150 != 70 {
                continue;
            }
            let sigma = ((1.0 - kept) / kept).sqrt();
            let scaled = (&x * kept.sqrt()).unwrap();
            let y = run(&net, &scaled, f64::from(step));
            let expected = match prediction {
                "epsilon" => (&x - (y * sigma).unwrap()).unwrap(),
                "sample" => y,
                _ => ((scaled * kept.sqrt()).unwrap() - (y * (1.0 - kept).sqrt()).unwrap()).unwrap(),
            };
            check(folder.path(), &x, sigma, &expected);
        }
    }
}

#[test]
fn models_of_guided_diffusion_and_plain_denoisers() {
    let folder = tempfile::tempdir().unwrap();
    let (model, weights) = (folder.path().join("model.json"), folder.path().join("model.safetensors"));
    let x = draw("x", &[1, 1, 16, 16]);
    write(
        &model,
        &json!({ "format": "guided-diffusion", "network": guided(), "weights": "model.safetensors" }),
    );
    let net = network(&guided(), &weights, |config, fetch| GuidedUNet::new(read(config), fetch));
    let mut kept = 1.0f64;
    for step in 0..300 {
        kept *= 1.0 - (1e-4 + (0.02 - 1e-4) * f64::from(step) / 999.0);
    }
    let sigma = ((1.0 - kept) / kept).sqrt();
    let noise = run(&net, &(&x * kept.sqrt()).unwrap(), 299.0);
    check(&model, &x, sigma, &(&x - (noise * sigma).unwrap()).unwrap());

    let config = json!({ "in_nc": 1, "nc": 16, "nb": 4, "sigma": 0.1 });
    write(&model, &json!({ "format": "dncnn", "network": config }));
    let net = network(&config, &weights, |config, fetch| DnCnn::new(&read(config), fetch));
    check(&model, &x, 0.1, &(&x - run(&net, &x, 0.1)).unwrap());

    let config = json!({ "in_nc": 1, "nc": [16, 24, 32], "nb": 1 });
    write(&model, &json!({ "format": "drunet", "network": config }));
    let net = network(&config, &weights, |config, fetch| DruNet::new(&read(config), fetch));
    check(&model, &x, 0.4, &run(&net, &x, 0.4));
}
