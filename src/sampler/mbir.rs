//! DiffusionMBIR: predictor–corrector sampling with a data step on the noisy volume.

use crate::error::Result;
use crate::prior::schedule::Sde;
use crate::sampler::dps::start;
use crate::sampler::score_sde::langevin;
use crate::sampler::state::{CORRECTOR, STEPS};
use crate::sampler::{AdmmTv, Problem, Sampler, State};
use crate::tensor::random::{Noise, normal};
use crate::tensor::{Workspace, vector};

/// DiffusionMBIR (Chung et al. 2211.10655, alg. 1) for volumes with a 2-D prior: at each level a reverse-diffusion
/// predictor, a Langevin corrector, and one ADMM iteration with the data and the total variation across slices
/// on the whole noisy volume. [`crate::sampler::Guided::dds_volume`] does the same on the denoised volume in a
/// fraction of the calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiffusionMbir {
    /// Noise levels; 2000 in the paper, with two network calls each.
    pub steps: usize,
    /// The range of noise levels, a VE process (.01–378 in the paper).
    pub sde: Sde,
    /// Signal-to-noise ratio of the corrector.
    pub snr: f64,
    /// The data step.
    pub admm: AdmmTv,
}

impl DiffusionMbir {
    /// The published settings, with weights for an exact adjoint.
    pub fn new(admm: AdmmTv) -> Self {
        Self { steps: 2000, sde: Sde::MBIR, snr: 0.16, admm }
    }

    /// σ(t) on an even grid of t, from 1 down; 0 after the last step.
    fn level(&self, i: usize) -> f64 {
        if i >= self.steps {
            return 0.0;
        }
        self.sde.sigma(1.0 - i as f64 / self.steps.max(2).saturating_sub(1) as f64)
    }
}

impl Sampler for DiffusionMbir {
    fn name(&self) -> &'static str {
        "mbir"
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn init(&self, problem: &Problem<'_>, seed: u64) -> Result<State> {
        problem.measurement()?;
        start(problem, self.level(0), seed, &["split", "dual"])
    }

    fn step(&self, problem: &Problem<'_>, state: &mut State, ws: &mut Workspace) -> Result<f64> {
        let (sigma, next) = (self.level(state.iteration), self.level(state.iteration + 1));
        let at = state.iteration as u32;
        let seed = state.seed;
        let [x, estimate, split, dual] = state.many(["x", "estimate", "split", "dual"]);
        problem.denoise_into(x.tensor(), sigma, estimate)?;
        // x + (σ² − σ'²) s + √(σ² − σ'²) z, s = (D − x)/σ².
        let fall = 1.0 - (next / sigma).powi(2);
        let mut z = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
        normal(Noise::new(seed, STEPS).at(at), &mut z)?;
        let spread = if next > 0.0 { sigma * fall.sqrt() } else { 0.0 };
        vector::accumulate(1.0 - fall, &[(fall, estimate.tensor()), (spread, z.tensor())], x)?;
        ws.give(z);
        if next > 0.0 {
            problem.denoise_into(x.tensor(), next, estimate)?;
            let marginal = (1.0, next);
            langevin(problem, marginal, self.snr, Noise::new(seed, CORRECTOR).at(at), x, estimate, ws)?;
        }
        self.admm.step(problem, 0.0, x, split, dual, ws)?;
        if next == 0.0 {
            vector::copy(x.tensor(), estimate)?;
        }
        Ok(next)
    }
}
