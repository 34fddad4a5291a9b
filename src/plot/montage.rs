//! Rows of images with titles, one window and one colour bar a row.

use std::path::Path;

use crate::error::{Error, Result};
use crate::plot::axes::{decimals, label, round_values};
use crate::plot::canvas::{Canvas, FAINT_INK, HPos, Text, VPos};
use crate::plot::{Image, Scale};

const MARGIN: f64 = 14.0;
const GAP: f64 = 8.0;
const TITLE: f64 = 22.0;
const NOTE: f64 = 17.0;
const BAR: f64 = 12.0;
const BAR_LABELS: f64 = 52.0;

/// One image with what stands over it.
#[derive(Clone, Debug)]
pub struct Panel {
    /// First line: the method, say.
    pub title: String,
    /// Second line, smaller: its scores, say.
    pub note: String,
    /// The image.
    pub image: Image,
}

impl Panel {
    /// A panel; an empty title or note is left out.
    pub fn new(title: impl Into<String>, note: impl Into<String>, image: Image) -> Self {
        Self { title: title.into(), note: note.into(), image }
    }
}

/// Panels with a common window; `None` leaves a place empty.
#[derive(Clone, Debug)]
pub struct Row {
    /// The window, colours and units.
    pub scale: Scale,
    /// The panels from left to right.
    pub panels: Vec<Option<Panel>>,
}

/// A picture of rows of images.
///
/// ```no_run
/// use candle_core::{DType, Device, Tensor};
/// use wellposed::plot::{Image, Montage, Panel, Scale};
/// let truth = Tensor::rand(0f32, 1., (64, 64), &Device::Cpu)?;
/// let estimate = (&truth * 0.9)?;
/// let image = |x: &Tensor| Image::new(x, [1.0, 1.0]);
/// Montage::comparison(
///     Panel::new("truth", "", image(&truth)?),
///     vec![Panel::new("estimate", "PSNR 21 dB", image(&estimate)?)],
///     Scale::gray(0.0, 1.0, ""),
///     Scale::error(0.2, ""),
/// )?
/// .save("montage.png")?;
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Montage {
    /// The rows from top to bottom.
    pub rows: Vec<Row>,
    /// Width of a panel in pixels.
    pub panel_width: usize,
}

impl Montage {
    /// The reference and the candidates in one row, and under each candidate its error, candidate − reference.
    ///
    /// # Errors
    /// Images of different sizes.
    pub fn comparison(
        reference: Panel,
        candidates: Vec<Panel>,
        scale: Scale,
        error_scale: Scale,
    ) -> Result<Self> {
        let mut errors = vec![None];
        for candidate in &candidates {
            errors.push(Some(Panel::new("", "", candidate.image.minus(&reference.image)?)));
        }
        let images = std::iter::once(reference).chain(candidates).map(Some).collect();
        let rows = vec![Row { scale, panels: images }, Row { scale: error_scale, panels: errors }];
        Ok(Self { rows, panel_width: 256 })
    }

    /// Writes the picture as a PNG file.
    ///
    /// # Errors
    /// No panel at all, a picture too large, a file that can't be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let columns = self.rows.iter().map(|row| row.panels.len()).max().unwrap_or(0);
        if self.rows.iter().all(|row| row.panels.iter().all(Option::is_none)) {
            return Err(Error::parameter("montage", "no panels", "expected at least one"));
        }
        let panel = self.panel_width as f64;
        let width = 2.0 * MARGIN + columns as f64 * (panel + GAP) + BAR + BAR_LABELS;
        let heights: Vec<f64> =
            self.rows.iter().map(|row| row.captions().0 + row.captions().1 + row.height(panel)).collect();
        let height = 2.0 * MARGIN + heights.iter().sum::<f64>() + GAP * (self.rows.len() - 1) as f64;
        let mut canvas = Canvas::new(width, height)?;
        let mut top = MARGIN;
        for (row, height) in self.rows.iter().zip(heights) {
            row.draw(&mut canvas, top, panel, columns)?;
            top += height + GAP;
        }
        canvas.save(path.as_ref())
    }
}

impl Row {
    /// The heights of the lines over the images: titles, notes.
    fn captions(&self) -> (f64, f64) {
        let any = |part: fn(&Panel) -> &String| self.panels.iter().flatten().any(|p| !part(p).is_empty());
        (if any(|p| &p.title) { TITLE } else { 0.0 }, if any(|p| &p.note) { NOTE } else { 0.0 })
    }

    /// The height of the tallest image when all are `width` pixels wide.
    fn height(&self, width: f64) -> f64 {
        let tallest = self.panels.iter().flatten().map(|p| p.image.aspect()).fold(0.0, f64::max);
        // An image more than three times as high as wide is made narrower instead.
        (width * tallest.clamp(0.1, 3.0)).round()
    }

    fn draw(&self, canvas: &mut Canvas, top: f64, panel: f64, columns: usize) -> Result<()> {
        let (titles, notes) = self.captions();
        let (top, height) = (top + titles + notes, self.height(panel));
        for (column, content) in self.panels.iter().enumerate() {
            let Some(content) = content else { continue };
            let left = MARGIN + column as f64 * (panel + GAP);
            let middle = left + panel / 2.0;
            let style = Text { bold: true, ..Text::new(16.0, HPos::Center, VPos::Center) };
            canvas.text(&content.title, (middle, top - notes - TITLE / 2.0 - 2.0), style)?;
            let style = Text { colour: FAINT_INK, ..Text::new(13.0, HPos::Center, VPos::Center) };
            canvas.text(&content.note, (middle, top - NOTE / 2.0 - 3.0), style)?;
            let wide = (height / content.image.aspect()).min(panel);
            let high = wide * content.image.aspect();
            let corner = (middle - wide / 2.0, top + (height - high) / 2.0);
            canvas.image(&content.image, &self.scale, corner, (wide, high));
            canvas.frame(corner, (wide, high))?;
        }
        self.draw_bar(canvas, (MARGIN + columns as f64 * (panel + GAP) + 4.0, top), height)
    }

    /// The colour bar, with ticks and units.
    fn draw_bar(&self, canvas: &mut Canvas, (left, top): (f64, f64), height: f64) -> Result<()> {
        let style = Text { colour: FAINT_INK, ..Text::new(12.0, HPos::Left, VPos::Center) };
        canvas.text(&self.scale.units, (left, top + 7.0), style)?;
        // Room for the units above, and half a label below.
        let (top, height) = (top + 20.0, (height - 25.0).max(10.0));
        let steps = 256;
        let span = self.scale.high - self.scale.low;
        let values = (0..steps).map(|i| self.scale.high - span * i as f64 / (steps - 1) as f64);
        let ramp =
            Image { values: values.map(|v| v as f32).collect(), height: steps, width: 1, spacing: [1.0; 2] };
        canvas.image(&ramp, &self.scale, (left, top), (BAR, height));
        canvas.frame((left, top), (BAR, height))?;
        let ticks = round_values(self.scale.low, self.scale.high, (height / 44.0).clamp(2.0, 8.0) as usize);
        let digits = decimals(&ticks);
        for tick in &ticks {
            let y = top + height * (self.scale.high - tick) / span;
            canvas.line(&[(left + BAR, y), (left + BAR + 4.0, y)], 0.7, FAINT_INK)?;
            let style = Text::new(12.0, HPos::Left, VPos::Center);
            canvas.text(&label(*tick, digits), (left + BAR + 7.0, y), style)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disc(value: f32) -> Image {
        let inside = |i: usize| (i / 20).abs_diff(10).pow(2) + (i % 20).abs_diff(10).pow(2) < 64;
        let values = (0..400).map(|i| if inside(i) { value } else { 0.0 }).collect();
        Image { values, height: 20, width: 20, spacing: [1.0, 1.0] }
    }

    #[test]
    fn a_comparison_has_images_errors_and_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("montage.png");
        let candidate = Panel::new("estimate", "PSNR 20 dB", disc(0.5));
        let scale = Scale::gray(0.0, 1.0, "HU");
        let montage = Montage::comparison(
            Panel::new("truth", "", disc(1.0)),
            vec![candidate],
            scale,
            Scale::error(0.5, ""),
        );
        montage.unwrap().save(&path).unwrap();
        let picture = ::image::open(&path).unwrap().to_rgb8();
        let count = |wanted: [u8; 3]| picture.pixels().filter(|p| p.0 == wanted).count();
        // The disc without its blurred rim.
        let area = std::f64::consts::PI * (7.4f64 * 256.0 / 20.0).powi(2);
        let share = |colour| count(colour) as f64 / area;
        assert!((share([128; 3]) - 1.0).abs() < 0.1, "the estimate is mid-gray: {}", share([128; 3]));
        assert!((share([33, 102, 172]) - 1.0).abs() < 0.15, "its error is at the lower limit");
        let dark = |p: &&::image::Rgb<u8>| p.0.iter().all(|c| *c < 90);
        let title = ::image::imageops::crop_imm(&picture, 0, 0, picture.width(), 30).to_image();
        assert!(title.pixels().filter(dark).count() > 100, "the titles are drawn without a system font");
    }

    #[test]
    fn what_cannot_be_drawn_is_an_error_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let scale = Scale::gray(0.0, 1.0, "");
        let path = folder.path().join("a.png");
        let empty =
            Montage { rows: vec![Row { scale: scale.clone(), panels: vec![None] }], panel_width: 100 };
        assert!(empty.save(&path).is_err());
        let panels = vec![Some(Panel::new("", "", disc(1.0)))];
        let huge = Montage { rows: vec![Row { scale, panels }], panel_width: 1 << 20 };
        assert!(huge.save(&path).is_err());
        let good = Montage { panel_width: 64, ..huge };
        assert!(good.save(folder.path().join("no/such/folder.png")).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
