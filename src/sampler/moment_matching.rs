//! Moment matching posterior sampling.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::prior::Pullback;
use crate::prior::schedule::Grid;
use crate::sampler::dps::{ancestral, start};
use crate::sampler::state::STEPS;
use crate::sampler::{Consistency, Problem, Sampler, State};
use crate::tensor::random::Noise;
use crate::tensor::{Buffer, Workspace, vector};

/// MMPS (Rozet et al. 2405.13712, alg. 2 and 3): x₀ given x is taken as N(D(x), C) with the covariance that Tweedie's formula
/// gives, C = σ² J with J the Jacobian of the denoiser, so that
/// E[x₀ | x, y] = D(x) + C Aᴴ (noise² + A C Aᴴ)⁻¹ (y − A D(x)). A few conjugate-gradient iterations, each a product with J
/// through the network, solve for the data's part; an ancestral step follows.
///
/// What the data say spreads along what the prior thinks uncertain, not evenly along the rays as with an isotropic C
/// ([`crate::sampler::PiGdm`]): with few data that is worth the products. For a Gaussian prior of any covariance the samples have
/// the posterior's mean and covariance as steps and iterations grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MomentMatching {
    /// Steps.
    pub steps: usize,
    /// Conjugate-gradient iterations, each a gradient through the network.
    pub iterations: usize,
    /// A data step behind them, for what they leave of the residual; [`Consistency::None`] in the paper.
    pub rest: Consistency,
    /// Clamp the estimates to the prior's data range, where they are real.
    pub clip: bool,
    /// The noise levels.
    pub grid: Grid,
}

impl Default for MomentMatching {
    fn default() -> Self {
        Self { steps: 100, iterations: 3, rest: Consistency::None, clip: false, grid: Grid::default() }
    }
}

impl Sampler for MomentMatching {
    fn name(&self) -> &'static str {
        "mmps"
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn init(&self, problem: &Problem<'_>, seed: u64) -> Result<State> {
        problem.measurement()?;
        if self.iterations == 0 {
            return Err(Error::parameter("iterations", 0, "at least one is needed"));
        }
        self.rest.check(problem)?;
        start(problem, self.grid.sigmas(self.steps)?[0], seed, self.rest.arrays())
    }

    fn step(&self, problem: &Problem<'_>, state: &mut State, ws: &mut Workspace) -> Result<f64> {
        let sigmas = self.grid.sigmas(self.steps)?;
        let (sigma, next) = (sigmas[state.iteration], sigmas[state.iteration + 1]);
        let noise = Noise::new(state.seed, STEPS).at(state.iteration as u32);
        let [x, estimate] = state.many(["x", "estimate"]);
        let mut correct = |first: usize, denoised: &Tensor, pullback: &Pullback| {
            self.corrected(problem, sigma, first, denoised, pullback)
        };
        problem.denoise_and_correct(x.tensor(), sigma, &mut correct, estimate)?;
        self.rest.apply(problem, sigma, state, ws)?;
        let [x, estimate] = state.many(["x", "estimate"]);
        if self.clip {
            problem.clamp(estimate)?;
        }
        ancestral(sigma, next, noise, x, estimate, ws)?;
        Ok(next)
    }
}

impl MomentMatching {
    /// d + C Aᴴ v with (noise² + A C Aᴴ) v = y − A d by conjugate gradients from v = 0. J is symmetric in theory, and nearly so in
    /// a network: an image whose curvature is not positive is left as it is.
    fn corrected(
        &self,
        problem: &Problem<'_>,
        sigma: f64,
        first: usize,
        denoised: &Tensor,
        pullback: &Pullback,
    ) -> Result<Tensor> {
        let count = denoised.dim(0)?;
        let (a, data) = problem.part(first, count)?;
        let (variance, noise) = (sigma * sigma, problem.noise().powi(2));
        let mut estimate = Buffer::copy_of(denoised)?;
        let mut residual = Buffer::copy_of(&data)?;
        vector::accumulate(1.0, &[(-1.0, &a.apply(denoised)?)], &mut residual)?;
        let mut direction = Buffer::copy_of(residual.tensor())?;
        let mut squared = vector::inner(residual.tensor(), residual.tensor(), count)?;
        let ones = vec![1.0; count];
        for _ in 0..self.iterations {
            let spread = pullback.pull(&a.adjoint(direction.tensor())?)?;
            let mut image = Buffer::copy_of(direction.tensor())?;
            vector::accumulate(noise, &[(variance, &a.apply(&spread)?)], &mut image)?;
            let curvature = vector::inner(direction.tensor(), image.tensor(), count)?;
            let step = ratios(&squared, &curvature);
            let scaled: Vec<f64> = step.iter().map(|s| s * variance).collect();
            vector::axpby_items(&scaled, &spread, &ones, &mut estimate)?;
            let back: Vec<f64> = step.iter().map(|s| -s).collect();
            vector::axpby_items(&back, image.tensor(), &ones, &mut residual)?;
            let now = vector::inner(residual.tensor(), residual.tensor(), count)?;
            vector::axpby_items(&ones, residual.tensor(), &ratios(&now, &squared), &mut direction)?;
            squared = now;
        }
        Ok(estimate.freeze())
    }
}

/// Item by item a/b, and 0 where b is not positive.
fn ratios(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| if *b > 0.0 { a / b } else { 0.0 }).collect()
}
