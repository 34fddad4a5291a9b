//! Diffusion posterior sampling.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::prior::schedule::Grid;
use crate::sampler::state::{START, STEPS};
use crate::sampler::{Problem, Sampler, State};
use crate::tensor::random::{Noise, normal};
use crate::tensor::{Buffer, Workspace, vector};

/// DPS (Chung et al. 2209.14687, alg. 1): the ancestral step, then −ζ ∇‖y − A x̂₀(x)‖ through the network. The
/// gradient is that of the norm, not of its square, and the norm is each item's own.
///
/// An approximation: it follows the gradient of a likelihood that ignores the spread of x₀ given x, so that its
/// samples scatter less or more than the posterior. For uncertainty take [`crate::sampler::PiGdm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dps {
    /// Steps; 1000 in the paper.
    pub steps: usize,
    /// Step size ζ, useful between 0.1 and 1, in the variance-preserving units of the paper.
    pub zeta: f64,
    /// Clamp x̂₀ to the prior's range in the ancestral step.
    pub clip: bool,
    /// The noise levels.
    pub grid: Grid,
}

impl Default for Dps {
    fn default() -> Self {
        Self { steps: 1000, zeta: 0.5, clip: true, grid: Grid::default() }
    }
}

impl Sampler for Dps {
    fn name(&self) -> &'static str {
        "dps"
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn init(&self, problem: &Problem<'_>, seed: u64) -> Result<State> {
        problem.misfit()?;
        if !self.zeta.is_finite() || self.zeta < 0.0 {
            return Err(Error::parameter("zeta", self.zeta, "a step size is at least 0"));
        }
        start(problem, self.grid.sigmas(self.steps)?[0], seed, &["gradient"])
    }

    fn step(&self, problem: &Problem<'_>, state: &mut State, ws: &mut Workspace) -> Result<f64> {
        let sigmas = self.grid.sigmas(self.steps)?;
        let (sigma, next) = (sigmas[state.iteration], sigmas[state.iteration + 1]);
        let noise = Noise::new(state.seed, STEPS).at(state.iteration as u32);
        let [x, estimate, gradient] = state.many(["x", "estimate", "gradient"]);
        let mut toward_data = |first: usize, denoised: &Tensor| unit_residual(problem, first, denoised);
        problem.denoise_and_pull(x.tensor(), sigma, &mut toward_data, estimate, gradient)?;
        if self.clip {
            problem.clamp(estimate)?;
        }
        ancestral(sigma, next, noise, x, estimate, ws)?;
        // The paper's step acts on x_vp = x/√(1+σ²); the gradient with respect to x_vp is √(1+σ²) times ours.
        let step = self.zeta * ((1.0 + sigma * sigma) * (1.0 + next * next)).sqrt();
        vector::accumulate(1.0, &[(-step, gradient.tensor())], x)?;
        Ok(next)
    }
}

/// A state with x = start + σ n, the estimate (that of the start), and more arrays of zeros.
pub(super) fn start(problem: &Problem<'_>, sigma: f64, seed: u64, more: &[&'static str]) -> Result<State> {
    let mut x = problem.buffer()?;
    normal(Noise::new(seed, START), &mut x)?;
    let mut estimate = problem.buffer()?;
    match problem.start() {
        None => vector::accumulate(sigma, &[], &mut x)?,
        Some(start) => {
            vector::accumulate(sigma, &[(1.0, start)], &mut x)?;
            estimate.copy_from(start)?;
        }
    }
    let mut buffers = vec![("x", x), ("estimate", estimate)];
    for name in more {
        buffers.push((*name, problem.buffer()?));
    }
    Ok(State::new(seed, buffers))
}

/// x ← x̂₀ + (σ'/σ)²(x − x̂₀) + σ' √(1 − (σ'/σ)²) z: the exact step given x₀ = x̂₀.
pub(super) fn ancestral(
    sigma: f64,
    next: f64,
    noise: Noise,
    x: &mut Buffer,
    estimate: &Buffer,
    ws: &mut Workspace,
) -> Result<()> {
    let keep = (next / sigma).powi(2);
    let mut z = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
    normal(noise, &mut z)?;
    let spread = next * (1.0 - keep).max(0.0).sqrt();
    vector::accumulate(keep, &[(1.0 - keep, estimate.tensor()), (spread, z.tensor())], x)?;
    ws.give(z);
    Ok(())
}

/// Jᴴ(A(d) − y)/‖A(d) − y‖, item by item: the gradient of the norm with respect to the denoised images.
fn unit_residual(problem: &Problem<'_>, first: usize, denoised: &Tensor) -> Result<Tensor> {
    let count = denoised.dim(0)?;
    let mut gradient = problem.image_space().buffer(&[count])?;
    let misfit = problem.misfit_of(first, count)?;
    let sizes = misfit.gradient_into(denoised, count, &mut gradient, &mut Workspace::new())?;
    let unit: Vec<f64> = sizes.iter().map(|n| if *n > 0.0 { 1.0 / n } else { 0.0 }).collect();
    let unscaled = gradient.tensor().copy()?;
    vector::axpby_items(&unit, &unscaled, &vec![0.0; count], &mut gradient)?;
    Ok(gradient.freeze())
}
