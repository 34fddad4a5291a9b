//! Where scans that are not Cartesian sample k-space.

use std::f64::consts::{PI, TAU};

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};

/// A planar trajectory. Its readouts reach the edge of the band that the image resolves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trajectory {
    /// Diameters at equal angles.
    Radial {
        /// Diameters. π/2 times the width of the image samples it fully.
        spokes: usize,
    },
    /// Diameters that each turn by the golden angle π/φ ≈ 111.25°, so that any number of successive ones covers k-space
    /// about evenly (Winkelmann et al. 2007).
    GoldenRadial {
        /// Diameters.
        spokes: usize,
    },
    /// Archimedean spirals from the centre outwards at constant speed, evenly rotated.
    Spiral {
        /// Spirals.
        interleaves: usize,
        /// Revolutions of each. Their product with the interleaves is half the width of the image where it samples it
        /// fully.
        turns: f64,
    },
}

impl Trajectory {
    /// The points (k_y, k_x) in cycles per field of view, [readout · sample, 2], for images of `shape` [y, x] with
    /// `samples` on each readout.
    ///
    /// ```
    /// use wellposed::operator::mri::Trajectory;
    /// let k = Trajectory::Radial { spokes: 100 }.points([64, 64], 128)?;
    /// assert_eq!(k.dims(), [100 * 128, 2]);
    /// assert_eq!(k.get(0)?.to_vec1::<f64>()?, [0.0, -32.0]); // the first spoke starts at the left edge
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where a number is 0 or not finite.
    pub fn points(self, shape: [usize; 2], samples: usize) -> Result<Tensor> {
        let readouts = match self {
            Self::Radial { spokes } | Self::GoldenRadial { spokes } => spokes,
            Self::Spiral { interleaves, turns } => {
                if !(turns > 0.0 && turns.is_finite()) {
                    return Err(Error::parameter("turns", turns, "must be positive and finite"));
                }
                interleaves
            }
        };
        for (name, count) in [("readouts", readouts), ("samples of a readout", samples)] {
            if count == 0 {
                return Err(Error::parameter(name, count, "at least one is needed"));
            }
        }
        let [height, width] = shape.map(|n| n as f64);
        let mut k = Vec::with_capacity(2 * readouts * samples);
        for readout in 0..readouts {
            for sample in 0..samples {
                let (radius, angle) = self.polar(readout, sample as f64 / samples as f64);
                k.extend([radius * height * angle.sin(), radius * width * angle.cos()]);
            }
        }
        Ok(Tensor::from_vec(k, (readouts * samples, 2), &Device::Cpu)?)
    }

    /// The length of one readout in cycles per field of view of a square image of `size` pixels a side: with as many
    /// samples neighbours are one cycle apart.
    pub fn length(self, size: usize) -> f64 {
        let size = size as f64;
        match self {
            Self::Radial { .. } | Self::GoldenRadial { .. } => size,
            Self::Spiral { turns, .. } => 0.5 * size * arc(turns, 1.0),
        }
    }

    /// Radius, ½ at the edge of the band, and angle after the part `t` of a readout.
    fn polar(self, readout: usize, t: f64) -> (f64, f64) {
        match self {
            Self::Radial { spokes } => (t - 0.5, PI * readout as f64 / spokes as f64),
            Self::GoldenRadial { .. } => {
                let golden = PI * (5f64.sqrt() - 1.0) / 2.0;
                (t - 0.5, (golden * readout as f64).rem_euclid(TAU))
            }
            Self::Spiral { interleaves, turns } => {
                let part = at_arc(turns, t);
                (0.5 * part, TAU * (turns * part + readout as f64 / interleaves as f64))
            }
        }
    }
}

/// The length of the spiral r = s, θ = 2π·turns·s up to s: ∫ √(1 + (2π·turns·s)²) ds.
fn arc(turns: f64, s: f64) -> f64 {
    let a = TAU * turns;
    0.5 * (s * (1.0 + (a * s).powi(2)).sqrt() + (a * s).asinh() / a)
}

/// Where the part `t` of the spiral's length is done, by bisection.
fn at_arc(turns: f64, t: f64) -> f64 {
    let wanted = t * arc(turns, 1.0);
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if arc(turns, middle) < wanted { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Real;

    #[test]
    fn readouts_start_and_end_where_they_should_at_constant_speed() {
        let samples = 400;
        let spiral = Trajectory::Spiral { interleaves: 3, turns: 2.5 };
        let k = f64::to_vec(&spiral.points([64, 64], samples).unwrap()).unwrap();
        let step = |i: usize| (k[2 * i + 2] - k[2 * i]).hypot(k[2 * i + 3] - k[2 * i + 1]);
        let even = spiral.length(64) / samples as f64;
        assert!((0..samples - 1).all(|i| (step(i) / even - 1.0).abs() < 0.05));
        assert!(k[0].hypot(k[1]) < 1e-9 && k[2 * samples - 2].hypot(k[2 * samples - 1]) > 31.5);
        assert!(k.iter().all(|k| k.abs() <= 32.0));
        // The second arm is the first one, turned by a third.
        let (x, y) = (k[2 * samples + 200], k[2 * samples + 201]);
        let (sin, cos) = (TAU / 3.0).sin_cos();
        let turned = (k[200] * cos + k[201] * sin, k[201] * cos - k[200] * sin);
        assert!((x - turned.0).hypot(y - turned.1) < 1e-9);
    }

    #[test]
    fn golden_spokes_leave_no_wide_gap() {
        let k = f64::to_vec(&Trajectory::GoldenRadial { spokes: 34 }.points([10, 10], 2).unwrap()).unwrap();
        let mut angles: Vec<f64> = k.chunks(4).map(|k| k[0].atan2(k[1]).rem_euclid(PI)).collect();
        angles.sort_by(f64::total_cmp);
        let widest = angles.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
        assert!(widest < 2.0 * PI / 34.0, "{widest}");
        assert!(Trajectory::Radial { spokes: 0 }.points([8, 8], 8).is_err());
        assert!(Trajectory::Spiral { interleaves: 1, turns: f64::NAN }.points([8, 8], 8).is_err());
    }
}
