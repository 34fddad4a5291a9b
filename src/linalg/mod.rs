//! Linear algebra: the operator trait and the iterative methods that know an operator only through it.

mod adam;
mod admm;
mod cg;
mod cgls;
pub mod dense;
mod fista;
mod functional;
pub mod kronecker;
mod lbfgs;
mod linear_operator;
mod lsqr;
mod nonlinear_operator;
mod pdhg;
mod power;
pub(crate) mod sweep;
mod term;
#[cfg(test)]
mod tests;
mod wolfe;

pub use adam::{Adam, AdamState};
pub use admm::Admm;
pub use cg::ConjugateGradient;
pub use cgls::Cgls;
pub use fista::{Fista, StepRule};
pub use functional::{Proximal, Smooth, Steps};
pub use lbfgs::{Lbfgs, Objective};
pub use linear_operator::LinearOperator;
pub use lsqr::Lsqr;
pub use nonlinear_operator::{Linear, NonlinearOperator};
pub(crate) use pdhg::relax_dual;
pub use pdhg::{Pdhg, StepSize, StepSizes, magnitude_sums};
pub use power::PowerIteration;
pub use term::Term;
