//! `wellposed prior eval`: the denoising PSNR of a prior at each noise level.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use clap::Args;
use serde::Serialize;
use wellposed::error::Result;
use wellposed::prior::Denoiser;
use wellposed::prior::checkpoint::Prior;
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Field, Space, vector};

use super::slices::{self, Cutting};
use crate::cli::console;
use crate::cli::diffusion::Rounding;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::view::Window;

/// Arguments of `wellposed prior eval`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of a prior that comes along, or its file or folder.
    prior: String,
    /// A volume, or a folder of volumes, that the prior has not been trained on.
    volumes: PathBuf,
    /// Noise levels, in units of the network's data.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0.02,0.05,0.1,0.2,0.5,1,2,5,20",
        value_name = "SIGMAS"
    )]
    sigmas: Vec<f64>,
    /// Images of each volume, spread evenly.
    #[arg(long, default_value_t = 4, value_name = "N")]
    slices: usize,
    /// Seed of the noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What the network's convolutions multiply: shows what a GPU's tf32 or bf16 would cost.
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    precision: Rounding,
    #[command(flatten)]
    cutting: Cutting,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// One noise level.
#[derive(Debug, Serialize)]
pub struct Level {
    pub sigma: f64,
    /// Mean over the images of the PSNR of x₀ + σ n, in dB; the peak is the width of the data range.
    pub noisy: f64,
    /// The same of D(x₀ + σ n, σ).
    pub denoised: f64,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    command: &'static str,
    prior: &'a str,
    volumes: usize,
    images: usize,
    seed: u64,
    precision: Rounding,
    /// L of the PSNR: the width of the data range.
    data_range: f64,
    levels: Vec<Level>,
    seconds: f64,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let Prior { card, denoiser } = Prior::find(&arguments.prior)?;
    if arguments.sigmas.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
        return Err(Failure::usage("--sigmas", format!("{:?}", arguments.sigmas), "must be positive"));
    }
    let own = card.window.map(|(low, high)| Window { low, high });
    let cutting = Cutting { window: arguments.cutting.window.or(own), ..arguments.cutting.clone() };
    // A complex prior sees magnitudes, of phase 0.
    let range = if card.channels == 2 { (0.0, card.range.1) } else { card.range };
    arguments.precision.set();
    let start = Instant::now();
    let subjects = slices::read(&slices::volumes(&arguments.volumes)?, &cutting, range)?;
    let images = images(&subjects, arguments.slices, card.channels)?;
    let peak = card.range.1 - card.range.0;
    let prior = Prior { card, denoiser };
    let levels = levels(&prior, &images, &arguments.sigmas, arguments.seed)?;
    for level in &levels {
        console::say(&format!("σ {}: {:.2} dB from {:.2} dB", level.sigma, level.denoised, level.noisy));
    }
    let report = Report {
        command: "prior eval",
        prior: &arguments.prior,
        volumes: subjects.len(),
        images: images.len(),
        seed: arguments.seed,
        precision: arguments.precision,
        data_range: peak,
        levels,
        seconds: start.elapsed().as_secs_f64(),
    };
    if arguments.json {
        return console::print_json(&report);
    }
    let mut text = format!("{:>8}  {:>8}  {:>8}\n", "σ", "noisy", "denoised");
    for level in &report.levels {
        let _ = writeln!(text, "{:>8}  {:>8.2}  {:>8.2}", level.sigma, level.noisy, level.denoised);
    }
    console::print(&text)
}

/// Images spread evenly over the subjects', `count` of each; complex for priors of two channels.
pub fn images(subjects: &[slices::Subject], count: usize, channels: usize) -> Outcome<Vec<Tensor>> {
    let mut images = Vec::new();
    for subject in subjects {
        images.extend(slices::spread(subject, count)?);
    }
    if channels == 2 {
        images = images.iter().map(complex).collect::<Result<_>>()?;
    }
    Ok(images)
}

/// The mean PSNR at each noise level.
pub fn levels(prior: &Prior, images: &[Tensor], sigmas: &[f64], seed: u64) -> Result<Vec<Level>> {
    let peak = prior.card.range.1 - prior.card.range.0;
    let level = |(index, &sigma): (usize, &f64)| {
        let noise = Noise::new(seed, index as u32);
        let mut sums = [0.0; 2];
        for (i, image) in images.iter().enumerate() {
            let psnr = one(&prior.denoiser, image, sigma, noise.at(i as u32), peak)?;
            sums.iter_mut().zip(psnr).for_each(|(sum, psnr)| *sum += psnr / images.len() as f64);
        }
        Ok(Level { sigma, noisy: sums[0], denoised: sums[1] })
    };
    sigmas.iter().enumerate().map(level).collect()
}

/// PSNR before and after denoising.
fn one(prior: &dyn Denoiser, image: &Tensor, sigma: f64, noise: Noise, peak: f64) -> Result<[f64; 2]> {
    let space = Space::real(image.dims(), DType::F32, &Device::Cpu);
    let noisy = (image + (standard_normal(noise, &space, &[])? * sigma)?)?;
    let psnr = |x: &Tensor| -> Result<f64> {
        let error = vector::norm(&(x - image)?, 1)?[0].powi(2) / image.elem_count() as f64;
        Ok(10.0 * (peak * peak / error.max(1e-20)).log10())
    };
    debug_assert!(prior.field() == Field::Real || image.dims().last() == Some(&2));
    Ok([psnr(&noisy)?, psnr(&prior.denoise(&noisy, sigma)?)?])
}

fn complex(magnitude: &Tensor) -> Result<Tensor> {
    Ok(Tensor::stack(&[magnitude, &magnitude.zeros_like()?], magnitude.rank())?)
}
