//! A nonlinear equation,
//!
//!   u″ + u (u² − 1) = f on [0, 2π],  u = sin 6x cos 100x,
//!
//! by Newton's method: every step is one linear regression in the same features.
//!
//! cargo run --release --example allen_cahn -- [FOLDER] [SIZE]   (target/examples-output and 400 points)

use std::path::PathBuf;

use ndarray::Array1;
use wellposed::error::{Error, Result};
use wellposed::gp::benchmark::case;
use wellposed::gp::{Derivative, WeightSpace, tensor_grid};
use wellposed::plot::{Curves, Series};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(400);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;

    // Problem.
    let case = case("allen-cahn-1d-sin-cos")?;

    // The error after each number of Newton steps; the first solution leaves the nonlinear term out.
    let mut errors = Vec::new();
    for newton_steps in 0..=4 {
        let engine = WeightSpace { points: Some(size), newton_steps, ..WeightSpace::default() };
        let solution = engine.solve(&case.problem)?;
        errors.push((newton_steps as f64, case.error_l2(&solution)?));
    }
    let solution = WeightSpace { points: Some(size), ..WeightSpace::default() }.solve(&case.problem)?;

    // Result.
    println!(
        "{} Newton steps, {}, error {:.1e}, residual {:.1e}, {:.1} ms",
        solution.steps,
        solution.termination.name(),
        case.error_l2(&solution)?,
        solution.residual.worst(),
        1e3 * solution.elapsed.as_secs_f64()
    );
    Curves {
        title: "u_xx + u(u² − 1) = f".into(),
        x_label: "Newton steps".into(),
        y_label: "relative error".into(),
        log_y: true,
        series: vec![Series { name: String::new(), points: errors }],
        ..Curves::default()
    }
    .save(folder.join("allen_cahn-convergence.png"))?;
    let x = Array1::linspace(0.0, 1.5, 1000);
    let u = solution.mean(&tensor_grid(std::slice::from_ref(&x)))?;
    let exact = x.mapv(|x| case.exact.value(&[x], Derivative::VALUE));
    let curve =
        |name: &str, y: Array1<f64>| Series { name: name.into(), points: x.iter().copied().zip(y).collect() };
    Curves {
        title: "solution".into(),
        x_label: "x".into(),
        y_label: "u".into(),
        series: vec![curve("posterior mean", u), curve("exact", exact)],
        ..Curves::default()
    }
    .save(folder.join("allen_cahn.png"))?;
    println!("pictures: {}/allen_cahn.png, allen_cahn-convergence.png", folder.display());
    Ok(())
}
