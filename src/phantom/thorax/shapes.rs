//! Signed distances (mm, negative inside) of the shapes that anatomy is made of, approximate away from the surface.

use nalgebra::Vector3;

/// A point or a direction: x to the patient's left, y to the back, z to the head, in mm.
pub(super) type Point = Vector3<f64>;

pub(super) fn point(x: f64, y: f64, z: f64) -> Point {
    Point::new(x, y, z)
}

/// An ellipsoid with these half axes.
pub(super) fn ellipsoid(p: Point, centre: Point, radii: Point) -> f64 {
    let q = p - centre;
    let near = q.component_div(&radii).norm();
    let slope = q.component_div(&radii.component_mul(&radii)).norm();
    if slope > 0.0 { near * (near - 1.0) / slope } else { -radii.min() }
}

/// The cylinder over |x/a|ⁿ + |y/b|ⁿ = 1, measured along the ray from its axis.
pub(super) fn superellipse(x: f64, y: f64, half: (f64, f64), power: f64) -> f64 {
    let level = ((x / half.0).abs().powf(power) + (y / half.1).abs().powf(power)).powf(1.0 / power);
    if level < 1e-6 { -half.0.min(half.1) } else { x.hypot(y) * (1.0 - 1.0 / level) }
}

/// The distance from the segment between two points, and where along it (0 to 1) the nearest point lies.
pub(super) fn segment(p: Point, from: Point, to: Point) -> (f64, f64) {
    let (along, q) = (to - from, p - from);
    let part = (q.dot(&along) / along.norm_squared().max(1e-12)).clamp(0.0, 1.0);
    ((q - along * part).norm(), part)
}

/// A bent tube through centres with radii.
pub(super) fn tube(p: Point, path: &[(Point, f64)]) -> f64 {
    let parts = path.windows(2).map(|ends| {
        let (distance, part) = segment(p, ends[0].0, ends[1].0);
        distance - (ends[0].1 * (1.0 - part) + ends[1].1 * part)
    });
    parts.fold(f64::INFINITY, f64::min)
}

/// Rounds the corners of a path: Catmull–Rom splines with four steps from point to point.
pub(super) fn smooth(path: &[(Point, f64)]) -> Vec<(Point, f64)> {
    let at = |i: isize| path[i.clamp(0, path.len() as isize - 1) as usize];
    let mut out = Vec::new();
    for i in 0..path.len() as isize - 1 {
        let (a, b, c, d) = (at(i - 1), at(i), at(i + 1), at(i + 2));
        for step in 0..4 {
            let t = f64::from(step) / 4.0;
            let weights = [
                -0.5 * t + t * t - 0.5 * t * t * t,
                1.0 - 2.5 * t * t + 1.5 * t * t * t,
                0.5 * t + 2.0 * t * t - 1.5 * t * t * t,
                -0.5 * t * t + 0.5 * t * t * t,
            ];
            let centre = a.0 * weights[0] + b.0 * weights[1] + c.0 * weights[2] + d.0 * weights[3];
            out.push((centre, b.1 * (1.0 - t) + c.1 * t));
        }
    }
    out.extend(path.last());
    out
}

/// The union of two shapes, with a fillet of this radius.
pub(super) fn blend(a: f64, b: f64, radius: f64) -> f64 {
    let h = (radius - (a - b).abs()).max(0.0) / radius;
    a.min(b) - 0.25 * h * h * radius
}

/// 0 below `low`, 1 above `high`, smooth between.
pub(super) fn ramp(value: f64, low: f64, high: f64) -> f64 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
