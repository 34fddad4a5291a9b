//! Arrays: candle tensors as the only currency between modules, buffers that kernels write into,
//! and the fused kernels, Fourier transforms and random numbers that everything else stands on.
//!
//! Conventions. A complex array has a trailing axis of length 2, `[re, im]`, the layout of
//! [`num_complex::Complex`]. Leading axes that a [`Space`] doesn't name are batch axes.

mod buffer;
pub(crate) mod complex;
// Without the feature `cuda` there is no machine to run on.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub mod device;
pub mod fft;
mod kernel;
pub mod memory;
pub mod random;
mod real;
pub mod simd;
mod space;
pub mod vector;

pub use buffer::{Buffer, Workspace};
pub use kernel::{Kernel, launch, staged_bytes};
pub use real::{Real, as_complex, as_complex_mut};
pub use space::{Field, Space};
