//! The published objective and its gradient.

use std::f64::consts::TAU;

use ndarray::{Array2, Axis};
use num_complex::Complex64;

use super::toeplitz::{ToeplitzInverse, Transform};
use crate::error::{Error, Result};
use crate::gp::kernel::{Kernel1d, SpectralMixture};
use crate::gp::problem::{Condition, Nonlinearity, Problem};

/// Added to the diagonal of every Gram matrix, as published.
pub(super) const JITTER: f64 = 1e-6;

/// What one axis contributes: nodes, and c ∂ᵐ of the operator along it.
#[derive(Clone, Debug)]
pub(super) struct GridAxis {
    pub low: f64,
    pub step: f64,
    pub nodes: usize,
    pub order: usize,
    pub coefficient: f64,
    transform: Transform,
}

/// −log of the joint density of nodes' values u, precisions τ and v, and kernels (Fang et al. 2024, 2311.04465, eq. 14
/// and 18), with the weight λ of the likelihood terms.
///
/// Variables, in order: u on the grid (row-major), log τ, log v, the hyperparameters of each axis.
#[derive(Clone, Debug)]
pub(super) struct HmObjective {
    pub axes: Vec<GridAxis>,
    pub kernels: Vec<SpectralMixture>,
    identity: f64,
    nonlinear: Vec<Nonlinearity>,
    source: Array2<f64>,
    /// (index on the grid, value) of each boundary node.
    boundary: Vec<(usize, f64)>,
    pub weight: f64,
}

impl HmObjective {
    /// The objective of `problem` on a uniform grid of `nodes` an axis.
    pub fn new(problem: &Problem, nodes: usize, kernels: Vec<SpectralMixture>, weight: f64) -> Result<Self> {
        let grid = problem.uniform_axes(nodes);
        let mut axes: Vec<GridAxis> = problem
            .domain
            .iter()
            .map(|[low, high]| GridAxis {
                low: *low,
                step: (high - low) / (nodes - 1) as f64,
                nodes,
                order: 0,
                coefficient: 0.0,
                transform: Transform::new(nodes),
            })
            .collect();
        let identity = read_operator(problem, &mut axes)?;
        let source = problem.source.on_grid(&grid)?;
        let columns = if problem.dim() == 2 { nodes } else { 1 };
        let source = source
            .into_shape_with_order((nodes, columns))
            .map_err(|e| Error::parameter("source", nodes, e.to_string()))?;
        let boundary = boundary_nodes(problem, &grid)?;
        Ok(Self { axes, kernels, identity, nonlinear: problem.nonlinear.clone(), source, boundary, weight })
    }

    /// Number of grid nodes.
    pub fn nodes(&self) -> usize {
        self.source.len()
    }

    /// The published start: u = 0, log τ = log v = 0, the kernels' own parameters.
    pub fn start(&self) -> Vec<f64> {
        let mut x = vec![0.0; self.nodes() + 2];
        x.extend(self.kernels.iter().flat_map(|k| k.parameters()));
        x
    }

    /// The kernels at the variables `x`.
    pub fn kernels_at(&self, x: &[f64]) -> Result<Vec<SpectralMixture>> {
        let mut rest = &x[self.nodes() + 2..];
        let mut kernels = self.kernels.clone();
        for kernel in &mut kernels {
            let (own, others) = rest.split_at(kernel.parameters().len());
            kernel.set_parameters(own)?;
            rest = others;
        }
        Ok(kernels)
    }

    /// u on the grid, [n₀, n₁ or 1].
    pub fn values(&self, x: &[f64]) -> Array2<f64> {
        let (rows, columns) = self.source.dim();
        Array2::from_shape_fn((rows, columns), |(i, j)| x[i * columns + j])
    }

    /// K₁⁻¹ U K₂⁻¹ at the variables `x`: the weights of the prediction k(·, X) K⁻¹ u.
    pub fn prediction_weights(&self, x: &[f64]) -> Result<Array2<f64>> {
        let kernels = self.kernels_at(x)?;
        let mut u = self.values(x);
        for (axis, (grid, kernel)) in self.axes.iter().zip(&kernels).enumerate() {
            let factor = AxisFactor::new(grid, kernel)?;
            u = if axis == 0 { factor.solve(&u) } else { transposed(&factor.solve(&transposed(&u))) };
        }
        Ok(u)
    }

    /// The objective at `x`; its gradient is written to `gradient`.
    pub fn evaluate(&self, x: &[f64], gradient: &mut [f64]) -> Result<f64> {
        let n = self.nodes();
        let (log_tau, log_v) = (x[n], x[n + 1]);
        let u = self.values(x);
        let kernels = self.kernels_at(x)?;
        let first = AxisFactor::new(&self.axes[0], &kernels[0])?;
        let second = match self.axes.get(1) {
            Some(axis) => Some(AxisFactor::new(axis, &kernels[1])?),
            None => None,
        };
        let a = first.solve(&u);
        let b = second.as_ref().map(|s| s.solve(&transposed(&u)));
        let both = b.as_ref().map_or_else(|| a.clone(), |b| first.solve(&transposed(b)));

        let mut residual =
            first.differentiate(&a) * first.grid.coefficient - &self.source + &u * self.identity;
        if let (Some(second), Some(b)) = (&second, &b) {
            residual += &(transposed(&second.differentiate(b)) * second.grid.coefficient);
        }
        let mut slope = Array2::from_elem(u.raw_dim(), self.identity);
        self.add_nonlinear(&u, &mut residual, &mut slope);

        let (columns, rows) = (u.ncols() as f64, u.nrows() as f64);
        let mut value = 0.5 * (&u * &both).sum() + 0.5 * columns * first.inverse.log_determinant;
        if let Some(second) = &second {
            value += 0.5 * rows * second.inverse.log_determinant;
        }
        let (lambda, tau, v) = (self.weight, log_tau.exp(), log_v.exp());
        let misfit: f64 = self.boundary.iter().map(|(i, y)| (x[*i] - y).powi(2)).sum();
        let square = residual.iter().map(|r| r * r).sum::<f64>();
        value -= lambda * (0.5 * self.boundary.len() as f64 * log_tau - 0.5 * tau * misfit);
        value -= 0.5 * n as f64 * log_v - 0.5 * v * square;

        gradient[n] = -lambda * (0.5 * self.boundary.len() as f64 - 0.5 * tau * misfit);
        gradient[n + 1] = -(0.5 * n as f64 - 0.5 * v * square);
        let cotangent = residual * v;
        let z = first.solve(&first.differentiate_adjoint(&cotangent));
        let mut du = &both + &(&z * first.grid.coefficient) + &slope * &cotangent;
        let mut kernel_gradient = first.pull_back(columns, &both, &z, &a, &cotangent);
        if let (Some(second), Some(b)) = (&second, &b) {
            let turned = transposed(&cotangent);
            let z = second.solve(&second.differentiate_adjoint(&turned));
            du += &(transposed(&z) * second.grid.coefficient);
            kernel_gradient.extend(second.pull_back(rows, &transposed(&both), &z, b, &turned));
        }
        gradient[..n].iter_mut().zip(&du).for_each(|(g, d)| *g = *d);
        for (i, y) in &self.boundary {
            gradient[*i] += lambda * tau * (x[*i] - y);
        }
        gradient[n + 2..].copy_from_slice(&kernel_gradient);
        Ok(value)
    }

    fn add_nonlinear(&self, u: &Array2<f64>, residual: &mut Array2<f64>, slope: &mut Array2<f64>) {
        let mut d = [0.0];
        for term in &self.nonlinear {
            for ((u, r), s) in u.iter().zip(residual.iter_mut()).zip(slope.iter_mut()) {
                *r += term.value(&[], &[*u]);
                term.partials(&[], &[*u], &mut d);
                *s += d[0];
            }
        }
    }
}

/// Sets each axis' order and coefficient; returns the coefficient of u.
fn read_operator(problem: &Problem, axes: &mut [GridAxis]) -> Result<f64> {
    let unsupported = |what: &str| {
        Err(Error::Unsupported(format!(
            "{what}: the published objective takes constant coefficients, one derivative an axis, N(u), and one or two axes; use the collocation or the weight-space engine"
        )))
    };
    if axes.len() > 2 {
        return unsupported("three axes");
    }
    let mut identity = 0.0;
    for term in &problem.operator.terms {
        let Some(c) = term.coefficient.constant() else { return unsupported("variable coefficient") };
        let along: Vec<usize> = (0..axes.len()).filter(|&axis| term.derivative.order(axis) > 0).collect();
        match along.as_slice() {
            [] => identity += c,
            [axis] if axes[*axis].order == 0 => {
                (axes[*axis].order, axes[*axis].coefficient) = (term.derivative.order(*axis), c);
            }
            _ => return unsupported("mixed or repeated derivative"),
        }
    }
    if problem.nonlinear.iter().any(|n| n.arguments != [crate::gp::problem::Derivative::VALUE]) {
        return unsupported("nonlinear term of a derivative");
    }
    Ok(identity)
}

/// The nodes on faces with Dirichlet data, each once.
fn boundary_nodes(problem: &Problem, grid: &[ndarray::Array1<f64>]) -> Result<Vec<(usize, f64)>> {
    let mut nodes = std::collections::BTreeMap::new();
    for boundary in &problem.boundary {
        let Condition::Dirichlet(data) = &boundary.condition else {
            return Err(Error::Unsupported("the published objective takes Dirichlet conditions only".into()));
        };
        let mut face = grid.to_vec();
        let end = if boundary.face.sign() < 0.0 { 0 } else { grid[boundary.face.axis].len() - 1 };
        face[boundary.face.axis] = ndarray::Array1::from_elem(1, grid[boundary.face.axis][end]);
        let values = data.on_grid(&face)?;
        for (index, value) in values.indexed_iter() {
            let flat = (0..grid.len()).fold(0, |flat, axis| {
                flat * grid[axis].len() + if axis == boundary.face.axis { end } else { index[axis] }
            });
            nodes.insert(flat, *value);
        }
    }
    if problem.periodic.iter().any(|p| *p) || !problem.observations.is_empty() {
        return Err(Error::Unsupported(
            "the published objective has no periodic axes and no observations".into(),
        ));
    }
    Ok(nodes.into_iter().collect())
}

fn transposed(a: &Array2<f64>) -> Array2<f64> {
    a.t().as_standard_layout().into_owned()
}

/// K and the kernel's derivative of the operator's order, on one axis.
struct AxisFactor<'a> {
    grid: &'a GridAxis,
    inverse: ToeplitzInverse,
    /// Circulant of P = k⁽ᵐ⁾(X, X).
    derivative: Vec<Complex64>,
    table: crate::gp::kernel::LagTable,
}

impl<'a> AxisFactor<'a> {
    fn new(grid: &'a GridAxis, kernel: &SpectralMixture) -> Result<Self> {
        let table = kernel.lag_table(grid.step, grid.nodes, grid.order)?;
        let mut lags = table.value.clone();
        lags[0] += JITTER;
        let inverse = ToeplitzInverse::new(&grid.transform, &lags)?;
        let derivative = grid.transform.circulant(&table.derivative, parity(grid.order));
        Ok(Self { grid, inverse, derivative, table })
    }

    fn by_column(a: &Array2<f64>, f: impl Fn(&[f64]) -> Vec<f64>) -> Array2<f64> {
        let mut out = Array2::zeros(a.raw_dim());
        for (a, mut out) in a.axis_iter(Axis(1)).zip(out.axis_iter_mut(Axis(1))) {
            out.assign(&ndarray::Array1::from(f(&a.to_vec())));
        }
        out
    }

    fn solve(&self, b: &Array2<f64>) -> Array2<f64> {
        Self::by_column(b, |b| self.inverse.solve(b))
    }

    /// P A.
    fn differentiate(&self, a: &Array2<f64>) -> Array2<f64> {
        Self::by_column(a, |a| self.grid.transform.product(&self.derivative, a))
    }

    /// Pᵀ A: P itself up to the sign of odd orders.
    fn differentiate_adjoint(&self, a: &Array2<f64>) -> Array2<f64> {
        self.differentiate(a) * parity(self.grid.order)
    }

    /// The gradient with respect to the hyperparameters, from ∂/∂K = ½ m K⁻¹ − (½W + cZ)Aᵀ and ∂/∂P = c G Aᵀ, where m
    /// is the number of columns, W = K⁻¹UK₂⁻¹, Z = K⁻¹PᵀG and A = K⁻¹U.
    fn pull_back(
        &self,
        columns: f64,
        w: &Array2<f64>,
        z: &Array2<f64>,
        a: &Array2<f64>,
        g: &Array2<f64>,
    ) -> Vec<f64> {
        let transform = &self.grid.transform;
        let c = self.grid.coefficient;
        let zeros = || transform.spectrum(&[]);
        let (mut by_value, mut by_derivative) = (zeros(), zeros());
        let left = (w * 0.5 + z * c) * -1.0;
        for ((left, a), g) in left.columns().into_iter().zip(a.columns()).zip(g.columns()) {
            let a = transform.spectrum(&a.to_vec());
            for (sum, x) in [(&mut by_value, left), (&mut by_derivative, g)] {
                let x = transform.spectrum(&x.to_vec());
                sum.iter_mut().zip(x).zip(&a).for_each(|((sum, x), a)| *sum += x * a.conj());
            }
        }
        let mut value = transform.diagonal_sums(by_value, 1.0);
        for (value, sum) in value.iter_mut().zip(self.inverse.diagonal_sums()) {
            *value += 0.5 * columns * sum;
        }
        let derivative = transform.diagonal_sums(by_derivative, parity(self.grid.order));
        let derivative: Vec<f64> = derivative.into_iter().map(|d| c * d).collect();
        self.table.pull_back(&value, &derivative)
    }
}

fn parity(order: usize) -> f64 {
    if order.is_multiple_of(2) { 1.0 } else { -1.0 }
}

/// The initial mixture for a band up to `angular` (radians per unit of length).
pub(super) fn published_mixture(
    envelope: crate::gp::kernel::Envelope,
    components: usize,
    angular: f64,
) -> Result<SpectralMixture> {
    SpectralMixture::spread(envelope, components, angular / TAU)
}
