//! The alternating direction method of multipliers for least squares with penalties.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::sweep::{Lanes, PROGRAM, sweep2};
use crate::linalg::{ConjugateGradient, LinearOperator, Steps, Term};
use crate::observe::{Observer, Solution, Termination, drive};
use crate::tensor::device::{Gpu, arguments};
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch, vector};

/// ADMM (Boyd et al. 2011, section 3, over-relaxed) for min_x ½‖A x − y‖² + Σᵢ gᵢ(Kᵢ x) with convex gᵢ. The
/// x-update solves (AᴴA + ρ Σ KᵢᴴKᵢ) x = Aᴴy + ρ Σ Kᵢᴴ(zᵢ − uᵢ) by a few conjugate-gradient steps from the
/// last x. Memory: seven arrays of the size of x, and four of the size of each Kᵢ x.
#[derive(Clone, Copy, Debug)]
pub struct Admm {
    /// Iterations at most.
    pub max_iterations: usize,
    /// Stop when the primal residual ‖Kx − z‖ is at most this part of max(‖Kx‖, ‖z‖), and the last change of z
    /// at most this part of ‖u‖, over all terms of every item; 0 runs all iterations.
    pub tolerance: f64,
    /// ρ > 0, the initial penalty: it sets the speed, not the solution. For TV, λ over a typical edge height
    /// is a good start.
    pub penalty: f64,
    /// Double or halve ρ when one relative residual is ten times the other (Boyd et al., section 3.4.1, with
    /// relative residuals), during this many first iterations; 0 keeps it fixed.
    pub adapt_for: usize,
    /// Over-relaxation in (0, 2); 1.5 to 1.8 is usually fastest.
    pub relaxation: f64,
    /// Conjugate-gradient steps at most in each x-update.
    pub inner_iterations: usize,
    /// Relative residual at which the inner solve stops.
    pub inner_tolerance: f64,
}

impl Default for Admm {
    fn default() -> Self {
        Self {
            max_iterations: 100,
            tolerance: 1e-4,
            penalty: 1.0,
            adapt_for: 50,
            relaxation: 1.6,
            inner_iterations: 10,
            inner_tolerance: 1e-6,
        }
    }
}

/// AᴴA + ρ Σ KᵢᴴKᵢ.
#[derive(Debug)]
struct System<'a> {
    a: &'a dyn LinearOperator,
    terms: &'a [Term<'a>],
    rho: f64,
}

impl LinearOperator for System<'_> {
    fn domain(&self) -> &Space {
        self.a.domain()
    }
    fn range(&self) -> &Space {
        self.a.domain()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.a.normal_into(x, out, ws)?;
        let mut part = ws.take_shape(x.dims(), x.dtype(), x.device())?;
        for term in self.terms {
            term.operator.normal_into(x, &mut part, ws)?;
            vector::accumulate(1.0, &[(self.rho, part.tensor())], out)?;
        }
        ws.give(part);
        Ok(())
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.apply_into(y, out, ws)
    }
}

struct State<'a> {
    system: System<'a>,
    /// Aᴴy.
    back: Buffer,
    x: Buffer,
    right: Buffer,
    /// zᵢ and uᵢ.
    splits: Vec<(Buffer, Buffer)>,
    items: usize,
    ws: Workspace,
}

impl Admm {
    /// Minimises ½‖A x − y‖² + Σ gᵢ(Kᵢ x) from `start` (zero if absent). The observed measure is the larger
    /// of the two relative residuals. Weighted data go in as W^½A and W^½y.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{functional::*, linalg::*, operator::Identity, tensor::Space};
    /// // min ½‖x − y‖² + ‖x‖₁ has the closed form of soft thresholding.
    /// let line = Space::real(&[3], DType::F64, &Device::Cpu);
    /// let y = Tensor::new(&[-3f64, 0.5, 2.], &Device::Cpu)?;
    /// let identity = Identity::new(&line);
    /// let sparse = L1Norm::new(&line, 1.0)?;
    /// let admm = Admm { tolerance: 1e-10, inner_tolerance: 1e-12, ..Admm::default() };
    /// let x = admm.solve(&identity, &y, &[Term::new(&identity, &sparse)?], None, &mut ())?.value;
    /// assert!((x.to_vec1::<f64>()?[0] + 2.0).abs() < 1e-8);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// A shape error where `y`, `start` or a term doesn't fit A, [`Error::Parameter`] where the penalty or the
    /// relaxation is out of range.
    pub fn solve(
        &self,
        a: &dyn LinearOperator,
        y: &Tensor,
        terms: &[Term<'_>],
        start: Option<&Tensor>,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        if !(self.penalty > 0.0 && self.penalty.is_finite()) {
            return Err(Error::parameter("penalty", self.penalty, "must be positive"));
        }
        if !(self.relaxation > 0.0 && self.relaxation < 2.0) {
            return Err(Error::parameter("relaxation", self.relaxation, "must be in (0, 2)"));
        }
        let batch = a.range().check("data", y)?;
        let mut ws = Workspace::new();
        let mut back = a.domain().buffer(batch)?;
        a.adjoint_into(y, &mut back, &mut ws)?;
        let x = match start {
            None => a.domain().buffer(batch)?,
            Some(start) if a.domain().check("start of ADMM", start)? == batch => Buffer::copy_of(start)?,
            Some(start) => {
                return Err(Error::shape("start of ADMM", format!("{:?}", back.dims()), start.dims()));
            }
        };
        let mut splits = Vec::with_capacity(terms.len());
        for term in terms {
            a.domain().expect_same("domain of a term", term.operator.domain())?;
            let mut z = term.operator.range().buffer(batch)?;
            term.operator.apply_into(x.tensor(), &mut z, &mut ws)?;
            splits.push((z, term.operator.range().buffer(batch)?));
        }
        let right = a.domain().buffer(batch)?;
        let system = System { a, terms, rho: self.penalty };
        let mut state = State { system, back, x, right, splits, items: batch.iter().product(), ws };
        let outcome = drive(
            &mut state,
            self.max_iterations,
            Termination::MaxIterations,
            "relative residual",
            observer,
            |state, iteration| {
                let (primal, dual) = state.step(self)?;
                if iteration <= self.adapt_for {
                    state.adapt(primal, dual)?;
                }
                let worst = primal.max(dual);
                Ok((worst, (worst <= self.tolerance).then_some(Termination::Converged)))
            },
            |state| state.x.tensor(),
        )?;
        Ok(outcome.with(state.x.freeze()))
    }
}

impl State<'_> {
    /// One iteration; returns the largest relative primal and dual residuals of the items.
    fn step(&mut self, admm: &Admm) -> Result<(f64, f64)> {
        self.right.copy_from(self.back.tensor())?;
        let rho = self.system.rho;
        let mut part =
            self.ws.take_shape(self.x.dims(), self.back.tensor().dtype(), self.back.tensor().device())?;
        for (term, (z, u)) in self.system.terms.iter().zip(&self.splits) {
            let mut target = self.ws.take_shape(z.dims(), z.tensor().dtype(), z.tensor().device())?;
            vector::lincomb(&[(1.0, z.tensor()), (-1.0, u.tensor())], &mut target)?;
            term.operator.adjoint_into(target.tensor(), &mut part, &mut self.ws)?;
            vector::accumulate(1.0, &[(rho, part.tensor())], &mut self.right)?;
            self.ws.give(target);
        }
        self.ws.give(part);
        let inner =
            ConjugateGradient { max_iterations: admm.inner_iterations, tolerance: admm.inner_tolerance };
        inner.improve(&self.system, self.right.tensor(), &mut self.x, &mut self.ws, &mut ())?;

        let mut sums = vec![[0.0; 5]; self.items];
        for (term, (z, u)) in self.system.terms.iter().zip(&mut self.splits) {
            let mut image = self.ws.take_shape(z.dims(), z.tensor().dtype(), z.tensor().device())?;
            let mut next = self.ws.take_shape(z.dims(), z.tensor().dtype(), z.tensor().device())?;
            term.operator.apply_into(self.x.tensor(), &mut image, &mut self.ws)?;
            let alpha = admm.relaxation;
            let relaxed = [(alpha, image.tensor()), (1.0 - alpha, z.tensor()), (1.0, u.tensor())];
            vector::lincomb(&relaxed, &mut next)?;
            // u ← (relaxed Kx + u) − z once z is known; until then u holds the sum.
            u.copy_from(next.tensor())?;
            term.functional.prox(Steps::Uniform(1.0 / rho), &mut next, &mut self.ws)?;
            let more = launch(Exchange(self.items), &[image.tensor(), next.tensor()], &mut [z, u])?;
            for (sum, more) in sums.iter_mut().zip(more) {
                sum.iter_mut().zip(more).for_each(|(s, m)| *s += m);
            }
            self.ws.give(image);
            self.ws.give(next);
        }
        let ratio = |part: f64, whole: f64| {
            if part == 0.0 { 0.0 } else { (part / whole.max(f64::MIN_POSITIVE)).sqrt() }
        };
        let primal = sums.iter().map(|[gap, image, z, _, _]| ratio(*gap, image.max(*z))).fold(0.0, f64::max);
        let dual = sums.iter().map(|[.., moved, u]| ratio(*moved, *u)).fold(0.0, f64::max);
        Ok((primal, dual))
    }

    /// Residual balancing; u = multiplier/ρ scales with it.
    fn adapt(&mut self, primal: f64, dual: f64) -> Result<()> {
        let factor = if primal > 10.0 * dual {
            2.0
        } else if dual > 10.0 * primal {
            0.5
        } else {
            return Ok(());
        };
        self.system.rho *= factor;
        self.splits.iter_mut().try_for_each(|(_, u)| vector::accumulate(1.0 / factor, &[], u))
    }
}

/// u ← u − z⁺ and z ← z⁺ in one pass; returns ‖Kx − z⁺‖², ‖Kx‖², ‖z⁺‖², ‖z⁺ − z‖², ‖u‖² for each item.
struct Exchange(usize);

impl Kernel for Exchange {
    type Output = Vec<[f64; 5]>;
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<Self::Output> {
        let (image, next) = (inputs[0], inputs[1]);
        let [z, u] = outputs else { return Ok(Vec::new()) };
        Ok(sweep2(z, u, self.0, |_, start, z, u| {
            let (image, next) = (&image[start..][..z.len()], &next[start..][..z.len()]);
            let mut sums = [Lanes::default(); 5];
            for i in 0..z.len() {
                u[i] -= next[i];
                let values = [image[i] - next[i], image[i], next[i], next[i] - z[i], u[i]];
                sums.iter_mut().zip(values).for_each(|(s, v)| s.add(i, (v * v).as_f64()));
                z[i] = next[i];
            }
            sums.map(Lanes::total)
        }))
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<Self::Output>> {
        let (items, arrays) = (self.0, arguments![gpu.input(0), gpu.input(1), gpu.output(0), gpu.output(1)]);
        let sums = gpu.reduce(&PROGRAM, "exchange", (items, gpu.output_len(0) / items.max(1), 5), arrays);
        Some(sums.map(|sums| (0..items).map(|i| std::array::from_fn(|s| sums[s][i])).collect()))
    }
}
