//! Colour maps.

/// How values in a window become colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// Black to white: anatomical images.
    Gray,
    /// Black, purple, orange, pale yellow, rising evenly in lightness: magnitudes of errors, spectra.
    Magma,
    /// Blue, white, red: signed errors about the centre of the window.
    Diverging,
}

/// Anchors at equal steps, between which colours are linear: matplotlib's magma (public domain).
const MAGMA: [[u8; 3]; 9] = [
    [0, 0, 4],
    [28, 16, 68],
    [79, 18, 123],
    [129, 37, 129],
    [181, 54, 122],
    [229, 80, 100],
    [251, 135, 97],
    [254, 194, 135],
    [252, 253, 191],
];

/// ColorBrewer's RdBu, from blue to red.
const DIVERGING: [[u8; 3]; 9] = [
    [33, 102, 172],
    [67, 147, 195],
    [146, 197, 222],
    [209, 229, 240],
    [250, 250, 250],
    [253, 219, 199],
    [244, 165, 130],
    [214, 96, 77],
    [178, 24, 43],
];

impl Colours {
    /// The colour at `position` in the window, 0 (low) to 1 (high); values outside are clamped.
    pub fn at(self, position: f64) -> [u8; 3] {
        let position = if position.is_nan() { 0.0 } else { position.clamp(0.0, 1.0) };
        match self {
            Self::Gray => [(position * 255.0).round() as u8; 3],
            Self::Magma => between(&MAGMA, position),
            Self::Diverging => between(&DIVERGING, position),
        }
    }
}

fn between(anchors: &[[u8; 3]], position: f64) -> [u8; 3] {
    let place = position * (anchors.len() - 1) as f64;
    let first = (place as usize).min(anchors.len() - 2);
    let part = place - first as f64;
    let mix = |a: u8, b: u8| (f64::from(a) * (1.0 - part) + f64::from(b) * part).round() as u8;
    std::array::from_fn(|k| mix(anchors[first][k], anchors[first + 1][k]))
}

/// What one row of a montage shares: a window of values, its colours and its units.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// Value of the first colour.
    pub low: f64,
    /// Value of the last colour.
    pub high: f64,
    /// Colour map.
    pub colours: Colours,
    /// What stands over the colour bar: units, such as `HU`.
    pub units: String,
}

impl Scale {
    /// A gray window from `low` to `high`.
    ///
    /// ```
    /// let lungs = wellposed::plot::Scale::gray(-1350.0, 150.0, "HU");
    /// assert_eq!(lungs.colour(150.0), [255, 255, 255]);
    /// ```
    pub fn gray(low: f64, high: f64, units: &str) -> Self {
        Self { low, high, colours: Colours::Gray, units: units.into() }
    }

    /// Signed errors from −`limit` (blue) to `limit` (red).
    pub fn error(limit: f64, units: &str) -> Self {
        Self { low: -limit, high: limit, colours: Colours::Diverging, units: units.into() }
    }

    /// Magnitudes from 0 (black) to `limit`.
    pub fn magnitude(limit: f64, units: &str) -> Self {
        Self { low: 0.0, high: limit, colours: Colours::Magma, units: units.into() }
    }

    /// The colour of a value.
    pub fn colour(&self, value: f64) -> [u8; 3] {
        self.colours.at((value - self.low) / (self.high - self.low))
    }
}
