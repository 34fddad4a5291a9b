//! The bitmap that everything is drawn on.

use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use image::{ExtendedColorType, ImageEncoder, codecs::png};
use plotters::prelude::*;
use plotters::style::text_anchor::Pos;
pub(super) use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{FontTransform, register_font};

use crate::error::{Error, Result};
use crate::io::atomic;
use crate::plot::{Image, Scale};

/// Everything is drawn this many times larger and averaged down: smooth lines, evenly spaced letters.
const OVERSAMPLING: u32 = 3;

/// The name under which the embedded font is registered.
const FONT: &str = "wellposed";

/// The colour of text.
pub(super) const INK: [u8; 3] = [34, 34, 34];
/// The colour of secondary text and of axes.
pub(super) const FAINT_INK: [u8; 3] = [110, 110, 110];
/// The colour of grids.
pub(super) const GRID: [u8; 3] = [228, 228, 228];

/// A text's size, weight, colour, anchor and direction.
#[derive(Clone, Copy)]
pub(super) struct Text {
    /// Height of the font in pixels.
    pub size: f64,
    pub bold: bool,
    pub colour: [u8; 3],
    pub anchor: (HPos, VPos),
    /// Reads from bottom to top.
    pub upward: bool,
}

impl Text {
    pub(super) fn new(size: f64, horizontal: HPos, vertical: VPos) -> Self {
        Self { size, bold: false, colour: INK, anchor: (horizontal, vertical), upward: false }
    }
}

/// A white bitmap; positions and sizes are in pixels of the finished picture.
pub(super) struct Canvas {
    width: u32,
    height: u32,
    /// RGB, OVERSAMPLING times larger both ways.
    pixels: Vec<u8>,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Unsupported(format!("drawing: {error}"))
}

fn scaled(position: (f64, f64)) -> (i32, i32) {
    let scale = |v: f64| (v * f64::from(OVERSAMPLING)).round() as i32;
    (scale(position.0), scale(position.1))
}

fn register_fonts() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let plain = include_bytes!("../../data/fonts/DejaVuSans.ttf");
    let bold = include_bytes!("../../data/fonts/DejaVuSans-Bold.ttf");
    let done = REGISTERED.get_or_init(|| {
        register_font(FONT, FontStyle::Normal, plain).is_ok()
            && register_font(FONT, FontStyle::Bold, bold).is_ok()
    });
    if *done { Ok(()) } else { Err(failed("the embedded font can't be read")) }
}

impl Canvas {
    /// A white canvas of up to 16384 × 16384 pixels.
    pub(super) fn new(width: f64, height: f64) -> Result<Self> {
        register_fonts()?;
        let limit = 1.0..=16384.0;
        if !(limit.contains(&width) && limit.contains(&height)) {
            let reason = "a picture may have up to 16384 pixels in each direction";
            return Err(Error::parameter("picture size", format!("{width} × {height}"), reason));
        }
        let (width, height) = (width.ceil() as u32, height.ceil() as u32);
        let bytes = 3 * (width * OVERSAMPLING) as usize * (height * OVERSAMPLING) as usize;
        Ok(Self { width, height, pixels: vec![255; bytes] })
    }

    fn draw<R>(
        &mut self,
        paint: impl FnOnce(&DrawingArea<BitMapBackend<'_>, plotters::coord::Shift>) -> R,
    ) -> R {
        let size = (self.width * OVERSAMPLING, self.height * OVERSAMPLING);
        paint(&BitMapBackend::with_buffer(&mut self.pixels, size).into_drawing_area())
    }

    /// Writes `text` with its anchor at `at`.
    pub(super) fn text(&mut self, text: &str, at: (f64, f64), style: Text) -> Result<()> {
        // Where plotters centres a line of text, it hangs this much too high.
        let drop = 0.11 * style.size;
        let at = if style.upward { (at.0 + drop, at.1) } else { (at.0, at.1 + drop) };
        let weight = if style.bold { FontStyle::Bold } else { FontStyle::Normal };
        let size = style.size * f64::from(OVERSAMPLING);
        let mut font = FontDesc::new(FontFamily::Name(FONT), size, weight);
        if style.upward {
            font = font.transform(FontTransform::Rotate270);
        }
        let [r, g, b] = style.colour;
        let colour = RGBColor(r, g, b);
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(style.anchor.0, style.anchor.1));
        self.draw(|area| area.draw_text(text, &style, scaled(at))).map_err(failed)
    }

    /// A line through `points`, `thickness` pixels thick.
    pub(super) fn line(&mut self, points: &[(f64, f64)], thickness: f64, colour: [u8; 3]) -> Result<()> {
        let [r, g, b] = colour;
        let stroke = (thickness * f64::from(OVERSAMPLING)).round().max(1.0) as u32;
        let points: Vec<_> = points.iter().map(|p| scaled(*p)).collect();
        let style = ShapeStyle { color: RGBColor(r, g, b).to_rgba(), filled: false, stroke_width: stroke };
        self.draw(|area| area.draw(&PathElement::new(points, style))).map_err(failed)
    }

    /// A thin line around `size` = (width, height) pixels from `at`.
    pub(super) fn frame(&mut self, at: (f64, f64), size: (f64, f64)) -> Result<()> {
        let corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)];
        let corners = corners.map(|(x, y)| (at.0 + x * size.0, at.1 + y * size.1));
        self.line(&corners, 0.7, [190, 190, 190])
    }

    /// A filled rectangle between two corners.
    pub(super) fn rectangle(&mut self, from: (f64, f64), to: (f64, f64), colour: [u8; 3]) -> Result<()> {
        let [r, g, b] = colour;
        let corners = [scaled(from), scaled(to)];
        let style = RGBColor(r, g, b).filled();
        self.draw(|area| area.draw(&Rectangle::new(corners, style))).map_err(failed)
    }

    /// A filled disc.
    pub(super) fn disc(&mut self, centre: (f64, f64), radius: f64, colour: [u8; 3]) -> Result<()> {
        let [r, g, b] = colour;
        let radius = (radius * f64::from(OVERSAMPLING)).round() as u32;
        let style = RGBColor(r, g, b).filled();
        self.draw(|area| area.draw(&Circle::new(scaled(centre), radius, style))).map_err(failed)
    }

    /// The image stretched over `size` = (width, height) pixels with its top left corner at `at`.
    pub(super) fn image(&mut self, image: &Image, scale: &Scale, at: (f64, f64), size: (f64, f64)) {
        let ((left, top), (width, height)) = (scaled(at), scaled(size));
        let (left, top) = (left.max(0) as usize, top.max(0) as usize);
        let (width, height) = (width.max(1) as usize, height.max(1) as usize);
        let stride = (self.width * OVERSAMPLING) as usize;
        let values = image.resampled(height, width);
        for (row, line) in values.chunks(width).enumerate() {
            for (column, value) in line.iter().enumerate() {
                if left + column < stride {
                    let place = 3 * ((top + row) * stride + left + column);
                    if let Some(pixel) = self.pixels.get_mut(place..place + 3) {
                        pixel.copy_from_slice(&scale.colour(f64::from(*value)));
                    }
                }
            }
        }
    }

    /// The finished picture, RGB.
    fn finished(&self) -> Vec<u8> {
        let n = OVERSAMPLING as usize;
        let stride = 3 * self.width as usize * n;
        let mut out = vec![0u8; 3 * self.width as usize * self.height as usize];
        for (row, line) in out.chunks_mut(3 * self.width as usize).enumerate() {
            for (k, value) in line.iter_mut().enumerate() {
                let first = row * n * stride + k / 3 * 3 * n + k % 3;
                let sum: u32 =
                    (0..n * n).map(|i| u32::from(self.pixels[first + i / n * stride + i % n * 3])).sum();
                *value = ((sum + (n * n / 2) as u32) / (n * n) as u32) as u8;
            }
        }
        out
    }

    /// Writes a PNG file.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let pixels = self.finished();
        let mut encoded = Vec::new();
        png::PngEncoder::new_with_quality(
            &mut encoded,
            png::CompressionType::Best,
            png::FilterType::Adaptive,
        )
        .write_image(&pixels, self.width, self.height, ExtendedColorType::Rgb8)
        .map_err(|error| Error::format(path, error))?;
        atomic::write(path, |out| out.write_all(&encoded))
    }
}
