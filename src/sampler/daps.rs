//! Decoupled annealing posterior sampling.

use crate::error::{Error, Result};
use crate::linalg::{ConjugateGradient, LinearOperator};
use crate::prior::schedule::Grid;
use crate::sampler::consistency::Shifted;
use crate::sampler::dps::start;
use crate::sampler::state::{INNER, STEPS};
use crate::sampler::{Problem, Sampler, State};
use crate::tensor::random::{Noise, normal};
use crate::tensor::{Workspace, vector};

/// DAPS (Zhang et al. 2407.01521, alg. 1): at each of falling noise levels, a few steps of the probability-flow
/// ODE give x̂₀; x₀ is then drawn from exp(−‖y − A x₀‖²/(2τ²) − ‖x₀ − x̂₀‖²/(2r²)) and noised to the next level.
/// No call of the network backwards. A is expected with ‖A‖ ≈ 1.
///
/// The paper's r is σ. That is too wide where the noise is high, and the next level then has more noise than the network
/// is told, which draws in full can't recover from: the paper's own take too few Langevin steps to get that far. Either way
/// the samples approximate the posterior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Daps {
    /// Annealing levels; 200 in the paper.
    pub steps: usize,
    /// The levels, 100 → 0.1 with exponent 7.
    pub grid: Grid,
    /// Steps of the ODE at each level.
    pub ode_steps: usize,
    /// τ, the width of the likelihood; at least the noise of the data.
    pub tau: f64,
    /// r² = e²σ with this e, the error of a denoised image at σ = 1, and at most σ² (as
    /// [`crate::sampler::Consistency::Learned`]); `None` is the paper's r = σ.
    pub error: Option<f64>,
    /// How x₀ is drawn.
    pub draw: Draw,
}

/// How DAPS draws x₀ given x̂₀ and y.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Draw {
    /// Langevin steps of falling size, as in the paper; for any operator.
    Langevin {
        /// Steps.
        steps: usize,
        /// First step size; must be below 2τ². It falls to `decay` times this over the levels.
        rate: f64,
        /// Last step size relative to the first.
        decay: f64,
    },
    /// An exact draw for a linear operator, by perturbed data and conjugate gradients.
    Exact {
        /// Conjugate-gradient iterations.
        iterations: usize,
    },
}

impl Default for Daps {
    fn default() -> Self {
        Self {
            steps: 200,
            grid: Grid::Karras { min: 0.1, max: 100.0, rho: 7.0 },
            ode_steps: 5,
            tau: 0.01,
            error: None,
            draw: Draw::Exact { iterations: 15 },
        }
    }
}

impl Daps {
    /// The Langevin draw of the paper: 100 steps of 1e-4, falling to a hundredth.
    pub fn langevin() -> Self {
        Self { draw: Draw::Langevin { steps: 100, rate: 1e-4, decay: 0.01 }, ..Self::default() }
    }
}

impl Sampler for Daps {
    fn name(&self) -> &'static str {
        "daps"
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn init(&self, problem: &Problem<'_>, seed: u64) -> Result<State> {
        match self.draw {
            Draw::Exact { .. } => problem.measurement().map(|_| ())?,
            Draw::Langevin { .. } => problem.misfit().map(|_| ())?,
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.tau) || !self.error.is_none_or(positive) || self.ode_steps == 0 {
            let found = format!("tau {}, error {:?}, ODE steps {}", self.tau, self.error, self.ode_steps);
            return Err(Error::parameter("DAPS", found, "all must be positive"));
        }
        start(problem, self.grid.sigmas(self.steps)?[0], seed, &["network", "gradient"])
    }

    fn step(&self, problem: &Problem<'_>, state: &mut State, ws: &mut Workspace) -> Result<f64> {
        let sigmas = self.grid.sigmas(self.steps)?;
        let (i, sigma, next) = (state.iteration, sigmas[state.iteration], sigmas[state.iteration + 1]);
        self.flow(problem, sigma, state)?;
        let noise = Noise::new(state.seed, INNER).at(i as u32);
        let spread = self.error.map_or(sigma, |error| (error * sigma.sqrt()).min(sigma));
        match self.draw {
            Draw::Exact { iterations } => self.exact(problem, spread, iterations, noise, state, ws)?,
            Draw::Langevin { steps, rate, decay } => {
                let rate = rate * decay.powf(i as f64 / (self.steps.max(2) - 1) as f64);
                self.langevin_steps(problem, spread, steps, rate, state, ws)?;
            }
        }
        let [x, estimate] = state.many(["x", "estimate"]);
        normal(Noise::new(noise.seed, STEPS).at(i as u32), x)?;
        vector::accumulate(next, &[(1.0, estimate.tensor())], x)?;
        Ok(next)
    }
}

impl Daps {
    /// x̂₀ by Euler steps of the probability-flow ODE from σ down to 0; the estimate holds the last denoised image.
    fn flow(&self, problem: &Problem<'_>, sigma: f64, state: &mut State) -> Result<()> {
        let low = (0.1 * sigma).min(0.01);
        let levels = match self.ode_steps {
            1 => vec![sigma, 0.0],
            n => Grid::Karras { min: low, max: sigma, rho: 7.0 }.sigmas(n)?,
        };
        let [x, estimate] = state.many(["x", "estimate"]);
        for pair in levels.windows(2) {
            problem.denoise_into(x.tensor(), pair[0], estimate)?;
            let keep = pair[1] / pair[0];
            vector::accumulate(keep, &[(1.0 - keep, estimate.tensor())], x)?;
        }
        Ok(())
    }

    /// argmin ‖A x − y − τ n₁‖²/τ² + ‖x − x̂₀ − r n₂‖²/r², which is distributed as wanted (Papandreou and Yuille 2010).
    fn exact(
        &self,
        problem: &Problem<'_>,
        spread: f64,
        iterations: usize,
        noise: Noise,
        state: &mut State,
        ws: &mut Workspace,
    ) -> Result<()> {
        let (a, y) = problem.measurement()?;
        let [estimate, moved] = state.many(["estimate", "gradient"]);
        let mut data = ws.take(a.range(), problem.batch())?;
        normal(noise, &mut data)?;
        vector::accumulate(self.tau, &[(1.0, y)], &mut data)?;
        normal(Noise { stream: INNER + 1, ..noise }, moved)?;
        vector::accumulate(spread, &[(1.0, estimate.tensor())], moved)?;
        let keep = (self.tau / spread).powi(2);
        let mut right = ws.take(a.domain(), problem.batch())?;
        a.adjoint_into(data.tensor(), &mut right, ws)?;
        vector::accumulate(1.0, &[(keep, moved.tensor())], &mut right)?;
        let solver = ConjugateGradient { max_iterations: iterations, tolerance: 1e-6 };
        let system = Shifted { a: &a, keep, data: 1.0 };
        let drawn = solver.solve(&system, right.tensor(), Some(moved.tensor()), &mut ())?;
        ws.give(data);
        ws.give(right);
        vector::copy(&drawn.value, estimate)
    }

    fn langevin_steps(
        &self,
        problem: &Problem<'_>,
        spread: f64,
        steps: usize,
        rate: f64,
        state: &mut State,
        ws: &mut Workspace,
    ) -> Result<()> {
        let misfit = problem.misfit()?;
        let (seed, level) = (state.seed, state.iteration);
        let [estimate, center, gradient] = state.many(["estimate", "network", "gradient"]);
        vector::copy(estimate.tensor(), center)?;
        let mut z = ws.take(&problem.image_space(), problem.batch())?;
        let (to_data, to_center) = (rate / (self.tau * self.tau), rate / (spread * spread));
        for k in 0..steps {
            misfit.gradient_into(estimate.tensor(), problem.items(), gradient, ws)?;
            normal(Noise::new(seed, INNER).at((level * steps + k) as u32), &mut z)?;
            let terms = [
                (-to_data, gradient.tensor()),
                (to_center, center.tensor()),
                ((2.0 * rate).sqrt(), z.tensor()),
            ];
            vector::accumulate(1.0 - to_center, &terms, estimate)?;
        }
        ws.give(z);
        Ok(())
    }
}
