//! What every iterative method reports while it runs, and how it ends.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use candle_core::Tensor;

use crate::error::Result;

/// One finished step of an iterative method.
#[derive(Debug)]
pub struct Step<'a> {
    /// Steps done so far, from 1.
    pub iteration: usize,
    /// Steps that will be done at most.
    pub total: usize,
    /// What the method watches (relative residual, objective, noise level), by name.
    pub measure: (&'static str, f64),
    /// The estimate after this step.
    pub estimate: &'a Tensor,
}

/// Sees every step, and may stop the method: progress bars, convergence curves, checkpoints, Ctrl-C.
///
/// `()` observes nothing; [`Watch`] makes an observer of a closure; a pair observes twice.
pub trait Observer {
    /// Called after every step; `Break` ends the method with [`Termination::Cancelled`].
    fn observe(&mut self, step: &Step<'_>) -> ControlFlow<()>;
}

impl Observer for () {
    fn observe(&mut self, _: &Step<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// An observer made of a closure.
///
/// ```
/// use std::ops::ControlFlow;
/// use wellposed::observe::{Step, Watch};
/// let stop_at_ten =
///     Watch(|step: &Step| if step.iteration < 10 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) });
/// # let _ = stop_at_ten;
/// ```
#[derive(Clone, Debug)]
pub struct Watch<F>(pub F);

impl<F: FnMut(&Step<'_>) -> ControlFlow<()>> Observer for Watch<F> {
    fn observe(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        (self.0)(step)
    }
}

/// Two observers, one after the other; either may stop the method.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn observe(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        let first = self.0.observe(step);
        let second = self.1.observe(step);
        if first.is_break() { first } else { second }
    }
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn observe(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        (**self).observe(step)
    }
}

/// Keeps the watched measure of every step: the convergence curve.
///
/// ```
/// use wellposed::observe::History;
/// let history = History::default();
/// assert!(history.values.is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Name of the measure.
    pub name: String,
    /// Its value after each step.
    pub values: Vec<f64>,
}

impl Observer for History {
    fn observe(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        self.name = step.measure.0.into();
        self.values.push(step.measure.1);
        ControlFlow::Continue(())
    }
}

/// Why a method ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// All planned steps are done, and the method has no convergence test.
    Completed,
    /// The tolerance is met.
    Converged,
    /// The iteration limit came before the tolerance.
    MaxIterations,
    /// An observer stopped it; the value is the estimate so far.
    Cancelled,
    /// The iteration produced NaN or an infinity, or left the region where it converges.
    Diverged,
}

impl Termination {
    /// The name in reports: `completed`, `converged`, `max-iterations`, `cancelled`, `diverged`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Converged => "converged",
            Self::MaxIterations => "max-iterations",
            Self::Cancelled => "cancelled",
            Self::Diverged => "diverged",
        }
    }
}

/// The result of an iterative method.
#[derive(Debug)]
pub struct Solution {
    /// The final estimate.
    pub value: Tensor,
    /// Why the method ended.
    pub termination: Termination,
    /// Steps done.
    pub steps: usize,
    /// Last value of the watched measure.
    pub measure: f64,
    /// Wall-clock time.
    pub elapsed: Duration,
}

/// Drives an iterative method: calls `step` until it reports a termination, the observer breaks, the
/// measure stops being finite, or `total` steps are done (then `limit` is the reason).
///
/// `step(iteration)` does one step and returns the measure and, if the method should end, why. `estimate`
/// lends the current estimate to the observer.
pub fn drive<S>(
    state: &mut S,
    total: usize,
    limit: Termination,
    measure: &'static str,
    observer: &mut dyn Observer,
    mut step: impl FnMut(&mut S, usize) -> Result<(f64, Option<Termination>)>,
    estimate: impl Fn(&S) -> &Tensor,
) -> Result<Outcome> {
    let start = Instant::now();
    let mut outcome = Outcome { termination: limit, steps: 0, measure: f64::NAN, elapsed: Duration::ZERO };
    for iteration in 1..=total {
        let (value, ended) = step(state, iteration)?;
        outcome.steps = iteration;
        outcome.measure = value;
        let told = observer.observe(&Step {
            iteration,
            total,
            measure: (measure, value),
            estimate: estimate(state),
        });
        let ended = if value.is_finite() { ended } else { Some(Termination::Diverged) };
        if let Some(reason) = ended.or(told.is_break().then_some(Termination::Cancelled)) {
            outcome.termination = reason;
            break;
        }
    }
    outcome.elapsed = start.elapsed();
    Ok(outcome)
}

/// How a driven method ended; [`Outcome::with`] adds the value.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Why the method ended.
    pub termination: Termination,
    /// Steps done.
    pub steps: usize,
    /// Last value of the watched measure.
    pub measure: f64,
    /// Wall-clock time.
    pub elapsed: Duration,
}

impl Outcome {
    /// The solution with this outcome.
    pub fn with(self, value: Tensor) -> Solution {
        Solution {
            value,
            termination: self.termination,
            steps: self.steps,
            measure: self.measure,
            elapsed: self.elapsed,
        }
    }
}
