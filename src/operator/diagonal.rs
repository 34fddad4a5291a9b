//! Element-wise weights: masks, coil maps, preconditioners.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::random::Noise;
use crate::tensor::vector::{self, Weights};
use crate::tensor::{Buffer, Field, Real, Space, Workspace};

/// x ↦ w · x with one weight for each scalar; a mask has weights 0 and 1.
#[derive(Clone, Debug)]
pub struct Diagonal {
    space: Space,
    weights: Tensor,
    forward: Weights,
    backward: Weights,
}

impl Diagonal {
    /// Real weights on real or complex arrays. The shape of `weights` is that of `space`, or its trailing
    /// axes: then the weights repeat over the leading ones.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{linalg::LinearOperator, operator::Diagonal, tensor::Space};
    /// let space = Space::real(&[2, 3], DType::F64, &Device::Cpu);
    /// let mask = Diagonal::real(&space, &Tensor::new(&[1f64, 0., 1.], &Device::Cpu)?)?;
    /// let x = Tensor::new(&[[1f64, 2., 3.], [4., 5., 6.]], &Device::Cpu)?;
    /// assert_eq!(mask.apply(&x)?.to_vec2::<f64>()?, [[1., 0., 3.], [4., 0., 6.]]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] or [`Error::Device`] where the weights don't fit `space`.
    pub fn real(space: &Space, weights: &Tensor) -> Result<Self> {
        let kind = match space.field() {
            Field::Real => Weights::Elementwise,
            Field::Complex => Weights::RealOnComplex,
        };
        Self::checked(space, weights, space.with_field(Field::Real), kind, kind)
    }

    /// Complex weights (trailing axis [re, im]) on complex arrays; the adjoint multiplies by their conjugates.
    ///
    /// # Errors
    /// As for [`Diagonal::real`], and where `space` is real.
    pub fn complex(space: &Space, weights: &Tensor) -> Result<Self> {
        if space.field() == Field::Real {
            return Err(Error::parameter("weights", "complex", "complex weights need a complex space"));
        }
        Self::checked(space, weights, space.clone(), Weights::Complex, Weights::Conjugate)
    }

    /// A random mask that keeps each pixel of the last two axes (the same in all slices) with probability
    /// `fraction` in (0, 1].
    ///
    /// # Errors
    /// [`Error::Parameter`] where the fraction is out of range or `space` has fewer than two axes.
    pub fn random_mask(space: &Space, fraction: f64, seed: u64) -> Result<Self> {
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(Error::parameter("fraction", fraction, "must be in (0, 1]"));
        }
        let [.., height, width] = space.shape() else {
            return Err(Error::parameter("mask", space, "needs an image space [.., height, width]"));
        };
        let noise = Noise::new(seed, 0);
        let keep = |i| if noise.uniform(i as u64) < fraction { 1.0 } else { 0.0 };
        let mask = f64::tensor((0..height * width).map(keep).collect(), &[*height, *width])?;
        Self::real(space, &mask.to_dtype(space.dtype())?.to_device(space.device())?)
    }

    fn checked(
        space: &Space,
        weights: &Tensor,
        weight_space: Space,
        forward: Weights,
        backward: Weights,
    ) -> Result<Self> {
        let shape = space.shape();
        let rank = weights.rank().saturating_sub(weight_space.components() - 1).clamp(1, shape.len().max(1));
        let trailing = &shape[shape.len().saturating_sub(rank)..];
        let batch = weight_space.with_shape(trailing).check("weights of a diagonal operator", weights)?;
        if !batch.is_empty() || weights.elem_count() == 0 {
            return Err(Error::shape(
                "weights of a diagonal operator",
                format!("{trailing:?}"),
                weights.dims(),
            ));
        }
        let weights = weights.contiguous()?;
        Ok(Self { space: space.clone(), weights, forward, backward })
    }

    /// The weights.
    pub fn weights(&self) -> &Tensor {
        &self.weights
    }
}

impl LinearOperator for Diagonal {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        vector::multiply(&self.weights, self.forward, x, out)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        vector::multiply(&self.weights, self.backward, y, out)
    }
}
