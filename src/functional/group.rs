//! The sum of Euclidean norms over groups: isotropic total variation, when applied to a gradient.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::functional::penalty_weight;
use crate::linalg::sweep::Towards;
use crate::linalg::{Proximal, Steps, relax_dual};
use crate::tensor::device::{Gpu, Program, arguments};
use crate::tensor::simd::dispatch;
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch};

/// The functions of this folder for a device.
pub(super) static PROGRAM: Program = Program { name: "functional", source: include_str!("functional.cu") };

/// g(p) = λ Σᵢ √(Σₐ |pₐᵢ|²) on [axes, …]: the groups run over the first axis (and over the two parts of
/// complex numbers). After [`crate::operator::Gradient`] it is λ times the isotropic total variation.
///
/// [`GroupNorm::huber`] rounds it off at zero.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    domain: Space,
    scale: f64,
    corner: f64,
}

impl GroupNorm {
    /// λ‖p‖₂,₁ with λ = `scale` ≥ 0.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{functional::{GroupNorm, Proximal}, tensor::Space};
    /// let pairs = GroupNorm::new(&Space::real(&[2, 3], DType::F64, &Device::Cpu), 0.1)?;
    /// let p = Tensor::new(&[[3f64, 0., 5.], [4., 0., 12.]], &Device::Cpu)?;
    /// assert!((pairs.value(&p)?[0] - 1.8).abs() < 1e-15);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where λ is negative or not finite, [`Error::Shape`] where the space has no axis.
    pub fn new(domain: &Space, scale: f64) -> Result<Self> {
        if domain.shape().first().is_none_or(|axes| *axes == 0) {
            return Err(Error::shape("group norm", "[axes, …]", domain.shape()));
        }
        Ok(Self { domain: domain.clone(), scale: penalty_weight(scale)?, corner: 0.0 })
    }

    /// The same with norms n ≤ δ = `corner` counted as n²/2δ and larger ones as n − δ/2 (Huber 1964), which spares
    /// small differences the staircases of total variation. 0 is the norm itself.
    ///
    /// # Errors
    /// [`Error::Parameter`] where δ is negative or not finite.
    pub fn huber(self, corner: f64) -> Result<Self> {
        if !(corner.is_finite() && corner >= 0.0) {
            return Err(Error::parameter(
                "corner of the Huber penalty",
                corner,
                "must be finite and at least 0",
            ));
        }
        Ok(Self { corner, ..self })
    }

    fn shape(&self) -> Shape {
        let planes = self.domain.shape()[0];
        Shape { planes, plane: self.domain.elements() / planes, parts: self.domain.components() }
    }
}

impl Proximal for GroupNorm {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn value(&self, x: &Tensor) -> Result<Vec<f64>> {
        self.domain.check("argument of a group norm", x)?;
        Ok(total(self.shape(), None, self.corner, x)?.into_iter().map(|sum| self.scale * sum).collect())
    }
    /// Step sizes must be equal within a group; the first component's is taken.
    fn prox(&self, steps: Steps<'_>, x: &mut Buffer, _: &mut Workspace) -> Result<()> {
        if self.corner > 0.0 && self.scale == 0.0 {
            return Ok(());
        }
        let change = Change::Shrink { corner: self.corner };
        rescale(self.shape(), change, self.scale, None, steps, x)
    }
    fn prox_conjugate(&self, steps: Steps<'_>, y: &mut Buffer, _: &mut Workspace) -> Result<()> {
        // g*(q) = δ|q|²/2λ on |q| ≤ λ.
        let excess = if let Steps::Uniform(step) = steps { step * self.corner } else { self.corner };
        let change = Change::Project { excess };
        let steps = if self.corner > 0.0 { steps.tensor() } else { None };
        Rescale { shape: self.shape(), change, limit: self.scale, weights: None, steps }.launch(y)
    }
    fn relax_dual(
        &self,
        sigma: Steps<'_>,
        rho: f64,
        image: &mut Buffer,
        y: &mut Buffer,
        ws: &mut Workspace,
    ) -> Result<Vec<[f64; 2]>> {
        match sigma {
            Steps::Uniform(sigma) => {
                let change = Change::Project { excess: sigma * self.corner };
                let shape = self.shape();
                let projection = Rescale { shape, change, limit: self.scale, weights: None, steps: None };
                launch(RelaxDual { projection, sigma, rho }, &[image.tensor()], &mut [y])
            }
            Steps::Each(_) => relax_dual(self, sigma, rho, image, y, ws),
        }
    }
}

/// How an item falls into groups: element `i` of every plane, with its `parts` neighbours.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    planes: usize,
    plane: usize,
    parts: usize,
}

impl Shape {
    /// Groups of the two parts of one complex number.
    pub(super) fn scalars(space: &Space) -> Self {
        Self { planes: 1, plane: space.elements(), parts: space.components() }
    }

    /// Norms of the groups at `start..start + norms.len()` of an item, spread over their parts.
    fn norms<T: Real>(self, planes: &[&[T]], norms: &mut [T]) {
        norms.fill(T::zero());
        for plane in planes {
            norms.iter_mut().zip(*plane).for_each(|(n, x)| *n += *x * *x);
        }
        self.roots(norms);
    }

    /// Sums of squares of the parts become norms.
    fn roots<T: Real>(self, norms: &mut [T]) {
        if self.parts == 2 {
            norms.chunks_exact_mut(2).for_each(|n| n.fill(n[0] + n[1]));
        }
        norms.iter_mut().for_each(|n| *n = n.sqrt());
    }
}

/// Elements of a plane that a task handles; even, so that complex numbers stay whole.
const CHUNK: usize = 1 << 11;

/// How the magnitude of a group changes.
#[derive(Clone, Copy)]
enum Change {
    /// n ↦ max(n − threshold, n corner/(corner + threshold)).
    Shrink { corner: f64 },
    /// n ↦ limit · min(1, n/(limit + excess)), the excess times the step sizes where there are some.
    Project { excess: f64 },
}

struct Rescale<'a> {
    shape: Shape,
    change: Change,
    limit: f64,
    weights: Option<&'a Tensor>,
    steps: Option<&'a Tensor>,
}

impl Kernel for Rescale<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let shape = self.shape;
        for item in outputs[0].chunks_exact_mut(shape.planes * shape.plane) {
            let mut tasks: Vec<Vec<&mut [T]>> =
                (0..shape.plane.div_ceil(CHUNK)).map(|_| Vec::new()).collect();
            for plane in item.chunks_exact_mut(shape.plane) {
                plane.chunks_mut(CHUNK).zip(&mut tasks).for_each(|(part, task)| task.push(part));
            }
            tasks.par_iter_mut().enumerate().for_each(|(index, planes)| {
                let mut factors = [T::zero(); CHUNK];
                let factors = &mut factors[..planes[0].len()];
                shape.norms(&planes.iter().map(|p| &**p).collect::<Vec<_>>(), factors);
                self.factors(inputs, index * CHUNK, factors);
                for plane in planes {
                    plane.iter_mut().zip(&*factors).for_each(|(x, f)| *x *= *f);
                }
            });
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let Shape { planes, plane, parts } = self.shape;
        let x = gpu.output(0);
        let n = gpu.output_len(0) / planes / parts;
        let (project, corner) = match self.change {
            Change::Shrink { corner } => (false, corner),
            Change::Project { excess } => (true, excess),
        };
        let weighted = self.weights.is_some();
        let column = |given: bool, index: usize| (if given { gpu.input(index) } else { x }, given);
        let (weights, weighted) = column(weighted, 0);
        let (steps, stepped) = column(self.steps.is_some(), usize::from(weighted));
        let groups = arguments![x, n, planes, plane, parts, project, self.limit, corner];
        let arguments = [groups, arguments![weights, weighted, steps, stepped]].concat();
        Some(gpu.run(&PROGRAM, "rescale", n, &arguments))
    }
}

impl Rescale<'_> {
    /// Norms become factors.
    fn factors<T: Real>(&self, columns: &[&[T]], start: usize, norms: &mut [T]) {
        let mut limits = [T::of(self.limit); CHUNK];
        let limits = &mut limits[..norms.len()];
        let (columns, steps) = match (self.change, self.steps) {
            (Change::Project { .. }, Some(_)) => columns.split_at(columns.len() - 1),
            _ => (columns, &[][..]),
        };
        for column in columns {
            limits.iter_mut().zip(&column[start..]).for_each(|(l, c)| *l *= *c);
        }
        let tiny = T::min_positive_value();
        match self.change {
            Change::Shrink { corner } => norms.iter_mut().zip(limits).for_each(|(n, limit)| {
                let least = if corner > 0.0 { T::of(corner) / (T::of(corner) + *limit) } else { T::zero() };
                *n = ((*n - *limit) / n.max(tiny)).max(least);
            }),
            Change::Project { excess } => {
                let excess = T::of(excess);
                let step = |i: usize| steps.first().map_or(T::one(), |steps| steps[start + i]);
                norms.iter_mut().zip(limits).enumerate().for_each(|(i, (n, limit))| {
                    *n = *limit / n.max(*limit + excess * step(i)).max(tiny);
                });
            }
        }
    }

    fn launch(self, x: &mut Buffer) -> Result<()> {
        let columns: Vec<&Tensor> = self.weights.into_iter().chain(self.steps).collect();
        launch(self, &columns, &mut [x])
    }
}

/// q = y + σ v projected to ỹ, and y ← y + ρ (ỹ − y), without q or ỹ in memory; the sums of
/// [`Proximal::relax_dual`].
struct RelaxDual<'a> {
    projection: Rescale<'a>,
    sigma: f64,
    rho: f64,
}

impl Kernel for RelaxDual<'_> {
    type Output = Vec<[f64; 2]>;
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<Self::Output> {
        let shape = self.projection.shape;
        let (sigma, rho) = (T::of(self.sigma), T::of(self.rho));
        let item = shape.planes * shape.plane;
        let relax = |v: &[T], y: &mut [T]| {
            let mut tasks: Vec<Vec<(&[T], &mut [T])>> =
                (0..shape.plane.div_ceil(CHUNK)).map(|_| Vec::new()).collect();
            for (v, y) in v.chunks_exact(shape.plane).zip(y.chunks_exact_mut(shape.plane)) {
                let parts = v.chunks(CHUNK).zip(y.chunks_mut(CHUNK));
                parts.zip(&mut tasks).for_each(|(part, task)| task.push(part));
            }
            let sums: Vec<[f64; 2]> = tasks
                .into_par_iter()
                .map(|planes| {
                    let mut factors = [T::zero(); CHUNK];
                    let factors = &mut factors[..planes[0].0.len()];
                    for (v, y) in &planes {
                        let squares = factors.iter_mut().zip(v.iter().zip(&**y));
                        squares.for_each(|(n, (v, y))| *n += (*y + sigma * *v) * (*y + sigma * *v));
                    }
                    shape.roots(factors);
                    self.projection.factors(&[], 0, factors);
                    let mut sums = [0.0; 2];
                    for (v, y) in planes {
                        let part =
                            dispatch(Towards { rho, next: v, factors: Some((sigma, &*factors)), x: y });
                        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part / self.sigma);
                    }
                    sums
                })
                .collect();
            sums.iter().fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d])
        };
        Ok(inputs[0]
            .chunks_exact(item)
            .zip(outputs[0].chunks_exact_mut(item))
            .map(|(v, y)| relax(v, y))
            .collect())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<Self::Output>> {
        let Rescale { shape: Shape { planes, plane, parts }, change, limit, .. } = self.projection;
        let Change::Project { excess } = change else { return None };
        let items = gpu.output_len(0) / (planes * plane);
        let arrays = arguments![gpu.input(0), gpu.output(0), planes, plane, parts];
        let arguments = [arrays, arguments![limit, excess, self.sigma, self.rho]].concat();
        let sums = gpu.reduce(&PROGRAM, "relax_dual", (items, plane / parts, 2), &arguments);
        Some(sums.map(|sums| (0..items).map(|i| [sums[0][i], sums[1][i]]).collect()))
    }
}

/// The proximal map of λτ w ‖group‖.
pub(super) fn shrink(
    shape: Shape,
    scale: f64,
    weights: Option<&Tensor>,
    steps: Steps<'_>,
    x: &mut Buffer,
) -> Result<()> {
    rescale(shape, Change::Shrink { corner: 0.0 }, scale, weights, steps, x)
}

fn rescale(
    shape: Shape,
    change: Change,
    scale: f64,
    weights: Option<&Tensor>,
    steps: Steps<'_>,
    x: &mut Buffer,
) -> Result<()> {
    let uniform = if let Steps::Uniform(step) = steps { step } else { 1.0 };
    Rescale { shape, change, limit: scale * uniform, weights, steps: steps.tensor() }.launch(x)
}

/// The projection on ‖group‖ ≤ λ w.
pub(super) fn project(shape: Shape, scale: f64, weights: Option<&Tensor>, x: &mut Buffer) -> Result<()> {
    Rescale { shape, change: Change::Project { excess: 0.0 }, limit: scale, weights, steps: None }.launch(x)
}

/// Σ w ‖group‖ for each item, with Huber's corner.
pub(super) fn total(shape: Shape, weights: Option<&Tensor>, corner: f64, x: &Tensor) -> Result<Vec<f64>> {
    struct Total(Shape, f64);
    impl Kernel for Total {
        type Output = Vec<f64>;
        fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<Vec<f64>> {
            let (shape, corner) = (self.0, T::of(self.1));
            let half = T::of(0.5);
            let weights = inputs.get(1);
            let sum_item = |item: &[T]| {
                let part = |index: usize| {
                    let start = index * CHUNK;
                    let length = CHUNK.min(shape.plane - start);
                    let mut norms = [T::zero(); CHUNK];
                    let norms = &mut norms[..length];
                    let planes: Vec<&[T]> =
                        item.chunks_exact(shape.plane).map(|p| &p[start..][..length]).collect();
                    shape.norms(&planes, norms);
                    if corner > T::zero() {
                        norms.iter_mut().for_each(|n| {
                            *n = if *n <= corner { half * *n * *n / corner } else { *n - half * corner };
                        });
                    }
                    if let Some(weights) = weights {
                        norms.iter_mut().zip(&weights[start..]).for_each(|(n, w)| *n *= *w);
                    }
                    norms.iter().step_by(shape.parts).map(|n| n.as_f64()).sum::<f64>()
                };
                let parts: Vec<f64> = (0..shape.plane.div_ceil(CHUNK)).into_par_iter().map(part).collect();
                parts.iter().sum()
            };
            Ok(inputs[0].chunks_exact(shape.planes * shape.plane).map(sum_item).collect())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<Vec<f64>>> {
            let Shape { planes, plane, parts } = self.0;
            let items = gpu.input_len(0) / (planes * plane);
            let weighted = gpu.inputs() > 1;
            let weights = gpu.input(usize::from(weighted));
            let arguments = arguments![gpu.input(0), planes, plane, parts, self.1, weights, weighted];
            let sums = gpu.reduce(&PROGRAM, "total", (items, plane / parts, 1), arguments);
            Some(sums.map(|mut sums| sums.remove(0)))
        }
    }
    launch(Total(shape, corner), &[&[x][..], &weights.into_iter().collect::<Vec<_>>()].concat(), &mut [])
}
