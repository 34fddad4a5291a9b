//! Data steps: how an estimate of the clean images is brought into agreement with the data.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::{ConjugateGradient, LinearOperator};
use crate::sampler::PROGRAM;
use crate::sampler::{Problem, State};
use crate::tensor::device::{Gpu, arguments};
use crate::tensor::{Buffer, Field, Kernel, Real, Space, Workspace, launch, vector};

/// The data step of a guided sampler, applied to the denoised images x̂₀ at noise level σ. A is expected with
/// ‖A‖ ≈ 1 where γ is a plain number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Consistency {
    /// No data step.
    None,
    /// Conjugate gradients on (I + γ AᴴA) x = x̂₀ + γ Aᴴy: DDS in 2-D (Chung et al. 2303.05754, eq. 20).
    Proximal {
        /// Weight γ of the data.
        gamma: f64,
        /// Iterations; 5 in the paper, more is not better.
        iterations: usize,
    },
    /// The same with γ = r²/noise², r² = s²σ²/(s²+σ²): the posterior mean for x₀ ~ N(x̂₀, r²), the variance
    /// of a Gaussian prior of standard deviation s (Song et al., ΠGDM, 2023). Needs a positive noise level.
    NoiseAware {
        /// s, the standard deviation of the clean data.
        spread: f64,
        /// Iterations.
        iterations: usize,
    },
    /// The same with γ = r²/noise², r² = s²σ: what is left of the error of a network that denoises σ grows about like
    /// √σ, more slowly than that of an isotropic Gaussian prior. Needs a positive noise level.
    Learned {
        /// s, the error that is allowed the denoised image at σ = 1. Errors that the data see can be corrected by
        /// them, so that it is larger than the network's own error.
        error: f64,
        /// Iterations.
        iterations: usize,
    },
    /// [`Consistency::Learned`] and total variation along the slice axis, by one ADMM iteration: the weights of `admm`
    /// belong to data of unit noise, λ in nats for a difference of one. The slices of a volume inform each other.
    Volume {
        /// As in [`Consistency::Learned`].
        error: f64,
        /// Across slices.
        admm: AdmmTv,
    },
    /// The same with γ = σ²/(2 λ noise²): DiffPIR (Zhu et al. 2305.08995). Needs a positive noise level.
    DiffPir {
        /// λ, the weight of the prior.
        lambda: f64,
        /// Iterations.
        iterations: usize,
    },
    /// Conjugate gradients on AᴴA x = Aᴴy started at x̂₀: DDS without noise.
    Krylov {
        /// Iterations.
        iterations: usize,
    },
    /// x̂₀ ← x̂₀ + A†(y − A x̂₀), the null-space method DDNM (Wang et al. 2212.00490); A† by conjugate
    /// gradients from zero.
    NullSpace {
        /// Iterations at most.
        iterations: usize,
        /// Relative residual of the normal equations.
        tolerance: f64,
    },
    /// One ADMM iteration for data fit and total variation along the slice axis: DDS in 3-D.
    AdmmTv(AdmmTv),
}

impl Consistency {
    /// The arrays that the data step carries from step to step.
    pub(super) fn arrays(&self) -> &'static [&'static str] {
        if matches!(self, Self::AdmmTv(_) | Self::Volume { .. }) { &["split", "dual"] } else { &[] }
    }

    pub(super) fn check(&self, problem: &Problem<'_>) -> Result<()> {
        if *self != Self::None {
            problem.measurement()?;
        }
        let needs_noise = matches!(
            self,
            Self::NoiseAware { .. } | Self::Learned { .. } | Self::DiffPir { .. } | Self::Volume { .. }
        );
        if needs_noise && problem.noise() <= 0.0 {
            return Err(Error::parameter(
                "noise",
                problem.noise(),
                "this data step needs a positive noise level",
            ));
        }
        Ok(())
    }

    /// Brings `estimate` (an array of the state) into agreement with the data.
    pub(super) fn apply(
        &self,
        problem: &Problem<'_>,
        sigma: f64,
        state: &mut State,
        ws: &mut Workspace,
    ) -> Result<()> {
        match *self {
            Self::None => Ok(()),
            Self::Proximal { gamma, iterations } => proximal(problem, 1.0, gamma, iterations, state, ws),
            Self::NoiseAware { spread, iterations } => {
                let variance = (spread * sigma).powi(2) / (spread * spread + sigma * sigma);
                let noise = problem.noise().powi(2);
                proximal(problem, noise / variance, 1.0, iterations, state, ws)
            }
            Self::Learned { error, iterations } => {
                let noise = problem.noise().powi(2);
                proximal(problem, noise / (error * error * sigma), 1.0, iterations, state, ws)
            }
            Self::DiffPir { lambda, iterations } => {
                let weight = 2.0 * lambda * (problem.noise() / sigma).powi(2);
                proximal(problem, weight, 1.0, iterations, state, ws)
            }
            Self::Krylov { iterations } => proximal(problem, 0.0, 1.0, iterations, state, ws),
            Self::NullSpace { iterations, tolerance } => {
                null_space(problem, iterations, tolerance, state, ws)
            }
            Self::AdmmTv(admm) => {
                let [estimate, split, dual] = state.many(["estimate", "split", "dual"]);
                admm.step(problem, 0.0, estimate, split, dual, ws)
            }
            Self::Volume { error, admm } => {
                let [estimate, split, dual] = state.many(["estimate", "split", "dual"]);
                let noise = problem.noise().powi(2);
                let AdmmTv { rho, lambda, .. } = admm;
                let admm = AdmmTv { rho: noise * rho, lambda: noise * lambda, ..admm };
                admm.step(problem, noise / (error * error * sigma), estimate, split, dual, ws)
            }
        }
    }
}

/// keep·I + data·AᴴA, of one image.
#[derive(Debug)]
pub(super) struct Shifted<'a> {
    pub(super) a: &'a dyn LinearOperator,
    pub(super) keep: f64,
    pub(super) data: f64,
}

impl LinearOperator for Shifted<'_> {
    fn domain(&self) -> &Space {
        self.a.domain()
    }
    fn range(&self) -> &Space {
        self.a.domain()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.a.normal_into(x, out, ws)?;
        vector::accumulate(self.data, &[(self.keep, x)], out)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.apply_into(y, out, ws)
    }
}

/// Conjugate gradients on (keep I + data AᴴA) x = keep x̂₀ + data Aᴴy from x̂₀.
fn proximal(
    problem: &Problem<'_>,
    keep: f64,
    data: f64,
    iterations: usize,
    state: &mut State,
    ws: &mut Workspace,
) -> Result<()> {
    let (a, y) = problem.measurement()?;
    let [estimate] = state.many(["estimate"]);
    let mut right = ws.take(a.domain(), problem.batch())?;
    a.adjoint_into(y, &mut right, ws)?;
    vector::accumulate(data, &[(keep, estimate.tensor())], &mut right)?;
    let solver = ConjugateGradient { max_iterations: iterations, tolerance: 0.0 };
    let solution =
        solver.solve(&Shifted { a: &a, keep, data }, right.tensor(), Some(estimate.tensor()), &mut ())?;
    ws.give(right);
    vector::copy(&solution.value, estimate)
}

fn null_space(
    problem: &Problem<'_>,
    iterations: usize,
    tolerance: f64,
    state: &mut State,
    ws: &mut Workspace,
) -> Result<()> {
    let (a, y) = problem.measurement()?;
    let [estimate] = state.many(["estimate"]);
    let mut residual = ws.take(a.range(), problem.batch())?;
    a.apply_into(estimate.tensor(), &mut residual, ws)?;
    vector::accumulate(-1.0, &[(1.0, y)], &mut residual)?;
    let mut right = ws.take(a.domain(), problem.batch())?;
    a.adjoint_into(residual.tensor(), &mut right, ws)?;
    let solver = ConjugateGradient { max_iterations: iterations, tolerance };
    let step = solver.solve(&Shifted { a: &a, keep: 0.0, data: 1.0 }, right.tensor(), None, &mut ())?;
    ws.give(residual);
    ws.give(right);
    vector::accumulate(1.0, &[(1.0, &step.value)], estimate)
}

/// One ADMM iteration on ½‖Ax − y‖² + λ‖D_z x‖₁ with D_z the forward difference along the slice axis
/// (DiffusionMBIR, Chung et al. 2211.10655, eq. 14–16): conjugate gradients on (AᴴA + ρ D_zᴴD_z) x = Aᴴy +
/// ρ D_zᴴ(z − u) from the current estimate, z ← shrink(D_z x + u, λ/ρ), u ← u + D_z x − z. z and u persist from
/// step to step. The first batch axis is the slice axis; with one slice this is plain least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdmmTv {
    /// Weight ρ of the splitting.
    pub rho: f64,
    /// Weight λ of the total variation.
    pub lambda: f64,
    /// Conjugate-gradient iterations (1 in DiffusionMBIR, 5 in DDS).
    pub iterations: usize,
}

impl AdmmTv {
    /// The published weights ρ and λ, which belong to an unfiltered back projection scaled by π/(2·views),
    /// brought to the exact adjoint of a projector with unit pixels: both times 2·views/π.
    pub fn from_paper(rho: f64, lambda: f64, iterations: usize, views: usize) -> Self {
        let scale = 2.0 * views as f64 / std::f64::consts::PI;
        Self { rho: rho * scale, lambda: lambda * scale, iterations }
    }

    /// The same problem after the operator and the data have been divided by `norm`: AᴴA and the data term
    /// shrink by norm², and so must both weights.
    pub fn rescaled(self, norm: f64) -> Self {
        Self { rho: self.rho / (norm * norm), lambda: self.lambda / (norm * norm), ..self }
    }

    /// One iteration; the data term of the problem is joined by ½ `keep` ‖x − x₀‖², with x₀ the images as given.
    pub(super) fn step(
        &self,
        problem: &Problem<'_>,
        keep: f64,
        x: &mut Buffer,
        split: &mut Buffer,
        dual: &mut Buffer,
        ws: &mut Workspace,
    ) -> Result<()> {
        let (a, y) = problem.measurement()?;
        let slices = problem.items();
        let volume = a.domain().with_shape(&[problem.batch(), a.domain().shape()].concat());
        let mut right = ws.take(a.domain(), problem.batch())?;
        a.adjoint_into(y, &mut right, ws)?;
        let add = AddAdjoint { slices, rho: self.rho };
        launch(add, &[split.tensor(), dual.tensor()], &mut [&mut right])?;
        vector::accumulate(1.0, &[(keep, x.tensor())], &mut right)?;
        let coupled = SliceCoupled { a: &a, slices, keep, rho: self.rho, volume };
        let solver = ConjugateGradient { max_iterations: self.iterations, tolerance: 0.0 };
        let solution = solver.solve(&coupled, right.tensor(), Some(x.tensor()), &mut ())?;
        ws.give(right);
        vector::copy(&solution.value, x)?;
        let update = UpdateSplit { slices, threshold: self.lambda / self.rho, field: a.domain().field() };
        launch(update, &[x.tensor()], &mut [split, dual])
    }
}

/// AᴴA + keep·I + ρ D_zᴴD_z on a whole volume.
#[derive(Debug)]
struct SliceCoupled<'a> {
    a: &'a dyn LinearOperator,
    slices: usize,
    keep: f64,
    rho: f64,
    volume: Space,
}

impl LinearOperator for SliceCoupled<'_> {
    fn domain(&self) -> &Space {
        &self.volume
    }
    fn range(&self) -> &Space {
        &self.volume
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.a.normal_into(x, out, ws)?;
        vector::accumulate(1.0, &[(self.keep, x)], out)?;
        launch(AddNormal { slices: self.slices, rho: self.rho }, &[x], &mut [out])
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.apply_into(y, out, ws)
    }
}

/// out ← out + ρ D_zᵀD_z x.
struct AddNormal {
    slices: usize,
    rho: f64,
}

impl Kernel for AddNormal {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (x, rho) = (inputs[0], T::of(self.rho));
        let size = x.len() / self.slices;
        outputs[0].par_chunks_mut(size).enumerate().for_each(|(s, out)| {
            let here = &x[s * size..(s + 1) * size];
            let mut against = |other: &[T]| {
                for (o, (x, n)) in out.iter_mut().zip(here.iter().zip(other)) {
                    *o += rho * (*x - *n);
                }
            };
            if s > 0 {
                against(&x[(s - 1) * size..s * size]);
            }
            if s + 1 < self.slices {
                against(&x[(s + 1) * size..(s + 2) * size]);
            }
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let n = gpu.output_len(0);
        let arguments = arguments![gpu.input(0), gpu.output(0), n, n / self.slices, self.rho];
        Some(gpu.run(&PROGRAM, "add_normal", n, arguments))
    }
}

/// out ← out + ρ D_zᵀ(z − u).
struct AddAdjoint {
    slices: usize,
    rho: f64,
}

impl Kernel for AddAdjoint {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (z, u, rho) = (inputs[0], inputs[1], T::of(self.rho));
        let size = z.len() / self.slices;
        outputs[0].par_chunks_mut(size).enumerate().for_each(|(s, out)| {
            let mut add = |slice: usize, weight: T| {
                let part = slice * size..(slice + 1) * size;
                for (o, (z, u)) in out.iter_mut().zip(z[part.clone()].iter().zip(&u[part])) {
                    *o += weight * (*z - *u);
                }
            };
            if s > 0 {
                add(s - 1, rho);
            }
            if s + 1 < self.slices {
                add(s, -rho);
            }
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let (z, u, n) = (gpu.input(0), gpu.input(1), gpu.output_len(0));
        let arguments = arguments![z, u, gpu.output(0), n, n / self.slices, self.rho];
        Some(gpu.run(&PROGRAM, "add_adjoint", n, arguments))
    }
}

/// v = D_z x + u; z ← shrink(v, threshold); u ← v − z.
struct UpdateSplit {
    slices: usize,
    threshold: f64,
    field: Field,
}

impl Kernel for UpdateSplit {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (x, threshold, zero) = (inputs[0], T::of(self.threshold), T::zero());
        let size = x.len() / self.slices;
        let [z, u] = outputs else { unreachable!("launched with two outputs") };
        z.par_chunks_mut(size).zip(u.par_chunks_mut(size)).enumerate().for_each(|(s, (z, u))| {
            if s + 1 == self.slices {
                return;
            }
            let (here, above) = (&x[s * size..(s + 1) * size], &x[(s + 1) * size..(s + 2) * size]);
            let width = if self.field == Field::Complex { 2 } else { 1 };
            for i in (0..size).step_by(width) {
                let v = |j: usize| above[j] - here[j] + u[j];
                let length = if width == 1 { v(i).abs() } else { v(i).hypot(v(i + 1)) };
                let keep = if length > threshold { T::one() - threshold / length } else { zero };
                for j in i..i + width {
                    let value = above[j] - here[j] + u[j];
                    z[j] = keep * value;
                    u[j] = value - z[j];
                }
            }
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let size = gpu.output_len(0) / self.slices;
        let n = gpu.output_len(0) - size;
        let width: usize = if self.field == Field::Complex { 2 } else { 1 };
        let (x, z, u) = (gpu.input(0), gpu.output(0), gpu.output(1));
        let arguments = arguments![x, z, u, n, size, width, self.threshold];
        Some(gpu.run(&PROGRAM, "update_split", n / width, arguments))
    }
}
