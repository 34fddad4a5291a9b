//! Sums of uniform ellipsoids: volumes of them, and their line integrals in closed form along any rays.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::operator::ct::{VectorBeam, VolumeGrid};
use crate::phantom::{Ellipse, Ellipses};
use crate::tensor::Real;

/// A uniform ellipsoid with one axis along z.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ellipsoid {
    /// The section through its centre.
    pub middle: Ellipse,
    /// z of the centre, mm.
    pub z: f64,
    /// Half-axis along z, mm.
    pub height: f64,
}

impl Ellipsoid {
    /// The section at z, if they meet.
    pub fn section(&self, z: f64) -> Option<Ellipse> {
        let square = 1.0 - ((z - self.z) / self.height).powi(2);
        let scale = (square > 0.0).then(|| square.sqrt())?;
        Some(Ellipse { axes: (self.middle.axes.0 * scale, self.middle.axes.1 * scale), ..self.middle })
    }

    /// Integral along the line through two points (x, y, z), mm: in coordinates in which the ellipsoid is the unit
    /// ball, |p + t d|² = 1 has the solutions t₁, t₂, and the chord is ρ |t₂ − t₁| times the distance of the points.
    ///
    /// ```
    /// use wellposed::phantom::{Ellipse, Ellipsoid};
    /// let middle = Ellipse { value: 0.5, center: (0.0, 0.0), axes: (3.0, 2.0), angle: 0.0 };
    /// let egg = Ellipsoid { middle, z: 0.0, height: 4.0 };
    /// assert_eq!(egg.line_integral([0.0, 0.0, -9.0], [0.0, 0.0, 1.0]), 4.0);
    /// ```
    pub fn line_integral(&self, from: [f64; 3], to: [f64; 3]) -> f64 {
        let Ellipse { value, center, axes, angle } = self.middle;
        let (sin, cos) = angle.sin_cos();
        let unit = |x: f64, y: f64, z: f64| {
            [(x * cos + y * sin) / axes.0, (y * cos - x * sin) / axes.1, z / self.height]
        };
        let d: [f64; 3] = std::array::from_fn(|a| to[a] - from[a]);
        let (p, q) = (unit(from[0] - center.0, from[1] - center.1, from[2] - self.z), unit(d[0], d[1], d[2]));
        let dot = |a: &[f64; 3], b: &[f64; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (qq, pq) = (dot(&q, &q), dot(&p, &q));
        let square = pq * pq - qq * (dot(&p, &p) - 1.0);
        2.0 * value * square.max(0.0).sqrt() / qq * dot(&d, &d).sqrt()
    }
}

/// A sum of uniform ellipsoids.
///
/// ```
/// use wellposed::{operator::ct::{ImageGrid, VolumeGrid}, phantom::{Contrast, Ellipsoids, shepp_logan_3d}};
/// let head = Ellipsoids(shepp_logan_3d(Contrast::Modified, 16.0));
/// let grid = VolumeGrid::new(32, ImageGrid::new(32, 32, 1.0)?, 1.0)?;
/// assert_eq!(head.volume::<f32>(&grid, 2)?.dims(), [32, 32, 32]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ellipsoids(pub Vec<Ellipsoid>);

impl Ellipsoids {
    /// The same with all values times `factor`.
    pub fn scaled(mut self, factor: f64) -> Self {
        self.0.iter_mut().for_each(|e| e.middle.value *= factor);
        self
    }

    /// The volume [slices, height, width]: in each voxel the mean over `samples`³ points.
    ///
    /// # Errors
    /// [`Error::Parameter`] where the grid is invalid, an ellipsoid is degenerate, or `samples` is 0.
    pub fn volume<T: Real>(&self, grid: &VolumeGrid, samples: usize) -> Result<Tensor> {
        grid.validate()?;
        self.validate()?;
        if samples == 0 {
            return Err(Error::parameter("samples", 0, "must be at least 1"));
        }
        let slice = |k: usize| -> Result<Vec<T>> {
            let mut sum = vec![0.0; grid.image.height * grid.image.width];
            for sample in 0..samples {
                let z = grid.z_of(k) + super::ellipses::between(sample, samples) * grid.thickness;
                let picture = Ellipses::section(&self.0, z).picture::<f64>(&grid.image, samples)?;
                sum.iter_mut().zip(f64::to_vec(&picture)?).for_each(|(s, p)| *s += p / samples as f64);
            }
            Ok(sum.into_iter().map(T::of).collect())
        };
        let slices = (0..grid.slices).into_par_iter().map(slice).collect::<Result<Vec<_>>>()?;
        T::tensor(slices.concat(), &[grid.slices, grid.image.height, grid.image.width])
    }

    /// What a detector sees, [rows, views, bins]: exact line integrals, averaged over `samples`² rays to each pixel.
    ///
    /// # Errors
    /// [`Error::Parameter`] where the beam is invalid, an ellipsoid is degenerate, or `samples` is 0.
    pub fn trace<T: Real>(&self, beam: &VectorBeam, samples: usize) -> Result<Tensor> {
        beam.validate()?;
        self.validate()?;
        if samples == 0 {
            return Err(Error::parameter("samples", 0, "must be at least 1"));
        }
        let between = |k| super::ellipses::between(k, samples);
        let mut out = vec![T::zero(); beam.rows * beam.views() * beam.bins];
        out.par_chunks_mut(beam.bins).enumerate().for_each(|(line, out)| {
            let (row, view) = (line / beam.views(), line % beam.views());
            for (bin, out) in out.iter_mut().enumerate() {
                let rays = (0..samples * samples).map(|k| {
                    let (i, j) = (row as f64 + between(k / samples), bin as f64 + between(k % samples));
                    let (from, to) = (beam.poses[view].source, beam.place(view, i, j));
                    self.0.iter().map(|e| e.line_integral(from, to)).sum::<f64>()
                });
                *out = T::of(rays.sum::<f64>() / (samples * samples) as f64);
            }
        });
        T::tensor(out, &[beam.rows, beam.views(), beam.bins])
    }

    fn validate(&self) -> Result<()> {
        let good = |e: &Ellipsoid| e.z.is_finite() && e.height.is_finite() && e.height > 0.0;
        match self.0.iter().position(|e| !good(e)) {
            None => Ellipses(self.0.iter().map(|e| e.middle).collect()).validate(),
            Some(index) => Err(Error::parameter(
                format!("ellipsoid {index}"),
                format!("{:?}", self.0[index]),
                "must be finite with positive axes",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::ct::ImageGrid;

    fn egg() -> Ellipsoid {
        let middle = Ellipse { value: 2.0, center: (3.0, -1.0), axes: (4.0, 2.0), angle: 0.7 };
        Ellipsoid { middle, z: 1.5, height: 5.0 }
    }

    #[test]
    fn chords_agree_with_those_of_the_sections() {
        // In the plane of a section the chord is the section's.
        for (z, theta, s) in [(1.5, 0.3, 2.0), (4.0, 2.0, -1.5), (-2.5, 5.0, 0.4), (9.0, 0.3, 2.0)] {
            let (sin, cos) = f64::sin_cos(theta);
            let at = |t: f64| [s * cos - t * sin, s * sin + t * cos, z];
            let expected = egg().section(z).map_or(0.0, |e| e.line_integral(theta, s));
            let found = egg().line_integral(at(-20.0), at(5.0));
            assert!((found - expected).abs() < 1e-12, "{z} {theta}: {found} {expected}");
        }
    }

    #[test]
    fn the_volume_has_the_right_mass() {
        let grid = VolumeGrid::new(30, ImageGrid::new(40, 40, 0.4).unwrap(), 0.5).unwrap();
        let sum: f64 =
            f64::to_vec(&Ellipsoids(vec![egg()]).volume::<f64>(&grid, 4).unwrap()).unwrap().iter().sum();
        let exact = 2.0 * 4.0 / 3.0 * std::f64::consts::PI * 4.0 * 2.0 * 5.0;
        assert!((sum * 0.4 * 0.4 * 0.5 / exact - 1.0).abs() < 3e-3, "{} {exact}", sum * 0.08);
    }

    #[test]
    fn degenerate_ellipsoids_are_refused() {
        let flat = Ellipsoids(vec![Ellipsoid { height: 0.0, ..egg() }]);
        let grid = VolumeGrid::new(3, ImageGrid::new(4, 4, 1.0).unwrap(), 1.0).unwrap();
        assert!(flat.volume::<f32>(&grid, 1).unwrap_err().to_string().contains("ellipsoid 0"));
    }
}
