//! Conjugate gradients for symmetric positive definite systems, batched.

use candle_core::Tensor;

use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::observe::{Observer, Solution, Termination, drive};
use crate::tensor::{Buffer, Workspace, vector};

/// Conjugate gradients (Hestenes and Stiefel 1952) for A x = b with A symmetric (Hermitian) positive
/// definite. Batch items are independent systems: each has its own step lengths, and a converged item is
/// left as it is.
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

struct State {
    x: Buffer,
    residual: Buffer,
    direction: Buffer,
    image: Buffer,
    squared: Vec<f64>,
    ws: Workspace,
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
        let space = a.domain();
        let batch = space.check("right-hand side", b)?;
        let items = batch.iter().product::<usize>();
        let mut ws = Workspace::new();
        let mut residual = Buffer::copy_of(b)?;
        let mut image = ws.take(space, batch)?;
        let x = match start {
            None => space.buffer(batch)?,
            Some(start) => {
                space.check("start of conjugate gradients", start)?;
                a.apply_into(start, &mut image, &mut ws)?;
                vector::accumulate(1.0, &[(-1.0, image.tensor())], &mut residual)?;
                Buffer::copy_of(start)?
            }
        };
        // Below rounding there is nothing left to gain, and on a singular system much to lose.
        let tolerance = self.tolerance.max(rounding(space.dtype()));
        let limits: Vec<f64> =
            vector::inner(b, b, items)?.into_iter().map(|bb| tolerance * tolerance * bb).collect();
        let scale: Vec<f64> =
            vector::inner(b, b, items)?.into_iter().map(|bb| bb.max(f64::MIN_POSITIVE)).collect();
        let squared = vector::inner(residual.tensor(), residual.tensor(), items)?;
        let direction = Buffer::copy_of(residual.tensor())?;
        let mut state = State { x, residual, direction, image, squared, ws };
        let done = |squared: &[f64]| squared.iter().zip(&limits).all(|(s, limit)| s <= limit);
        if done(&state.squared) {
            let value = state.x.freeze();
            return Ok(Solution {
                value,
                termination: Termination::Converged,
                steps: 0,
                measure: 0.0,
                elapsed: std::time::Duration::ZERO,
            });
        }
        let outcome = drive(
            &mut state,
            self.max_iterations,
            Termination::MaxIterations,
            "relative residual",
            observer,
            |state, _| {
                state.step(a, items, &limits)?;
                let worst = state.squared.iter().zip(&scale).map(|(s, b)| s / b).fold(0.0, f64::max).sqrt();
                Ok((worst, done(&state.squared).then_some(Termination::Converged)))
            },
            |state| state.x.tensor(),
        )?;
        Ok(outcome.with(state.x.freeze()))
    }
}

impl State {
    fn step(&mut self, a: &dyn LinearOperator, items: usize, limits: &[f64]) -> Result<()> {
        a.apply_into(self.direction.tensor(), &mut self.image, &mut self.ws)?;
        let curvature = vector::inner(self.direction.tensor(), self.image.tensor(), items)?;
        let ones = vec![1.0; items];
        let active = |i: usize| self.squared[i] > limits[i] && curvature[i] != 0.0;
        let alpha: Vec<f64> =
            (0..items).map(|i| if active(i) { self.squared[i] / curvature[i] } else { 0.0 }).collect();
        let minus: Vec<f64> = alpha.iter().map(|a| -a).collect();
        vector::axpby_items(&alpha, self.direction.tensor(), &ones, &mut self.x)?;
        vector::axpby_items(&minus, self.image.tensor(), &ones, &mut self.residual)?;
        let squared = vector::inner(self.residual.tensor(), self.residual.tensor(), items)?;
        let beta: Vec<f64> = squared
            .iter()
            .zip(&self.squared)
            .map(|(new, old)| if *old > 0.0 { new / old } else { 0.0 })
            .collect();
        vector::axpby_items(&ones, self.residual.tensor(), &beta, &mut self.direction)?;
        self.squared = squared;
        Ok(())
    }
}
