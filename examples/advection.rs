//! Advection at high speed,
//!
//!   u_t + 200 u_x = 0 on [0, 1]²,  u = sin(x − 200t) at inflow and at the start,
//!
//! with time as an axis like the other. The frequencies in time come from the inflow, those in x from the dispersion
//! relation: f is zero.
//!
//! cargo run --release --example advection -- [FOLDER] [SIZE]   (target/examples-output and 200 points an axis)

use std::path::PathBuf;

use ndarray::ArrayD;
use wellposed::error::{Error, Result};
use wellposed::gp::benchmark::case;
use wellposed::gp::{Derivative, WeightSpace};
use wellposed::plot::{Image, Montage, Panel, Row, Scale};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(200);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;

    // Problem and solver.
    let case = case("advection")?;
    let solution = WeightSpace { points: Some(size), ..WeightSpace::default() }.solve(&case.problem)?;

    // Result.
    println!(
        "{} unknowns, error {:.1e}, residual {:.1e}, {:.1} ms",
        solution.unknowns,
        case.error_l2(&solution)?,
        solution.residual.worst(),
        1e3 * solution.elapsed.as_secs_f64()
    );
    for line in solution.spectrum.iter().filter(|line| line.weight > 1e-3) {
        println!("axis {}: ω = {:.4}, relative amplitude {:.3}", line.axis, line.frequency, line.weight);
    }

    // Pictures: x to the right, t upwards.
    let axes = case.problem.uniform_axes(256);
    let u = solution.mean_on_grid(&axes)?;
    let error = &u - &case.exact.on_grid(&axes, Derivative::VALUE);
    let row = |title: &str, values: &ArrayD<f64>, units: f64| -> Result<Row> {
        let values = values.mapv(|v| v / units);
        let limit = values.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
        let panel = Panel::new(title, "", Image::of_function(&values)?);
        Ok(Row { scale: Scale::error(limit, ""), panels: vec![Some(panel)] })
    };
    let rows = vec![row("u", &u, 1.0)?, row("(u − exact) / 1e-13", &error, 1e-13)?];
    Montage { rows, panel_width: 320 }.save(folder.join("advection.png"))?;
    println!("picture: {}/advection.png", folder.display());
    Ok(())
}
