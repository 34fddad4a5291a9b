//! Least squares through a forward operator.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;
use crate::linalg::{ConjugateGradient, LinearOperator, Smooth};
use crate::operator::{Algebra, Diagonal};
use crate::tensor::vector;
use crate::tensor::{Buffer, Space, Workspace};

/// How well an image explains the data: what samplers and splitting methods ask of it.
pub trait DataFidelity: Smooth {
    /// x ← argmin_u f(u) + ‖u − x‖²/2τ, in place, started at x.
    fn prox(&self, step: f64, x: &mut Buffer, ws: &mut Workspace) -> Result<()>;
}

/// f(x) = ½ Σ wᵢ |(A x − y)ᵢ|², with w = 1 unless given: the negative log-likelihood of Gaussian noise with
/// variance 1/w, and of transmission counts when w are the counts.
#[derive(Clone, Debug)]
pub struct LeastSquares {
    operator: Arc<dyn LinearOperator>,
    data: Tensor,
    weights: Option<Diagonal>,
    /// W^½ A.
    whitened: Arc<dyn LinearOperator>,
    solver: ConjugateGradient,
}

impl LeastSquares {
    /// ½‖A x − y‖² with A = `operator` and y = `data`, whose batch axes are those of x.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{functional::{LeastSquares, Smooth}, operator::Identity, tensor::{Space, Workspace}};
    /// let space = Space::real(&[2], DType::F64, &Device::Cpu);
    /// let y = Tensor::new(&[3f64, 4.], &Device::Cpu)?;
    /// let fidelity = LeastSquares::new(Arc::new(Identity::new(&space)), &y)?;
    /// assert_eq!(fidelity.value(&space.zeros(&[])?, &mut Workspace::new())?, [12.5]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// A shape error where the data are not in the operator's range.
    pub fn new(operator: Arc<dyn LinearOperator>, data: &Tensor) -> Result<Self> {
        operator.range().check("data of a least-squares fidelity", data)?;
        let solver = ConjugateGradient { max_iterations: 50, tolerance: 1e-5 };
        Ok(Self { whitened: operator.clone(), operator, data: data.contiguous()?, weights: None, solver })
    }

    /// The same with real weights w ≥ 0, one for each scalar of the operator's range.
    ///
    /// # Errors
    /// A shape error where the weights don't fit the operator's range.
    pub fn weighted(self, weights: &Tensor) -> Result<Self> {
        let root = Diagonal::real(self.operator.range(), &weights.sqrt()?)?;
        let weights = Diagonal::real(self.operator.range(), weights)?;
        Ok(Self { whitened: self.operator.clone().then(root)?.shared(), weights: Some(weights), ..self })
    }

    /// The same with other settings of the conjugate gradients behind [`DataFidelity::prox`] (50 iterations
    /// to a relative residual of 1e-5 by default).
    pub fn with_solver(self, solver: ConjugateGradient) -> Self {
        Self { solver, ..self }
    }

    /// The forward operator A.
    pub fn operator(&self) -> &Arc<dyn LinearOperator> {
        &self.operator
    }

    /// The data y.
    pub fn data(&self) -> &Tensor {
        &self.data
    }

    /// residual ← A x − y, and W (A x − y) in its place; returns f(x) for each item.
    fn weigh_residual(&self, x: &Tensor, residual: &mut Buffer, ws: &mut Workspace) -> Result<Vec<f64>> {
        let items = self.operator.domain().check("argument of a least-squares fidelity", x)?.iter().product();
        self.operator.apply_into(x, residual, ws)?;
        vector::accumulate(1.0, &[(-1.0, &self.data)], residual)?;
        let Some(weights) = &self.weights else {
            return Ok(halves(vector::inner(residual.tensor(), residual.tensor(), items)?));
        };
        let shape = residual.dims().to_vec();
        let mut weighted = ws.take_shape(&shape, self.data.dtype(), self.data.device())?;
        weights.apply_into(residual.tensor(), &mut weighted, ws)?;
        let values = halves(vector::inner(residual.tensor(), weighted.tensor(), items)?);
        std::mem::swap(residual, &mut weighted);
        ws.give(weighted);
        Ok(values)
    }
}

fn halves(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|v| 0.5 * v).collect()
}

impl Smooth for LeastSquares {
    fn domain(&self) -> &Space {
        self.operator.domain()
    }
    fn value(&self, x: &Tensor, ws: &mut Workspace) -> Result<Vec<f64>> {
        let mut residual = ws.take_shape(self.data.dims(), self.data.dtype(), self.data.device())?;
        let values = self.weigh_residual(x, &mut residual, ws)?;
        ws.give(residual);
        Ok(values)
    }
    fn gradient_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<Vec<f64>> {
        let mut residual = ws.take_shape(self.data.dims(), self.data.dtype(), self.data.device())?;
        let values = self.weigh_residual(x, &mut residual, ws)?;
        self.operator.adjoint_into(residual.tensor(), out, ws)?;
        ws.give(residual);
        Ok(values)
    }
}

impl DataFidelity for LeastSquares {
    /// Solves (AᴴWA + 1/τ) u = AᴴW y + x/τ by conjugate gradients from x.
    fn prox(&self, step: f64, x: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        // With u = x + d: (AᴴWA + 1/τ) d = −∇f(x), so that the start is exactly x and d = 0.
        let mut negative = ws.take_shape(x.dims(), self.data.dtype(), self.data.device())?;
        self.gradient_into(x.tensor(), &mut negative, ws)?;
        vector::accumulate(-1.0, &[], &mut negative)?;
        let system = self.whitened.clone().normal_operator(1.0 / step);
        let solution = self.solver.solve(&system, negative.tensor(), None, &mut ())?;
        vector::accumulate(1.0, &[(1.0, &solution.value)], x)?;
        ws.give(negative);
        Ok(())
    }
}
