//! Predictor–corrector sampling of the score SDEs.

use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::prior::schedule::Sde;
use crate::sampler::state::{CORRECTOR, INNER, START, STEPS};
use crate::sampler::{Problem, Sampler, State};
use crate::tensor::random::{Noise, normal};
use crate::tensor::{Buffer, Workspace, vector};

/// One step of reverse time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predictor {
    /// x − (f x − g² s) Δt + g √Δt z.
    EulerMaruyama,
    /// The reverse of the forward discretisation (Song et al., appendix E).
    ReverseDiffusion,
    /// The ancestral step of SMLD (VE) and DDPM (VP, sub-VP).
    Ancestral,
    /// No predictor: corrector alone.
    None,
}

/// Langevin steps at a fixed noise level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Corrector {
    /// No corrector.
    None,
    /// Step size 2 (snr ‖z‖/‖s‖)², each item's own norms (alg. 4 and 5).
    Langevin {
        /// Signal-to-noise ratio; 0.16 for VE.
        snr: f64,
        /// Steps at each level.
        steps: usize,
    },
    /// Annealed: step size 2 (snr · std)².
    Annealed {
        /// Signal-to-noise ratio.
        snr: f64,
        /// Steps at each level.
        steps: usize,
    },
}

/// The samplers of Song et al. (2011.13456): corrector, then predictor, over even steps of t from 1 to the SDE's
/// end; the last step returns the mean. With data, known values are replaced after every move by freshly noised
/// ones (inpainting, colourisation): for operators with A Aᴴ = I.
///
/// The arrays of the state are x_t itself, not x_t/scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreSde {
    /// The process.
    pub sde: Sde,
    /// The predictor.
    pub predictor: Predictor,
    /// The corrector.
    pub corrector: Corrector,
    /// Steps of t.
    pub steps: usize,
}

impl Default for ScoreSde {
    fn default() -> Self {
        Self { sde: Sde::VP, predictor: Predictor::ReverseDiffusion, corrector: Corrector::None, steps: 1000 }
    }
}

impl ScoreSde {
    fn time(&self, i: usize) -> f64 {
        let part = i as f64 / self.steps as f64;
        1.0 + part * (self.sde.end() - 1.0)
    }

    /// Replaces what the data know: x ← x + Aᴴ(scale·y + std·A z − A x).
    fn replace(
        &self,
        problem: &Problem<'_>,
        t: f64,
        noise: Noise,
        x: &mut Buffer,
        ws: &mut Workspace,
    ) -> Result<()> {
        if !problem.is_conditional() {
            return Ok(());
        }
        let (a, y) = problem.measurement()?;
        let (scale, std) = self.sde.marginal(t);
        let mut z = ws.take(a.domain(), problem.batch())?;
        normal(noise, &mut z)?;
        vector::accumulate(std, &[(-1.0, x.tensor())], &mut z)?;
        let mut data = ws.take(a.range(), problem.batch())?;
        a.apply_into(z.tensor(), &mut data, ws)?;
        vector::accumulate(1.0, &[(scale, y)], &mut data)?;
        a.adjoint_into(data.tensor(), &mut z, ws)?;
        vector::accumulate(1.0, &[(1.0, z.tensor())], x)?;
        ws.give(z);
        ws.give(data);
        Ok(())
    }

    /// Coefficients of x ← p x + q s + r z at time t for the step down to `next`.
    fn coefficients(&self, t: f64, next: f64) -> (f64, f64, f64) {
        let gap = t - next;
        let (f, g2) = (self.sde.drift(t), self.sde.diffusion_squared(t));
        let (_, std) = self.sde.marginal(t);
        let (_, lower) = self.sde.marginal(next);
        let beta = match self.sde {
            Sde::Ve { .. } => 0.0,
            Sde::Vp { .. } | Sde::SubVp { .. } => -2.0 * f * gap,
        };
        match (self.predictor, self.sde) {
            (Predictor::None, _) => (1.0, 0.0, 0.0),
            (Predictor::ReverseDiffusion, Sde::Ve { .. }) => {
                let fall = std * std - lower * lower;
                (1.0, fall, fall.sqrt())
            }
            (Predictor::ReverseDiffusion, Sde::Vp { .. }) => (2.0 - (1.0 - beta).sqrt(), beta, beta.sqrt()),
            (Predictor::Ancestral, Sde::Ve { .. }) => {
                let fall = std * std - lower * lower;
                (1.0, fall, lower / std * fall.sqrt())
            }
            (Predictor::Ancestral, Sde::Vp { .. }) => {
                let grow = 1.0 / (1.0 - beta).sqrt();
                (grow, beta * grow, beta.sqrt())
            }
            _ => (1.0 - f * gap, g2 * gap, (g2 * gap).sqrt()),
        }
    }
}

/// D in terms of x_t: estimate ← D(x_t/scale, std/scale). The score is then (scale·estimate − x_t)/std².
fn denoise(
    problem: &Problem<'_>,
    marginal: (f64, f64),
    x: &Buffer,
    estimate: &mut Buffer,
    ws: &mut Workspace,
) -> Result<()> {
    let (scale, std) = marginal;
    let mut unscaled = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
    vector::lincomb(&[(1.0 / scale, x.tensor())], &mut unscaled)?;
    problem.denoise_into(unscaled.tensor(), std / scale, estimate)?;
    ws.give(unscaled);
    Ok(())
}

/// One Langevin step x ← x + step·s + √(2 step) z with step = 2 (snr ‖z‖/‖s‖)², item by item; `estimate` holds the
/// denoised images at this level.
pub(super) fn langevin(
    problem: &Problem<'_>,
    (scale, std): (f64, f64),
    snr: f64,
    noise: Noise,
    x: &mut Buffer,
    estimate: &Buffer,
    ws: &mut Workspace,
) -> Result<()> {
    let items = problem.items();
    let mut z = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
    let mut score = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
    normal(noise, &mut z)?;
    let inverse = 1.0 / (std * std);
    vector::lincomb(&[(scale * inverse, estimate.tensor()), (-inverse, x.tensor())], &mut score)?;
    let (sizes, scores) = (vector::norm(z.tensor(), items)?, vector::norm(score.tensor(), items)?);
    let steps: Vec<f64> = sizes
        .iter()
        .zip(&scores)
        .map(|(z, s)| if *s > 0.0 { 2.0 * (snr * z / s).powi(2) } else { 0.0 })
        .collect();
    let spread: Vec<f64> = steps.iter().map(|step| (2.0 * step).sqrt()).collect();
    let ones = vec![1.0; items];
    vector::axpby_items(&steps, score.tensor(), &ones, x)?;
    vector::axpby_items(&spread, z.tensor(), &ones, x)?;
    ws.give(z);
    ws.give(score);
    Ok(())
}

impl Sampler for ScoreSde {
    fn name(&self) -> &'static str {
        "score-sde"
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn init(&self, problem: &Problem<'_>, seed: u64) -> Result<State> {
        let mut x = problem.buffer()?;
        normal(Noise::new(seed, START), &mut x)?;
        vector::accumulate(self.sde.marginal(1.0).1, &[], &mut x)?;
        Ok(State::new(seed, vec![("x", x), ("estimate", problem.buffer()?)]))
    }

    fn step(&self, problem: &Problem<'_>, state: &mut State, ws: &mut Workspace) -> Result<f64> {
        let i = state.iteration;
        let (t, next) = (self.time(i), self.time(i + 1));
        let last = i + 1 == self.steps;
        let marginal = self.sde.marginal(t);
        let fresh = |stream: u32, k: usize| Noise::new(state.seed, stream).at((i * 16 + k) as u32);
        let (known, walk, drawn) = (|k| fresh(INNER, k), |k| fresh(CORRECTOR, k), fresh(STEPS, 0));
        let noises: Vec<(Noise, Noise)> = (0..self.corrector.steps()).map(|k| (walk(k), known(k))).collect();
        let replaced = known(15);
        let [x, estimate] = state.many(["x", "estimate"]);
        for (walk, known) in noises {
            denoise(problem, marginal, x, estimate, ws)?;
            self.corrector.step(problem, marginal, walk, x, estimate, ws)?;
            self.replace(problem, t, known, x, ws)?;
        }
        denoise(problem, marginal, x, estimate, ws)?;
        let (p, q, r) = self.coefficients(t, next);
        let inverse = q / (marginal.1 * marginal.1);
        if last {
            // The mean, without noise, brought to clean scale.
            let (scale, _) = self.sde.marginal(next);
            let terms =
                [((p - inverse) / scale, x.tensor()), (marginal.0 * inverse / scale, estimate.tensor())];
            let mut mean = ws.take_shape(terms[0].1.dims(), terms[0].1.dtype(), terms[0].1.device())?;
            vector::lincomb(&terms, &mut mean)?;
            vector::copy(mean.tensor(), estimate)?;
            ws.give(mean);
            return Ok(self.sde.sigma(next));
        }
        let mut z = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
        normal(drawn, &mut z)?;
        vector::accumulate(p - inverse, &[(marginal.0 * inverse, estimate.tensor()), (r, z.tensor())], x)?;
        ws.give(z);
        self.replace(problem, next, replaced, x, ws)?;
        Ok(self.sde.sigma(next))
    }
}

impl Corrector {
    fn steps(&self) -> usize {
        match *self {
            Self::None => 0,
            Self::Langevin { steps, .. } | Self::Annealed { steps, .. } => steps.min(15),
        }
    }

    fn step(
        &self,
        problem: &Problem<'_>,
        (scale, std): (f64, f64),
        noise: Noise,
        x: &mut Buffer,
        estimate: &Buffer,
        ws: &mut Workspace,
    ) -> Result<()> {
        match *self {
            Self::None => Ok(()),
            Self::Langevin { snr, .. } => langevin(problem, (scale, std), snr, noise, x, estimate, ws),
            Self::Annealed { snr, .. } => {
                let step = 2.0 * (snr * std).powi(2);
                let pull = step / (std * std);
                let mut z = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
                normal(noise, &mut z)?;
                let terms = [(pull * scale, estimate.tensor()), ((2.0 * step).sqrt(), z.tensor())];
                vector::accumulate(1.0 - pull, &terms, x)?;
                ws.give(z);
                Ok(())
            }
        }
    }
}
