//! Limited-memory BFGS.

use std::collections::VecDeque;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::wolfe::{Probe, line_search};
use crate::observe::{Observer, Solution, Termination, drive};
use crate::tensor::{Buffer, Real, vector};

/// L-BFGS (Nocedal 1980; Nocedal and Wright 2006, algorithm 7.5) with a line search for the strong Wolfe
/// conditions: minimises one smooth function of one array. Memory: 2 `memory` + 5 arrays of the size of x.
#[derive(Clone, Copy, Debug)]
pub struct Lbfgs {
    /// Iterations (line searches) at most.
    pub max_iterations: usize,
    /// Pairs of steps and gradient changes that are kept.
    pub memory: usize,
    /// Stop when ‖∇f‖ ≤ this · max(1, ‖x‖).
    pub gradient_tolerance: f64,
    /// Stop when a step lowers f by at most this part of max(|f|, 1); 0 turns this test off.
    pub value_tolerance: f64,
}

impl Default for Lbfgs {
    fn default() -> Self {
        Self { max_iterations: 200, memory: 10, gradient_tolerance: 1e-6, value_tolerance: 1e-12 }
    }
}

struct Pair {
    step: Buffer,
    change: Buffer,
    /// 1/⟨step, change⟩.
    rho: f64,
}

struct State {
    x: Buffer,
    gradient: Buffer,
    value: f64,
    trial: Buffer,
    trial_gradient: Buffer,
    direction: Buffer,
    pairs: VecDeque<Pair>,
}

/// A function's value at x; it writes the gradient.
pub type Objective<'a> = dyn FnMut(&Tensor, &mut Buffer) -> Result<f64> + 'a;

impl Lbfgs {
    /// Minimises `objective`, which writes its gradient and returns its value, from `start`. A point where
    /// the value is not finite counts as too far. The observed measure is ‖∇f‖/max(1, ‖x‖).
    ///
    /// Ends as [`Termination::Converged`] by either tolerance, also where rounding leaves no lower value
    /// along the direction of steepest descent.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use wellposed::{linalg::Lbfgs, tensor::vector};
    /// let start = Tensor::new(&[3f64, -4.], &Device::Cpu)?;
    /// let mut half_square = |x: &Tensor, gradient: &mut wellposed::tensor::Buffer| {
    ///     gradient.copy_from(x)?;
    ///     Ok(0.5 * vector::inner(x, x, 1)?[0])
    /// };
    /// let solution = Lbfgs::default().minimise(&mut half_square, &start, &mut ())?;
    /// assert!(vector::norm(&solution.value, 1)?[0] < 1e-6);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the objective returns; [`Error::Parameter`] where its value at `start` is not finite.
    pub fn minimise(
        &self,
        objective: &mut Objective<'_>,
        start: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        let zeros = || Buffer::zeros(start.dims(), start.dtype(), start.device());
        let mut gradient = zeros()?;
        let value = objective(start, &mut gradient)?;
        if !value.is_finite() {
            return Err(Error::parameter("value at the start", value, "must be finite"));
        }
        let mut state = State {
            x: Buffer::copy_of(start)?,
            gradient,
            value,
            trial: zeros()?,
            trial_gradient: zeros()?,
            direction: zeros()?,
            pairs: VecDeque::new(),
        };
        let outcome = drive(
            &mut state,
            self.max_iterations,
            Termination::MaxIterations,
            "relative gradient",
            observer,
            |state, _| {
                let measure = state.measure()?;
                if measure <= self.gradient_tolerance {
                    return Ok((measure, Some(Termination::Converged)));
                }
                let before = state.value;
                let moved = state.step(self.memory, objective)?;
                let measure = state.measure()?;
                let flat = before - state.value <= self.value_tolerance * state.value.abs().max(1.0);
                let done = measure <= self.gradient_tolerance || !moved || self.value_tolerance > 0.0 && flat;
                Ok((measure, done.then_some(Termination::Converged)))
            },
            |state| state.x.tensor(),
        )?;
        Ok(outcome.with(state.x.freeze()))
    }

    /// [`Lbfgs::minimise`] for a function of plain numbers: `objective(x, gradient)`.
    ///
    /// ```
    /// use wellposed::linalg::Lbfgs;
    /// let parabola = |x: &[f64], gradient: &mut [f64]| { gradient[0] = x[0] - 2.0; Ok(0.5 * (x[0] - 2.0).powi(2)) };
    /// let solution = Lbfgs::default().minimise_values(parabola, &[0.0], &mut ())?;
    /// assert!((solution.value.to_vec1::<f64>()?[0] - 2.0).abs() < 1e-6);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Lbfgs::minimise`].
    pub fn minimise_values(
        &self,
        mut objective: impl FnMut(&[f64], &mut [f64]) -> Result<f64>,
        start: &[f64],
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        let start = f64::tensor(start.to_vec(), &[start.len()])?;
        let mut on_tensors = |x: &Tensor, out: &mut Buffer| {
            let x = f64::to_vec(x)?;
            let mut gradient = vec![0.0; x.len()];
            let value = objective(&x, &mut gradient)?;
            *out = Buffer::from_vec(gradient, &[x.len()])?;
            Ok(value)
        };
        self.minimise(&mut on_tensors, &start, observer)
    }
}

impl State {
    fn measure(&self) -> Result<f64> {
        let size = vector::norm(self.x.tensor(), 1)?[0].max(1.0);
        Ok(vector::norm(self.gradient.tensor(), 1)?[0] / size)
    }

    /// One line search along the quasi-Newton direction; where that fails, along steepest descent. False if
    /// that fails too.
    fn step(&mut self, memory: usize, objective: &mut Objective<'_>) -> Result<bool> {
        loop {
            self.find_direction()?;
            if let Some((value, length)) = self.search(objective)? {
                self.accept(value, length, memory)?;
                return Ok(true);
            }
            if self.pairs.is_empty() {
                return Ok(false);
            }
            self.pairs.clear();
        }
    }

    /// direction ← −H ∇f by the two-loop recursion.
    fn find_direction(&mut self) -> Result<()> {
        vector::lincomb(&[(-1.0, self.gradient.tensor())], &mut self.direction)?;
        let mut weights = Vec::with_capacity(self.pairs.len());
        for pair in self.pairs.iter().rev() {
            let weight = pair.rho * vector::inner(pair.step.tensor(), self.direction.tensor(), 1)?[0];
            vector::accumulate(1.0, &[(-weight, pair.change.tensor())], &mut self.direction)?;
            weights.push(weight);
        }
        if let Some(last) = self.pairs.back() {
            let squared = vector::inner(last.change.tensor(), last.change.tensor(), 1)?[0];
            vector::accumulate(1.0 / (last.rho * squared), &[], &mut self.direction)?;
        }
        for (pair, weight) in self.pairs.iter().zip(weights.into_iter().rev()) {
            let beta = pair.rho * vector::inner(pair.change.tensor(), self.direction.tensor(), 1)?[0];
            vector::accumulate(1.0, &[(weight - beta, pair.step.tensor())], &mut self.direction)?;
        }
        Ok(())
    }

    /// The value and step length of a point that meets the Wolfe conditions, left in `trial`.
    fn search(&mut self, objective: &mut Objective<'_>) -> Result<Option<(f64, f64)>> {
        let slope = vector::inner(self.gradient.tensor(), self.direction.tensor(), 1)?[0];
        if slope.is_nan() || slope >= 0.0 {
            return Ok(None);
        }
        // Without curvature information the first step is of unit length at most.
        let first = if self.pairs.is_empty() { 1f64.min(1.0 / (-slope).sqrt()) } else { 1.0 };
        let start = Probe { at: 0.0, value: self.value, slope };
        let found = line_search(start, first, |t| {
            vector::lincomb(&[(1.0, self.x.tensor()), (t, self.direction.tensor())], &mut self.trial)?;
            let value = objective(self.trial.tensor(), &mut self.trial_gradient)?;
            let slope = vector::inner(self.trial_gradient.tensor(), self.direction.tensor(), 1)?[0];
            Ok(Probe { at: t, value, slope })
        })?;
        Ok(found.map(|probe| (probe.value, probe.at)))
    }

    fn accept(&mut self, value: f64, length: f64, memory: usize) -> Result<()> {
        let (mut step, mut change) = match self.pairs.len() {
            full if full >= memory && full > 0 => match self.pairs.pop_front() {
                Some(oldest) => (oldest.step, oldest.change),
                None => (Buffer::copy_of(self.x.tensor())?, Buffer::copy_of(self.x.tensor())?),
            },
            _ => (Buffer::copy_of(self.x.tensor())?, Buffer::copy_of(self.x.tensor())?),
        };
        vector::lincomb(&[(length, self.direction.tensor())], &mut step)?;
        let difference = [(1.0, self.trial_gradient.tensor()), (-1.0, self.gradient.tensor())];
        vector::lincomb(&difference, &mut change)?;
        let curvature = vector::inner(step.tensor(), change.tensor(), 1)?[0];
        let size = vector::inner(change.tensor(), change.tensor(), 1)?[0];
        if memory > 0 && curvature > f64::EPSILON * size {
            self.pairs.push_back(Pair { step, change, rho: 1.0 / curvature });
        }
        std::mem::swap(&mut self.x, &mut self.trial);
        std::mem::swap(&mut self.gradient, &mut self.trial_gradient);
        self.value = value;
        Ok(())
    }
}
