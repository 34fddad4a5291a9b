//! Differential operators: derivatives, linear terms, nonlinear terms.

use std::fmt;
use std::sync::Arc;

use super::data::Data;

/// A partial derivative ∂^(a+b+c) / ∂x₀^a ∂x₁^b ∂x₂^c: how often along each axis.
///
/// ```
/// use wellposed::gp::Derivative;
/// let mixed = Derivative::along(0, 1).and(Derivative::along(1, 2));
/// assert_eq!((mixed.order(0), mixed.order(1), mixed.total()), (1, 2, 3));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Derivative(pub [u8; 3]);

impl Derivative {
    /// u itself.
    pub const VALUE: Self = Self([0; 3]);

    /// ∂ᵏ/∂x_axisᵏ. Axes past 2 and orders past 255 are out of range and give a derivative that no problem accepts.
    pub fn along(axis: usize, order: usize) -> Self {
        let mut orders = [0; 3];
        match orders.get_mut(axis) {
            Some(slot) => *slot = u8::try_from(order).unwrap_or(u8::MAX),
            None => orders = [u8::MAX; 3],
        }
        Self(orders)
    }

    /// Both derivatives, one after the other.
    pub fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|axis| self.0[axis].saturating_add(other.0[axis])))
    }

    /// The order along `axis`.
    pub fn order(self, axis: usize) -> usize {
        self.0.get(axis).map_or(0, |&order| order.into())
    }

    /// The total order.
    pub fn total(self) -> usize {
        self.0.iter().map(|&order| usize::from(order)).sum()
    }
}

/// c(x) ∂u: one term of a linear operator.
#[derive(Clone, Debug)]
pub struct Term {
    /// Which derivative of u.
    pub derivative: Derivative,
    /// Its coefficient c(x).
    pub coefficient: Data,
}

/// A linear differential operator L u = Σ_k c_k(x) ∂_k u.
///
/// ```
/// use wellposed::gp::{Data, Derivative, DifferentialOperator};
/// // u_t − 0.1 u_xx with x = axis 0 and t = axis 1
/// let heat = DifferentialOperator::default()
///     .with(Derivative::along(1, 1), 1.0)
///     .with(Derivative::along(0, 2), -0.1);
/// assert_eq!(heat.order(0), 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct DifferentialOperator {
    /// The terms, in no particular order.
    pub terms: Vec<Term>,
}

impl DifferentialOperator {
    /// Σ_d ∂²/∂x_d² over the first `axes` axes.
    pub fn laplacian(axes: usize) -> Self {
        (0..axes).fold(Self::default(), |sum, axis| sum.with(Derivative::along(axis, 2), 1.0))
    }

    /// This operator plus `coefficient` · ∂u.
    pub fn with(mut self, derivative: Derivative, coefficient: impl Into<Data>) -> Self {
        self.terms.push(Term { derivative, coefficient: coefficient.into() });
        self
    }

    /// The highest order along `axis`.
    pub fn order(&self, axis: usize) -> usize {
        self.terms.iter().map(|term| term.derivative.order(axis)).max().unwrap_or(0)
    }

    /// Whether every coefficient is a constant.
    pub fn has_constant_coefficients(&self) -> bool {
        self.terms.iter().all(|term| term.coefficient.constant().is_some())
    }
}

/// A function of position and of derivatives of u: N(x, ∂₁u, ∂₂u, …).
pub type NonlinearFunction = Arc<dyn Fn(&[f64], &[f64]) -> f64 + Send + Sync>;

/// The partial derivatives ∂N/∂(∂ᵢu), written to the last argument.
pub type NonlinearPartials = Arc<dyn Fn(&[f64], &[f64], &mut [f64]) + Send + Sync>;

/// A nonlinear term N(x, ∂₁u, ∂₂u, …) added to the linear operator, with its partial derivatives.
///
/// ```
/// use wellposed::gp::{Derivative, Nonlinearity};
/// // Burgers: u u_x
/// let advection = Nonlinearity::new(
///     vec![Derivative::VALUE, Derivative::along(0, 1)],
///     |_, u| u[0] * u[1],
///     |_, u, d| (d[0], d[1]) = (u[1], u[0]),
/// );
/// assert_eq!(advection.value(&[0.0], &[2.0, 3.0]), 6.0);
/// ```
#[derive(Clone)]
pub struct Nonlinearity {
    /// Which derivatives of u it depends on, in the order of its arguments.
    pub arguments: Vec<Derivative>,
    function: NonlinearFunction,
    partials: NonlinearPartials,
}

impl Nonlinearity {
    /// A term from its value and its partial derivatives with respect to `arguments`.
    pub fn new(
        arguments: Vec<Derivative>,
        function: impl Fn(&[f64], &[f64]) -> f64 + Send + Sync + 'static,
        partials: impl Fn(&[f64], &[f64], &mut [f64]) + Send + Sync + 'static,
    ) -> Self {
        Self { arguments, function: Arc::new(function), partials: Arc::new(partials) }
    }

    /// N(u) with its derivative N′(u), such as u³ − u with 3u² − 1.
    pub fn of_value(
        n: impl Fn(f64) -> f64 + Send + Sync + 'static,
        dn: impl Fn(f64) -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self::new(vec![Derivative::VALUE], move |_, u| n(u[0]), move |_, u, d| d[0] = dn(u[0]))
    }

    /// N at position `x`, where the arguments have the values `u`.
    pub fn value(&self, x: &[f64], u: &[f64]) -> f64 {
        (self.function)(x, u)
    }

    /// The partial derivatives with respect to each argument, written to `out`.
    pub fn partials(&self, x: &[f64], u: &[f64], out: &mut [f64]) {
        (self.partials)(x, u, out);
    }

    /// The highest order along `axis`.
    pub fn order(&self, axis: usize) -> usize {
        self.arguments.iter().map(|derivative| derivative.order(axis)).max().unwrap_or(0)
    }
}

impl fmt::Debug for Nonlinearity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nonlinearity").field("arguments", &self.arguments).finish_non_exhaustive()
    }
}
