//! Pictures: montages with error maps and colour bars, convergence curves, profiles, cuts through volumes.
//!
//! Everything is drawn with plotters into a bitmap, with an embedded font, so that it looks the same on a
//! machine that has none. Files are PNG, written whole or not at all.

mod axes;
mod canvas;
mod colours;
mod curves;
mod image;
mod montage;

pub use colours::{Colours, Scale};
pub use curves::{Curves, Series};
pub use image::{Image, Plane};
pub use montage::{Montage, Panel, Row};
