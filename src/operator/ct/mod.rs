//! Computed tomography: geometries as plain values, and ray transforms with exact adjoints.
//!
//! A ray transform maps the attenuation μ (1/mm) of a slice to line integrals ∫ μ dl (dimensionless). Slices of
//! a volume are batch items; cone beams see the whole volume at once.

mod cone;
mod cone_transform;
mod crossing;
mod device;
mod distance_weighted;
mod fan;
mod fan_joseph;
mod fan_transform;
mod footprint;
mod geometry;
pub mod hounsfield;
mod joseph;
mod oblique;
mod photons;
mod projector;
mod stack;
mod transform;
mod upright;
mod vectors;

pub use cone::ConeBeam;
pub use cone_transform::ConeTransform;
pub(crate) use distance_weighted::{back_project_cone, back_project_fan};
pub use fan::FanBeam;
pub use fan_transform::FanTransform;
pub use footprint::FootprintTransform;
pub use geometry::{ImageGrid, ParallelBeam, VolumeGrid};
pub use photons::{Measurement, Photons, statistical_weights};
pub use projector::{Projector, ordered_subsets, select_views};
pub use transform::RayTransform;
pub use vectors::{Pose, VectorBeam};
