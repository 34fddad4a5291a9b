//! One term g(K x) of an objective.

use crate::error::Result;
use crate::linalg::{LinearOperator, Proximal};

/// g(K x): a functional behind an operator, as splitting methods take it.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// K.
    pub operator: &'a dyn LinearOperator,
    /// g, on the range of K.
    pub functional: &'a dyn Proximal,
}

impl<'a> Term<'a> {
    /// g(K x) with K = `operator` and g = `functional`.
    ///
    /// # Errors
    /// [`crate::error::Error::Shape`] where the functional's domain is not the operator's range.
    pub fn new(operator: &'a dyn LinearOperator, functional: &'a dyn Proximal) -> Result<Self> {
        operator.range().expect_same("range of a term's operator", functional.domain())?;
        Ok(Self { operator, functional })
    }
}
