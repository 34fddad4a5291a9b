//! A volume with a prior of slices: the denoiser D(x, σ) knows slices, the total variation across them couples them,
//!
//!   x̂ ← argmin ½‖A x − y‖² + λ‖D_z x‖₁ near D(x, σ),
//!
//! one ADMM iteration a noise level, with split and dual variables that persist. DDS applies it to the denoised volume,
//! DiffusionMBIR to the noisy one after a predictor and a corrector, with many more levels.
//!
//! cargo run --release --example mbir_volume -- [FOLDER] [SIZE]   (target/examples-output and 128 by default)

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device};
use wellposed::error::Result;
use wellposed::linalg::LinearOperator;
use wellposed::metric::psnr;
use wellposed::operator::ct::{ImageGrid, ParallelBeam, RayTransform, hounsfield};
use wellposed::phantom::Thorax;
use wellposed::plot::{Image, Montage, Panel, Plane, Row, Scale};
use wellposed::prior::checkpoint::Prior;
use wellposed::prior::schedule::{Grid, Sde};
use wellposed::reconstruct::Fbp;
use wellposed::sampler::{AdmmTv, DiffusionMbir, Guided, Normalized, sample};

/// Field of view in mm, and views over 180 degrees.
const FIELD: f64 = 410.0;
const VIEWS: usize = 16;
const SLICES: usize = 6;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(128);
    std::fs::create_dir_all(&folder).map_err(|e| wellposed::error::Error::io(&folder, e))?;
    // Truth: slices of the built-in chest, 5 mm apart, in HU. Data without noise.
    let pixel = FIELD / size as f64;
    let spacing = [5.0, pixel, pixel];
    let chest = Thorax { shape: [SLICES, size, size], spacing, ..Thorax::default() }.volume()?;
    let water = hounsfield::MU_WATER;
    let grid = ImageGrid::new(size, size, pixel)?;
    let beam = ParallelBeam::covering(&grid, VIEWS, std::f64::consts::PI)?;
    let a = Arc::new(RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu)?);
    let y = a.apply(&hounsfield::to_attenuation(&chest, water)?)?;
    let fbp = Fbp::default().reconstruct(&a, &y)?;

    // The published weights ρ = 10, λ = .04, in the units of the normalised operator.
    let prior = Prior::find("ct")?.denoiser;
    let scaled = Normalized::new(a, &y, 1e-3, water, water)?;
    let problem = scaled.problem(&prior)?;
    let weights =
        |iterations| AdmmTv::from_paper(10.0, 0.04, iterations, VIEWS).rescaled(scaled.norm() / pixel);
    let levels = Grid::Karras { min: 0.02, max: 20.0, rho: 7.0 };
    let dds = Guided { steps: 15, grid: levels, clip: true, ..Guided::dds_volume(weights(5)) };
    let dds = sample(&dds, &problem, 0, &mut ())?;
    let sde = Sde::Ve { min: 0.01, max: 20.0 };
    let mbir =
        sample(&DiffusionMbir { steps: 30, sde, ..DiffusionMbir::new(weights(1)) }, &problem, 0, &mut ())?;

    // Result: an axial and a coronal cut of each, in HU.
    let mut rows = [Vec::new(), Vec::new()];
    let estimates = [
        ("truth", chest.clone()),
        ("FBP", hounsfield::from_attenuation(&fbp, water)?),
        ("DDS, 15 levels", hounsfield::from_attenuation(&scaled.to_physical(&dds.value)?, water)?),
        ("MBIR, 30 levels", hounsfield::from_attenuation(&scaled.to_physical(&mbir.value)?, water)?),
    ];
    for (name, hu) in &estimates {
        let note = match *name {
            "truth" => format!("{VIEWS} views"),
            _ => format!("PSNR {:.2} dB", psnr(hu, &chest, 2000.0)?),
        };
        println!("{name:<16} {note}");
        let axial = Image::cut(hu, Plane::Axial, SLICES / 2, spacing)?;
        let coronal = Image::cut(hu, Plane::Coronal, size / 2, spacing)?;
        rows[0].push(Some(Panel::new(*name, note, axial)));
        rows[1].push(Some(Panel::new("", "", coronal)));
    }
    let scale = Scale::gray(-1000.0, 400.0, "HU");
    let rows = rows.map(|panels| Row { scale: scale.clone(), panels }).into();
    Montage { rows, panel_width: 256 }.save(folder.join("mbir_volume.png"))?;
    println!("picture: {}/mbir_volume.png", folder.display());
    Ok(())
}
