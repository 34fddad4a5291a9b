//! A diffusion prior for sparse-view CT: photon counts N of a few views give line integrals y and their variances 1/N,
//!
//!   y = A μ + n,  n_i ~ N(0, 1/N_i),
//!
//! and the prior is a denoiser D(x, σ) ≈ E[x₀ | x₀ + σ n = x] of CT slices. DDS alternates the denoiser, a data step
//! (I + γ AᵀNA) x = x̂₀ + γ AᵀN y by conjugate gradients, and fresh noise of the next, lower level; plug and play leaves
//! the noise away. Both start at the total-variation estimate.
//!
//! cargo run --release --example dds_sparse_view_ct -- [FOLDER] [SIZE]   (target/examples-output and 256 by default)

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use wellposed::error::Result;
use wellposed::linalg::LinearOperator;
use wellposed::metric::psnr;
use wellposed::operator::ct::{ImageGrid, ParallelBeam, Photons, RayTransform, hounsfield};
use wellposed::phantom::Thorax;
use wellposed::plot::{Image, Montage, Panel, Scale};
use wellposed::prior::checkpoint::Prior;
use wellposed::reconstruct::{Fbp, TotalVariation};
use wellposed::sampler::{Guided, Normalized, sample};

/// Field of view in mm, and views over 180 degrees.
const FIELD: f64 = 410.0;
const VIEWS: usize = 32;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(256);
    std::fs::create_dir_all(&folder).map_err(|e| wellposed::error::Error::io(&folder, e))?;
    // Truth: one slice of the built-in chest, in HU.
    let pixel = FIELD / size as f64;
    let chest =
        Thorax { shape: [1, size, size], spacing: [8.0, pixel, pixel], ..Thorax::default() }.volume()?;
    let water = hounsfield::MU_WATER;

    // Data: Beer–Lambert and Poisson.
    let grid = ImageGrid::new(size, size, pixel)?;
    let beam = ParallelBeam::covering(&grid, VIEWS, std::f64::consts::PI)?;
    let a = Arc::new(RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu)?);
    let clean = a.apply(&hounsfield::to_attenuation(&chest, water)?)?;
    let seen = Photons::default().measure(&clean, 1)?;

    // Classical estimates.
    let fbp = Fbp::default().reconstruct(&a, &seen.line_integrals)?;
    let shared: Arc<dyn LinearOperator> = a.clone();
    let tv = TotalVariation::for_counts(water);
    let tv = tv.solve(&shared, &seen.line_integrals, Some(&seen.counts), None, &mut ())?.value;

    // The prior's units: −1000…1000 HU are −1…1, so that μ = μ_water + μ_water x.
    let prior = Prior::find("ct")?.denoiser;
    let scaled = Normalized::weighted(shared, &seen.line_integrals, &seen.counts, water, water)?;
    let start = scaled.from_physical(&tv)?;
    let problem = scaled.problem(&prior)?.starting_at(&start)?;
    let pnp = sample(&Guided { steps: 12, ..Guided::plug_and_play(0.2, 0.6) }, &problem, 0, &mut ())?;
    let dds = sample(&Guided { steps: 20, ..Guided::noise_aware(0.5, 0.6) }, &problem, 0, &mut ())?;

    // Result, in HU.
    let image = |x: &Tensor| Image::new(&x.squeeze(0)?, [1.0, 1.0]);
    let (pnp, dds) = (scaled.to_physical(&pnp.value)?, scaled.to_physical(&dds.value)?);
    let mut panels = Vec::new();
    for (name, mu) in [("FBP", &fbp), ("TV", &tv), ("plug and play", &pnp), ("DDS, one sample", &dds)] {
        let hu = hounsfield::from_attenuation(mu, water)?;
        let note = format!("PSNR {:.2} dB", psnr(&hu, &chest, 2000.0)?);
        println!("{name:<16} {note}");
        panels.push(Panel::new(name, note, image(&hu)?));
    }
    let reference = Panel::new("truth", format!("{VIEWS} views"), image(&chest)?);
    let (window, errors) = (Scale::gray(-1000.0, 400.0, "HU"), Scale::error(280.0, "error, HU"));
    Montage::comparison(reference, panels, window, errors)?.save(folder.join("dds_sparse_view_ct.png"))?;
    println!("picture: {}/dds_sparse_view_ct.png", folder.display());
    Ok(())
}
