//! Denoisers D(x, σ) ≈ E[x₀ | x₀ + σ n = x]: networks, closed forms, and one that compares pieces of the image ([`bm3d`]).
//!
//! Every prior speaks one convention: data plus noise of standard deviation σ (variance exploding), so that
//! score(x, σ) = (D(x, σ) − x)/σ² and the noise estimate is ε̂ = (x − D)/σ. A variance-preserving state is
//! x_vp = √ᾱ x with σ = √((1−ᾱ)/ᾱ); see [`schedule`].
//!
//! Networks take the images of a batch on all of rayon's threads. candle's own threads are in their way: see
//! [`leave_threads_to_rayon`].

pub mod bm3d;
pub mod checkpoint;
pub mod gaussian;
mod kernel;
mod layer;
pub mod mixture;
pub mod network;
pub mod parametrization;
mod precision;
pub mod schedule;
mod shipped;
pub mod train;

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::tensor::{Field, Space};

pub use precision::{Precision, precision, set_precision};
pub use shipped::{BM3D, names as shipped_names};

/// A denoiser D(x, σ) = E[x₀ | x₀ + σ n = x] of images.
///
/// Images are [batch…, height, width] where real and [batch…, height, width, 2] where complex; every batch
/// item is denoised on its own.
pub trait Denoiser: Send + Sync + std::fmt::Debug {
    /// Real images, or complex ones with the trailing axis [re, im].
    fn field(&self) -> Field;

    /// The range of the clean data, [−1, 1] for most networks. What lies outside was never seen in training.
    fn range(&self) -> (f64, f64);

    /// An error where images of this space can't be denoised (field, element type, sizes that the network
    /// can't halve often enough), saying what would do.
    fn check(&self, image: &Space) -> Result<()>;

    /// D(x, σ) for every item of x; `sigma` > 0.
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor>;

    /// D(x, σ), and the map c ↦ J_D(x)ᵀ c at the same point.
    fn denoise_vjp(&self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback)>;
}

impl<D: Denoiser + ?Sized> Denoiser for Arc<D> {
    fn field(&self) -> Field {
        (**self).field()
    }
    fn range(&self) -> (f64, f64) {
        (**self).range()
    }
    fn check(&self, image: &Space) -> Result<()> {
        (**self).check(image)
    }
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        (**self).denoise(x, sigma)
    }
    fn denoise_vjp(&self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback)> {
        (**self).denoise_vjp(x, sigma)
    }
}

/// Keeps candle from computing on threads of its own, which wait for each other actively and are in the way of rayon's,
/// on which networks take the images of a batch: a fifth less time for gradients of eight images on two cores. The
/// environment variable `CANDLE_NUM_THREADS`, which this sets to 1, is left as it is where the user has set it.
///
/// ```
/// // SAFETY: no other thread runs yet.
/// unsafe { wellposed::prior::leave_threads_to_rayon() };
/// assert!(std::env::var_os("CANDLE_NUM_THREADS").is_some());
/// ```
///
/// # Safety
/// No other thread may read or write the environment meanwhile: call it at the start of `main`, before candle computes.
pub unsafe fn leave_threads_to_rayon() {
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: the caller answers for it.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
}

type Pull = dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync;

/// The map c ↦ Jᵀ c of a denoiser at one point.
pub struct Pullback(Box<Pull>);

impl Pullback {
    /// A pullback made of a closure.
    pub fn new(pull: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static) -> Self {
        Self(Box::new(pull))
    }

    /// Jᵀ c; `cotangent` has the shape of the denoised image.
    pub fn pull(&self, cotangent: &Tensor) -> Result<Tensor> {
        (self.0)(cotangent)
    }
}

impl std::fmt::Debug for Pullback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pullback")
    }
}

/// An error unless σ is a positive number.
pub(crate) fn require_level(sigma: f64) -> Result<()> {
    if sigma > 0.0 && sigma.is_finite() {
        return Ok(());
    }
    Err(Error::parameter("sigma", sigma, "a noise level must be positive and finite"))
}
