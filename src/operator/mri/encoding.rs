//! What reconstruction methods ask of an encoding.

use candle_core::Tensor;

use super::Sense;
use crate::error::Result;
use crate::linalg::LinearOperator;
use crate::tensor::vector;

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

    /// E‖n‖² of data as the encoding makes them, for one item, where the real and the imaginary part of every sample have
    /// white noise of variance 1: twice the number of samples of all coils, or the sum of their weights squared.
    ///
    /// # Errors
    /// What the tensor library returns.
    fn noise_energy(&self) -> Result<f64>;
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
    fn noise_energy(&self) -> Result<f64> {
        let coil_images = self.range().scalars() / self.mask().elem_count();
        Ok(2.0 * coil_images as f64 * vector::inner(self.mask(), self.mask(), 1)?[0])
    }
}
