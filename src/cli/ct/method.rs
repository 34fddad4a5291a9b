//! The methods of `wellposed ct reconstruct`: their names, settings and defaults.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{CtScan, Unit};
use wellposed::linalg::{Cgls, LinearOperator};
use wellposed::observe::{Observer, Solution, Termination};
use wellposed::reconstruct::{Fbp, OsSart, Sirt, Slices, TotalVariation, Window};

use super::rays::{Rays, Sampling};
use super::scan::weights;
use crate::cli::diffusion;
use crate::cli::failure::{Failure, Outcome};

/// A reconstruction method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Filtered back projection; of cone beams that of Feldkamp, Davis and Kress.
    #[value(alias = "fdk")]
    Fbp,
    /// Simultaneous iterative reconstruction, not negative.
    Sirt,
    /// SIRT on ordered subsets of the views, not negative.
    OsSart,
    /// Conjugate gradients for least squares, stopped early.
    Cgls,
    /// Least squares weighted by photon counts, with total variation, not negative.
    Tv,
    /// A diffusion prior as denoiser in turns with the data: one image, the highest PSNR.
    Pnp,
    /// The same with fresh noise in every step: the highest PSNR where data are few, more so as the mean of --samples.
    Snore,
    /// Samples by decomposed diffusion sampling.
    Dds,
    /// Samples by DiffusionMBIR, with total variation across slices.
    Mbir,
    /// Samples by gradients through the network.
    Dps,
    /// One image by stochastic optimisation against a diffusion prior.
    RedDiff,
    /// Samples by DiffPIR.
    Diffpir,
    /// Samples by decoupled annealing.
    Daps,
    /// Samples by moment matching: gradients through the network spread what the data say.
    Mmps,
}

/// The window on the ramp filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Filter {
    RamLak,
    SheppLogan,
    Cosine,
    Hamming,
    Hann,
}

impl Filter {
    fn window(self) -> Window {
        match self {
            Self::RamLak => Window::RamLak,
            Self::SheppLogan => Window::SheppLogan,
            Self::Cosine => Window::Cosine,
            Self::Hamming => Window::Hamming,
            Self::Hann => Window::Hann,
        }
    }
}

/// Settings of the methods; each has its own defaults.
#[derive(Clone, Copy, Debug, Args, Serialize)]
pub struct Settings {
    /// Iterations at most [default: sirt 200, os-sart 20, cgls 20, tv 1000].
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    iterations: Option<u32>,
    /// Strength of the total variation, or of the prior, relative to the default.
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "FACTOR",
        long_help = "Strength of the total variation, relative to the default, which fits the photon counts (or, without \
                     those, the size of the data), or of the prior of a diffusion method. 2 is smoother, 0.5 is \
                     sharper and noisier."
    )]
    strength: f64,
    /// Total variation across slices too, weighted by the ratio of pixel size to slice distance (tv, pnp, snore, dds).
    #[arg(long)]
    coupled: bool,
    /// Huber's penalty instead of total variation: differences up to D, in the volume's unit, count by their squares.
    #[arg(long, value_name = "D")]
    huber: Option<f64>,
    /// Window on the ramp filter of fbp.
    #[arg(long, value_enum, default_value_t = Filter::RamLak, value_name = "WINDOW")]
    filter: Filter,
    /// Where the filter of fbp ends, as a part of the Nyquist frequency.
    #[arg(long, default_value_t = 1.0, value_name = "PART")]
    cutoff: f64,
    /// How the line integrals of a cone beam are taken, by methods that iterate.
    #[arg(long, value_enum, default_value_t = Sampling::Joseph, value_name = "HOW")]
    projector: Sampling,
    /// Strength of the total variation of data without counts, where it is known from more data than are given.
    #[arg(skip)]
    #[serde(skip)]
    of_data: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            iterations: None,
            strength: 1.0,
            coupled: false,
            huber: None,
            filter: Filter::RamLak,
            cutoff: 1.0,
            projector: Sampling::Joseph,
            of_data: None,
        }
    }
}

impl Settings {
    /// The settings with the method's defaults filled in.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what is out of range.
    pub fn validated(self, method: Method) -> Outcome<Self> {
        if !(self.strength >= 0.0 && self.strength.is_finite()) {
            return Err(Failure::usage("--strength", self.strength, "expected a factor, at least 0"));
        }
        if let Some(corner) = self.huber.filter(|d| !(*d >= 0.0 && d.is_finite()) || method != Method::Tv) {
            return Err(Failure::usage("--huber", corner, "expected a size, at least 0, with --method tv"));
        }
        if !(self.cutoff > 0.0 && self.cutoff <= 1.0) {
            return Err(Failure::usage("--cutoff", self.cutoff, "expected more than 0 and up to 1"));
        }
        if self.projector == Sampling::Footprint && (method == Method::Fbp || method.diffusion().is_some()) {
            let reason = format!("{} takes no line integrals of cone beams", method.name());
            return Err(Failure::usage("--projector", "footprint", &reason));
        }
        let default = match method {
            Method::Fbp => None,
            Method::Sirt => Some(200),
            Method::OsSart | Method::Cgls => Some(20),
            Method::Tv => Some(1000),
            _ if self.iterations.is_some() => {
                return Err(Failure::Usage(format!("--iterations: {} takes --steps", method.name())));
            }
            _ => None,
        };
        Ok(Self { iterations: default.map(|n| self.iterations.unwrap_or(n)), ..self })
    }

    /// Strength of the regularisation or of the prior, relative to the default.
    pub fn strength(&self) -> f64 {
        self.strength
    }

    /// Whether the slices of a volume are to inform each other.
    pub fn coupled(&self) -> bool {
        self.coupled
    }

    /// Filtered back projection with these settings.
    pub fn fbp(&self) -> Fbp {
        Fbp { window: self.filter.window(), cutoff: self.cutoff }
    }

    /// These settings where a total variation of data without counts is to have this strength.
    pub fn with_strength_of_data(self, strength: f64) -> Self {
        Self { of_data: Some(strength), ..self }
    }

    /// The settings of the total variation at whose estimate samplers start.
    pub fn for_start(&self) -> Self {
        Self { coupled: self.coupled, ..Self::default() }
    }

    fn iterations(&self) -> usize {
        self.iterations.unwrap_or(1) as usize
    }
}

impl Method {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fbp => "fbp",
            Self::Sirt => "sirt",
            Self::OsSart => "os-sart",
            Self::Cgls => "cgls",
            Self::Tv => "tv",
            other => other.diffusion().map_or("", diffusion::Method::name),
        }
    }

    /// The diffusion method, where it is one.
    pub fn diffusion(self) -> Option<diffusion::Method> {
        diffusion::Method::named(self)
    }

    /// About how many arrays of the size of the volume and of the projections a classical method holds at once, with what
    /// reading and writing take; counted in the peak memory of runs.
    pub fn arrays(self, weights: bool) -> [f64; 2] {
        let [volumes, projections] = match self {
            Self::Fbp => [5.0, 3.0],
            Self::Sirt => [7.0, 3.0],
            Self::OsSart => [6.0, 4.0],
            Self::Cgls => [8.0, 4.0],
            _ => [16.0, 6.0],
        };
        [volumes, projections + f64::from(u8::from(weights))]
    }

    /// Strength of the total variation of a scan without photon counts.
    pub fn strength_of_data(scan: &CtScan) -> Outcome<f64> {
        let a = Rays::of(scan)?.transform(&scan.target, &Device::Cpu)?;
        Ok(TotalVariation::for_data(&a, &scan.projections)?.strength)
    }

    /// Attenuation in 1/mm [slice, row, column] from the projections, by a classical method.
    pub fn reconstruct(
        self,
        scan: &CtScan,
        settings: &Settings,
        observer: &mut dyn Observer,
    ) -> Outcome<Solution> {
        let (rays, y) = (Rays::of(scan)?.sampled(settings.projector)?, &scan.projections);
        let a = rays.transform(&scan.target, &Device::Cpu)?;
        let max_iterations = settings.iterations();
        Ok(match self {
            Self::Fbp => {
                let start = Instant::now();
                let value = rays.filtered_back_projection(&settings.fbp(), &scan.target, y)?;
                let (termination, elapsed) = (Termination::Completed, start.elapsed());
                Solution { value, termination, steps: 1, measure: 0.0, elapsed }
            }
            Self::Sirt => Sirt { max_iterations, ..Sirt::default() }.solve(&a, y, None, observer)?,
            Self::OsSart => {
                let subsets = OsSart::default().subsets.min(a.views());
                OsSart { max_iterations, subsets, ..OsSart::default() }.solve(&*a, y, None, observer)?
            }
            Self::Cgls => Cgls { max_iterations, ..Cgls::default() }.solve(&a, y, None, observer)?,
            Self::Tv => {
                let default = match (&scan.weights, settings.of_data) {
                    (Some(_), _) => TotalVariation::for_counts(scan.mu_water),
                    (None, Some(strength)) => TotalVariation { strength, ..TotalVariation::default() },
                    (None, None) => TotalVariation::for_data(&a, y)?,
                };
                let [slice, _, column] = scan.target.spacing();
                // The slices of a cone are not measured apart.
                let together = settings.coupled || matches!(rays, Rays::Cone(..));
                let slices = match together && scan.target.shape()[0] > 1 {
                    true => Slices::Coupled(column / slice),
                    false => Slices::Independent,
                };
                let strength = settings.strength * default.strength;
                let per_unit = if scan.unit == Unit::Hounsfield { scan.mu_water / 1000.0 } else { 1.0 };
                let corner = settings.huber.unwrap_or(0.0) * per_unit;
                let method = TotalVariation { strength, corner, max_iterations, slices, ..default };
                let a: Arc<dyn LinearOperator> = a;
                method.solve(&a, y, weights(scan)?.as_ref(), None, observer)?
            }
            _ => return Err(Error::Unsupported(format!("{} needs a prior", self.name())).into()),
        })
    }
}
