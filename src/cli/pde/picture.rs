//! Pictures of solutions: curves in 1-D, images in 2-D.

use std::path::Path;

use ndarray::{Array1, ArrayD};
use wellposed::error::{Error, Result};
use wellposed::gp::{Data, PdeSolution, Problem, tensor_grid};
use wellposed::plot::{Curves, Image, Montage, Panel, Row, Scale, Series};

use crate::cli::output::beside;

/// Draws the solution to `path`; in 1-D its error and spectrum beside it.
///
/// # Errors
/// The problem has three axes, or a file can't be written.
pub fn draw(problem: &Problem, exact: Option<&Data>, solution: &PdeSolution, path: &Path) -> Result<()> {
    match problem.dim() {
        1 => curves(problem, exact, solution, path),
        2 => images(problem, exact, solution, path),
        _ => Err(Error::Unsupported("pictures of problems with three axes".into())),
    }
}

fn series(name: &str, x: &Array1<f64>, y: impl IntoIterator<Item = f64>) -> Series {
    Series { name: name.into(), points: x.iter().copied().zip(y).collect() }
}

fn curves(problem: &Problem, exact: Option<&Data>, solution: &PdeSolution, path: &Path) -> Result<()> {
    let axes = problem.uniform_axes(1000);
    let (x, points) = (&axes[0], tensor_grid(&axes));
    let u = solution.mean(&points)?;
    let mut lines = vec![series("u", x, u.to_vec())];
    let truth = exact.map(|exact| exact.at(&points)).transpose()?;
    if let Some(truth) = &truth {
        lines.push(series("exact", x, truth.to_vec()));
    }
    // An engine without variance draws no band.
    if let Ok(deviation) = solution.deviation(&points) {
        lines.push(series("u − 2σ", x, (&u - &(&deviation * 2.0)).to_vec()));
        lines.push(series("u + 2σ", x, (&u + &(&deviation * 2.0)).to_vec()));
    }
    let labels = Curves { x_label: "x".into(), ..Curves::default() };
    Curves { title: "solution".into(), y_label: "u".into(), series: lines, ..labels.clone() }.save(path)?;
    if let Some(truth) = truth {
        let error = vec![series("", x, (&u - &truth).mapv(f64::abs).to_vec())];
        let error = Curves {
            title: "error".into(),
            y_label: "|u − exact|".into(),
            log_y: true,
            series: error,
            ..labels
        };
        error.save(beside(path, ".error.png"))?;
    }
    if solution.spectrum.is_empty() {
        return Ok(());
    }
    // Each line as a stem.
    let least = solution.spectrum.iter().map(|l| l.weight).filter(|w| *w > 0.0).fold(1.0, f64::min);
    let stem = |frequency: f64, weight: f64| Series {
        name: String::new(),
        points: vec![(frequency, 0.5 * least), (frequency, weight.max(0.5 * least))],
    };
    let stems = solution.spectrum.iter().map(|line| stem(line.frequency, line.weight)).collect();
    let spectrum = Curves {
        title: "spectrum of the prior".into(),
        x_label: "angular frequency".into(),
        y_label: "relative weight".into(),
        log_y: true,
        series: stems,
        ..Curves::default()
    };
    spectrum.save(beside(path, ".spectrum.png"))
}

fn images(problem: &Problem, exact: Option<&Data>, solution: &PdeSolution, path: &Path) -> Result<()> {
    let axes = problem.uniform_axes(256);
    let u = solution.mean_on_grid(&axes)?;
    let limit = u.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    let scale = Scale::error(limit, "");
    let panel = |title: &str, values: &ArrayD<f64>| {
        Ok::<_, Error>(Some(Panel::new(title, "", Image::of_function(values)?)))
    };
    let Some(exact) = exact else {
        let rows = vec![Row { scale, panels: vec![panel("u", &u)?] }];
        return Montage { rows, panel_width: 320 }.save(path);
    };
    let error = &u - &exact.on_grid(&axes)?;
    let largest = error.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
    // The colour bar has no room for small numbers.
    let decade = 10f64.powf(largest.log10().floor());
    let rows = vec![
        Row { scale, panels: vec![panel("u", &u)?] },
        Row {
            scale: Scale::error(largest / decade, ""),
            panels: vec![panel(&format!("(u − exact) / {decade:.0e}"), &error.mapv(|e| e / decade))?],
        },
    ];
    Montage { rows, panel_width: 320 }.save(path)
}
