//! The primal-dual hybrid gradient method.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::sweep::{Lanes, PROGRAM, Towards, sweep, sweep2};
use crate::linalg::{LinearOperator, PowerIteration, Proximal, Steps, Term};
use crate::observe::{Observer, Solution, Termination, drive};
use crate::tensor::device::{Gpu, arguments};
use crate::tensor::simd::dispatch;
use crate::tensor::{Buffer, Kernel, Real, Workspace, launch, vector};

/// The primal-dual hybrid gradient method (Chambolle and Pock 2011; over-relaxed as in Condat 2013) for
/// min_x g(x) + Σᵢ fᵢ(Kᵢ x) with convex g and fᵢ:
///
/// x̃ = prox_{τg}(x − τ Σ Kᵢᴴ yᵢ), ỹᵢ = prox_{σᵢfᵢ\*}(yᵢ + σᵢ Kᵢ(2x̃ − x)), (x, y) ← (x, y) + ρ((x̃, ỹ) − (x, y)).
///
/// One application of each Kᵢ and each adjoint an iteration. Memory: four arrays of the size of x, and two
/// of the size of each Kᵢ x.
#[derive(Clone, Copy, Debug)]
pub struct Pdhg {
    /// Iterations at most.
    pub max_iterations: usize,
    /// Stop when the step to (x̃, ỹ), each part divided by the root of its step size, is at most this part
    /// of (x̃, ỹ) itself for every item; 0 runs all iterations. The quantity bounds both optimality residuals.
    pub tolerance: f64,
    /// ρ in (0, 2): 1 is the plain method, values near 1.9 are usually fastest.
    pub relaxation: f64,
}

impl Default for Pdhg {
    fn default() -> Self {
        Self { max_iterations: 500, tolerance: 1e-4, relaxation: 1.8 }
    }
}

/// One step size, or one for each element.
#[derive(Clone, Debug)]
pub enum StepSize {
    /// The same for all elements.
    Uniform(f64),
    /// One for each stored element of an item.
    Each(Tensor),
}

impl StepSize {
    fn steps(&self) -> Steps<'_> {
        match self {
            Self::Uniform(step) => Steps::Uniform(*step),
            Self::Each(each) => Steps::Each(each),
        }
    }
}

/// Step sizes τ of x and σᵢ of each dual block. The method converges where ‖Σ^½ K T^½‖ ≤ 1.
#[derive(Clone, Debug)]
pub struct StepSizes {
    /// τ.
    pub primal: StepSize,
    /// σᵢ, one for each term.
    pub dual: Vec<StepSize>,
}

impl StepSizes {
    /// Uniform steps from operator norms, which are estimated by power iteration: σᵢ = c/(`balance`·‖Kᵢ‖²) and
    /// τ = c·`balance`, with the largest c that converges. So each block counts alike, whatever its scale.
    /// `balance` > 0 trades progress in x for progress in y: about the size of x over the size of the dual
    /// variables in units of Kᵢ is good, and 1 where one doesn't know.
    ///
    /// # Errors
    /// [`Error::Parameter`] where `balance` is not positive, there are no terms, or an operator is zero.
    pub fn balanced(terms: &[Term<'_>], balance: f64) -> Result<Self> {
        if !(balance > 0.0 && balance.is_finite()) {
            return Err(Error::parameter("balance", balance, "must be positive"));
        }
        let Some(first) = terms.first() else {
            return Err(Error::parameter("terms", 0, "at least one is needed"));
        };
        let power = PowerIteration { max_iterations: 60, tolerance: 1e-3, seed: 0 };
        let mut squares = Vec::with_capacity(terms.len());
        for term in terms {
            let norm = power.norm(term.operator)?;
            if norm == 0.0 {
                return Err(Error::parameter("operator of a term", "0", "a zero operator has no step size"));
            }
            squares.push(norm * norm);
        }
        let domain = first.operator.domain();
        let mut part = domain.buffer(&[])?;
        let joint = if terms.len() == 1 {
            1.0
        } else {
            power.largest(domain, |x, out, ws| {
                vector::fill(0.0, out)?;
                for (term, square) in terms.iter().zip(&squares) {
                    term.operator.normal_into(x, &mut part, ws)?;
                    vector::accumulate(1.0, &[(1.0 / square, part.tensor())], out)?;
                }
                Ok(())
            })?
        };
        // Power iteration comes from below; 2 % cover what it lacks.
        let c = 1.0 / (1.02 * joint.sqrt());
        Ok(Self {
            primal: StepSize::Uniform(c * balance),
            dual: squares.iter().map(|square| StepSize::Uniform(c / (balance * square))).collect(),
        })
    }

    /// Diagonal steps (Pock and Chambolle 2011, equation 10 with α = 1) from sums of magnitudes:
    /// τⱼ = `balance`/Σᵢ|Kᵢⱼ| and σᵢ = 1/(`balance`·Σⱼ|Kᵢⱼ|). `columns` are the sums Σᵢ|Kᵢⱼ| over all terms,
    /// `rows` the sums Σⱼ|Kᵢⱼ| of each term; see [`magnitude_sums`]. Elements with sum 0 get the step 1.
    ///
    /// # Errors
    /// [`Error::Parameter`] where `balance` is not positive.
    pub fn diagonal(columns: &Tensor, rows: &[Tensor], balance: f64) -> Result<Self> {
        if !(balance > 0.0 && balance.is_finite()) {
            return Err(Error::parameter("balance", balance, "must be positive"));
        }
        let inverse = |sums: &Tensor, scale: f64| -> Result<StepSize> {
            let mut out = Buffer::copy_of(sums)?;
            launch(InverseOrOne(scale), &[], &mut [&mut out])?;
            Ok(StepSize::Each(out.freeze()))
        };
        let dual = rows.iter().map(|sums| inverse(sums, 1.0 / balance)).collect::<Result<_>>()?;
        Ok(Self { primal: inverse(columns, balance)?, dual })
    }
}

/// The sums Σᵢ|Kᵢⱼ| of columns and Σⱼ|Kᵢⱼ| of rows of a real operator whose matrix has no negative entries
/// (a projector, a blur, a mask): Kᵀ1 and K1.
///
/// # Errors
/// [`Error::Parameter`] where the operator is complex.
pub fn magnitude_sums(k: &dyn LinearOperator) -> Result<(Tensor, Tensor)> {
    for space in [k.domain(), k.range()] {
        if space.components() != 1 {
            return Err(Error::parameter("operator", space, "sums of magnitudes need a real operator"));
        }
    }
    let ones = |space: &crate::tensor::Space| -> Result<Tensor> {
        let mut out = space.buffer(&[])?;
        vector::fill(1.0, &mut out)?;
        Ok(out.freeze())
    };
    Ok((k.adjoint(&ones(k.range())?)?, k.apply(&ones(k.domain())?)?))
}

struct State<'a> {
    terms: &'a [Term<'a>],
    steps: &'a StepSizes,
    x: Buffer,
    next: Buffer,
    scratch: Buffer,
    duals: Vec<Buffer>,
    items: usize,
    ws: Workspace,
}

impl Pdhg {
    /// Minimises g(x) + Σ fᵢ(Kᵢ x) from `start`, whose batch axes are those of the problem.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{functional::*, linalg::*, operator::Gradient, tensor::Space};
    /// // Total-variation denoising of a step: min ½‖x − y‖² + ½ TV(x).
    /// let line = Space::real(&[4], DType::F64, &Device::Cpu);
    /// let y = Tensor::new(&[0f64, 0., 4., 4.], &Device::Cpu)?;
    /// let gradient = Gradient::new(&line, &[0])?;
    /// let tv = GroupNorm::new(gradient.range(), 0.5)?;
    /// let terms = [Term::new(&gradient, &tv)?];
    /// let fidelity = SquaredDistance::new(&line, 1.0)?.from(&y)?;
    /// let pdhg = Pdhg { tolerance: 1e-10, ..Pdhg::default() };
    /// let solution = pdhg.solve(&fidelity, &terms, &StepSizes::balanced(&terms, 1.0)?, &y, &mut ())?;
    /// let x = solution.value.to_vec1::<f64>()?;
    /// assert!((x[0] - 0.25).abs() < 1e-8 && (x[3] - 3.75).abs() < 1e-8);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// A shape error where `start` or a term does not lie in the domain of g, [`Error::Parameter`] where the
    /// relaxation is out of range or the number of step sizes is not that of the terms.
    pub fn solve(
        &self,
        g: &dyn Proximal,
        terms: &[Term<'_>],
        steps: &StepSizes,
        start: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        if !(self.relaxation > 0.0 && self.relaxation < 2.0) {
            return Err(Error::parameter("relaxation", self.relaxation, "must be in (0, 2)"));
        }
        if steps.dual.len() != terms.len() {
            return Err(Error::parameter(
                "dual step sizes",
                steps.dual.len(),
                format!("{} terms", terms.len()),
            ));
        }
        let batch = g.domain().check("start of PDHG", start)?;
        let mut duals = Vec::with_capacity(terms.len());
        for term in terms {
            g.domain().expect_same("domain of a term", term.operator.domain())?;
            duals.push(term.operator.range().buffer(batch)?);
        }
        let buffer = || g.domain().buffer(batch);
        let mut state = State {
            terms,
            steps,
            x: Buffer::copy_of(start)?,
            next: buffer()?,
            scratch: buffer()?,
            duals,
            items: batch.iter().product(),
            ws: Workspace::new(),
        };
        let outcome = drive(
            &mut state,
            self.max_iterations,
            Termination::MaxIterations,
            "relative step",
            observer,
            |state, _| {
                let worst = state.step(g, self.relaxation)?;
                Ok((worst, (worst <= self.tolerance).then_some(Termination::Converged)))
            },
            |state| state.next.tensor(),
        )?;
        // x̃ rather than x: it lies in the domain of g (bounds hold exactly).
        let value = if outcome.steps > 0 { state.next } else { state.x };
        Ok(outcome.with(value.freeze()))
    }
}

impl State<'_> {
    /// scratch ← Σ Kᵢᴴ yᵢ.
    fn pull_back(&mut self) -> Result<()> {
        for (index, (term, dual)) in self.terms.iter().zip(&self.duals).enumerate() {
            let (operator, dual) = (term.operator, dual.tensor());
            match index {
                0 => operator.adjoint_into(dual, &mut self.scratch, &mut self.ws)?,
                _ => operator.add_adjoint(dual, &mut self.scratch, &mut self.ws)?,
            }
        }
        if self.terms.is_empty() {
            vector::fill(0.0, &mut self.scratch)?;
        }
        Ok(())
    }

    /// One iteration; returns the largest relative step of the items.
    fn step(&mut self, g: &dyn Proximal, relaxation: f64) -> Result<f64> {
        self.pull_back()?;
        let tau = self.steps.primal.steps();
        step_from(self.x.tensor(), tau, -1.0, &mut self.scratch)?;
        std::mem::swap(&mut self.next, &mut self.scratch);
        g.prox(tau, &mut self.next, &mut self.ws)?;
        let (next, beyond) = (self.next.tensor(), Some(&mut self.scratch));
        let mut sums = relax(relaxation, tau, next, &mut self.x, beyond, self.items)?;
        for ((term, dual), step) in self.terms.iter().zip(&mut self.duals).zip(&self.steps.dual) {
            let (sigma, space) = (step.steps(), term.operator.range());
            let mut image = self.ws.take_shape(dual.dims(), space.dtype(), space.device())?;
            term.operator.apply_into(self.scratch.tensor(), &mut image, &mut self.ws)?;
            let more = term.functional.relax_dual(sigma, relaxation, &mut image, dual, &mut self.ws)?;
            self.ws.give(image);
            sums.iter_mut().zip(more).for_each(|(s, m)| (s[0], s[1]) = (s[0] + m[0], s[1] + m[1]));
        }
        let relative =
            |[step, size]: &[f64; 2]| if *step == 0.0 { 0.0 } else { step / size.max(f64::MIN_POSITIVE) };
        Ok(sums.iter().map(relative).fold(0.0, f64::max).sqrt())
    }
}

/// [`Proximal::relax_dual`] in three passes.
pub(crate) fn relax_dual<F: Proximal + ?Sized>(
    functional: &F,
    sigma: Steps<'_>,
    rho: f64,
    image: &mut Buffer,
    y: &mut Buffer,
    ws: &mut Workspace,
) -> Result<Vec<[f64; 2]>> {
    step_from(y.tensor(), sigma, 1.0, image)?;
    functional.prox_conjugate(sigma, image, ws)?;
    let items = y.tensor().elem_count() / functional.domain().elements().max(1);
    relax(rho, sigma, image.tensor(), y, None, items)
}

/// out ← base + sign · steps · out, in one pass.
fn step_from(base: &Tensor, steps: Steps<'_>, sign: f64, out: &mut Buffer) -> Result<()> {
    struct StepFrom(f64);
    impl Kernel for StepFrom {
        type Output = ();
        fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let (base, steps) = (inputs[0], inputs.get(1));
            let (scale, items) = (T::of(self.0), steps.map_or(1, |s| base.len() / s.len().max(1)));
            let size = base.len() / items.max(1);
            sweep(outputs[0], items, |item, start, out| {
                let base = &base[start..];
                match steps {
                    None => out.iter_mut().zip(base).for_each(|(o, b)| *o = *b + scale * *o),
                    Some(steps) => {
                        let own = base.iter().zip(&steps[start - item * size..]);
                        out.iter_mut().zip(own).for_each(|(o, (b, s))| *o = *b + scale * *s * *o);
                    }
                }
                []
            });
            Ok(())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
            let (base, out, n) = (gpu.input(0), gpu.output(0), gpu.output_len(0));
            let (steps, period) = if gpu.inputs() > 1 { (gpu.input(1), gpu.input_len(1)) } else { (base, 0) };
            Some(gpu.run(&PROGRAM, "step_from", n, arguments![base, steps, period, out, n, self.0]))
        }
    }
    match steps {
        Steps::Uniform(step) => launch(StepFrom(sign * step), &[base], &mut [out]),
        Steps::Each(each) => launch(StepFrom(sign), &[base, each], &mut [out]),
    }
}

/// x ← x + ρ (x̃ − x) and beyond ← 2x̃ − x, in one pass; returns Σ (x̃ − x)²/step and Σ x̃²/step for each item.
fn relax(
    rho: f64,
    steps: Steps<'_>,
    next: &Tensor,
    x: &mut Buffer,
    beyond: Option<&mut Buffer>,
    items: usize,
) -> Result<Vec<[f64; 2]>> {
    let (step, inputs) = match steps {
        Steps::Uniform(step) => (step, vec![next]),
        Steps::Each(each) => (1.0, vec![next, each]),
    };
    let mut outputs = vec![x];
    outputs.extend(beyond);
    launch(Relax { rho, step, items }, &inputs, &mut outputs)
}

struct Relax {
    rho: f64,
    step: f64,
    items: usize,
}

impl Kernel for Relax {
    type Output = Vec<[f64; 2]>;
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<Self::Output> {
        let Self { rho, step, items } = self;
        let size = inputs[0].len() / items.max(1);
        let (rho, inverse) = (T::of(rho), 1.0 / step);
        let (x, beyond) = outputs.split_at_mut(1);
        let beyond: &mut [T] = if let [beyond] = beyond { beyond } else { &mut [] };
        Ok(sweep2(x[0], beyond, items, |item, start, x, beyond| {
            let next = &inputs[0][start..][..x.len()];
            let steps = inputs.get(1).map(|s| &s[start - item * size..][..x.len()]);
            for (beyond, (next, x)) in beyond.iter_mut().zip(next.iter().zip(&*x)) {
                *beyond = *next + *next - *x;
            }
            match steps {
                None => dispatch(Towards { rho, next, factors: None, x }).map(|sum| inverse * sum),
                Some(steps) => {
                    let (mut moved, mut total) = (Lanes::default(), Lanes::default());
                    for i in 0..x.len() {
                        let (off, weight) = (next[i] - x[i], 1.0 / steps[i].as_f64());
                        moved.add(i, weight * (off * off).as_f64());
                        total.add(i, weight * (next[i] * next[i]).as_f64());
                        x[i] += rho * off;
                    }
                    [moved.total(), total.total()]
                }
            }
        }))
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<Self::Output>> {
        let Self { rho, step, items } = *self;
        let (next, x, stepped) = (gpu.input(0), gpu.output(0), gpu.inputs() > 1);
        let extended = gpu.outputs() > 1;
        let (steps, beyond) = (gpu.input(usize::from(stepped)), gpu.output(usize::from(extended)));
        let shape = (items, gpu.output_len(0) / items.max(1), 2);
        let arguments = arguments![next, steps, stepped, x, beyond, extended, rho, 1.0 / step];
        let sums = gpu.reduce(&PROGRAM, "relax", shape, arguments);
        Some(sums.map(|sums| (0..items).map(|i| [sums[0][i], sums[1][i]]).collect()))
    }
}

/// out ← scale/out, and 1 where out is 0.
struct InverseOrOne(f64);

impl Kernel for InverseOrOne {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let scale = T::of(self.0);
        sweep(outputs[0], 1, |_, _, out| {
            out.iter_mut().for_each(|o| *o = if *o > T::zero() { scale / *o } else { T::one() });
            []
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let n = gpu.output_len(0);
        Some(gpu.run(&PROGRAM, "inverse_or_one", n, arguments![gpu.output(0), n, self.0]))
    }
}
