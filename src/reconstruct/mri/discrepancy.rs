//! When to stop: as soon as data are fitted as well as their noise lets them be.

use std::ops::ControlFlow;

use candle_core::Tensor;

use super::Scaled;
use crate::error::{Error, Result};
use crate::observe::{Observer, Solution, Step, Termination};
use crate::operator::mri::Encoding;
use crate::tensor::{Buffer, Workspace, vector};

/// The discrepancy principle (Morozov 1966): an iteration ends with the first image for which ‖A x − y‖² ≤ τ E‖n‖², over all
/// slices together. Further steps would only fit the noise n. It costs an application of A at every step.
///
/// Conjugate gradients without a ridge are regularised by it; penalised methods are saved steps, where their λ lets the
/// residual become that small at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Discrepancy {
    /// Standard deviation of the noise of the real and of the imaginary part of each sample, in units of the data: of
    /// a noise scan after [`super::prewhiten`], or from [`super::estimate_noise`].
    pub noise: f64,
    /// τ, usually 1, or a little more where the noise is uncertain.
    pub factor: f64,
}

impl Discrepancy {
    /// τ = 1.
    pub fn new(noise: f64) -> Self {
        Self { noise, factor: 1.0 }
    }

    fn check(self) -> Result<Self> {
        for (name, value) in [("noise", self.noise), ("factor of the noise", self.factor)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::parameter(name, value, "must be positive"));
            }
        }
        Ok(self)
    }
}

/// Passes steps on, and ends the method by the discrepancy.
pub(super) struct Watched<'a, E> {
    observer: &'a mut dyn Observer,
    encoding: &'a E,
    kspace: &'a Tensor,
    /// τ E‖n‖² in scaled units.
    limit: Option<f64>,
    residual: Option<Buffer>,
    workspace: Workspace,
    reached: bool,
    failed: Option<Error>,
}

impl<'a, E: Encoding> Watched<'a, E> {
    pub(super) fn new(
        stop: Option<Discrepancy>,
        encoding: &'a E,
        scaled: &'a Scaled,
        observer: &'a mut dyn Observer,
    ) -> Result<Self> {
        let kspace = &scaled.kspace;
        let limit = match stop.map(Discrepancy::check).transpose()? {
            None => None,
            Some(Discrepancy { noise, factor }) => {
                let items = kspace.elem_count() / encoding.range().elements();
                Some(factor * (noise / scaled.unit).powi(2) * encoding.noise_energy()? * items as f64)
            }
        };
        let (workspace, residual) = (Workspace::new(), None);
        Ok(Self { observer, encoding, kspace, limit, residual, workspace, reached: false, failed: None })
    }

    /// ‖A x − y‖².
    fn residual(&mut self, x: &Tensor) -> Result<f64> {
        let residual = match &mut self.residual {
            Some(buffer) => buffer,
            none => {
                none.insert(Buffer::zeros(self.kspace.dims(), self.kspace.dtype(), self.kspace.device())?)
            }
        };
        self.encoding.apply_into(x, residual, &mut self.workspace)?;
        vector::accumulate(1.0, &[(-1.0, self.kspace)], residual)?;
        Ok(vector::inner(residual.tensor(), residual.tensor(), 1)?[0])
    }

    /// The solution, which converged where the noise's level was reached.
    pub(super) fn judge(self, solution: Solution) -> Result<Solution> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let termination = if self.reached && solution.termination == Termination::Cancelled {
            Termination::Converged
        } else {
            solution.termination
        };
        Ok(Solution { termination, ..solution })
    }
}

impl<E: Encoding> Observer for Watched<'_, E> {
    fn observe(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        self.observer.observe(step)?;
        let Some(limit) = self.limit else { return ControlFlow::Continue(()) };
        match self.residual(step.estimate) {
            Ok(residual) => self.reached = residual <= limit,
            Err(error) => self.failed = Some(error),
        }
        if self.reached || self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::linalg::LinearOperator;
    use crate::operator::mri::{Pattern, Sampling, Sense, birdcage, measure};
    use crate::reconstruct::mri::{
        ConjugateGradientSense, TotalVariationSense, WaveletSense, estimate_noise,
    };
    use crate::tensor::Real;
    use crate::tensor::random::Noise;
    use crate::testing::relative_difference;

    const SIDE: usize = 64;

    /// Two slices with noise of this deviation, and their truth.
    fn scan(noise: f64) -> (Sense, Tensor, Tensor) {
        let maps = birdcage(4, [SIDE, SIDE], 1, DType::F32, &Device::Cpu).unwrap();
        let pattern = Pattern::PoissonDisc { calibration: 12, growth: 1.0, corners: true };
        let mask = Sampling { pattern, acceleration: 2.5, seed: 2 }.draw([SIDE, SIDE]).unwrap();
        let encoding = Sense::new(&maps, &mask).unwrap();
        let value = |i: usize| {
            let (slice, y, x) = (i / SIDE / SIDE, i / SIDE % SIDE, i % SIDE);
            let r = (y as f64 - 30.0).hypot(x as f64 - 33.0);
            let disc = |radius: f64| f64::from(u8::from(r < radius));
            [disc(25.0) + 0.7 * disc(10.0 + 5.0 * slice as f64), 0.3 * disc(18.0)]
        };
        let truth = f64::tensor((0..2 * SIDE * SIDE).flat_map(value).collect(), &[2, SIDE, SIDE, 2]).unwrap();
        let truth = truth.to_dtype(DType::F32).unwrap();
        let kspace = measure(&encoding, &truth, noise, Noise::new(5, 0)).unwrap();
        (encoding, truth, kspace)
    }

    /// ‖A x − y‖² over what the noise makes of it.
    fn excess(encoding: &Sense, x: &Tensor, kspace: &Tensor, noise: f64) -> f64 {
        let residual = (encoding.apply(x).unwrap() - kspace).unwrap();
        let size = vector::inner(&residual, &residual, 1).unwrap()[0];
        size / (noise * noise * 2.0 * encoding.noise_energy().unwrap())
    }

    #[test]
    fn the_truth_leaves_the_noise() {
        let (encoding, truth, kspace) = scan(0.1);
        let found = excess(&encoding, &truth, &kspace, 0.1);
        assert!((found - 1.0).abs() < 0.03, "{found}");
    }

    #[test]
    fn conjugate_gradients_stop_at_the_noise_and_not_before() {
        const SIGMA: f64 = 0.02;
        let (encoding, truth, kspace) = scan(SIGMA);
        let excess = |x: &Tensor| excess(&encoding, x, &kspace, SIGMA);
        let unlimited =
            ConjugateGradientSense { lambda: 0.0, max_iterations: 60, tolerance: 0.0, ..Default::default() };
        let stopping = ConjugateGradientSense { stop: Some(Discrepancy::new(SIGMA)), ..unlimited };
        let stopped = stopping.reconstruct(&encoding, &kspace, &mut ()).unwrap();
        assert_eq!(stopped.termination, Termination::Converged);
        assert!(stopped.steps > 1 && stopped.steps < 30, "{} steps", stopped.steps);
        assert!(excess(&stopped.value) < 1.001);
        let before = ConjugateGradientSense { max_iterations: stopped.steps - 1, ..unlimited };
        let before = before.reconstruct(&encoding, &kspace, &mut ()).unwrap();
        assert!(excess(&before.value) > 1.0);
        let all = unlimited.reconstruct(&encoding, &kspace, &mut ()).unwrap();
        let error = |x: &Tensor| relative_difference(x, &truth).unwrap();
        assert!(
            error(&stopped.value) < 0.8 * error(&all.value),
            "{} against {}",
            error(&stopped.value),
            error(&all.value)
        );
    }

    #[test]
    fn penalised_methods_stop_too() {
        let (encoding, _, kspace) = scan(0.05);
        let stop = Some(Discrepancy::new(0.05));
        let wavelet = WaveletSense { stop, ..Default::default() };
        let tv = TotalVariationSense { stop, ..Default::default() };
        for solution in [
            wavelet.reconstruct(&encoding, &kspace, &mut ()).unwrap(),
            tv.reconstruct(&encoding, &kspace, &mut ()).unwrap(),
        ] {
            assert_eq!(solution.termination, Termination::Converged);
            assert!(solution.steps < 30, "{} steps", solution.steps);
            assert!(excess(&encoding, &solution.value, &kspace, 0.05) < 1.001);
        }
    }

    #[test]
    fn noise_is_estimated_from_the_rim() {
        let (_, _, kspace) = scan(0.1);
        let found = estimate_noise(&kspace).unwrap();
        assert!(found > 0.095 && found < 0.14, "{found}");
        assert!(estimate_noise(&kspace.zeros_like().unwrap()).is_err());
    }

    #[test]
    fn refuses_noise_that_is_none() {
        let (encoding, _, kspace) = scan(0.1);
        let method = ConjugateGradientSense { stop: Some(Discrepancy::new(0.0)), ..Default::default() };
        assert!(matches!(method.reconstruct(&encoding, &kspace, &mut ()), Err(Error::Parameter { .. })));
    }
}
