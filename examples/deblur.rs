//! Deblurring: an image seen through camera shake, with noise,
//!
//!   y = k ∗ x + n,  n ~ N(0, σ²),
//!
//! is recovered as x̂ = argmin ½‖k ∗ x − y‖² + λ TV(x) with 0 ≤ x ≤ 1, and compared with Tikhonov's estimate.
//!
//! cargo run --release --example deblur -- [FOLDER] [SIZE]   (target/examples-output and 256 by default)

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use wellposed::error::Result;
use wellposed::functional::{Bounds, GroupNorm, SquaredDistance};
use wellposed::linalg::{Cgls, LinearOperator, Pdhg, StepSizes, Term};
use wellposed::metric::psnr;
use wellposed::observe::History;
use wellposed::operator::ct::ImageGrid;
use wellposed::operator::{Blur, Boundary, Gradient, motion_kernel};
use wellposed::phantom::{Contrast, shepp_logan};
use wellposed::plot::{Curves, Image, Montage, Panel, Scale, Series};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Buffer, Space, vector};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(256);
    std::fs::create_dir_all(&folder).map_err(|e| wellposed::error::Error::io(&folder, e))?;

    // Truth: the Shepp–Logan head.
    let grid = ImageGrid::new(size, size, 1.0)?;
    let truth = shepp_logan(Contrast::Modified, size as f64 / 2.0).picture::<f32>(&grid, 4)?;

    // Operator: a random camera track, the image mirrored at its edges.
    let space = Space::real(&[size, size], DType::F32, &Device::Cpu);
    let kernel = motion_kernel((size / 8) | 1, 0.5, 2)?;
    let blur = Blur::new(&space, &kernel, Boundary::Reflect)?;

    // Data: blurred, with 1 % noise.
    let mut data = Buffer::copy_of(&blur.apply(&truth)?)?;
    let noise = standard_normal(Noise::new(1, 0), &space, &[])?;
    vector::accumulate(1.0, &[(0.01, &noise)], &mut data)?;
    let data = data.freeze();

    // Tikhonov: min ½‖k ∗ x − y‖² + μ/2 ‖x‖² by conjugate gradients.
    let tikhonov = Cgls { max_iterations: 100, tolerance: 1e-4, damping: 3e-3 };
    let smooth = tikhonov.solve(&blur, &data, None, &mut ())?;

    // Total variation with bounds, by the primal-dual method.
    let gradient = Gradient::new(&space, &[0, 1])?;
    let fidelity = SquaredDistance::new(&space, 1.0)?.from(&data)?;
    let tv = GroupNorm::new(gradient.range(), 1e-3)?;
    let bounds = Bounds::new(&space, 0.0, 1.0)?;
    let terms = [Term::new(&blur, &fidelity)?, Term::new(&gradient, &tv)?];
    let steps = StepSizes::balanced(&terms, 10.0)?;
    let pdhg = Pdhg { max_iterations: 1000, tolerance: 1e-4, ..Pdhg::default() };
    let mut history = History::default();
    let sharp = pdhg.solve(&bounds, &terms, &steps, &data, &mut history)?;

    // Result.
    let note = |x: &Tensor| -> Result<String> { Ok(format!("PSNR {:.2} dB", psnr(x, &truth, 1.0)?)) };
    println!("blurred:  {}", note(&data)?);
    println!(
        "Tikhonov: {}, {} iterations, {}",
        note(&smooth.value)?,
        smooth.steps,
        smooth.termination.name()
    );
    println!(
        "TV:       {}, {} iterations, {}, {:.2} s",
        note(&sharp.value)?,
        sharp.steps,
        sharp.termination.name(),
        sharp.elapsed.as_secs_f64()
    );
    let panel = |title: &str, x: &Tensor| -> Result<Panel> {
        Ok(Panel::new(title, note(x)?, Image::new(x, [1.0, 1.0])?))
    };
    Montage::comparison(
        Panel::new("truth", "", Image::new(&truth, [1.0, 1.0])?),
        vec![
            panel("blurred", &data)?,
            panel("Tikhonov", &smooth.value)?,
            panel("total variation", &sharp.value)?,
        ],
        Scale::gray(0.0, 0.6, ""),
        Scale::error(0.2, ""),
    )?
    .save(folder.join("deblur.png"))?;
    Curves::convergence("relative step", vec![Series::history("PDHG", &history.values)])
        .save(folder.join("deblur-convergence.png"))?;
    println!("pictures: {}/deblur.png, deblur-convergence.png", folder.display());
    Ok(())
}
