//! Diffusion posterior samplers, all in terms of the noise level σ.
//!
//! The state of every sampler is x = x₀ + σ n (variance exploding). A variance-preserving update of a paper
//! is the same update divided by √ᾱ = 1/√(1+σ²). Batch axes are slices or images; every item has its own
//! noise, step lengths and norms, so that a result does not depend on what else is in the batch.
//!
//! ```
//! use candle_core::{Device, DType, Tensor};
//! use wellposed::prior::mixture::Mixture;
//! use wellposed::sampler::{Guided, Problem, sample};
//! // Draw from a two-mode prior, without data.
//! let prior = Mixture::new(&[1, 2], vec![(1.0, vec![1.0, 1.0], 0.1), (1.0, vec![-1.0, -1.0], 0.1)])?;
//! let problem = Problem::unconditional(&prior, &[4, 1, 2], DType::F64, &Device::Cpu)?;
//! let solution = sample(&Guided::default(), &problem, 7, &mut ())?;
//! assert_eq!(solution.value.dims(), [4, 1, 2]);
//! # Ok::<(), wellposed::error::Error>(())
//! ```

mod consistency;
mod daps;
mod dps;
mod guided;
pub mod likelihood;
mod mbir;
mod measured;
mod misfit;
mod moment_matching;
mod pigdm;
mod posterior;
mod problem;
mod red_diff;
mod score_sde;
mod state;
mod stepper;
mod units;

use crate::error::Result;
use crate::observe::{Observer, Solution, Termination, drive};
use crate::tensor::Workspace;

pub use consistency::{AdmmTv, Consistency};
pub use daps::{Daps, Draw};
pub use dps::Dps;
pub use guided::Guided;
pub use mbir::DiffusionMbir;
pub use measured::Measured;
pub use misfit::Misfit;
pub use moment_matching::MomentMatching;
pub use pigdm::PiGdm;
pub use posterior::{Posterior, posterior};
pub use problem::Problem;
pub use red_diff::RedDiff;
pub use score_sde::{Corrector, Predictor, ScoreSde};
pub use state::State;
pub use stepper::{NoiseFrom, Stepper};
pub use units::Normalized;

/// The samplers' updates for a device.
static PROGRAM: crate::tensor::device::Program =
    crate::tensor::device::Program { name: "sampler", source: include_str!("sampler.cu") };

/// A sampling method: parameters only; what changes from step to step is in [`State`].
pub trait Sampler: Send + Sync + std::fmt::Debug {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// How many steps it takes.
    fn steps(&self) -> usize;

    /// The state before the first step. All later noise is a function of `seed` and of the step.
    ///
    /// # Errors
    /// A parameter out of range, or data that don't fit the operator or the prior.
    fn init(&self, problem: &Problem<'_>, seed: u64) -> Result<State>;

    /// One step; returns the noise level after it.
    fn step(&self, problem: &Problem<'_>, state: &mut State, ws: &mut Workspace) -> Result<f64>;
}

/// Runs a sampler from its start. The observed measure is the noise level.
///
/// # Errors
/// What [`Sampler::init`] and [`Sampler::step`] report.
pub fn sample(
    sampler: &dyn Sampler,
    problem: &Problem<'_>,
    seed: u64,
    observer: &mut dyn Observer,
) -> Result<Solution> {
    let state = sampler.init(problem, seed)?;
    resume(sampler, problem, state, observer, &mut |_| Ok(()))
}

/// Goes on from a state (from [`Sampler::init`], or read from a checkpoint) to the end. `checkpoint` sees the
/// state after every step and may save it; a run that goes on from a saved state gives the same bits as one
/// that was never interrupted.
///
/// # Errors
/// What [`Sampler::step`] and `checkpoint` report.
pub fn resume(
    sampler: &dyn Sampler,
    problem: &Problem<'_>,
    state: State,
    observer: &mut dyn Observer,
    checkpoint: &mut dyn FnMut(&State) -> Result<()>,
) -> Result<Solution> {
    let mut run = (state, Workspace::new());
    let done = run.0.iteration;
    let mut shifted = Shifted { observer, done, total: sampler.steps() };
    let outcome = drive(
        &mut run,
        sampler.steps().saturating_sub(done),
        Termination::Completed,
        "noise level",
        &mut shifted,
        |(state, ws), _| {
            let sigma = sampler.step(problem, state, ws)?;
            state.iteration += 1;
            checkpoint(state)?;
            Ok((sigma, None))
        },
        |(state, _)| state.estimate(),
    )?;
    let mut solution = outcome.with(run.0.into_estimate());
    solution.steps += done;
    Ok(solution)
}

/// Counts the steps before a resumption too.
struct Shifted<'a> {
    observer: &'a mut dyn Observer,
    done: usize,
    total: usize,
}

impl Observer for Shifted<'_> {
    fn observe(&mut self, step: &crate::observe::Step<'_>) -> std::ops::ControlFlow<()> {
        self.observer.observe(&crate::observe::Step {
            iteration: step.iteration + self.done,
            total: self.total,
            ..*step
        })
    }
}
