//! Linear algebra: the operator trait and the iterative methods that know an operator only through it.

mod cg;
mod linear_operator;

pub use cg::ConjugateGradient;
pub use linear_operator::LinearOperator;
