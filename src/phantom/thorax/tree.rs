//! Branching trees that fill a region: vessels and airways.

use super::shapes::{Point, segment};
use crate::tensor::random::Noise;

/// A tapered piece of a branch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Branch {
    pub from: Point,
    pub to: Point,
    pub radii: (f64, f64),
}

impl Branch {
    /// Signed distance from its surface.
    pub(super) fn distance(&self, p: Point) -> f64 {
        let (distance, part) = segment(p, self.from, self.to);
        distance - (self.radii.0 * (1.0 - part) + self.radii.1 * part)
    }
}

/// Grows trees towards scattered targets: a branch heads for the centroid of what it supplies, then divides
/// those targets among two. A branch that supplies n of them has radius ∝ n^(1/2.8), close to Murray's law.
pub(super) struct Grower {
    /// Radius of a twig that supplies a single target, in mm.
    pub twig: f64,
    pub noise: Noise,
    /// Random numbers drawn so far.
    pub drawn: u64,
    pub branches: Vec<Branch>,
}

impl Grower {
    /// A random number in [−1, 1].
    fn random(&mut self) -> f64 {
        self.drawn += 1;
        2.0 * self.noise.uniform(self.drawn) - 1.0
    }

    fn random_point(&mut self) -> Point {
        Point::new(self.random(), self.random(), self.random())
    }

    /// Grows from `from` to all targets.
    pub(super) fn grow(&mut self, from: Point, targets: &mut [Point]) {
        let radius = self.twig * (targets.len() as f64).powf(1.0 / 2.8);
        if let [target] = targets {
            self.reach(from, *target, (radius, 0.6 * radius));
            return;
        }
        if targets.is_empty() {
            return;
        }
        let centroid = targets.iter().sum::<Point>() / targets.len() as f64;
        let way = centroid - from;
        let to = from + way * (0.42 + 0.08 * self.random()) + self.random_point() * (0.06 * way.norm());
        self.reach(from, to, (radius, 0.92 * radius));
        let across = widest(targets, centroid, way.normalize());
        targets.sort_by(|a, b| across.dot(a).total_cmp(&across.dot(b)));
        let share = 0.5 + 0.18 * self.random();
        let middle = ((targets.len() as f64 * share) as usize).clamp(1, targets.len() - 1);
        let (left, right) = targets.split_at_mut(middle);
        self.grow(to, left);
        self.grow(to, right);
    }

    /// A branch in two pieces with a slight bend.
    fn reach(&mut self, from: Point, to: Point, radii: (f64, f64)) {
        let bend = (from + to) / 2.0 + self.random_point() * (0.09 * (to - from).norm());
        let middle = (radii.0 + radii.1) / 2.0;
        self.branches.push(Branch { from, to: bend, radii: (radii.0, middle) });
        self.branches.push(Branch { from: bend, to, radii: (middle, radii.1) });
    }
}

/// The direction across `way` in which the targets spread most, by power iteration.
fn widest(targets: &[Point], centroid: Point, way: Point) -> Point {
    let across = |v: Point| v - way * way.dot(&v);
    let mut direction = across(Point::new(0.6, -0.5, 0.62));
    for _ in 0..8 {
        let mut next = Point::zeros();
        for target in targets {
            let offset = across(target - centroid);
            next += offset * offset.dot(&direction);
        }
        let size = next.norm();
        if size < 1e-9 {
            break;
        }
        direction = next / size;
    }
    direction
}
