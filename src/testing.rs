//! Checks for operators of your own: adjointness, linearity, batches, dirty buffers.
//!
//! ```
//! # use candle_core::{Device, DType, Tensor};
//! # use wellposed::{linalg::LinearOperator, tensor::*, error::Result};
//! # #[derive(Debug)] struct Twice(Space);
//! # impl LinearOperator for Twice {
//! #   fn domain(&self) -> &Space { &self.0 } fn range(&self) -> &Space { &self.0 }
//! #   fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> { vector::lincomb(&[(2.0, x)], out) }
//! #   fn adjoint_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> { self.apply_into(x, out, ws) }
//! # }
//! # let my_operator = Twice(Space::real(&[3], DType::F64, &Device::Cpu));
//! wellposed::testing::check_operator(&my_operator)?;
//! # Ok::<(), wellposed::error::Error>(())
//! ```

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::linalg::{LinearOperator, NonlinearOperator, Proximal, Smooth, Steps};
use crate::tensor::random::{Noise, standard_normal};
use crate::tensor::{Buffer, Workspace, vector};

/// What the dot test found.
#[derive(Clone, Copy, Debug)]
pub struct DotTest {
    /// |⟨Ax, y⟩ − ⟨x, Aᴴy⟩| / (‖Ax‖ ‖y‖).
    pub defect: f64,
    /// ⟨Ax, Ax⟩ / ⟨x, AᴴAx⟩: the apparent scale of A against the adjoint of its adjoint. A plain factor, such
    /// as a pixel area or √N, means that one of the two lacks a constant.
    pub scale: f64,
}

/// Machine epsilon of a tensor element type.
pub fn epsilon(dtype: DType) -> f64 {
    if dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) }
}

/// ‖x − y‖ / ‖y‖, and ‖x‖ where y is zero.
pub fn relative_difference(x: &Tensor, y: &Tensor) -> Result<f64> {
    let mut difference = Buffer::copy_of(x)?;
    vector::accumulate(1.0, &[(-1.0, y)], &mut difference)?;
    let size = vector::norm(y, 1)?[0];
    Ok(vector::norm(difference.tensor(), 1)?[0] / if size > 0.0 { size } else { 1.0 })
}

/// The dot test ⟨Ax, y⟩ = ⟨x, Aᴴy⟩ on normal random data.
pub fn dot_test(a: &dyn LinearOperator, seed: u64) -> Result<DotTest> {
    let x = standard_normal(Noise::new(seed, 0), a.domain(), &[])?;
    let y = standard_normal(Noise::new(seed, 1), a.range(), &[])?;
    let (ax, aty) = (a.apply(&x)?, a.adjoint(&y)?);
    let (left, right) = (vector::inner(&ax, &y, 1)?[0], vector::inner(&x, &aty, 1)?[0]);
    let size = vector::norm(&ax, 1)?[0] * vector::norm(&y, 1)?[0];
    let back = vector::inner(&x, &a.adjoint(&ax)?, 1)?[0];
    Ok(DotTest {
        defect: (left - right).abs() / if size > 0.0 { size } else { 1.0 },
        scale: vector::inner(&ax, &ax, 1)?[0] / back,
    })
}

/// Every check that an operator must pass, on random data: the dot test at 64 ε, linearity, the normal
/// operator against A then Aᴴ, batches against single items, buffers that held other values before, and
/// refusal of arrays of the wrong rank.
///
/// # Errors
/// [`Error::Unsupported`] naming the operator, the check that failed and by how much.
pub fn check_operator(a: &dyn LinearOperator) -> Result<()> {
    let eps = epsilon(a.domain().dtype());
    let fail = |check: &str, found: f64, allowed: f64| -> Result<()> {
        if found <= allowed {
            return Ok(());
        }
        Err(Error::Unsupported(format!("{a:?}: {check}: found {found:.3e}, allowed {allowed:.3e}")))
    };
    let dot = dot_test(a, 11)?;
    fail(&format!("dot test (apparent scale {:.6})", dot.scale), dot.defect, 64.0 * eps)?;

    let draw = |stream, batch: &[usize]| standard_normal(Noise::new(12, stream), a.domain(), batch);
    let (x, z) = (draw(0, &[])?, draw(1, &[])?);
    let mut mixed = Buffer::copy_of(&x)?;
    vector::accumulate(2.0, &[(-3.0, &z)], &mut mixed)?;
    let mut expected = Buffer::copy_of(&a.apply(&x)?)?;
    vector::accumulate(2.0, &[(-3.0, &a.apply(&z)?)], &mut expected)?;
    fail("linearity", relative_difference(&a.apply(mixed.tensor())?, expected.tensor())?, 256.0 * eps)?;
    let two_steps = a.adjoint(&a.apply(&x)?)?;
    fail("normal operator", relative_difference(&a.normal(&x)?, &two_steps)?, 1024.0 * eps)?;

    let pair = draw(2, &[2])?;
    let (together, back) = (a.apply(&pair)?, a.adjoint(&a.apply(&pair)?)?);
    for item in 0..2 {
        let alone = a.apply(&pair.get(item)?)?;
        fail("a batch against single items", relative_difference(&together.get(item)?, &alone)?, 16.0 * eps)?;
        let alone = a.adjoint(&alone)?;
        fail(
            "an adjoint batch against single items",
            relative_difference(&back.get(item)?, &alone)?,
            64.0 * eps,
        )?;
    }

    let mut ws = Workspace::new();
    let mut dirty = a.range().buffer(&[])?;
    vector::fill(1e6, &mut dirty)?;
    a.apply_into(&x, &mut dirty, &mut ws)?;
    fail("a dirty output buffer", relative_difference(dirty.tensor(), &a.apply(&x)?)?, 0.0)?;
    let mut dirty = a.domain().buffer(&[])?;
    vector::fill(1e6, &mut dirty)?;
    a.adjoint_into(&a.apply(&x)?, &mut dirty, &mut ws)?;
    fail("a dirty output buffer of the adjoint", relative_difference(dirty.tensor(), &two_steps)?, 0.0)?;

    let mut sum = Buffer::copy_of(&pair)?;
    a.add_adjoint(&a.apply(&pair)?, &mut sum, &mut ws)?;
    let mut expected = Buffer::copy_of(&back)?;
    vector::accumulate(1.0, &[(1.0, &pair)], &mut expected)?;
    fail("a sum with an adjoint", relative_difference(sum.tensor(), expected.tensor())?, 64.0 * eps)?;

    let wrong = a.domain().with_shape(&[1]).zeros(&[])?;
    if a.domain().shape() != [1] && a.apply(&wrong).is_ok() {
        return Err(Error::Unsupported(format!("{a:?}: accepted an array of the wrong shape")));
    }
    Ok(())
}

/// Every check that a proximal map must pass, on random data: it minimises g(u) + ‖u − x‖²/2τ against
/// random neighbours, is firmly non-expansive, obeys Moreau's identity with the conjugate's map, and gives
/// the same for one step size as for an array of equal ones.
///
/// # Errors
/// [`Error::Unsupported`] naming the functional, the check that failed and by how much.
pub fn check_proximal(g: &dyn Proximal) -> Result<()> {
    let eps = epsilon(g.domain().dtype());
    let fail = |check: &str, found: f64, allowed: f64| -> Result<()> {
        if found <= allowed {
            return Ok(());
        }
        Err(Error::Unsupported(format!("{g:?}: {check}: found {found:.3e}, allowed {allowed:.3e}")))
    };
    let draw = |stream| standard_normal(Noise::new(21, stream), g.domain(), &[]);
    let (x, z, tau) = (draw(0)?, draw(1)?, 0.4);
    let mut ws = Workspace::new();
    let mut prox = |x: &Tensor, steps: Steps| -> Result<Tensor> {
        let mut out = Buffer::copy_of(x)?;
        g.prox(steps, &mut out, &mut ws)?;
        Ok(out.freeze())
    };
    let (px, pz) = (prox(&x, Steps::Uniform(tau))?, prox(&z, Steps::Uniform(tau))?);

    let combine = |a: f64, x: &Tensor, b: f64, y: &Tensor| -> Result<Tensor> {
        let mut out = Buffer::copy_of(x)?;
        vector::lincomb(&[(a, x), (b, y)], &mut out)?;
        Ok(out.freeze())
    };
    let objective = |u: &Tensor| -> Result<f64> {
        let off = combine(1.0, u, -1.0, &x)?;
        Ok(g.value(u)?[0] + vector::inner(&off, &off, 1)?[0] / (2.0 * tau))
    };
    let least = objective(&px)?;
    for (stream, size) in [(2, 1e-3), (3, 1e-2), (4, 0.1), (5, 1.0)] {
        for neighbour in [combine(1.0, &px, size, &draw(stream)?)?, combine(1.0 - size, &px, size, &x)?] {
            fail(
                "a neighbour has a smaller objective",
                least - objective(&neighbour)?,
                64.0 * eps * least.abs(),
            )?;
        }
    }
    let (near, far) = (combine(1.0, &px, -1.0, &pz)?, combine(1.0, &x, -1.0, &z)?);
    let excess = vector::inner(&near, &near, 1)?[0] - vector::inner(&near, &far, 1)?[0];
    fail("firm non-expansiveness", excess, 64.0 * eps * vector::inner(&far, &far, 1)?[0])?;

    let mut conjugate = combine(1.0 / tau, &x, 0.0, &x).and_then(|scaled| Buffer::copy_of(&scaled))?;
    g.prox_conjugate(Steps::Uniform(1.0 / tau), &mut conjugate, &mut Workspace::new())?;
    let sum = combine(1.0, &px, tau, conjugate.tensor())?;
    fail("Moreau's identity", relative_difference(&sum, &x)?, 64.0 * eps)?;

    let each = (g.domain().zeros(&[])? + tau)?;
    match prox(&x, Steps::Each(&each)) {
        Ok(same) => fail("equal step sizes for each element", relative_difference(&same, &px)?, 64.0 * eps),
        Err(Error::Unsupported(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks a gradient against central differences of the value along random directions, in double precision.
///
/// # Errors
/// [`Error::Unsupported`] naming the function and by how much the two differ.
pub fn check_gradient(f: &dyn Smooth, x: &Tensor) -> Result<()> {
    let mut ws = Workspace::new();
    let mut gradient = Buffer::copy_of(x)?;
    f.gradient_into(x, &mut gradient, &mut ws)?;
    for stream in 0..4 {
        let direction = standard_normal(Noise::new(31, stream), f.domain(), &[])?;
        let slope = vector::inner(gradient.tensor(), &direction, 1)?[0];
        let mut at = |t: f64| -> Result<f64> {
            let mut moved = Buffer::copy_of(x)?;
            vector::accumulate(1.0, &[(t, &direction)], &mut moved)?;
            Ok(f.value(moved.tensor(), &mut ws)?[0])
        };
        let step = 1e-4;
        let difference =
            (8.0 * (at(step)? - at(-step)?) - (at(2.0 * step)? - at(-2.0 * step)?)) / (12.0 * step);
        let size = vector::norm(gradient.tensor(), 1)?[0] * vector::norm(&direction, 1)?[0];
        if (slope - difference).abs() > 1e-7 * size {
            let found = format!("slope {slope:.9e}, by differences {difference:.9e}");
            return Err(Error::Unsupported(format!("{f:?}: gradient: {found}")));
        }
    }
    Ok(())
}

/// Checks the products with a Jacobian's adjoint against central differences of the map at `x`, and batches
/// against single items, in double precision.
///
/// # Errors
/// [`Error::Unsupported`] naming the operator, the check that failed and by how much.
pub fn check_nonlinear(a: &dyn NonlinearOperator, x: &Tensor) -> Result<()> {
    let fail = |check: &str, found: f64, allowed: f64| -> Result<()> {
        if found <= allowed {
            return Ok(());
        }
        Err(Error::Unsupported(format!("{a:?}: {check}: found {found:.3e}, allowed {allowed:.3e}")))
    };
    for stream in 0..4 {
        let direction = standard_normal(Noise::new(41, stream), a.domain(), &[])?;
        let cotangent = standard_normal(Noise::new(42, stream), a.range(), &[])?;
        let product = a.vjp(x, &cotangent)?;
        let along = vector::inner(&product, &direction, 1)?[0];
        let at = |t: f64| -> Result<f64> {
            let mut moved = Buffer::copy_of(x)?;
            vector::accumulate(1.0, &[(t, &direction)], &mut moved)?;
            Ok(vector::inner(&a.apply(moved.tensor())?, &cotangent, 1)?[0])
        };
        let step = 1e-5;
        let difference =
            (8.0 * (at(step)? - at(-step)?) - (at(2.0 * step)? - at(-2.0 * step)?)) / (12.0 * step);
        let size = vector::norm(&product, 1)?[0] * vector::norm(&direction, 1)?[0];
        fail(
            "Jacobian's adjoint against differences",
            (along - difference).abs() / size.max(f64::MIN_POSITIVE),
            1e-7,
        )?;
    }
    let pair = Tensor::stack(&[x, &(x * 0.5)?], 0)?;
    let cotangents = standard_normal(Noise::new(43, 0), a.range(), &[2])?;
    let (values, products) = (a.apply(&pair)?, a.vjp(&pair, &cotangents)?);
    for item in 0..2 {
        let (x, v) = (pair.get(item)?, cotangents.get(item)?);
        fail("a batch against single items", relative_difference(&values.get(item)?, &a.apply(&x)?)?, 1e-14)?;
        fail("a batch of products", relative_difference(&products.get(item)?, &a.vjp(&x, &v)?)?, 1e-14)?;
    }
    Ok(())
}
