//! Classical reconstruction: the baselines that every later method is compared with.

mod fbp;
pub mod mri;
mod sirt;
mod tv;

pub use fbp::{Fbp, Window};
pub use sirt::Sirt;
pub use tv::{Slices, Splitting, TotalVariation};
