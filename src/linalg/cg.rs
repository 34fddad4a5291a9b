//! Conjugate gradients for symmetric positive definite systems, batched.

use candle_core::Tensor;

use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::linalg::sweep::{Lanes, PROGRAM, sweep2};
use crate::observe::{Observer, Outcome, Solution, Termination, drive};
use crate::tensor::device::{Gpu, arguments};
use crate::tensor::{Buffer, Kernel, Real, Workspace, launch, vector};

/// Conjugate gradients (Hestenes and Stiefel 1952) for A x = b with A symmetric (Hermitian) positive
/// definite. Batch items are independent systems: each has its own step lengths, and a converged item is
/// left as it is. Memory: four arrays of the size of x, and what A needs.
#[derive(Clone, Copy, Debug)]
pub struct ConjugateGradient {
    /// Iterations at most.
    pub max_iterations: usize,
    /// Stop when ‖b − A x‖ ≤ tolerance · ‖b‖ for every item; 0 runs all iterations, unless the
    /// residual reaches the rounding error of b before.
    pub tolerance: f64,
}

impl Default for ConjugateGradient {
    fn default() -> Self {
        Self { max_iterations: 100, tolerance: 1e-6 }
    }
}

fn rounding(dtype: candle_core::DType) -> f64 {
    if dtype == candle_core::DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) }
}

struct State<'a> {
    x: &'a mut Buffer,
    residual: Buffer,
    direction: Buffer,
    image: Buffer,
    squared: Vec<f64>,
    ws: &'a mut Workspace,
}

impl ConjugateGradient {
    /// Solves A x = b from `start` (zero if absent). The observed measure is the largest relative residual.
    ///
    /// ```
    /// # use candle_core::{Device, DType, Tensor};
    /// # use wellposed::{linalg::{ConjugateGradient, LinearOperator}, tensor::*, error::Result};
    /// # #[derive(Debug)] struct Twice(Space);
    /// # impl LinearOperator for Twice {
    /// #   fn domain(&self) -> &Space { &self.0 } fn range(&self) -> &Space { &self.0 }
    /// #   fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> { vector::lincomb(&[(2.0, x)], out) }
    /// #   fn adjoint_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> { self.apply_into(x, out, ws) }
    /// # }
    /// # let twice = Twice(Space::real(&[3], DType::F64, &Device::Cpu));
    /// let b = Tensor::new(&[2f64, 4., 6.], &Device::Cpu)?;
    /// let solution = ConjugateGradient::default().solve(&twice, &b, None, &mut ())?;
    /// assert_eq!(solution.value.to_vec1::<f64>()?, [1., 2., 3.]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// A shape error where `b` or `start` is not in the domain of `a`.
    pub fn solve(
        &self,
        a: &dyn LinearOperator,
        b: &Tensor,
        start: Option<&Tensor>,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        let batch = a.domain().check("right-hand side", b)?;
        let mut x = match start {
            None => a.domain().buffer(batch)?,
            Some(start) => Buffer::copy_of(start)?,
        };
        let outcome = self.improve(a, b, &mut x, &mut Workspace::new(), observer)?;
        Ok(outcome.with(x.freeze()))
    }

    /// Solves A x = b from what `x` holds, in place, with buffers from `ws`: for inner solves that start
    /// near the solution and come often.
    ///
    /// # Errors
    /// A shape error where `b` or `x` is not in the domain of `a`.
    pub fn improve(
        &self,
        a: &dyn LinearOperator,
        b: &Tensor,
        x: &mut Buffer,
        ws: &mut Workspace,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let space = a.domain();
        let batch = space.check("right-hand side", b)?;
        if space.check("start of conjugate gradients", x.tensor())? != batch {
            return Err(crate::error::Error::shape("start", format!("{:?}", b.dims()), x.dims()));
        }
        let items = batch.iter().product::<usize>();
        let mut residual = ws.take(space, batch)?;
        let mut direction = ws.take(space, batch)?;
        let mut image = ws.take(space, batch)?;
        a.apply_into(x.tensor(), &mut image, ws)?;
        vector::lincomb(&[(1.0, b), (-1.0, image.tensor())], &mut residual)?;
        direction.copy_from(residual.tensor())?;
        let size: Vec<f64> = vector::inner(b, b, items)?;
        // Below rounding there is nothing left to gain, and on a singular system much to lose.
        let tolerance = self.tolerance.max(rounding(space.dtype()));
        let limits: Vec<f64> = size.iter().map(|bb| tolerance * tolerance * bb).collect();
        let squared = vector::inner(residual.tensor(), residual.tensor(), items)?;
        let mut state = State { x, residual, direction, image, squared, ws };
        let done = |squared: &[f64]| squared.iter().zip(&limits).all(|(s, limit)| s <= limit);
        let worst = |squared: &[f64]| {
            let relative = squared.iter().zip(&size).map(|(s, b)| s / b.max(f64::MIN_POSITIVE));
            relative.fold(0.0, f64::max).sqrt()
        };
        let outcome = if done(&state.squared) {
            Outcome {
                termination: Termination::Converged,
                steps: 0,
                measure: worst(&state.squared),
                elapsed: std::time::Duration::ZERO,
            }
        } else {
            drive(
                &mut state,
                self.max_iterations,
                Termination::MaxIterations,
                "relative residual",
                observer,
                |state, _| {
                    state.step(a, &limits)?;
                    Ok((worst(&state.squared), done(&state.squared).then_some(Termination::Converged)))
                },
                |state| state.x.tensor(),
            )?
        };
        let State { residual, direction, image, ws, .. } = state;
        [residual, direction, image].into_iter().for_each(|buffer| ws.give(buffer));
        Ok(outcome)
    }
}

/// x ← x + α d, r ← r − α q in one pass; returns ‖r‖² for each item.
struct Advance<'a>(&'a [f64]);

impl Kernel for Advance<'_> {
    type Output = Vec<f64>;
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<Vec<f64>> {
        let (direction, image) = (inputs[0], inputs[1]);
        let [x, residual] = outputs else { return Ok(Vec::new()) };
        let sums = sweep2(x, residual, self.0.len(), |item, start, x, r| {
            let alpha = T::of(self.0[item]);
            let (d, q) = (&direction[start..][..x.len()], &image[start..][..x.len()]);
            let mut sum = Lanes::default();
            for i in 0..x.len() {
                x[i] += alpha * d[i];
                r[i] -= alpha * q[i];
                sum.add(i, r[i].as_f64() * r[i].as_f64());
            }
            [sum.total()]
        });
        Ok(sums.into_iter().map(|[s]| s).collect())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<Vec<f64>>> {
        let items = self.0.len();
        Some(gpu.upload(self.0).and_then(|alpha| {
            let (d, q, x, r) = (gpu.input(0), gpu.input(1), gpu.output(0), gpu.output(1));
            let shape = (items, gpu.output_len(0) / items, 1);
            Ok(gpu.reduce(&PROGRAM, "advance", shape, arguments![d, q, x, r, alpha])?.remove(0))
        }))
    }
}

impl State<'_> {
    fn step(&mut self, a: &dyn LinearOperator, limits: &[f64]) -> Result<()> {
        let items = limits.len();
        a.apply_into(self.direction.tensor(), &mut self.image, self.ws)?;
        let curvature = vector::inner(self.direction.tensor(), self.image.tensor(), items)?;
        let active = |i: usize| self.squared[i] > limits[i] && curvature[i] != 0.0;
        let alpha: Vec<f64> =
            (0..items).map(|i| if active(i) { self.squared[i] / curvature[i] } else { 0.0 }).collect();
        let squared = launch(
            Advance(&alpha),
            &[self.direction.tensor(), self.image.tensor()],
            &mut [&mut *self.x, &mut self.residual],
        )?;
        let beta: Vec<f64> = squared
            .iter()
            .zip(&self.squared)
            .map(|(new, old)| if *old > 0.0 { new / old } else { 0.0 })
            .collect();
        vector::axpby_items(&vec![1.0; items], self.residual.tensor(), &beta, &mut self.direction)?;
        self.squared = squared;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::{Algebra, Gradient};
    use crate::tensor::Space;
    use crate::tensor::random::{Noise, standard_normal};
    use crate::testing::relative_difference;

    #[test]
    fn solves_a_batch_of_screened_poisson_problems() {
        let space = Space::real(&[9, 8], DType::F64, &Device::Cpu);
        let system = Gradient::new(&space, &[0, 1]).unwrap().normal_operator(0.3);
        let truth = standard_normal(Noise::new(1, 0), &space, &[3]).unwrap();
        let b = system.apply(&truth).unwrap();
        let cg = ConjugateGradient { max_iterations: 200, tolerance: 1e-12 };
        let solution = cg.solve(&system, &b, None, &mut ()).unwrap();
        assert_eq!(solution.termination, Termination::Converged);
        assert!(relative_difference(&solution.value, &truth).unwrap() < 1e-11);
        let again = cg.solve(&system, &b, Some(&solution.value), &mut ()).unwrap();
        assert!(again.steps <= 1);
    }

    #[test]
    fn refuses_a_start_of_another_batch() {
        let space = Space::real(&[4], DType::F64, &Device::Cpu);
        let system = Gradient::new(&space, &[0]).unwrap().normal_operator(1.0);
        let (b, start) = (space.zeros(&[2]).unwrap(), space.zeros(&[3]).unwrap());
        assert!(ConjugateGradient::default().solve(&system, &b, Some(&start), &mut ()).is_err());
    }
}
