//! Galerkin's method in the tensor product of reduced bases.
//!
//! Coefficients of u are C = C_lift + (Z₀ ⊗ Z₁ ⊗ …) y: C_lift satisfies the boundary conditions (a Coons patch in
//! coefficients), Z spans what satisfies the homogeneous ones. Terms with constant coefficients act on coefficients,
//! variable coefficients and N on the nodes. Derivatives along one axis make a Sylvester equation for y, solved by the
//! eigenvectors of each axis: it preconditions GMRES, with variable coefficients averaged, inside a damped Newton
//! iteration.

use ndarray::{Array1, Array2, ArrayD, Axis as Direction, IxDyn, Zip};

use super::axis::{Axis, conditions, interchangeable};
use super::basis::Basis;
use super::krylov::{gmres, norm};
use crate::error::Result;
use crate::gp::newton::{line_search, linear_coefficients, linearise};
use crate::gp::problem::{Data, Derivative, DifferentialOperator, Problem, tensor_grid};
use crate::linalg::dense::matmul;
use crate::linalg::kronecker::{SylvesterSolver, kronecker_product, mode_product};
use crate::observe::Termination;

/// Steps of GMRES at most, for one linear system.
const KRYLOV: usize = 80;

/// A linear system is solved where GMRES comes below this.
const SOLVED: f64 = 1e-13;

/// The equation in coefficients.
pub(super) struct Galerkin<'a> {
    pub(super) problem: &'a Problem,
    pub(super) axes: Vec<Axis>,
    /// What errors of the equation are tested with, and what the axes' functions make of it.
    tests: Vec<Tests>,
    /// The terms with constant coefficients.
    constant: Vec<(Derivative, f64)>,
    /// The equation without them, with its nodes [points, axes] and the coefficients of its derivatives there.
    nodal: Problem,
    points: Array2<f64>,
    linear: Vec<Array1<f64>>,
    lift: ArrayD<f64>,
}

/// The matrices of one axis.
#[derive(Clone)]
struct Tests {
    /// (QZ)ᵀ [free, nodes].
    test: Array2<f64>,
    /// (QZ)ᵀ ∂ᵏΦT [free, rank], and that times Z [free, free], by order k.
    all: Vec<Array2<f64>>,
    free: Vec<Array2<f64>>,
    /// ∂ᵏΦTZ [nodes, free].
    values: Vec<Array2<f64>>,
}

/// y, the solver of the averaged equation, and how the iteration went.
pub(super) struct Found {
    pub(super) free: ArrayD<f64>,
    pub(super) solver: SylvesterSolver,
    pub(super) steps: usize,
    pub(super) termination: Termination,
}

/// The equation at one y.
struct Tangent {
    /// Coefficients of the nodal derivatives.
    coefficients: Vec<Array1<f64>>,
    /// What is missing, tested.
    right: ArrayD<f64>,
}

impl Tests {
    fn new(axis: &Axis) -> Result<Self> {
        let test = axis.test()?;
        let each = |f: &dyn Fn(&Array2<f64>) -> Result<Array2<f64>>, of: &[Array2<f64>]| {
            of.iter().map(f).collect::<Result<Vec<_>>>()
        };
        let all = each(&|v| matmul(test.view(), v.view()), &axis.values)?;
        let free = each(&|a| matmul(a.view(), axis.null.view()), &all)?;
        let values = each(&|v| matmul(v.view(), axis.null.view()), &axis.values)?;
        Ok(Self { test, all, free, values })
    }
}

impl<'a> Galerkin<'a> {
    pub(super) fn new(problem: &'a Problem, bases: Vec<(Basis, Array1<f64>)>) -> Result<Self> {
        let (mut axes, mut tests) = (Vec::<Axis>::new(), Vec::<Tests>::new());
        for (axis, (basis, nodes)) in bases.into_iter().enumerate() {
            let twin = (0..axis).find(|other| {
                let a = &axes[*other];
                a.basis == basis && a.nodes == nodes && interchangeable(problem, axis, *other)
            });
            let (a, t) = match twin {
                Some(other) => (axes[other].clone(), tests[other].clone()),
                None => {
                    let a = Axis::new(problem, axis, basis, nodes)?;
                    let t = Tests::new(&a)?;
                    (a, t)
                }
            };
            axes.push(a);
            tests.push(t);
        }
        let (constant, varying): (Vec<_>, Vec<_>) =
            problem.operator.terms.iter().cloned().partition(|t| t.coefficient.constant().is_some());
        let constant =
            constant.iter().map(|t| (t.derivative, t.coefficient.constant().unwrap_or(0.0))).collect();
        let nodal = Problem { operator: DifferentialOperator { terms: varying }, ..problem.clone() };
        let coordinates: Vec<_> = axes.iter().map(|a| a.nodes.clone()).collect();
        let points = if nodal.derivatives().is_empty() {
            Array2::zeros((0, problem.dim()))
        } else {
            tensor_grid(&coordinates)
        };
        let linear = linear_coefficients(&nodal, &points)?;
        let mut galerkin =
            Self { problem, axes, tests, constant, nodal, points, linear, lift: ArrayD::zeros(vec![]) };
        galerkin.lift = galerkin.coons()?;
        Ok(galerkin)
    }

    /// Coefficients that satisfy all boundary conditions: each axis in turn corrects its own, which leaves those of the
    /// others alone where the data agree on edges.
    fn coons(&self) -> Result<ArrayD<f64>> {
        let shape: Vec<usize> = self.axes.iter().map(Axis::rank).collect();
        let mut c = ArrayD::zeros(shape);
        for (axis, a) in self.axes.iter().enumerate() {
            if a.rows.nrows() == 0 {
                continue;
            }
            let mut missing = mode_product(a.rows.view(), c.view(), axis)?.mapv(|v| -v);
            for (row, boundary) in conditions(self.problem, axis).enumerate() {
                let mut coordinates: Vec<_> = self.axes.iter().map(|a| a.nodes.clone()).collect();
                coordinates[axis] = Array1::from_elem(1, self.problem.coordinate(boundary.face));
                let mut g = boundary.condition.data().on_grid(&coordinates)?;
                for (d, other) in self.axes.iter().enumerate().filter(|(d, _)| *d != axis) {
                    g = mode_product(other.project.view(), g.view(), d)?;
                }
                let mut slot = missing.index_axis_mut(Direction(axis), row);
                slot += &g.index_axis(Direction(axis), 0);
            }
            c += &mode_product(a.lift.view(), missing.view(), axis)?;
        }
        Ok(c)
    }

    /// (QZ)ᵀ of f: separable data factor by factor.
    fn source(&self) -> Result<ArrayD<f64>> {
        if let Data::Separable(terms) = &self.problem.source {
            let shape: Vec<usize> = self.axes.iter().map(Axis::free).collect();
            let mut sum = ArrayD::zeros(shape);
            for term in terms {
                let factors: Vec<Array1<f64>> = term
                    .iter()
                    .zip(self.axes.iter().zip(&self.tests))
                    .map(|(g, (a, t))| t.test.dot(&a.nodes.mapv(|x| g(x))))
                    .collect();
                sum += &outer(&factors);
            }
            return Ok(sum);
        }
        let coordinates: Vec<_> = self.axes.iter().map(|a| a.nodes.clone()).collect();
        self.tested(self.problem.source.on_grid(&coordinates)?.into_flat())
    }

    /// All coefficients: the lift and the free ones.
    pub(super) fn expand(&self, y: &ArrayD<f64>) -> Result<ArrayD<f64>> {
        let nulls: Vec<_> = self.axes.iter().map(|a| a.null.clone()).collect();
        Ok(kronecker_product(&nulls, y.view())? + &self.lift)
    }

    /// Σ of the terms with constant coefficients, tested: of all coefficients or of the free ones, as `of` chooses.
    fn constant_terms(
        &self,
        c: &ArrayD<f64>,
        of: impl Fn(&Tests) -> &Vec<Array2<f64>>,
    ) -> Result<ArrayD<f64>> {
        let mut sum = ArrayD::zeros(self.free_shape());
        for (d, coefficient) in &self.constant {
            sum.scaled_add(*coefficient, &kronecker_product(&self.factors(*d, &of), c.view())?);
        }
        Ok(sum)
    }

    fn factors(&self, d: Derivative, of: impl Fn(&Tests) -> &Vec<Array2<f64>>) -> Vec<Array2<f64>> {
        self.tests.iter().enumerate().map(|(axis, t)| of(t)[d.order(axis)].clone()).collect()
    }

    fn free_shape(&self) -> Vec<usize> {
        self.axes.iter().map(Axis::free).collect()
    }

    /// The nodal derivatives of free coefficients, and those of the lift.
    fn on_nodes(&self, y: &ArrayD<f64>) -> Result<Vec<Array1<f64>>> {
        let one =
            |d: &Derivative| Ok(kronecker_product(&self.factors(*d, |t| &t.values), y.view())?.into_flat());
        self.nodal.derivatives().iter().map(one).collect()
    }

    fn lift_on_nodes(&self) -> Result<Vec<Array1<f64>>> {
        let one = |d: &Derivative| {
            let factors: Vec<_> =
                self.axes.iter().enumerate().map(|(axis, a)| a.values[d.order(axis)].clone()).collect();
            Ok(kronecker_product(&factors, self.lift.view())?.into_flat())
        };
        self.nodal.derivatives().iter().map(one).collect()
    }

    /// (QZ)ᵀ of values on the nodes.
    fn tested(&self, values: Array1<f64>) -> Result<ArrayD<f64>> {
        let shape: Vec<usize> = self.axes.iter().map(|a| a.nodes.len()).collect();
        let values = values.into_shape_with_order(IxDyn(&shape)).map_err(candle_core::Error::wrap)?;
        let factors: Vec<_> = self.tests.iter().map(|t| t.test.clone()).collect();
        kronecker_product(&factors, values.view())
    }

    /// The Sylvester equation with the given coefficient of each derivative; mixed derivatives are left out.
    fn sylvester(&self, coefficients: &[(Derivative, f64)]) -> Result<SylvesterSolver> {
        let mut factors: Vec<Array2<f64>> =
            self.axes.iter().map(|a| Array2::zeros((a.free(), a.free()))).collect();
        let mut shift = 0.0;
        for (d, c) in coefficients {
            let along: Vec<usize> = (0..self.axes.len()).filter(|axis| d.order(*axis) > 0).collect();
            match along[..] {
                [] => shift += c,
                [axis] => factors[axis].scaled_add(*c, &self.tests[axis].free[d.order(axis)]),
                _ => {}
            }
        }
        SylvesterSolver::new(factors, shift)
    }

    /// The equation at y, where the nodal derivatives are `u`. `linear` leaves N out.
    fn tangent(
        &self,
        fixed: &ArrayD<f64>,
        y: &ArrayD<f64>,
        u: &[Array1<f64>],
        linear: bool,
    ) -> Result<Tangent> {
        let mut right = fixed - &self.constant_terms(y, |t| &t.free)?;
        let mut coefficients = self.linear.clone();
        if !u.is_empty() {
            let value = if linear {
                combination(&self.linear, u)
            } else {
                let there = linearise(&self.nodal, &self.points, &self.linear, u);
                coefficients = there.coefficients;
                there.value
            };
            right -= &self.tested(value)?;
        }
        Ok(Tangent { coefficients, right })
    }

    /// The linearised equation on free coefficients.
    fn apply(&self, tangent: &Tangent, y: &ArrayD<f64>) -> Result<ArrayD<f64>> {
        let mut sum = self.constant_terms(y, |t| &t.free)?;
        let u = self.on_nodes(y)?;
        if !u.is_empty() {
            sum += &self.tested(combination(&tangent.coefficients, &u))?;
        }
        Ok(sum)
    }

    /// Newton's method, damped, from the solution without N.
    pub(super) fn solve(&self, most: usize) -> Result<Found> {
        let fixed = self.source()? - &self.constant_terms(&self.lift, |t| &t.all)?;
        let linear = self.problem.nonlinear.is_empty();
        // The tangent of N at the lift means nothing, unless there is nothing else.
        let without = linear || !self.problem.operator.terms.is_empty();
        let mut y = ArrayD::zeros(self.free_shape());
        let mut u = self.lift_on_nodes()?;
        let mut tangent = self.tangent(&fixed, &y, &u, without)?;
        let (floor, rounding) = (1e-8 * norm(&fixed), 1e-16 * norm(&fixed));
        let (mut steps, mut before, mut termination) = (0, f64::INFINITY, Termination::MaxIterations);
        let mut last: Option<(Vec<(Derivative, f64)>, SylvesterSolver)> = None;
        while steps < most.max(1) {
            let averages = self.averages(&tangent);
            // Where only the coefficient of u itself changed, the eigenvectors stay.
            let same = |old: &[(Derivative, f64)]| {
                old.iter().zip(&averages).all(|(a, b)| a.0.total() == 0 || a.1 == b.1)
            };
            let shift = averages.iter().filter(|(d, _)| d.total() == 0).map(|(_, c)| c).sum();
            let solver = match last.take() {
                Some((old, solver)) if same(&old) => solver.with_shift(shift)?,
                _ => self.sylvester(&averages)?,
            };
            let tolerance = match steps {
                _ if linear => 1e-14,
                0 => 1e-4,
                // What is left over is squared by Newton's step, and rounding is the end.
                _ => (before * before).clamp(1e-14, 1e-3).max(rounding / norm(&tangent.right)).min(0.1),
            };
            let apply = |y: &ArrayD<f64>| self.apply(&tangent, y);
            let precondition = |y: &ArrayD<f64>| solver.solve_once(y.view());
            let (step, left) = gmres(apply, precondition, &tangent.right, tolerance, KRYLOV)?;
            let along = self.on_nodes(&step)?;
            let first = steps == 0;
            let mut next = None;
            let length = line_search(norm(&tangent.right), floor, |length| {
                let there: Vec<_> = u.iter().zip(&along).map(|(u, d)| u + &(d * length)).collect();
                let at = self.tangent(&fixed, &(&y + &(&step * length)), &there, linear)?;
                let merit = if first { 0.0 } else { norm(&at.right) };
                next = Some((at, there));
                Ok(merit)
            })?;
            steps += 1;
            last = Some((averages, solver));
            let (Some(length), Some((at, there))) = (length, next) else {
                termination = Termination::Diverged;
                break;
            };
            y.scaled_add(length, &step);
            (tangent, u) = (at, there);
            let change = length * norm(&step) / norm(&self.expand(&y)?).max(f64::MIN_POSITIVE);
            let settled = change <= 2e-14 || (change < 1e-9 && change > 0.3 * before);
            let exact = if linear { left <= SOLVED } else { norm(&tangent.right) <= 2.0 * rounding };
            if settled || exact {
                termination = Termination::Converged;
                break;
            }
            before = change;
        }
        let solver = match last {
            Some((_, solver)) => solver,
            None => self.sylvester(&self.averages(&tangent))?,
        };
        Ok(Found { free: y, solver, steps: if linear { 0 } else { steps }, termination })
    }

    /// Every derivative of the linearised equation with its coefficient, averaged over the nodes.
    fn averages(&self, tangent: &Tangent) -> Vec<(Derivative, f64)> {
        let nodal = self.nodal.derivatives().into_iter().zip(&tangent.coefficients);
        let nodal = nodal.map(|(d, c)| (d, c.mean().unwrap_or(0.0)));
        self.constant.iter().copied().chain(nodal).collect()
    }
}

/// Σ c u, point by point.
fn combination(coefficients: &[Array1<f64>], u: &[Array1<f64>]) -> Array1<f64> {
    let mut sum = Array1::zeros(u.first().map_or(0, Array1::len));
    for (c, u) in coefficients.iter().zip(u) {
        Zip::from(&mut sum).and(c).and(u).for_each(|s, c, u| *s += c * u);
    }
    sum
}

/// a ⊗ b ⊗ …
pub(super) fn outer(factors: &[Array1<f64>]) -> ArrayD<f64> {
    let shape: Vec<usize> = factors.iter().map(Array1::len).collect();
    let mut product = vec![1.0];
    for factor in factors {
        product = product.iter().flat_map(|p| factor.iter().map(move |f| p * f)).collect();
    }
    ArrayD::from_shape_vec(IxDyn(&shape), product).unwrap_or_else(|_| ArrayD::zeros(IxDyn(&shape)))
}
