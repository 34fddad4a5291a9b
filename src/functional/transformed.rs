//! Penalties of orthonormal transforms.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::{LinearOperator, Proximal, Steps};
use crate::tensor::{Buffer, Space, Workspace};

/// x ↦ g(W x) with W orthonormal (W Wᴴ = WᴴW = 1), so that its proximal map is Wᴴ prox_g W: sparsity in
/// wavelets, for example.
#[derive(Clone, Debug)]
pub struct Transformed {
    transform: Arc<dyn LinearOperator>,
    penalty: Arc<dyn Proximal>,
}

impl Transformed {
    /// `penalty` of `transform`, which the caller knows to be orthonormal.
    ///
    /// # Errors
    /// [`Error::Shape`] where the penalty's domain is not the transform's range.
    pub fn new(transform: Arc<dyn LinearOperator>, penalty: Arc<dyn Proximal>) -> Result<Self> {
        transform.range().expect_same("range of the transform", penalty.domain())?;
        Ok(Self { transform, penalty })
    }
}

impl Proximal for Transformed {
    fn domain(&self) -> &Space {
        self.transform.domain()
    }
    fn value(&self, x: &Tensor) -> Result<Vec<f64>> {
        self.penalty.value(&self.transform.apply(x)?)
    }
    fn prox(&self, steps: Steps<'_>, x: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        if matches!(steps, Steps::Each(_)) {
            return Err(Error::Unsupported(
                "a transformed penalty takes one step size for all elements".into(),
            ));
        }
        let batch = self.domain().check("argument of a transformed penalty", x.tensor())?.to_vec();
        let mut coefficients = ws.take(self.transform.range(), &batch)?;
        self.transform.apply_into(x.tensor(), &mut coefficients, ws)?;
        self.penalty.prox(steps, &mut coefficients, ws)?;
        self.transform.adjoint_into(coefficients.tensor(), x, ws)?;
        ws.give(coefficients);
        Ok(())
    }
}
