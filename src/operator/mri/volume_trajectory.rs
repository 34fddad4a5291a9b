//! Where scans of volumes that are not Cartesian sample k-space.

use std::f64::consts::{PI, TAU};

use candle_core::{Device, Tensor};

use super::Trajectory;
use crate::error::{Error, Result};
use crate::tensor::Real;

/// A trajectory through three dimensions. Its readouts reach the edge of the band that the volume resolves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VolumeTrajectory {
    /// Diameters of a ball, evenly spread: on a Fibonacci lattice from the equator to the pole (Swinbank and Purser 2006).
    Radial {
        /// Diameters. π/2 times the squared width of the volume samples it fully.
        spokes: usize,
    },
    /// Diameters of a ball that turn by the golden means, so that any number of successive ones is spread about evenly (Chan
    /// et al. 2009).
    GoldenMeans {
        /// Diameters.
        spokes: usize,
    },
    /// A planar trajectory at each whole kz: a stack of stars, where it is radial.
    Stack {
        /// What every plane is sampled along.
        plane: Trajectory,
    },
}

impl VolumeTrajectory {
    /// The points (k_z, k_y, k_x) in cycles per field of view, [readout · sample, 3], for volumes of `shape` [z, y, x] with
    /// `samples` on each readout; those of a stack plane by plane.
    ///
    /// ```
    /// use wellposed::operator::mri::VolumeTrajectory;
    /// let k = VolumeTrajectory::GoldenMeans { spokes: 500 }.points([16, 32, 32], 64)?;
    /// assert_eq!(k.dims(), [500 * 64, 3]);
    /// assert_eq!(k.get(0)?.to_vec1::<f64>()?, [0.0, 0.0, -16.0]); // the first spoke lies along x
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where a number is 0 or not finite.
    pub fn points(self, shape: [usize; 3], samples: usize) -> Result<Tensor> {
        let [depth, height, width] = shape;
        let spokes = match self {
            Self::Radial { spokes } | Self::GoldenMeans { spokes } => spokes,
            Self::Stack { plane } => {
                let points = f64::to_vec(&plane.points([height, width], samples)?)?;
                let planes = (0..depth).map(|z| z as f64 - (depth / 2) as f64);
                let stacked: Vec<f64> = planes
                    .flat_map(|kz| points.chunks_exact(2).flat_map(move |k| [kz, k[0], k[1]]))
                    .collect();
                let count = stacked.len() / 3;
                return Ok(Tensor::from_vec(stacked, (count, 3), &Device::Cpu)?);
            }
        };
        for (name, count) in [("readouts", spokes), ("samples of a readout", samples)] {
            if count == 0 {
                return Err(Error::parameter(name, count, "at least one is needed"));
            }
        }
        let size = [depth, height, width].map(|n| n as f64);
        let mut k = Vec::with_capacity(3 * spokes * samples);
        for spoke in 0..spokes {
            let direction = self.direction(spoke, spokes);
            for sample in 0..samples {
                let t = sample as f64 / samples as f64 - 0.5;
                (0..3).for_each(|axis| k.push(t * size[axis] * direction[axis]));
            }
        }
        Ok(Tensor::from_vec(k, (spokes * samples, 3), &Device::Cpu)?)
    }

    /// The unit vector (z, y, x) of a diameter in the upper half of the ball.
    fn direction(self, spoke: usize, spokes: usize) -> [f64; 3] {
        let i = spoke as f64;
        let (z, azimuth) = match self {
            // The two-dimensional golden means: 1/β and 1/β² with β³ = β² + 1.
            Self::GoldenMeans { .. } => {
                ((i * 0.465_571_231_876_768).fract(), TAU * (i * 0.682_327_803_828_019_3).fract())
            }
            _ => ((i + 0.5) / spokes as f64, i * PI * (3.0 - 5f64.sqrt())),
        };
        let r = (1.0 - z * z).sqrt();
        [z, r * azimuth.sin(), r * azimuth.cos()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(trajectory: VolumeTrajectory, samples: usize) -> Vec<f64> {
        f64::to_vec(&trajectory.points([20, 20, 20], samples).unwrap()).unwrap()
    }

    #[test]
    fn diameters_fill_the_ball_evenly() {
        let spokes = 600;
        for trajectory in [VolumeTrajectory::Radial { spokes }, VolumeTrajectory::GoldenMeans { spokes }] {
            // The first sample of two lies on the surface, at radius 10, the second in the centre.
            let ends: Vec<[f64; 3]> =
                points(trajectory, 2).chunks_exact(6).map(|k| [k[0], k[1], k[2]].map(|v| v / 10.0)).collect();
            assert!(ends.iter().all(|e| (e.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-12));
            // Of points spread evenly over a sphere the second moment is a third of the identity.
            for (a, b) in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)] {
                let moment = ends.iter().map(|e| e[a] * e[b]).sum::<f64>() / spokes as f64;
                let expected = if a == b { 1.0 / 3.0 } else { 0.0 };
                assert!((moment - expected).abs() < 0.01, "{trajectory:?} {a} {b}: {moment}");
            }
            // A height stands for the zone about it.
            if let VolumeTrajectory::Radial { .. } = trajectory {
                let height = ends.iter().map(|e| e[0].abs()).sum::<f64>() / spokes as f64;
                assert!((height - 0.5).abs() < 1e-12, "{height}");
            }
            // Each has a neighbour about as near as in a hexagonal lattice, and none is much nearer.
            let nearest = |e: &[f64; 3]| {
                let angle = |o: &[f64; 3]| (0..3).map(|a| e[a] * o[a]).sum::<f64>().abs().min(1.0).acos();
                ends.iter().filter(|o| *o != e).map(angle).fold(f64::MAX, f64::min)
            };
            let lattice = (4.0 * PI / 3f64.sqrt() / spokes as f64).sqrt();
            let gaps: Vec<f64> = ends.iter().map(nearest).collect();
            let least = gaps.iter().copied().fold(f64::MAX, f64::min);
            assert!(gaps.iter().all(|g| *g < 1.1 * lattice) && least > 0.1 * lattice, "{least} {lattice}");
        }
    }

    #[test]
    fn stacks_hold_a_plane_at_each_kz() {
        let plane = Trajectory::Radial { spokes: 3 };
        let k = points(VolumeTrajectory::Stack { plane }, 4);
        assert_eq!(k.len(), 3 * 20 * 12);
        assert_eq!([k[0], k[3 * 12], k[3 * 12 * 19]], [-10.0, -9.0, 9.0]);
        assert_eq!(k[3 * 5 + 1..3 * 5 + 3], k[3 * 17 + 1..3 * 17 + 3]);
        assert!(VolumeTrajectory::Radial { spokes: 0 }.points([4, 4, 4], 4).is_err());
        assert!(VolumeTrajectory::Stack { plane }.points([4, 4, 4], 0).is_err());
    }
}
