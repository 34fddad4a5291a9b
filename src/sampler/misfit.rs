//! How far images are from data, through any operator.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::{LinearOperator, NonlinearOperator};
use crate::sampler::Measured;
use crate::tensor::{Buffer, Space, Workspace, vector};

/// What made the data.
#[derive(Clone, Copy, Debug)]
pub(super) enum Forward<'a> {
    Linear(&'a dyn LinearOperator),
    Nonlinear(&'a dyn NonlinearOperator),
}

impl<'a> Forward<'a> {
    pub fn domain(&self) -> &'a Space {
        match self {
            Self::Linear(a) => a.domain(),
            Self::Nonlinear(a) => a.domain(),
        }
    }

    pub fn range(&self) -> &'a Space {
        match self {
            Self::Linear(a) => a.range(),
            Self::Nonlinear(a) => a.range(),
        }
    }

    /// # Errors
    /// [`Error::Unsupported`] where it isn't.
    pub fn linear(&self) -> Result<&'a dyn LinearOperator> {
        match self {
            Self::Linear(a) => Ok(*a),
            Self::Nonlinear(_) => Err(Error::Unsupported(
                "this sampler needs a linear operator; DPS, and DAPS with Langevin steps, take any".into(),
            )),
        }
    }
}

/// ½‖A(x) − y‖² of some images, with A linear or not.
#[derive(Clone, Debug)]
pub struct Misfit<'a> {
    forward: Forward<'a>,
    roots: Option<Tensor>,
    data: Tensor,
}

impl<'a> Misfit<'a> {
    pub(super) fn new(forward: Forward<'a>, roots: Option<Tensor>, data: Tensor) -> Self {
        Self { forward, roots, data }
    }

    /// out ← J(x)ᴴ (A(x) − y), with the weights of the data; returns ‖A(x) − y‖ of each of `count` images.
    ///
    /// # Errors
    /// Shape errors where x is not one image for each datum.
    pub fn gradient_into(
        &self,
        x: &Tensor,
        count: usize,
        out: &mut Buffer,
        ws: &mut Workspace,
    ) -> Result<Vec<f64>> {
        let mut residual = ws.take_shape(self.data.dims(), self.data.dtype(), self.data.device())?;
        match self.forward {
            Forward::Linear(a) => {
                let a = Measured::new(a, self.roots.clone());
                a.apply_into(x, &mut residual, ws)?;
                vector::accumulate(1.0, &[(-1.0, &self.data)], &mut residual)?;
                a.adjoint_into(residual.tensor(), out, ws)?;
            }
            Forward::Nonlinear(a) => {
                a.apply_into(x, &mut residual, ws)?;
                vector::accumulate(1.0, &[(-1.0, &self.data)], &mut residual)?;
                a.vjp_into(x, residual.tensor(), out, ws)?;
            }
        }
        let sizes = vector::norm(residual.tensor(), count)?;
        ws.give(residual);
        Ok(sizes)
    }
}
