//! Training a tiny network on data whose best linear denoiser is known, and resumption.

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::prior::Denoiser;
use crate::prior::network::UNetConfig;
use crate::tensor::Real;

fn header() -> Header {
    let network = UNetConfig {
        channels: 1,
        patch: 1,
        widths: vec![16, 16],
        depths: vec![1, 1],
        attention: vec![false, false],
        groups: 4,
        head: 8,
        embedding: 16,
        frequencies: 4,
    };
    Header {
        name: "tiny".into(),
        range: (-1.0, 1.0),
        unit: String::new(),
        window: None,
        size: None,
        sigma_data: 0.7,
        network,
    }
}

fn settings() -> Settings {
    let augmentation = Augmentation { flip: true, rotation: 0.0, quarter_turns: 0.0, scaling: 0.0 };
    Settings { batch: 8, crop: 16, rate: 4e-3, warmup: 20, augmentation, average: 6.0, ..Settings::default() }
}

/// Images that are −½ or ½ everywhere: one number, which a denoiser can find from all pixels.
fn flat() -> Vec<Subject> {
    let images = Tensor::new(&[-0.5f32, 0.5], &Device::Cpu).unwrap();
    let images = images.reshape((2, 1, 1)).unwrap().broadcast_as((2, 16, 16)).unwrap().contiguous().unwrap();
    vec![Subject::new("flat", &images, [1.0, 1.0]).unwrap()]
}

#[test]
fn it_denoises_better_than_the_best_pixelwise_linear_map() {
    let mut trainer = Trainer::new(header(), settings(), &Device::Cpu).unwrap();
    let subjects = flat();
    let mut losses = Vec::new();
    for _ in 0..120 {
        losses.push(trainer.step(&subjects).unwrap().loss);
    }
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    assert!(mean(&losses[100..]) < 0.3 * mean(&losses[..10]), "{losses:?}");
    let prior = trainer.prior(&serde_json::Value::Null).unwrap().denoiser;
    let sigma = 0.5;
    // The variance of the data is ¼: Wiener's estimate pixel by pixel leaves v σ²/(v + σ²).
    let wiener = 0.25 * sigma * sigma / (0.25 + sigma * sigma);
    let clean = Tensor::full(0.5f32, (16, 16), &Device::Cpu).unwrap();
    let space = Space::real(&[16, 16], DType::F32, &Device::Cpu);
    let noise = standard_normal(Noise::new(77, 9), &space, &[]).unwrap();
    let noisy = (&clean + (noise * sigma).unwrap()).unwrap();
    let error = (prior.denoise(&noisy, sigma).unwrap() - &clean).unwrap().sqr().unwrap().mean_all().unwrap();
    let error = f64::from(error.to_scalar::<f32>().unwrap());
    assert!(error < 0.5 * wiener, "{error} against {wiener}");
}

#[test]
fn resumption_gives_the_same_bits() {
    let subjects = flat();
    let run = |trainer: &mut Trainer, steps: usize| {
        for _ in 0..steps {
            trainer.step(&subjects).unwrap();
        }
    };
    let mut whole = Trainer::new(header(), settings(), &Device::Cpu).unwrap();
    run(&mut whole, 4);
    let mut first = Trainer::new(header(), settings(), &Device::Cpu).unwrap();
    run(&mut first, 2);
    let notes = serde_json::json!({ "losses": [0.5] });
    let saved = first.to_bytes(&notes).unwrap();
    let path = std::path::Path::new("state");
    let (mut second, back) = Trainer::from_bytes(&saved, path, &Device::Cpu).unwrap();
    assert_eq!((second.step_number(), back), (2, notes));
    run(&mut second, 2);
    let values = |t: &Trainer| {
        [&t.weights, &t.mean, &t.square, &t.average].map(|buffer| f32::to_vec(buffer.tensor()).unwrap())
    };
    assert!(values(&whole) == values(&second));
    let Err(error) = Trainer::from_bytes(&saved[..saved.len() / 2], path, &Device::Cpu) else { panic!() };
    assert!(error.to_string().starts_with("state: "), "{error}");
}

#[test]
fn crops_of_complex_networks_keep_the_magnitude() {
    let still = Augmentation { flip: false, rotation: 0.0, quarter_turns: 0.0, scaling: 0.0 };
    let settings = Settings { augmentation: still, crop: 8, batch: 3, ..settings() };
    let ramp = Tensor::arange(0f32, 1024.0, &Device::Cpu).unwrap().reshape((1, 32, 32)).unwrap();
    let subjects = [Subject::new("ramp", &ramp, [1.0, 1.0]).unwrap()];
    let crops = data::batch(&subjects, &settings, 1, (-1.0, 1.0), 5).unwrap();
    let crops: Vec<Vec<f32>> = crops.flatten_from(1).unwrap().to_vec2().unwrap();
    for crop in crops {
        // Whole pixels of the ramp: steps of 1 and of 32.
        assert!(crop.windows(2).take(7).all(|w| w[1] - w[0] == 1.0) && crop[8] - crop[0] == 32.0);
    }
    let complex = data::batch(&subjects, &settings, 2, (-1.0, 1.0), 5).unwrap();
    assert_eq!(complex.dims(), [3, 2, 8, 8]);
    assert!(data::batch(&[], &settings, 1, (-1.0, 1.0), 0).is_err());
    assert!(Trainer::new(header(), Settings { crop: 9, ..settings }, &Device::Cpu).is_err());
}
