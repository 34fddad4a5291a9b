//! Deblurring by diffusion posterior sampling: an image seen through a Gaussian blur, with noise,
//!
//!   y = k ∗ x + n,  n ~ N(0, .02²).
//!
//! Each step goes from noise level σ to σ' as if there were no data, and then down the gradient of the residual through
//! the denoiser, x ← x' − ζ ∇_x ‖y − k ∗ D(x, σ)‖. Tikhonov's estimate is drawn beside it.
//!
//! cargo run --release --example dps_deblur -- [FOLDER] [SIZE]   (target/examples-output and 128 by default)

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use wellposed::error::Result;
use wellposed::linalg::{Cgls, LinearOperator};
use wellposed::metric::psnr;
use wellposed::operator::{Blur, Boundary};
use wellposed::phantom::Thorax;
use wellposed::plot::{Image, Montage, Panel, Scale};
use wellposed::prior::checkpoint::Prior;
use wellposed::prior::schedule::Grid;
use wellposed::sampler::{Dps, Problem, sample};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Buffer, Space, vector};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(128);
    std::fs::create_dir_all(&folder).map_err(|e| wellposed::error::Error::io(&folder, e))?;
    // Truth: one slice of the built-in chest, as the prior sees it: −1000…1000 HU are −1…1.
    let pixel = 410.0 / size as f64;
    let chest =
        Thorax { shape: [1, size, size], spacing: [8.0, pixel, pixel], ..Thorax::default() }.volume()?;
    let truth = chest.affine(1e-3, 0.0)?.clamp(-1f32, 1f32)?;
    let space = Space::real(&[size, size], DType::F32, &Device::Cpu);
    let prior = Prior::find("ct")?.denoiser;

    // Data: blurred by two pixels, with noise.
    let blur = Blur::gaussian(&space, 2.0, Boundary::Reflect)?;
    let mut data = Buffer::copy_of(&blur.apply(&truth)?)?;
    vector::accumulate(1.0, &[(0.02, &standard_normal(Noise::new(1, 0), &space, &[1])?)], &mut data)?;
    let data = data.freeze();

    // Tikhonov: min ½‖k ∗ x − y‖² + μ/2 ‖x‖² by conjugate gradients.
    let tikhonov = Cgls { max_iterations: 50, tolerance: 1e-4, damping: 3e-2 };
    let smooth = tikhonov.solve(&blur, &data, None, &mut ())?;

    // DPS.
    let problem = Problem::new(&blur, &data, 0.02, &prior)?;
    let grid = Grid::Karras { min: 0.02, max: 20.0, rho: 7.0 };
    let dps = Dps { steps: 60, zeta: 1.0, grid, ..Dps::default() };
    let solution = sample(&dps, &problem, 0, &mut ())?;

    // Result, in HU.
    let image = |x: &Tensor| Image::new(&x.squeeze(0)?.affine(1000.0, 0.0)?, [1.0, 1.0]);
    let mut panels = Vec::new();
    for (name, x) in [("blurred", &data), ("Tikhonov", &smooth.value), ("DPS, one sample", &solution.value)] {
        let note = format!("PSNR {:.2} dB", psnr(x, &truth, 2.0)?);
        println!("{name:<16} {note}");
        panels.push(Panel::new(name, note, image(x)?));
    }
    let reference = Panel::new("truth", "", image(&truth)?);
    let (window, errors) = (Scale::gray(-1000.0, 400.0, "HU"), Scale::error(280.0, "error, HU"));
    Montage::comparison(reference, panels, window, errors)?.save(folder.join("dps_deblur.png"))?;
    println!("picture: {}/dps_deblur.png", folder.display());
    Ok(())
}
