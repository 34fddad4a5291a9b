//! Classical reconstruction: the baselines that every later method is compared with.

pub mod mri;
