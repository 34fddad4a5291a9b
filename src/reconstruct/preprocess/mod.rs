//! From what a detector counts to line integrals that reconstruct well: flat field and logarithm, defects, rings, centre
//! of rotation, beam hardening, edges.
//!
//! Counts are [view, row, column], as detectors give them; line integrals and sinograms are [row, view, column], as
//! ray transforms want them.

mod center;
mod defects;
mod edges;
mod flat_field;
mod hardening;
mod rings;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tensor::{Buffer, Kernel, Real, launch, vector};

pub use center::{center_by_image, center_by_sinogram, center_to_offset};
pub use defects::Outliers;
pub use edges::extend_edges;
pub use flat_field::{FlatField, LineIntegrals};
pub use hardening::BeamHardening;
pub use rings::Rings;

/// A copy of sinograms [batch…, views, bins] with `change(sinogram)` done to each in double precision.
///
/// # Errors
/// [`Error::Shape`] where there are no axes of views and bins, [`Error::NotFinite`].
fn each_sinogram(name: &str, x: &Tensor, change: impl Fn(&mut Sinogram) + Sync) -> Result<Tensor> {
    struct Each<F>(usize, usize, F);
    impl<F: Fn(&mut Sinogram) + Sync> Kernel for Each<F> {
        type Output = ();
        fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let Self(views, bins, change) = self;
            outputs[0].par_chunks_mut(views * bins).for_each(|x| {
                let values = x.iter().map(|v| v.as_f64()).collect();
                let mut sinogram = Sinogram { views, bins, values };
                change(&mut sinogram);
                x.iter_mut().zip(sinogram.values).for_each(|(x, v)| *x = T::of(v));
            });
            Ok(())
        }
    }
    let &[.., views, bins] = x.dims() else {
        return Err(Error::shape(name, "[…, views, bins]", x.dims()));
    };
    if x.elem_count() == 0 {
        return Err(Error::shape(name, "at least one view and bin", x.dims()));
    }
    vector::require_finite(name, x)?;
    let mut out = Buffer::copy_of(x)?;
    launch(Each(views, bins, change), &[], &mut [&mut out])?;
    Ok(out.freeze())
}

/// One sinogram, view by view.
struct Sinogram {
    views: usize,
    bins: usize,
    values: Vec<f64>,
}

/// The middle one of some values, the lower of the two middle ones of an even number.
fn median(values: &mut [f64]) -> f64 {
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}
