//! Inpainting by RED-Diff: one pixel in four is known, with noise,
//!
//!   y = M x + n,  n ~ N(0, .02²),
//!
//! and x̂ minimises ½‖M x − y‖² + λ R(x), where the gradient of R at noise level σ is x − D(x + σ n, σ), by Adam over
//! falling noise levels. It seeks one image; total variation is drawn beside it.
//!
//! cargo run --release --example red_diff_inpainting -- [FOLDER] [SIZE]   (target/examples-output and 256 by default)

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use wellposed::error::Result;
use wellposed::functional::GroupNorm;
use wellposed::linalg::{Admm, LinearOperator, Term};
use wellposed::metric::psnr;
use wellposed::operator::{Diagonal, Gradient};
use wellposed::phantom::Thorax;
use wellposed::plot::{Image, Montage, Panel, Scale};
use wellposed::prior::checkpoint::Prior;
use wellposed::prior::schedule::Grid;
use wellposed::sampler::{Problem, RedDiff, sample};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Buffer, Space, vector};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(256);
    std::fs::create_dir_all(&folder).map_err(|e| wellposed::error::Error::io(&folder, e))?;
    // Truth: one slice of the built-in chest, as the prior sees it: −1000…1000 HU are −1…1.
    let pixel = 410.0 / size as f64;
    let chest =
        Thorax { shape: [1, size, size], spacing: [8.0, pixel, pixel], ..Thorax::default() }.volume()?;
    let truth = chest.affine(1e-3, 0.0)?.clamp(-1f32, 1f32)?;
    let space = Space::real(&[size, size], DType::F32, &Device::Cpu);
    let prior = Prior::find("ct")?.denoiser;

    // Data: a random mask, and noise.
    let mask = Diagonal::random_mask(&space, 0.25, 3)?;
    let mut data = Buffer::copy_of(&truth)?;
    vector::accumulate(1.0, &[(0.02, &standard_normal(Noise::new(1, 0), &space, &[1])?)], &mut data)?;
    let data = mask.apply(data.tensor())?;

    // Total variation.
    let volume = space.with_shape(&[1, size, size]);
    let gradient = Gradient::new(&volume, &[1, 2])?;
    let penalty = GroupNorm::new(gradient.range(), 0.01)?;
    let lifted = wellposed::operator::Lifted::new(std::sync::Arc::new(mask.clone()), &[1]);
    let admm = Admm { max_iterations: 300, tolerance: 1e-3, penalty: 0.05, ..Admm::default() };
    let tv = admm.solve(&lifted, &data, &[Term::new(&gradient, &penalty)?], None, &mut ())?;

    // RED-Diff, from the estimate of total variation.
    let problem = Problem::new(&mask, &data, 0.02, &prior)?.starting_at(&tv.value)?;
    let grid = Grid::Karras { min: 0.02, max: 1.0, rho: 7.0 };
    let red_diff = RedDiff { steps: 60, grid, lambda: 0.1, rate: 0.02, ..RedDiff::default() };
    let solution = sample(&red_diff, &problem, 0, &mut ())?;

    // Result, in HU.
    let image = |x: &Tensor| Image::new(&x.squeeze(0)?.affine(1000.0, 0.0)?, [1.0, 1.0]);
    let mut panels = Vec::new();
    for (name, x) in [("data", &data), ("TV", &tv.value), ("RED-Diff", &solution.value)] {
        let note = format!("PSNR {:.2} dB", psnr(x, &truth, 2.0)?);
        println!("{name:<9} {note}");
        panels.push(Panel::new(name, note, image(x)?));
    }
    let reference = Panel::new("truth", "", image(&truth)?);
    let (window, errors) = (Scale::gray(-1000.0, 400.0, "HU"), Scale::error(280.0, "error, HU"));
    Montage::comparison(reference, panels, window, errors)?.save(folder.join("red_diff_inpainting.png"))?;
    println!("picture: {}/red_diff_inpainting.png", folder.display());
    Ok(())
}
