//! The features of one axis, reduced to an orthonormal basis of what they span on the nodes.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis as Direction, ShapeBuilder, s};

use super::basis::Basis;
use crate::error::{Error, Result};
use crate::gp::problem::{Boundary, Problem};
use crate::linalg::dense::{HermitianEigen, Svd, Triangle, matmul, solve_triangular};

/// Features of which less than this fraction is new are left out: its inverse bounds how much rounding
/// their combinations amplify.
const REPEATED: f64 = 1e-3;

/// Boundary rows below this fraction of the largest depend on the others.
const DEPENDENT: f64 = 1e-10;

/// One axis: Φ = Q R on the nodes, without features that depend on those before; a function is Q c there and φ(x) T c
/// everywhere, T = R⁻¹.
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
        let (q, r, kept) = orthonormal(tables[0].view(), REPEATED);
        let rank = kept.len();
        let inverse = solve_triangular(r.view(), Triangle::Upper, Array2::eye(rank).view())?;
        let mut transform = Array2::zeros((basis.len(), rank));
        for (row, feature) in inverse.rows().into_iter().zip(&kept) {
            transform.row_mut(*feature).assign(&row);
        }
        let project = q.t().to_owned();
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
        reduced.constrain(problem, axis, &r)?;
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

    fn constrain(&mut self, problem: &Problem, axis: usize, r: &Array2<f64>) -> Result<()> {
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
        // The lift of least norm in the features, not in c, which would put weight on directions that the features
        // hardly reach.
        let features = Svd::new("boundary conditions", unit.dot(r).view())?;
        let scaled = &features.v_adjoint.t() / &features.values.view().insert_axis(Direction(0));
        self.lift = r.dot(&scaled.dot(&features.u.t())) / &sizes.insert_axis(Direction(0));
        let projector = span.dot(&span.t());
        let eigen = HermitianEigen::new("boundary conditions", projector.view())?;
        self.null = eigen.vectors.slice(s![.., ..rank - rows.len()]).to_owned();
        Ok(())
    }
}

/// Q [nodes, rank] and R [rank, rank] of the columns that are not repeated, and which these are: Gram and Schmidt's
/// method in the order of the columns, twice, after which Q is orthonormal to rounding.
fn orthonormal(columns: ArrayView2<f64>, repeated: f64) -> (Array2<f64>, Array2<f64>, Vec<usize>) {
    let (n, m) = columns.dim();
    let mut q = Array2::<f64>::zeros((n, m.min(n)).f());
    let mut r = Array2::zeros((m.min(n), m.min(n)));
    let mut kept = Vec::new();
    for (j, column) in columns.columns().into_iter().enumerate() {
        let rank = kept.len();
        if rank == n {
            break;
        }
        let mut rest = column.to_owned();
        let mut along = Array1::zeros(rank);
        for _ in 0..2 {
            let known = q.slice(s![.., ..rank]);
            let parts = known.t().dot(&rest);
            rest -= &known.dot(&parts);
            along += &parts;
        }
        let size = rest.dot(&rest).sqrt();
        if size > repeated * column.dot(&column).sqrt() {
            q.column_mut(rank).assign(&(rest / size));
            r.slice_mut(s![..rank, rank]).assign(&along);
            r[[rank, rank]] = size;
            kept.push(j);
        }
    }
    let rank = kept.len();
    (q.slice_move(s![.., ..rank]), r.slice_move(s![..rank, ..rank]), kept)
}

/// The conditions on the faces normal to an axis, in the order of the rows.
pub(super) fn conditions(problem: &Problem, axis: usize) -> impl Iterator<Item = &Boundary> {
    problem.boundary.iter().filter(move |b| b.face.axis == axis)
}

/// Whether two axes with the same features have the same matrices: the same length, order and kinds of conditions.
pub(super) fn interchangeable(problem: &Problem, a: usize, b: usize) -> bool {
    let kind = |axis: usize| -> Vec<_> {
        conditions(problem, axis)
            .map(|boundary| {
                let terms = boundary.condition.terms(boundary.face);
                let terms: Vec<_> = terms.into_iter().map(|(d, c)| (d.order(axis), c)).collect();
                (boundary.face.side, terms)
            })
            .collect()
    };
    problem.domain[a] == problem.domain[b]
        && problem.periodic[a] == problem.periodic[b]
        && problem.order(a) == problem.order(b)
        && kind(a) == kind(b)
}
