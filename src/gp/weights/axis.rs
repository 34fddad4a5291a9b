//! The features of one axis, reduced to an orthonormal basis of what they span on the nodes.

use ndarray::{Array1, Array2, ArrayView1, Axis as Direction, s};

use super::basis::Basis;
use crate::error::{Error, Result};
use crate::gp::problem::{Boundary, Problem};
use crate::linalg::dense::{HermitianEigen, Svd, matmul};

/// Singular values below this fraction of the largest are rounding.
const NEGLIGIBLE: f64 = 1e-13;

/// Boundary rows below this fraction of the largest depend on the others.
const DEPENDENT: f64 = 1e-10;

/// One axis: Φ = Q Σ Vᵀ on the nodes; a function is Q c there and φ(x) T c with T = V Σ⁻¹ everywhere.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) basis: Basis,
    pub(super) nodes: Array1<f64>,
    /// T [features, r].
    pub(super) transform: Array2<f64>,
    /// Qᵀ [r, nodes].
    pub(super) project: Array2<f64>,
    /// ∂ᵏΦ T [nodes, r] for k from 0 to the order of the equation.
    pub(super) values: Vec<Array2<f64>>,
    /// Conditions of this axis: [conditions, r], and their pseudo-inverse [r, conditions].
    pub(super) rows: Array2<f64>,
    pub(super) lift: Array2<f64>,
    /// Z [r, n]: an orthonormal basis of the coefficients that satisfy the homogeneous conditions.
    pub(super) null: Array2<f64>,
}

impl Axis {
    pub(super) fn new(problem: &Problem, axis: usize, basis: Basis, nodes: Array1<f64>) -> Result<Self> {
        let orders: Vec<usize> = (0..=problem.order(axis)).collect();
        let tables = basis.derivatives(nodes.view(), &orders);
        let svd = Svd::new("features", tables[0].view())?;
        let rank = svd.rank(NEGLIGIBLE);
        let transform = svd.v_adjoint.slice(s![..rank, ..]).t().to_owned()
            / svd.values.slice(s![..rank]).insert_axis(Direction(0));
        let project = svd.u.slice(s![.., ..rank]).t().to_owned();
        let values = tables.iter().map(|t| matmul(t.view(), transform.view())).collect::<Result<Vec<_>>>()?;
        let mut reduced = Self {
            basis,
            nodes,
            transform,
            project,
            values,
            rows: Array2::zeros((0, rank)),
            lift: Array2::zeros((rank, 0)),
            null: Array2::eye(rank),
        };
        reduced.constrain(problem, axis, &svd.values.slice(s![..rank]).to_owned())?;
        Ok(reduced)
    }

    /// Rank of the basis.
    pub(super) fn rank(&self) -> usize {
        self.transform.ncols()
    }

    /// Length of Z.
    pub(super) fn free(&self) -> usize {
        self.null.ncols()
    }

    /// ∂ᵏφ(x) T [points, r].
    pub(super) fn evaluate(&self, x: ArrayView1<f64>, order: usize) -> Result<Array2<f64>> {
        let table = self.basis.derivatives(x, &[order]).swap_remove(0);
        matmul(table.view(), self.transform.view())
    }

    /// (QZ)ᵀ [n, nodes].
    pub(super) fn test(&self) -> Result<Array2<f64>> {
        matmul(self.null.t(), self.project.view())
    }

    fn constrain(&mut self, problem: &Problem, axis: usize, sigma: &Array1<f64>) -> Result<()> {
        let rank = self.rank();
        let mut rows: Vec<Array1<f64>> = Vec::new();
        for boundary in conditions(problem, axis) {
            let at = Array1::from_elem(1, problem.coordinate(boundary.face));
            let mut row = Array1::zeros(rank);
            for (derivative, c) in boundary.condition.terms(boundary.face) {
                row.scaled_add(c, &self.evaluate(at.view(), derivative.order(axis))?.row(0));
            }
            rows.push(row);
        }
        if problem.periodic[axis] && matches!(self.basis, Basis::Chebyshev { .. }) {
            let ends = Array1::from(problem.domain[axis].to_vec());
            for order in 0..problem.order(axis) {
                let both = self.evaluate(ends.view(), order)?;
                rows.push(&both.row(1) - &both.row(0));
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        self.rows = Array2::from_shape_fn((rows.len(), rank), |(i, j)| rows[i][j]);
        // Conditions of different order differ in size: compare them at unit length.
        let sizes = self.rows.map_axis(Direction(1), |row| row.dot(&row).sqrt().max(f64::MIN_POSITIVE));
        let unit = &self.rows / &sizes.view().insert_axis(Direction(1));
        let svd = Svd::new("boundary conditions", unit.view())?;
        if svd.rank(DEPENDENT) < rows.len() {
            return Err(Error::Singular {
                name: format!("conditions along axis {axis}"),
                reason: "they contradict or repeat each other for the features in use".into(),
            });
        }
        let span = svd.v_adjoint.t();
        // The lift of least norm in the features, not in c: W bᵀ (b W bᵀ)⁻¹ with W = Σ². The others would put weight on
        // directions that the features hardly reach.
        let features = Svd::new("boundary conditions", (&unit * sigma).view())?;
        let scaled = &features.v_adjoint.t() / &features.values.view().insert_axis(Direction(0));
        self.lift = scaled.dot(&features.u.t()) / &sizes.insert_axis(Direction(0))
            * sigma.view().insert_axis(Direction(1));
        let projector = span.dot(&span.t());
        let eigen = HermitianEigen::new("boundary conditions", projector.view())?;
        self.null = eigen.vectors.slice(s![.., ..rank - rows.len()]).to_owned();
        Ok(())
    }
}

/// The conditions on the faces normal to an axis, in the order of the rows.
pub(super) fn conditions(problem: &Problem, axis: usize) -> impl Iterator<Item = &Boundary> {
    problem.boundary.iter().filter(move |b| b.face.axis == axis)
}
