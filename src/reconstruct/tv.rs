//! Least squares with isotropic total variation.

use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::functional::{Bounds, GroupNorm, SquaredDistance};
use crate::linalg::{Admm, LinearOperator, Pdhg, PowerIteration, StepSize, StepSizes, Term};
use crate::observe::{Observer, Solution};
use crate::operator::{Compose, Diagonal, Gradient, Lifted};
use crate::tensor::{Buffer, Kernel, Real, launch, vector};

type Shared = Arc<dyn LinearOperator>;

/// Whether the total variation couples the slices of a volume, which are batch axes of the operator, or the first axis
/// of its domain (cone beam).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Slices {
    /// Each slice by itself, differences along rows and columns.
    #[default]
    Independent,
    /// Differences across slices too, times this weight: pixel size over slice spacing.
    Coupled(f64),
}

/// How the objective is split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Splitting {
    /// Primal-dual hybrid gradient: one projection and one back projection an iteration.
    #[default]
    PrimalDual,
    /// ADMM: few iterations of about ten projections each.
    Admm,
}

/// min_x ½ Σᵢ wᵢ (A x − y)ᵢ² + λ Σ |∇x|₂ over x ≥ `lower`, with unit-spaced forward differences
/// (Rudin, Osher and Fatemi 1992; Sidky and Pan 2008 for tomography); with a `corner` Huber's penalty of |∇x|₂.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TotalVariation {
    /// λ ≥ 0, in units of w y²/x. See [`TotalVariation::for_counts`] and [`TotalVariation::for_data`].
    pub strength: f64,
    /// Differences up to this count by their squares (Huber's penalty), in units of x; 0 is total variation itself.
    pub corner: f64,
    /// Least value of x; −∞ leaves it free.
    pub lower: f64,
    /// Iterations at most.
    pub max_iterations: usize,
    /// Stop at this relative step (primal-dual) or relative residual (ADMM).
    pub tolerance: f64,
    /// Two or three dimensions.
    pub slices: Slices,
    /// The algorithm; both find the same minimum.
    pub splitting: Splitting,
}

impl Default for TotalVariation {
    fn default() -> Self {
        Self {
            strength: 1.0,
            corner: 0.0,
            lower: 0.0,
            max_iterations: 500,
            tolerance: 1e-4,
            slices: Slices::Independent,
            splitting: Splitting::PrimalDual,
        }
    }
}

/// Edge of μ, as a part of water's, whose cost in total variation is worth one nat of likelihood.
///
/// Chosen on four slices of a chest CT (256², 10⁵ photons), where it is the best of five tried at 8, 32 and 180 views
/// and .1 is at 16, and on the Shepp–Logan phantom (256²), which has no texture and is best between .07 and .02.
/// Pixels of 4 mm and more want a smaller value: there the discrete model errs more than the photons scatter.
const EDGE: f64 = 0.04;
/// λ for data without known noise, over the largest value of Aᴴ y.
const PART: f64 = 1e-4;
/// Primal against dual step size, in units of the data term's curvature: of .2, 1, 5 and 25 the one that converged
/// fastest on a chest with 32 views.
const BALANCE: f64 = 25.0;

impl TotalVariation {
    /// For weights that are photon counts, x in 1/mm: λ = 20/μ_water. By Poisson statistics the first term of the
    /// objective then is a log-likelihood, so that λ has no reason to change with the number of views or photons:
    /// an edge of 5 % of water costs one nat for each pixel of its length.
    ///
    /// ```
    /// use std::{f64::consts::PI, sync::Arc};
    /// use candle_core::{DType, Device};
    /// use wellposed::operator::ct::{ImageGrid, ParallelBeam, Photons, RayTransform, hounsfield::MU_WATER};
    /// use wellposed::{linalg::LinearOperator, phantom::{Contrast, shepp_logan}, reconstruct::TotalVariation};
    /// let grid = ImageGrid::new(32, 32, 8.0)?;
    /// let beam = ParallelBeam::covering(&grid, 8, PI)?;
    /// let exact = shepp_logan(Contrast::Modified, 128.0).scaled(MU_WATER).project::<f32>(&beam)?;
    /// let scan = Photons::default().measure(&exact, 1)?;
    /// let a: Arc<dyn LinearOperator> = Arc::new(RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu)?);
    /// let tv = TotalVariation::for_counts(MU_WATER);
    /// let solution = tv.solve(&a, &scan.line_integrals, Some(&scan.counts), None, &mut ())?;
    /// assert_eq!(solution.value.dims(), [32, 32]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    pub fn for_counts(mu_water: f64) -> Self {
        Self { strength: 1.0 / (EDGE * mu_water), ..Self::default() }
    }

    /// For data of unknown noise and no weights: λ = 10⁻⁴ max |Aᴴ y|.
    ///
    /// # Errors
    /// A shape error where y isn't in the range of A.
    pub fn for_data(a: &dyn LinearOperator, y: &Tensor) -> Result<Self> {
        let back = a.adjoint(y)?;
        let largest = launch(Largest, &[&back], &mut [])?;
        Ok(Self { strength: PART * largest, ..Self::default() })
    }

    /// Minimises from `start` (zero if absent). `weights` w ≥ 0 have the shape of y, or of one item of it.
    ///
    /// # Errors
    /// A shape error where an argument doesn't fit A, [`Error::Parameter`] where λ is negative or a coupled
    /// problem has no slice axis.
    pub fn solve(
        &self,
        a: &Shared,
        y: &Tensor,
        weights: Option<&Tensor>,
        start: Option<&Tensor>,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        let batch = a.range().check("data", y)?.to_vec();
        if let Some(weights) = weights {
            a.range().check("weights", weights)?;
        }
        match self.splitting {
            Splitting::PrimalDual => self.primal_dual(a, &batch, y, weights, start, observer),
            Splitting::Admm => self.admm(a, &batch, y, weights, start, observer),
        }
    }

    fn primal_dual(
        &self,
        a: &Shared,
        batch: &[usize],
        y: &Tensor,
        weights: Option<&Tensor>,
        start: Option<&Tensor>,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        let plane = self.gradient(a, &[])?;
        let steps = self.steps(a, &plane, weights)?;
        // Independent slices stay batch items; coupled ones make one problem.
        let (a, gradient, steps): (Shared, Gradient, StepSizes) = match self.slices {
            Slices::Independent => (a.clone(), plane, steps),
            Slices::Coupled(_) => {
                let whole = self.gradient(a, batch)?;
                let ratio = (plane.norm() / whole.norm()).powi(2);
                (Arc::new(Lifted::new(a.clone(), batch)), whole, scaled(steps, ratio))
            }
        };
        let penalty = GroupNorm::new(gradient.range(), self.strength)?.huber(self.corner)?;
        let fidelity = SquaredDistance::new(a.range(), 1.0)?.from(y)?;
        let fidelity = match weights {
            None => fidelity,
            Some(weights) => fidelity.weighted(weights)?,
        };
        let bounds = Bounds::new(a.domain(), self.lower, f64::INFINITY)?;
        let terms = [Term::new(&*a, &fidelity)?, Term::new(&gradient, &penalty)?];
        let zero = match start {
            Some(start) => start.clone(),
            None if matches!(self.slices, Slices::Coupled(_)) => a.domain().zeros(&[])?,
            None => a.domain().zeros(batch)?,
        };
        let method =
            Pdhg { max_iterations: self.max_iterations, tolerance: self.tolerance, ..Pdhg::default() };
        method.solve(&bounds, &terms, &steps, &zero, observer)
    }

    fn admm(
        &self,
        a: &Shared,
        batch: &[usize],
        y: &Tensor,
        weights: Option<&Tensor>,
        start: Option<&Tensor>,
        observer: &mut dyn Observer,
    ) -> Result<Solution> {
        let gradient = self.gradient(a, batch)?;
        let (mut lifted, mut data): (Shared, Tensor) = (Arc::new(Lifted::new(a.clone(), batch)), y.clone());
        let mean = mean(weights)?;
        if let Some(weights) = weights {
            // W^½ A and W^½ y.
            let mut roots = Buffer::copy_of(weights)?;
            launch(Root, &[], &mut [&mut roots])?;
            let roots = Diagonal::real(lifted.range(), &roots.freeze())?;
            data = roots.apply(y)?;
            lifted = Arc::new(Compose::new(Arc::new(roots), lifted)?);
        }
        let penalty = GroupNorm::new(gradient.range(), self.strength)?.huber(self.corner)?;
        let identity = crate::operator::Identity::new(lifted.domain());
        let bounds = Bounds::new(lifted.domain(), self.lower, f64::INFINITY)?;
        let mut terms = vec![Term::new(&gradient, &penalty)?];
        if self.lower.is_finite() {
            terms.push(Term::new(&identity, &bounds)?);
        }
        let norm = self.norm(a)?;
        let method = Admm {
            max_iterations: self.max_iterations,
            tolerance: self.tolerance,
            penalty: mean * norm * norm / 100.0,
            ..Admm::default()
        };
        method.solve(&*lifted, &data, &terms, start, observer)
    }

    /// ∇ on the image with these leading slice axes.
    fn gradient(&self, a: &Shared, batch: &[usize]) -> Result<Gradient> {
        let image = a.domain();
        let rank = image.shape().len();
        if rank < 2 {
            return Err(Error::shape("total variation", "an image [height, width]", image.shape()));
        }
        let space = image.with_shape(&[batch, image.shape()].concat());
        let (row, column) = (batch.len() + rank - 2, batch.len() + rank - 1);
        match self.slices {
            Slices::Coupled(weight) if row > 0 => {
                Gradient::weighted(&space, &[row - 1, row, column], &[weight, 1.0, 1.0])
            }
            _ => Gradient::new(&space, &[row, column]),
        }
    }

    fn norm(&self, a: &Shared) -> Result<f64> {
        PowerIteration { max_iterations: 20, tolerance: 1e-2, seed: 0 }.norm(&**a)
    }

    /// Step sizes of a slice.
    fn steps(&self, a: &Shared, gradient: &Gradient, weights: Option<&Tensor>) -> Result<StepSizes> {
        let penalty = GroupNorm::new(gradient.range(), self.strength)?;
        let fidelity = SquaredDistance::new(a.range(), 1.0)?;
        let terms = [Term::new(&**a, &fidelity)?, Term::new(gradient, &penalty)?];
        let norm = self.norm(a)?;
        StepSizes::balanced(&terms, BALANCE / (mean(weights)? * norm * norm).max(f64::MIN_POSITIVE))
    }
}

/// The same with the last dual step times `ratio`.
fn scaled(mut steps: StepSizes, ratio: f64) -> StepSizes {
    if let Some(StepSize::Uniform(last)) = steps.dual.last_mut() {
        *last *= ratio;
    }
    steps
}

/// Mean weight, 1 without weights.
fn mean(weights: Option<&Tensor>) -> Result<f64> {
    let Some(weights) = weights else { return Ok(1.0) };
    let mut ones = Buffer::copy_of(weights)?;
    vector::fill(1.0, &mut ones)?;
    Ok(vector::inner(weights, ones.tensor(), 1)?[0] / weights.elem_count().max(1) as f64)
}

struct Largest;

impl Kernel for Largest {
    type Output = f64;
    fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<f64> {
        Ok(inputs[0].par_iter().map(|v| v.as_f64().abs()).reduce(|| 0.0, f64::max))
    }
}

/// out ← √out.
struct Root;

impl Kernel for Root {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        outputs[0].par_iter_mut().with_min_len(1 << 14).for_each(|o| *o = o.max(T::zero()).sqrt());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use candle_core::{DType, Device};

    use super::*;
    use crate::metric::psnr;
    use crate::operator::ct::hounsfield::MU_WATER;
    use crate::operator::ct::{ImageGrid, Measurement, ParallelBeam, Photons, RayTransform};
    use crate::phantom::{Contrast, shepp_logan};
    use crate::reconstruct::{Fbp, Sirt};
    use crate::testing::relative_difference;

    /// The head, its ray transform, and noisy exact projections.
    fn scan(side: usize, views: usize) -> (Tensor, RayTransform, Measurement) {
        let grid = ImageGrid::new(side, side, 256.0 / side as f64).unwrap();
        let beam = ParallelBeam::covering(&grid, views, PI).unwrap();
        let head = shepp_logan(Contrast::Modified, 128.0).scaled(MU_WATER);
        let transform = RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu).unwrap();
        let data = Photons::default().measure(&head.project::<f32>(&beam).unwrap(), 7).unwrap();
        (head.picture::<f32>(&grid, 8).unwrap(), transform, data)
    }

    #[test]
    fn sparse_views_rank_the_methods() {
        let (truth, transform, data) = scan(256, 16);
        let quality = |x: &Tensor| psnr(x, &truth, MU_WATER).unwrap();
        let fbp = quality(&Fbp::default().reconstruct(&transform, &data.line_integrals).unwrap());
        let a: Shared = Arc::new(transform);
        let sirt = Sirt::default().solve(&*a, &data.line_integrals, None, &mut ()).unwrap();
        let sirt = quality(&sirt.value);
        let counts = Some(&data.counts);
        let tv = TotalVariation::for_counts(MU_WATER).solve(&a, &data.line_integrals, counts, None, &mut ());
        let tv = tv.unwrap();
        assert_eq!(tv.termination, crate::observe::Termination::Converged);
        let found = [fbp, sirt, quality(&tv.value)];
        println!("PSNR of FBP, SIRT, TV: {found:.2?}, TV in {} iterations", tv.steps);
        assert!(found[0] + 5.0 < found[1] && found[1] + 3.0 < found[2], "{found:?}");
    }

    #[test]
    fn both_splittings_find_the_same_minimum() {
        let (_, transform, data) = scan(48, 16);
        let a: Shared = Arc::new(transform);
        let tv =
            TotalVariation { tolerance: 1e-5, max_iterations: 3000, ..TotalVariation::for_counts(MU_WATER) };
        let solve = |splitting| {
            let tv = TotalVariation { splitting, ..tv };
            tv.solve(&a, &data.line_integrals, Some(&data.counts), None, &mut ()).unwrap()
        };
        let (primal_dual, admm) = (solve(Splitting::PrimalDual), solve(Splitting::Admm));
        println!("PDHG {} steps, ADMM {} steps", primal_dual.steps, admm.steps);
        let difference = relative_difference(&primal_dual.value, &admm.value).unwrap();
        assert!(difference < 0.01, "{difference}");
    }

    #[test]
    fn equal_slices_stay_equal_when_coupled() {
        let (_, transform, data) = scan(48, 16);
        let a: Shared = Arc::new(transform);
        let thrice = |x: &Tensor| x.unsqueeze(0).unwrap().repeat((3, 1, 1)).unwrap();
        let alone = TotalVariation::for_counts(MU_WATER);
        let one = alone.solve(&a, &data.line_integrals, Some(&data.counts), None, &mut ()).unwrap().value;
        let coupled = TotalVariation { slices: Slices::Coupled(0.5), ..alone };
        let (p, n) = (thrice(&data.line_integrals), thrice(&data.counts));
        let three = coupled.solve(&a, &p, Some(&n), None, &mut ()).unwrap().value;
        assert!(relative_difference(&three, &thrice(&one)).unwrap() < 0.01);
        // Independent slices are the same problems as single ones.
        let apart = alone.solve(&a, &p, Some(&n), None, &mut ()).unwrap().value;
        assert!(relative_difference(&apart, &thrice(&one)).unwrap() < 0.01);
    }
}
