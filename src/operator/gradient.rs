//! Forward differences along chosen axes, with their exact adjoint, the negative divergence.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::device::{Gpu, Program, arguments};
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch};

static PROGRAM: Program = Program { name: "gradient", source: include_str!("gradient.cu") };

/// Elements a task, at least one row.
const TASK: usize = 1 << 14;

/// `(∇x)ₐ = wₐ (x[i + eₐ] − x[i])` along each chosen axis a, and 0 at the axis's end (the array goes on by
/// its last value: Neumann). Range: [axes, …domain].
#[derive(Clone, Debug)]
pub struct Gradient {
    domain: Space,
    range: Space,
    plan: Plan,
}

/// The differences in terms of rows: runs of the last axis, with both parts of complex numbers.
#[derive(Clone, Debug)]
struct Plan {
    /// Elements of a row.
    row: usize,
    /// Elements of an item.
    item: usize,
    /// Elements of a scalar: the distance of neighbours in a row.
    scalar: usize,
    axes: Vec<Axis>,
}

#[derive(Clone, Copy, Debug)]
struct Axis {
    length: usize,
    /// Distance of neighbours in elements.
    stride: usize,
    weight: f64,
    /// Whether neighbours lie in one row.
    within_row: bool,
}

impl Gradient {
    /// Differences along `axes` of `space` with unit weights.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{linalg::LinearOperator, operator::Gradient, tensor::Space};
    /// let gradient = Gradient::new(&Space::real(&[3], DType::F64, &Device::Cpu), &[0])?;
    /// let x = Tensor::new(&[1f64, 4., 9.], &Device::Cpu)?;
    /// assert_eq!(gradient.apply(&x)?.to_vec2::<f64>()?, [[3., 5., 0.]]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where an axis is repeated or out of range, there are none, or an axis is empty.
    pub fn new(space: &Space, axes: &[usize]) -> Result<Self> {
        Self::weighted(space, axes, &vec![1.0; axes.len()])
    }

    /// Differences with a weight for each of `axes`: 1/spacing for a gradient in physical units.
    ///
    /// # Errors
    /// As for [`Gradient::new`], and where weights are missing or not finite.
    pub fn weighted(space: &Space, axes: &[usize], weights: &[f64]) -> Result<Self> {
        let shape = space.shape();
        if axes.is_empty() || weights.len() != axes.len() || weights.iter().any(|w| !w.is_finite()) {
            return Err(Error::parameter(
                "weights",
                format!("{weights:?}"),
                "one finite weight for each axis",
            ));
        }
        if shape.contains(&0) {
            return Err(Error::shape("gradient", "axes of positive length", shape));
        }
        let mut plans = Vec::with_capacity(axes.len());
        for (k, (&axis, &weight)) in axes.iter().zip(weights).enumerate() {
            if axis >= shape.len() || axes[..k].contains(&axis) {
                let reason = format!("axes must differ and be below {}", shape.len());
                return Err(Error::parameter("axes", format!("{axes:?}"), reason));
            }
            let stride = shape[axis + 1..].iter().product::<usize>() * space.components();
            plans.push(Axis { length: shape[axis], stride, weight, within_row: axis + 1 == shape.len() });
        }
        let row = shape.last().copied().unwrap_or(1) * space.components();
        let plan = Plan { row, item: space.elements(), scalar: space.components(), axes: plans };
        let range = space.with_shape(&[&[axes.len()], shape].concat());
        Ok(Self { domain: space.clone(), range, plan })
    }

    /// The spectral norm ‖∇‖ = √Σₐ 4 wₐ² sin²(π (nₐ − 1) / 2nₐ), at most 2√axes for unit weights.
    pub fn norm(&self) -> f64 {
        let squared = |axis: &Axis| {
            let n = axis.length as f64;
            (2.0 * axis.weight * (std::f64::consts::FRAC_PI_2 * (n - 1.0) / n).sin()).powi(2)
        };
        self.plan.axes.iter().map(squared).sum::<f64>().sqrt()
    }
}

impl LinearOperator for Gradient {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(Forward(&self.plan), &[x], &mut [out])
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(Backward { plan: &self.plan, adds: false }, &[y], &mut [out])
    }
    fn add_adjoint(&self, y: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(Backward { plan: &self.plan, adds: true }, &[y], &mut [out])
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(Laplacian(&self.plan), &[x], &mut [out])
    }
}

impl Axis {
    /// Whether the row at `start` of an item has a neighbour before and after it along this axis.
    fn neighbours(&self, start: usize) -> (bool, bool) {
        let index = start / self.stride % self.length;
        (index > 0, index + 1 < self.length)
    }
}

impl Plan {
    fn on_device(&self, gpu: &Gpu, function: &str) -> Option<Result<()>> {
        let row = |axis: &Axis| [axis.length as f64, axis.stride as f64, axis.weight];
        let table: Vec<f64> = self.axes.iter().flat_map(row).collect();
        Some(gpu.upload(&table).and_then(|table| {
            let n = gpu.output_len(0);
            let arguments = arguments![gpu.input(0), gpu.output(0), table, n, self.item, self.axes.len()];
            gpu.run(&PROGRAM, function, n, arguments)
        }))
    }

    fn task(&self) -> usize {
        (TASK / self.row).max(1) * self.row
    }
}

struct Forward<'a>(&'a Plan);

impl Kernel for Forward<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let plan = self.0;
        let task = plan.task();
        for (x, out) in
            inputs[0].chunks_exact(plan.item).zip(outputs[0].chunks_exact_mut(plan.item * plan.axes.len()))
        {
            // A task writes the same rows of all components, so that x is read once.
            let mut tasks: Vec<Vec<&mut [T]>> = (0..plan.item.div_ceil(task)).map(|_| Vec::new()).collect();
            for component in out.chunks_exact_mut(plan.item) {
                component.chunks_mut(task).zip(&mut tasks).for_each(|(rows, task)| task.push(rows));
            }
            tasks.into_par_iter().enumerate().for_each(|(index, components)| {
                for (axis, rows) in plan.axes.iter().zip(components) {
                    for (k, out) in rows.chunks_exact_mut(plan.row).enumerate() {
                        difference(plan, axis, x, index * task + k * plan.row, out);
                    }
                }
            });
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        self.0.on_device(gpu, "gradient")
    }
}

fn difference<T: Real>(plan: &Plan, axis: &Axis, x: &[T], start: usize, out: &mut [T]) {
    let weight = T::of(axis.weight);
    let here = &x[start..start + plan.row];
    let (inner, tail) = if axis.within_row { (plan.row - plan.scalar, plan.scalar) } else { (plan.row, 0) };
    if !axis.within_row && !axis.neighbours(start).1 {
        return out.fill(T::zero());
    }
    let next = &x[start + axis.stride..][..inner];
    for (o, (a, b)) in out.iter_mut().zip(here.iter().zip(next)) {
        *o = weight * (*b - *a);
    }
    out[plan.row - tail..].fill(T::zero());
}

struct Backward<'a> {
    plan: &'a Plan,
    /// To what is there.
    adds: bool,
}

impl Kernel for Backward<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Self { plan, adds } = self;
        let task = plan.task();
        for (y, out) in
            inputs[0].chunks_exact(plan.item * plan.axes.len()).zip(outputs[0].chunks_exact_mut(plan.item))
        {
            out.par_chunks_mut(task).enumerate().for_each(|(index, rows)| {
                for (k, out) in rows.chunks_exact_mut(plan.row).enumerate() {
                    if !adds {
                        out.fill(T::zero());
                    }
                    for (axis, y) in plan.axes.iter().zip(y.chunks_exact(plan.item)) {
                        divergence(plan, axis, y, index * task + k * plan.row, out);
                    }
                }
            });
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        self.plan.on_device(gpu, if self.adds { "add_divergence" } else { "divergence" })
    }
}

/// Adds one component's part of the negative divergence to a row.
fn divergence<T: Real>(plan: &Plan, axis: &Axis, y: &[T], start: usize, out: &mut [T]) {
    let weight = T::of(axis.weight);
    let here = &y[start..start + plan.row];
    if axis.within_row {
        let inner = plan.row - plan.scalar;
        add(-weight, &here[..inner], &mut out[..inner]);
        add(weight, &here[..inner], &mut out[plan.scalar..]);
        return;
    }
    let (before, after) = axis.neighbours(start);
    if after {
        add(-weight, here, out);
    }
    if before {
        add(weight, &y[start - axis.stride..][..plan.row], out);
    }
}

fn add<T: Real>(weight: T, x: &[T], out: &mut [T]) {
    out.iter_mut().zip(x).for_each(|(o, x)| *o += weight * *x);
}

struct Laplacian<'a>(&'a Plan);

impl Kernel for Laplacian<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let plan = self.0;
        let task = plan.task();
        for (x, out) in inputs[0].chunks_exact(plan.item).zip(outputs[0].chunks_exact_mut(plan.item)) {
            out.par_chunks_mut(task).enumerate().for_each(|(index, rows)| {
                for (k, out) in rows.chunks_exact_mut(plan.row).enumerate() {
                    out.fill(T::zero());
                    plan.axes
                        .iter()
                        .for_each(|axis| second_difference(plan, axis, x, index * task + k * plan.row, out));
                }
            });
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        self.0.on_device(gpu, "laplacian")
    }
}

/// Adds w² (2x[i] − x[i − e] − x[i + e]) to a row, without the terms that leave the array.
fn second_difference<T: Real>(plan: &Plan, axis: &Axis, x: &[T], start: usize, out: &mut [T]) {
    let weight = T::of(axis.weight * axis.weight);
    let here = &x[start..start + plan.row];
    let against = |out: &mut [T], here: &[T], there: &[T]| {
        for (o, (a, b)) in out.iter_mut().zip(here.iter().zip(there)) {
            *o += weight * (*a - *b);
        }
    };
    if axis.within_row {
        let inner = plan.row - plan.scalar;
        against(&mut out[..inner], &here[..inner], &here[plan.scalar..]);
        against(&mut out[plan.scalar..], &here[plan.scalar..], &here[..inner]);
        return;
    }
    let (before, after) = axis.neighbours(start);
    if after {
        against(out, here, &x[start + axis.stride..][..plan.row]);
    }
    if before {
        against(out, here, &x[start - axis.stride..][..plan.row]);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::linalg::PowerIteration;
    use crate::testing::check_operator;

    #[test]
    fn passes_the_checks_on_every_choice_of_axes() {
        for dtype in [DType::F32, DType::F64] {
            for axes in [&[0][..], &[2], &[1, 2], &[0, 1, 2], &[2, 0]] {
                let real = Space::real(&[3, 5, 4], dtype, &Device::Cpu);
                check_operator(&Gradient::new(&real, axes).unwrap()).unwrap();
                let complex = Space::complex(&[3, 1, 4], dtype, &Device::Cpu);
                check_operator(&Gradient::weighted(&complex, axes, &vec![0.3; axes.len()]).unwrap()).unwrap();
            }
        }
    }

    #[test]
    fn differences_of_a_plane_are_its_slopes() {
        let x = Tensor::new(&[[0f64, 2., 4.], [3., 5., 7.]], &Device::Cpu).unwrap();
        let gradient = Gradient::new(&Space::real(&[2, 3], DType::F64, &Device::Cpu), &[0, 1]).unwrap();
        let expected = vec![vec![vec![3.0; 3], vec![0.0; 3]], vec![vec![2.0, 2.0, 0.0], vec![2.0, 2.0, 0.0]]];
        assert_eq!(gradient.apply(&x).unwrap().to_vec3::<f64>().unwrap(), expected);
    }

    #[test]
    fn the_norm_is_the_closed_form() {
        let space = Space::real(&[4, 3], DType::F64, &Device::Cpu);
        let gradient = Gradient::weighted(&space, &[0, 1], &[1.0, 0.5]).unwrap();
        let power = PowerIteration { max_iterations: 5000, tolerance: 1e-14, seed: 3 };
        assert!((power.norm(&gradient).unwrap() - gradient.norm()).abs() < 1e-8);
    }

    #[test]
    fn rejects_bad_axes() {
        let space = Space::real(&[4, 3], DType::F64, &Device::Cpu);
        assert!(Gradient::new(&space, &[2]).is_err());
        assert!(Gradient::new(&space, &[0, 0]).is_err());
        assert!(Gradient::new(&space, &[]).is_err());
        assert!(Gradient::new(&space.with_shape(&[0, 3]), &[0]).is_err());
    }
}
