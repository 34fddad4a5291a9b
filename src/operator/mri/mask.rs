//! Sampling masks: which points of k-space a scan measures.

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::tensor::random::Noise;

/// How samples are placed. Lines are whole columns (all ky at one kx), as in fastMRI; points are single (ky, kx)
/// positions, as in a volume whose readout is the third axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// A fully sampled centre, and other lines with equal probability (fastMRI's random mask, but with exactly
    /// as many lines as the acceleration asks for).
    RandomLines {
        /// Sampled part of the lines that lies in the centre, in [0, 1).
        centre: f64,
    },
    /// A fully sampled centre, and other lines at equal distances, so chosen that centre and others together
    /// meet the acceleration.
    EquispacedLines {
        /// Sampled part of the lines that lies in the centre, in [0, 1).
        centre: f64,
        /// First line, below the distance of lines; drawn from the seed if absent.
        offset: Option<usize>,
    },
    /// A fully sampled centre, and other lines with probability ∝ e^{−k²/2w²}.
    GaussianLines {
        /// Sampled part of the lines that lies in the centre, in [0, 1).
        centre: f64,
        /// w in units of the width of k-space.
        width: f64,
    },
    /// A fully sampled central square, and other points with probability ∝ e^{−|k|²/2w²}.
    GaussianPoints {
        /// Side of the square in samples.
        calibration: usize,
        /// w in units of the width of k-space.
        width: f64,
    },
    /// A fully sampled central square, and points that keep a distance r(k) = r₀ (1 + growth · |k|/k_max) from
    /// each other; r₀ is found from the acceleration. Low frequencies are denser, and no gaps are wide.
    PoissonDisc {
        /// Side of the square in samples.
        calibration: usize,
        /// Growth of the distance from the centre to the edge; 0 has uniform density.
        growth: f64,
        /// Whether to sample the corners outside the ellipse that touches the edges of k-space.
        corners: bool,
    },
}

/// A reproducible choice of k-space samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// How samples are placed.
    pub pattern: Pattern,
    /// All points over sampled points, ≥ 1, the centre included.
    pub acceleration: f64,
    /// Seed of the draw.
    pub seed: u64,
}

impl Default for Sampling {
    /// Random lines at acceleration 4 with 8 % of all lines in the centre, as in fastMRI.
    fn default() -> Self {
        Self { pattern: Pattern::RandomLines { centre: 0.08 }, acceleration: 4.0, seed: 0 }
    }
}

impl Sampling {
    /// The mask [ky, kx], f32: 1 where sampled and 0 elsewhere. The number of samples (of lines) is that of all
    /// points (lines) over the acceleration, rounded; equispaced lines may miss it by what rounding their
    /// positions costs.
    ///
    /// ```
    /// use wellposed::operator::mri::{Pattern, Sampling};
    /// let pattern = Pattern::PoissonDisc { calibration: 12, growth: 2.0, corners: false };
    /// let mask = Sampling { pattern, acceleration: 6.0, seed: 1 }.draw([96, 96])?;
    /// assert_eq!(mask.sum_all()?.to_scalar::<f32>()?, 96.0 * 96.0 / 6.0);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where the acceleration is below 1 or beyond what the shape allows, where the centre
    /// alone has more samples than that, or where a width or growth is out of range.
    pub fn draw(&self, shape: [usize; 2]) -> Result<Tensor> {
        if shape.contains(&0) {
            return Err(Error::shape("sampling mask", "[ky, kx] with at least one sample each", &shape));
        }
        let r = self.acceleration;
        let values = match self.pattern {
            Pattern::RandomLines { centre } => {
                self.lines(shape, centre, |wanted, free| Ok(self.weighted(wanted, free, |_| 0.0)))?
            }
            Pattern::GaussianLines { centre, width } => {
                positive("width of the Gaussian", width)?;
                let middle = (shape[1] / 2) as f64;
                let exponent = |k: usize| -0.5 * ((k as f64 - middle) / (width * shape[1] as f64)).powi(2);
                self.lines(shape, centre, |wanted, free| Ok(self.weighted(wanted, free, exponent)))?
            }
            Pattern::EquispacedLines { centre, offset } => {
                self.lines(shape, centre, |wanted, free| self.equispaced(wanted, free, shape[1], offset))?
            }
            Pattern::GaussianPoints { calibration, width } => {
                positive("width of the Gaussian", width)?;
                let (mut mask, wanted) = self.square(shape, calibration)?;
                let free: Vec<usize> = (0..mask.len()).filter(|i| !mask[*i]).collect();
                let exponent = |i: usize| -2.0 * radius_squared(i, shape) * (0.25 / width).powi(2);
                self.weighted(wanted, &free, exponent).into_iter().for_each(|i| mask[i] = true);
                mask
            }
            Pattern::PoissonDisc { calibration, growth, corners } => {
                if !(growth >= 0.0 && growth.is_finite()) {
                    return Err(Error::parameter("growth of the distance", growth, "must be at least 0"));
                }
                let (mask, wanted) = self.square(shape, calibration)?;
                self.poisson(shape, &mask, wanted, growth, corners).ok_or_else(|| {
                    let reason =
                        "k-space without its corners has fewer samples than this acceleration asks for";
                    Error::parameter("acceleration", r, reason)
                })?
            }
        };
        let values: Vec<f32> = values.into_iter().map(|sampled| f32::from(u8::from(sampled))).collect();
        Ok(Tensor::from_vec(values, (shape[0], shape[1]), &Device::Cpu)?)
    }

    fn noise(&self) -> Noise {
        Noise::new(self.seed, 0x6d61_736b)
    }

    /// How many of `count` to sample.
    fn wanted(&self, count: usize) -> Result<usize> {
        let r = self.acceleration;
        if !(r >= 1.0 && r <= count as f64) {
            return Err(Error::parameter("acceleration", r, format!("must lie between 1 and {count}")));
        }
        Ok((count as f64 / r).round() as usize)
    }

    /// A mask of whole columns: the centre and what `choose(how many, from which)` adds.
    fn lines(
        &self,
        [height, width]: [usize; 2],
        centre: f64,
        choose: impl FnOnce(usize, &[usize]) -> Result<Vec<usize>>,
    ) -> Result<Vec<bool>> {
        if !(0.0..1.0).contains(&centre) {
            return Err(Error::parameter("centre fraction", centre, "must be at least 0 and below 1"));
        }
        let wanted = self.wanted(width)?;
        let middle = (width as f64 * centre).round() as usize;
        let Some(others) = wanted.checked_sub(middle) else {
            let reason =
                format!("{middle} centre lines are more than the {wanted} of {width} at this acceleration");
            return Err(Error::parameter("centre fraction", centre, reason));
        };
        let mut row = vec![false; width];
        let first = (width - middle).div_ceil(2);
        row[first..first + middle].fill(true);
        let free: Vec<usize> = (0..width).filter(|k| !row[*k]).collect();
        choose(others, &free)?.into_iter().for_each(|k| row[k] = true);
        Ok(row.repeat(height))
    }

    /// `wanted` of `free` without repetition, with probabilities ∝ e^{exponent} (Efraimidis and Spirakis 2006).
    fn weighted(&self, wanted: usize, free: &[usize], exponent: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut keys: Vec<(f64, usize)> = free
            .iter()
            // The key ln(u)/w, on a logarithmic scale so that small weights don't underflow.
            .map(|&i| ((-self.noise().uniform(i as u64).ln()).ln() - exponent(i), i))
            .collect();
        keys.sort_by(|a, b| a.0.total_cmp(&b.0));
        keys.into_iter().take(wanted).map(|(_, i)| i).collect()
    }

    fn equispaced(
        &self,
        wanted: usize,
        free: &[usize],
        width: usize,
        offset: Option<usize>,
    ) -> Result<Vec<usize>> {
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let distance = free.len() as f64 / wanted as f64;
        let start = match offset {
            Some(offset) if (offset as f64) < distance => offset as f64,
            Some(offset) => {
                let reason = format!("must be below the distance of lines, {distance:.2}");
                return Err(Error::parameter("offset of equispaced lines", offset, reason));
            }
            None => self.noise().uniform(0) * distance,
        };
        let lines = (0..).map(|i| (start + f64::from(i) * distance).floor() as usize);
        Ok(lines.take_while(|k| *k < width).collect())
    }

    /// A mask with the central square only, and how many samples are wanted besides.
    fn square(&self, shape: [usize; 2], side: usize) -> Result<(Vec<bool>, usize)> {
        let count = shape[0] * shape[1];
        let wanted = self.wanted(count)?;
        let sides = shape.map(|n| side.min(n));
        let Some(others) = wanted.checked_sub(sides[0] * sides[1]) else {
            let reason = format!("its samples are more than the {wanted} of {count} at this acceleration");
            return Err(Error::parameter("calibration square", side, reason));
        };
        let inside = |k: usize, axis: usize| {
            let first = (shape[axis] - sides[axis]).div_ceil(2);
            (first..first + sides[axis]).contains(&k)
        };
        Ok(((0..count).map(|i| inside(i / shape[1], 0) && inside(i % shape[1], 1)).collect(), others))
    }

    /// The square and `wanted` more points that keep their distance, or nothing where even dense sampling has
    /// too few.
    fn poisson(
        &self,
        shape: [usize; 2],
        square: &[bool],
        wanted: usize,
        growth: f64,
        corners: bool,
    ) -> Option<Vec<bool>> {
        let radius: Vec<f64> = (0..square.len()).map(|i| radius_squared(i, shape).sqrt()).collect();
        let mut order: Vec<(u64, usize)> = (0..square.len())
            .filter(|&i| !square[i] && (corners || radius[i] <= 1.0))
            .map(|i| (self.noise().uniform(i as u64).to_bits(), i))
            .collect();
        order.sort_unstable();
        let throw = |r0: f64| {
            let distance = |i: usize| r0 * (1.0 + growth * radius[i]);
            throw_darts(shape, square, order.iter().map(|(_, i)| *i), distance, wanted)
        };
        // The count falls as r₀ grows; the largest r₀ with enough points fills k-space most evenly.
        let (mut enough, mut low, mut high) = (throw(0.0)?, 0.0, 2.0 * self.acceleration.sqrt());
        for _ in 0..16 {
            let middle = 0.5 * (low + high);
            match throw(middle) {
                Some(mask) => (enough, low) = (mask, middle),
                None => high = middle,
            }
        }
        Some(enough)
    }
}

/// Accepts candidates in order, if nothing accepted before is nearer than the candidate's distance, until
/// `wanted` are accepted; nothing if they don't come together. The square does not repel.
fn throw_darts(
    [height, width]: [usize; 2],
    square: &[bool],
    candidates: impl Iterator<Item = usize>,
    distance: impl Fn(usize) -> f64,
    wanted: usize,
) -> Option<Vec<bool>> {
    let (mut mask, mut taken) = (square.to_vec(), vec![false; square.len()]);
    let mut left = wanted;
    for i in candidates {
        if left == 0 {
            break;
        }
        let (y, x, r) = (i / width, i % width, distance(i));
        let reach = r as usize;
        let near = (y.saturating_sub(reach)..(y + reach + 1).min(height)).any(|v| {
            let dy = v.abs_diff(y) as f64;
            let span = (r * r - dy * dy).max(0.0).sqrt();
            (x.saturating_sub(span as usize)..(x + span as usize + 1).min(width)).any(|u| {
                let dx = u.abs_diff(x) as f64;
                taken[v * width + u] && dx * dx + dy * dy < r * r
            })
        });
        if !near {
            (mask[i], taken[i]) = (true, true);
            left -= 1;
        }
    }
    (left == 0).then_some(mask)
}

/// Squared distance of point i from the centre, in units of half of k-space along each axis.
fn radius_squared(i: usize, [height, width]: [usize; 2]) -> f64 {
    let part = |k: usize, n: usize| (k as f64 - (n / 2) as f64) / (0.5 * n as f64);
    part(i / width, height).powi(2) + part(i % width, width).powi(2)
}

fn positive(name: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::parameter(name, value, "must be positive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Pattern; 5] = [
        Pattern::RandomLines { centre: 0.08 },
        Pattern::EquispacedLines { centre: 0.04, offset: None },
        Pattern::GaussianLines { centre: 0.06, width: 0.2 },
        Pattern::GaussianPoints { calibration: 16, width: 0.2 },
        Pattern::PoissonDisc { calibration: 20, growth: 1.5, corners: false },
    ];

    fn draw(pattern: Pattern, acceleration: f64, seed: u64, shape: [usize; 2]) -> Vec<Vec<f32>> {
        Sampling { pattern, acceleration, seed }.draw(shape).unwrap().to_vec2().unwrap()
    }

    fn count(mask: &[Vec<f32>]) -> f64 {
        mask.iter().flatten().map(|v| f64::from(*v)).sum()
    }

    #[test]
    fn meets_the_acceleration_and_follows_the_seed() {
        for pattern in ALL {
            for (r, shape) in [(4.0, [120, 160]), (6.5, [97, 131]), (2.0, [64, 64])] {
                let mask = draw(pattern, r, 3, shape);
                let actual = (shape[0] * shape[1]) as f64 / count(&mask);
                assert!((actual / r - 1.0).abs() < 0.05, "{pattern:?}: {actual} instead of {r}");
                assert_eq!(mask, draw(pattern, r, 3, shape));
                assert_ne!(mask, draw(pattern, r, 4, shape), "{pattern:?}");
            }
        }
    }

    #[test]
    fn centres_are_full_and_centred() {
        let mask = draw(ALL[0], 4.0, 1, [10, 100]);
        assert!(mask.iter().all(|row| row[46..54].iter().all(|v| *v == 1.0) && *row == mask[0]));
        for pattern in &ALL[3..] {
            let mask = draw(*pattern, 5.0, 1, [128, 128]);
            assert!(mask[56..72].iter().all(|row| row[56..72].iter().all(|v| *v == 1.0)));
        }
    }

    #[test]
    fn poisson_points_keep_their_distance_and_thin_out() {
        let pattern = Pattern::PoissonDisc { calibration: 0, growth: 1.0, corners: true };
        let mask = draw(pattern, 8.0, 5, [128, 128]);
        let points: Vec<(i32, i32)> = (0..128)
            .flat_map(|y| (0..128).map(move |x| (y, x)))
            .filter(|&(y, x)| mask[y as usize][x as usize] > 0.0)
            .collect();
        let nearest = |p: &(i32, i32)| {
            let squares = points.iter().map(|q| (p.0 - q.0).pow(2) + (p.1 - q.1).pow(2));
            f64::from(squares.filter(|d| *d > 0).min().unwrap_or(0)).sqrt()
        };
        let mean = |far: bool| {
            let part: Vec<f64> = points
                .iter()
                .filter(|p| ((p.0 - 64).pow(2) + (p.1 - 64).pow(2) > 48 * 48) == far)
                .map(nearest)
                .collect();
            part.iter().sum::<f64>() / part.len() as f64
        };
        assert!(points.iter().map(nearest).fold(f64::MAX, f64::min) >= 1.4, "neighbouring points");
        assert!(mean(true) > 1.15 * mean(false), "{} against {}", mean(true), mean(false));
    }

    #[test]
    fn refuses_the_impossible() {
        let fails = |pattern, acceleration, shape| {
            let error = Sampling { pattern, acceleration, seed: 0 }.draw(shape).unwrap_err();
            assert!(matches!(error, Error::Parameter { .. } | Error::Shape { .. }), "{error}");
        };
        fails(Pattern::RandomLines { centre: 0.3 }, 4.0, [64, 64]);
        fails(Pattern::RandomLines { centre: 0.1 }, 0.5, [64, 64]);
        fails(Pattern::RandomLines { centre: 0.1 }, f64::NAN, [64, 64]);
        fails(Pattern::RandomLines { centre: 0.1 }, 2.0, [64, 0]);
        fails(Pattern::EquispacedLines { centre: 0.0, offset: Some(4) }, 4.0, [64, 64]);
        fails(Pattern::GaussianPoints { calibration: 40, width: 0.2 }, 4.0, [64, 64]);
        fails(Pattern::GaussianLines { centre: 0.0, width: 0.0 }, 4.0, [64, 64]);
        fails(Pattern::PoissonDisc { calibration: 0, growth: 0.0, corners: false }, 1.0, [64, 64]);
    }
}
