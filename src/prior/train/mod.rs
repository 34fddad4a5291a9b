//! Training of denoisers (Karras et al. 2022): D(x, σ) minimises E λ(σ)‖D(x₀ + σ n, σ) − x₀‖², with the weight λ that
//! makes the network's own target of unit variance at every noise level.
//!
//! All randomness is a function of the seed and of the step, so that a run that goes on from a saved state gives the
//! same bits as one that was never interrupted.

mod adam;
mod data;
mod start;
mod state;
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::prior::checkpoint::Prior;
use crate::prior::checkpoint::own::{self, Header};
use crate::prior::network::Graph;
use crate::prior::network::unet::UNet;
use crate::prior::parametrization::Prediction;
use crate::tensor::random::{Noise, standard_normal};
use crate::tensor::{Buffer, Space, vector};

pub use data::{Augmentation, Subject};

/// Streams of random numbers.
const LEVELS: u32 = 1;
const NOISE: u32 = 2;

/// How to train.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Settings {
    /// Images of a step.
    pub batch: usize,
    /// Side of the square crops, in pixels; a multiple of the network's granule.
    pub crop: usize,
    /// Step size of Adam behind the warm-up.
    pub rate: f64,
    /// Steps in which the step size rises from 0.
    pub warmup: usize,
    /// Behind this many steps the step size falls like 1/√step.
    pub constant: usize,
    /// Decoupled weight decay (AdamW), in units of the step size.
    pub decay: f64,
    /// Largest norm of the gradient; longer ones are shortened.
    pub clip: f64,
    /// Exponent γ of the moving average, whose decay is (1 − 1/step)^(γ+1) (Karras et al. 2024, eq. 127).
    pub average: f64,
    /// Mean of ln σ.
    pub log_mean: f64,
    /// Standard deviation of ln σ.
    pub log_deviation: f64,
    /// Share of noise levels that are drawn uniformly in ln σ from the limits instead.
    pub wide: f64,
    /// Smallest and largest noise level.
    pub limits: (f64, f64),
    /// Changes of the images.
    pub augmentation: Augmentation,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch: 8,
            crop: 128,
            rate: 8e-4,
            warmup: 300,
            constant: 8000,
            decay: 0.0,
            clip: 1.0,
            average: 12.0,
            log_mean: -1.2,
            log_deviation: 1.4,
            wide: 0.25,
            limits: (0.002, 160.0),
            augmentation: Augmentation::default(),
            seed: 0,
        }
    }
}

impl Settings {
    fn check(&self, granule: usize) -> Result<()> {
        let fail = |name: &str, value: &dyn std::fmt::Display, reason: &str| {
            Err(Error::parameter(name, value, reason))
        };
        if self.batch == 0 {
            return fail("batch", &self.batch, "at least one image");
        }
        if self.crop == 0 || !self.crop.is_multiple_of(granule) {
            return fail("crop", &self.crop, &format!("must be a multiple of {granule} for this network"));
        }
        if !(self.rate > 0.0 && self.rate.is_finite() && self.clip > 0.0 && self.decay >= 0.0) {
            return fail("rate", &self.rate, "step size and clip must be positive, the decay not negative");
        }
        let (low, high) = self.limits;
        if !(low > 0.0 && high > low && high.is_finite()) {
            return fail("limits", &format!("{low}…{high}"), "noise levels must satisfy 0 < low < high");
        }
        Ok(())
    }

    /// The step size at a step.
    fn rate(&self, step: usize) -> f64 {
        let rise = ((step + 1) as f64 / self.warmup.max(1) as f64).min(1.0);
        self.rate * rise / (step as f64 / self.constant.max(1) as f64).max(1.0).sqrt()
    }

    /// The noise level of an image of a step.
    fn level(&self, step: usize, image: usize) -> f64 {
        let noise = Noise::new(self.seed, LEVELS).at(step as u32);
        let (which, place) = noise.uniform_pair(2 * image as u64);
        let (low, high) = self.limits;
        let level = if which < self.wide {
            (low.ln() + place * (high / low).ln()).exp()
        } else {
            let (normal, _) = noise.normal_pair(2 * image as u64 + 1);
            (self.log_mean + self.log_deviation * normal).exp()
        };
        level.clamp(low, high)
    }
}

/// Name and shape of one tensor of weights, and where it lies among all of them.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    shape: Vec<usize>,
    start: usize,
}

/// A network in training.
#[derive(Debug)]
pub struct Trainer {
    header: Header,
    settings: Settings,
    device: Device,
    parts: Vec<Part>,
    /// All weights one after the other, Adam's two moments, and the moving average of the weights.
    weights: Buffer,
    mean: Buffer,
    square: Buffer,
    average: Buffer,
    step: usize,
}

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Mean square error of the network's target, of unit variance.
    pub loss: f64,
    /// Norm of the gradient before it was shortened.
    pub gradient: f64,
}

impl Trainer {
    /// A network with random weights.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a configuration that makes no network, or settings out of range.
    pub fn new(header: Header, settings: Settings, device: &Device) -> Result<Self> {
        let mut parts = Vec::new();
        let mut values: Vec<f32> = Vec::new();
        let network = UNet::new(header.network.clone(), &mut |name, shape| {
            let drawn = start::weight(name, shape, Noise::new(settings.seed, 0).at(parts.len() as u32));
            parts.push(Part { name: name.into(), shape: shape.to_vec(), start: values.len() });
            values.extend(&drawn);
            Ok(Tensor::from_vec(drawn, shape, &Device::Cpu)?)
        })?;
        settings.check(network.granule())?;
        let all = Tensor::from_vec(values.clone(), values.len(), device)?;
        let zeros = || Buffer::zeros(&[values.len()], DType::F32, device);
        Ok(Self {
            weights: Buffer::copy_of(&all)?,
            mean: zeros()?,
            square: zeros()?,
            average: Buffer::copy_of(&all)?,
            parts,
            header,
            settings,
            device: device.clone(),
            step: 0,
        })
    }

    /// Steps done.
    pub fn step_number(&self) -> usize {
        self.step
    }

    /// How it trains.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Numbers learned.
    pub fn parameters(&self) -> usize {
        self.weights.tensor().elem_count()
    }

    /// The weights, or their average, as tensors of the network.
    fn tensors(&self, all: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let part = |p: &Part| {
            let count = p.shape.iter().product();
            Ok((p.name.clone(), all.narrow(0, p.start, count)?.reshape(&p.shape[..])?.copy()?))
        };
        self.parts.iter().map(part).collect()
    }

    /// One step on crops of random images of the subjects.
    ///
    /// # Errors
    /// [`Error::Parameter`] without images; [`Error::NotFinite`] where loss or gradient is not finite.
    pub fn step(&mut self, subjects: &[Subject]) -> Result<Report> {
        let variables: Vec<Var> = self
            .tensors(self.weights.tensor())?
            .into_iter()
            .map(|(_, tensor)| Var::from_tensor(&tensor))
            .collect::<candle_core::Result<_>>()?;
        let mut next = variables.iter();
        let network = UNet::new(self.header.network.clone(), &mut |name, _| match next.next() {
            Some(variable) => Ok(variable.as_tensor().clone()),
            None => Err(Error::parameter("weights", name, "the network has more tensors than before")),
        })?;
        let loss = self.loss(&network, subjects)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let gradients = loss.backward()?;
        let mut flat = Vec::with_capacity(variables.len());
        for (variable, part) in variables.iter().zip(&self.parts) {
            let gradient = gradients.get(variable.as_tensor());
            let gradient =
                gradient.ok_or_else(|| Error::parameter("weights", &part.name, "have no gradient"))?;
            flat.push(gradient.flatten_all()?);
        }
        let gradient = Tensor::cat(&flat, 0)?;
        let norm = vector::norm(&gradient, 1)?[0];
        if !(norm.is_finite() && value.is_finite()) {
            let reason =
                format!("loss {value}, norm of the gradient {norm} at step {}; lower the rate", self.step);
            return Err(Error::parameter("rate", self.settings.rate, reason));
        }
        let kernel = adam::AdamW {
            rate: self.settings.rate(self.step),
            decay: self.settings.decay,
            shorten: (self.settings.clip / norm.max(1e-30)).min(1.0),
            step: self.step as i32 + 1,
            average: (1.0 - 1.0 / (self.step + 1) as f64).powf(self.settings.average + 1.0),
        };
        let outputs = &mut [&mut self.weights, &mut self.mean, &mut self.square, &mut self.average];
        crate::tensor::launch(kernel, &[&gradient], outputs)?;
        self.step += 1;
        Ok(Report { loss: value, gradient: norm })
    }

    /// Mean square error of the network on one batch.
    fn loss(&self, network: &UNet, subjects: &[Subject]) -> Result<Tensor> {
        let (s, c) = (&self.settings, &self.header.network);
        let clean =
            data::batch(subjects, s, c.channels, self.header.range, self.step)?.to_device(&self.device)?;
        let space = Space::real(clean.dims(), DType::F32, &self.device);
        let noise = standard_normal(Noise::new(s.seed, NOISE).at(self.step as u32), &space, &[])?;
        let levels: Vec<f64> = (0..s.batch).map(|image| s.level(self.step, image)).collect();
        let edm = Prediction::Edm { sigma_data: self.header.sigma_data };
        let column = |f: &dyn Fn(f64) -> f64| -> Result<Tensor> {
            let values: Vec<f32> = levels.iter().map(|s| f(*s) as f32).collect();
            Ok(Tensor::from_vec(values, (s.batch, 1, 1, 1), &self.device)?)
        };
        let of = |level: f64| edm.coefficients(level);
        let noisy = (&clean + noise.broadcast_mul(&column(&|s| s)?)?)?;
        let input = noisy.broadcast_mul(&column(&|s| of(s).input)?)?;
        let times = column(&|s| of(s).time)?.flatten_all()?;
        // (x₀ − c_skip x)/c_out, which the network predicts.
        let target = (&clean - noisy.broadcast_mul(&column(&|s| of(s).skip)?)?)?;
        let target = target.broadcast_mul(&column(&|s| 1.0 / of(s).out)?)?;
        Ok((network.run(&input, &times)? - target)?.sqr()?.mean_all()?)
    }

    /// The prior so far: the moving average of the weights.
    ///
    /// # Errors
    /// As [`Prior::from_bytes`].
    pub fn prior(&self, training: &serde_json::Value) -> Result<Prior> {
        Prior::from_bytes(&self.file(training)?, &self.header.name)
    }

    /// The contents of a file with the prior so far, in f16.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it can't be encoded.
    pub fn file(&self, training: &serde_json::Value) -> Result<Vec<u8>> {
        own::encode(&self.header, training, &self.tensors(self.average.tensor())?)
    }
}
