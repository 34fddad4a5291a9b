//! The head phantom of Shepp and Logan (1974), "The Fourier reconstruction of a head section".

use crate::phantom::{Ellipse, Ellipses, Ellipsoid};

/// The values of the ten ellipses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contrast {
    /// Those of the paper: skull 2, brain 1.02, lesions of 1 %.
    Original,
    /// Those of Toft (1996), which one can see: skull 1, brain .2, lesions of .1.
    #[default]
    Modified,
}

const ORIGINAL: [f64; 10] = [2.0, -0.98, -0.02, -0.02, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01];
const MODIFIED: [f64; 10] = [1.0, -0.8, -0.2, -0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1];

/// Half-axes a, b, c; centre x, y, z; angle in degrees: in units of the picture's half side. The third dimension
/// is that in use since Kak and Slaney (1988), table 3.2.
const SHAPES: [[f64; 7]; 10] = [
    [0.69, 0.92, 0.81, 0.0, 0.0, 0.0, 0.0],
    [0.6624, 0.874, 0.78, 0.0, -0.0184, 0.0, 0.0],
    [0.11, 0.31, 0.22, 0.22, 0.0, 0.0, -18.0],
    [0.16, 0.41, 0.28, -0.22, 0.0, 0.0, 18.0],
    [0.21, 0.25, 0.41, 0.0, 0.35, -0.15, 0.0],
    [0.046, 0.046, 0.05, 0.0, 0.1, 0.25, 0.0],
    [0.046, 0.046, 0.05, 0.0, -0.1, 0.25, 0.0],
    [0.046, 0.023, 0.05, -0.08, -0.605, 0.0, 0.0],
    [0.023, 0.023, 0.02, 0.0, -0.606, 0.0, 0.0],
    [0.023, 0.046, 0.02, 0.06, -0.605, 0.0, 0.0],
];

/// The head section in a field of ±`radius` mm.
///
/// ```
/// use wellposed::{operator::ct::ImageGrid, phantom::{Contrast, shepp_logan}};
/// let head = shepp_logan(Contrast::Modified, 128.0).picture::<f32>(&ImageGrid::new(256, 256, 1.0)?, 4)?;
/// assert!((head.get(128)?.get(128)?.to_scalar::<f32>()? - 0.2).abs() < 1e-6);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
pub fn shepp_logan(contrast: Contrast, radius: f64) -> Ellipses {
    Ellipses(shepp_logan_3d(contrast, radius).into_iter().map(|e| e.middle).collect())
}

/// The head in a field of ±`radius` mm: slices of it are [`Ellipses::section`].
///
/// ```
/// use wellposed::phantom::{Contrast, Ellipses, shepp_logan_3d};
/// let head = shepp_logan_3d(Contrast::Modified, 128.0);
/// assert_eq!(Ellipses::section(&head, 120.0).0.len(), 0);
/// ```
pub fn shepp_logan_3d(contrast: Contrast, radius: f64) -> Vec<Ellipsoid> {
    let values = if contrast == Contrast::Original { ORIGINAL } else { MODIFIED };
    SHAPES
        .iter()
        .zip(values)
        .map(|([a, b, c, x, y, z, degrees], value)| Ellipsoid {
            middle: Ellipse {
                value,
                center: (x * radius, y * radius),
                axes: (a * radius, b * radius),
                angle: degrees.to_radians(),
            },
            z: z * radius,
            height: c * radius,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::linalg::LinearOperator;
    use crate::operator::ct::{ImageGrid, ParallelBeam, RayTransform};
    use crate::testing::relative_difference;

    /// The projector's error against the exact integrals over each bin.
    fn error(side: usize, views: usize, bins: usize) -> f64 {
        let grid = ImageGrid::new(side, side, 1.0).unwrap();
        let angles = (0..views).map(|i| PI * i as f64 / views as f64).collect();
        let beam = ParallelBeam::new(angles, bins, 1.0).unwrap();
        let head = shepp_logan(Contrast::Modified, side as f64 / 2.0);
        let transform = RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu).unwrap();
        let found: Tensor = transform.apply(&head.picture::<f32>(&grid, 8).unwrap()).unwrap();
        relative_difference(&found, &head.project::<f32>(&beam).unwrap()).unwrap()
    }

    #[test]
    fn projections_meet_the_closed_form() {
        let (small, large) = (error(256, 90, 367), error(512, 90, 729));
        println!("relative error against exact bins: 256² {small:.5}, 512² {large:.5}");
        assert!(small < 0.008 && large < 0.004, "{small} {large}");
    }
}
