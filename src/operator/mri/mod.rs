//! Magnetic-resonance imaging: encoding with receive coils, Cartesian or along a trajectory.
//!
//! Conventions: k-space [slices…, coil, ky, kx], coil maps [coil, y, x] with Σ|S|² = 1 inside the object,
//! images [slices…, y, x], all complex; transforms are centred and orthonormal. Volumetric encoding has one
//! more axis in front of y.

mod device;
mod encode;
mod encoding;
mod frames;
mod lines;
mod mask;
mod non_cartesian;
mod off_resonance;
mod sense;
mod simulate;
mod trajectory;
mod volume_trajectory;

pub use encoding::Encoding;
pub use frames::Frames;
pub use mask::{Pattern, Sampling};
pub use non_cartesian::NonCartesianSense;
pub use off_resonance::OffResonance;
pub use sense::Sense;
pub use simulate::{birdcage, measure};
pub use trajectory::Trajectory;
pub use volume_trajectory::VolumeTrajectory;
