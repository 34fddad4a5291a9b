//! Forward operators with exact adjoints.

mod algebra;
mod blur;
mod convolution;
pub mod ct;
mod diagonal;
mod fourier;
mod gradient;
mod identity;
pub mod mri;
mod nonlinear;
mod nufft;
mod pad;
mod resample;
mod separable;
mod wavelet;

pub use algebra::{Adjoint, Algebra, Compose, Lifted, Normal, Scaled, Stack, Sum};
pub use blur::{Blur, Boundary, gaussian_kernel, motion_kernel};
pub use diagonal::Diagonal;
pub use fourier::Fourier;
pub use gradient::Gradient;
pub use identity::Identity;
pub use nonlinear::{Chain, Curve, Magnitude, Pointwise, camera_blur, phase_retrieval};
pub(crate) use nufft::bessel_i0;
pub use nufft::{Accuracy, Nufft, Toeplitz};
pub use pad::Pad;
pub use resample::Downsample;
pub use wavelet::{Family, Wavelet};
