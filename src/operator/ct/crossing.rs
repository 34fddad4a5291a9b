//! Where a ray in the plane of a slice crosses the lines of the image that it follows least.

use std::ops::Range;

use crate::operator::ct::ImageGrid;

/// A half-line from a source, against rows where it runs mostly along y, against columns otherwise: it crosses line
/// k at pixel position u = origin + k·slope.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crossing {
    /// Lines are columns.
    pub transposed: bool,
    pub origin: f64,
    /// At most 1 in size.
    pub slope: f64,
    /// Length of the ray between two lines, mm.
    pub length: f64,
    /// Line of the source, not whole.
    pub start: f64,
    /// Lines from the source to the detector.
    pub along: f64,
}

impl Crossing {
    /// The ray from `source` through `pixel`, (x, y) in mm.
    pub fn new(grid: &ImageGrid, source: [f64; 2], pixel: [f64; 2]) -> Self {
        let (column, row) = grid.place_of(source[0], source[1]);
        let (dc, dr) = ((pixel[0] - source[0]) / grid.pixel, (source[1] - pixel[1]) / grid.pixel);
        let transposed = dr.abs() < dc.abs();
        let (start, across, along, aside) =
            if transposed { (column, row, dc, dr) } else { (row, column, dr, dc) };
        let slope = aside / along;
        let length = grid.pixel * (dc * dc + dr * dr).sqrt() / along.abs();
        Self { transposed, origin: across - start * slope, slope, length, start, along }
    }

    /// Position on line k.
    #[inline(always)]
    pub fn at(&self, line: usize) -> f64 {
        self.origin + line as f64 * self.slope
    }

    /// Lines 0..count beyond the source.
    pub fn ahead(&self, count: usize) -> Range<usize> {
        ahead(self.start, self.along, count)
    }

    /// The lines of `among` whose crossing lies in (low, high), perhaps one more on either side.
    pub fn within(&self, low: f64, high: f64, among: Range<usize>) -> Range<usize> {
        within(self.origin, self.slope, (low, high), among)
    }
}

/// The lines 0..count that lie from `start` in the direction of the sign of `along`.
#[inline(always)]
pub(super) fn ahead(start: f64, along: f64, count: usize) -> Range<usize> {
    let bound = |x: f64| x.clamp(0.0, count as f64) as usize;
    if along > 0.0 { bound(start.floor() + 1.0)..count } else { 0..bound(start.ceil()) }
}

/// The k of `among` with origin + k·slope in (low, high), perhaps one more on either side.
#[inline(always)]
pub(super) fn within(origin: f64, slope: f64, (low, high): (f64, f64), among: Range<usize>) -> Range<usize> {
    if slope == 0.0 {
        let inside = origin > low && origin < high;
        return if inside { among } else { among.start..among.start };
    }
    let (a, b) = ((low - origin) / slope, (high - origin) / slope);
    let bound = |x: f64| x.clamp(among.start as f64, among.end as f64) as usize;
    bound(a.min(b).floor())..bound(a.max(b).ceil() + 1.0)
}
