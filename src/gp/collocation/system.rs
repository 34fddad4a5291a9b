//! The rows of the collocation system: equation, boundary, periodicity, observations.

use ndarray::{Array1, Array2};

use super::functional::{Functional, Piece, evaluations};
use super::posterior::Conditioned;
use crate::error::Result;
use crate::gp::newton::{Linearisation, linear_coefficients, linearise};
use crate::gp::problem::{Data, Derivative, Problem, tensor_grid};
use crate::gp::solution::Posterior;

/// Functionals, their values and the standard deviations of the values.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    pub functionals: Vec<Functional>,
    pub values: Vec<f64>,
    pub noise: Vec<f64>,
}

impl Rows {
    fn push(&mut self, functional: Functional, value: f64, noise: f64) {
        self.functionals.push(functional);
        self.values.push(value);
        self.noise.push(noise);
    }

    /// How many rows are not exactly zero.
    pub fn informative(&self) -> usize {
        self.values.iter().zip(&self.noise).filter(|(value, noise)| **value != 0.0 || **noise != 0.0).count()
    }

    pub fn values(&self) -> Array1<f64> {
        self.values.clone().into()
    }

    pub fn noise(&self) -> Array1<f64> {
        self.noise.clone().into()
    }
}

/// The interior points of the equation with the source on them.
#[derive(Clone, Debug)]
pub(super) struct Equation<'a> {
    problem: &'a Problem,
    pub points: Array2<f64>,
    source: Array1<f64>,
    /// The coefficients of L, by derivative in the order of [`Problem::derivatives`].
    linear: Vec<Array1<f64>>,
}

impl<'a> Equation<'a> {
    /// At the points of a sampled source, else at `points`.
    pub fn new(problem: &'a Problem, points: Array2<f64>) -> Result<Self> {
        let (points, source) = match &problem.source {
            Data::Samples(samples) => (samples.points.clone(), samples.values.clone()),
            data => {
                let source = data.at(&points)?;
                (points, source)
            }
        };
        let linear = linear_coefficients(problem, &points)?;
        Ok(Self { problem, points, source, linear })
    }

    /// Whether one linear solve is not enough.
    pub fn is_nonlinear(&self) -> bool {
        !self.problem.nonlinear.is_empty()
    }

    /// The derivatives of `u` at the points; all zero where there is none.
    pub fn values(&self, u: Option<&Conditioned>) -> Result<Vec<Array1<f64>>> {
        let zero = || Ok(Array1::zeros(self.points.nrows()));
        let value = |d: &Derivative| u.map_or_else(zero, |u| u.mean(&self.points, *d));
        self.problem.derivatives().iter().map(value).collect()
    }

    /// The equation linearised where the derivatives are `u`.
    pub fn tangent(&self, u: &[Array1<f64>]) -> Linearisation {
        linearise(self.problem, &self.points, &self.linear, u)
    }

    /// ‖f − L u − N(u)‖.
    pub fn misfit(&self, tangent: &Linearisation) -> f64 {
        let left = &self.source - &tangent.value;
        left.dot(&left).sqrt()
    }

    /// The rows (L + N′(u)) v = f − N(u) + N′(u) u.
    pub fn rows(&self, u: &[Array1<f64>]) -> Rows {
        let tangent = self.tangent(u);
        let mut values = &self.source - &tangent.value;
        for (c, u) in tangent.coefficients.iter().zip(u) {
            values += &(c * u);
        }
        let derivatives = self.problem.derivatives();
        let mut rows = Rows::default();
        for (i, x) in self.points.rows().into_iter().enumerate() {
            let terms = derivatives.iter().zip(&tangent.coefficients).map(|(d, c)| (*d, c[i])).collect();
            rows.push(Functional::at(x.to_vec(), terms), values[i], self.problem.source_noise);
        }
        rows
    }
}

/// The rows that don't change: conditions on faces, `points` per free axis, periodicity, and observations.
pub(super) fn conditions(problem: &Problem, points: usize) -> Result<Rows> {
    let mut rows = Rows::default();
    for boundary in &problem.boundary {
        let mut axes = problem.uniform_axes(points);
        axes[boundary.face.axis] = Array1::from_elem(1, problem.coordinate(boundary.face));
        let (x, g) = match boundary.condition.data() {
            Data::Samples(samples) => (samples.points.clone(), samples.values.clone()),
            data => {
                let x = tensor_grid(&axes);
                let g = data.at(&x)?;
                (x, g)
            }
        };
        let terms = boundary.condition.terms(boundary.face);
        for (x, g) in x.rows().into_iter().zip(g) {
            let row = Functional::at(x.to_vec(), terms.clone());
            // Faces share edges and corners.
            if !rows.functionals.contains(&row) {
                rows.push(row, g, problem.boundary_noise);
            }
        }
    }
    for axis in (0..problem.dim()).filter(|&axis| problem.periodic[axis]) {
        periodic(problem, axis, points, &mut rows);
    }
    for observation in &problem.observations {
        let functionals = evaluations(&observation.points, observation.derivative);
        for (row, value) in functionals.into_iter().zip(&observation.values) {
            rows.push(row, *value, observation.noise);
        }
    }
    Ok(rows)
}

/// ∂ʲu(high) − ∂ʲu(low) = 0 for all j below the order along the axis.
fn periodic(problem: &Problem, axis: usize, points: usize, rows: &mut Rows) {
    let [low, high] = problem.domain[axis];
    let mut axes = problem.uniform_axes(points);
    axes[axis] = Array1::from_elem(1, low);
    for order in 0..problem.order(axis) {
        let derivative = Derivative::along(axis, order);
        for x in tensor_grid(&axes).rows() {
            let mut across = x.to_vec();
            across[axis] = high;
            let piece = |x: Vec<f64>, sign| Piece { x, terms: vec![(derivative, sign)] };
            rows.push(Functional { pieces: vec![piece(across, 1.0), piece(x.to_vec(), -1.0)] }, 0.0, 0.0);
        }
    }
}
