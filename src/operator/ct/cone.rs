//! The cone beam: rays from a point to a panel, on a circle or a helix.

use std::f64::consts::TAU;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::operator::ct::fan::orbit_detector;
use crate::operator::ct::geometry::positive;
use crate::operator::ct::vectors::check_orbit;
use crate::operator::ct::{FanBeam, Pose, VectorBeam, VolumeGrid};

/// Rays from a point that turns about the z axis to the pixels of a panel behind the volume.
///
/// Columns lie as the bins of [`FanBeam`]; row i lies at z = (i − (rows − 1)/2)·row_pitch + row_offset above the
/// source's height. With `feed` the source climbs on a helix, from −z to +z, at z = 0 in the middle between the
/// smallest and the largest angle. Projections are [rows, views, bins].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConeBeam {
    /// The middle row: angles, columns, distances, offset along u.
    pub fan: FanBeam,
    /// Detector rows.
    pub rows: usize,
    /// Distance between rows on the detector, mm.
    pub row_pitch: f64,
    /// Height of the middle row above the source, mm.
    pub row_offset: f64,
    /// Climb of the source and the detector in a full turn, mm; 0 for a circle.
    pub feed: f64,
    /// Turn of the panel about its normal, radians, from u to v.
    pub tilt: f64,
}

impl ConeBeam {
    /// A circular scan with a panel of `rows` rows over the columns of `fan`.
    ///
    /// ```
    /// use wellposed::operator::ct::{ConeBeam, FanBeam};
    /// let fan = FanBeam::new(vec![0.0, 1.0], 192, 2.0, 500.0, 500.0)?;
    /// let helix = ConeBeam { feed: 40.0, ..ConeBeam::new(fan, 64, 2.0)? };
    /// assert_eq!(helix.vectors().poses.len(), 2);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where there is no row, the row pitch isn't positive, or the fan is invalid.
    pub fn new(fan: FanBeam, rows: usize, row_pitch: f64) -> Result<Self> {
        let beam = Self { fan, rows, row_pitch, row_offset: 0.0, feed: 0.0, tilt: 0.0 };
        beam.validate()?;
        Ok(beam)
    }

    /// Number of views.
    pub fn views(&self) -> usize {
        self.fan.views()
    }

    /// Height z of the source in each view, mm.
    pub fn heights(&self) -> Vec<f64> {
        let angles = &self.fan.angles;
        let low = angles.iter().copied().fold(f64::INFINITY, f64::min);
        let high = angles.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        angles.iter().map(|angle| (angle - (low + high) / 2.0) / TAU * self.feed).collect()
    }

    /// The same rays as vectors.
    ///
    /// ```
    /// use wellposed::operator::ct::{ConeBeam, FanBeam};
    /// let cone = ConeBeam::new(FanBeam::new(vec![0.0], 3, 1.0, 500.0, 400.0)?, 5, 2.0)?;
    /// assert_eq!(cone.vectors().pixel(0, 4, 2), [1.0, 400.0, 4.0]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    pub fn vectors(&self) -> VectorBeam {
        let Self { fan, rows, row_pitch, row_offset, tilt, .. } = self;
        let pose = |(angle, z): (&f64, f64)| {
            let (sin, cos) = angle.sin_cos();
            let source = [fan.source_origin * sin, -fan.source_origin * cos, z];
            let (middle, u) = orbit_detector(*angle, fan.distance(), 1.0, fan.offset, fan.curved);
            let detector = [source[0] + middle[0], source[1] + middle[1], z + row_offset];
            let (s, c) = if *tilt == 0.0 { (0.0, 1.0) } else { tilt.sin_cos() };
            let across = |along: f64, up: f64| [along * u[0], along * u[1], up];
            Pose {
                source,
                detector,
                u: across(c, s).map(|x| x * fan.pitch),
                v: across(-s, c).map(|x| x * row_pitch + 0.0),
            }
        };
        VectorBeam {
            poses: fan.angles.iter().zip(self.heights()).map(pose).collect(),
            rows: *rows,
            bins: fan.bins,
            curved: fan.curved,
        }
    }

    /// The detector rows, one at least, that some slices of a volume cast their shadow on when the source circles at their
    /// height z = 0 (no feed, no tilt), with a neighbour on either side to interpolate with.
    ///
    /// ```
    /// use wellposed::operator::ct::{ConeBeam, FanBeam, ImageGrid, VolumeGrid};
    /// let grid = VolumeGrid::new(65, ImageGrid::new(64, 64, 1.0)?, 1.0)?;
    /// let cone = ConeBeam::new(FanBeam::new(vec![0.0], 192, 1.0, 500.0, 500.0)?, 161, 1.0)?;
    /// // The middle slice projects on the middle row, at any magnification.
    /// assert_eq!(cone.rows_behind(&grid, 32..33), 79..82);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    pub fn rows_behind(&self, grid: &VolumeGrid, slices: Range<usize>) -> Range<usize> {
        let image = &grid.image;
        let reach = (image.height as f64 - 1.0).hypot(image.width as f64 - 1.0) / 2.0 * image.pixel;
        let (near, far) = (self.fan.source_origin - reach, self.fan.source_origin + reach);
        if near <= 0.0 {
            return 0..self.rows;
        }
        let middle = (self.rows as f64 - 1.0) / 2.0 - self.row_offset / self.row_pitch;
        let ends = [slices.start, slices.end.max(slices.start + 1) - 1].map(|slice| grid.z_of(slice));
        let rows = ends.into_iter().flat_map(|z| [near, far].map(|ahead| z * self.fan.distance() / ahead));
        let (low, high) = rows.fold((f64::MAX, f64::MIN), |(low, high), t| (low.min(t), high.max(t)));
        // Magnifications are computed in other ways elsewhere: a little more than they should round to.
        let first = (low / self.row_pitch + middle - 1e-6).floor();
        let last = (high / self.row_pitch + middle + 1e-6).floor() + 2.0;
        let start = (first.max(0.0) as usize).min(self.rows - 1);
        start..(last.max(0.0) as usize).clamp(start + 1, self.rows)
    }

    /// Checks what [`ConeBeam::new`] checks, for values that came from elsewhere.
    pub fn validate(&self) -> Result<()> {
        check_orbit(self.fan.source_origin, self.fan.origin_detector, &self.fan.angles)?;
        positive("detector pitch", self.fan.pitch)?;
        positive("row pitch", self.row_pitch)?;
        let others = [
            ("detector offset", self.fan.offset),
            ("row offset", self.row_offset),
            ("feed", self.feed),
            ("tilt", self.tilt),
        ];
        if let Some((name, value)) = others.iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::parameter(*name, value, "must be finite"));
        }
        self.vectors().validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fan(angles: Vec<f64>) -> FanBeam {
        FanBeam::new(angles, 5, 1.5, 300.0, 200.0).unwrap()
    }

    #[test]
    fn the_helix_climbs_by_its_feed() {
        let angles = (0..=8).map(|i| f64::from(i) * TAU / 4.0).collect();
        let helix = ConeBeam { feed: 10.0, row_offset: 3.0, ..ConeBeam::new(fan(angles), 3, 2.0).unwrap() };
        let poses = helix.vectors().poses;
        assert!((poses[0].source[2] + 10.0).abs() < 1e-12 && (poses[8].source[2] - 10.0).abs() < 1e-12);
        assert!((poses[4].source[2] - poses[0].source[2] - 10.0).abs() < 1e-12);
        assert!((poses[4].detector[2] - 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_tilted_panel_turns_about_its_middle() {
        let tilted = ConeBeam { tilt: 0.1, ..ConeBeam::new(fan(vec![0.0]), 3, 2.0).unwrap() };
        let rays = tilted.vectors();
        let [x, y, z] = rays.pixel(0, 1, 4);
        assert!((x - 3.0 * 0.1f64.cos()).abs() < 1e-12 && (z - 3.0 * 0.1f64.sin()).abs() < 1e-12);
        assert_eq!((y, rays.pixel(0, 1, 2)), (200.0, [0.0, 200.0, 0.0]));
        let upright = ConeBeam { tilt: 0.0, ..tilted }.vectors();
        assert_eq!(upright.poses[0].v, [0.0, 0.0, 2.0]);
        assert!(ConeBeam::new(fan(vec![0.0]), 0, 2.0).is_err());
    }
}
