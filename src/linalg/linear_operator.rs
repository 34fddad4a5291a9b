//! Linear maps between spaces, with their adjoints.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;
use crate::tensor::{Buffer, Space, Workspace, vector};

/// A linear map A from [`LinearOperator::domain`] to [`LinearOperator::range`].
///
/// The adjoint is with respect to the real inner product of the stored elements, that is Aᴴ for a
/// complex-linear A. Leading axes of the arguments are batch axes: every method maps item by item.
///
/// Implement the two `_into` methods (they may rely on checked shapes, must overwrite `out` whatever it
/// held, and give the same bits for any number of threads); call `apply`, `adjoint` and `normal`. Check
/// your own with [`crate::testing::check_operator`].
pub trait LinearOperator: Debug + Send + Sync {
    /// Where arguments lie.
    fn domain(&self) -> &Space;
    /// Where values lie.
    fn range(&self) -> &Space;
    /// out ← A x.
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()>;
    /// out ← Aᴴ y.
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()>;

    /// out ← out + Aᴴ y. Override where one pass does it.
    fn add_adjoint(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let mut part = ws.take_shape(out.dims(), self.domain().dtype(), self.domain().device())?;
        self.adjoint_into(y, &mut part, ws)?;
        vector::accumulate(1.0, &[(1.0, part.tensor())], out)?;
        ws.give(part);
        Ok(())
    }

    /// out ← AᴴA x. Override where this is cheaper than the two in turn.
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let batch = self.domain().check("argument of the normal operator", x)?;
        let mut middle = ws.take(self.range(), batch)?;
        self.apply_into(x, &mut middle, ws)?;
        self.adjoint_into(middle.tensor(), out, ws)?;
        ws.give(middle);
        Ok(())
    }

    /// A x, checked.
    ///
    /// # Errors
    /// [`crate::error::Error::Shape`] and its like where x is not in the domain.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let batch = self.domain().check("argument of the operator", x)?;
        let mut out = self.range().buffer(batch)?;
        self.apply_into(x, &mut out, &mut Workspace::new())?;
        Ok(out.freeze())
    }

    /// Aᴴ y, checked.
    ///
    /// # Errors
    /// [`crate::error::Error::Shape`] and its like where y is not in the range.
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        let batch = self.range().check("argument of the adjoint", y)?;
        let mut out = self.domain().buffer(batch)?;
        self.adjoint_into(y, &mut out, &mut Workspace::new())?;
        Ok(out.freeze())
    }

    /// AᴴA x, checked.
    ///
    /// # Errors
    /// [`crate::error::Error::Shape`] and its like where x is not in the domain.
    fn normal(&self, x: &Tensor) -> Result<Tensor> {
        let batch = self.domain().check("argument of the normal operator", x)?;
        let mut out = self.domain().buffer(batch)?;
        self.normal_into(x, &mut out, &mut Workspace::new())?;
        Ok(out.freeze())
    }
}

impl<A: LinearOperator + ?Sized> LinearOperator for Arc<A> {
    fn domain(&self) -> &Space {
        (**self).domain()
    }
    fn range(&self) -> &Space {
        (**self).range()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        (**self).apply_into(x, out, ws)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        (**self).adjoint_into(y, out, ws)
    }
    fn add_adjoint(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        (**self).add_adjoint(y, out, ws)
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        (**self).normal_into(x, out, ws)
    }
}
