//! Two and three axes: Galerkin's method in the tensor product of reduced bases.
//!
//! Coefficients of u are C = C_lift + (Z₀ ⊗ Z₁ ⊗ …) y: C_lift satisfies the boundary conditions (a Coons patch in
//! coefficients), Z spans what satisfies the homogeneous ones. Derivatives along one axis make a Sylvester equation for
//! y, solved by the eigenvectors of each axis; variable coefficients, mixed derivatives and Newton's linearisation are
//! left to GMRES, with the Sylvester equation of the averaged coefficients as preconditioner.

use ndarray::{Array1, Array2, ArrayD, Axis as Direction, IxDyn};

use super::WeightSpace;
use super::axis::{Axis, conditions};
use super::basis::{Basis, lattice, spacing};
use super::krylov::gmres;
use super::newton::{linear_coefficients, linearise};
use super::spectrum::Peak;
use super::tensor_posterior::TensorPosterior;
use super::traces::lines;
use crate::error::{Error, Result};
use crate::gp::problem::{Data, Derivative, Problem, tensor_grid};
use crate::gp::solution::{PdeSolution, Residual, SpectralLine};
use crate::linalg::dense::matmul;
use crate::linalg::kronecker::{SylvesterSolver, kronecker_product, mode_product};
use crate::observe::Termination;

/// Share of the resolved frequencies from which on polynomials take the place of sinusoids.
const BROAD: f64 = 1.0 / 3.0;

/// A residual above this calls for other features; polynomials in several axes cost much.
const POOR: f64 = 1e-8;

/// Steps of GMRES at most, for one linear system.
const KRYLOV: usize = 80;

/// Off-grid points an axis for the residual, by number of axes.
const CHECKS: [usize; 4] = [0, 257, 61, 23];

/// The equation in coefficients.
struct Galerkin<'a> {
    problem: &'a Problem,
    axes: Vec<Axis>,
    /// (QZ)ᵀ of each axis.
    test: Vec<Array2<f64>>,
    /// ZᵀQᵀ ∂ᵏΦT Z: [axis][order].
    inner: Vec<Vec<Array2<f64>>>,
    /// The nodes [points, axes] and the coefficients of L there, only where something varies.
    points: Array2<f64>,
    linear: Vec<Array1<f64>>,
    lift: ArrayD<f64>,
}

struct Fit {
    posterior: TensorPosterior,
    residual: Residual,
    steps: usize,
    termination: Termination,
    unknowns: usize,
    points: usize,
    polynomial: usize,
}

pub(super) fn solve(engine: &WeightSpace, problem: &Problem) -> Result<PdeSolution> {
    let found = lines(engine, problem)?;
    for (axis, peaks) in found.iter().enumerate() {
        let highest = peaks.iter().filter(|p| p.amplitude > 0.0).map(|p| p.frequency).reduce(f64::max);
        if let Some(highest) = highest {
            problem.require_resolution(axis, nodes(engine, problem, axis), highest)?;
        }
    }
    let mut best: Option<Fit> = None;
    for attempt in 0..3 {
        let Some(bases) = features(engine, problem, &found, attempt)? else { continue };
        let fit = match Galerkin::new(problem, bases).and_then(|g| g.fit(engine)) {
            Ok(fit) => fit,
            // The last resort may fail where an earlier attempt did not.
            Err(_) if best.is_some() => continue,
            Err(error) => return Err(error),
        };
        let worst = fit.residual.worst();
        if best.as_ref().is_none_or(|b| worst < b.residual.worst() || b.residual.worst().is_nan()) {
            best = Some(fit);
        }
        if worst <= POOR || problem.source_noise > 0.0 {
            break;
        }
    }
    let fit = best.ok_or_else(|| {
        Error::parameter(
            "points",
            nodes(engine, problem, 0),
            "too few for the bands of frequencies in the data",
        )
    })?;
    let spectrum = found
        .iter()
        .enumerate()
        .flat_map(|(axis, peaks)| {
            peaks.iter().map(move |p| SpectralLine { axis, frequency: p.frequency, weight: p.amplitude })
        })
        .collect();
    Ok(PdeSolution {
        posterior: Box::new(fit.posterior),
        residual: fit.residual,
        points: fit.points,
        unknowns: fit.unknowns,
        hyperparameters: vec![("axes with polynomials".into(), fit.polynomial as f64)],
        spectrum,
        termination: fit.termination,
        steps: fit.steps,
        elapsed: std::time::Duration::ZERO,
        warnings: Vec::new(),
    })
}

/// Axes of the grid on which the source is sampled.
fn sample_axes(problem: &Problem) -> Option<&Vec<Array1<f64>>> {
    match &problem.source {
        Data::Samples(samples) => samples.axes.as_ref(),
        _ => None,
    }
}

pub(super) fn nodes(engine: &WeightSpace, problem: &Problem, axis: usize) -> usize {
    sample_axes(problem).map_or(engine.count(problem), |axes| axes[axis].len())
}

/// The features of an axis and the nodes at which they are fitted.
type Features = (Basis, Array1<f64>);

/// The features and nodes of each axis: narrow bands, then wide ones, then polynomials. None where the same as before.
fn features(
    engine: &WeightSpace,
    problem: &Problem,
    lines: &[Vec<Peak>],
    attempt: usize,
) -> Result<Option<Vec<Features>>> {
    let mut all = Vec::new();
    for (axis, peaks) in lines.iter().enumerate() {
        let count = nodes(engine, problem, axis);
        let length = problem.length(axis);
        let periodic = problem.periodic[axis];
        let step = spacing(length, engine.extension, periodic);
        let half = engine.half_width * std::f64::consts::TAU / length * if attempt == 0 { 1.0 } else { 2.0 };
        let mut bands = vec![[0.0, half]];
        bands.extend(peaks.iter().map(|p| [p.frequency - half, p.frequency + half]));
        let own: Vec<f64> = if periodic { vec![] } else { peaks.iter().map(|p| p.frequency).collect() };
        let frequencies = lattice(step, &bands, &own);
        let resolved = std::f64::consts::PI * count as f64 / length;
        let broad = frequencies.len() as f64 * step > BROAD * resolved;
        let fixed = sample_axes(problem).map(|axes| axes[axis].clone());
        let polynomial = fixed.is_none() && !periodic && (broad || attempt == 2);
        if attempt == 2 && !polynomial {
            return Ok(None);
        }
        let basis = if polynomial {
            Basis::Chebyshev { interval: problem.domain[axis], count }
        } else {
            Basis::Sinusoids { frequencies }
        };
        let x = fixed.unwrap_or_else(|| basis.nodes(problem.domain[axis], count));
        all.push((basis, x));
    }
    Ok(Some(all))
}

impl<'a> Galerkin<'a> {
    fn new(problem: &'a Problem, bases: Vec<Features>) -> Result<Self> {
        let axes = bases
            .into_iter()
            .enumerate()
            .map(|(axis, (basis, x))| Axis::new(problem, axis, basis, x))
            .collect::<Result<Vec<_>>>()?;
        let test = axes.iter().map(Axis::test).collect::<Result<Vec<_>>>()?;
        let inner = axes
            .iter()
            .zip(&test)
            .map(|(a, test)| {
                a.values
                    .iter()
                    .map(|v| matmul(matmul(test.view(), v.view())?.view(), a.null.view()))
                    .collect::<Result<Vec<_>>>()
            })
            .collect::<Result<Vec<_>>>()?;
        let direct = problem.nonlinear.is_empty() && problem.operator.has_constant_coefficients();
        let (points, linear) = if direct {
            (Array2::zeros((0, problem.dim())), Vec::new())
        } else {
            let coordinates: Vec<_> = axes.iter().map(|a| a.nodes.clone()).collect();
            let points = tensor_grid(&coordinates);
            let linear = linear_coefficients(problem, &points)?;
            (points, linear)
        };
        let mut galerkin = Self { problem, axes, test, inner, points, linear, lift: ArrayD::zeros(vec![]) };
        galerkin.lift = galerkin.coons()?;
        Ok(galerkin)
    }

    fn is_direct(&self) -> bool {
        self.linear.is_empty()
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
                    .zip(self.axes.iter().zip(&self.test))
                    .map(|(g, (a, test))| test.dot(&a.nodes.mapv(|x| g(x))))
                    .collect();
                sum += &outer(&factors);
            }
            return Ok(sum);
        }
        let coordinates: Vec<_> = self.axes.iter().map(|a| a.nodes.clone()).collect();
        kronecker_product(&self.test, self.problem.source.on_grid(&coordinates)?.view())
    }

    /// Σ over constant linear terms of one kind, along one axis each: the factors and the shift of a Sylvester equation
    /// with the given coefficient of each derivative.
    fn sylvester(&self, coefficient: impl Fn(Derivative) -> f64) -> Result<SylvesterSolver> {
        let mut factors: Vec<Array2<f64>> =
            self.axes.iter().map(|a| Array2::zeros((a.free(), a.free()))).collect();
        let mut shift = 0.0;
        for d in self.problem.derivatives() {
            let along: Vec<usize> = (0..self.axes.len()).filter(|axis| d.order(*axis) > 0).collect();
            match along[..] {
                [] => shift += coefficient(d),
                [axis] => factors[axis].scaled_add(coefficient(d), &self.inner[axis][d.order(axis)]),
                _ => {}
            }
        }
        SylvesterSolver::new(factors, shift)
    }

    /// ∂u on the nodes, from all coefficients.
    fn on_nodes(&self, c: &ArrayD<f64>, d: Derivative) -> Result<ArrayD<f64>> {
        let factors: Vec<Array2<f64>> =
            self.axes.iter().enumerate().map(|(axis, a)| a.values[d.order(axis)].clone()).collect();
        kronecker_product(&factors, c.view())
    }

    /// All coefficients: the lift and the free ones.
    fn expand(&self, y: &ArrayD<f64>) -> Result<ArrayD<f64>> {
        let nulls: Vec<_> = self.axes.iter().map(|a| a.null.clone()).collect();
        Ok(kronecker_product(&nulls, y.view())? + &self.lift)
    }

    /// (QZ)ᵀ of values on the nodes.
    fn tested(&self, values: Array1<f64>) -> Result<ArrayD<f64>> {
        let shape: Vec<usize> = self.axes.iter().map(|a| a.nodes.len()).collect();
        let values = values.into_shape_with_order(IxDyn(&shape)).map_err(candle_core::Error::wrap)?;
        kronecker_product(&self.test, values.view())
    }

    fn fit(self, engine: &WeightSpace) -> Result<Fit> {
        let (y, solver, steps, termination) =
            if self.is_direct() { self.solve_direct()? } else { self.solve_newton(engine)? };
        let unknowns = y.len();
        let coefficients = self.expand(&y)?;
        let polynomial = self.axes.iter().filter(|a| matches!(a.basis, Basis::Chebyshev { .. })).count();
        let points = self.axes.iter().map(|a| a.nodes.len()).product();
        let problem = self.problem;
        let mut posterior = TensorPosterior::new(self.axes, coefficients, solver);
        let residual = Residual::measure(problem, &posterior, CHECKS[problem.dim()])?;
        posterior.deviation = problem.source_noise.max(posterior.scale(problem, residual.equation)?);
        Ok(Fit { posterior, residual, steps, termination, unknowns, points, polynomial })
    }

    fn solve_direct(&self) -> Result<(ArrayD<f64>, SylvesterSolver, usize, Termination)> {
        let terms = &self.problem.operator.terms;
        let constant = |t: &crate::gp::problem::Term| t.coefficient.constant().unwrap_or(0.0);
        let mut right = self.source()?;
        // What L makes of the lift, in coefficients.
        for term in terms {
            let factors = self
                .axes
                .iter()
                .zip(&self.test)
                .enumerate()
                .map(|(axis, (a, test))| matmul(test.view(), a.values[term.derivative.order(axis)].view()))
                .collect::<Result<Vec<_>>>()?;
            right.scaled_add(-constant(term), &kronecker_product(&factors, self.lift.view())?);
        }
        let total = |d: Derivative| terms.iter().filter(|t| t.derivative == d).map(constant).sum::<f64>();
        let solver = self.sylvester(total)?;
        // The features' own Gram matrices ZᵀQᵀΦTZ differ from I by rounding that T enlarges: GMRES on the true ones.
        let apply = |y: &ArrayD<f64>| {
            let mut sum = ArrayD::zeros(y.raw_dim());
            for term in terms {
                let factors: Vec<_> = (0..self.axes.len())
                    .map(|axis| self.inner[axis][term.derivative.order(axis)].clone())
                    .collect();
                sum.scaled_add(constant(term), &kronecker_product(&factors, y.view())?);
            }
            Ok(sum)
        };
        let (y, residual) = gmres(apply, |y| solver.solve_once(y.view()), &right, 1e-14, KRYLOV)?;
        let ended = if residual < POOR { Termination::Converged } else { Termination::MaxIterations };
        Ok((y, solver, 0, ended))
    }

    fn solve_newton(
        &self,
        engine: &WeightSpace,
    ) -> Result<(ArrayD<f64>, SylvesterSolver, usize, Termination)> {
        let derivatives = self.problem.derivatives();
        let average = |c: &Array1<f64>| c.mean().unwrap_or(0.0);
        let coordinates: Vec<_> = self.axes.iter().map(|a| a.nodes.clone()).collect();
        let source: Array1<f64> = self.problem.source.on_grid(&coordinates)?.into_iter().collect();
        let shape: Vec<usize> = self.axes.iter().map(Axis::free).collect();
        let mut y = ArrayD::zeros(shape);
        let (mut steps, mut before, mut ended) = (0, f64::INFINITY, Termination::MaxIterations);
        let mut averages: Vec<f64> = Vec::new();
        let mut solver: Option<SylvesterSolver> = None;
        while steps < engine.newton_steps {
            let c = self.expand(&y)?;
            let u = derivatives
                .iter()
                .map(|d| Ok(self.on_nodes(&c, *d)?.into_iter().collect()))
                .collect::<Result<Vec<Array1<f64>>>>()?;
            // The first step ignores N, whose tangent at u = lift means nothing.
            let tangent = if steps == 0 && !self.problem.operator.terms.is_empty() {
                let value =
                    self.linear.iter().zip(&u).fold(Array1::zeros(source.len()), |s, (c, u)| s + c * u);
                super::newton::Linearisation { coefficients: self.linear.clone(), value }
            } else {
                linearise(self.problem, &self.points, &self.linear, &u)
            };
            let now: Vec<f64> = tangent.coefficients.iter().map(average).collect();
            let of = |d: Derivative| derivatives.binary_search(&d).map_or(0.0, |k| now[k]);
            // Only the coefficient of u itself changed: the eigenvectors stay.
            let same = derivatives
                .iter()
                .zip(now.iter().zip(&averages))
                .all(|(d, (a, b))| d.total() == 0 || (a - b).abs() <= 1e-14 * a.abs());
            let next = match solver.take() {
                Some(old) if same => old.with_shift(of(Derivative::VALUE))?,
                _ => self.sylvester(of)?,
            };
            averages = now;
            let right = self.tested(&source - &tangent.value)?;
            let varying: Vec<(usize, &Array1<f64>)> = tangent
                .coefficients
                .iter()
                .enumerate()
                .filter(|(k, c)| self.varies(derivatives[*k], c))
                .collect();
            let apply = |y: &ArrayD<f64>| self.tangent(&next, &derivatives, &averages, &varying, y);
            let tolerance = if steps == 0 { 1e-4 } else { (before * before).clamp(1e-14, 1e-3) };
            let (step, _) = gmres(apply, |y| next.solve_once(y.view()), &right, tolerance, KRYLOV)?;
            y += &step;
            steps += 1;
            solver = Some(next);
            let norm = |x: &ArrayD<f64>| x.iter().map(|v| v * v).sum::<f64>().sqrt();
            let change = norm(&step) / norm(&self.expand(&y)?).max(f64::MIN_POSITIVE);
            if !change.is_finite() {
                ended = Termination::Diverged;
                break;
            }
            if change <= 2e-14 || (change < 1e-9 && change > 0.3 * before) {
                ended = Termination::Converged;
                break;
            }
            before = change;
        }
        let solver = solver.ok_or_else(|| Error::parameter("newton_steps", 0, "at least one is needed"))?;
        Ok((y, solver, steps, ended))
    }

    /// Whether a term needs the nodes: its coefficient varies, or its derivative is mixed.
    fn varies(&self, d: Derivative, c: &Array1<f64>) -> bool {
        let mixed = (0..self.axes.len()).filter(|axis| d.order(*axis) > 0).count() > 1;
        let first = c.first().copied().unwrap_or(0.0);
        (mixed && c.iter().any(|v| *v != 0.0)) || c.iter().any(|v| *v != first)
    }

    /// The linearised equation on free coefficients: the averaged part through the Sylvester equation, what varies
    /// about the average on the nodes.
    fn tangent(
        &self,
        solver: &SylvesterSolver,
        derivatives: &[Derivative],
        averages: &[f64],
        varying: &[(usize, &Array1<f64>)],
        y: &ArrayD<f64>,
    ) -> Result<ArrayD<f64>> {
        let mut sum = solver.apply(y.view())?;
        if varying.is_empty() {
            return Ok(sum);
        }
        let nulls: Vec<_> = self.axes.iter().map(|a| a.null.clone()).collect();
        let c = kronecker_product(&nulls, y.view())?;
        let mut values: Array1<f64> = Array1::zeros(self.points.nrows());
        for (k, coefficient) in varying {
            let d = derivatives[*k];
            let mixed = (0..self.axes.len()).filter(|axis| d.order(*axis) > 0).count() > 1;
            let average = if mixed { 0.0 } else { averages[*k] };
            let u = self.on_nodes(&c, d)?;
            values.iter_mut().zip(coefficient.iter()).zip(&u).for_each(|((v, c), u)| *v += (c - average) * u);
        }
        sum += &self.tested(values)?;
        Ok(sum)
    }
}

/// a ⊗ b ⊗ …
fn outer(factors: &[Array1<f64>]) -> ArrayD<f64> {
    let shape: Vec<usize> = factors.iter().map(Array1::len).collect();
    let mut product = vec![1.0];
    for factor in factors {
        product = product.iter().flat_map(|p| factor.iter().map(move |f| p * f)).collect();
    }
    ArrayD::from_shape_vec(IxDyn(&shape), product).unwrap_or_else(|_| ArrayD::zeros(IxDyn(&shape)))
}
