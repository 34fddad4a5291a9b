//! The identity.

use candle_core::Tensor;

use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::tensor::{Buffer, Space, Workspace, vector};

/// x ↦ x.
#[derive(Clone, Debug)]
pub struct Identity {
    space: Space,
}

impl Identity {
    /// The identity of `space`.
    ///
    /// ```
    /// use candle_core::{Device, DType};
    /// use wellposed::{operator::Identity, tensor::Space, testing::check_operator};
    /// check_operator(&Identity::new(&Space::complex(&[4, 3], DType::F32, &Device::Cpu)))?;
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    pub fn new(space: &Space) -> Self {
        Self { space: space.clone() }
    }
}

impl LinearOperator for Identity {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        vector::copy(x, out)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        vector::copy(y, out)
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        vector::copy(x, out)
    }
}
