//! Divergent rays, view by view: where the source stands, and where the detector's pixels are.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::operator::ct::VolumeGrid;
use crate::operator::ct::geometry::positive;

/// A point or a direction (x, y, z), mm.
pub(super) type Vector = [f64; 3];

/// Source and detector in one view, mm: the four vectors of ASTRA's `cone_vec`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pose {
    /// The source.
    pub source: [f64; 3],
    /// The middle of the detector.
    pub detector: [f64; 3],
    /// From a pixel to that of the next column (bin).
    pub u: [f64; 3],
    /// From a pixel to that of the next row.
    pub v: [f64; 3],
}

/// Rays from one point a view to the pixels of a detector, at arbitrary places: what every divergent geometry
/// becomes before its rays are traced ([`FanBeam::vectors`](super::FanBeam::vectors),
/// [`ConeBeam::vectors`](super::ConeBeam::vectors)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VectorBeam {
    /// Source and detector of each view.
    pub poses: Vec<Pose>,
    /// Detector rows; 1 for a fan beam.
    pub rows: usize,
    /// Detector columns.
    pub bins: usize,
    /// The rows are arcs around the source instead of lines; `u` is the step along the arc at its middle.
    pub curved: bool,
}

impl VectorBeam {
    /// A flat detector of `rows` × `bins` pixels in the given poses.
    ///
    /// ```
    /// use wellposed::operator::ct::{Pose, VectorBeam};
    /// let source = [0.0, -500.0, 0.0];
    /// let pose = Pose { source, detector: [0.0, 500.0, 0.0], u: [2.0, 0.0, 0.0], v: [0.0, 0.0, 2.0] };
    /// let beam = VectorBeam::new(vec![pose], 64, 128)?;
    /// assert_eq!(beam.pixel(0, 0, 0), [-127.0, 500.0, -63.0]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where there is no view or pixel, a vector isn't finite, u and v are parallel, or the
    /// source lies on the detector.
    pub fn new(poses: Vec<Pose>, rows: usize, bins: usize) -> Result<Self> {
        let beam = Self { poses, rows, bins, curved: false };
        beam.validate()?;
        Ok(beam)
    }

    /// Number of views.
    pub fn views(&self) -> usize {
        self.poses.len()
    }

    /// Centre of a detector pixel, mm.
    pub fn pixel(&self, view: usize, row: usize, bin: usize) -> [f64; 3] {
        self.place(view, row as f64, bin as f64)
    }

    /// A place on the detector in units of pixels, mm.
    pub(crate) fn place(&self, view: usize, row: f64, bin: f64) -> Vector {
        let Pose { source, detector, u, v } = self.poses[view];
        let (i, j) = (row - (self.rows as f64 - 1.0) / 2.0, bin - (self.bins as f64 - 1.0) / 2.0);
        if !self.curved {
            return std::array::from_fn(|a| detector[a] + i * v[a] + j * u[a]);
        }
        let radial: Vector = std::array::from_fn(|a| detector[a] - source[a]);
        let (radius, step) = (radial[0].hypot(radial[1]), u[0].hypot(u[1]));
        let (sin, cos) = (j * step / radius).sin_cos();
        let at = |a: usize| source[a] + cos * radial[a] + sin * radius / step * u[a];
        [at(0), at(1), detector[2] + i * v[2]]
    }

    /// The views with these numbers.
    ///
    /// # Errors
    /// [`Error::Parameter`] where a number is out of range or there is none.
    pub fn select(&self, views: &[usize]) -> Result<Self> {
        check_views(views, self.views())?;
        Ok(Self { poses: views.iter().map(|view| self.poses[*view]).collect(), ..self.clone() })
    }

    /// Checks what [`VectorBeam::new`] checks, and that the arc of a curved detector is one.
    pub fn validate(&self) -> Result<()> {
        if self.poses.is_empty() {
            return Err(Error::parameter("views", 0, "a scan has at least one view"));
        }
        let pixels = self.rows.checked_mul(self.bins).and_then(|n| n.checked_mul(self.views()));
        if self.rows == 0 || self.bins == 0 || pixels.is_none() {
            let found = format!("{} × {}", self.rows, self.bins);
            return Err(Error::parameter("detector", found, "must have at least one row and one column"));
        }
        let bad = |(view, pose): (usize, &Pose)| self.fault(pose).map(|reason| (view, reason));
        match self.poses.iter().enumerate().find_map(bad) {
            None => Ok(()),
            Some((view, reason)) => Err(Error::parameter(
                format!("pose of view {view}"),
                format!("{:?}", self.poses[view]),
                reason,
            )),
        }
    }

    /// What is wrong with a pose.
    fn fault(&self, pose: &Pose) -> Option<&'static str> {
        let Pose { source, detector, u, v } = pose;
        if ![source, detector, u, v].iter().all(|x| x.iter().all(|x| x.is_finite())) {
            return Some("must be finite mm");
        }
        let axis: Vector = std::array::from_fn(|a| detector[a] - source[a]);
        let normal = cross(u, v);
        let (area, distance) = (length(&normal), length(&axis));
        if area <= 1e-12 * length(u) * length(v) || area == 0.0 {
            return Some("the steps along rows and columns must be two directions");
        }
        if dot(&normal, &axis).abs() <= 1e-9 * area * distance {
            return Some("the source must lie outside the detector's plane");
        }
        let upright = v[0] == 0.0 && v[1] == 0.0 && u[2] == 0.0;
        let flat = (u[0] * axis[0] + u[1] * axis[1]).abs() <= 1e-9 * length(u) * distance;
        let half_turn = self.bins as f64 * length(u) < std::f64::consts::PI * axis[0].hypot(axis[1]);
        (self.curved && !(upright && flat && half_turn))
            .then_some("an arc needs u across the central ray, v along z, and less than half a turn")
    }

    /// Checks that the sources lie outside the volume and that in every view at least one ray meets it.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the first view that doesn't, and what was found.
    pub fn expect_hits(&self, grid: &VolumeGrid) -> Result<()> {
        let half = grid.half_sides();
        for (view, pose) in self.poses.iter().enumerate() {
            let show = |p: &Vector| format!("({:.3}, {:.3}, {:.3}) mm", p[0], p[1], p[2]);
            let sides = format!("{:.3} × {:.3} × {:.3} mm", 2.0 * half[0], 2.0 * half[1], 2.0 * half[2]);
            if (0..3).all(|a| pose.source[a].abs() <= half[a]) {
                let reason = format!("lies inside the volume of {sides}");
                return Err(Error::parameter(format!("source of view {view}"), show(&pose.source), reason));
            }
            if !self.hits(view, &half) {
                let (first, last) = (self.pixel(view, 0, 0), self.pixel(view, self.rows - 1, self.bins - 1));
                return Err(Error::parameter(
                    format!("detector of view {view}"),
                    format!("{} to {}", show(&first), show(&last)),
                    format!("all rays from {} miss the volume of {sides}", show(&pose.source)),
                ));
            }
        }
        Ok(())
    }

    /// Whether any ray of a view meets the box. The ray nearest to the origin is asked first, and it decides
    /// in all scans that make sense.
    fn hits(&self, view: usize, half: &Vector) -> bool {
        let source = self.poses[view].source;
        let meets = |row: usize, bin: usize| {
            let pixel = self.pixel(view, row, bin);
            enters(&source, &std::array::from_fn(|a| pixel[a] - source[a]), half)
        };
        let (row, bin) = self.nearest_to_origin(view);
        meets(row, bin) || (0..self.rows).any(|row| (0..self.bins).any(|bin| meets(row, bin)))
    }

    /// The pixel where the origin projects, as far as the detector reaches.
    fn nearest_to_origin(&self, view: usize) -> (usize, usize) {
        let Pose { source, detector, u, v } = self.poses[view];
        let (to, normal) = (std::array::from_fn(|a| detector[a] - source[a]), cross(&u, &v));
        let along = -dot(&source, &normal);
        let scale = if along == 0.0 { 0.0 } else { dot(&to, &normal) / along };
        let place: Vector = std::array::from_fn(|a| -source[a] * scale - to[a]);
        let near =
            |n: usize, x: f64| ((n as f64 - 1.0) / 2.0 + x).round().clamp(0.0, n as f64 - 1.0) as usize;
        let steps = |w: &Vector| dot(&place, w) / dot(w, w);
        (near(self.rows, steps(&v)), near(self.bins, steps(&u)))
    }
}

/// An error unless these are numbers of views, at least one.
pub(super) fn check_views(views: &[usize], count: usize) -> Result<()> {
    if views.is_empty() {
        return Err(Error::parameter("views", 0, "choose at least one"));
    }
    match views.iter().find(|view| **view >= count) {
        None => Ok(()),
        Some(view) => Err(Error::parameter("view", view, format!("expected a number below {count}"))),
    }
}

/// Whether the half-line from `source` along `direction` meets the box |x| < half.
fn enters(source: &Vector, direction: &Vector, half: &Vector) -> bool {
    let (mut from, mut to) = (0f64, f64::INFINITY);
    for a in 0..3 {
        if direction[a] == 0.0 {
            if source[a].abs() >= half[a] {
                return false;
            }
            continue;
        }
        let (p, q) = ((-half[a] - source[a]) / direction[a], (half[a] - source[a]) / direction[a]);
        (from, to) = (from.max(p.min(q)), to.min(p.max(q)));
    }
    from < to
}

pub(super) fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn cross(a: &Vector, b: &Vector) -> Vector {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn length(a: &Vector) -> f64 {
    dot(a, a).sqrt()
}

/// Distances and pixel steps that a source and a detector on a circle share, checked.
pub(super) fn check_orbit(source_origin: f64, origin_detector: f64, angles: &[f64]) -> Result<()> {
    positive("source to origin", source_origin)?;
    if !(origin_detector.is_finite() && origin_detector > -source_origin) {
        let reason = format!("must be finite and above {}, where the source stands", -source_origin);
        return Err(Error::parameter("origin to detector", origin_detector, reason));
    }
    match angles.iter().position(|a| !a.is_finite()) {
        None => Ok(()),
        Some(view) => {
            Err(Error::parameter(format!("angle of view {view}"), angles[view], "must be finite radians"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::ct::ImageGrid;

    fn pose() -> Pose {
        let source = [0.0, -100.0, 0.0];
        Pose { source, detector: [0.0, 100.0, 0.0], u: [1.0, 0.0, 0.0], v: [0.0, 0.0, 1.0] }
    }

    #[test]
    fn impossible_poses_are_refused_by_view() {
        let message = |pose| VectorBeam::new(vec![self::pose(), pose], 4, 4).unwrap_err().to_string();
        let text = message(Pose { u: [0.0, 0.0, 3.0], ..pose() });
        assert!(text.contains("pose of view 1") && text.contains("two directions"), "{text}");
        assert!(
            message(Pose { source: [5.0, 100.0, 2.0], ..pose() }).contains("outside the detector's plane")
        );
        assert!(message(Pose { v: [0.0, f64::NAN, 1.0], ..pose() }).contains("finite"));
        let tilted = Pose { u: [1.0, 0.0, 0.1], ..pose() };
        let arc = VectorBeam { poses: vec![tilted], rows: 2, bins: 4, curved: true };
        assert!(arc.validate().unwrap_err().to_string().contains("an arc needs"));
    }

    #[test]
    fn rays_beside_the_volume_and_sources_inside_it_are_errors() {
        let grid = VolumeGrid::new(4, ImageGrid::new(10, 10, 1.0).unwrap(), 1.0).unwrap();
        let beam = |pose| VectorBeam::new(vec![pose], 8, 8).unwrap();
        beam(pose()).expect_hits(&grid).unwrap();
        // The shadow of the volume reaches to about 10 mm, the detector begins at 26.5.
        let beside = beam(Pose { detector: [30.0, 100.0, 0.0], ..pose() });
        let text = beside.expect_hits(&grid).unwrap_err().to_string();
        assert!(text.contains("detector of view 0") && text.contains("26.500, 100.000"), "{text}");
        // Rays that run away from the volume, which lies on their other side.
        let away = beam(Pose { detector: [0.0, -200.0, 0.0], ..pose() });
        assert!(away.expect_hits(&grid).is_err());
        let inside = beam(Pose { source: [0.0, -4.0, 0.0], ..pose() });
        assert!(inside.expect_hits(&grid).unwrap_err().to_string().contains("source of view 0"));
    }

    #[test]
    fn arcs_keep_their_distance_from_the_source() {
        let beam = VectorBeam { poses: vec![pose()], rows: 1, bins: 151, curved: true };
        beam.validate().unwrap();
        for bin in [0, 40, 75, 150] {
            let [x, y, _] = beam.pixel(0, 0, bin);
            assert!((x.hypot(y + 100.0) - 200.0).abs() < 1e-9);
            assert!((x.atan2(y + 100.0) - (bin as f64 - 75.0) / 200.0).abs() < 1e-12);
        }
    }
}
