//! A high-frequency Poisson problem,
//!
//!   u″ = f on [0, 2π],  u = sin 6x cos 100x,
//!
//! solved with exact data; and with 5 % errors in f, where integrating twice leaves the slow part of u open: thirty
//! measurements of u close it. The frequencies are found in f.
//!
//! cargo run --release --example poisson_1d_high_frequency -- [FOLDER] [SIZE]   (target/examples-output and 400 points)

use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2};
use wellposed::error::{Error, Result};
use wellposed::gp::benchmark::{Case, case};
use wellposed::gp::{Derivative, Observation, PdeSolution, WeightSpace, tensor_grid};
use wellposed::plot::{Curves, Series};
use wellposed::tensor::random::Noise;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(400);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;

    // Truth and problem.
    let case = case("poisson-1d-sin-cos")?;

    // Exact data.
    let engine = WeightSpace { points: Some(size), ..WeightSpace::default() };
    let exact = engine.solve(&case.problem)?;
    println!(
        "exact f:               error {:.1e}, residual {:.1e}, {:.1} ms",
        case.error_l2(&exact)?,
        exact.residual.worst(),
        1e3 * exact.elapsed.as_secs_f64()
    );

    // Noisy source; then measurements of u as well.
    let noisy = case.noisy(size, 0.05, 1)?;
    let open = engine.solve(&noisy.problem)?;
    let measured = Case { problem: noisy.problem.clone().observe(measurements(&case)), ..noisy.clone() };
    let closed = engine.solve(&measured.problem)?;
    for (name, solution) in [("5 % noise in f:       ", &open), ("and 30 values of u:   ", &closed)] {
        println!("{name} error {:.1e}, coverage {:.2}", case.error_l2(solution)?, case.coverage(solution)?);
    }
    draw(&case, &exact, &closed, &folder)
}

/// u at thirty places, with errors of 0.02.
fn measurements(case: &Case) -> Observation {
    let (place, errors) = (Noise::new(3, 0), Noise::new(4, 0));
    let points = Array2::from_shape_fn((30, 1), |(i, _)| std::f64::consts::TAU * place.uniform(i as u64));
    let value = |i: usize| {
        case.exact.value(&[points[[i, 0]]], Derivative::VALUE) + 0.02 * errors.normal_pair(i as u64).0
    };
    Observation { derivative: Derivative::VALUE, values: (0..30).map(value).collect(), points, noise: 0.02 }
}

fn curve(name: &str, x: &Array1<f64>, y: &Array1<f64>) -> Series {
    Series { name: name.into(), points: x.iter().copied().zip(y.iter().copied()).collect() }
}

/// A stretch of the noisy solution with its 95 % band, the error of the exact one, and the spectrum found.
fn draw(case: &Case, exact: &PdeSolution, noisy: &PdeSolution, folder: &Path) -> Result<()> {
    let truth = |x: &Array1<f64>| x.mapv(|x| case.exact.value(&[x], Derivative::VALUE));
    let x = Array1::linspace(1.0, 1.4, 400);
    let points = tensor_grid(std::slice::from_ref(&x));
    let (mean, band) = (noisy.mean(&points)?, noisy.deviation(&points)? * 1.96);
    Curves {
        title: "u_xx = f, 5 % errors in f, 30 values of u".into(),
        x_label: "x".into(),
        y_label: "u".into(),
        series: vec![
            curve("posterior mean", &x, &mean),
            curve("exact", &x, &truth(&x)),
            curve("2.5 %", &x, &(&mean - &band)),
            curve("97.5 %", &x, &(&mean + &band)),
        ],
        ..Curves::default()
    }
    .save(folder.join("poisson_1d_high_frequency.png"))?;

    let x = Array1::linspace(0.0, std::f64::consts::TAU, 1000);
    let points = tensor_grid(std::slice::from_ref(&x));
    // Zeros have no logarithm.
    let error = (exact.mean(&points)? - truth(&x)).mapv(|e| e.abs().max(1e-17));
    let deviation = exact.deviation(&points)?.mapv(|s| s.max(1e-17));
    Curves {
        title: "exact data".into(),
        x_label: "x".into(),
        y_label: "|u − exact|".into(),
        log_y: true,
        series: vec![curve("error", &x, &error), curve("posterior σ", &x, &deviation)],
        ..Curves::default()
    }
    .save(folder.join("poisson_1d_high_frequency-error.png"))?;

    // Each line as a stem.
    let stems = exact.spectrum.iter().map(|line| Series {
        name: format!("ω = {:.3}", line.frequency),
        points: vec![(line.frequency, 1e-4), (line.frequency, line.weight)],
    });
    Curves {
        title: "lines found in f".into(),
        x_label: "angular frequency".into(),
        y_label: "relative amplitude".into(),
        log_y: true,
        series: stems.collect(),
        ..Curves::default()
    }
    .save(folder.join("poisson_1d_high_frequency-spectrum.png"))?;
    println!("pictures: {}/poisson_1d_high_frequency*.png", folder.display());
    Ok(())
}
