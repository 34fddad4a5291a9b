//! Simultaneous algebraic reconstruction with ordered subsets.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::magnitude_sums;
use crate::observe::{Observer, Solution, Termination, drive};
use crate::operator::ct::{Projector, ordered_subsets, select_views};
use crate::reconstruct::sirt::{Misfit, Update, worst_relative};
use crate::tensor::{Buffer, Workspace, launch, vector};

/// OS-SART (Wang and Jiang, J. X-Ray Sci. Technol. 12:169, 2004): SIRT's step x ← P(x + ω C_s A_sᵀ R_s (y_s − A_s x)) on
/// one subset s of the views after the other, R_s and C_s the inverse row and column sums of A_s, P = max(·, `lower`).
/// A pass over all subsets costs as much as a step of [`crate::reconstruct::Sirt`] and gets about as far as so many
/// of them as there are subsets. With ω constant it doesn't converge on noisy data but circles; `decay` quiets it.
/// Batch items are independent. Memory: an array of the size of an item for each subset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OsSart {
    /// Passes over all views at most.
    pub max_iterations: usize,
    /// Subsets, every so-manieth view in each; 1 is SIRT, the number of views is SART (Andersen and Kak 1984).
    pub subsets: usize,
    /// Stop when ‖y − A x‖ ≤ tolerance · ‖y‖ for every item, as seen during a pass; 0 runs all iterations.
    pub tolerance: f64,
    /// ω in (0, 2) in the first pass.
    pub relaxation: f64,
    /// Factor of ω from pass to pass, in (0, 1].
    pub decay: f64,
    /// Least value of x; −∞ leaves it free.
    pub lower: f64,
}

impl Default for OsSart {
    fn default() -> Self {
        Self { max_iterations: 20, subsets: 10, tolerance: 0.0, relaxation: 1.0, decay: 0.95, lower: 0.0 }
    }
}

/// One subset of the views.
struct Subset {
    a: Box<dyn Projector>,
    y: Tensor,
    columns: Tensor,
    rows: Tensor,
    residual: Buffer,
}

struct State {
    x: Buffer,
    slope: Buffer,
    subsets: Vec<Subset>,
    ws: Workspace,
}

impl OsSart {
    /// Iterates from `start` (zero if absent). The observed measure is the largest relative residual of the items, each
    /// subset's before its step.
    ///
    /// ```
    /// use std::f64::consts::PI;
    /// use candle_core::{DType, Device};
    /// use wellposed::operator::ct::{ImageGrid, ParallelBeam, RayTransform};
    /// use wellposed::{metric::relative_l2, phantom::{Contrast, shepp_logan}, reconstruct::OsSart};
    /// let grid = ImageGrid::new(32, 32, 8.0)?;
    /// let beam = ParallelBeam::covering(&grid, 60, PI)?;
    /// let head = shepp_logan(Contrast::Modified, 128.0);
    /// let a = RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu)?;
    /// let x = OsSart::default().solve(&a, &head.project::<f32>(&beam)?, None, &mut ())?.value;
    /// assert!(relative_l2(&x, &head.picture::<f32>(&grid, 8)?)? < 0.3);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// A shape error where `y` or `start` doesn't fit; [`Error::Parameter`] where a setting is out of range, or a view
    /// misses the image.
    pub fn solve(
        &self,
        a: &dyn Projector,
        y: &Tensor,
        start: Option<&Tensor>,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        self.validate(a.views())?;
        let batch = a.range().check("data", y)?;
        vector::require_finite("data", y)?;
        let items = batch.iter().product();
        let sizes = vector::norm(y, items)?;
        let subsets = ordered_subsets(a.views(), self.subsets);
        let subsets = subsets.iter().map(|views| Subset::new(a, y, batch, views)).collect::<Result<_>>()?;
        let x = match start {
            None => a.domain().buffer(batch)?,
            Some(start) => {
                a.domain().check("start of OS-SART", start)?;
                Buffer::copy_of(start)?
            }
        };
        let mut state = State { x, slope: a.domain().buffer(batch)?, subsets, ws: Workspace::new() };
        let outcome = drive(
            &mut state,
            self.max_iterations,
            if self.tolerance > 0.0 { Termination::MaxIterations } else { Termination::Completed },
            "relative residual",
            observer,
            |state, iteration| {
                let relaxation = self.relaxation * self.decay.powi(iteration as i32 - 1);
                let squares = self.pass(state, items, relaxation)?;
                let worst = worst_relative(&squares, &sizes);
                Ok((worst, (worst <= self.tolerance).then_some(Termination::Converged)))
            },
            |state| state.x.tensor(),
        )?;
        Ok(outcome.with(state.x.freeze()))
    }

    /// One step on every subset; the squared residuals of the items.
    fn pass(&self, state: &mut State, items: usize, relaxation: f64) -> Result<Vec<f64>> {
        let State { x, slope, subsets, ws } = state;
        let mut squares = vec![0.0; items];
        for Subset { a, y, columns, rows, residual } in subsets {
            a.apply_into(x.tensor(), residual, ws)?;
            let part = launch(Misfit(items), &[y, rows], &mut [&mut *residual])?;
            squares.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            a.adjoint_into(residual.tensor(), slope, ws)?;
            launch(Update { relaxation, lower: self.lower }, &[slope.tensor(), columns], &mut [&mut *x])?;
        }
        Ok(squares)
    }

    fn validate(&self, views: usize) -> Result<()> {
        if !(self.relaxation > 0.0 && self.relaxation < 2.0) {
            return Err(Error::parameter("relaxation", self.relaxation, "must be in (0, 2)"));
        }
        if !(self.decay > 0.0 && self.decay <= 1.0) {
            return Err(Error::parameter("decay of the relaxation", self.decay, "must be in (0, 1]"));
        }
        if self.subsets == 0 || self.subsets > views {
            let reason = format!("must be between 1 and the number of views, {views}");
            return Err(Error::parameter("subsets", self.subsets, reason));
        }
        Ok(())
    }
}

impl Subset {
    fn new(whole: &dyn Projector, y: &Tensor, batch: &[usize], views: &[usize]) -> Result<Self> {
        let a = whole.select(views)?;
        let (columns, rows) = magnitude_sums(&*a)?;
        let residual = a.range().buffer(batch)?;
        Ok(Self { y: select_views(y, views)?, a, columns, rows, residual })
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use candle_core::{DType, Device};

    use super::*;
    use crate::linalg::LinearOperator;
    use crate::metric::psnr;
    use crate::operator::ct::{ConeBeam, ConeTransform, FanBeam, FanTransform, ImageGrid, VolumeGrid};
    use crate::phantom::{Contrast, Ellipsoids, shepp_logan, shepp_logan_3d};
    use crate::reconstruct::{Sirt, Slices, TotalVariation};
    use crate::testing::relative_difference;

    fn fan() -> (FanTransform, Tensor, Tensor) {
        let grid = ImageGrid::new(96, 96, 2.0).unwrap();
        let beam = FanBeam::covering(&grid, 60, TAU, 300.0, 200.0).unwrap().vectors();
        let head = shepp_logan(Contrast::Modified, 96.0);
        let a = FanTransform::new(&grid, &beam, DType::F32, &Device::Cpu).unwrap();
        (a, head.trace::<f32>(&beam, 4).unwrap(), head.picture::<f32>(&grid, 8).unwrap())
    }

    #[test]
    fn one_subset_is_sirt() {
        let (a, y, _) = fan();
        let os = OsSart { subsets: 1, max_iterations: 7, relaxation: 1.3, decay: 1.0, ..OsSart::default() };
        let sirt = Sirt { max_iterations: 7, relaxation: 1.3, ..Sirt::default() };
        let (x, z) = (os.solve(&a, &y, None, &mut ()).unwrap(), sirt.solve(&a, &y, None, &mut ()).unwrap());
        assert!(relative_difference(&x.value, &z.value).unwrap() < 1e-6);
        assert!((x.measure - z.measure).abs() < 1e-6);
    }

    #[test]
    fn subsets_get_ahead_of_sirt_on_a_fan() {
        let (a, y, truth) = fan();
        let passes = 10;
        let os = OsSart { max_iterations: passes, ..OsSart::default() }.solve(&a, &y, None, &mut ()).unwrap();
        let sirt = |n| Sirt { max_iterations: n, ..Sirt::default() }.solve(&a, &y, None, &mut ()).unwrap();
        let quality = |x: &Tensor| psnr(x, &truth, 1.0).unwrap();
        let found = [quality(&os.value), quality(&sirt(passes).value), quality(&sirt(40).value)];
        println!("OS-SART {passes} passes, SIRT {passes} and 40 steps: {found:.2?} dB");
        assert!(found[0] > found[1] + 3.0 && found[0] > found[2], "{found:?}");
        assert!(OsSart { subsets: 61, ..OsSart::default() }.solve(&a, &y, None, &mut ()).is_err());
    }

    #[test]
    fn cones_are_solved_by_every_method() {
        let grid = VolumeGrid::new(24, ImageGrid::new(32, 32, 6.0).unwrap(), 7.0).unwrap();
        let fan = FanBeam::covering(&grid.image, 24, TAU, 400.0, 200.0).unwrap();
        let beam = ConeBeam::new(fan, 31, 9.0).unwrap().vectors();
        let head = Ellipsoids(shepp_logan_3d(Contrast::Modified, 96.0));
        let (y, truth) = (head.trace::<f32>(&beam, 3).unwrap(), head.volume::<f32>(&grid, 4).unwrap());
        let a = ConeTransform::new(&grid, &beam, DType::F32, &Device::Cpu).unwrap();
        let os = OsSart { subsets: 6, ..OsSart::default() }.solve(&a, &y, None, &mut ()).unwrap().value;
        let weights = y.ones_like().unwrap();
        let strength = TotalVariation::for_data(&a, &y).unwrap().strength;
        let a: std::sync::Arc<dyn LinearOperator> = std::sync::Arc::new(a);
        let tv = |slices, corner| {
            let tv =
                TotalVariation { strength, slices, corner, max_iterations: 150, ..TotalVariation::default() };
            tv.solve(&a, &y, Some(&weights), None, &mut ()).unwrap().value
        };
        let quality = |x: &Tensor| psnr(x, &truth, 1.0).unwrap();
        let cgls = crate::linalg::Cgls { max_iterations: 12, ..Default::default() };
        let cgls = cgls.solve(&*a, &y, None, &mut ()).unwrap().value;
        let found = [
            quality(&os),
            quality(&cgls),
            quality(&tv(Slices::Independent, 0.0)),
            quality(&tv(Slices::Coupled(6.0 / 7.0), 0.0)),
            quality(&tv(Slices::Coupled(6.0 / 7.0), 0.02)),
        ];
        println!("OS-SART, CGLS, TV by slice, TV, Huber: {found:.2?} dB");
        assert!(found.iter().all(|psnr| *psnr > 20.0) && found[3] > found[2], "{found:?}");
    }
}
