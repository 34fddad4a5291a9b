//! Inverse problems and PDE solvers: forward operators with exact adjoints, classical and diffusion-based
//! reconstruction, and Gaussian-process PDE solvers, on one linear-algebra layer.

pub mod error;
pub mod functional;
pub mod gp;
pub mod io;
pub mod linalg;
pub mod metric;
pub mod observe;
pub mod operator;
pub mod phantom;
pub mod plot;
pub mod prior;
pub mod reconstruct;
pub mod sampler;
pub mod tensor;
pub mod testing;

/// The library example of the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
