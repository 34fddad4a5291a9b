//! Diagrams of curves: convergence, profiles.

use std::path::Path;

use crate::error::{Error, Result};
use crate::plot::axes::Axis;
use crate::plot::canvas::{Canvas, FAINT_INK, GRID, HPos, Text, VPos};

/// Colours that people with colour-blindness tell apart (Okabe, Ito 2008), with the yellow left out.
const PALETTE: [[u8; 3]; 7] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [86, 180, 233],
    [230, 159, 0],
    [60, 60, 60],
];

const LEFT: f64 = 78.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 42.0;
const BOTTOM: f64 = 54.0;

/// A named curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points; what can't be shown (NaN, or not positive on a logarithmic axis) leaves a gap.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// A curve through `values` at 1, 2, 3, …: the history of an iteration.
    pub fn history(name: impl Into<String>, values: &[f64]) -> Self {
        Self { name: name.into(), points: (1..).map(f64::from).zip(values.iter().copied()).collect() }
    }

    /// A curve through `values` at 0, `step`, 2 `step`, …: a profile through an image.
    pub fn profile(name: impl Into<String>, values: &[f32], step: f64) -> Self {
        let points = values.iter().enumerate().map(|(i, v)| (i as f64 * step, f64::from(*v)));
        Self { name: name.into(), points: points.collect() }
    }
}

/// A diagram of curves over common axes.
///
/// ```no_run
/// use wellposed::plot::{Curves, Series};
/// let residuals: Vec<f64> = (0..50).map(|i| 0.8f64.powi(i)).collect();
/// Curves::convergence("relative residual", vec![Series::history("CG", &residuals)]).save("curve.png")?;
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Curves {
    /// Over the diagram; may be empty.
    pub title: String,
    /// Under the horizontal axis, with units.
    pub x_label: String,
    /// Beside the vertical axis, with units.
    pub y_label: String,
    /// Logarithmic horizontal axis.
    pub log_x: bool,
    /// Logarithmic vertical axis.
    pub log_y: bool,
    /// The curves.
    pub series: Vec<Series>,
}

impl Curves {
    /// A measure against the iteration, on a logarithmic vertical axis.
    pub fn convergence(measure: impl Into<String>, series: Vec<Series>) -> Self {
        Self { x_label: "iteration".into(), y_label: measure.into(), log_y: true, series, ..Self::default() }
    }

    /// Values along a line, against the distance in mm.
    pub fn profile(units: impl Into<String>, series: Vec<Series>) -> Self {
        Self { x_label: "distance (mm)".into(), y_label: units.into(), series, ..Self::default() }
    }

    /// Writes the diagram as a PNG file of 760 × 460 pixels.
    ///
    /// # Errors
    /// No curve, a file that can't be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        if self.series.iter().all(|s| s.points.is_empty()) {
            return Err(Error::parameter("curves", "no points", "expected at least one"));
        }
        let (width, height) = (760.0, 460.0);
        let mut canvas = Canvas::new(width, height)?;
        let points = || self.series.iter().flat_map(|s| s.points.iter());
        let frame = Frame {
            x: Axis::fit(points().map(|p| p.0), self.log_x, 0.0),
            y: Axis::fit(points().map(|p| p.1), self.log_y, 0.05),
            left: LEFT,
            right: width - RIGHT,
            top: if self.title.is_empty() { 16.0 } else { TOP },
            bottom: height - BOTTOM,
        };
        frame.draw_grid(&mut canvas)?;
        self.draw_labels(&mut canvas, &frame)?;
        for (index, series) in self.series.iter().enumerate() {
            frame.draw_series(&mut canvas, series, PALETTE[index % PALETTE.len()])?;
        }
        if self.series.len() > 1 || !self.series[0].name.is_empty() {
            self.draw_legend(&mut canvas, &frame)?;
        }
        canvas.save(path.as_ref())
    }

    fn draw_labels(&self, canvas: &mut Canvas, frame: &Frame) -> Result<()> {
        let middle = ((frame.left + frame.right) / 2.0, (frame.top + frame.bottom) / 2.0);
        let label = Text::new(15.0, HPos::Center, VPos::Center);
        canvas.text(&self.x_label, (middle.0, frame.bottom + 38.0), label)?;
        canvas.text(&self.y_label, (16.0, middle.1), Text { upward: true, ..label })?;
        let title = Text { bold: true, ..Text::new(17.0, HPos::Center, VPos::Center) };
        canvas.text(&self.title, (middle.0, frame.top / 2.0), title)
    }

    /// The legend, in the corner where it hides the fewest points.
    fn draw_legend(&self, canvas: &mut Canvas, frame: &Frame) -> Result<()> {
        let longest = self.series.iter().map(|s| s.name.chars().count()).max().unwrap_or(0);
        let (width, height) = (48.0 + 8.6 * longest as f64, 12.0 + 21.0 * self.series.len() as f64);
        let inset = 10.0;
        let corners = [
            (frame.right - inset - width, frame.top + inset),
            (frame.left + inset, frame.top + inset),
            (frame.right - inset - width, frame.bottom - inset - height),
            (frame.left + inset, frame.bottom - inset - height),
        ];
        let hidden = |corner: &(f64, f64)| {
            let inside = |p: &(f64, f64)| {
                (corner.0..corner.0 + width).contains(&p.0) && (corner.1..corner.1 + height).contains(&p.1)
            };
            let points = self.series.iter().flat_map(|s| s.points.iter().filter_map(|p| frame.place(*p)));
            points.filter(inside).count()
        };
        let Some(&(left, top)) = corners.iter().min_by_key(|c| hidden(c)) else { return Ok(()) };
        canvas.rectangle((left, top), (left + width, top + height), [250, 250, 250])?;
        for (index, series) in self.series.iter().enumerate() {
            let y = top + 16.5 + 21.0 * index as f64;
            canvas.line(&[(left + 10.0, y), (left + 34.0, y)], 2.4, PALETTE[index % PALETTE.len()])?;
            canvas.text(&series.name, (left + 42.0, y), Text::new(14.0, HPos::Left, VPos::Center))?;
        }
        Ok(())
    }
}

/// The place of a diagram on the canvas, and its axes.
struct Frame {
    x: Axis,
    y: Axis,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Frame {
    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.across(self.x.place(x)?), self.up(self.y.place(y)?)))
    }

    fn across(&self, part: f64) -> f64 {
        self.left + part * (self.right - self.left)
    }

    fn up(&self, part: f64) -> f64 {
        self.bottom - part * (self.bottom - self.top)
    }

    fn draw_grid(&self, canvas: &mut Canvas) -> Result<()> {
        for part in self.y.minor() {
            canvas.line(&[(self.left, self.up(part)), (self.right, self.up(part))], 0.4, GRID)?;
        }
        for part in self.x.minor() {
            canvas.line(&[(self.across(part), self.top), (self.across(part), self.bottom)], 0.4, GRID)?;
        }
        for (part, label) in self.y.ticks(6) {
            let y = self.up(part);
            canvas.line(&[(self.left, y), (self.right, y)], 1.0, GRID)?;
            canvas.text(&label, (self.left - 8.0, y), Text::new(13.0, HPos::Right, VPos::Center))?;
        }
        for (part, label) in self.x.ticks(8) {
            let x = self.across(part);
            canvas.line(&[(x, self.top), (x, self.bottom)], 1.0, GRID)?;
            canvas.text(&label, (x, self.bottom + 14.0), Text::new(13.0, HPos::Center, VPos::Center))?;
        }
        let corner = (self.left, self.bottom);
        canvas.line(&[(self.left, self.top), corner, (self.right, self.bottom)], 1.2, FAINT_INK)
    }

    fn draw_series(&self, canvas: &mut Canvas, series: &Series, colour: [u8; 3]) -> Result<()> {
        let places: Vec<_> = series.points.iter().map(|p| self.place(*p)).collect();
        for run in places.split(Option::is_none) {
            let run: Vec<_> = run.iter().flatten().copied().collect();
            if run.len() > 1 {
                canvas.line(&run, 2.0, colour)?;
            }
            if run.len() < 16 {
                run.iter().try_for_each(|p| canvas.disc(*p, 3.4, colour))?;
            }
        }
        Ok(())
    }
}
