//! Diffusion methods on CT scans: from photon counts to whitened data in the prior's units, and back to HU.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use wellposed::io::{CtScan, Unit, Volume};
use wellposed::linalg::LinearOperator;
use wellposed::metric;
use wellposed::prior::checkpoint::Prior;
use wellposed::reconstruct::TotalVariation;
use wellposed::sampler::{AdmmTv, Normalized};
use wellposed::tensor::Field;

use super::method::{Method, Settings};
use super::rays::Rays;
use super::scan;
use crate::cli::deliver::{Reconstruction, usable};
use crate::cli::diffusion::{self, Chosen, Drawn, Ingredients, Job, Setting, Start, Summary};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::progress::Progress;

/// The prior's units: HU = offset + scale · x.
#[derive(Clone, Copy, Debug)]
struct Units {
    offset: f64,
    scale: f64,
}

impl Units {
    /// # Errors
    /// [`Failure::Usage`] for a prior without a window in HU.
    fn of(prior: &Prior) -> Outcome<Self> {
        let card = &prior.card;
        let Some((low, high)) = card.window.filter(|_| card.unit == "HU") else {
            let reason = format!("its range stands for {}; CT needs a prior with a window in HU", card.unit);
            return Err(Failure::usage("--prior", &card.name, &reason));
        };
        let scale = (high - low) / (card.range.1 - card.range.0);
        Ok(Self { offset: low - scale * card.range.0, scale })
    }
}

/// Assumed error of noise-free projections, as a part of the largest: that of the discrete model.
const MODEL_ERROR: f64 = 1e-3;

/// The scan for a sampler.
fn normalized(
    a: Arc<dyn LinearOperator>,
    scan: &CtScan,
    units: Units,
    weighted: bool,
) -> Outcome<Normalized> {
    let y = &scan.projections.to_device(a.domain().device())?;
    let scale = scan.mu_water * units.scale / 1000.0;
    let offset = scan.mu_water * (1.0 + units.offset / 1000.0);
    Ok(match &scan::weights(scan)? {
        Some(weights) if weighted => {
            let weights = weights.to_device(y.device())?;
            Normalized::weighted(a, y, &weights, scale, offset)?
        }
        Some(weights) => {
            let variance = weights.recip()?.mean_all()?.to_scalar::<f32>()?;
            Normalized::new(a, y, f64::from(variance).sqrt(), scale, offset)?
        }
        None => Normalized::new(a, y, MODEL_ERROR * metric::maximum(y)?, scale, offset)?,
    })
}

/// Samples, or the one image that the method finds.
pub fn run(
    method: diffusion::Method,
    scan: &CtScan,
    settings: &Settings,
    chosen: &Chosen,
    output: &Path,
) -> Outcome<Reconstruction> {
    let device = chosen.device()?;
    let prior = chosen.open(Field::Real, "CT", &device)?;
    let units = Units::of(&prior)?;
    let clock = Instant::now();
    let rays = Rays::of(scan)?;
    if matches!(rays, Rays::Cone(..)) {
        let reason = "diffusion methods work on slices: expected a parallel or a fan beam, found a cone beam";
        return Err(wellposed::error::Error::Unsupported(reason.into()).into());
    }
    let a = rays.transform(&scan.target, &device)?;
    let (views, pixel, range) = (a.views(), scan.target.spacing()[2], a.range().shape().to_vec());
    // DiffusionMBIR has its published weights, which are those of unweighted data.
    let whitened = method != diffusion::Method::Mbir;
    let normalized = normalized(a, scan, units, whitened)?;
    let start = start(scan, settings, chosen, &normalized)?;
    let mut problem = normalized.problem(&prior.denoiser)?;
    if let Some(start) = &start {
        problem = problem.starting_at(start)?;
    }
    let pixels: usize = scan.target.shape()[1..].iter().product();
    let held = 4 * (8 * pixels + 4 * range.iter().product::<usize>()) * scan.target.shape()[0];
    let problem = problem.with_chunk(chosen.chunk(held, pixels, method.goes_backwards())?);
    let admm = AdmmTv::from_paper(10.0, 0.04, 1, views).rescaled(normalized.norm() / pixel);
    let across = settings.coupled().then(|| across(scan, units));
    let setting = Setting {
        strength: settings.strength(),
        error: diffusion::ERROR,
        finish: diffusion::Finish::TEXTURED,
        admm,
        noise: normalized.noise(),
        linear: true,
        across,
    };
    let sampler = method.sampler(chosen, setting);
    let made_of = Ingredients { data: normalized.data(), start: start.as_ref(), prior: &prior };
    let job = Job { method, sampler: &*sampler, problem: &problem, chosen, made_of, output };
    let drawn = job.run()?;
    let seconds = clock.elapsed().as_secs_f64();
    reconstruction(method, scan, &normalized, chosen, drawn, seconds)
}

/// Weight of the total variation across slices in units of that of the method `tv`, which has no prior beside it: of
/// 1 and .3 the better one for eight slices of a chest with 8 views.
const ACROSS: f64 = 0.3;

/// Total variation across slices; the splitting expects differences of 2 % of water.
fn across(scan: &CtScan, units: Units) -> AdmmTv {
    let [slice, _, column] = scan.target.spacing();
    let unit = scan.mu_water * units.scale / 1000.0;
    let lambda = ACROSS * TotalVariation::for_counts(scan.mu_water).strength * unit * column / slice;
    AdmmTv { rho: lambda / 0.02, lambda, iterations: 20 }
}

/// The estimate of total variation in the prior's units, where the sampler starts at that.
fn start(
    scan: &CtScan,
    settings: &Settings,
    chosen: &Chosen,
    normalized: &Normalized,
) -> Outcome<Option<Tensor>> {
    if chosen.start == Start::Noise {
        return Ok(None);
    }
    let mut progress = Progress::new("tv");
    let settings = settings.for_start().validated(Method::Tv)?;
    let solution = Method::Tv.reconstruct(scan, &settings, &mut progress)?;
    progress.finish();
    let estimate = usable(&solution, "tv")?.to_device(normalized.data().device())?;
    Ok(Some(normalized.from_physical(&estimate)?))
}

fn reconstruction(
    method: diffusion::Method,
    scan: &CtScan,
    normalized: &Normalized,
    chosen: &Chosen,
    drawn: Drawn,
    seconds: f64,
) -> Outcome<Reconstruction> {
    let Drawn { samples, termination, steps, progress } = drawn;
    let summary = Summary::of(
        samples,
        |x| Ok(scan::volume(scan, &normalized.to_physical(&x)?)?),
        |x| {
            let mu = normalized.to_physical_spread(&x)?;
            let factor = if scan.unit == Unit::Hounsfield { 1000.0 / scan.mu_water } else { 1.0 };
            Ok(Volume::on_grid((mu * factor)?, scan.target.clone(), scan.unit)?)
        },
    )?;
    Ok(Reconstruction {
        command: "ct reconstruct",
        method: method.name().into(),
        volume: summary.mean,
        beside: summary.beside,
        termination,
        steps,
        seconds,
        seed: Some(chosen.seed),
        progress,
    })
}
