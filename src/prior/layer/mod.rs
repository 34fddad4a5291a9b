//! Layers of networks on candle tensors, channels last, [images, height, width, channels] in f32. On the CPU they run
//! our kernels, with gradients through candle's backward pass; on other devices convolutions and normalisations run kernels of ours
//! where no gradient is asked for, and all else is made of candle's operations.
//!
//! Weights come from a [`Fetch`] by name and shape. Where it gives variables, their gradients are computed too.

mod attention;
mod conv;
mod dense;
mod device;
mod norm;
mod ops;
mod resample;
mod residual;
mod tape;
#[cfg(test)]
mod tests;

use candle_core::Tensor;

pub use attention::{Attention, Order, Projection};
pub use conv::Conv;
pub use dense::{Dense, Fourier, sinusoids};
pub use norm::Norm;
pub use ops::{add, add_rows, concatenate, relu};
pub use resample::{fold, resampled, unfold};
pub use residual::{Modulation, Names, Residual, Shape};
pub use tape::Tape;

pub use crate::prior::kernel::resample::Resampling;

use crate::error::Result;

/// Gives a tensor of weights by its name and expected shape, f32.
pub type Fetch<'a> = dyn FnMut(&str, &[usize]) -> Result<Tensor> + 'a;
