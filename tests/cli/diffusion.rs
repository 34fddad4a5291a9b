//! Diffusion methods, with a tiny network of fixed weights as prior: samples, resumption, interruption, errors.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use wellposed::prior::network::unet::UNet;

use super::Folder;

/// Writes a prior that hardly alters its images beyond EDM's linear denoiser.
fn tiny_prior(folder: &Folder, name: &str, change: Value) {
    let mut config = json!({
        "name": "tiny", "range": [-1.0, 1.0], "unit": "HU", "window": [-1000.0, 1000.0], "sigma_data": 0.5,
        "channels": 1, "patch": 2, "widths": [16], "depths": [1], "attention": [false], "groups": 8, "head": 16,
        "embedding": 16, "frequencies": 4,
    });
    let fields = config.as_object_mut().unwrap();
    change.as_object().unwrap().iter().for_each(|(k, v)| {
        fields.insert(k.clone(), v.clone());
    });
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let network = serde_json::from_value(config.clone()).unwrap();
    let mut seed = 1u32;
    UNet::new(network, &mut |name, shape| {
        let mut draw = |_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            0.1 * (seed as f32 / u32::MAX as f32 - 0.5)
        };
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(&mut draw).collect();
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.push((name.into(), shape.to_vec(), bytes));
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    })
    .unwrap();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let metadata = HashMap::from([
        ("format".to_string(), "wellposed-unet-1".to_string()),
        ("config".to_string(), config.to_string()),
    ]);
    std::fs::write(folder.path(name), safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

/// A folder with a small scan `s.h5` of `a.nii`, and the prior `tiny.safetensors`.
fn scanned() -> Folder {
    let folder = Folder::new();
    folder.chest("a.nii", 2, 32);
    folder.run("ct simulate a.nii -o s.h5 --views 12 --seed 1").good();
    tiny_prior(&folder, "tiny.safetensors", json!({}));
    folder
}

const RECONSTRUCT: &str = "ct reconstruct s.h5 --prior tiny.safetensors --reference a.nii --json";

#[test]
fn every_method_reconstructs() {
    let folder = scanned();
    for method in ["pnp", "snore", "dds", "mbir", "dps", "red-diff", "diffpir", "daps", "mmps"] {
        let report = folder.run(&format!("{RECONSTRUCT} -o {method}.nii -m {method} --steps 12")).json();
        assert_eq!((report["method"].as_str(), report["iterations"].as_u64()), (Some(method), Some(12)));
        assert_eq!(report["termination"], "completed");
        let psnr = report["metrics"]["volume"]["psnr"].as_f64().unwrap();
        println!("{method:<10} {psnr:.2} dB");
        assert!(psnr > 8.0, "{method}: {psnr}");
        let config = std::fs::read(folder.path(&format!("{method}.config.json"))).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["config"]["diffusion"]["steps"], 12);
        assert_eq!(config["config"]["diffusion"]["prior"], "tiny.safetensors");
    }
    assert!(!folder.names().iter().any(|name| name.contains("checkpoint")), "{:?}", folder.names());
}

#[test]
fn images_are_restored_from_linear_data_and_from_magnitudes() {
    let folder = scanned();
    let restore = |rest: &str| folder.run(&format!("restore a.nii --prior tiny.safetensors {rest}"));
    restore("-o b.nii --task deblur --simulate --steps 4").good();
    for method in ["daps", "dps"] {
        restore(&format!("-o p.nii --task phase -m {method} --simulate --steps 4")).good();
    }
    restore("-o p.nii --task phase -m pnp --simulate").fails(2, &["--method pnp", "daps"]);
    // No image of whole pixels is padded to 34 of them.
    folder.chest("odd.nii", 1, 34);
    let odd = "restore odd.nii --prior tiny.safetensors -o p.nii --task phase --range 0,1";
    folder.run(odd).fails(2, &["34 × 34 magnitudes", "384"]);
}

#[test]
fn fewer_bits_cost_little() {
    let folder = scanned();
    let found = ["f32", "tf32", "bf16"].map(|precision| {
        let arguments = format!("tiny.safetensors a.nii --sigmas 0.5 --slices 1 --precision {precision}");
        let report = folder.run(&format!("prior eval {arguments} --json")).json();
        assert_eq!(report["precision"], precision);
        report["levels"][0]["denoised"].as_f64().unwrap()
    });
    let [exact, tf32, bf16] = found;
    assert!(exact != tf32 && exact != bf16 && tf32 != bf16, "{found:?}");
    assert!((exact - tf32).abs() < 1e-3 && (exact - bf16).abs() < 1e-2, "{found:?}");
}

#[test]
fn several_samples_have_a_spread() {
    let folder = scanned();
    let arguments = "-m dds --steps 5 --samples 3 --plot r.png";
    let report = folder.run(&format!("{RECONSTRUCT} -o r.nii.gz {arguments}")).json();
    assert_eq!(report["iterations"], 15);
    for name in ["r.nii.gz", "r.std.nii.gz", "r.q05.nii.gz", "r.q95.nii.gz", "r.png", "r-std.png"] {
        assert!(folder.path(name).exists(), "{name}");
    }
    let (mean, std) = (folder.values("r.nii.gz"), folder.values("r.std.nii.gz"));
    let (low, high) = (folder.values("r.q05.nii.gz"), folder.values("r.q95.nii.gz"));
    assert!(std.iter().all(|s| *s >= 0.0) && std.iter().sum::<f32>() > 0.0);
    let inside = |i: usize| low[i] <= mean[i] + 1e-2 && mean[i] <= high[i] + 1e-2;
    assert!((0..mean.len()).all(|i| low[i] <= high[i] && (inside(i) || std[i] < 1e-3)));
}

/// Waits for a checkpoint, so that the run is in its middle.
fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint at {}", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let folder = scanned();
    // Hundreds of steps, so that the kill comes before the end.
    let reconstruct =
        |output: &str| format!("{RECONSTRUCT} -o {output} -m dds --start noise --steps 200 --seed 5");
    folder.run(&reconstruct("whole.nii")).good();
    let checkpoint = folder.path("killed.checkpoint-1.safetensors");
    let mut child = folder.spawn(&reconstruct("killed.nii"));
    wait_for(&checkpoint);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(checkpoint.exists() && !folder.path("killed.nii").exists(), "killed in the middle");
    // Another run's checkpoint is refused.
    let other = format!("{RECONSTRUCT} -o killed.nii -m dds --start noise --steps 200 --seed 6 --resume");
    folder.run(&other).fails(1, &["killed.checkpoint-1.safetensors", "another run"]);
    let resumed = folder.run(&format!("{} --resume", reconstruct("killed.nii"))).good();
    assert!(resumed.stderr.contains("Going on after step"), "{}", resumed.stderr);
    let bytes = |name: &str| std::fs::read(folder.path(name)).unwrap();
    assert!(bytes("whole.nii") == bytes("killed.nii"), "the resumed run gives other bits");
    assert!(!checkpoint.exists());
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_keeps_its_estimate_and_its_checkpoint() {
    let folder = scanned();
    let arguments = format!("{RECONSTRUCT} -o r.nii -m dds --steps 100000");
    let run = folder.interrupted(&arguments, || wait_for(&folder.path("r.checkpoint-1.safetensors")));
    assert!(run.stderr.contains("estimate so far is written"), "{}", run.stderr);
    assert!(run.stderr.contains("--resume"), "{}", run.stderr);
    assert_eq!(run.json()["termination"], "cancelled");
    assert!(folder.path("r.nii").exists() && folder.path("r.checkpoint-1.safetensors").exists());
}

#[test]
fn unusable_priors_and_options() {
    let folder = scanned();
    let run = |rest: &str| folder.run(&format!("ct reconstruct s.h5 -o r.nii {rest}"));
    run("-m dds --prior nose").fails(2, &["--prior", "nose", "ct"]);
    run("-m fbp --prior ct").fails(2, &["--prior", "fbp"]);
    run("-m dds -i 5").fails(2, &["--iterations", "--steps"]);
    run("-m dds --steps 0").fails(2, &["--steps"]);
    run("-m dds --memory 0").fails(2, &["--memory"]);
    run("-m pnp --samples 3").fails(2, &["--samples", "pnp"]);
    run("-m dds --prior tiny.safetensors --memory 0.000001").fails(2, &["--memory", "GiB"]);
    run("-m dps --prior bm3d").fails(2, &["--prior", "bm3d", "dps"]);
    run("-m dds --device cuda").fails(2, &["cuda"]);
    run("-m dds --precision bf16").fails(2, &["--precision", "bf16", "processor"]);
    run("-m fbp --precision bf16").fails(2, &["--precision", "fbp"]);
    tiny_prior(&folder, "complex.safetensors", json!({"channels": 2}));
    run("-m dds --prior complex.safetensors").fails(2, &["complex", "CT", "real"]);
    tiny_prior(&folder, "magnitude.safetensors", json!({"unit": "magnitude", "window": null}));
    run("-m dds --prior magnitude.safetensors").fails(2, &["magnitude", "HU"]);
    let bytes = std::fs::read(folder.path("tiny.safetensors")).unwrap();
    std::fs::write(folder.path("short.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    run("-m dds --prior short.safetensors").fails(1, &["short.safetensors"]);
    assert!(!folder.path("r.nii").exists());
}

#[test]
fn complex_images_of_mri() {
    let folder = Folder::new();
    folder.chest("hu.nii", 2, 32);
    tiny_prior(&folder, "brain.safetensors", json!({"channels": 2, "unit": "magnitude", "window": null}));
    tiny_prior(&folder, "tiny.safetensors", json!({}));
    let volume = wellposed::io::read_volume(folder.path("hu.nii")).unwrap();
    let data = (volume.data().clamp(-1000f32, 300f32).unwrap() + 1000.0).unwrap();
    volume.with_data(data, wellposed::io::Unit::Arbitrary).unwrap().write(folder.path("a.nii")).unwrap();
    folder.run("mri simulate a.nii -o s.h5 --coils 4 --acceleration 2 --center 0.25").good();
    let psnr = |rest: &str| {
        let report = folder.run(&format!("mri reconstruct --reference a.nii --json {rest}")).json();
        report["metrics"]["volume"]["psnr"].as_f64().unwrap()
    };
    for (method, more) in [("pnp", ""), ("dds", "--samples 2"), ("diffpir", ""), ("dps", "")] {
        let prior = "--prior brain.safetensors --steps 8";
        let psnr = psnr(&format!("s.h5 -o {method}.nii -m {method} {prior} {more}"));
        println!("{method:<10} {psnr:.2} dB");
        // Eight steps are too few for dps, whatever the prior.
        assert!(psnr > if method == "dps" { 5.0 } else { 12.0 }, "{method}: {psnr}");
    }
    assert!(folder.path("dds.std.nii").exists());
    // BM3D is the default of pnp, and a real denoiser.
    folder.run("mri simulate a.nii -o n.h5 --coils 4 --acceleration 2 --center 0.25 --noise 0.05").good();
    let (sense, bm3d) = (psnr("n.h5 -o s.nii -m sense"), psnr("n.h5 -o b.nii -m pnp"));
    println!("sense {sense:.2} dB, pnp with bm3d {bm3d:.2} dB");
    assert!(bm3d > sense + 1.0, "{bm3d} {sense}");
    let config: Value =
        serde_json::from_slice(&std::fs::read(folder.path("b.config.json")).unwrap()).unwrap();
    assert_eq!(config["config"]["diffusion"]["prior"], "bm3d");
    folder
        .run("mri reconstruct s.h5 -o r.nii -m dds --prior tiny.safetensors")
        .fails(2, &["tiny.safetensors", "MRI", "complex"]);
}
