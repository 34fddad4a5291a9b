//! Magnetic-resonance imaging: Cartesian encoding with receive coils.
//!
//! Conventions: k-space [slices…, coil, ky, kx], coil maps [coil, y, x] with Σ|S|² = 1 inside the object,
//! images [slices…, y, x], all complex; transforms are centred and orthonormal. Volumetric encoding has one
//! more axis in front of y.

mod encode;
mod mask;
mod sense;
mod simulate;

pub use mask::{Pattern, Sampling};
pub use sense::Sense;
pub use simulate::{birdcage, measure};
