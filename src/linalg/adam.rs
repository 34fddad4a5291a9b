//! Adam, for objectives of which only noisy gradients are known.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::sweep::sweep2;
use crate::tensor::{Buffer, Kernel, Real, launch};

/// Settings of Adam (Kingma and Ba 2015, algorithm 1).
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// Step size α.
    pub rate: f64,
    /// β₁: decay of the gradient's mean.
    pub beta1: f64,
    /// β₂: decay of the squared gradient's mean.
    pub beta2: f64,
    /// ε: keeps the quotient finite.
    pub epsilon: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Self { rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// The two moments, of the size of x each, and the number of steps done.
#[derive(Debug)]
pub struct AdamState {
    settings: Adam,
    mean: Buffer,
    square: Buffer,
    steps: i32,
}

impl Adam {
    /// The state before the first step for arrays like `x`.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use wellposed::{linalg::Adam, tensor::Buffer};
    /// let mut x = Buffer::copy_of(&Tensor::new(&[1f64, -2.], &Device::Cpu)?)?;
    /// let mut adam = Adam { rate: 0.1, ..Adam::default() }.start(x.tensor())?;
    /// let gradient = x.tensor().copy()?;
    /// adam.step(&gradient, &mut x)?; // the first step is rate · sign(gradient)
    /// assert!((x.tensor().to_vec1::<f64>()?[1] + 1.9).abs() < 1e-8);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where a setting is out of range.
    pub fn start(self, x: &Tensor) -> Result<AdamState> {
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::parameter(name, beta, "must be in [0, 1)"));
            }
        }
        if !(self.rate.is_finite() && self.epsilon > 0.0) {
            return Err(Error::parameter("epsilon", self.epsilon, "must be positive, and the rate finite"));
        }
        let zeros = || Buffer::zeros(x.dims(), x.dtype(), x.device());
        Ok(AdamState { settings: self, mean: zeros()?, square: zeros()?, steps: 0 })
    }
}

impl AdamState {
    /// One step of `x` against `gradient`.
    ///
    /// # Errors
    /// [`Error::Shape`] where an array has another number of elements than the state.
    pub fn step(&mut self, gradient: &Tensor, x: &mut Buffer) -> Result<()> {
        let count = self.mean.tensor().elem_count();
        for found in [gradient, x.tensor()] {
            if found.elem_count() != count {
                return Err(Error::shape("Adam", format!("{:?}", self.mean.dims()), found.dims()));
            }
        }
        self.steps += 1;
        let Adam { rate, beta1, beta2, epsilon } = self.settings;
        let (first, second) = (1.0 - beta1.powi(self.steps), 1.0 - beta2.powi(self.steps));
        let update = Update { beta1, beta2, rate: rate / first, scale: second.sqrt().recip(), epsilon };
        launch(update, &[gradient], &mut [&mut self.mean, &mut self.square, x])
    }
}

struct Update {
    beta1: f64,
    beta2: f64,
    /// α/(1 − β₁ᵗ).
    rate: f64,
    /// 1/√(1 − β₂ᵗ).
    scale: f64,
    epsilon: f64,
}

impl Kernel for Update {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let gradient = inputs[0];
        let [mean, square, x] = outputs else { return Ok(()) };
        let [beta1, beta2, rate] = [self.beta1, self.beta2, self.rate].map(T::of);
        let [scale, epsilon, one] = [self.scale, self.epsilon, 1.0].map(T::of);
        sweep2(mean, square, 1, |_, start, mean, square| {
            let gradient = &gradient[start..];
            for ((m, s), g) in mean.iter_mut().zip(square).zip(gradient) {
                *m = beta1 * *m + (one - beta1) * *g;
                *s = beta2 * *s + (one - beta2) * *g * *g;
            }
            []
        });
        let (mean, square) = (&**mean, &**square);
        sweep2(x, &mut [], 1, |_, start, x, _| {
            for (x, (m, s)) in x.iter_mut().zip(mean[start..].iter().zip(&square[start..])) {
                *x -= rate * *m / (s.sqrt() * scale + epsilon);
            }
            []
        });
        Ok(())
    }
}
