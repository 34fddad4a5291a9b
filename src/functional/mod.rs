//! Functionals: data fidelities and penalties, with gradients and proximal maps.
//!
//! What smooth methods need is [`Smooth`]; what splitting methods need is [`Proximal`]. A penalty of a
//! transform, such as total variation λ‖∇x‖₂,₁, is a pair of operator and functional, to be given to
//! [`crate::linalg::Pdhg`] or [`crate::linalg::Admm`] as a [`crate::linalg::Term`].

mod bounds;
mod group;
mod l1;
mod least_squares;
mod low_rank;
mod nonlinear;
mod pointwise;
mod squared_distance;
mod sum;
#[cfg(test)]
mod tests;
mod transformed;

pub use crate::linalg::{Proximal, Smooth, Steps};
pub use bounds::Bounds;
pub use group::GroupNorm;
pub use l1::L1Norm;
pub use least_squares::{DataFidelity, LeastSquares};
pub use low_rank::LocallyLowRank;
pub use nonlinear::NonlinearLeastSquares;
pub use squared_distance::SquaredDistance;
pub use sum::SmoothSum;
pub use transformed::Transformed;

use crate::error::{Error, Result};

/// An error unless a weight of a penalty is finite and not negative.
fn penalty_weight(value: f64) -> Result<f64> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(Error::parameter("weight of a penalty", value, "must be finite and at least 0"))
}
