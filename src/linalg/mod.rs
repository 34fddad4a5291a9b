//! Linear algebra: the operator trait and the iterative methods that know an operator only through it.

mod cg;
pub mod dense;
mod functional;
mod linear_operator;
mod power;

pub use cg::ConjugateGradient;
pub use functional::{Proximal, Smooth, Steps};
pub use linear_operator::LinearOperator;
pub use power::PowerIteration;
