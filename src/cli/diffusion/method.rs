//! The diffusion methods, with settings that suit the prior's units.

use clap::ValueEnum;
use serde::Serialize;
use wellposed::prior::schedule::{Grid, Sde};
use wellposed::sampler::{
    AdmmTv, Consistency, Daps, DiffusionMbir, Dps, Draw, Guided, MomentMatching, RedDiff, Sampler,
};

use super::{Chosen, Start};

/// A diffusion method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Plug and play: denoiser and data take turns, without noise; one image.
    Pnp,
    /// The same with fresh noise in front of every denoising; begins at noise, and the most where data are few.
    Snore,
    /// Decomposed diffusion sampling: a data step on the denoised image.
    Dds,
    /// DiffusionMBIR: predictor, corrector and data step on the noisy volume, total variation across slices.
    Mbir,
    /// Diffusion posterior sampling: gradients through the network.
    Dps,
    /// Regularisation by denoising diffusion: stochastic optimisation of one image.
    RedDiff,
    /// Denoising diffusion for plug-and-play restoration.
    Diffpir,
    /// Decoupled annealing posterior sampling.
    Daps,
    /// Moment matching posterior sampling: the data step spreads along what the prior thinks uncertain.
    Mmps,
}

/// The error that pnp and dds allow the denoised image at σ = 1, of one number a datum.
pub const ERROR: f64 = 0.6;

/// The error of denoised chests at σ = 1.
const NETWORK_ERROR: f64 = 0.1;

/// How pnp and dds go about the fine end of an image.
#[derive(Clone, Copy, Debug)]
pub struct Finish {
    /// The lowest noise level.
    floor: f64,
    /// The level of a last denoising without a data step.
    last: Option<f64>,
}

impl Finish {
    /// For images whose noise is part of the truth: nothing below gains there.
    pub const TEXTURED: Self = Self { floor: 0.02, last: None };
    /// For images that are to be free of noise, and zero around an object, where a data step brings noise.
    pub const CLEAN: Self = Self { floor: 0.005, last: Some(0.004) };
}

/// What the defaults of a method depend on besides its options.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Strength of the prior relative to the default.
    pub strength: f64,
    /// The error that pnp and dds allow the denoised image at σ = 1, at the default strength.
    pub error: f64,
    /// The fine end of pnp and dds.
    pub finish: Finish,
    /// Total variation across slices for mbir, in the units of the normalised operator.
    pub admm: AdmmTv,
    /// Standard deviation of the noise of the normalised data.
    pub noise: f64,
    /// Whether the operator is linear.
    pub linear: bool,
    /// Total variation across slices for pnp and dds, for data of unit noise.
    pub across: Option<AdmmTv>,
}

impl Setting {
    /// With total variation across slices in the data step, where it is wanted.
    fn joined(&self, guided: Guided) -> Guided {
        match (guided.consistency, self.across) {
            (Consistency::Learned { error, .. }, Some(admm)) => {
                Guided { consistency: Consistency::Volume { error, admm }, ..guided }
            }
            _ => guided,
        }
    }
}

impl Method {
    /// The one that a command's own list of methods, which has classical ones too, calls by the same name.
    pub fn named(listed: impl ValueEnum) -> Option<Self> {
        let listed = listed.to_possible_value()?;
        Self::from_str(listed.get_name(), false).ok()
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pnp => "pnp",
            Self::Snore => "snore",
            Self::Dds => "dds",
            Self::Mbir => "mbir",
            Self::Dps => "dps",
            Self::RedDiff => "red-diff",
            Self::Diffpir => "diffpir",
            Self::Daps => "daps",
            Self::Mmps => "mmps",
        }
    }

    /// Default steps.
    pub fn steps(self) -> usize {
        match self {
            Self::Pnp => 40,
            Self::Snore => 100,
            Self::Dds => 30,
            Self::Diffpir | Self::Daps | Self::Mmps => 50,
            Self::Mbir => 150,
            Self::Dps => 200,
            Self::RedDiff => 300,
        }
    }

    /// Whether its answers differ from seed to seed by more than the noise of an optimisation.
    pub fn draws(self) -> bool {
        !matches!(self, Self::Pnp | Self::RedDiff)
    }

    /// Where it starts unless told otherwise.
    pub fn start(self) -> Start {
        if self == Self::Snore { Start::Noise } else { Start::Tv }
    }

    /// Whether operators need not be linear.
    pub fn takes_nonlinear(self) -> bool {
        matches!(self, Self::Dps | Self::Daps)
    }

    /// Whether it needs gradients through the network.
    pub fn goes_backwards(self) -> bool {
        matches!(self, Self::Dps | Self::Mmps)
    }

    /// The sampler.
    pub fn sampler(self, chosen: &Chosen, setting: Setting) -> Box<dyn Sampler> {
        let (steps, strength) = (chosen.steps, setting.strength.max(1e-6));
        let error = setting.error / strength;
        // The first noise level: enough to forget, or enough to repair.
        let level = |warm: f64| if chosen.start == Start::Noise { 20.0 } else { warm };
        let guided = |max: f64, guided: Guided| -> Box<dyn Sampler> {
            let Finish { floor, last } = setting.finish;
            let grid = Grid::Karras { min: floor, max, rho: 7.0 };
            Box::new(Guided { steps, grid, last, mirrored: true, ..setting.joined(guided) })
        };
        match self {
            Self::Pnp => {
                let max = level(0.2).min(5.0);
                guided(max, Guided::plug_and_play(max, error))
            }
            Self::Snore => guided(3.0, Guided::snore(3.0, error)),
            Self::Dds => guided(level(0.5), Guided::noise_aware(level(0.5), error)),
            Self::Diffpir => {
                let grid = Grid::Karras { min: 0.02, max: level(0.5), rho: 7.0 };
                Box::new(Guided { steps, grid, clip: true, ..Guided::diffpir(strength, 0.3) })
            }
            Self::Mbir => {
                let sde = Sde::Ve { min: 0.01, max: level(1.0) };
                let AdmmTv { rho, lambda, iterations } = setting.admm;
                let admm = AdmmTv { rho, lambda: strength * lambda, iterations };
                Box::new(DiffusionMbir { steps, sde, ..DiffusionMbir::new(admm) })
            }
            Self::Dps => {
                let grid = Grid::Karras { min: 0.02, max: level(1.0), rho: 7.0 };
                Box::new(Dps { steps, grid, zeta: 1.0 / strength, ..Dps::default() })
            }
            Self::RedDiff => {
                let grid = Grid::Karras { min: 0.02, max: 1.0, rho: 7.0 };
                Box::new(RedDiff { steps, grid, rate: 0.02, lambda: 0.01 * strength, ..RedDiff::default() })
            }
            Self::Mmps => {
                let grid = Grid::Karras { min: setting.finish.floor, max: level(1.0), rho: 7.0 };
                let rest = Consistency::Learned { error, iterations: 10 };
                Box::new(MomentMatching { steps, grid, rest, clip: true, ..MomentMatching::default() })
            }
            Self::Daps => {
                let noise = setting.noise.max(1e-4);
                let (min, tau, error, draw) = if setting.linear {
                    (setting.finish.floor, noise, Some(NETWORK_ERROR / strength), Daps::default().draw)
                } else {
                    // Steps of τ² are the published 1e-4 for its τ = .01.
                    let tau = strength * noise;
                    (0.05, tau, None, Draw::Langevin { steps: 100, rate: tau * tau, decay: 0.01 })
                };
                let grid = Grid::Karras { min, max: level(1.0), rho: 7.0 };
                Box::new(Daps { steps, grid, ode_steps: 2, tau, error, draw })
            }
        }
    }
}
