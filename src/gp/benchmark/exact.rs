//! Exact solutions with all their derivatives, and the data of a problem that has them as its solution.

use std::fmt;
use std::sync::Arc;

use ndarray::{Array1, ArrayD, IxDyn};

use super::jet::Jet;
use crate::gp::problem::{Condition, Data, Derivative, Face, Factor, Problem, tensor_grid};

/// A smooth function of one variable.
pub type Profile = Arc<dyn Fn(Jet) -> Jet + Send + Sync>;

/// A known solution.
///
/// ```
/// use wellposed::gp::{Derivative, benchmark::Exact};
/// let u = Exact::of_x(|x| (x * 3.0).sin());
/// assert!((u.value(&[0.2], Derivative::along(0, 2)) + 9.0 * 0.6_f64.sin()).abs() < 1e-12);
/// ```
#[derive(Clone)]
pub enum Exact {
    /// Σ_r Π_d g_rd(x_d): `terms[r][d]` is g_rd.
    Separable(Vec<Vec<Profile>>),
    /// offset + g(a·x).
    Ridge {
        /// a.
        direction: [f64; 3],
        /// g.
        profile: Profile,
    },
}

impl Exact {
    /// A function of one coordinate.
    pub fn of_x(g: impl Fn(Jet) -> Jet + Send + Sync + 'static) -> Self {
        Self::Separable(vec![vec![Arc::new(g)]])
    }

    /// Π_d g_d(x_d).
    pub fn product(factors: Vec<Profile>) -> Self {
        Self::Separable(vec![factors])
    }

    /// ∂u at `x`.
    pub fn value(&self, x: &[f64], derivative: Derivative) -> f64 {
        match self {
            Self::Separable(terms) => terms
                .iter()
                .map(|term| {
                    let factor = |(axis, g): (usize, &Profile)| {
                        g(Jet::variable(x[axis])).derivative(derivative.order(axis))
                    };
                    term.iter().enumerate().map(factor).product::<f64>()
                })
                .sum(),
            Self::Ridge { direction, profile } => {
                let s = x.iter().zip(direction).map(|(x, a)| x * a).sum();
                let chain: f64 =
                    (0..3).map(|axis| direction[axis].powi(derivative.order(axis) as i32)).product();
                chain * profile(Jet::variable(s)).derivative(derivative.total())
            }
        }
    }

    /// ∂u on the tensor grid of `axes`, shape [n₀, n₁, …].
    pub fn on_grid(&self, axes: &[Array1<f64>], derivative: Derivative) -> ArrayD<f64> {
        let shape: Vec<usize> = axes.iter().map(Array1::len).collect();
        self.data(derivative).on_grid(axes).unwrap_or_else(|_| {
            let points = tensor_grid(axes);
            let values = points.rows().into_iter().map(|x| self.value(&x.to_vec(), derivative));
            let values: Array1<f64> = values.collect();
            values.into_shape_with_order(IxDyn(&shape)).unwrap_or_else(|_| ArrayD::zeros(shape.clone()))
        })
    }

    /// ∂u as data.
    pub fn data(&self, derivative: Derivative) -> Data {
        match self {
            Self::Separable(terms) => {
                Data::Separable(terms.iter().map(|t| factors(t, derivative, 1.0)).collect())
            }
            Self::Ridge { .. } => {
                let exact = self.clone();
                Data::function(move |x| exact.value(x, derivative))
            }
        }
    }

    /// f = L u + N(u), for the operator and the nonlinear terms of `problem`.
    pub fn source(&self, problem: &Problem) -> Data {
        let operator = &problem.operator;
        if let (Self::Separable(terms), true, true) =
            (self, operator.has_constant_coefficients(), problem.nonlinear.is_empty())
        {
            let parts = operator.terms.iter().flat_map(|l| {
                let c = l.coefficient.constant().unwrap_or_default();
                terms.iter().map(move |t| factors(t, l.derivative, c))
            });
            return Data::Separable(parts.collect());
        }
        let (exact, problem) = (self.clone(), problem.clone());
        Data::function(move |x| exact.apply(&problem, x))
    }

    fn apply(&self, problem: &Problem, x: &[f64]) -> f64 {
        let linear = problem
            .operator
            .terms
            .iter()
            .map(|term| term.coefficient.value(x).unwrap_or(f64::NAN) * self.value(x, term.derivative));
        let nonlinear = problem.nonlinear.iter().map(|term| {
            let u: Vec<f64> = term.arguments.iter().map(|&d| self.value(x, d)).collect();
            term.value(x, &u)
        });
        linear.sum::<f64>() + nonlinear.sum::<f64>()
    }

    /// `problem` with f = L u + N(u).
    pub fn with_source(&self, problem: Problem) -> Problem {
        let source = self.source(&problem);
        problem.source(source)
    }

    /// `problem` with the values of u on `faces`.
    pub fn with_values_on(&self, problem: Problem, faces: &[Face]) -> Problem {
        faces
            .iter()
            .fold(problem, |p, &face| p.condition(face, Condition::Dirichlet(self.data(Derivative::VALUE))))
    }

    /// `problem` with the values of u on all faces.
    pub fn with_values_everywhere(&self, problem: Problem) -> Problem {
        problem.dirichlet_everywhere(self.data(Derivative::VALUE))
    }
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Separable(terms) => write!(f, "separable solution of {} terms", terms.len()),
            Self::Ridge { direction, .. } => write!(f, "ridge solution along {direction:?}"),
        }
    }
}

/// The factors of scale · ∂(Π g_d).
fn factors(term: &[Profile], derivative: Derivative, scale: f64) -> Vec<Factor> {
    let factor = |(axis, g): (usize, &Profile)| -> Factor {
        let (g, order) = (g.clone(), derivative.order(axis));
        let scale = if axis == 0 { scale } else { 1.0 };
        Arc::new(move |x| scale * g(Jet::variable(x)).derivative(order))
    };
    term.iter().enumerate().map(factor).collect()
}
