//! Edges of the detector: an object wider than the detector ends abruptly there, which filters turn into a bright rim.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tensor::{Kernel, Real, Space, launch, vector};

/// Projections [batch…, bins] with `by` more bins on either side, in which the outermost value falls to 0 along a cosine
/// (Ohnesorge, Flohr, Schwarz, Heiken and Bae, Med. Phys. 27:39, 2000, use the like). The middle of the detector
/// stays where it was.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::reconstruct::preprocess::extend_edges;
/// let p = extend_edges(&Tensor::new(&[[4f64, 2.0]], &Device::Cpu)?, 1)?;
/// assert_eq!(p.to_vec2::<f64>()?, [[2.0, 4.0, 2.0, 1.0]]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] where there is no bin, [`Error::NotFinite`].
pub fn extend_edges(projections: &Tensor, by: usize) -> Result<Tensor> {
    struct Extend(usize, usize);
    impl Kernel for Extend {
        type Output = ();
        fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let Self(bins, by) = self;
            let fall = |k: usize| 0.5 + 0.5 * (std::f64::consts::PI * (k + 1) as f64 / (by + 1) as f64).cos();
            let fall: Vec<T> = (0..by).map(|k| T::of(fall(k))).collect();
            outputs[0].par_chunks_mut(bins + 2 * by).zip(inputs[0].par_chunks(bins)).for_each(|(out, x)| {
                out[by..by + bins].copy_from_slice(x);
                for (k, factor) in fall.iter().enumerate() {
                    out[by - 1 - k] = x[0] * *factor;
                    out[by + bins + k] = x[bins - 1] * *factor;
                }
            });
            Ok(())
        }
    }
    let shape = projections.dims();
    let Some((&bins, batch)) = shape.split_last().filter(|(bins, _)| **bins > 0) else {
        return Err(Error::shape("projections", "[…, bins], at least one bin", shape));
    };
    vector::require_finite("projections", projections)?;
    let Some(wider) = by.checked_mul(2).and_then(|more| more.checked_add(bins)) else {
        return Err(Error::parameter("bins to add", by, "too many"));
    };
    let space = Space::real(&[wider], projections.dtype(), projections.device());
    let mut out = space.buffer(batch)?;
    launch(Extend(bins, by), &[projections], &mut [&mut out])?;
    Ok(out.freeze())
}
