//! The simultaneous iterative reconstruction technique.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::{LinearOperator, magnitude_sums};
use crate::observe::{Observer, Solution, Termination, drive};
use crate::tensor::device::{Gpu, Program, arguments};
use crate::tensor::{Buffer, Kernel, Real, Workspace, launch, vector};

static PROGRAM: Program = Program { name: "reconstruct", source: include_str!("reconstruct.cu") };

/// Elements a task.
const CHUNK: usize = 1 << 14;

/// SIRT (Gregor and Benson 2008): x ← P(x + ω C Aᵀ R (y − A x)), R = 1/A1 (row sums), C = 1/Aᵀ1 (column sums),
/// P = max(·, `lower`), for real operators without negative coefficients. Stopping early regularises. Batch items
/// are independent. Memory: three arrays of the size of x and two of the size of y.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sirt {
    /// Iterations at most.
    pub max_iterations: usize,
    /// Stop when ‖y − A x‖ ≤ tolerance · ‖y‖ for every item; 0 runs all iterations.
    pub tolerance: f64,
    /// ω in (0, 2).
    pub relaxation: f64,
    /// Least value of x; −∞ leaves it free.
    pub lower: f64,
}

impl Default for Sirt {
    fn default() -> Self {
        Self { max_iterations: 200, tolerance: 0.0, relaxation: 1.5, lower: 0.0 }
    }
}

struct State {
    x: Buffer,
    slope: Buffer,
    residual: Buffer,
    ws: Workspace,
}

impl Sirt {
    /// Iterates from `start` (zero if absent). The observed measure is the largest relative residual of the items
    /// before the step.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{operator::Diagonal, reconstruct::Sirt, tensor::Space};
    /// let space = Space::real(&[2], DType::F64, &Device::Cpu);
    /// let a = Diagonal::real(&space, &Tensor::new(&[2f64, 4.], &Device::Cpu)?)?;
    /// let y = Tensor::new(&[2f64, -4.], &Device::Cpu)?;
    /// let x = Sirt { relaxation: 1.0, ..Sirt::default() }.solve(&a, &y, None, &mut ())?.value;
    /// assert_eq!(x.to_vec1::<f64>()?, [1.0, 0.0]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// A shape error where `y` or `start` doesn't fit; [`Error::Parameter`] where the relaxation is out of range.
    pub fn solve(
        &self,
        a: &dyn LinearOperator,
        y: &Tensor,
        start: Option<&Tensor>,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        if !(self.relaxation > 0.0 && self.relaxation < 2.0) {
            return Err(Error::parameter("relaxation", self.relaxation, "must be in (0, 2)"));
        }
        let batch = a.range().check("data", y)?;
        let items = batch.iter().product();
        let (columns, rows) = magnitude_sums(a)?;
        let x = match start {
            None => a.domain().buffer(batch)?,
            Some(start) => {
                a.domain().check("start of SIRT", start)?;
                Buffer::copy_of(start)?
            }
        };
        let (slope, residual) = (a.domain().buffer(batch)?, a.range().buffer(batch)?);
        let sizes = vector::norm(y, items)?;
        let mut state = State { x, slope, residual, ws: Workspace::new() };
        let outcome = drive(
            &mut state,
            self.max_iterations,
            if self.tolerance > 0.0 { Termination::MaxIterations } else { Termination::Completed },
            "relative residual",
            observer,
            |state, _| {
                a.apply_into(state.x.tensor(), &mut state.residual, &mut state.ws)?;
                let squares = launch(Misfit(items), &[y, &rows], &mut [&mut state.residual])?;
                a.adjoint_into(state.residual.tensor(), &mut state.slope, &mut state.ws)?;
                let step = Update { relaxation: self.relaxation, lower: self.lower };
                launch(step, &[state.slope.tensor(), &columns], &mut [&mut state.x])?;
                let worst = worst_relative(&squares, &sizes);
                Ok((worst, (worst <= self.tolerance).then_some(Termination::Converged)))
            },
            |state| state.x.tensor(),
        )?;
        Ok(outcome.with(state.x.freeze()))
    }
}

/// The largest residual norm relative to that of the data, over items; from squared residuals.
pub(super) fn worst_relative(squares: &[f64], sizes: &[f64]) -> f64 {
    let relative = squares.iter().zip(sizes).map(|(s, n)| s.sqrt() / n.max(f64::MIN_POSITIVE));
    relative.fold(0.0, f64::max)
}

/// out ← (y − out)/rows, 0 where a row is empty; returns Σ (y − out)² of each of so many items.
pub(super) struct Misfit(pub usize);

impl Kernel for Misfit {
    type Output = Vec<f64>;
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<Vec<f64>> {
        let (size, rows) = (outputs[0].len() / self.0.max(1), inputs[1]);
        let items = outputs[0].chunks_mut(size).zip(inputs[0].chunks(size));
        let sums = items.map(|(out, y)| {
            let parts = out.par_chunks_mut(CHUNK).zip(y.par_chunks(CHUNK)).zip(rows.par_chunks(CHUNK));
            let partial: Vec<f64> = parts
                .map(|((out, y), rows)| {
                    let mut sum = 0.0;
                    for ((o, y), r) in out.iter_mut().zip(y).zip(rows) {
                        let misfit = *y - *o;
                        sum += (misfit * misfit).as_f64();
                        *o = if *r > T::zero() { misfit / *r } else { T::zero() };
                    }
                    sum
                })
                .collect();
            partial.iter().sum()
        });
        Ok(sums.collect())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<Vec<f64>>> {
        let shape = (self.0, gpu.output_len(0) / self.0.max(1), 1);
        let arrays = arguments![gpu.input(0), gpu.input(1), gpu.output(0)];
        Some(gpu.reduce(&PROGRAM, "misfit", shape, arrays).map(|mut sums| sums.remove(0)))
    }
}

/// out ← max(lower, out + ω slope/columns).
pub(super) struct Update {
    pub relaxation: f64,
    pub lower: f64,
}

impl Kernel for Update {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (omega, lower, columns) = (T::of(self.relaxation), T::of(self.lower), inputs[1]);
        let items = outputs[0].chunks_mut(columns.len()).zip(inputs[0].chunks(columns.len()));
        for (out, slope) in items {
            let parts = out.par_chunks_mut(CHUNK).zip(slope.par_chunks(CHUNK)).zip(columns.par_chunks(CHUNK));
            parts.for_each(|((out, slope), columns)| {
                for ((o, s), c) in out.iter_mut().zip(slope).zip(columns) {
                    let step = if *c > T::zero() { omega * *s / *c } else { T::zero() };
                    *o = (*o + step).max(lower);
                }
            });
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let (slope, columns, n) = (gpu.input(0), gpu.input(1), gpu.output_len(0));
        let arguments =
            arguments![slope, columns, gpu.output(0), n, gpu.input_len(1), self.relaxation, self.lower];
        Some(gpu.run(&PROGRAM, "update", n, arguments))
    }
}
