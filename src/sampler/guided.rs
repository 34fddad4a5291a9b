//! The guided sampler: denoise, bring the estimate into agreement with the data, step to the next noise level.

use crate::error::{Error, Result};
use crate::prior::schedule::Grid;
use crate::sampler::dps::start;
use crate::sampler::stepper::Levels;
use crate::sampler::{AdmmTv, Consistency, NoiseFrom, Problem, Sampler, State, Stepper};
use crate::tensor::random::Noise;
use crate::tensor::{Workspace, vector};

/// Denoise, data step, step: DDS, DiffPIR, DDNM and plain sampling differ only in the two parts in the middle.
/// Plain sampling with DPM-Solver++(2M) by default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guided {
    /// The noise levels.
    pub grid: Grid,
    /// Steps.
    pub steps: usize,
    /// How x goes to the next level.
    pub stepper: Stepper,
    /// How the denoised images are brought into agreement with the data.
    pub consistency: Consistency,
    /// Clamp the denoised images to the prior's data range, where they are real.
    pub clip: bool,
    /// A last denoising at this level, after the last data step: noise that the data step has let in goes, for images in
    /// which noise is no part of the truth.
    pub last: Option<f64>,
    /// Show the prior the images as they are, mirrored along one of their last two axes, the other, and both, in turn from
    /// step to step: a mirrored image is as likely, and what the prior errs at differently averages out (Terris et al.
    /// 2312.01831).
    pub mirrored: bool,
}

impl Default for Guided {
    fn default() -> Self {
        Self {
            grid: Grid::Karras { min: 0.002, max: 80.0, rho: 7.0 },
            steps: 25,
            stepper: Stepper::DpmPlusPlus { order: 2 },
            consistency: Consistency::None,
            clip: false,
            last: None,
            mirrored: false,
        }
    }
}

impl Guided {
    /// DDS for single images (Chung et al. 2303.05754): 50 steps, 5 conjugate-gradient iterations with γ = 0.95
    /// (‖A‖ = 1), η = 0.85.
    pub fn dds() -> Self {
        Self {
            grid: Grid::default(),
            steps: 50,
            stepper: Stepper::Ddim { eta: 0.85, noise: NoiseFrom::Network },
            consistency: Consistency::Proximal { gamma: 0.95, iterations: 5 },
            ..Self::default()
        }
    }

    /// DDS for volumes: the same with one ADMM iteration of total variation across the slices.
    pub fn dds_volume(admm: AdmmTv) -> Self {
        Self { consistency: Consistency::AdmmTv(admm), ..Self::dds() }
    }

    /// Plug and play: the denoiser and the data take turns over falling noise levels from `level` down, without noise
    /// (Zhang et al. 2008.13751). One image, not a sample of the posterior; for uncertainty take
    /// [`Guided::noise_aware`].
    pub fn plug_and_play(level: f64, error: f64) -> Self {
        Self {
            grid: Grid::Karras { min: 0.02, max: level, rho: 7.0 },
            steps: 15,
            stepper: Stepper::PlugAndPlay,
            consistency: Consistency::Learned { error, iterations: 20 },
            clip: true,
            ..Self::default()
        }
    }

    /// Plug and play with fresh noise in front of every denoising, down from `level`: stochastic denoising regularisation
    /// (Renaud et al. 2402.01779), by half-quadratic splitting as in [`Guided::plug_and_play`]. The denoiser always sees what
    /// it was trained on, images with white noise, so that it can begin at pure noise and many steps help where data are
    /// few. Where the denoiser is linear its mean is the image of plug and play. Runs scatter less than the posterior:
    /// their mean is an estimate, their spread no uncertainty.
    pub fn snore(level: f64, error: f64) -> Self {
        Self {
            steps: 100,
            stepper: Stepper::Ddim { eta: 1.0, noise: NoiseFrom::Corrected },
            ..Self::plug_and_play(level, error)
        }
    }

    /// DDS with the weight of the data that their noise asks for, rather than a fixed γ.
    pub fn noise_aware(level: f64, error: f64) -> Self {
        Self {
            grid: Grid::Karras { min: 0.02, max: level, rho: 7.0 },
            consistency: Consistency::Learned { error, iterations: 20 },
            clip: true,
            ..Self::dds()
        }
    }

    /// DiffPIR (Zhu et al. 2305.08995): weight λ of the prior (7 is a good start), share ζ of fresh noise (0.3).
    pub fn diffpir(lambda: f64, zeta: f64) -> Self {
        Self {
            stepper: Stepper::Ddim { eta: zeta.sqrt(), noise: NoiseFrom::Corrected },
            consistency: Consistency::DiffPir { lambda, iterations: 10 },
            ..Self::dds()
        }
    }

    /// DDNM (Wang et al. 2212.00490), for data without noise.
    pub fn ddnm() -> Self {
        Self { consistency: Consistency::NullSpace { iterations: 30, tolerance: 1e-4 }, ..Self::dds() }
    }

    /// Whether nothing of the noise of a step is left in the next.
    fn renoises(&self) -> bool {
        matches!(self.stepper, Stepper::Ddim { eta, .. } if eta == 1.0)
    }

    /// The axes of an image along which the prior sees it mirrored in a step.
    fn mirrored_axes(&self, problem: &Problem<'_>, step: usize) -> Vec<usize> {
        let rank = problem.image_space().shape().len();
        if !self.mirrored || rank < 2 {
            return Vec::new();
        }
        (0..2).filter(|bit| step >> bit & 1 == 1).map(|bit| rank - 1 - bit).collect()
    }
}

impl Sampler for Guided {
    fn name(&self) -> &'static str {
        match self.consistency {
            _ if self.stepper == Stepper::PlugAndPlay => "pnp",
            Consistency::None => "unconditional",
            Consistency::Learned { .. } | Consistency::Volume { .. } if self.renoises() => "snore",
            Consistency::DiffPir { .. } => "diffpir",
            Consistency::NullSpace { .. } => "ddnm",
            _ => "dds",
        }
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn init(&self, problem: &Problem<'_>, seed: u64) -> Result<State> {
        let sigmas = self.grid.sigmas(self.steps)?;
        self.stepper.check()?;
        if let Some(sigma) = self.last.filter(|sigma| !(*sigma > 0.0 && sigma.is_finite())) {
            return Err(Error::parameter("last noise level", sigma, "must be positive"));
        }
        self.consistency.check(problem)?;
        let more = [&["network"], self.stepper.arrays(), self.consistency.arrays()].concat();
        start(problem, sigmas[0], seed, &more)
    }

    fn step(&self, problem: &Problem<'_>, state: &mut State, ws: &mut Workspace) -> Result<f64> {
        let sigmas = self.grid.sigmas(self.steps)?;
        let i = state.iteration;
        let before = |back: usize| if i >= back { sigmas[i - back] } else { f64::NAN };
        let levels = Levels {
            sigma: sigmas[i],
            next: sigmas[i + 1],
            before: [before(1), before(2), before(3)],
            steps_left: self.steps - 1 - i,
        };
        let [x, estimate, network] = state.many(["x", "estimate", "network"]);
        problem.denoise_mirrored_into(x.tensor(), levels.sigma, &self.mirrored_axes(problem, i), network)?;
        if self.clip {
            problem.clamp(network)?;
        }
        vector::copy(network.tensor(), estimate)?;
        self.consistency.apply(problem, levels.sigma, state, ws)?;
        let noise = Noise::new(state.seed, super::state::STEPS).at(i as u32);
        // Inner calls of singlestep methods see the prior alone: the data step belongs to the outer loop.
        let mut denoise = |x: &candle_core::Tensor, sigma: f64, out: &mut crate::tensor::Buffer| {
            problem.denoise_into(x, sigma, out)
        };
        self.stepper.step(levels, noise, state, &mut denoise, ws)?;
        if let Some(sigma) = self.last.filter(|_| levels.steps_left == 0) {
            let [x, estimate] = state.many(["x", "estimate"]);
            problem.denoise_into(estimate.tensor(), sigma, x)?;
            vector::copy(x.tensor(), estimate)?;
        }
        Ok(levels.next)
    }
}
