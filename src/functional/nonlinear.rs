//! Least squares through a nonlinear operator.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;
use crate::linalg::{NonlinearOperator, Smooth};
use crate::tensor::{Buffer, Space, Workspace, vector};

/// f(x) = ½‖A(x) − y‖², with ∇f(x) = J(x)ᴴ (A(x) − y). In general not convex.
#[derive(Clone, Debug)]
pub struct NonlinearLeastSquares {
    operator: Arc<dyn NonlinearOperator>,
    data: Tensor,
}

impl NonlinearLeastSquares {
    /// ½‖A(x) − y‖² with A = `operator` and y = `data`, whose batch axes are those of x.
    ///
    /// # Errors
    /// A shape error where the data are not in the operator's range.
    pub fn new(operator: Arc<dyn NonlinearOperator>, data: &Tensor) -> Result<Self> {
        operator.range().check("data of a least-squares fidelity", data)?;
        Ok(Self { operator, data: data.contiguous()? })
    }

    fn residual(&self, x: &Tensor, ws: &mut Workspace) -> Result<(Buffer, Vec<f64>)> {
        let items = self.operator.domain().check("argument of a least-squares fidelity", x)?.iter().product();
        let mut residual = ws.take_shape(self.data.dims(), self.data.dtype(), self.data.device())?;
        self.operator.apply_into(x, &mut residual, ws)?;
        vector::accumulate(1.0, &[(-1.0, &self.data)], &mut residual)?;
        let squares = vector::inner(residual.tensor(), residual.tensor(), items)?;
        Ok((residual, squares.into_iter().map(|s| 0.5 * s).collect()))
    }
}

impl Smooth for NonlinearLeastSquares {
    fn domain(&self) -> &Space {
        self.operator.domain()
    }
    fn value(&self, x: &Tensor, ws: &mut Workspace) -> Result<Vec<f64>> {
        let (residual, values) = self.residual(x, ws)?;
        ws.give(residual);
        Ok(values)
    }
    fn gradient_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<Vec<f64>> {
        let (residual, values) = self.residual(x, ws)?;
        self.operator.vjp_into(x, residual.tensor(), out, ws)?;
        ws.give(residual);
        Ok(values)
    }
}
