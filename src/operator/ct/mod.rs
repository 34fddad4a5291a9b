//! Computed tomography: geometries as plain values, and ray transforms with exact adjoints.
//!
//! A ray transform maps the attenuation μ (1/mm) of a slice to line integrals ∫ μ dl (dimensionless). Slices of
//! a volume are batch items.

mod geometry;
pub mod hounsfield;
mod joseph;
mod photons;
mod transform;

pub use geometry::{ImageGrid, ParallelBeam};
pub use photons::{Measurement, Photons};
pub use transform::RayTransform;
