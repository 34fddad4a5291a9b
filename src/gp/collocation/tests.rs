//! Collocation against exact solutions, and its likelihood gradient against differences.

use std::f64::consts::PI;

use ndarray::{Array1, array};

use super::functional::Functional;
use super::system::Rows;
use super::*;
use crate::gp::benchmark::case;
use crate::gp::kernel::{Envelope, SpectralMixture, Stationary, Sum};
use crate::gp::problem::{Derivative, DifferentialOperator, Face, Nonlinearity, Observation};
use crate::gp::solution::Posterior;
use crate::linalg::dense::Cholesky;
use crate::tensor::random::Noise;

fn error(solution: &PdeSolution, exact: impl Fn(&[f64]) -> f64, problem: &Problem) -> Result<f64> {
    let points = tensor_grid(&problem.off_grid_axes([200, 23, 9][problem.dim() - 1]));
    let u: Array1<f64> = points.rows().into_iter().map(|x| exact(&x.to_vec())).collect();
    let difference = solution.mean(&points)? - &u;
    Ok(difference.dot(&difference).sqrt() / u.dot(&u).sqrt())
}

fn se(length: f64) -> Box<dyn Kernel1d> {
    Stationary::squared_exponential(1.0, length).expect("valid").boxed()
}

#[test]
fn a_high_frequency_is_resolved() -> Result<()> {
    let mut case = case("poisson-1d-sin")?;
    case.problem.domain = vec![[0.0, 1.0]];
    case.problem.boundary.clear();
    case.problem = case.exact.with_values_everywhere(case.problem);
    let solution = Collocation { points: 100, ..Collocation::default() }.solve(&case.problem)?;
    assert!(case.error_l2(&solution)? < 1e-4 && solution.residual.worst() < 1e-3);
    let aliased = Collocation { points: 30, ..Collocation::default() }.solve(&case.problem);
    assert!(aliased.expect_err("below Nyquist").to_string().contains("points"));
    Ok(())
}

/// u = sin 3x with the conditions in turn.
#[test]
fn every_kind_of_condition_is_met() -> Result<()> {
    let base = Problem::new(&[[0.0, 1.0]])
        .operator(DifferentialOperator::laplacian(1).with(Derivative::VALUE, -2.0))
        .source(Data::function(|x| -11.0 * (3.0 * x[0]).sin()));
    let (s, c) = 3.0_f64.sin_cos();
    let robin = crate::gp::Condition::Robin { value: 2.0, slope: 0.5, data: (2.0 * s + 1.5 * c).into() };
    let dirichlet = base.clone().dirichlet(Face::low(0), 0.0);
    let problems = [
        dirichlet.clone().neumann(Face::high(0), 3.0 * c),
        dirichlet.clone().condition(Face::high(0), robin),
        base.clone().neumann(Face::low(0), -3.0).dirichlet(Face::high(0), s),
        dirichlet.observe(Observation {
            derivative: Derivative::VALUE,
            points: array![[0.6]],
            values: array![1.8_f64.sin()],
            noise: 1e-9,
        }),
    ];
    for problem in problems {
        let engine = Collocation { points: 25, kernels: Some(vec![se(0.4)]), ..Collocation::default() };
        let found = error(&engine.solve(&problem)?, |x| (3.0 * x[0]).sin(), &problem)?;
        assert!(found < 1e-5, "{found:e}");
    }
    let ring = Problem { domain: vec![[0.0, std::f64::consts::TAU]], ..base }.periodic(0);
    let engine = Collocation { points: 60, kernels: Some(vec![se(0.5)]), ..Collocation::default() };
    assert!(error(&engine.solve(&ring)?, |x| (3.0 * x[0]).sin(), &ring)? < 1e-4);
    Ok(())
}

#[test]
fn scattered_points_in_two_dimensions() -> Result<()> {
    let exact = |x: &[f64]| (2.0 * x[0]).sin() * (3.0 * x[1]).cos();
    let problem = Problem::new(&[[0.0, 1.0], [0.0, 1.0]])
        .operator(DifferentialOperator::laplacian(2))
        .source(Data::function(move |x| -13.0 * exact(x)))
        .dirichlet_everywhere(Data::function(exact));
    let noise = Noise::new(1, 0);
    let scattered = Array2::from_shape_fn((150, 2), |(i, axis)| noise.uniform((2 * i + axis) as u64));
    let engine = Collocation {
        scattered: Some(scattered),
        kernels: Some(vec![se(0.5), se(0.5)]),
        ..Collocation::default()
    };
    let solution = engine.solve(&problem)?;
    let found = error(&solution, exact, &problem)?;
    assert!(found < 1e-4, "{found:e}");
    assert!(solution.deviation(&array![[0.5, 0.5]])?[0] < 1e-3);
    Ok(())
}

/// u u′ − 0.2 u″ = f with u = 1 + ½ sin 3x.
#[test]
fn newton_solves_steady_burgers() -> Result<()> {
    let exact = |x: &[f64]| 1.0 + 0.5 * (3.0 * x[0]).sin();
    let problem = Problem::new(&[[0.0, 1.0]])
        .operator(DifferentialOperator::default().with(Derivative::along(0, 2), -0.2))
        .nonlinear(Nonlinearity::new(
            vec![Derivative::VALUE, Derivative::along(0, 1)],
            |_, u| u[0] * u[1],
            |_, u, d| (d[0], d[1]) = (u[1], u[0]),
        ))
        .source(Data::function(move |x| exact(x) * 1.5 * (3.0 * x[0]).cos() + 0.9 * (3.0 * x[0]).sin()))
        .dirichlet_everywhere(Data::function(exact));
    let engine = Collocation { points: 25, kernels: Some(vec![se(0.4)]), ..Collocation::default() };
    let solution = engine.solve(&problem)?;
    let found = error(&solution, exact, &problem)?;
    assert!(
        solution.termination == Termination::Converged && found < 1e-6,
        "{found:e} {:?}",
        solution.residual
    );
    Ok(())
}

/// The posterior is the textbook one: mean k K⁻¹ b and variance k − k K⁻¹ k, with noise.
#[test]
fn the_posterior_agrees_with_dense_formulas() -> Result<()> {
    let kernel = ProductKernel { axes: vec![se(0.4)], variance: 2.0 };
    let x = array![0.1, 0.35, 0.8];
    let rows: Vec<_> =
        x.iter().map(|&x| Functional::at(vec![x], vec![(Derivative::along(0, 2), 1.0)])).collect();
    let (b, noise) = (array![1.0, -0.5, 0.2], array![0.3, 0.3, 0.3]);
    let posterior = Conditioned::new(kernel, rows, &b, &noise, 0.0)?;
    let mut gram = se(0.4).gram(x.view(), x.view(), (2, 2))? * 2.0;
    gram.diag_mut().mapv_inplace(|d| d + 0.09);
    let at = array![0.55];
    let cross = se(0.4).gram(at.view(), x.view(), (0, 2))? * 2.0;
    let factor = Cholesky::new("K", gram.view())?;
    let points = array![[0.55]];
    let mean = cross.dot(&factor.solve_vector(b.view())?);
    assert!((posterior.mean(&points, Derivative::VALUE)?[0] - mean[0]).abs() < 1e-12);
    let variance = 2.0 - cross.dot(&factor.solve(cross.t())?)[[0, 0]];
    assert!((posterior.variance(&points, Derivative::VALUE)?[0] - variance).abs() < 1e-12);
    let both = posterior.covariance((&points, Derivative::VALUE), (&points, Derivative::VALUE))?;
    assert!((both[[0, 0]] - variance).abs() < 1e-12);
    let draws = posterior.sample(&points, Derivative::VALUE, 4000, 5)?;
    let spread = draws.mapv(|d| (d - mean[0]).powi(2)).mean().expect("draws");
    assert!((spread / variance - 1.0).abs() < 0.1);
    Ok(())
}

#[test]
fn the_likelihood_gradient_agrees_with_differences() -> Result<()> {
    let mixture = SpectralMixture::new(Envelope::Gaussian, &[0.5, 0.5], &[3.0, 5.0], &[0.0, 0.8])?.boxed();
    let first = Sum::new(vec![se(0.3), mixture])?.boxed();
    let points = [[0.0, 0.1], [0.25, 0.7], [0.5, 0.2], [0.75, 0.9], [0.33, 0.41]];
    let row = |(i, x): (usize, &[f64; 2])| {
        let operator = vec![(Derivative::along(0, 2), 1.0), (Derivative::along(1, 1), -0.5)];
        let terms = if i < 3 { operator } else { vec![(Derivative::VALUE, 1.0)] };
        Functional::at(x.to_vec(), terms)
    };
    let rows = Rows {
        functionals: points.iter().enumerate().map(row).collect(),
        values: vec![1.0, -2.0, 0.5, 0.3, 0.1],
        noise: vec![0.1; 5],
    };
    let kernel = ProductKernel { axes: vec![first, se(0.6)], variance: 1.3 };
    let (_, gradient) = train::negative_log_likelihood(&kernel, &rows, 1e-13)?;
    let mut index = 0;
    for axis in 0..2 {
        for i in 0..kernel.axes[axis].parameters().len() {
            let at = |shift: f64| -> Result<f64> {
                let mut moved = kernel.clone();
                let mut theta = moved.axes[axis].parameters();
                theta[i] += shift;
                moved.axes[axis].set_parameters(&theta)?;
                Ok(train::negative_log_likelihood(&moved, &rows, 1e-13)?.0)
            };
            let slope = (at(1e-5)? - at(-1e-5)?) / 2e-5;
            assert!((slope - gradient[index]).abs() < 1e-6 * (1.0 + slope.abs()), "{axis} {i}: {slope}");
            index += 1;
        }
    }
    Ok(())
}

#[test]
fn training_raises_the_likelihood_and_lowers_the_error() -> Result<()> {
    let mut case = case("runge")?;
    case.problem.boundary.clear();
    case.problem = case.exact.with_values_everywhere(case.problem);
    let engine = Collocation { points: 40, kernels: Some(vec![se(2.0)]), ..Collocation::default() };
    let before = case.error_l2(&engine.solve(&case.problem)?)?;
    let after = case.error_l2(&Collocation { training: 30, ..engine }.solve(&case.problem)?)?;
    assert!(after < 0.1 * before, "{before:e} {after:e}");
    Ok(())
}

#[test]
fn noisy_sources_are_covered() -> Result<()> {
    let mut case = case("runge")?;
    case.problem.domain = vec![[-1.0, 1.0]];
    let mut covered = Vec::new();
    for seed in 0..8 {
        let noisy = case.noisy(80, 0.05, seed)?;
        let engine = Collocation { kernels: Some(vec![se(0.2)]), ..Collocation::default() };
        covered.push(noisy.coverage(&engine.solve(&noisy.problem)?)?);
    }
    let mean = covered.iter().sum::<f64>() / covered.len() as f64;
    assert!((0.8..=1.0).contains(&mean), "{covered:?}");
    Ok(())
}

/// u_t = 0.05 u_xx from noisy measurements of the start: the equation's exact zeros must not shrink the prior.
#[test]
fn homogeneous_equations_leave_the_amplitude_to_the_data() -> Result<()> {
    let exact = |x: &[f64]| (-0.05 * PI * PI * x[1]).exp() * (PI * x[0]).sin();
    let place =
        Array2::from_shape_fn((20, 2), |(i, axis)| if axis == 0 { (i as f64 + 0.5) / 20.0 } else { 0.0 });
    let noise = Noise::new(2, 0);
    let values = place.rows().into_iter().enumerate();
    let values = values.map(|(i, x)| exact(&x.to_vec()) + 0.05 * noise.normal_pair(i as u64).0).collect();
    let heat = DifferentialOperator::default()
        .with(Derivative::along(1, 1), 1.0)
        .with(Derivative::along(0, 2), -0.05);
    let problem = Problem::new(&[[0.0, 1.0]; 2])
        .operator(heat)
        .dirichlet(Face::low(0), 0.0)
        .dirichlet(Face::high(0), 0.0)
        .observe(Observation { derivative: Derivative::VALUE, points: place, values, noise: 0.05 });
    let engine = Collocation { points: 11, kernels: Some(vec![se(0.3), se(0.5)]), ..Collocation::default() };
    let solution = engine.solve(&problem)?;
    let points = array![[0.5, 0.0], [0.3, 0.5], [0.7, 1.0]];
    let (mean, deviation) = (solution.mean(&points)?, solution.deviation(&points)?);
    for i in 0..3 {
        let off = (mean[i] - exact(&points.row(i).to_vec())).abs();
        assert!(off < 3.0 * deviation[i] && deviation[i] < 0.1, "{off} {deviation}");
    }
    Ok(())
}

#[test]
fn misuse_is_named() -> Result<()> {
    let problem = case("poisson-1d-sin")?.problem;
    let rough = Stationary::matern(1, 1.0, 1.0)?.boxed();
    let refused = Collocation { kernels: Some(vec![rough]), ..Collocation::default() }.solve(&problem);
    assert!(refused.expect_err("too rough").to_string().contains("kernel of axis 0"));
    let outside = Collocation { scattered: Some(array![[9.0]]), ..Collocation::default() }.solve(&problem);
    assert!(outside.expect_err("outside").to_string().contains("domain"));
    Ok(())
}
