//! Inpainting: two pixels in five are known, with noise,
//!
//!   y = M x + n,  n ~ N(0, σ²),
//!
//! and the rest is filled in by sparsity in wavelets, x̂ = argmin ½‖M x − y‖² + λ‖W x‖₁ (FISTA), or by total
//! variation, x̂ = argmin ½‖M x − y‖² + λ TV(x) (ADMM).
//!
//! cargo run --release --example inpaint -- [FOLDER] [SIZE]   (target/examples-output and 256 by default)

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use wellposed::error::Result;
use wellposed::functional::{GroupNorm, L1Norm, LeastSquares, Transformed};
use wellposed::linalg::{Admm, Fista, LinearOperator, StepRule, Term};
use wellposed::metric::psnr;
use wellposed::operator::ct::ImageGrid;
use wellposed::operator::{Diagonal, Family, Gradient, Wavelet};
use wellposed::phantom::{Contrast, shepp_logan};
use wellposed::plot::{Image, Montage, Panel, Scale};
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

    // Operator: a random mask. Data: what it lets through, with 1 % noise.
    let space = Space::real(&[size, size], DType::F32, &Device::Cpu);
    let mask = Diagonal::random_mask(&space, 0.4, 3)?;
    let noise = standard_normal(Noise::new(1, 0), &space, &[])?;
    let mut data = Buffer::copy_of(&truth)?;
    vector::accumulate(1.0, &[(0.01, &noise)], &mut data)?;
    let data = mask.apply(data.tensor())?;

    // Wavelets: the functional is λ‖W x‖₁ on the details. ‖M‖ = 1 gives the step.
    let wavelet = Wavelet::new(&space, 2, Family::Symlet(4), 4)?;
    let sparsity = L1Norm::new(&space, 0.005)?.weighted(&wavelet.detail_weights()?)?;
    let sparsity = Transformed::new(Arc::new(wavelet), Arc::new(sparsity))?;
    let fidelity = LeastSquares::new(Arc::new(mask.clone()), &data)?;
    let fista = Fista { max_iterations: 500, tolerance: 1e-4, step: StepRule::Fixed(1.0), restart: true };
    let sparse = fista.solve(&fidelity, &sparsity, &data, &mut ())?;

    // Total variation.
    let gradient = Gradient::new(&space, &[0, 1])?;
    let tv = GroupNorm::new(gradient.range(), 0.005)?;
    let admm = Admm { max_iterations: 300, tolerance: 1e-3, penalty: 0.05, ..Admm::default() };
    let flat = admm.solve(&mask, &data, &[Term::new(&gradient, &tv)?], None, &mut ())?;

    // Result.
    let note = |x: &Tensor| -> Result<String> { Ok(format!("PSNR {:.2} dB", psnr(x, &truth, 1.0)?)) };
    println!("masked:          {}", note(&data)?);
    for (name, solution) in [("wavelets:       ", &sparse), ("total variation:", &flat)] {
        let (steps, reason) = (solution.steps, solution.termination.name());
        println!(
            "{name} {}, {steps} iterations, {reason}, {:.2} s",
            note(&solution.value)?,
            solution.elapsed.as_secs_f64()
        );
    }
    let panel = |title: &str, x: &Tensor| -> Result<Panel> {
        Ok(Panel::new(title, note(x)?, Image::new(x, [1.0, 1.0])?))
    };
    Montage::comparison(
        Panel::new("truth", "", Image::new(&truth, [1.0, 1.0])?),
        vec![
            panel("data", &data)?,
            panel("wavelets", &sparse.value)?,
            panel("total variation", &flat.value)?,
        ],
        Scale::gray(0.0, 0.6, ""),
        Scale::error(0.2, ""),
    )?
    .save(folder.join("inpaint.png"))?;
    println!("picture: {}/inpaint.png", folder.display());
    Ok(())
}
