//! RED-Diff: regularisation by denoising diffusion.

use crate::error::{Error, Result};
use crate::linalg::{ConjugateGradient, LinearOperator};
use crate::prior::schedule::Grid;
use crate::sampler::PROGRAM;
use crate::sampler::consistency::Shifted;
use crate::sampler::state::STEPS;
use crate::sampler::{Problem, Sampler, State};
use crate::tensor::device::{Gpu, arguments};
use crate::tensor::random::{Noise, normal};
use crate::tensor::{Buffer, Kernel, Real, Workspace, launch, vector};

/// RED-Diff (Mardani et al. 2305.04391, alg. 1): stochastic optimisation of one image μ,
/// ½ ‖y − Aμ‖² + w ⟨ε̂ − ε, μ⟩ with w = λ σ, over falling noise levels, by Adam. One network call a step, none
/// backwards. A is expected with ‖A‖ = 1 and data of order one; λ is in those units.
///
/// It seeks a mode: its answers don't scatter like the posterior, so don't read uncertainty off them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RedDiff {
    /// Steps; the noise levels fall over them.
    pub steps: usize,
    /// Weight λ of the prior: 0.25, or 1 where the data are noisy.
    pub lambda: f64,
    /// Adam's learning rate.
    pub rate: f64,
    /// Adam's decay rates of the first and second moment.
    pub betas: (f64, f64),
    /// The noise levels.
    pub grid: Grid,
}

impl Default for RedDiff {
    fn default() -> Self {
        Self { steps: 100, lambda: 0.25, rate: 0.1, betas: (0.9, 0.99), grid: Grid::default() }
    }
}

impl Sampler for RedDiff {
    fn name(&self) -> &'static str {
        "red-diff"
    }

    fn steps(&self) -> usize {
        self.steps
    }

    /// μ starts at the problem's start, or else at A†y, found by conjugate gradients from zero.
    fn init(&self, problem: &Problem<'_>, seed: u64) -> Result<State> {
        if self.lambda.is_nan() || self.lambda < 0.0 || self.rate.is_nan() || self.rate <= 0.0 {
            let found = format!("lambda {}, rate {}", self.lambda, self.rate);
            return Err(Error::parameter(
                "RED-Diff",
                found,
                "lambda must be at least 0 and the rate positive",
            ));
        }
        self.grid.sigmas(self.steps)?;
        let (a, y) = problem.measurement()?;
        let mean = match problem.start() {
            Some(start) => Buffer::copy_of(start)?,
            None => {
                let solver = ConjugateGradient { max_iterations: 20, tolerance: 1e-3 };
                let system = Shifted { a: &a, keep: 0.0, data: 1.0 };
                Buffer::copy_of(&solver.solve(&system, &a.adjoint(y)?, None, &mut ())?.value)?
            }
        };
        let mut buffers = vec![("estimate", mean)];
        for name in ["x", "network", "gradient", "first", "second"] {
            buffers.push((name, problem.buffer()?));
        }
        Ok(State::new(seed, buffers))
    }

    fn step(&self, problem: &Problem<'_>, state: &mut State, ws: &mut Workspace) -> Result<f64> {
        let sigmas = self.grid.sigmas(self.steps)?;
        let (i, sigma) = (state.iteration, sigmas[state.iteration]);
        let (a, y) = problem.measurement()?;
        let noise = Noise::new(state.seed, STEPS).at(i as u32);
        let names = ["estimate", "x", "network", "gradient", "first", "second"];
        let [mean, x, network, gradient, first, second] = state.many(names);
        let mut z = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
        normal(noise, &mut z)?;
        vector::lincomb(&[(1.0, mean.tensor()), (sigma, z.tensor())], x)?;
        problem.denoise_into(x.tensor(), sigma, network)?;
        let mut residual = ws.take(a.range(), problem.batch())?;
        a.apply_into(mean.tensor(), &mut residual, ws)?;
        vector::accumulate(1.0, &[(-1.0, y)], &mut residual)?;
        a.adjoint_into(residual.tensor(), gradient, ws)?;
        // w (ε̂ − ε) with ε̂ = (x − D)/σ and w = λ σ: λ (x − D − σ ε) = λ (μ − D).
        let weight = self.lambda;
        vector::accumulate(1.0, &[(weight, mean.tensor()), (-weight, network.tensor())], gradient)?;
        ws.give(z);
        ws.give(residual);
        let adam = Adam { rate: self.rate, betas: self.betas, step: i as i32 + 1 };
        launch(adam, &[gradient.tensor()], &mut [mean, first, second])?;
        Ok(sigmas[i + 1])
    }
}

/// One update of Adam (Kingma and Ba 2015): outputs are the variable and its two moments.
struct Adam {
    rate: f64,
    betas: (f64, f64),
    step: i32,
}

impl Kernel for Adam {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (b1, b2) = (T::of(self.betas.0), T::of(self.betas.1));
        let rate = T::of(self.rate / (1.0 - self.betas.0.powi(self.step)));
        let correct = T::of(1.0 / (1.0 - self.betas.1.powi(self.step)));
        let [x, m, v] = outputs else { unreachable!("launched with three outputs") };
        for (((x, m), v), g) in x.iter_mut().zip(m.iter_mut()).zip(v.iter_mut()).zip(inputs[0]) {
            *m = b1 * *m + (T::one() - b1) * *g;
            *v = b2 * *v + (T::one() - b2) * *g * *g;
            *x -= rate * *m / ((*v * correct).sqrt() + T::of(1e-8));
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let n = gpu.output_len(0);
        let arrays = arguments![gpu.input(0), gpu.output(0), gpu.output(1), gpu.output(2), n];
        let rate = self.rate / (1.0 - self.betas.0.powi(self.step));
        let correct = 1.0 / (1.0 - self.betas.1.powi(self.step));
        let numbers = arguments![self.betas.0, self.betas.1, rate, correct];
        Some(gpu.run(&PROGRAM, "adam", n, &[arrays, numbers].concat()))
    }
}
