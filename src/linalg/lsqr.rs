//! LSQR: least squares by Golub–Kahan bidiagonalisation.

use candle_core::Tensor;

use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::linalg::sweep::{PROGRAM, sweep};
use crate::observe::{Observer, Solution, Termination, drive};
use crate::tensor::device::{Gpu, arguments};
use crate::tensor::{Buffer, Kernel, Real, Workspace, launch, vector};

/// LSQR (Paige and Saunders 1982) for min ‖A x − y‖² + μ‖x‖², batched: items have their own
/// bidiagonalisation. In exact arithmetic it gives the iterates of [`crate::linalg::Cgls`], but keeps its
/// accuracy on ill-conditioned problems. Memory: four arrays of the size of x, two of the size of y.
#[derive(Clone, Copy, Debug)]
pub struct Lsqr {
    /// Iterations at most.
    pub max_iterations: usize,
    /// Stop when the estimates give ‖Āᴴr̄‖ ≤ tolerance · ‖Ā‖ ‖r̄‖ or ‖r‖ ≤ tolerance · ‖y‖ for every item
    /// (Ā, r̄: with damping); 0 runs all iterations.
    pub tolerance: f64,
    /// μ ≥ 0, the Tikhonov weight.
    pub damping: f64,
}

impl Default for Lsqr {
    fn default() -> Self {
        Self { max_iterations: 100, tolerance: 1e-6, damping: 0.0 }
    }
}

/// The scalars of one item's recurrence, named as in the paper.
#[derive(Clone, Copy, Default)]
struct Scalars {
    alpha: f64,
    rho_bar: f64,
    phi_bar: f64,
    /// ‖y‖.
    size: f64,
    /// Σ (α² + β² + μ): an estimate of ‖Ā‖² in the Frobenius norm.
    frobenius: f64,
    /// The part of the residual that damping leaves behind, squared.
    left: f64,
    /// How far this item is from its tolerance: the smaller of the two tests' left sides.
    measure: f64,
}

struct State<'a> {
    a: &'a dyn LinearOperator,
    x: Buffer,
    u: Buffer,
    v: Buffer,
    w: Buffer,
    image: Buffer,
    back: Buffer,
    scalars: Vec<Scalars>,
    ws: Workspace,
}

impl Lsqr {
    /// Solves from zero. The observed measure is the largest of the items' relative residuals (of the normal
    /// equations, or of the system where that is smaller).
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{linalg::{LinearOperator, Lsqr}, operator::Diagonal, tensor::Space};
    /// let space = Space::real(&[2], DType::F64, &Device::Cpu);
    /// let a = Diagonal::real(&space, &Tensor::new(&[2f64, 4.], &Device::Cpu)?)?;
    /// let y = Tensor::new(&[2f64, 8.], &Device::Cpu)?;
    /// let x = Lsqr::default().solve(&a, &y, &mut ())?.value.to_vec1::<f64>()?;
    /// assert!((x[0] - 1.0).abs() < 1e-9 && (x[1] - 2.0).abs() < 1e-9);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// A shape error where `y` is not in the range of `a`.
    pub fn solve(&self, a: &dyn LinearOperator, y: &Tensor, observer: &mut dyn Observer) -> Result<Solution> {
        let batch = a.range().check("data", y)?;
        let items = batch.iter().product::<usize>();
        let mut state = State {
            a,
            x: a.domain().buffer(batch)?,
            u: Buffer::copy_of(y)?,
            v: a.domain().buffer(batch)?,
            w: a.domain().buffer(batch)?,
            image: a.range().buffer(batch)?,
            back: a.domain().buffer(batch)?,
            scalars: vec![Scalars::default(); items],
            ws: Workspace::new(),
        };
        state.start()?;
        let outcome = drive(
            &mut state,
            self.max_iterations,
            Termination::MaxIterations,
            "relative residual",
            observer,
            |state, _| {
                state.step(self.damping.sqrt(), self.tolerance)?;
                let worst = state.scalars.iter().map(|s| s.measure).fold(0.0, f64::max);
                Ok((worst, (worst <= self.tolerance).then_some(Termination::Converged)))
            },
            |state| state.x.tensor(),
        )?;
        Ok(outcome.with(state.x.freeze()))
    }
}

/// Scales every item of `x` to unit norm and returns the norms; a zero item stays.
fn normalise(x: &mut Buffer, items: usize) -> Result<Vec<f64>> {
    let sizes = vector::norm(x.tensor(), items)?;
    let inverse: Vec<f64> = sizes.iter().map(|s| if *s > 0.0 { 1.0 / s } else { 0.0 }).collect();
    launch(ScaleItems(&inverse), &[], &mut [x])?;
    Ok(sizes)
}

/// xᵢ ← fᵢ xᵢ for each item i.
struct ScaleItems<'a>(&'a [f64]);

impl Kernel for ScaleItems<'_> {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        sweep(outputs[0], self.0.len(), |item, _, x| {
            let factor = T::of(self.0[item]);
            x.iter_mut().for_each(|x| *x *= factor);
            []
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let (x, n) = (gpu.output(0), gpu.output_len(0));
        let size = (n / self.0.len().max(1)).max(1);
        let run = |factors| gpu.run(&PROGRAM, "scale_items", n, arguments![x, n, size, factors]);
        Some(gpu.upload(self.0).and_then(run))
    }
}

impl State<'_> {
    fn start(&mut self) -> Result<()> {
        let items = self.scalars.len();
        let beta = normalise(&mut self.u, items)?;
        self.a.adjoint_into(self.u.tensor(), &mut self.v, &mut self.ws)?;
        let alpha = normalise(&mut self.v, items)?;
        self.w.copy_from(self.v.tensor())?;
        for ((s, alpha), beta) in self.scalars.iter_mut().zip(alpha).zip(beta) {
            *s = Scalars { alpha, rho_bar: alpha, phi_bar: beta, size: beta, ..Scalars::default() };
        }
        Ok(())
    }

    fn step(&mut self, damp: f64, tolerance: f64) -> Result<()> {
        let items = self.scalars.len();
        let ones = vec![1.0; items];
        // β u ← A v − α u; α v ← Aᴴu − β v.
        self.a.apply_into(self.v.tensor(), &mut self.image, &mut self.ws)?;
        let minus: Vec<f64> = self.scalars.iter().map(|s| -s.alpha).collect();
        vector::axpby_items(&ones, self.image.tensor(), &minus, &mut self.u)?;
        let beta = normalise(&mut self.u, items)?;
        self.a.adjoint_into(self.u.tensor(), &mut self.back, &mut self.ws)?;
        let minus: Vec<f64> = beta.iter().map(|b| -b).collect();
        vector::axpby_items(&ones, self.back.tensor(), &minus, &mut self.v)?;
        let alpha = normalise(&mut self.v, items)?;

        let mut along = vec![0.0; items];
        let mut back = vec![0.0; items];
        for (i, s) in self.scalars.iter_mut().enumerate() {
            if s.measure <= tolerance && s.frobenius > 0.0 || s.rho_bar == 0.0 {
                continue;
            }
            (along[i], back[i]) = s.rotate(alpha[i], beta[i], damp);
        }
        vector::axpby_items(&along, self.w.tensor(), &ones, &mut self.x)?;
        vector::axpby_items(&ones, self.v.tensor(), &back, &mut self.w)
    }
}

impl Scalars {
    /// The two plane rotations; returns the steps of x along w and of the next w along this one.
    fn rotate(&mut self, alpha: f64, beta: f64, damp: f64) -> (f64, f64) {
        self.frobenius += self.alpha * self.alpha + beta * beta + damp * damp;
        let damped = self.rho_bar.hypot(damp);
        let psi = damp / damped * self.phi_bar;
        self.phi_bar *= self.rho_bar / damped;
        let rho = damped.hypot(beta);
        let (c, s) = (damped / rho, beta / rho);
        let theta = s * alpha;
        let phi = c * self.phi_bar;
        self.rho_bar = -c * alpha;
        self.phi_bar *= s;
        self.alpha = alpha;
        self.left += psi * psi;
        let residual = (self.phi_bar * self.phi_bar + self.left).sqrt();
        let slope = self.phi_bar.abs() * alpha * c.abs();
        let normal = if residual > 0.0 { slope / (self.frobenius.sqrt() * residual) } else { 0.0 };
        self.measure = normal.min(if self.size > 0.0 { residual / self.size } else { 0.0 });
        (phi / rho, -theta / rho)
    }
}
