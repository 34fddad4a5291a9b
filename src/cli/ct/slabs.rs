//! Reconstruction in slabs: volumes larger than the memory that may be used, a few slices after the other.

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use candle_core::Tensor;
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{Beam, CtScan, SliceWriter, Volume};
use wellposed::observe::{Observer, Step, Termination};
use wellposed::tensor::memory;

use super::method::{Method, Settings};
use super::rays::{Rays, volume_grid};
use super::rows::Rows;
use super::scan;
use crate::cli::deliver::{Options, usable};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::progress::{self, Progress};
use crate::cli::report::Report;
use crate::cli::{output, view};

const GIB: f64 = (1u64 << 30) as f64;

/// Slices in parts that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slabs {
    slices: usize,
    thickness: usize,
}

impl Slabs {
    /// As few slabs as `bound` allows, of about equal thickness; `need` tells the bytes of slabs so many slices thick, the
    /// more the thicker. Nothing where a single slice needs more.
    fn fitting(slices: usize, bound: f64, need: impl Fn(usize) -> f64) -> Option<Self> {
        let (mut fits, mut beyond) = (0, slices + 1);
        while beyond - fits > 1 {
            let middle = (fits + beyond) / 2;
            if need(middle) <= bound { fits = middle } else { beyond = middle }
        }
        let count = slices.div_ceil(fits.max(1));
        (fits > 0).then(|| Self { slices, thickness: slices.div_ceil(count) })
    }

    fn count(&self) -> usize {
        self.slices.div_ceil(self.thickness)
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let Self { slices, thickness } = *self;
        (0..slices).step_by(thickness).map(move |first| first..(first + thickness).min(slices))
    }
}

/// What a reconstruction of some slices needs.
struct Need<'a> {
    source: &'a dyn Rows,
    /// Arrays of the size of the slices and of their projections.
    arrays: [f64; 2],
}

impl Need<'_> {
    /// The detector rows that some slices are made of.
    fn rows(&self, slices: Range<usize>) -> Outcome<Range<usize>> {
        rows_behind(self.source, slices)
    }

    /// Bytes of the thickest of slabs.
    fn bytes(&self, thickness: usize) -> f64 {
        let [_, views, columns] = self.source.shape();
        let [slices, height, width] = self.source.target().shape();
        let slabs = Slabs { slices, thickness };
        let rows =
            slabs.ranges().map(|slab| self.rows(slab).map_or(self.source.shape()[0], |rows| rows.len()));
        let of = |count: usize, plane: usize| 4.0 * count as f64 * plane as f64;
        self.source.resident() as f64
            + self.arrays[0] * of(thickness, height * width)
            + self.arrays[1] * of(rows.max().unwrap_or(1), views * columns)
    }
}

/// The detector rows that some slices are made of: their own, or those that their shadow falls on.
fn rows_behind(source: &dyn Rows, slices: Range<usize>) -> Outcome<Range<usize>> {
    if !matches!(source.geometry().beam, Beam::Cone { .. }) {
        return Ok(slices);
    }
    let Rays::Cone(beam, _) = Rays::new(source.geometry(), source.shape())? else { return Ok(slices) };
    Ok(beam.rows_behind(&volume_grid(source.target())?, slices))
}

/// The slabs in which a volume is reconstructed within `bound` GiB; nothing where it fits as a whole.
///
/// # Errors
/// [`Failure::Usage`] where the method needs all slices at once, or a slice alone is too much.
pub fn plan(source: &dyn Rows, method: Method, settings: &Settings, bound: f64) -> Outcome<Option<Slabs>> {
    let need = Need { source, arrays: method.arrays(source.has_weights()) };
    let slices = source.target().shape()[0];
    let (whole, bytes) = (need.bytes(slices), bound * GIB);
    if whole <= bytes {
        return Ok(None);
    }
    let refuse = |why: &str, bytes: f64| {
        Err(Failure::usage("--memory", bound, &format!("{why} {:.3} GiB", bytes / GIB)))
    };
    if matches!(source.geometry().beam, Beam::Cone { .. }) && method != Method::Fbp {
        return refuse(
            &format!("{} of a cone beam works on all slices at once, which takes", method.name()),
            whole,
        );
    }
    if settings.coupled() {
        return refuse("--coupled works on all slices at once, which takes", whole);
    }
    match Slabs::fitting(slices, bytes, |thickness| need.bytes(thickness)) {
        Some(slabs) => Ok(Some(slabs)),
        None => refuse("a single slice takes", need.bytes(1)),
    }
}

/// Shows the steps of one slab as part of all.
struct Part<'a> {
    progress: &'a Progress,
    slab: usize,
    count: usize,
    last: Option<(String, f64)>,
}

impl Observer for Part<'_> {
    fn observe(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        let (name, value) = step.measure;
        self.last = Some((name.into(), value));
        let message = format!("slab {} of {}, {name} {value:.3e}", self.slab + 1, self.count);
        let done = self.slab * step.total + step.iteration;
        match self.progress.tick(done, self.count * step.total, &message) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

/// What all slabs together came to.
#[derive(Default)]
struct Outline {
    steps: usize,
    /// The last value of what the method watches, the largest of all slabs.
    measure: Option<(String, f64)>,
    termination: Option<Termination>,
    middle: Option<Volume>,
}

/// A reconstruction in slabs.
struct Run<'a> {
    source: &'a dyn Rows,
    method: Method,
    settings: Settings,
    slabs: Slabs,
    progress: Progress,
}

impl Run<'_> {
    fn interrupted(&self, slab: usize) -> Failure {
        let reason = format!("stopped in slab {} of {}; nothing is written", slab + 1, self.slabs.count());
        Error::Unsupported(reason).into()
    }

    /// Strength of the total variation, which belongs to the whole volume.
    fn find_strength(&mut self) -> Outcome {
        let (mut strength, count) = (0f64, self.slabs.count());
        for (slab, slices) in self.slabs.ranges().enumerate() {
            if !self.progress.tick(slab, count, "strength of the total variation") {
                return Err(self.interrupted(slab));
            }
            strength = strength.max(Method::strength_of_data(&self.source.rows(slices)?)?);
        }
        self.settings = self.settings.with_strength_of_data(strength);
        Ok(())
    }

    /// Attenuation in 1/mm [slice, row, column].
    fn reconstruct(
        &self,
        slab: usize,
        slices: Range<usize>,
        outline: &mut Outline,
    ) -> Outcome<(CtScan, Tensor)> {
        let scan = self.source.rows(rows_behind(self.source, slices.clone())?)?;
        if let Rays::Cone(beam, _) = Rays::of(&scan)? {
            let grid = volume_grid(&scan.target)?;
            let mu =
                self.settings.fbp().reconstruct_slices(&grid, slices.clone(), &beam, &scan.projections)?;
            (outline.steps, outline.termination) = (1, Some(Termination::Completed));
            let target = scan.target.slices(slices)?;
            return Ok((CtScan { target, ..scan }, mu));
        }
        let mut part = Part { progress: &self.progress, slab, count: self.slabs.count(), last: None };
        let solution = self.method.reconstruct(&scan, &self.settings, &mut part)?;
        if solution.termination == Termination::Cancelled {
            return Err(self.interrupted(slab));
        }
        let mu = usable(&solution, self.method.name())?.clone();
        outline.steps = outline.steps.max(solution.steps);
        if outline.termination.is_none_or(|t| t != Termination::MaxIterations) {
            outline.termination = Some(solution.termination);
        }
        if part.last.as_ref().map(|l| l.1) > outline.measure.as_ref().map(|m| m.1) {
            outline.measure = part.last;
        }
        Ok((scan, mu))
    }

    fn write(&self, options: &Options) -> Outcome<Outline> {
        let (target, count) = (self.source.target(), self.slabs.count());
        let mut outline = Outline::default();
        let refused = |error| match error {
            error @ Error::Parameter { .. } => Failure::Usage(format!("{error}")),
            error => error.into(),
        };
        let mut writer = SliceWriter::create(&options.output, target, self.source.unit()).map_err(refused)?;
        let middle = target.shape()[0] / 2;
        for (slab, slices) in self.slabs.ranges().enumerate() {
            if progress::interrupted() {
                return Err(self.interrupted(slab));
            }
            if self.method == Method::Fbp {
                self.progress.tick(slab, count, "slabs");
            }
            let (scan, mu) = self.reconstruct(slab, slices.clone(), &mut outline)?;
            let volume = scan::volume(&scan, &mu)?;
            writer.append(volume.data())?;
            if slices.contains(&middle) {
                outline.middle = Some(volume.slices(middle - slices.start..middle - slices.start + 1)?);
            }
        }
        writer.finish()?;
        Ok(outline)
    }
}

/// Reconstructs, writes and reports as the method does with the whole volume.
///
/// # Errors
/// [`Failure::Usage`] for a reference, and for formats that don't grow; an error where the user interrupts, and then
/// there is no output.
pub fn run(
    source: &dyn Rows,
    method: Method,
    settings: Settings,
    slabs: Slabs,
    options: &Options,
    config: &impl Serialize,
) -> Outcome {
    if let Some(reference) = &options.reference {
        let reason = "the volume doesn't fit into --memory; compare it afterwards, with `wellposed compare`";
        return Err(Failure::usage("--reference", reference.display(), reason));
    }
    output::check(&options.output, true, options.plot.as_deref())?;
    memory::return_freed();
    let start = Instant::now();
    let mut run = Run { source, method, settings, slabs, progress: Progress::new(method.name()) };
    if method == Method::Tv && !source.has_weights() {
        run.find_strength()?;
    }
    let outline = run.write(options)?;
    run.progress.finish();
    source.remark();
    output::save_config(&options.output, "ct reconstruct", config)?;
    if let (Some(plot), Some(middle)) = (&options.plot, &outline.middle) {
        view::overview(method.name(), middle, options.window)?.save(plot)?;
    }
    let report = Report {
        method: Some(method.name().into()),
        slabs: Some(slabs.count()),
        iterations: outline.steps,
        termination: outline.termination.unwrap_or(Termination::Completed).name(),
        measure: outline.measure,
        output: Some(options.output.clone()),
        ..Report::new("ct reconstruct", start.elapsed().as_secs_f64())
    };
    report.print(options.json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_few_even_and_whole() {
        for (slices, bound, expected) in
            [(10, 100.0, 1), (10, 35.0, 4), (10, 10.0, 10), (7, 59.0, 2), (1, 10.0, 1)]
        {
            let slabs = Slabs::fitting(slices, bound, |n| 10.0 * n as f64).unwrap();
            let ranges: Vec<_> = slabs.ranges().collect();
            assert_eq!((ranges.len(), slabs.count()), (expected, expected), "{slices} slices in {bound}");
            assert!(ranges.iter().all(|r| 10.0 * r.len() as f64 <= bound));
            assert!(ranges.windows(2).all(|w| w[0].end == w[1].start && w[0].len() >= w[1].len()));
            assert_eq!(ranges[0].len(), slices.div_ceil(expected), "{slices} slices in {bound}");
            assert_eq!((ranges[0].start, ranges[expected - 1].end), (0, slices));
        }
        assert_eq!(Slabs::fitting(3, 9.0, |n| 10.0 * n as f64), None);
    }
}
