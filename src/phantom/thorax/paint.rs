//! Painting a value with soft surfaces, one tissue over the other.

/// The value at one place, and how wide surfaces are: the size of a voxel.
pub(super) struct Paint {
    pub value: f64,
    pub width: f64,
}

impl Paint {
    pub(super) fn new(value: f64, width: f64) -> Self {
        Self { value, width }
    }

    /// The part of a voxel that lies inside a surface at this signed distance.
    fn inside(&self, distance: f64) -> f64 {
        (0.5 - distance / self.width).clamp(0.0, 1.0)
    }

    /// Fills what lies inside a surface.
    pub(super) fn fill(&mut self, distance: f64, value: f64) {
        self.value += self.inside(distance) * (value - self.value);
    }

    /// Fills what lies inside both of two surfaces.
    pub(super) fn cover(&mut self, outer: f64, inner: f64, value: f64) {
        self.fill(outer.max(inner), value);
    }
}
