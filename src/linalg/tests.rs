//! Every iterative method against a truth that it doesn't compute itself: dense solutions, closed-form
//! proximal maps, each other, and known minimisers.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::error::Result;
use crate::functional::{Bounds, GroupNorm, L1Norm, LeastSquares, SquaredDistance};
use crate::observe::{History, Termination};
use crate::operator::{Diagonal, Gradient, Identity};
use crate::tensor::random::{Noise, standard_normal};
use crate::tensor::{Buffer, Real, Space, Workspace, vector};
use crate::testing::{check_operator, relative_difference};

/// A dense matrix as an operator.
#[derive(Debug)]
struct Matrix {
    domain: Space,
    range: Space,
    rows: Vec<Vec<f64>>,
}

impl Matrix {
    /// A random matrix whose columns are scaled by 1, `ratio`, `ratio`², …
    fn random(rows: usize, columns: usize, ratio: f64) -> Self {
        let range = Space::real(&[rows], DType::F64, &Device::Cpu);
        let noise = Noise::new(77, 0);
        let entry = |i: usize, j: usize| noise.normal_pair((i * columns + j) as u64).0 * ratio.powi(j as i32);
        let rows = (0..rows).map(|i| (0..columns).map(|j| entry(i, j)).collect()).collect();
        Self { domain: range.with_shape(&[columns]), range, rows }
    }

    fn items(
        &self,
        x: &Tensor,
        out: &mut Buffer,
        length: usize,
        map: impl Fn(&[f64]) -> Vec<f64>,
    ) -> Result<()> {
        let values: Vec<f64> = f64::to_vec(x)?.chunks(length).flat_map(map).collect();
        out.copy_from(&f64::tensor(values, out.dims())?)
    }

    /// The solution of (AᵀA + μ) x = Aᵀy by Gaussian elimination.
    fn tikhonov(&self, y: &[f64], mu: f64) -> Vec<f64> {
        let n = self.rows[0].len();
        let mut system: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                let gram = |j: usize| {
                    self.rows.iter().map(|r| r[i] * r[j]).sum::<f64>() + if i == j { mu } else { 0.0 }
                };
                let right: f64 = self.rows.iter().zip(y).map(|(r, y)| r[i] * y).sum();
                (0..n).map(gram).chain([right]).collect()
            })
            .collect();
        for k in 0..n {
            let pivot = (k..n).max_by(|a, b| system[*a][k].abs().total_cmp(&system[*b][k].abs())).unwrap();
            system.swap(k, pivot);
            let top = system[k].clone();
            for (i, row) in system.iter_mut().enumerate() {
                if i != k {
                    let factor = row[k] / top[k];
                    row.iter_mut().zip(&top).for_each(|(r, t)| *r -= factor * t);
                }
            }
        }
        (0..n).map(|k| system[k][n] / system[k][k]).collect()
    }
}

impl LinearOperator for Matrix {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        self.items(x, out, self.rows[0].len(), |x| {
            self.rows.iter().map(|r| r.iter().zip(x).map(|(r, x)| r * x).sum()).collect()
        })
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        self.items(y, out, self.rows.len(), |y| {
            (0..self.rows[0].len()).map(|j| self.rows.iter().zip(y).map(|(r, y)| r[j] * y).sum()).collect()
        })
    }
}

fn draw(seed: u64, space: &Space, batch: &[usize]) -> Tensor {
    standard_normal(Noise::new(seed, 0), space, batch).unwrap()
}

fn line(n: usize) -> Space {
    Space::real(&[n], DType::F64, &Device::Cpu)
}

#[test]
fn krylov_methods_agree_with_elimination() {
    let a = Matrix::random(14, 9, 0.7);
    check_operator(&a).unwrap();
    let y = draw(1, a.range(), &[2]);
    for mu in [0.0, 0.05] {
        let expected: Vec<f64> =
            f64::to_vec(&y).unwrap().chunks(14).flat_map(|y| a.tikhonov(y, mu)).collect();
        let expected = f64::tensor(expected, &[2, 9]).unwrap();
        let cgls = Cgls { max_iterations: 60, tolerance: 1e-14, damping: mu };
        let lsqr = Lsqr { max_iterations: 60, tolerance: 1e-14, damping: mu };
        for solution in [cgls.solve(&a, &y, None, &mut ()).unwrap(), lsqr.solve(&a, &y, &mut ()).unwrap()] {
            let off = relative_difference(&solution.value, &expected).unwrap();
            assert!(off < 1e-9, "μ = {mu}: {off:.1e} after {} steps", solution.steps);
        }
        // In exact arithmetic both methods have the same iterates.
        let cgls =
            Cgls { max_iterations: 4, tolerance: 0.0, damping: mu }.solve(&a, &y, None, &mut ()).unwrap();
        let lsqr = Lsqr { max_iterations: 4, tolerance: 0.0, damping: mu }.solve(&a, &y, &mut ()).unwrap();
        assert!(relative_difference(&cgls.value, &lsqr.value).unwrap() < 1e-11);
    }
}

#[test]
fn a_batch_is_solved_as_its_items_are() {
    let a = Matrix::random(14, 9, 0.7);
    let y = draw(1, a.range(), &[3]);
    let lsqr = Lsqr { max_iterations: 7, tolerance: 0.0, damping: 0.0 };
    let cgls = Cgls { max_iterations: 7, tolerance: 0.0, damping: 0.0 };
    let (one, two) = (lsqr.solve(&a, &y, &mut ()).unwrap(), cgls.solve(&a, &y, None, &mut ()).unwrap());
    for item in 0..3 {
        let y = y.get(item).unwrap();
        let alone = lsqr.solve(&a, &y, &mut ()).unwrap().value;
        assert_eq!(relative_difference(&one.value.get(item).unwrap(), &alone).unwrap(), 0.0);
        let alone = cgls.solve(&a, &y, None, &mut ()).unwrap().value;
        assert_eq!(relative_difference(&two.value.get(item).unwrap(), &alone).unwrap(), 0.0);
    }
}

#[test]
fn zero_data_give_zero() {
    let a = Matrix::random(5, 4, 1.0);
    let y = a.range().zeros(&[2]).unwrap();
    for solution in [Lsqr::default().solve(&a, &y, &mut ()), Cgls::default().solve(&a, &y, None, &mut ())] {
        let solution = solution.unwrap();
        assert_eq!(solution.termination, Termination::Converged);
        assert_eq!(vector::norm(&solution.value, 1).unwrap(), [0.0]);
    }
}

/// The minimiser of ½‖x − y‖² + λ Σ|xᵢ₊₁ − xᵢ|, by exact coordinate ascent on the dual problem.
fn denoised(y: &[f64], lambda: f64) -> Vec<f64> {
    let n = y.len();
    let mut p = vec![0.0; n + 1]; // p₀ = pₙ = 0; x = y + differences of p
    for _ in 0..200_000 {
        for i in 1..n {
            let free = (y[i] - y[i - 1] + p[i - 1] + p[i + 1]) / 2.0;
            p[i] = free.clamp(-lambda, lambda);
        }
    }
    (0..n).map(|i| y[i] + p[i + 1] - p[i]).collect()
}

#[test]
fn total_variation_denoising_by_three_methods() {
    let space = line(12);
    let y = draw(3, &space, &[]);
    let lambda = 0.6;
    let expected = f64::tensor(denoised(&f64::to_vec(&y).unwrap(), lambda), &[12]).unwrap();
    let gradient = Gradient::new(&space, &[0]).unwrap();
    let tv = GroupNorm::new(gradient.range(), lambda).unwrap();
    let fidelity = SquaredDistance::new(&space, 1.0).unwrap().from(&y).unwrap();
    let terms = [Term::new(&gradient, &tv).unwrap()];
    let zero = space.zeros(&[]).unwrap();
    let pdhg = Pdhg { max_iterations: 20_000, tolerance: 1e-12, ..Pdhg::default() };
    let steps = StepSizes::balanced(&terms, 1.0).unwrap();
    let first = pdhg.solve(&fidelity, &terms, &steps, &zero, &mut ()).unwrap();
    assert_eq!(first.termination, Termination::Converged);
    assert!(relative_difference(&first.value, &expected).unwrap() < 1e-9);

    // The same with the fidelity as a second dual term, diagonal steps, and nothing in g.
    let identity = Identity::new(&space);
    let both = [Term::new(&gradient, &tv).unwrap(), Term::new(&identity, &fidelity).unwrap()];
    let ones = |value: f64, space: &Space| (space.zeros(&[]).unwrap() + value).unwrap();
    let rows = [ones(2.0, gradient.range()), ones(1.0, &space)];
    let steps = StepSizes::diagonal(&ones(3.0, &space), &rows, 1.0).unwrap();
    let second = pdhg.solve(&Bounds::none(&space), &both, &steps, &zero, &mut ()).unwrap();
    assert!(relative_difference(&second.value, &expected).unwrap() < 1e-9);

    let admm = Admm {
        max_iterations: 5000,
        tolerance: 1e-12,
        inner_tolerance: 1e-13,
        inner_iterations: 30,
        ..Admm::default()
    };
    let third = admm.solve(&identity, &y, &terms, None, &mut ()).unwrap();
    assert_eq!(third.termination, Termination::Converged);
    assert!(relative_difference(&third.value, &expected).unwrap() < 1e-9);
}

/// The lasso's optimality: |Aᵀ(y − Ax)| ≤ λ, with equality and the sign of x where x is not 0.
fn lasso_defect(a: &Matrix, y: &Tensor, x: &Tensor, lambda: f64) -> f64 {
    let residual = (y - a.apply(x).unwrap()).unwrap();
    let slope = f64::to_vec(&a.adjoint(&residual).unwrap()).unwrap();
    let x = f64::to_vec(x).unwrap();
    let defect = |(slope, x): (&f64, &f64)| {
        if x.abs() > 1e-12 { (slope - lambda * x.signum()).abs() } else { (slope.abs() - lambda).max(0.0) }
    };
    slope.iter().zip(&x).map(defect).fold(0.0, f64::max)
}

#[test]
fn the_lasso_by_three_methods_meets_its_optimality_conditions() {
    let a = Arc::new(Matrix::random(8, 12, 1.0));
    let y = draw(4, a.range(), &[]);
    let lambda = 1.5;
    let penalty = L1Norm::new(a.domain(), lambda).unwrap();
    let start = a.domain().zeros(&[]).unwrap();
    let f = LeastSquares::new(a.clone(), &y).unwrap();
    let norm = PowerIteration { max_iterations: 2000, tolerance: 1e-12, seed: 0 }.norm(&a).unwrap();
    let mut found = Vec::new();
    for step in [StepRule::Fixed(1.0 / (norm * norm)), StepRule::Backtracking { initial: 1.0, shrink: 0.5 }] {
        let fista = Fista { max_iterations: 20_000, tolerance: 1e-13, step, restart: true };
        found.push(fista.solve(&f, &penalty, &start, &mut ()).unwrap());
    }
    let fidelity = SquaredDistance::new(a.range(), 1.0).unwrap().from(&y).unwrap();
    let terms = [Term::new(&a, &fidelity).unwrap()];
    let steps = StepSizes::balanced(&terms, 1.0).unwrap();
    let pdhg = Pdhg { max_iterations: 50_000, tolerance: 1e-12, ..Pdhg::default() };
    found.push(pdhg.solve(&penalty, &terms, &steps, &start, &mut ()).unwrap());
    for solution in found {
        assert_eq!(solution.termination, Termination::Converged);
        assert!(lasso_defect(&a, &y, &solution.value, lambda) < 1e-8);
    }
}

#[test]
fn restarts_help_on_a_strongly_convex_problem() {
    let a = Arc::new(Matrix::random(30, 10, 0.6));
    let y = draw(5, a.range(), &[]);
    let f = LeastSquares::new(a.clone(), &y).unwrap();
    let g = Bounds::none(a.domain());
    let norm = PowerIteration::default().norm(&a).unwrap() * 1.001;
    let count = |restart| {
        let step = StepRule::Fixed(1.0 / (norm * norm));
        let fista = Fista { max_iterations: 50_000, tolerance: 1e-12, step, restart };
        fista.solve(&f, &g, &a.domain().zeros(&[]).unwrap(), &mut ()).unwrap().steps
    };
    assert!(2 * count(true) < count(false));
}

#[test]
fn non_negative_least_squares_by_admm_and_fista() {
    let a = Arc::new(Matrix::random(14, 9, 0.8));
    let y = draw(6, a.range(), &[2]);
    let bounds = Bounds::non_negative(a.domain()).unwrap();
    let identity = Identity::new(a.domain());
    let admm = Admm {
        max_iterations: 5000,
        tolerance: 1e-11,
        inner_tolerance: 1e-13,
        inner_iterations: 40,
        ..Admm::default()
    };
    let split = admm.solve(&a, &y, &[Term::new(&identity, &bounds).unwrap()], None, &mut ()).unwrap();
    let f = LeastSquares::new(a.clone(), &y).unwrap();
    let fista = Fista { max_iterations: 50_000, tolerance: 1e-13, ..Fista::default() };
    let direct = fista.solve(&f, &bounds, &a.domain().zeros(&[2]).unwrap(), &mut ()).unwrap();
    assert!(relative_difference(&split.value, &direct.value).unwrap() < 1e-7);
    // Karush–Kuhn–Tucker: the slope is not negative, and zero where x is positive.
    let mut slope = Buffer::copy_of(&direct.value).unwrap();
    f.gradient_into(&direct.value, &mut slope, &mut Workspace::new()).unwrap();
    let (x, slope) = (f64::to_vec(&direct.value).unwrap(), f64::to_vec(slope.tensor()).unwrap());
    assert!(x.iter().zip(&slope).all(|(x, s)| *x >= 0.0 && *s > -1e-8 && x * s < 1e-8));
}

#[test]
fn pdhg_takes_magnitude_sums_as_steps() {
    let space = line(6);
    let weights = Tensor::new(&[2f64, 1., 0.5, 0.25, 3., 0.], &Device::Cpu).unwrap();
    let a = Diagonal::real(&space, &weights).unwrap();
    let (columns, rows) = magnitude_sums(&a).unwrap();
    let y = Tensor::ones(6, DType::F64, &Device::Cpu).unwrap();
    let fidelity = SquaredDistance::new(&space, 1.0).unwrap().from(&y).unwrap();
    let terms = [Term::new(&a, &fidelity).unwrap()];
    let steps = StepSizes::diagonal(&columns, &[rows], 1.0).unwrap();
    let pdhg = Pdhg { max_iterations: 5000, tolerance: 1e-13, ..Pdhg::default() };
    let zero = space.zeros(&[]).unwrap();
    let x = pdhg.solve(&Bounds::none(&space), &terms, &steps, &zero, &mut ()).unwrap().value;
    for (x, expected) in f64::to_vec(&x).unwrap().into_iter().zip([0.5, 1.0, 2.0, 4.0, 1.0 / 3.0, 0.0]) {
        assert!((x - expected).abs() < 1e-9);
    }
}

fn rosenbrock(x: &[f64], gradient: &mut [f64]) -> Result<f64> {
    gradient.fill(0.0);
    let mut value = 0.0;
    for i in 0..x.len() - 1 {
        let (a, b) = (1.0 - x[i], x[i + 1] - x[i] * x[i]);
        value += a * a + 100.0 * b * b;
        gradient[i] += -2.0 * a - 400.0 * x[i] * b;
        gradient[i + 1] += 200.0 * b;
    }
    Ok(value)
}

#[test]
fn lbfgs_finds_rosenbrock_minimum() {
    for n in [2, 10] {
        let start: Vec<f64> = (0..n).map(|i| if i % 2 == 0 { -1.2 } else { 1.0 }).collect();
        let mut history = History::default();
        let lbfgs = Lbfgs { gradient_tolerance: 1e-10, value_tolerance: 0.0, ..Lbfgs::default() };
        let solution = lbfgs.minimise_values(rosenbrock, &start, &mut history).unwrap();
        assert_eq!(solution.termination, Termination::Converged);
        assert!(solution.steps < 120, "{} steps", solution.steps);
        let x = solution.value.to_vec1::<f64>().unwrap();
        // From this start the ten-dimensional function has a second minimum near x₁ = −1.
        let ends_well = x.iter().all(|x| (x - 1.0).abs() < 1e-8);
        let mut slope = vec![0.0; n];
        rosenbrock(&x, &mut slope).unwrap();
        assert!((ends_well || n > 2) && slope.iter().all(|g| g.abs() < 1e-8));
    }
}

#[test]
fn lbfgs_works_in_single_precision_and_on_barriers() {
    let start = Tensor::new(&[4f32, -3., 2.], &Device::Cpu).unwrap();
    let mut quartic = |x: &Tensor, gradient: &mut Buffer| -> Result<f64> {
        let values = f64::to_vec(x)?;
        let slope: Vec<f32> =
            values.iter().map(|x| (4.0 * (x - 1.0).powi(3) + 2.0 * (x - 1.0)) as f32).collect();
        gradient.copy_from(&f32::tensor(slope, &[3])?)?;
        Ok(values.iter().map(|x| (x - 1.0).powi(4) + (x - 1.0).powi(2)).sum())
    };
    let x = Lbfgs::default().minimise(&mut quartic, &start, &mut ()).unwrap().value;
    assert!(x.to_vec1::<f32>().unwrap().iter().all(|x| (x - 1.0).abs() < 1e-3));

    // min x − ln x has its minimum at 1 and a wall at 0.
    let barrier = |x: &[f64], gradient: &mut [f64]| {
        gradient[0] = 1.0 - 1.0 / x[0];
        Ok(if x[0] > 0.0 { x[0] - x[0].ln() } else { f64::NAN })
    };
    let solution = Lbfgs::default().minimise_values(barrier, &[30.0], &mut ()).unwrap();
    assert!((solution.value.to_vec1::<f64>().unwrap()[0] - 1.0).abs() < 1e-5);
    assert!(Lbfgs::default().minimise_values(barrier, &[-1.0], &mut ()).is_err());
}

#[test]
fn adam_follows_its_definition() {
    let settings = Adam { rate: 0.1, beta1: 0.8, beta2: 0.95, epsilon: 1e-3 };
    let mut x = Buffer::copy_of(&Tensor::new(&[1f64, -2.], &Device::Cpu).unwrap()).unwrap();
    let mut adam = settings.start(x.tensor()).unwrap();
    let (mut expected, mut m, mut v) = ([1f64, -2.0], [0.0; 2], [0.0; 2]);
    for t in 1..=50 {
        let gradient = f64::to_vec(x.tensor()).unwrap().iter().map(|x| 3.0 * x + 0.5).collect::<Vec<_>>();
        adam.step(&f64::tensor(gradient, &[2]).unwrap(), &mut x).unwrap();
        for i in 0..2 {
            let g = 3.0 * expected[i] + 0.5;
            m[i] = 0.8 * m[i] + 0.2 * g;
            v[i] = 0.95 * v[i] + 0.05 * g * g;
            let (mean, square) = (m[i] / (1.0 - 0.8f64.powi(t)), v[i] / (1.0 - 0.95f64.powi(t)));
            expected[i] -= 0.1 * mean / (square.sqrt() + 1e-3);
        }
    }
    for (x, e) in f64::to_vec(x.tensor()).unwrap().iter().zip(expected) {
        assert!((x - e).abs() < 1e-12);
    }
    assert!(Adam { beta1: 1.0, ..Adam::default() }.start(x.tensor()).is_err());
}

#[test]
fn solvers_report_cancellation_and_refuse_bad_settings() {
    let space = line(4);
    let identity = Identity::new(&space);
    let y = draw(8, &space, &[]);
    let mut stop = crate::observe::Watch(|_: &crate::observe::Step<'_>| std::ops::ControlFlow::Break(()));
    let admm = Admm { tolerance: 0.0, ..Admm::default() };
    let bounds = Bounds::none(&space);
    let term = [Term::new(&identity, &bounds).unwrap()];
    let solution = admm.solve(&identity, &y, &term, None, &mut stop).unwrap();
    assert_eq!((solution.termination, solution.steps), (Termination::Cancelled, 1));
    assert!(Admm { penalty: 0.0, ..admm }.solve(&identity, &y, &term, None, &mut ()).is_err());
    let steps = StepSizes::balanced(&term, 1.0).unwrap();
    let pdhg = Pdhg { relaxation: 2.0, ..Pdhg::default() };
    assert!(pdhg.solve(&bounds, &term, &steps, &y, &mut ()).is_err());
    assert!(StepSizes::balanced(&term, 0.0).is_err());
    assert!(Pdhg::default().solve(&bounds, &[], &steps, &y, &mut ()).is_err());
}
