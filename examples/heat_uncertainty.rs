//! Heat conduction from a noisy start,
//!
//!   u_t = 0.05 u_xx on [0, 1]²,  u(x, 0) = sin πx + 0.3 sin 4πx + errors of 0.1,  u = 0 at both ends,
//!
//! solved by Gaussian-process collocation: the uncertainty of the start fades with the heat.
//!
//! cargo run --release --example heat_uncertainty -- [FOLDER] [SIZE]   (target/examples-output and 22 points an axis)

use std::f64::consts::PI;
use std::path::PathBuf;

use ndarray::{Array1, Array2};
use wellposed::error::{Error, Result};
use wellposed::gp::kernel::{Kernel1d, Stationary};
use wellposed::gp::{Collocation, Data, Derivative, DifferentialOperator, Face, Observation, Problem};
use wellposed::plot::{Curves, Series};
use wellposed::tensor::random::Noise;

const DIFFUSIVITY: f64 = 0.05;

fn exact(x: f64, t: f64) -> f64 {
    let mode = |k: f64| (-DIFFUSIVITY * (k * PI).powi(2) * t).exp() * (k * PI * x).sin();
    mode(1.0) + 0.3 * mode(4.0)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(22);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;

    // The start is measured at 30 places, with errors.
    let place = Array1::linspace(0.02, 0.98, 30);
    let errors = Noise::new(11, 0);
    let measured: Array1<f64> = place
        .iter()
        .enumerate()
        .map(|(i, &x)| exact(x, 0.0) + 0.1 * errors.normal_pair(i as u64).0)
        .collect();
    let start = Observation {
        derivative: Derivative::VALUE,
        points: Array2::from_shape_fn((30, 2), |(i, axis)| if axis == 0 { place[i] } else { 0.0 }),
        values: measured,
        noise: 0.1,
    };
    let problem = Problem::new(&[[0.0, 1.0]; 2])
        .operator(
            DifferentialOperator::default()
                .with(Derivative::along(1, 1), 1.0)
                .with(Derivative::along(0, 2), -DIFFUSIVITY),
        )
        .source(Data::Constant(0.0))
        .dirichlet(Face::low(0), 0.0)
        .dirichlet(Face::high(0), 0.0)
        .observe(start);

    // A prior of lengths 0.15 in space and 0.4 in time.
    let kernel = |length| Ok::<_, Error>(Stationary::squared_exponential(1.0, length)?.boxed());
    let engine = Collocation {
        points: size,
        kernels: Some(vec![kernel(0.15)?, kernel(0.4)?]),
        ..Collocation::default()
    };
    let solution = engine.solve(&problem)?;

    let x = Array1::linspace(0.0, 1.0, 200);
    for t in [0.0, 0.3] {
        let points = Array2::from_shape_fn((200, 2), |(i, axis)| if axis == 0 { x[i] } else { t });
        let (mean, band) = (solution.mean(&points)?, solution.deviation(&points)? * 1.96);
        let truth = x.mapv(|x| exact(x, t));
        let inside = (0..200).filter(|&i| (mean[i] - truth[i]).abs() <= band[i] + 1e-9).count();
        println!(
            "t = {t}: widest 95 % interval ±{:.3}, coverage {:.2}",
            band.fold(0.0f64, |m, v| v.max(m)),
            inside as f64 / 200.0
        );
        let curves =
            [("mean", mean.clone()), ("exact", truth), ("2.5 %", &mean - &band), ("97.5 %", mean + band)];
        let series = curves
            .map(|(name, y)| Series { name: name.into(), points: x.iter().copied().zip(y).collect() })
            .to_vec();
        let title = format!("heat from a noisy start, t = {t}");
        Curves { title, x_label: "x".into(), y_label: "u".into(), series, ..Curves::default() }
            .save(folder.join(format!("heat_uncertainty-{t}.png")))?;
    }
    println!("pictures: {}/heat_uncertainty-*.png", folder.display());
    Ok(())
}
