//! Built-in data: analytic and procedural phantoms, one a file.

mod ellipses;
mod ellipsoids;
mod shepp_logan;
mod thorax;

pub use ellipses::{Ellipse, Ellipses};
pub use ellipsoids::{Ellipsoid, Ellipsoids};
pub use shepp_logan::{Contrast, shepp_logan, shepp_logan_3d};
pub use thorax::Thorax;
