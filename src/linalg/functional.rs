//! What iterative methods ask of the functions they minimise: a gradient, or a proximal map.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::linalg::pdhg;
use crate::linalg::sweep::PROGRAM;
use crate::tensor::device::{Gpu, arguments};
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch, vector};

/// Step sizes of a proximal map.
#[derive(Clone, Copy, Debug)]
pub enum Steps<'a> {
    /// One step size τ > 0.
    Uniform(f64),
    /// One step size for each stored element of an item (shape of the domain): diagonal preconditioning.
    Each(&'a Tensor),
}

impl Steps<'_> {
    /// The step sizes as a kernel input: a uniform one goes by value, others as a slice.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Uniform(_) => None,
            Self::Each(each) => Some(each),
        }
    }
}

/// A convex function g with an easy proximal map; it need not be smooth, and may be +∞ somewhere.
///
/// Leading axes are batch axes: every method works item by item.
pub trait Proximal: Debug + Send + Sync {
    /// Where arguments lie.
    fn domain(&self) -> &Space;
    /// g(x), one value for each batch item.
    fn value(&self, x: &Tensor) -> Result<Vec<f64>>;
    /// x ← argmin_u g(u) + ½ Σ (uᵢ − xᵢ)²/τᵢ, in place.
    fn prox(&self, steps: Steps<'_>, x: &mut Buffer, ws: &mut Workspace) -> Result<()>;

    /// y ← the proximal map of the convex conjugate g\*, in place; by default from Moreau's identity
    /// prox_{σg\*}(y) = y − σ prox_{g/σ}(y/σ). Override where a closed form is cheaper.
    fn prox_conjugate(&self, steps: Steps<'_>, y: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let shape = y.dims().to_vec();
        let mut scaled = ws.take_shape(&shape, self.domain().dtype(), self.domain().device())?;
        match steps {
            Steps::Uniform(sigma) => {
                vector::lincomb(&[(1.0 / sigma, y.tensor())], &mut scaled)?;
                self.prox(Steps::Uniform(1.0 / sigma), &mut scaled, ws)?;
                vector::accumulate(1.0, &[(-sigma, scaled.tensor())], y)?;
            }
            Steps::Each(sigma) => {
                let mut inverse = ws.take(self.domain(), &[])?;
                launch(Reciprocal, &[sigma], &mut [&mut inverse])?;
                vector::multiply(inverse.tensor(), vector::Weights::Elementwise, y.tensor(), &mut scaled)?;
                self.prox(Steps::Each(inverse.tensor()), &mut scaled, ws)?;
                ws.give(inverse);
                let mut product = ws.take_shape(&shape, self.domain().dtype(), self.domain().device())?;
                vector::multiply(sigma, vector::Weights::Elementwise, scaled.tensor(), &mut product)?;
                vector::accumulate(1.0, &[(-1.0, product.tensor())], y)?;
                ws.give(product);
            }
        }
        ws.give(scaled);
        Ok(())
    }

    /// The dual half of a step of [`crate::linalg::Pdhg`], in place: ỹ = prox_{σg\*}(y + σ `image`), y ← y + ρ (ỹ − y).
    /// Returns Σ (ỹ − y)²/σ and Σ ỹ²/σ of each item; `image` is overwritten. Override where one pass does it.
    fn relax_dual(
        &self,
        sigma: Steps<'_>,
        rho: f64,
        image: &mut Buffer,
        y: &mut Buffer,
        ws: &mut Workspace,
    ) -> Result<Vec<[f64; 2]>> {
        pdhg::relax_dual(self, sigma, rho, image, y, ws)
    }
}

struct Reciprocal;

impl Kernel for Reciprocal {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        outputs[0].par_iter_mut().zip(inputs[0]).for_each(|(o, x)| *o = x.recip());
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let n = gpu.output_len(0);
        Some(gpu.run(&PROGRAM, "reciprocal", n, arguments![gpu.input(0), gpu.output(0), n]))
    }
}

/// A differentiable function f.
///
/// Leading axes are batch axes: every method works item by item.
pub trait Smooth: Debug + Send + Sync {
    /// Where arguments lie.
    fn domain(&self) -> &Space;
    /// f(x), one value for each batch item.
    fn value(&self, x: &Tensor, ws: &mut Workspace) -> Result<Vec<f64>>;
    /// out ← ∇f(x); returns f(x) for each batch item, which comes at no cost.
    fn gradient_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<Vec<f64>>;
}

impl<F: Proximal + ?Sized> Proximal for Arc<F> {
    fn domain(&self) -> &Space {
        (**self).domain()
    }
    fn value(&self, x: &Tensor) -> Result<Vec<f64>> {
        (**self).value(x)
    }
    fn prox(&self, steps: Steps<'_>, x: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        (**self).prox(steps, x, ws)
    }
    fn prox_conjugate(&self, steps: Steps<'_>, y: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        (**self).prox_conjugate(steps, y, ws)
    }
    fn relax_dual(
        &self,
        sigma: Steps<'_>,
        rho: f64,
        image: &mut Buffer,
        y: &mut Buffer,
        ws: &mut Workspace,
    ) -> Result<Vec<[f64; 2]>> {
        (**self).relax_dual(sigma, rho, image, y, ws)
    }
}

impl<F: Smooth + ?Sized> Smooth for Arc<F> {
    fn domain(&self) -> &Space {
        (**self).domain()
    }
    fn value(&self, x: &Tensor, ws: &mut Workspace) -> Result<Vec<f64>> {
        (**self).value(x, ws)
    }
    fn gradient_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<Vec<f64>> {
        (**self).gradient_into(x, out, ws)
    }
}
