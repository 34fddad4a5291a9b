//! One description of a boundary-value problem, shared by all engines.

mod boundary;
mod data;
mod operator;
mod validate;

pub use boundary::{Boundary, Condition, Face, Side};
pub use data::{Data, Factor, Function, Samples, tensor_grid};
pub use operator::{
    Derivative, DifferentialOperator, NonlinearFunction, NonlinearPartials, Nonlinearity, Term,
};

use ndarray::{Array1, Array2};

/// Measured values of u or of one of its derivatives inside the domain.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Which derivative was measured.
    pub derivative: Derivative,
    /// Where, shape [points, axes].
    pub points: Array2<f64>,
    /// The measured values, shape `[points]`.
    pub values: Array1<f64>,
    /// Standard deviation of the measurement error; > 0.
    pub noise: f64,
}

/// L u + Σ N(u) = f on a box of one to three axes, with conditions on its faces. Time is an axis like the others.
///
/// Noise levels are standard deviations of independent Gaussian errors in the given data, in the data's own units;
/// 0 means exact.
///
/// ```
/// use wellposed::gp::{DifferentialOperator, Data, Problem};
/// // u″ = −10⁴ sin 100x on [0, 2π] with u = 0 at both ends
/// let problem = Problem::new(&[[0.0, std::f64::consts::TAU]])
///     .operator(DifferentialOperator::laplacian(1))
///     .source(Data::function(|x| -1e4 * (100.0 * x[0]).sin()))
///     .dirichlet_everywhere(0.0);
/// problem.validate()?;
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Problem {
    /// [low, high] of each axis.
    pub domain: Vec<[f64; 2]>,
    /// L.
    pub operator: DifferentialOperator,
    /// The nonlinear terms N.
    pub nonlinear: Vec<Nonlinearity>,
    /// f.
    pub source: Data,
    /// Conditions on faces.
    pub boundary: Vec<Boundary>,
    /// Which axes are periodic: u and its derivatives agree at both ends.
    pub periodic: [bool; 3],
    /// Measurements of u.
    pub observations: Vec<Observation>,
    /// Standard deviation of the errors in f.
    pub source_noise: f64,
    /// Standard deviation of the errors in the boundary data.
    pub boundary_noise: f64,
}

impl Problem {
    /// An empty problem on the box with [low, high] for each axis; [`Problem::validate`] tells what is missing.
    pub fn new(domain: &[[f64; 2]]) -> Self {
        Self {
            domain: domain.to_vec(),
            operator: DifferentialOperator::default(),
            nonlinear: Vec::new(),
            source: Data::Constant(0.0),
            boundary: Vec::new(),
            periodic: [false; 3],
            observations: Vec::new(),
            source_noise: 0.0,
            boundary_noise: 0.0,
        }
    }

    /// Sets L.
    pub fn operator(mut self, operator: DifferentialOperator) -> Self {
        self.operator = operator;
        self
    }

    /// Adds a nonlinear term.
    pub fn nonlinear(mut self, term: Nonlinearity) -> Self {
        self.nonlinear.push(term);
        self
    }

    /// Sets f.
    pub fn source(mut self, source: impl Into<Data>) -> Self {
        self.source = source.into();
        self
    }

    /// Adds a condition on a face.
    pub fn condition(mut self, face: Face, condition: Condition) -> Self {
        self.boundary.push(Boundary { face, condition });
        self
    }

    /// u = `data` on `face`.
    pub fn dirichlet(self, face: Face, data: impl Into<Data>) -> Self {
        self.condition(face, Condition::Dirichlet(data.into()))
    }

    /// ∂u/∂n = `data` on `face`, n pointing outward.
    pub fn neumann(self, face: Face, data: impl Into<Data>) -> Self {
        self.condition(face, Condition::Neumann(data.into()))
    }

    /// u = `data` on every face.
    pub fn dirichlet_everywhere(self, data: impl Into<Data>) -> Self {
        let data = data.into();
        (0..self.dim()).fold(self, |problem, axis| {
            problem.dirichlet(Face::low(axis), data.clone()).dirichlet(Face::high(axis), data.clone())
        })
    }

    /// u = `data` at the start of the time axis.
    pub fn initial(self, time: usize, data: impl Into<Data>) -> Self {
        self.dirichlet(Face::low(time), data)
    }

    /// ∂u/∂t = `data` at the start of the time axis.
    pub fn initial_rate(self, time: usize, data: impl Into<Data>) -> Self {
        let outward = data.into().scaled(-1.0);
        self.neumann(Face::low(time), outward)
    }

    /// Makes an axis periodic.
    pub fn periodic(mut self, axis: usize) -> Self {
        if let Some(slot) = self.periodic.get_mut(axis) {
            *slot = true;
        }
        self
    }

    /// Adds measurements of u or of a derivative.
    pub fn observe(mut self, observation: Observation) -> Self {
        self.observations.push(observation);
        self
    }

    /// Sets the standard deviations of the errors in the source and in the boundary data.
    pub fn noise(mut self, source: f64, boundary: f64) -> Self {
        (self.source_noise, self.boundary_noise) = (source, boundary);
        self
    }

    /// Number of axes.
    pub fn dim(&self) -> usize {
        self.domain.len()
    }

    /// Length of an axis.
    pub fn length(&self, axis: usize) -> f64 {
        self.domain.get(axis).map_or(0.0, |[low, high]| high - low)
    }

    /// The coordinate of a face on its axis.
    pub fn coordinate(&self, face: Face) -> f64 {
        self.domain.get(face.axis).map_or(f64::NAN, |ends| ends[usize::from(face.side == Side::High)])
    }

    /// The highest order of differentiation along `axis`, over linear and nonlinear terms.
    pub fn order(&self, axis: usize) -> usize {
        let nonlinear = self.nonlinear.iter().map(|term| term.order(axis)).max().unwrap_or(0);
        self.operator.order(axis).max(nonlinear)
    }

    /// `points` equally spaced coordinates on each axis, both ends included.
    pub fn uniform_axes(&self, points: usize) -> Vec<Array1<f64>> {
        self.domain.iter().map(|[low, high]| Array1::linspace(*low, *high, points)).collect()
    }

    /// `points` coordinates on each axis that avoid every uniform grid (golden-ratio jitter inside equal cells): for
    /// residuals that a solution fitted on a grid can't hide from.
    pub fn off_grid_axes(&self, points: usize) -> Vec<Array1<f64>> {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let place = |i: usize| (i as f64 + (0.5 + i as f64 * GOLDEN).fract()) / points as f64;
        self.domain
            .iter()
            .map(|[low, high]| (0..points).map(|i| low + (high - low) * place(i)).collect())
            .collect()
    }

    /// All derivatives of u that the equation contains, each once, in order.
    pub fn derivatives(&self) -> Vec<Derivative> {
        let linear = self.operator.terms.iter().map(|term| term.derivative);
        let mut all: Vec<_> =
            linear.chain(self.nonlinear.iter().flat_map(|term| term.arguments.clone())).collect();
        all.sort();
        all.dedup();
        all
    }
}
