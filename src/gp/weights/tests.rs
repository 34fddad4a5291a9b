//! The engine against exact solutions, an independent collocation solver, and the coverage of its intervals.

use std::f64::consts::PI;

use ndarray::{Array1, Array2, array};

use super::*;
use crate::gp::benchmark::{Case, Group, case, cases};
use crate::gp::{Data, Derivative, DifferentialOperator, Face, Observation};
use crate::linalg::dense::Lu;

fn solve(case: &Case) -> PdeSolution {
    let engine = WeightSpace { points: Some(case.points), ..WeightSpace::default() };
    engine.solve(&case.problem).unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

fn error(name: &str) -> f64 {
    let case = case(name).unwrap();
    case.error_l2(&solve(&case)).unwrap()
}

#[test]
fn published_cases_in_one_dimension() {
    for case in cases().iter().filter(|c| c.group == Group::Reference && c.problem.dim() == 1) {
        let solution = solve(case);
        let error = case.error_l2(&solution).unwrap();
        assert!(error < 5e-11, "{}: {error:e}", case.name);
        assert!(solution.residual.worst() < 1e-9 && solution.warnings.is_empty(), "{}", case.name);
        assert!(!solution.spectrum.is_empty() && solution.unknowns < case.points);
    }
}

#[test]
fn several_dimensions() {
    for (name, allowed) in [
        ("poisson-2d-sin-sin", 1e-12),
        ("poisson-2d-sin-add-cos", 1e-12),
        ("allen-cahn-2d-mix", 1e-12),
        ("advection", 1e-12),
        ("heat", 1e-11),
        ("wave", 1e-10),
        ("helmholtz-2d", 1e-12),
        ("darcy", 1e-12),
        ("burgers", 1e-7),
    ] {
        let case = case(name).unwrap();
        let solution = solve(&case);
        let error = case.error_l2(&solution).unwrap();
        assert!(error < allowed, "{name}: {error:e}");
        // The residual tells the error, down to what the rounding of one that is this small can tell.
        let told = solution.residual.worst().max(1e-14);
        assert!(error < 100.0 * told, "{name}: {error:e} {:?}", solution.residual);
    }
}

#[test]
fn three_dimensions_with_every_kind_of_boundary() {
    let w = 20.0f64;
    let u = move |x: &[f64]| (w * x[0]).sin() * (w * x[1]).cos() * (2.0 * PI * x[2]).sin();
    let problem = Problem::new(&[[0.0, 1.0]; 3])
        .operator(DifferentialOperator::laplacian(3))
        .source(Data::function(move |x| -(2.0 * w * w + 4.0 * PI * PI) * u(x)))
        .dirichlet(Face::low(0), Data::function(u))
        .neumann(
            Face::high(0),
            Data::function(move |x| w * w.cos() * (w * x[1]).cos() * (2.0 * PI * x[2]).sin()),
        )
        .condition(
            Face::low(1),
            crate::gp::Condition::Robin { value: 2.0, slope: 1.0, data: Data::function(move |x| 2.0 * u(x)) },
        )
        .dirichlet(Face::high(1), Data::function(u))
        .periodic(2);
    let solution = WeightSpace { points: Some(50), ..WeightSpace::default() }.solve(&problem).unwrap();
    let points = array![[0.123, 0.456, 0.789], [0.9, 0.1, 0.3]];
    for (found, x) in solution.mean(&points).unwrap().iter().zip(points.rows()) {
        assert!((found - u(&x.to_vec())).abs() < 1e-9, "{found} {:?}", solution.residual);
    }
}

#[test]
fn problems_that_no_default_was_tuned_on_are_solved_or_flagged() {
    for case in cases().iter().filter(|c| c.group == Group::Untuned) {
        let solution = solve(case);
        let error = case.error_l2(&solution).unwrap();
        let allowed = if case.name == "chirp" { 1e-8 } else { 1e-9 };
        assert!(error < allowed, "{}: {error:e}", case.name);
    }
    // Too few points for the layer.
    let layer = case("tanh-layer").unwrap();
    let coarse = Case { points: 60, ..layer };
    let solution = solve(&coarse);
    assert!(coarse.error_l2(&solution).unwrap() > 1e-6 && !solution.warnings.is_empty());
}

/// u″ = f with u given at both ends, by polynomial interpolation on Chebyshev–Lobatto points: an independent solver.
fn collocation(case: &Case) -> f64 {
    let n = case.points;
    let x: Array1<f64> = (0..n).map(|i| -(PI * i as f64 / (n - 1) as f64).cos()).collect();
    let weight = |i: usize| if i == 0 || i == n - 1 { 2.0 } else { 1.0 } * if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    let mut d = Array2::<f64>::zeros((n, n));
    for i in 0..n {
        for j in 0..n {
            if i != j {
                d[[i, j]] = weight(i) / weight(j) / (x[i] - x[j]);
            }
        }
        d[[i, i]] = -d.row(i).sum();
    }
    let mut a = d.dot(&d);
    let exact = |x: f64| case.exact.value(&[x], Derivative::VALUE);
    let mut right: Array1<f64> = x.iter().map(|x| case.problem.source.value(&[*x]).unwrap()).collect();
    for end in [0, n - 1] {
        a.row_mut(end).fill(0.0);
        a[[end, end]] = 1.0;
        right[end] = exact(x[end]);
    }
    let u = Lu::new("collocation", a.view()).unwrap().solve_vector(right.view()).unwrap();
    let (mut error, mut size) = (0.0, 0.0);
    for t in Array1::linspace(-1.0, 1.0, 300) {
        let mut sums = (0.0, 0.0);
        for j in 0..n {
            // Barycentric interpolation.
            let q = 1.0 / (weight(j) * (t - x[j]));
            sums = if t == x[j] { (u[j] * 1e300, 1e300) } else { (sums.0 + q * u[j], sums.1 + q) };
            if t == x[j] {
                break;
            }
        }
        error += (sums.0 / sums.1 - exact(t)).powi(2);
        size += exact(t).powi(2);
    }
    (error / size).sqrt()
}

#[test]
fn broadband_solutions_are_as_good_as_by_collocation() {
    for name in ["runge", "tanh-layer"] {
        let case = case(name).unwrap();
        let (found, peer) = (error(name), collocation(&case));
        assert!(found < 10.0 * peer.max(1e-14), "{name}: {found:e}, collocation {peer:e}");
    }
    assert!(error("boundary-layer") < 1e-12);
}

#[test]
fn intervals_cover_the_truth_under_noise() {
    for (name, points) in [("poisson-1d-sin", 400), ("poisson-1d-mix", 900)] {
        let clean = case(name).unwrap();
        for level in [0.01, 0.1] {
            let mut covered = 0.0;
            for seed in 0..20 {
                let noisy = clean.noisy(points, level, seed).unwrap();
                covered += noisy.coverage(&solve(&noisy)).unwrap() / 20.0;
            }
            assert!((0.85..=1.0).contains(&covered), "{name} at {level}: {covered}");
        }
    }
}

#[test]
fn intervals_cover_the_truth_in_two_dimensions() {
    let clean = case("incommensurate-2d").unwrap();
    for level in [0.01, 0.1] {
        let mut covered = 0.0;
        for seed in 0..20 {
            let noisy = clean.noisy(100, level, seed).unwrap();
            let solution = WeightSpace::default().solve(&noisy.problem).unwrap();
            covered += noisy.coverage(&solution).unwrap() / 20.0;
        }
        assert!((0.85..=1.0).contains(&covered), "{level}: {covered}");
    }
}

#[test]
fn samples_have_the_stated_covariance() {
    for (name, point) in
        [("poisson-1d-sin", array![[1.0], [2.5]]), ("helmholtz-2d", array![[0.2, 0.7], [0.6, 0.4]])]
    {
        let clean = case(name).unwrap();
        let mut problem = clean.problem.clone();
        problem.source_noise = 10.0;
        let engine = WeightSpace { points: Some(clean.points), ..WeightSpace::default() };
        let posterior = engine.solve(&problem).unwrap().posterior;
        let at = (&point, Derivative::VALUE);
        let covariance = posterior.covariance(at, at).unwrap();
        let variance = posterior.variance(&point, Derivative::VALUE).unwrap();
        let draws = posterior.sample(&point, Derivative::VALUE, 4000, 1).unwrap();
        let mean = posterior.mean(&point, Derivative::VALUE).unwrap();
        for i in 0..2 {
            assert!((covariance[[i, i]] / variance[i] - 1.0).abs() < 1e-8);
            let spread = draws.column(i).mapv(|d| (d - mean[i]).powi(2)).mean().unwrap();
            assert!((spread / variance[i] - 1.0).abs() < 0.1, "{name}: {spread:e} {:e}", variance[i]);
        }
    }
}

#[test]
fn observations_replace_a_missing_boundary() {
    let w = 30.0f64;
    let x = Array2::from_shape_fn((20, 1), |(i, _)| (i as f64 + 0.5) / 20.0);
    let problem = Problem::new(&[[0.0, 1.0]])
        .operator(DifferentialOperator::laplacian(1))
        .source(Data::function(move |x| -w * w * (w * x[0]).sin()))
        .dirichlet(Face::low(0), 0.0)
        .observe(Observation {
            derivative: Derivative::VALUE,
            values: x.column(0).mapv(|x| (w * x).sin()),
            points: x,
            noise: 1e-3,
        });
    let solution = WeightSpace::default().solve(&problem).unwrap();
    let at = array![[0.95]];
    let off = (solution.mean(&at).unwrap()[0] - (w * 0.95).sin()).abs();
    let deviation = solution.deviation(&at).unwrap()[0];
    assert!(off < 4.0 * deviation && deviation < 2e-3, "{off:e} {deviation:e}");
}

#[test]
fn what_cannot_work_is_refused() {
    let sine = case("poisson-1d-sin").unwrap();
    let few = WeightSpace { points: Some(100), ..WeightSpace::default() };
    let message = few.solve(&sine.problem).unwrap_err().to_string();
    assert!(message.contains("points = 100") && message.contains("202"), "{message}");
    let plane = case("plane-wave-2d").unwrap();
    let few = WeightSpace { points: Some(20), ..WeightSpace::default() };
    assert!(few.solve(&plane.problem).is_err());
    let mut open = sine.problem.clone();
    open.boundary.clear();
    assert!(WeightSpace::default().solve(&open).is_err());
    assert!(WeightSpace { extension: f64::NAN, ..WeightSpace::default() }.solve(&sine.problem).is_err());
}
