//! Sparse-view CT: from a few views of a chest, counted photon by photon,
//!
//!   N_i ~ Poisson(I₀ exp(−(A μ)_i)),  y_i = ln(I₀/N_i),
//!
//! the attenuation is recovered as μ̂ = argmin ½ Σ N_i ((A μ)_i − y_i)² + λ TV(μ) over μ ≥ 0, and compared with
//! filtered back projection and SIRT. The projections are made at twice the resolution of the reconstruction.
//!
//! cargo run --release --example sparse_view_ct -- [FOLDER] [SIZE]   (target/examples-output and 256 by default)

use std::f64::consts::PI;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use wellposed::error::Result;
use wellposed::linalg::LinearOperator;
use wellposed::metric::psnr;
use wellposed::observe::History;
use wellposed::operator::ct::{
    ImageGrid, ParallelBeam, Photons, RayTransform, hounsfield, statistical_weights,
};
use wellposed::phantom::Thorax;
use wellposed::plot::{Curves, Image, Montage, Panel, Scale, Series};
use wellposed::reconstruct::{Fbp, Sirt, TotalVariation};

/// Field of view in mm, and views over 180 degrees.
const FIELD: f64 = 410.0;
const VIEWS: usize = 32;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(256);
    std::fs::create_dir_all(&folder).map_err(|e| wellposed::error::Error::io(&folder, e))?;

    // Truth: one slice of the built-in chest, in HU, at two resolutions.
    let chest = |size: usize| {
        let spacing = [8.0, FIELD / size as f64, FIELD / size as f64];
        Thorax { shape: [1, size, size], spacing, ..Thorax::default() }.volume()
    };
    let (truth, fine) = (chest(size)?, chest(2 * size)?);
    let grid = ImageGrid::new(size, size, FIELD / size as f64)?;
    let fine_grid = ImageGrid::new(2 * size, 2 * size, grid.pixel / 2.0)?;

    // Data: Beer–Lambert and Poisson.
    let beam = ParallelBeam::covering(&grid, VIEWS, PI)?;
    let mu = hounsfield::to_attenuation(&fine, hounsfield::MU_WATER)?;
    let clean = RayTransform::new(&fine_grid, &beam, DType::F32, &Device::Cpu)?.apply(&mu)?;
    let seen = Photons::default().measure(&clean, 1)?;

    // Operator and methods.
    let a = Arc::new(RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu)?);
    let fbp = Fbp::default().reconstruct(&a, &seen.line_integrals)?;
    let mut sirt_history = History::default();
    let sirt = Sirt::default().solve(&*a, &seen.line_integrals, None, &mut sirt_history)?;
    let mut tv_history = History::default();
    let shared: Arc<dyn LinearOperator> = a;
    let weights = statistical_weights(&seen.counts, grid.model_error(hounsfield::MU_WATER, VIEWS))?;
    let tv = TotalVariation::for_counts(hounsfield::MU_WATER).solve(
        &shared,
        &seen.line_integrals,
        Some(&weights),
        None,
        &mut tv_history,
    )?;

    // Result, in HU.
    let image = |x: &Tensor| Image::new(&x.squeeze(0)?, [1.0, 1.0]);
    let mut panels = Vec::new();
    for (name, mu) in [("FBP", &fbp), ("SIRT", &sirt.value), ("TV", &tv.value)] {
        let hu = hounsfield::from_attenuation(mu, hounsfield::MU_WATER)?;
        let note = format!("PSNR {:.2} dB", psnr(&hu, &truth, 2000.0)?);
        println!("{name:<4} {note}");
        panels.push(Panel::new(name, note, image(&hu)?));
    }
    println!("TV: {} iterations, {}", tv.steps, tv.termination.name());
    let reference = Panel::new("truth", format!("{VIEWS} views"), image(&truth)?);
    let (window, errors) = (Scale::gray(-1000.0, 400.0, "HU"), Scale::error(280.0, "error, HU"));
    Montage::comparison(reference, panels, window, errors)?.save(folder.join("sparse_view_ct.png"))?;
    let series = vec![
        Series::history("SIRT: relative residual", &sirt_history.values),
        Series::history("TV: relative step", &tv_history.values),
    ];
    Curves::convergence("measure of convergence", series)
        .save(folder.join("sparse_view_ct-convergence.png"))?;
    println!("pictures: {}/sparse_view_ct.png, sparse_view_ct-convergence.png", folder.display());
    Ok(())
}
