//! Differentiable maps between spaces, with the products of their Jacobian's adjoint.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::tensor::{Buffer, Space, Workspace};

/// A differentiable map A from [`NonlinearOperator::domain`] to [`NonlinearOperator::range`], with Jacobian
/// J(x). Leading axes of the arguments are batch axes: every method maps item by item.
///
/// Implement the two `_into` methods, which may rely on checked shapes and must overwrite `out`; call
/// `apply` and `vjp`. Check your own with [`crate::testing::check_nonlinear`].
pub trait NonlinearOperator: Debug + Send + Sync {
    /// Where arguments lie.
    fn domain(&self) -> &Space;
    /// Where values lie.
    fn range(&self) -> &Space;
    /// out ← A(x).
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()>;
    /// out ← J(x)ᴴ v, with respect to the real inner products of the stored elements.
    fn vjp_into(&self, x: &Tensor, v: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()>;

    /// A(x), checked.
    ///
    /// # Errors
    /// [`crate::error::Error::Shape`] and its like where x is not in the domain.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let batch = self.domain().check("argument of the operator", x)?;
        let mut out = self.range().buffer(batch)?;
        self.apply_into(x, &mut out, &mut Workspace::new())?;
        Ok(out.freeze())
    }

    /// J(x)ᴴ v, checked.
    ///
    /// # Errors
    /// [`crate::error::Error::Shape`] and its like where x is not in the domain, v not in the range, or
    /// their batches differ.
    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        let batch = self.domain().check("argument of the operator", x)?;
        if self.range().check("cotangent of the operator", v)? != batch {
            let expected = format!("{:?}", self.range().tensor_shape(batch));
            return Err(crate::error::Error::shape("cotangent of the operator", expected, v.dims()));
        }
        let mut out = self.domain().buffer(batch)?;
        self.vjp_into(x, v, &mut out, &mut Workspace::new())?;
        Ok(out.freeze())
    }
}

/// A linear operator as a differentiable one: J(x) = A.
#[derive(Clone, Debug)]
pub struct Linear(pub Arc<dyn LinearOperator>);

impl NonlinearOperator for Linear {
    fn domain(&self) -> &Space {
        self.0.domain()
    }
    fn range(&self) -> &Space {
        self.0.range()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.0.apply_into(x, out, ws)
    }
    fn vjp_into(&self, _: &Tensor, v: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.0.adjoint_into(v, out, ws)
    }
}
