//! Sums of smooth functions.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::Smooth;
use crate::tensor::{Buffer, Space, Workspace, vector};

/// f(x) = Σ cₖ fₖ(x).
#[derive(Clone, Debug)]
pub struct SmoothSum {
    terms: Vec<(f64, Arc<dyn Smooth>)>,
}

impl SmoothSum {
    /// The sum of `terms` with their factors.
    ///
    /// # Errors
    /// [`Error::Parameter`] where there are none, [`Error::Shape`] where their domains differ.
    pub fn new(terms: Vec<(f64, Arc<dyn Smooth>)>) -> Result<Self> {
        let Some((_, first)) = terms.first() else {
            return Err(Error::parameter("terms", 0, "a sum needs at least one function"));
        };
        for (_, term) in &terms {
            first.domain().expect_same("domain of a sum", term.domain())?;
        }
        Ok(Self { terms })
    }

    fn total(&self, mut value: impl FnMut(&dyn Smooth, f64) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
        let mut total: Vec<f64> = Vec::new();
        for (factor, term) in &self.terms {
            let values = value(&**term, *factor)?;
            total.resize(values.len(), 0.0);
            total.iter_mut().zip(values).for_each(|(t, v)| *t += factor * v);
        }
        Ok(total)
    }
}

impl Smooth for SmoothSum {
    fn domain(&self) -> &Space {
        self.terms[0].1.domain()
    }
    fn value(&self, x: &Tensor, ws: &mut Workspace) -> Result<Vec<f64>> {
        self.total(|term, _| term.value(x, ws))
    }
    fn gradient_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<Vec<f64>> {
        let mut part = ws.take_shape(x.dims(), x.dtype(), x.device())?;
        vector::fill(0.0, out)?;
        let total = self.total(|term, factor| {
            let values = term.gradient_into(x, &mut part, ws)?;
            vector::accumulate(1.0, &[(factor, part.tensor())], out)?;
            Ok(values)
        })?;
        ws.give(part);
        Ok(total)
    }
}
