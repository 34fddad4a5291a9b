//! Phase retrieval: images from the magnitudes of their Fourier transforms.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use wellposed::io::Grid;
use wellposed::linalg::NonlinearOperator;
use wellposed::operator::{Chain, Curve, Pointwise, phase_retrieval};
use wellposed::prior::Denoiser;
use wellposed::sampler::Problem;
use wellposed::tensor::{Buffer, Space, vector};

use crate::cli::failure::{Failure, Outcome};

/// Zeros around the image, as Chung et al. (2023) count them: 2 makes it half as large again.
const OVERSAMPLING: f64 = 2.0;

/// |F P (x − lowest)| of images x in the prior's range, which begins at `lowest`.
#[derive(Debug)]
pub struct Phase {
    operator: Chain,
    data: Tensor,
    noise: f64,
}

impl Phase {
    /// From magnitudes |F P (u − low)| of images u = low + scale (x − lowest), with the deviation of their noise.
    pub fn new(
        [height, width]: [usize; 2],
        data: &Tensor,
        noise: f64,
        scale: f64,
        lowest: f64,
    ) -> Outcome<Self> {
        let image = Space::real(&[height, width], DType::F32, data.device());
        let shift = Pointwise::new(&image, Curve::Shift { shift: -lowest })?;
        let operator = Chain::new(vec![Arc::new(shift), Arc::new(phase_retrieval(&image, OVERSAMPLING)?)])?;
        let mut data = Buffer::copy_of(data)?;
        vector::accumulate(1.0 / scale, &[], &mut data)?;
        Ok(Self { operator, data: data.freeze(), noise: noise / scale })
    }

    /// What the detector would see of images [slices, height, width] above `low`, without noise.
    pub fn magnitudes(image: &Tensor, low: f64) -> Outcome<Tensor> {
        let space = Space::real(&image.dims()[1..], DType::F32, image.device());
        let shift = Pointwise::new(&space, Curve::Shift { shift: -low })?;
        Ok(phase_retrieval(&space, OVERSAMPLING)?.apply(&shift.apply(image)?)?)
    }

    /// The grid of the image whose magnitudes lie on `found`.
    pub fn target(found: &Grid) -> Outcome<Grid> {
        let [slices, height, width] = found.shape();
        let side = |padded: usize| {
            (1..=padded).find(|n| n + 2 * (OVERSAMPLING * *n as f64 / 8.0) as usize == padded)
        };
        match (side(height), side(width)) {
            (Some(h), Some(w)) => Ok(Grid::centred([slices, h, w], found.spacing())?),
            _ => {
                let found = format!("{height} × {width} magnitudes");
                let reason =
                    "expected half as many again as the image has pixels, say 384 × 384 for 256 × 256";
                Err(Failure::usage("IMAGE", found, reason))
            }
        }
    }

    /// The problem, for a prior of images.
    pub fn problem<'a>(&'a self, prior: &'a dyn Denoiser) -> Outcome<Problem<'a>> {
        Ok(Problem::nonlinear(&self.operator, &self.data, self.noise, prior)?)
    }

    /// In units of the prior.
    pub fn data(&self) -> &Tensor {
        &self.data
    }

    /// In units of the prior.
    pub fn noise(&self) -> f64 {
        self.noise
    }
}
