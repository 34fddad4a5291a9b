//! AdamW (Loshchilov & Hutter 2019) and the moving average of the weights, in one pass over memory.

use rayon::prelude::*;

use crate::error::Result;
use crate::tensor::{Kernel, Real};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.99;
const EPSILON: f64 = 1e-8;
/// Elements a task.
const TASK: usize = 1 << 14;

/// One step; outputs are weights, mean, square and average.
pub(super) struct AdamW {
    pub(super) rate: f64,
    pub(super) decay: f64,
    /// Factor of the gradient.
    pub(super) shorten: f64,
    /// Number of this step, from 1.
    pub(super) step: i32,
    /// Share of the old average that stays.
    pub(super) average: f64,
}

impl Kernel for AdamW {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let [weights, mean, square, average] = outputs else { unreachable!("four outputs") };
        let (first, second) = (1.0 - BETA1.powi(self.step), 1.0 - BETA2.powi(self.step));
        let parts = weights.par_chunks_mut(TASK).zip(mean.par_chunks_mut(TASK));
        let parts = parts.zip(square.par_chunks_mut(TASK)).zip(average.par_chunks_mut(TASK));
        parts.zip(inputs[0].par_chunks(TASK)).for_each(|((((w, m), v), a), g)| {
            for i in 0..w.len() {
                let g = g[i].as_f64() * self.shorten;
                let mean = BETA1 * m[i].as_f64() + (1.0 - BETA1) * g;
                let square = BETA2 * v[i].as_f64() + (1.0 - BETA2) * g * g;
                let change = mean / first / ((square / second).sqrt() + EPSILON);
                let weight = w[i].as_f64() * (1.0 - self.rate * self.decay) - self.rate * change;
                (m[i], v[i], w[i]) = (T::of(mean), T::of(square), T::of(weight));
                a[i] = T::of(self.average * a[i].as_f64() + (1.0 - self.average) * weight);
            }
        });
        Ok(())
    }
}
