//! Darcy flow backwards: a permeability from noisy pressures,
//!
//!   −∇·(a ∇u) = 10 on [0, 1]²,  u = 0 on the boundary,  log a = Σ θ_k φ_k,  θ ~ N(0, 1),
//!
//! with φ the products of cosines of low order. θ is found by Gauss–Newton, with Laplace's uncertainty.
//!
//! cargo run --release --example darcy_inverse -- [FOLDER] [SIZE]   (target/examples-output and 12 points an axis)

use std::f64::consts::PI;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use ndarray::{Array1, Array2};
use wellposed::error::{Error, Result};
use wellposed::gp::kernel::{Kernel1d, Stationary};
use wellposed::gp::{Collocation, Data, Derivative, DifferentialOperator, Inference, PdeSolution, Problem};
use wellposed::plot::{Image, Montage, Panel, Row, Scale};
use wellposed::tensor::random::Noise;

/// Orders (i, j) of the modes cos iπx cos jπy.
const MODES: [(f64, f64); 4] = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)];

/// log a, its x-derivative and its y-derivative.
fn log_field(theta: &[f64], x: &[f64]) -> [f64; 3] {
    let mut sum = [0.0; 3];
    for (t, (i, j)) in theta.iter().zip(MODES) {
        let ((si, ci), (sj, cj)) = ((i * PI * x[0]).sin_cos(), (j * PI * x[1]).sin_cos());
        sum[0] += t * ci * cj;
        sum[1] -= t * i * PI * si * cj;
        sum[2] -= t * j * PI * ci * sj;
    }
    sum
}

/// Divided by a, the equation is −Δu − ∇log a · ∇u = 10/a.
fn problem(theta: &[f64]) -> Result<Problem> {
    let slope = |axis: usize| {
        let theta = theta.to_vec();
        Data::function(move |x| -log_field(&theta, x)[axis + 1])
    };
    let mut operator = DifferentialOperator::default();
    for axis in 0..2 {
        operator =
            operator.with(Derivative::along(axis, 2), -1.0).with(Derivative::along(axis, 1), slope(axis));
    }
    let theta = theta.to_vec();
    let source = Data::function(move |x| 10.0 * (-log_field(&theta, x)[0]).exp());
    Ok(Problem::new(&[[0.0, 1.0]; 2]).operator(operator).source(source).dirichlet_everywhere(0.0))
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let points: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(12);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    let kernel = Stationary::squared_exponential(1.0, 0.4)?.boxed();
    let engine = Collocation { points, kernels: Some(vec![kernel; 2]), ..Collocation::default() };
    let solve = |problem: &Problem| -> Result<PdeSolution> { engine.solve(problem) };

    // Truth and data: 60 pressures with errors of 0.01 (about 1 %).
    let truth = [0.4, -0.6, 0.3, 0.5];
    let random = Noise::new(3, 0);
    let place =
        Array2::from_shape_fn((60, 2), |(i, axis)| 0.05 + 0.9 * random.uniform((2 * i + axis) as u64));
    let clean = solve(&problem(&truth)?)?.mean(&place)?;
    let errors = Noise::new(4, 0);
    let values: Array1<f64> =
        clean.iter().enumerate().map(|(i, u)| u + 0.01 * errors.normal_pair(i as u64).0).collect();

    // Inference.
    let inference = Inference::new(place, values, 0.01, Array1::zeros(4), Array1::ones(4));
    let found = inference.run(&|theta| problem(theta), &solve)?;

    println!("{} Gauss–Newton steps, {}, misfit {:.2}", found.steps, found.termination.name(), found.misfit);
    println!("mode      truth   found   ± (one standard deviation)");
    for (k, ((mode, truth), deviation)) in MODES.iter().zip(truth).zip(found.deviation()).enumerate() {
        println!("{mode:?}  {truth:6.2}  {:6.3}   {deviation:.3}", found.parameters[k]);
    }

    // Pictures: the field, its estimate, and the standard deviation √(φᵀ C φ) of log a.
    let theta = found.parameters.to_vec();
    let spread = |x: &[f64]| {
        let phi = Array1::from_shape_fn(MODES.len(), |k| {
            let mut one = [0.0; MODES.len()];
            one[k] = 1.0;
            log_field(&one, x)[0]
        });
        phi.dot(&found.covariance.dot(&phi)).sqrt()
    };
    let panel = |title: &str, image: Image| Some(Panel::new(title, "", image));
    let fields = Row {
        scale: Scale::error(2.0, "log a"),
        panels: vec![
            panel("log a, true", image(&|x| log_field(&truth, x)[0])?),
            panel("log a, found", image(&|x| log_field(&theta, x)[0])?),
        ],
    };
    let errors = Row {
        scale: Scale::magnitude(0.1, "log a"),
        panels: vec![
            panel("|found − true|", image(&|x| (log_field(&theta, x)[0] - log_field(&truth, x)[0]).abs())?),
            panel("standard deviation", image(&spread)?),
        ],
    };
    Montage { rows: vec![fields, errors], panel_width: 280 }.save(folder.join("darcy_inverse.png"))?;
    println!("picture: {}/darcy_inverse.png", folder.display());
    Ok(())
}

/// A function on the unit square, x to the right and y upwards.
fn image(f: &dyn Fn(&[f64]) -> f64) -> Result<Image> {
    let n = 200;
    let at = |k: usize| (k as f64 + 0.5) / n as f64;
    let pixels: Vec<f32> = (0..n * n).map(|k| f(&[at(k % n), at(n - 1 - k / n)]) as f32).collect();
    Image::new(&Tensor::from_vec(pixels, (n, n), &Device::Cpu)?, [1.0, 1.0])
}
