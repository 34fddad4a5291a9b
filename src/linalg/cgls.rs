//! Conjugate gradients on the normal equations, without forming them.

use candle_core::Tensor;

use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::observe::{Observer, Solution, Termination, drive};
use crate::tensor::{Buffer, Workspace, vector};

/// CGLS (Björck 1996, algorithm 7.4.1) for min ‖A x − y‖² + μ‖x‖², batched: items have their own step
/// lengths, and a converged item is left as it is. Stopping early regularises. Memory: three arrays of the
/// size of x, two of the size of y.
#[derive(Clone, Copy, Debug)]
pub struct Cgls {
    /// Iterations at most.
    pub max_iterations: usize,
    /// Stop when ‖Aᴴ(y − A x) − μx‖ ≤ tolerance · ‖Aᴴ(y − A x₀) − μx₀‖ for every item; 0 runs all iterations.
    pub tolerance: f64,
    /// μ ≥ 0, the Tikhonov weight.
    pub damping: f64,
}

impl Default for Cgls {
    fn default() -> Self {
        Self { max_iterations: 50, tolerance: 1e-6, damping: 0.0 }
    }
}

struct State<'a> {
    x: Buffer,
    residual: Buffer,
    slope: Buffer,
    direction: Buffer,
    image: Buffer,
    squared: Vec<f64>,
    a: &'a dyn LinearOperator,
    damping: f64,
    ws: Workspace,
}

impl Cgls {
    /// Solves from `start` (zero if absent). The observed measure is the largest relative slope, the
    /// quantity of the tolerance.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{linalg::{Cgls, LinearOperator}, operator::Diagonal, tensor::Space};
    /// let space = Space::real(&[2], DType::F64, &Device::Cpu);
    /// let a = Diagonal::real(&space, &Tensor::new(&[2f64, 4.], &Device::Cpu)?)?;
    /// let y = Tensor::new(&[2f64, 8.], &Device::Cpu)?;
    /// let x = Cgls::default().solve(&a, &y, None, &mut ())?.value.to_vec1::<f64>()?;
    /// assert!((x[0] - 1.0).abs() < 1e-9 && (x[1] - 2.0).abs() < 1e-9);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// A shape error where `y` is not in the range or `start` not in the domain of `a`.
    pub fn solve(
        &self,
        a: &dyn LinearOperator,
        y: &Tensor,
        start: Option<&Tensor>,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        let batch = a.range().check("data", y)?;
        let items = batch.iter().product::<usize>();
        let mut ws = Workspace::new();
        let mut residual = Buffer::copy_of(y)?;
        let image = a.range().buffer(batch)?;
        let x = match start {
            None => a.domain().buffer(batch)?,
            Some(start) => {
                a.domain().check("start", start)?;
                let mut image = ws.take(a.range(), batch)?;
                a.apply_into(start, &mut image, &mut ws)?;
                vector::accumulate(1.0, &[(-1.0, image.tensor())], &mut residual)?;
                ws.give(image);
                Buffer::copy_of(start)?
            }
        };
        let slope = a.domain().buffer(batch)?;
        let direction = a.domain().buffer(batch)?;
        let damping = self.damping;
        let mut state =
            State { x, residual, slope, direction, image, squared: vec![0.0; items], a, damping, ws };
        state.refresh()?;
        let first = state.squared.clone();
        let limits: Vec<f64> = first.iter().map(|s| self.tolerance * self.tolerance * s).collect();
        let outcome = drive(
            &mut state,
            self.max_iterations,
            Termination::MaxIterations,
            "relative slope",
            observer,
            |state, _| {
                state.step(&limits)?;
                let relative = state.squared.iter().zip(&first).map(|(s, f)| s / f.max(f64::MIN_POSITIVE));
                let done = state.squared.iter().zip(&limits).all(|(s, limit)| s <= limit);
                Ok((relative.fold(0.0, f64::max).sqrt(), done.then_some(Termination::Converged)))
            },
            |state| state.x.tensor(),
        )?;
        Ok(outcome.with(state.x.freeze()))
    }
}

impl State<'_> {
    /// slope ← Aᴴr − μx, and the direction from it.
    fn refresh(&mut self) -> Result<()> {
        let items = self.squared.len();
        self.a.adjoint_into(self.residual.tensor(), &mut self.slope, &mut self.ws)?;
        if self.damping != 0.0 {
            vector::accumulate(1.0, &[(-self.damping, self.x.tensor())], &mut self.slope)?;
        }
        let squared = vector::inner(self.slope.tensor(), self.slope.tensor(), items)?;
        let ratio = |(new, old): (&f64, &f64)| if *old > 0.0 { new / old } else { 0.0 };
        let beta: Vec<f64> = squared.iter().zip(&self.squared).map(ratio).collect();
        vector::axpby_items(&vec![1.0; items], self.slope.tensor(), &beta, &mut self.direction)?;
        self.squared = squared;
        Ok(())
    }

    fn step(&mut self, limits: &[f64]) -> Result<()> {
        let items = limits.len();
        self.a.apply_into(self.direction.tensor(), &mut self.image, &mut self.ws)?;
        let mut curvature = vector::inner(self.image.tensor(), self.image.tensor(), items)?;
        if self.damping != 0.0 {
            let sizes = vector::inner(self.direction.tensor(), self.direction.tensor(), items)?;
            curvature.iter_mut().zip(sizes).for_each(|(c, s)| *c += self.damping * s);
        }
        let active = |i: usize| self.squared[i] > limits[i] && curvature[i] > 0.0;
        let alpha: Vec<f64> =
            (0..items).map(|i| if active(i) { self.squared[i] / curvature[i] } else { 0.0 }).collect();
        let (minus, ones): (Vec<f64>, Vec<f64>) = (alpha.iter().map(|a| -a).collect(), vec![1.0; items]);
        vector::axpby_items(&alpha, self.direction.tensor(), &ones, &mut self.x)?;
        vector::axpby_items(&minus, self.image.tensor(), &ones, &mut self.residual)?;
        self.refresh()
    }
}
