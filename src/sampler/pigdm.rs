//! Pseudo-inverse guided diffusion.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::{ConjugateGradient, LinearOperator};
use crate::prior::schedule::Grid;
use crate::sampler::consistency::Shifted;
use crate::sampler::dps::{ancestral, start};
use crate::sampler::state::STEPS;
use crate::sampler::{Problem, Sampler, State};
use crate::tensor::random::Noise;
use crate::tensor::{Buffer, Workspace, vector};

/// ΠGDM (Song et al., ICLR 2023, eq. 7): x₀ given x is taken as N(x̂₀, r² I) with r² = s²σ²/(s²+σ²), so that
/// ∇ log p(y | x) = Jᵀ Aᴴ (r² A Aᴴ + noise²)⁻¹ (y − A x̂₀). The posterior mean x̂₀ + σ² ∇ log p(y | x) then takes an
/// ancestral step.
///
/// For a prior N(0, s² I) this is exact as the number of steps grows, and the samples have the posterior's mean
/// and covariance; for other priors the error is that of the isotropic r².
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PiGdm {
    /// Steps.
    pub steps: usize,
    /// s, the standard deviation of the clean data in the prior's units.
    pub spread: f64,
    /// Conjugate-gradient iterations at most.
    pub iterations: usize,
    /// Relative residual at which they stop.
    pub tolerance: f64,
    /// The noise levels.
    pub grid: Grid,
}

impl Default for PiGdm {
    fn default() -> Self {
        Self { steps: 100, spread: 1.0, iterations: 30, tolerance: 1e-4, grid: Grid::default() }
    }
}

impl Sampler for PiGdm {
    fn name(&self) -> &'static str {
        "pigdm"
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn init(&self, problem: &Problem<'_>, seed: u64) -> Result<State> {
        problem.measurement()?;
        if !self.spread.is_finite() || self.spread <= 0.0 {
            return Err(Error::parameter("spread", self.spread, "a standard deviation must be positive"));
        }
        start(problem, self.grid.sigmas(self.steps)?[0], seed, &["gradient"])
    }

    fn step(&self, problem: &Problem<'_>, state: &mut State, ws: &mut Workspace) -> Result<f64> {
        let sigmas = self.grid.sigmas(self.steps)?;
        let (sigma, next) = (sigmas[state.iteration], sigmas[state.iteration + 1]);
        let noise = Noise::new(state.seed, STEPS).at(state.iteration as u32);
        let [x, estimate, gradient] = state.many(["x", "estimate", "gradient"]);
        let mut toward_data =
            |first: usize, denoised: &Tensor| self.cotangent(problem, sigma, first, denoised);
        problem.denoise_and_pull(x.tensor(), sigma, &mut toward_data, estimate, gradient)?;
        vector::accumulate(1.0, &[(sigma * sigma, gradient.tensor())], estimate)?;
        ancestral(sigma, next, noise, x, estimate, ws)?;
        Ok(next)
    }
}

impl PiGdm {
    /// Aᴴ (r² A Aᴴ + noise²)⁻¹ (y − A d) = (r² AᴴA + noise²)⁻¹ Aᴴ(y − A d).
    fn cotangent(
        &self,
        problem: &Problem<'_>,
        sigma: f64,
        first: usize,
        denoised: &Tensor,
    ) -> Result<Tensor> {
        let (a, data) = problem.part(first, denoised.dim(0)?)?;
        let variance = (self.spread * sigma).powi(2) / (self.spread.powi(2) + sigma * sigma);
        let mut residual = Buffer::copy_of(&data)?;
        vector::accumulate(1.0, &[(-1.0, &a.apply(denoised)?)], &mut residual)?;
        let right = a.adjoint(residual.tensor())?;
        let solver = ConjugateGradient { max_iterations: self.iterations, tolerance: self.tolerance };
        let system = Shifted { a: &a, keep: problem.noise().powi(2), data: variance };
        Ok(solver.solve(&system, &right, None, &mut ())?.value)
    }
}
