//! The cases: published ones, the classical equations, and ones that no default was tuned on.

use std::f64::consts::{PI, TAU};
use std::sync::Arc;

use super::exact::{Exact, Profile};
use super::jet::Jet;
use super::{Case, Group};
use crate::gp::problem::{Data, Derivative, DifferentialOperator, Face, Factor, Nonlinearity, Problem};

const X: usize = 0;
const Y: usize = 1;
/// Time is the last axis of an evolution equation.
const T: usize = 1;

/// All built-in cases.
///
/// ```
/// let cases = wellposed::gp::benchmark::cases();
/// assert!(cases.iter().all(|case| case.problem.validate().is_ok()));
/// ```
pub fn cases() -> Vec<Case> {
    [poisson_1d(), allen_cahn(), poisson_nd(), evolution(), classical(), broadband(), untuned()].concat()
}

fn profile(g: impl Fn(Jet) -> Jet + Send + Sync + 'static) -> Profile {
    Arc::new(g)
}

fn sine(frequency: f64) -> Profile {
    profile(move |x| (x * frequency).sin())
}

fn cosine(frequency: f64) -> Profile {
    profile(move |x| (x * frequency).cos())
}

fn poisson_case(
    name: &'static str,
    group: Group,
    summary: &'static str,
    domain: [f64; 2],
    points: usize,
    u: Exact,
) -> Case {
    let axes = match &u {
        Exact::Separable(terms) => terms[0].len(),
        Exact::Ridge { .. } => 2,
    };
    let problem = Problem::new(&vec![domain; axes]).operator(DifferentialOperator::laplacian(axes));
    let problem = u.with_values_everywhere(u.with_source(problem));
    Case { name, group, summary, points, problem, exact: u }
}

fn poisson_1d() -> Vec<Case> {
    let case = |name, summary, domain, points, g: fn(Jet) -> Jet| {
        poisson_case(name, Group::Reference, summary, domain, points, Exact::of_x(g))
    };
    let whole = [0.0, TAU];
    vec![
        case("poisson-1d-sin", "u″ = f, u = sin 100x", whole, 400, |x| (x * 100.0).sin()),
        case("poisson-1d-x-sin", "u″ = f, u = x sin 200x", whole, 900, |x| x * (x * 200.0).sin()),
        case("poisson-1d-sin-cos", "u″ = f, u = sin 6x cos 100x", whole, 400, |x| {
            (x * 6.0).sin() * (x * 100.0).cos()
        }),
        case("poisson-1d-mix", "u″ = f, u = sin x + 0.1 sin 20x + 0.05 cos 100x", whole, 900, |x| {
            x.sin() + (x * 20.0).sin() * 0.1 + (x * 100.0).cos() * 0.05
        }),
        case(
            "poisson-1d-mix-short",
            "u″ = f, u = sin x + 0.1 sin 20x + 0.05 sin 100x on [0, 1]",
            [0.0, 1.0],
            900,
            |x| x.sin() + (x * 20.0).sin() * 0.1 + (x * 100.0).sin() * 0.05,
        ),
        case(
            "poisson-1d-x2-sin",
            "u″ = f, u = sin 500x − 2(x − ½)² on [0, 1]",
            [0.0, 1.0],
            400,
            |x| (x * 500.0).sin() - (x + -0.5) * (x + -0.5) * 2.0,
        ),
    ]
}

fn cubic() -> Nonlinearity {
    Nonlinearity::of_value(|u| u * (u * u - 1.0), |u| 3.0 * u * u - 1.0)
}

fn allen_cahn() -> Vec<Case> {
    let line = |name, summary, g: fn(Jet) -> Jet| {
        let u = Exact::of_x(g);
        let problem =
            Problem::new(&[[0.0, TAU]]).operator(DifferentialOperator::laplacian(1)).nonlinear(cubic());
        let problem = u.with_values_everywhere(u.with_source(problem));
        Case { name, group: Group::Reference, summary, points: 400, problem, exact: u }
    };
    vec![
        line("allen-cahn-1d-sin", "u″ + u(u² − 1) = f, u = sin 100x", |x| (x * 100.0).sin()),
        line("allen-cahn-1d-sin-cos", "u″ + u(u² − 1) = f, u = sin 6x cos 100x", |x| {
            (x * 6.0).sin() * (x * 100.0).cos()
        }),
        allen_cahn_2d(),
    ]
}

/// The source is written as a sum of products, g″h + gh″ + g³h³ − gh, so that it costs little on a grid.
fn allen_cahn_2d() -> Case {
    let g = |x: Jet| x.sin() + (x * 20.0).sin() * 0.1 + (x * 100.0).cos();
    let u = Exact::product(vec![profile(g), profile(g)]);
    let d = move |order: usize, scale: f64| -> Factor {
        Arc::new(move |x| scale * g(Jet::variable(x)).derivative(order))
    };
    let cube = || -> Factor { Arc::new(move |x| g(Jet::variable(x)).derivative(0).powi(3)) };
    let source = Data::Separable(vec![
        vec![d(2, 1.0), d(0, 1.0)],
        vec![d(0, 1.0), d(2, 1.0)],
        vec![cube(), cube()],
        vec![d(0, -1.0), d(0, 1.0)],
    ]);
    let problem = Problem::new(&[[0.0, 1.0]; 2])
        .operator(DifferentialOperator::laplacian(2))
        .nonlinear(cubic())
        .source(source);
    Case {
        name: "allen-cahn-2d-mix",
        group: Group::Reference,
        summary: "Δu + u(u² − 1) = f, u = g(x) g(y), g = sin x + 0.1 sin 20x + cos 100x",
        points: 400,
        problem: u.with_values_everywhere(problem),
        exact: u,
    }
}

fn poisson_nd() -> Vec<Case> {
    let one = || profile(|_| Jet::constant(1.0));
    let wave = || profile(|x| (x * 6.0).sin() * (x * 20.0).cos());
    let sum = Exact::Separable(vec![vec![wave(), one()], vec![one(), wave()]]);
    let square = Exact::product(vec![sine(100.0), sine(100.0)]);
    let cube = Exact::product(vec![sine(100.0), sine(100.0), sine(100.0)]);
    let case =
        |name, summary, points, u| poisson_case(name, Group::Reference, summary, [0.0, TAU], points, u);
    vec![
        case("poisson-2d-sin-sin", "Δu = f, u = sin 100x sin 100y", 400, square),
        case("poisson-2d-sin-add-cos", "Δu = f, u = sin 6x cos 20x + sin 6y cos 20y", 200, sum),
        case("poisson-3d-sin", "Δu = f, u = sin 100x sin 100y sin 100z", 250, cube),
    ]
}

/// Σ a e^{−rt} or cos(rt) times sin kx: modes of the heat and the wave equation on [0, 1].
fn modes(modes: &[(f64, f64)], in_time: impl Fn(f64) -> Profile) -> Exact {
    let term = |&(amplitude, k): &(f64, f64)| vec![profile(move |x| (x * k).sin() * amplitude), in_time(k)];
    Exact::Separable(modes.iter().map(term).collect())
}

fn evolution() -> Vec<Case> {
    let dt = |order| Derivative::along(T, order);
    let dx = |order| Derivative::along(X, order);
    let evolve =
        |name, group, summary, points, domain: [f64; 2], problem: Problem, u: Exact, faces: &[Face]| {
            let problem = Problem { domain: vec![domain, [0.0, 1.0]], ..problem };
            Case { name, group, summary, points, problem: u.with_values_on(problem, faces), exact: u }
        };
    let empty = |operator| Problem::new(&[[0.0, 1.0]; 2]).operator(operator);
    let walls = [Face::low(X), Face::high(X), Face::low(T)];
    let unit = [0.0, 1.0];

    let advection = DifferentialOperator::default().with(dx(1), 200.0).with(dt(1), 1.0);
    let moving = Exact::Ridge { direction: [1.0, -200.0, 0.0], profile: profile(Jet::sin) };

    let kappa = 1e-3;
    let heat = DifferentialOperator::default().with(dt(1), 1.0).with(dx(2), -kappa);
    let cooling =
        modes(&[(1.0, 3.0 * PI), (0.5, 20.0 * PI)], |k| profile(move |t| (t * (-kappa * k * k)).exp()));

    let wave = DifferentialOperator::default().with(dt(2), 1.0).with(dx(2), -1.0);
    let standing = modes(&[(1.0, 3.0 * PI), (0.2, 20.0 * PI)], cosine);

    let (nu, speed, height) = (0.05, 0.5, 0.5);
    let burgers = DifferentialOperator::default().with(dt(1), 1.0).with(dx(2), -nu);
    let steepening = Nonlinearity::new(
        vec![Derivative::VALUE, dx(1)],
        |_, u| u[0] * u[1],
        |_, u, d| (d[0], d[1]) = (u[1], u[0]),
    );
    let front = Exact::Ridge {
        direction: [1.0, -speed, 0.0],
        profile: profile(move |s| (s * (height / (2.0 * nu))).tanh() * -height + speed),
    };
    vec![
        evolve(
            "advection",
            Group::Reference,
            "200 u_x + u_t = 0, u = sin(x − 200t), inflow and initial data only",
            200,
            unit,
            empty(advection),
            moving,
            &[Face::low(X), Face::low(T)],
        ),
        evolve(
            "heat",
            Group::Equations,
            "u_t = 0.001 u_xx, modes 3π and 20π",
            100,
            unit,
            empty(heat),
            cooling,
            &walls,
        ),
        evolve(
            "wave",
            Group::Equations,
            "u_tt = u_xx, modes 3π and 20π, at rest at first",
            100,
            unit,
            empty(wave).initial_rate(T, 0.0),
            standing,
            &walls,
        ),
        evolve(
            "burgers",
            Group::Equations,
            "u_t + u u_x = 0.05 u_xx, a travelling front",
            60,
            [-1.0, 1.0],
            empty(burgers).nonlinear(steepening),
            front,
            &walls,
        ),
    ]
}

fn classical() -> Vec<Case> {
    let k = 50.0;
    let u = Exact::of_x(|x| (x * 100.0).sin() + x * x);
    let problem = Problem::new(&[[0.0, 1.0]])
        .operator(DifferentialOperator::laplacian(1).with(Derivative::VALUE, k * k));
    let line = Case {
        name: "helmholtz-1d",
        group: Group::Equations,
        summary: "u″ + 50² u = f, u = sin 100x + x²",
        points: 200,
        problem: u.with_values_everywhere(u.with_source(problem)),
        exact: u,
    };
    let (k, angle) = (40.5, 0.6_f64);
    let u = Exact::Ridge { direction: [k * angle.cos(), k * angle.sin(), 0.0], profile: profile(Jet::sin) };
    let problem = Problem::new(&[[0.0, 1.0]; 2])
        .operator(DifferentialOperator::laplacian(2).with(Derivative::VALUE, k * k));
    let plane = Case {
        name: "helmholtz-2d",
        group: Group::Equations,
        summary: "Δu + 40.5² u = 0, an oblique plane wave",
        points: 100,
        problem: u.with_values_everywhere(problem),
        exact: u,
    };
    vec![line, plane, darcy()]
}

/// −∇·(a ∇u) = f, written out as −a Δu − a_x u_x − a_y u_y.
fn darcy() -> Case {
    let one = || profile(|_| Jet::constant(1.0));
    let bump = || profile(|x: Jet| (x * 3.0).sin());
    let a = Exact::Separable(vec![vec![one(), one()], vec![profile(|x| (x * 3.0).sin() * 0.5), bump()]]);
    let minus = |derivative| a.data(derivative).scaled(-1.0);
    let mut operator = DifferentialOperator::default();
    for axis in [X, Y] {
        operator = operator
            .with(Derivative::along(axis, 2), minus(Derivative::VALUE))
            .with(Derivative::along(axis, 1), minus(Derivative::along(axis, 1)));
    }
    let u = Exact::Separable(vec![
        vec![sine(PI), sine(2.0 * PI)],
        vec![profile(|x| (x * (10.0 * PI)).sin() * 0.1), sine(8.0 * PI)],
    ]);
    let problem = Problem::new(&[[0.0, 1.0]; 2]).operator(operator);
    Case {
        name: "darcy",
        group: Group::Equations,
        summary: "−∇·(a ∇u) = f, a = 1 + ½ sin 3x sin 3y",
        points: 60,
        problem: u.with_values_everywhere(u.with_source(problem)),
        exact: u,
    }
}

fn broadband() -> Vec<Case> {
    let case = |name, summary, points, g: fn(Jet) -> Jet| {
        poisson_case(name, Group::Broadband, summary, [-1.0, 1.0], points, Exact::of_x(g))
    };
    let width = 0.01;
    let layer = Exact::of_x(move |x| {
        ((x * (-1.0 / width)).exp() * -1.0 + 1.0) * (1.0 / (1.0 - (-1.0_f64 / width).exp()))
    });
    let operator = DifferentialOperator::default()
        .with(Derivative::along(X, 2), width)
        .with(Derivative::along(X, 1), 1.0);
    let problem = Problem::new(&[[0.0, 1.0]]).operator(operator);
    vec![
        case("runge", "u″ = f, u = 1/(1 + 25x²) on [−1, 1]", 200, |x| (x * x * 25.0 + 1.0).recip()),
        case("tanh-layer", "u″ = f, u = tanh 20x on [−1, 1]", 200, |x| (x * 20.0).tanh()),
        Case {
            name: "boundary-layer",
            group: Group::Broadband,
            summary: "0.01 u″ + u′ = 0, u(0) = 0, u(1) = 1",
            points: 100,
            problem: layer.with_values_everywhere(problem),
            exact: layer,
        },
    ]
}

fn untuned() -> Vec<Case> {
    let case =
        |name, summary, domain, points, u| poisson_case(name, Group::Untuned, summary, domain, points, u);
    vec![
        case(
            "decaying-sin",
            "u″ = f, u = e^(−x) sin 300x + x³",
            [0.0, TAU],
            900,
            Exact::of_x(|x| (x * -1.0).exp() * (x * 300.0).sin() + x * x * x),
        ),
        case(
            "chirp",
            "u″ = f, u = sin 50x² on [0, 2]",
            [0.0, 2.0],
            400,
            Exact::of_x(|x| (x * x * 50.0).sin()),
        ),
        case(
            "two-tones",
            "u″ = f, u = sin 37.3x + 0.1 cos 812.7x on [0, 2]",
            [0.0, 2.0],
            900,
            Exact::of_x(|x| (x * 37.3).sin() + (x * 812.7).cos() * 0.1),
        ),
        case(
            "incommensurate-2d",
            "Δu = f, u = sin(17√3 x) cos(23√5 y) on [0, 2]²",
            [0.0, 2.0],
            200,
            Exact::product(vec![sine(17.0 * 3.0_f64.sqrt()), cosine(23.0 * 5.0_f64.sqrt())]),
        ),
        case(
            "plane-wave-2d",
            "Δu = f, u = sin(60x + 35y) on [0, 2]²",
            [0.0, 2.0],
            200,
            Exact::Ridge { direction: [60.0, 35.0, 0.0], profile: profile(Jet::sin) },
        ),
    ]
}
