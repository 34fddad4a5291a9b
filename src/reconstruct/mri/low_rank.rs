//! Series of images that change little, or in few ways, in every small region.

use std::sync::Arc;

use candle_core::Tensor;

use super::Scaled;
use super::cycle_spinning::CycleSpinning;
use super::discrepancy::{Discrepancy, Watched};
use crate::error::{Error, Result};
use crate::functional::{LeastSquares, LocallyLowRank};
use crate::linalg::{Fista, LinearOperator, StepRule};
use crate::observe::{Observer, Solution};
use crate::operator::mri::{Encoding, Frames};

/// min_x ½‖A x − y‖² + λ Σ_b ‖X_b‖_* over series [frame, y, x], by FISTA with blocks on a grid that moves at every
/// iteration (Zhang, Pauly, Levesque 2015).
#[derive(Clone, Copy, Debug)]
pub struct LowRankSense {
    /// λ ≥ 0, where the 99th percentile of the zero-filled magnitude is 1.
    pub lambda: f64,
    /// Side of a block in pixels.
    pub block: usize,
    /// Iterations at most.
    pub max_iterations: usize,
    /// Relative change at which to stop; 0 runs all iterations.
    pub tolerance: f64,
    /// When to stop before: see [`Discrepancy`]; `None` goes on to the tolerance.
    pub stop: Option<Discrepancy>,
}

impl Default for LowRankSense {
    fn default() -> Self {
        Self { lambda: 0.02, block: 8, max_iterations: 60, tolerance: 1e-4, stop: None }
    }
}

impl LowRankSense {
    /// The series [frame, y, x, 2] of `kspace` [frame, coil, …, 2]; estimates that an observer sees are in scaled units.
    ///
    /// # Errors
    /// [`Error::Parameter`] where a setting is out of range; a shape error where the k-space does not fit, or frames are
    /// not planar; [`Error::NotFinite`] for NaN in it.
    pub fn reconstruct<E: Encoding>(
        &self,
        series: &Frames<E>,
        kspace: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        if !(self.lambda >= 0.0 && self.lambda.is_finite()) {
            return Err(Error::parameter("lambda", self.lambda, "must be at least 0"));
        }
        let scaled = Scaled::new(series, kspace)?;
        let penalty = LocallyLowRank::new(series.domain(), self.lambda, self.block)?;
        let penalty = CycleSpinning::new(penalty, self.block, 2);
        let fidelity = LeastSquares::new(Arc::new(series.clone()), &scaled.kspace)?;
        let solver = Fista {
            max_iterations: self.max_iterations,
            tolerance: self.tolerance,
            step: StepRule::Fixed(1.0 / series.squared_norm_bound()?),
            restart: true,
        };
        let mut watched = Watched::new(self.stop, series, &scaled, observer)?;
        let solution = solver.solve(&fidelity, &penalty, &scaled.back, &mut watched)?;
        scaled.undo(series, watched.judge(solution)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::mri::{Pattern, Sampling, Sense, birdcage, measure};
    use crate::reconstruct::mri::{ConjugateGradientSense, zero_filled};
    use crate::tensor::Real;
    use crate::tensor::random::Noise;
    use crate::testing::relative_difference;

    #[test]
    fn a_series_of_two_components_beats_its_frames_alone() {
        let (frames, n) = (10, 48);
        let mut values = Vec::new();
        for f in 0..frames {
            for i in 0..n * n {
                let (y, x) = ((i / n) as f64 / n as f64 - 0.5, (i % n) as f64 / n as f64 - 0.5);
                let still = f64::from(u8::from(y.hypot(x) < 0.4));
                let pulsing = f64::from(u8::from((y - 0.1).hypot(x + 0.05) < 0.15)) * (0.7 * f as f64).sin();
                values.extend([still + 0.5 * pulsing, 0.3 * still]);
            }
        }
        let truth = f64::tensor(values, &[frames, n, n, 2]).unwrap();
        let maps = birdcage(4, [n, n], 1, DType::F64, &Device::Cpu).unwrap();
        let encoding = |seed| {
            let pattern = Pattern::PoissonDisc { calibration: 8, growth: 1.0, corners: true };
            let mask = Sampling { pattern, acceleration: 6.0, seed }.draw([n, n]).unwrap();
            Sense::new(&maps, &mask).unwrap()
        };
        let encodings: Vec<Sense> = (0..frames as u64).map(encoding).collect();
        let measured: Vec<Tensor> = encodings
            .iter()
            .enumerate()
            .map(|(f, e)| measure(e, &truth.get(f).unwrap(), 0.02, Noise::new(f as u64, 1)).unwrap())
            .collect();
        let kspace = Tensor::stack(&measured, 0).unwrap();
        let series = Frames::new(encodings).unwrap();
        let error = |x: &Tensor| relative_difference(x, &truth).unwrap();
        let together = LowRankSense::default().reconstruct(&series, &kspace, &mut ()).unwrap();
        let alone = ConjugateGradientSense::default().reconstruct(&series, &kspace, &mut ()).unwrap();
        let zero = error(&zero_filled(&series, &kspace).unwrap());
        let (together, alone) = (error(&together.value), error(&alone.value));
        assert!(
            together < 0.6 * alone && alone < zero,
            "low rank {together}, frames alone {alone}, zero-filled {zero}"
        );
    }
}
