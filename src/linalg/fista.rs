//! Accelerated proximal gradients.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::sweep::{Lanes, PROGRAM, sweep};
use crate::linalg::{Proximal, Smooth, Steps};
use crate::observe::{Observer, Solution, Termination, drive};
use crate::tensor::device::{Gpu, arguments};
use crate::tensor::{Buffer, Kernel, Real, Workspace, launch, vector};

/// FISTA (Beck and Teboulle 2009) for min_x f(x) + g(x) with smooth f and proximal g, with adaptive restart
/// (O'Donoghue and Candès 2015, gradient scheme). Batch items share the step size but have their own
/// momentum and restarts. Memory: four arrays of the size of x (five when backtracking), and
/// what f and g need.
#[derive(Clone, Copy, Debug)]
pub struct Fista {
    /// Iterations at most.
    pub max_iterations: usize,
    /// Stop when the proximal gradient step changes x by at most this part of ‖x‖ for every item; 0 runs all
    /// iterations.
    pub tolerance: f64,
    /// How 1/L is found.
    pub step: StepRule,
    /// Forget the momentum of an item when it points uphill.
    pub restart: bool,
}

impl Default for Fista {
    fn default() -> Self {
        let step = StepRule::Backtracking { initial: 1.0, shrink: 0.5 };
        Self { max_iterations: 200, tolerance: 1e-5, step, restart: true }
    }
}

/// The step size of a gradient method.
#[derive(Clone, Copy, Debug)]
pub enum StepRule {
    /// A fixed step: 1/L with L the Lipschitz constant of ∇f (‖A‖² for least squares).
    Fixed(f64),
    /// From `initial`, multiplied by `shrink` in (0, 1) until f lies below its quadratic bound.
    Backtracking {
        /// The first step that is tried.
        initial: f64,
        /// The factor of a refused step.
        shrink: f64,
    },
}

struct State<'a> {
    f: &'a dyn Smooth,
    g: &'a dyn Proximal,
    x: Buffer,
    next: Buffer,
    ahead: Buffer,
    slope: Buffer,
    momentum: Vec<f64>,
    step: f64,
    ws: Workspace,
}

impl Fista {
    /// Minimises f + g from `start`. The observed measure is the largest relative change.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{functional::*, linalg::Fista, operator::Diagonal, tensor::Space};
    /// // min ½‖w x − y‖² with 0 ≤ x ≤ 1.
    /// let line = Space::real(&[2], DType::F64, &Device::Cpu);
    /// let weights = Diagonal::real(&line, &Tensor::new(&[2f64, 1.], &Device::Cpu)?)?;
    /// let f = LeastSquares::new(Arc::new(weights), &Tensor::new(&[1f64, 3.], &Device::Cpu)?)?;
    /// let g = Bounds::new(&line, 0.0, 1.0)?;
    /// let x = Fista::default().solve(&f, &g, &line.zeros(&[])?, &mut ())?.value.to_vec1::<f64>()?;
    /// assert!((x[0] - 0.5).abs() < 1e-4 && x[1] == 1.0);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// A shape error where `start` or g does not lie in the domain of f, [`Error::Parameter`] where the step
    /// is out of range.
    pub fn solve(
        &self,
        f: &dyn Smooth,
        g: &dyn Proximal,
        start: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        let batch = f.domain().check("start of FISTA", start)?;
        f.domain().expect_same("domain of the penalty", g.domain())?;
        let step = match self.step {
            StepRule::Fixed(step) => step,
            StepRule::Backtracking { initial, shrink } if shrink > 0.0 && shrink < 1.0 => initial,
            StepRule::Backtracking { shrink, .. } => {
                return Err(Error::parameter("shrink", shrink, "must be in (0, 1)"));
            }
        };
        if !(step > 0.0 && step.is_finite()) {
            return Err(Error::parameter("step", step, "must be positive"));
        }
        let copy = || Buffer::copy_of(start);
        let mut state = State {
            f,
            g,
            x: copy()?,
            next: f.domain().buffer(batch)?,
            ahead: copy()?,
            slope: f.domain().buffer(batch)?,
            momentum: vec![1.0; batch.iter().product()],
            step,
            ws: Workspace::new(),
        };
        let outcome = drive(
            &mut state,
            self.max_iterations,
            Termination::MaxIterations,
            "relative change",
            observer,
            |state, _| {
                let worst = state.step(self)?;
                Ok((worst, (worst <= self.tolerance).then_some(Termination::Converged)))
            },
            |state| state.x.tensor(),
        )?;
        Ok(outcome.with(state.x.freeze()))
    }
}

impl State<'_> {
    fn step(&mut self, fista: &Fista) -> Result<f64> {
        let values = self.f.gradient_into(self.ahead.tensor(), &mut self.slope, &mut self.ws)?;
        loop {
            let descent = [(1.0, self.ahead.tensor()), (-self.step, self.slope.tensor())];
            vector::lincomb(&descent, &mut self.next)?;
            self.g.prox(Steps::Uniform(self.step), &mut self.next, &mut self.ws)?;
            let StepRule::Backtracking { shrink, .. } = fista.step else { break };
            if self.bound_holds(&values)? || self.step < f64::MIN_POSITIVE {
                break;
            }
            self.step *= shrink;
        }
        let inputs = [self.next.tensor(), self.ahead.tensor(), self.x.tensor()];
        let sums = launch(Compare(self.momentum.len()), &inputs, &mut [])?;
        let mut forward = Vec::with_capacity(sums.len());
        for (t, [uphill, ..]) in self.momentum.iter_mut().zip(&sums) {
            if fista.restart && *uphill > 0.0 {
                *t = 1.0;
            }
            let next = 0.5 * (1.0 + (1.0 + 4.0 * *t * *t).sqrt());
            forward.push((*t - 1.0) / next);
            *t = next;
        }
        std::mem::swap(&mut self.x, &mut self.next);
        // Ahead: x + β (x − last x); the last x is in `next` now.
        let inputs = [self.x.tensor(), self.next.tensor()];
        launch(Extrapolate(&forward), &inputs, &mut [&mut self.ahead])?;
        let relative = |[_, change, size]: &[f64; 3]| {
            if *change == 0.0 { 0.0 } else { change / size.max(f64::MIN_POSITIVE) }
        };
        Ok(sums.iter().map(relative).fold(0.0, f64::max).sqrt())
    }

    /// f(next) ≤ f(ahead) + ⟨∇f, d⟩ + ‖d‖²/2·step for d = next − ahead, for every item.
    fn bound_holds(&mut self, values: &[f64]) -> Result<bool> {
        let items = values.len();
        let found = self.f.value(self.next.tensor(), &mut self.ws)?;
        let mut moved =
            self.ws.take_shape(self.next.dims(), self.next.tensor().dtype(), self.next.tensor().device())?;
        vector::lincomb(&[(1.0, self.next.tensor()), (-1.0, self.ahead.tensor())], &mut moved)?;
        let along = vector::inner(self.slope.tensor(), moved.tensor(), items)?;
        let squared = vector::inner(moved.tensor(), moved.tensor(), items)?;
        self.ws.give(moved);
        // Values near the minimum differ by less than they are rounded; leave room for that.
        let room = 4.0
            * if self.next.tensor().dtype() == candle_core::DType::F64 {
                f64::EPSILON
            } else {
                f32::EPSILON.into()
            };
        let holds = |i: usize| {
            let bound = values[i] + along[i] + squared[i] / (2.0 * self.step);
            found[i] <= bound + room * values[i].abs()
        };
        Ok((0..items).all(holds))
    }
}

/// For x⁺, the extrapolated v and the last x: ⟨v − x⁺, x⁺ − x⟩, ‖x⁺ − v‖², ‖x⁺‖² for each item.
struct Compare(usize);

impl Kernel for Compare {
    type Output = Vec<[f64; 3]>;
    fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<Self::Output> {
        use rayon::prelude::*;
        const CHUNK: usize = 1 << 13;
        let size = (inputs[0].len() / self.0.max(1)).max(1);
        let part = |((next, ahead), last): ((&[T], &[T]), &[T])| {
            let mut sums = [Lanes::default(); 3];
            for i in 0..next.len() {
                let (back, step) = (ahead[i] - next[i], next[i] - last[i]);
                let values = [back * step, back * back, next[i] * next[i]];
                sums.iter_mut().zip(values).for_each(|(s, v)| s.add(i, v.as_f64()));
            }
            sums.map(Lanes::total)
        };
        let item = |((next, ahead), last): ((&[T], &[T]), &[T])| {
            let chunks = next.par_chunks(CHUNK).zip(ahead.par_chunks(CHUNK)).zip(last.par_chunks(CHUNK));
            let parts: Vec<[f64; 3]> = chunks.map(part).collect();
            parts.iter().fold([0.0; 3], |s, p| [s[0] + p[0], s[1] + p[1], s[2] + p[2]])
        };
        Ok(inputs[0].chunks(size).zip(inputs[1].chunks(size)).zip(inputs[2].chunks(size)).map(item).collect())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<Self::Output>> {
        let (items, arrays) = (self.0, arguments![gpu.input(0), gpu.input(1), gpu.input(2)]);
        let sums = gpu.reduce(&PROGRAM, "compare", (items, gpu.input_len(0) / items.max(1), 3), arrays);
        Some(sums.map(|sums| (0..items).map(|i| std::array::from_fn(|s| sums[s][i])).collect()))
    }
}

/// out ← x + β (x − last) for each item.
struct Extrapolate<'a>(&'a [f64]);

impl Kernel for Extrapolate<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        sweep(outputs[0], self.0.len(), |item, start, out| {
            let beta = T::of(self.0[item]);
            let (x, last) = (&inputs[0][start..], &inputs[1][start..]);
            out.iter_mut().zip(x.iter().zip(last)).for_each(|(o, (x, last))| *o = *x + beta * (*x - *last));
            []
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let (x, last, out, n) = (gpu.input(0), gpu.input(1), gpu.output(0), gpu.output_len(0));
        let size = (n / self.0.len().max(1)).max(1);
        let run = |beta| gpu.run(&PROGRAM, "extrapolate", n, arguments![x, last, out, n, size, beta]);
        Some(gpu.upload(self.0).and_then(run))
    }
}
