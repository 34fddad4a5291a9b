//! Gaussian-process solvers for differential equations, in double precision.
//!
//! A [`Problem`] states the equation, its boundary conditions and its data; an engine turns it into a [`PdeSolution`]:
//! a Gaussian posterior over u, with the residual at points that were not fitted.

pub mod benchmark;
mod collocation;
mod gp_hm;
mod inference;
pub mod kernel;
mod newton;
mod problem;
mod solution;
pub mod text;
mod weights;

pub use collocation::Collocation;
pub use gp_hm::{GpHm, Minimiser};
pub use inference::{Inference, Inferred};
pub use problem::{
    Boundary, Condition, Data, Derivative, DifferentialOperator, Face, Factor, Function, NonlinearFunction,
    NonlinearPartials, Nonlinearity, Observation, Problem, Samples, Side, Term, tensor_grid,
};
pub use solution::{PdeSolution, Posterior, Residual, SpectralLine, sample_gaussian};
pub use weights::WeightSpace;
