//! The posterior on a box: coefficients of a tensor product, and the covariance that errors of the source leave.

use std::sync::OnceLock;

use ndarray::{Array1, Array2, ArrayD, Axis as Direction, IxDyn};

use super::axis::Axis;
use super::galerkin::outer;
use crate::error::{Error, Result};
use crate::gp::problem::{Derivative, Problem, tensor_grid};
use crate::gp::solution::Posterior;
use crate::linalg::kronecker::{SylvesterSolver, kronecker_product};
use crate::tensor::Space;
use crate::tensor::random::{Noise, standard_normal};

/// u = Σ C_ij… φ_i(x) φ_j(y) …, with Cov C = σ² (A⁻¹ A⁻ᵀ) on the free coefficients: A is the equation (with averaged
/// coefficients where they vary) and σ the error of f at a node.
#[derive(Debug)]
pub(super) struct TensorPosterior {
    axes: Vec<Axis>,
    coefficients: ArrayD<f64>,
    solver: SylvesterSolver,
    /// The adjoint solver, made when a variance is first asked for.
    transposed: OnceLock<SylvesterSolver>,
    /// σ.
    pub(super) deviation: f64,
}

impl TensorPosterior {
    pub(super) fn new(axes: Vec<Axis>, coefficients: ArrayD<f64>, solver: SylvesterSolver) -> Self {
        Self { axes, coefficients, solver, transposed: OnceLock::new(), deviation: 0.0 }
    }

    fn adjoint(&self) -> Result<&SylvesterSolver> {
        match self.transposed.get() {
            Some(solver) => Ok(solver),
            None => {
                let solver = self.solver.transposed()?;
                Ok(self.transposed.get_or_init(|| solver))
            }
        }
    }

    /// The rms residual of the equation that a relative one stands for.
    pub(super) fn scale(&self, problem: &Problem, relative: f64) -> Result<f64> {
        let axes = problem.off_grid_axes(9);
        let mut largest = rms(problem.source.on_grid(&axes).unwrap_or_default().iter());
        let points = tensor_grid(&axes);
        for term in &problem.operator.terms {
            let c = term.coefficient.at(&points)?;
            let u = self.mean_on_grid(&axes, term.derivative)?;
            largest = largest.max(rms(c.iter().zip(&u).map(|(c, u)| c * u).collect::<Vec<_>>().iter()));
        }
        Ok(relative * largest)
    }

    fn check(&self, points: &Array2<f64>) -> Result<()> {
        if points.ncols() != self.axes.len() {
            return Err(Error::shape("points", format!("[points, {}]", self.axes.len()), points.shape()));
        }
        Ok(())
    }

    /// ∂φ(x) T of each axis at points.
    fn tables(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Vec<Array2<f64>>> {
        self.check(points)?;
        let each = self.axes.iter().enumerate();
        each.map(|(d, axis)| axis.evaluate(points.column(d), derivative.order(d))).collect()
    }

    /// A⁻ᵀ Zᵀ φ(x), one row a point.
    fn sensitivities(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array2<f64>> {
        let tables = self
            .tables(points, derivative)?
            .iter()
            .zip(&self.axes)
            .map(|(t, axis)| t.dot(&axis.null))
            .collect::<Vec<_>>();
        let shape: Vec<usize> = self.axes.iter().map(Axis::free).collect();
        let adjoint = self.adjoint()?;
        let mut all = Array2::zeros((points.nrows(), shape.iter().product()));
        for (i, mut row) in all.rows_mut().into_iter().enumerate() {
            let phi = outer(&tables.iter().map(|t| t.row(i).to_owned()).collect::<Vec<_>>());
            let solved = adjoint.solve_once(phi.view())?;
            row.iter_mut().zip(&solved).for_each(|(o, s)| *o = self.deviation * s);
        }
        Ok(all)
    }
}

fn rms<'a>(values: impl ExactSizeIterator<Item = &'a f64>) -> f64 {
    let count = values.len().max(1) as f64;
    (values.map(|v| v * v).sum::<f64>() / count).sqrt()
}

/// Σ C_ij… a_i b_j … at every point, contracting the last axis first.
fn contract(tables: &[Array2<f64>], c: &ArrayD<f64>) -> Result<Array1<f64>> {
    let points = tables.first().map_or(0, Array2::nrows);
    let Some((last, rest)) = tables.split_last() else { return Ok(Array1::zeros(0)) };
    let width = last.ncols();
    let flat = c.to_shape((c.len() / width.max(1), width)).map_err(candle_core::Error::wrap)?.to_owned();
    // [points, all but the last]
    let mut partial = crate::linalg::dense::matmul(last.view(), flat.t())?;
    for table in rest.iter().rev() {
        let width = table.ncols();
        let outer = partial.ncols() / width.max(1);
        let mut next = Array2::zeros((points, outer));
        for (i, mut row) in next.rows_mut().into_iter().enumerate() {
            let phi = table.row(i);
            for (k, out) in row.iter_mut().enumerate() {
                *out = (0..width).map(|j| partial[[i, k * width + j]] * phi[j]).sum();
            }
        }
        partial = next;
    }
    Ok(partial.index_axis_move(Direction(1), 0))
}

impl Posterior for TensorPosterior {
    fn mean(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array1<f64>> {
        contract(&self.tables(points, derivative)?, &self.coefficients)
    }

    fn mean_on_grid(&self, axes: &[Array1<f64>], derivative: Derivative) -> Result<ArrayD<f64>> {
        if axes.len() != self.axes.len() {
            return Err(Error::shape("axes of a grid", format!("{} axes", self.axes.len()), &[axes.len()]));
        }
        let tables = self
            .axes
            .iter()
            .zip(axes)
            .enumerate()
            .map(|(d, (axis, x))| axis.evaluate(x.view(), derivative.order(d)))
            .collect::<Result<Vec<_>>>()?;
        kronecker_product(&tables, self.coefficients.view())
    }

    fn variance(&self, points: &Array2<f64>, derivative: Derivative) -> Result<Array1<f64>> {
        Ok(self.sensitivities(points, derivative)?.map_axis(Direction(1), |row| row.dot(&row)))
    }

    fn covariance(
        &self,
        a: (&Array2<f64>, Derivative),
        b: (&Array2<f64>, Derivative),
    ) -> Result<Array2<f64>> {
        Ok(self.sensitivities(a.0, a.1)?.dot(&self.sensitivities(b.0, b.1)?.t()))
    }

    fn sample(
        &self,
        points: &Array2<f64>,
        derivative: Derivative,
        count: usize,
        seed: u64,
    ) -> Result<Array2<f64>> {
        let tables = self.tables(points, derivative)?;
        let shape: Vec<usize> = self.axes.iter().map(Axis::free).collect();
        let nulls: Vec<_> = self.axes.iter().map(|a| a.null.clone()).collect();
        let space = Space::real(&shape, candle_core::DType::F64, &candle_core::Device::Cpu);
        let normal = standard_normal(Noise::new(seed, 0), &space, &[count])?;
        let mut draws = Array2::zeros((count, points.nrows()));
        for (k, mut row) in draws.rows_mut().into_iter().enumerate() {
            let noise = normal.get(k)?.flatten_all()?.to_vec1::<f64>()?;
            let noise = ArrayD::from_shape_vec(IxDyn(&shape), noise).map_err(candle_core::Error::wrap)?
                * self.deviation;
            let free = self.solver.solve_once(noise.view())?;
            let c = kronecker_product(&nulls, free.view())? + &self.coefficients;
            row.assign(&contract(&tables, &c)?);
        }
        Ok(draws)
    }
}
