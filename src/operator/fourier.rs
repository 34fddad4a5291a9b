//! The centred orthonormal Fourier transform as an operator.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::{Buffer, Field, Space, Workspace, fft, vector};

/// The centred orthonormal Fourier transform over the last axes of complex arrays. It is unitary: its adjoint
/// is its inverse.
#[derive(Clone, Debug)]
pub struct Fourier {
    space: Space,
    axes: usize,
}

impl Fourier {
    /// The transform of arrays of `space` over their last `axes` axes.
    ///
    /// ```
    /// use candle_core::{Device, DType};
    /// use wellposed::{operator::Fourier, tensor::Space};
    /// let fourier = Fourier::new(&Space::complex(&[8, 8], DType::F64, &Device::Cpu), 2)?;
    /// wellposed::testing::check_operator(&fourier)?;
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where the space is real, has fewer axes, or an empty one.
    pub fn new(space: &Space, axes: usize) -> Result<Self> {
        let shape = space.shape();
        if space.field() != Field::Complex || axes == 0 || shape.len() < axes || shape.contains(&0) {
            return Err(Error::shape(
                "Fourier transform",
                format!("a complex space with at least {} non-empty axes", axes.max(1)),
                &space.tensor_shape(&[]),
            ));
        }
        Ok(Self { space: space.clone(), axes })
    }
}

impl LinearOperator for Fourier {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        fft::forward(x, self.axes, out)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        fft::inverse(y, self.axes, out)
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        vector::copy(x, out)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::testing::check_operator;

    #[test]
    fn passes_every_check() {
        for dtype in [DType::F32, DType::F64] {
            for (shape, axes) in [(&[24][..], 1), (&[3, 12, 15], 2), (&[6, 5, 8], 3)] {
                check_operator(&Fourier::new(&Space::complex(shape, dtype, &Device::Cpu), axes).unwrap())
                    .unwrap();
            }
        }
    }

    #[test]
    fn refuses_real_spaces() {
        assert!(Fourier::new(&Space::real(&[8, 2], DType::F32, &Device::Cpu), 1).is_err());
        assert!(Fourier::new(&Space::complex(&[8], DType::F32, &Device::Cpu), 2).is_err());
    }
}
