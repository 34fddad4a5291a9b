//! Classical reconstruction: the baselines that every later method is compared with.

mod divergent;
mod fbp;
pub mod mri;
mod os_sart;
pub mod preprocess;
mod ramp;
mod redundancy;
mod sirt;
mod tv;

pub use fbp::Fbp;
pub use os_sart::OsSart;
pub use ramp::Window;
pub use sirt::Sirt;
pub use tv::{Slices, Splitting, TotalVariation};
