//! The fan beam: rays from a point in the plane of a slice.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::operator::ct::geometry::positive;
use crate::operator::ct::vectors::check_orbit;
use crate::operator::ct::{ImageGrid, Pose, VectorBeam};

/// Rays from a point that turns about the origin to a row of detector bins behind it.
///
/// In the view with angle β the source stands at R (sin β, −cos β), R = `source_origin`; bin j lies at
/// s = (j − (bins − 1)/2)·pitch + offset along (cos β, sin β), or along the arc about the source. At β = 0 the
/// rays run up (y), as those of [`ParallelBeam`](super::ParallelBeam) do: a ray of fan angle γ is the parallel ray of angle β − γ at
/// R sin γ. The sinogram is [views, bins].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FanBeam {
    /// Angle β of each view, radians counter-clockwise, in any order.
    pub angles: Vec<f64>,
    /// Detector bins.
    pub bins: usize,
    /// Distance between bins on the detector, mm.
    pub pitch: f64,
    /// Position s of the middle of the detector, mm; 0 if the central ray meets it.
    pub offset: f64,
    /// Source to origin, mm.
    pub source_origin: f64,
    /// Origin to detector along the central ray, mm; 0 for a virtual detector through the origin.
    pub origin_detector: f64,
    /// The detector is an arc about the source rather than a line.
    pub curved: bool,
}

impl FanBeam {
    /// Views at these angles, a flat detector, centred.
    ///
    /// ```
    /// use wellposed::operator::ct::FanBeam;
    /// let beam = FanBeam::new(vec![0.0, 0.5, 1.0], 367, 1.0, 500.0, 500.0)?;
    /// assert_eq!((beam.magnification(), beam.fan_angle(183)), (2.0, 0.0));
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where there is no view or no bin, an angle isn't finite, the pitch or a distance isn't
    /// positive.
    pub fn new(
        angles: Vec<f64>,
        bins: usize,
        pitch: f64,
        source_origin: f64,
        origin_detector: f64,
    ) -> Result<Self> {
        let beam = Self { angles, bins, pitch, offset: 0.0, source_origin, origin_detector, curved: false };
        beam.validate()?;
        Ok(beam)
    }

    /// `views` angles i·arc/views and as many bins as the shadow of the grid's circumscribed circle needs, an odd
    /// number, each a pixel wide at the origin.
    ///
    /// ```
    /// use std::f64::consts::TAU;
    /// use wellposed::operator::ct::{FanBeam, ImageGrid};
    /// let beam = FanBeam::covering(&ImageGrid::new(256, 256, 1.0)?, 360, TAU, 500.0, 500.0)?;
    /// assert_eq!((beam.bins, beam.pitch), (391, 2.0));
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] as [`FanBeam::new`], and where the source lies inside the circle.
    pub fn covering(
        grid: &ImageGrid,
        views: usize,
        arc: f64,
        source_origin: f64,
        origin_detector: f64,
    ) -> Result<Self> {
        grid.validate()?;
        positive("arc", arc)?;
        let radius = grid.diagonal() / 2.0;
        if !(source_origin.is_finite() && source_origin > radius) {
            let reason = format!("must be above {radius:.3} mm, half the diagonal of the image");
            return Err(Error::parameter("source to origin", source_origin, reason));
        }
        let angles = (0..views).map(|i| arc * i as f64 / views as f64).collect();
        let pitch = grid.pixel * (source_origin + origin_detector) / source_origin;
        // Where the tangent of the circle meets the line through the origin.
        let shadow = 2.0 * source_origin * (radius / source_origin).asin().tan();
        let bins = ((shadow / grid.pixel).ceil() as usize + 2) | 1;
        Self::new(angles, bins, pitch, source_origin, origin_detector)
    }

    /// The arc that a short scan covers, π and the fan's opening: every ray is measured at least once.
    ///
    /// ```
    /// use wellposed::operator::ct::FanBeam;
    /// let beam = FanBeam::new(vec![0.0], 201, 1.0, 50.0, 50.0)?;
    /// assert!((beam.short_scan() - 1.5 * std::f64::consts::PI).abs() < 0.01); // an opening of 90°
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    pub fn short_scan(&self) -> f64 {
        let half = |bin: f64| self.angle_at(bin).abs();
        std::f64::consts::PI + 2.0 * half(-0.5).max(half(self.bins as f64 - 0.5))
    }

    /// The same with the detector's middle at s = `offset` mm.
    pub fn with_offset(mut self, offset: f64) -> Self {
        self.offset = offset;
        self
    }

    /// The same with the detector on an arc about the source.
    pub fn curved(mut self) -> Self {
        self.curved = true;
        self
    }

    /// Number of views.
    pub fn views(&self) -> usize {
        self.angles.len()
    }

    /// Source to detector over source to origin.
    pub fn magnification(&self) -> f64 {
        self.distance() / self.source_origin
    }

    /// Source to detector along the central ray, mm.
    pub fn distance(&self) -> f64 {
        self.source_origin + self.origin_detector
    }

    /// Position s of bin `bin` on the detector, mm.
    pub fn position(&self, bin: usize) -> f64 {
        self.position_at(bin as f64)
    }

    fn position_at(&self, bin: f64) -> f64 {
        (bin - (self.bins as f64 - 1.0) / 2.0) * self.pitch + self.offset
    }

    /// Angle γ of the ray to bin `bin` against the central ray, radians.
    pub fn fan_angle(&self, bin: usize) -> f64 {
        self.angle_at(bin as f64)
    }

    fn angle_at(&self, bin: f64) -> f64 {
        let s = self.position_at(bin) / self.distance();
        if self.curved { s } else { s.atan() }
    }

    /// The same rays as vectors in the plane z = 0.
    ///
    /// ```
    /// use wellposed::operator::ct::FanBeam;
    /// let rays = FanBeam::new(vec![0.0], 3, 1.0, 500.0, 400.0)?.vectors();
    /// assert_eq!((rays.poses[0].source, rays.pixel(0, 0, 2)), ([0.0, -500.0, 0.0], [1.0, 400.0, 0.0]));
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    pub fn vectors(&self) -> VectorBeam {
        let pose = |angle: &f64| {
            let (sin, cos) = angle.sin_cos();
            let source = [self.source_origin * sin, -self.source_origin * cos, 0.0];
            let (middle, u) = orbit_detector(*angle, self.distance(), self.pitch, self.offset, self.curved);
            let detector = [source[0] + middle[0], source[1] + middle[1], 0.0];
            Pose { source, detector, u: [u[0], u[1], 0.0], v: [0.0, 0.0, self.pitch] }
        };
        VectorBeam {
            poses: self.angles.iter().map(pose).collect(),
            rows: 1,
            bins: self.bins,
            curved: self.curved,
        }
    }

    /// Checks what [`FanBeam::new`] checks, for values that came from elsewhere.
    pub fn validate(&self) -> Result<()> {
        check_orbit(self.source_origin, self.origin_detector, &self.angles)?;
        positive("detector pitch", self.pitch)?;
        if !self.offset.is_finite() {
            return Err(Error::parameter("detector offset", self.offset, "must be finite mm"));
        }
        self.vectors().validate()
    }
}

/// From the source of a view with this angle to the middle of a detector at `distance`, and one pixel's step.
pub(super) fn orbit_detector(
    angle: f64,
    distance: f64,
    pitch: f64,
    offset: f64,
    curved: bool,
) -> ([f64; 2], [f64; 2]) {
    let (sin, cos) = angle.sin_cos();
    let (ahead, across) = ([-sin, cos], [cos, sin]);
    if !curved {
        let middle = std::array::from_fn(|a| distance * ahead[a] + offset * across[a]);
        return (middle, across.map(|c| c * pitch));
    }
    let (s, c) = (offset / distance).sin_cos();
    let middle = std::array::from_fn(|a| distance * (c * ahead[a] + s * across[a]));
    (middle, std::array::from_fn(|a| pitch * (c * across[a] - s * ahead[a])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rays_are_those_of_their_fan_angle() {
        for curved in [false, true] {
            let mut beam = FanBeam::new(vec![0.4, -2.0], 31, 3.0, 300.0, 200.0).unwrap().with_offset(7.0);
            beam.curved = curved;
            let rays = beam.vectors();
            for (view, beta) in beam.angles.iter().enumerate() {
                for bin in [0, 12, 30] {
                    let (p, s) = (rays.pixel(view, 0, bin), rays.poses[view].source);
                    let gamma = beam.fan_angle(bin);
                    let theta = beta - gamma;
                    let on = |p: [f64; 3]| p[0] * theta.cos() + p[1] * theta.sin() - 300.0 * gamma.sin();
                    assert!(on(p).abs() < 1e-9 && on(s).abs() < 1e-9, "curved {curved}, {view}, {bin}");
                }
            }
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let message = |r: Result<FanBeam>| r.unwrap_err().to_string();
        assert!(message(FanBeam::new(vec![], 5, 1.0, 10.0, 5.0)).starts_with("views = 0"));
        assert!(message(FanBeam::new(vec![0.0], 5, 1.0, -3.0, 5.0)).starts_with("source to origin = -3"));
        assert!(message(FanBeam::new(vec![0.0], 5, 1.0, 3.0, -3.0)).starts_with("origin to detector = -3"));
        assert!(message(FanBeam::new(vec![f64::NAN], 5, 1.0, 3.0, 3.0)).starts_with("angle of view 0 = NaN"));
        let grid = ImageGrid::new(100, 100, 1.0).unwrap();
        assert!(message(FanBeam::covering(&grid, 9, 1.0, 60.0, 3.0)).contains("half the diagonal"));
    }
}
