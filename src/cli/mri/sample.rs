//! Diffusion methods on MRI scans: complex images in the prior's units, all slices in one problem.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{D, Device, Tensor};
use wellposed::error::{Error, Result};
use wellposed::io::{MriScan, Volume};
use wellposed::linalg::LinearOperator;
use wellposed::prior::BM3D;
use wellposed::reconstruct::mri::estimate_noise;
use wellposed::sampler::{AdmmTv, Normalized};
use wellposed::tensor::{Field, Real};

use super::encoding::{Measured, Weighting};
use super::method::{Method, Settings};
use super::scan;
use crate::cli::deliver::{Reconstruction, usable};
use crate::cli::diffusion::{self, Chosen, Ingredients, Job, Setting, Start, Summary};
use crate::cli::failure::Outcome;
use crate::cli::progress::Progress;

/// The error that pnp and dds allow the denoised image at σ = 1: less than for CT, for more of the noise of every datum
/// comes through an encoding. Between 1/1.4 and 1 of .2 BM3D is best at R = 4 and at R = 8, for three heads of the training data.
const ERROR: f64 = 0.2;
const ERROR_OF_BM3D: f64 = 0.17;

/// The prior where none is asked for.
pub fn prior(method: diffusion::Method) -> &'static str {
    if method == diffusion::Method::Pnp { BM3D } else { "brain" }
}

/// Samples, or the one image that the method finds.
pub fn run(
    method: diffusion::Method,
    scan: &MriScan,
    settings: Settings,
    chosen: &Chosen,
    output: &Path,
) -> Outcome<Reconstruction> {
    let device = chosen.device()?;
    let prior = chosen.open(Field::Complex, "MRI", &device)?;
    let clock = Instant::now();
    let Measured { encoding, data, maps } = settings.encode(scan, Weighting::Noise, &device)?;
    // The start has the same coil maps.
    let with_maps = MriScan { coil_maps: Some(maps), ..scan.clone() };
    let classical = |method: Method| -> Outcome<Tensor> {
        let mut progress = Progress::new(method.name());
        let solution =
            method.reconstruct(&with_maps, &settings.for_start().validated(method)?, &mut progress)?;
        progress.finish();
        Ok(usable(&solution, method.name())?.clone())
    };
    let estimate = classical(if chosen.start == Start::Tv { Method::Tv } else { Method::Sense })?;
    let noise = scan.noise.map_or_else(|| estimate_noise(&scan.kspace), Ok)?;
    let pixels = estimate.elem_count() / 2;
    let normalized = Normalized::new(Arc::new(encoding.clone()), &data, noise, bright(&estimate)?, 0.0)?;
    let start = match chosen.start {
        Start::Tv => Some(normalized.from_physical(&estimate.to_device(&device)?)?),
        Start::Noise => None,
    };
    // Maps of their own for each slice make the volume one item of the operator.
    let batch = scan.kspace.elem_count() / encoding.range().elements();
    let mut problem = normalized.problem(&prior.denoiser)?;
    if let Some(start) = &start {
        problem = problem.starting_at(start)?;
    }
    let held = 4 * (8 * 2 * pixels + 4 * scan.kspace.elem_count());
    let problem = problem.with_chunk(chosen.chunk(held, pixels / batch.max(1), method.goes_backwards())?);
    let admm = AdmmTv { rho: 0.01, lambda: 0.005, iterations: 1 };
    let sampler = method.sampler(
        chosen,
        Setting {
            strength: settings.strength(),
            error: if chosen.prior == BM3D { ERROR_OF_BM3D } else { ERROR },
            finish: diffusion::Finish::CLEAN,
            admm,
            noise: normalized.noise(),
            linear: true,
            across: None,
        },
    );
    let made_of = Ingredients { data: normalized.data(), start: start.as_ref(), prior: &prior };
    let job = Job { method, sampler: &*sampler, problem: &problem, chosen, made_of, output };
    let drawn = job.run()?;
    let seconds = clock.elapsed().as_secs_f64();
    let seen = seen_by_coils(&encoding.adjoint(&data)?.to_device(&Device::Cpu)?)?;
    // Magnitudes first: mean and spread are those of what is looked at.
    let volumes = drawn
        .samples
        .iter()
        .map(|x| scan::volume(scan, &normalized.to_physical(&x.broadcast_mul(&seen)?)?))
        .collect::<Result<Vec<Volume>>>()?;
    let like = volumes[0].clone();
    let samples = volumes.iter().map(|v| v.data().clone()).collect();
    let volume = |x: Tensor| Ok(like.with_data(x, like.unit())?);
    let summary = Summary::of(samples, volume, volume)?;
    Ok(Reconstruction {
        command: "mri reconstruct",
        method: method.name().into(),
        volume: summary.mean,
        beside: summary.beside,
        termination: drawn.termination,
        steps: drawn.steps,
        seconds,
        seed: Some(chosen.seed),
        progress: drawn.progress,
    })
}

/// 1 where a coil sees something, 0 where all maps are 0: data and classical methods know nothing there, and a prior's
/// faint idea of empty space is no measurement.
fn seen_by_coils(adjoint: &Tensor) -> Result<Tensor> {
    let size = adjoint.abs()?.sum_keepdim(D::Minus1)?;
    Ok(size.gt(0.0)?.to_dtype(adjoint.dtype())?)
}

/// The 99.9th percentile of the magnitude, 1 in the units of MRI priors.
fn bright(image: &Tensor) -> Result<f64> {
    let parts = f64::to_vec(&image.flatten_all()?)?;
    let mut sizes: Vec<f64> = parts.chunks_exact(2).map(|p| p[0].hypot(p[1])).collect();
    let place = (sizes.len().max(1) - 1) * 999 / 1000;
    let (_, value, _) = sizes.select_nth_unstable_by(place, f64::total_cmp);
    if *value > 0.0 { Ok(*value) } else { Err(Error::parameter("scan", "an image of zeros", "has no scale")) }
}
