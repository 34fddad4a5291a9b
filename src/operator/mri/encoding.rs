//! What reconstruction methods ask of an encoding.

use candle_core::Tensor;

use super::Sense;
use crate::error::Result;
use crate::linalg::LinearOperator;

/// Multi-coil encoding of images: on a Cartesian grid ([`Sense`]) or along any trajectory
/// ([`super::NonCartesianSense`]). The methods of [`crate::reconstruct::mri`] take either.
pub trait Encoding: LinearOperator + Clone + 'static {
    /// Axes of one image, [(z,) y, x], without those of slices with maps of their own.
    fn image_shape(&self) -> &[usize];

    /// 1 where any coil sees the image and 0 elsewhere: real, of the shape of the domain.
    ///
    /// # Errors
    /// What the tensor library returns.
    fn support(&self) -> Result<Tensor>;

    /// A bound of ‖A‖².
    ///
    /// # Errors
    /// What the tensor library returns.
    fn squared_norm_bound(&self) -> Result<f64>;
}

impl Encoding for Sense {
    fn image_shape(&self) -> &[usize] {
        self.mask().dims()
    }
    fn support(&self) -> Result<Tensor> {
        Sense::support(self)
    }
    fn squared_norm_bound(&self) -> Result<f64> {
        Sense::squared_norm_bound(self)
    }
}
