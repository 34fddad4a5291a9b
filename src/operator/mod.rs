//! Forward operators with exact adjoints.

mod algebra;
pub mod ct;
mod diagonal;
mod fourier;
mod gradient;
mod identity;
pub mod mri;

pub use algebra::{Adjoint, Algebra, Compose, Lifted, Normal, Scaled, Stack, Sum};
pub use diagonal::Diagonal;
pub use fourier::Fourier;
pub use gradient::Gradient;
pub use identity::Identity;
