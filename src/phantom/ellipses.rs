//! Sums of uniform ellipses: pictures of them, and their line integrals in closed form, so that a
//! reconstruction can be tested on data that no projector made.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::operator::ct::{ImageGrid, ParallelBeam, VectorBeam};
use crate::phantom::Ellipsoid;
use crate::tensor::Real;

/// A uniform ellipse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ellipse {
    /// What it adds to the picture inside itself (attenuation in 1/mm, say).
    pub value: f64,
    /// Centre (x, y), mm; y points up.
    pub center: (f64, f64),
    /// Half-axes, mm.
    pub axes: (f64, f64),
    /// Angle of the first axis against x, radians counter-clockwise.
    pub angle: f64,
}

impl Ellipse {
    /// Integral along the line x cos θ + y sin θ = s (Kak and Slaney 1988, section 3.1):
    /// 2 ρ a b √(r² − t²)/r² with r² = a² cos²(θ − α) + b² sin²(θ − α) and t = s − x₀ cos θ − y₀ sin θ.
    pub fn line_integral(&self, theta: f64, s: f64) -> f64 {
        let (r2, t) = self.shadow(theta, s);
        2.0 * self.value * self.axes.0 * self.axes.1 * (r2 - t * t).max(0.0).sqrt() / r2
    }

    /// The mean of the line integrals over a bin [s − width/2, s + width/2], in closed form: the antiderivative
    /// is ρ a b (t √(r² − t²)/r² + arcsin(t/r)).
    pub fn bin_integral(&self, theta: f64, s: f64, width: f64) -> f64 {
        let (r2, t) = self.shadow(theta, s);
        let until = |t: f64| {
            let t = t.clamp(-r2.sqrt(), r2.sqrt());
            t * (r2 - t * t).max(0.0).sqrt() / r2 + (t / r2.sqrt()).clamp(-1.0, 1.0).asin()
        };
        let (a, b) = self.axes;
        self.value * a * b * (until(t + width / 2.0) - until(t - width / 2.0)) / width
    }

    /// Square of the half-width of the shadow, and where s lies from its middle.
    fn shadow(&self, theta: f64, s: f64) -> (f64, f64) {
        let (sin, cos) = theta.sin_cos();
        let t = s - self.center.0 * cos - self.center.1 * sin;
        let (sin, cos) = (theta - self.angle).sin_cos();
        ((self.axes.0 * cos).powi(2) + (self.axes.1 * sin).powi(2), t)
    }

    /// Whether (x, y) lies inside.
    pub fn contains(&self, x: f64, y: f64) -> bool {
        let (sin, cos) = self.angle.sin_cos();
        let (x, y) = (x - self.center.0, y - self.center.1);
        ((x * cos + y * sin) / self.axes.0).powi(2) + ((y * cos - x * sin) / self.axes.1).powi(2) <= 1.0
    }

    /// The largest distance from the centre in y.
    fn reach(&self) -> f64 {
        (self.axes.0 * self.angle.sin()).hypot(self.axes.1 * self.angle.cos())
    }
}

/// A sum of uniform ellipses.
///
/// ```
/// use wellposed::{operator::ct::ImageGrid, phantom::{Ellipse, Ellipses}};
/// let disc = Ellipses(vec![Ellipse { value: 0.02, center: (0.0, 0.0), axes: (50.0, 50.0), angle: 0.0 }]);
/// let picture = disc.picture::<f32>(&ImageGrid::new(64, 64, 2.0)?, 4)?;
/// assert_eq!(picture.get(32)?.get(32)?.to_scalar::<f32>()?, 0.02);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ellipses(pub Vec<Ellipse>);

impl Ellipses {
    /// The sections of ellipsoids at z.
    pub fn section(ellipsoids: &[Ellipsoid], z: f64) -> Self {
        Self(ellipsoids.iter().filter_map(|e| e.section(z)).collect())
    }

    /// The same with all values times `factor`.
    pub fn scaled(mut self, factor: f64) -> Self {
        self.0.iter_mut().for_each(|e| e.value *= factor);
        self
    }

    /// The picture [height, width]: in each pixel the mean over `samples`² points (1 samples pixel centres).
    ///
    /// # Errors
    /// [`Error::Parameter`] where the grid is invalid, an ellipse is degenerate, or `samples` is 0.
    pub fn picture<T: Real>(&self, grid: &ImageGrid, samples: usize) -> Result<Tensor> {
        grid.validate()?;
        self.validate()?;
        if samples == 0 {
            return Err(Error::parameter("samples", 0, "must be at least 1"));
        }
        let mut picture = vec![0f64; grid.height * grid.width];
        picture.par_chunks_mut(grid.width).enumerate().for_each(|(row, line)| {
            for k in 0..samples {
                let y = grid.center_of(row, 0).1 - between(k, samples) * grid.pixel;
                self.0.iter().for_each(|e| scan_line(e, grid, y, samples, line));
            }
        });
        T::tensor(picture.into_iter().map(T::of).collect(), &[grid.height, grid.width])
    }

    /// What an ideal detector sees, [views, bins]: line integrals averaged over the width of each bin, exact, no
    /// projector involved.
    ///
    /// # Errors
    /// [`Error::Parameter`] where the geometry is invalid or an ellipse is degenerate.
    pub fn project<T: Real>(&self, beam: &ParallelBeam) -> Result<Tensor> {
        self.measure::<T>(beam, |e, theta, s| e.bin_integral(theta, s, beam.pitch))
    }

    /// The line integrals [views, bins] through the middle of each bin, exact.
    ///
    /// # Errors
    /// [`Error::Parameter`] where the geometry is invalid or an ellipse is degenerate.
    pub fn line_integrals<T: Real>(&self, beam: &ParallelBeam) -> Result<Tensor> {
        self.measure::<T>(beam, Ellipse::line_integral)
    }

    /// What a detector in the plane sees, [views, bins]: exact line integrals, averaged over `samples` rays to each
    /// bin.
    ///
    /// # Errors
    /// [`Error::Parameter`] where the beam is invalid or has several rows, an ellipse is degenerate, or `samples` is 0.
    pub fn trace<T: Real>(&self, beam: &VectorBeam, samples: usize) -> Result<Tensor> {
        beam.validate()?;
        self.validate()?;
        if beam.rows != 1 || samples == 0 {
            let found = format!("{} rows, {samples} samples", beam.rows);
            return Err(Error::parameter("detector", found, "expected one row, at least one sample"));
        }
        let mut sinogram = vec![T::zero(); beam.views() * beam.bins];
        sinogram.par_chunks_mut(beam.bins).enumerate().for_each(|(view, line)| {
            let [x, y, _] = beam.poses[view].source;
            for (bin, out) in line.iter_mut().enumerate() {
                let rays = (0..samples).map(|k| {
                    let [px, py, _] = beam.place(view, 0.0, bin as f64 + between(k, samples));
                    // The line's normal (cos θ, sin θ), and its distance s from the origin.
                    let theta = (x - px).atan2(py - y);
                    let s = x * theta.cos() + y * theta.sin();
                    self.0.iter().map(|e| e.line_integral(theta, s)).sum::<f64>()
                });
                *out = T::of(rays.sum::<f64>() / samples as f64);
            }
        });
        T::tensor(sinogram, &[beam.views(), beam.bins])
    }

    fn measure<T: Real>(
        &self,
        beam: &ParallelBeam,
        value: impl Fn(&Ellipse, f64, f64) -> f64 + Sync,
    ) -> Result<Tensor> {
        beam.validate()?;
        self.validate()?;
        let mut sinogram = vec![T::zero(); beam.views() * beam.bins];
        sinogram.par_chunks_mut(beam.bins).zip(&beam.angles).for_each(|(line, theta)| {
            for (bin, out) in line.iter_mut().enumerate() {
                *out = T::of(self.0.iter().map(|e| value(e, *theta, beam.position(bin))).sum());
            }
        });
        T::tensor(sinogram, &[beam.views(), beam.bins])
    }

    pub(super) fn validate(&self) -> Result<()> {
        let good = |e: &Ellipse| {
            let all = [e.value, e.center.0, e.center.1, e.axes.0, e.axes.1, e.angle];
            all.iter().all(|v| v.is_finite()) && e.axes.0 > 0.0 && e.axes.1 > 0.0
        };
        match self.0.iter().position(|e| !good(e)) {
            None => Ok(()),
            Some(index) => Err(Error::parameter(
                format!("ellipse {index}"),
                format!("{:?}", self.0[index]),
                "must be finite with positive axes",
            )),
        }
    }
}

/// Offset of sample k of n from the middle of a pixel, in pixels.
pub(super) fn between(k: usize, n: usize) -> f64 {
    (k as f64 + 0.5) / n as f64 - 0.5
}

/// Adds an ellipse's share in the samples of one line at height y.
fn scan_line(e: &Ellipse, grid: &ImageGrid, y: f64, samples: usize, line: &mut [f64]) {
    if (y - e.center.1).abs() > e.reach() {
        return;
    }
    let share = e.value / (samples * samples) as f64;
    let widest = e.axes.0.max(e.axes.1);
    let column = |x: f64| (x / grid.pixel + grid.width as f64 / 2.0).clamp(0.0, grid.width as f64);
    let from = column(e.center.0 - widest).floor() as usize;
    let to = column(e.center.0 + widest).ceil() as usize;
    for (column, out) in line.iter_mut().enumerate().take(to).skip(from) {
        let middle = grid.center_of(0, column).0;
        let inside = (0..samples).filter(|k| e.contains(middle + between(*k, samples) * grid.pixel, y));
        *out += share * inside.count() as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_integrals_are_the_chords() {
        let e = Ellipse { value: 2.0, center: (3.0, -1.0), axes: (4.0, 2.0), angle: 0.0 };
        // θ = 0 looks along y at x = s; the chord through the centre is 2b.
        assert!((e.line_integral(0.0, 3.0) - 8.0).abs() < 1e-12);
        let turned = Ellipse { angle: 0.7, ..e };
        let s = turned.center.0 * 0.7f64.cos() + turned.center.1 * 0.7f64.sin();
        assert!((turned.line_integral(0.7, s + 2.0) - 2.0 * 2.0 * 2.0 * 0.75f64.sqrt()).abs() < 1e-12);
        assert_eq!(turned.line_integral(0.7, s + 4.1), 0.0);
        let fine = 1000;
        let mean: f64 = (0..fine).map(|k| turned.line_integral(0.7, s + 3.0 + 2.0 * between(k, fine))).sum();
        assert!((turned.bin_integral(0.7, s + 3.0, 2.0) - mean / fine as f64).abs() < 1e-4);
    }

    #[test]
    fn the_picture_has_the_right_mass() {
        let e = Ellipses(vec![Ellipse { value: 1.5, center: (7.3, -4.1), axes: (20.0, 9.0), angle: 0.4 }]);
        let grid = ImageGrid::new(90, 120, 0.6).unwrap();
        let sum: f64 = f64::to_vec(&e.picture::<f64>(&grid, 8).unwrap()).unwrap().iter().sum();
        let exact = 1.5 * std::f64::consts::PI * 20.0 * 9.0;
        assert!((sum * 0.36 / exact - 1.0).abs() < 1e-3, "{} {exact}", sum * 0.36);
    }

    #[test]
    fn degenerate_ellipses_are_refused() {
        let e = Ellipses(vec![Ellipse { value: 1.0, center: (0.0, 0.0), axes: (0.0, 1.0), angle: 0.0 }]);
        assert!(e.picture::<f32>(&ImageGrid::new(4, 4, 1.0).unwrap(), 1).is_err());
    }
}
