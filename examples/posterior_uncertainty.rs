//! How sure is a reconstruction? Samples x⁽¹⁾…x⁽ᴺ⁾ of the posterior
//!
//!   p(x | y) ∝ exp(−½ Σ N_i (A x − y)_i²) p(x)
//!
//! of sparse-view CT give the mean, whose error is smaller than that of one sample by up to √2, and the standard
//! deviation, which says where to doubt. Drawn beside the error that was made, with the share of voxels whose error is
//! below twice the deviation: 95 % if the samples were exact, less where sampler and network err alike in all of them.
//!
//! cargo run --release --example posterior_uncertainty -- [FOLDER] [SIZE]   (target/examples-output and 128 by default)

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use wellposed::error::Result;
use wellposed::linalg::LinearOperator;
use wellposed::metric::psnr;
use wellposed::operator::ct::{ImageGrid, ParallelBeam, Photons, RayTransform, hounsfield};
use wellposed::phantom::Thorax;
use wellposed::plot::{Image, Montage, Panel, Row, Scale};
use wellposed::prior::checkpoint::Prior;
use wellposed::sampler::{Guided, Normalized, posterior};

/// Field of view in mm, views over 180 degrees, samples.
const FIELD: f64 = 410.0;
const VIEWS: usize = 24;
const SAMPLES: usize = 6;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(128);
    std::fs::create_dir_all(&folder).map_err(|e| wellposed::error::Error::io(&folder, e))?;
    // Truth: one slice of the built-in chest in HU. Data: photon counts.
    let pixel = FIELD / size as f64;
    let chest =
        Thorax { shape: [1, size, size], spacing: [8.0, pixel, pixel], ..Thorax::default() }.volume()?;
    let water = hounsfield::MU_WATER;
    let grid = ImageGrid::new(size, size, pixel)?;
    let beam = ParallelBeam::covering(&grid, VIEWS, std::f64::consts::PI)?;
    let a = Arc::new(RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu)?);
    let clean = a.apply(&hounsfield::to_attenuation(&chest, water)?)?;
    let seen = Photons { open_beam: 2e4, ..Photons::default() }.measure(&clean, 1)?;

    // Samples by DDS, from pure noise.
    let prior = Prior::find("ct")?.denoiser;
    let scaled = Normalized::weighted(a, &seen.line_integrals, &seen.counts, water, water)?;
    let problem = scaled.problem(&prior)?;
    let sampler = Guided { steps: 20, ..Guided::noise_aware(20.0, 0.6) };
    let found = posterior(&sampler, &problem, 1, SAMPLES, &[], &mut ())?;

    // Result, in HU.
    let hu = |x: &Tensor| -> Result<Tensor> { Ok(x.affine(1000.0, 0.0)?.squeeze(0)?) };
    let truth = chest.squeeze(0)?;
    let (mean, deviation, one) = (hu(&found.mean)?, hu(&found.deviation)?, hu(&found.samples[0])?);
    let error = (&mean - &truth)?.abs()?;
    let covered = error.le(&(&deviation * 2.0)?)?.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
    let note = |x: &Tensor| -> Result<String> { Ok(format!("PSNR {:.2} dB", psnr(x, &truth, 2000.0)?)) };
    println!("one sample       {}", note(&one)?);
    println!("mean of {SAMPLES}        {}", note(&mean)?);
    println!("covered by ±2 standard deviations: {:.0} %", 100.0 * covered);
    let panel = |title: &str, note: String, x: &Tensor| -> Result<Option<Panel>> {
        Ok(Some(Panel::new(title, note, Image::new(x, [1.0, 1.0])?)))
    };
    let images = vec![
        panel("truth", format!("{VIEWS} views"), &truth)?,
        panel("one sample", note(&one)?, &one)?,
        panel(&format!("mean of {SAMPLES}"), note(&mean)?, &mean)?,
    ];
    let doubts = vec![
        None,
        panel("standard deviation", format!("{:.0} % within ±2", 100.0 * covered), &deviation)?,
        panel("size of the error of the mean", String::new(), &error)?,
    ];
    let rows = vec![
        Row { scale: Scale::gray(-1000.0, 400.0, "HU"), panels: images },
        Row { scale: Scale::magnitude(250.0, "HU"), panels: doubts },
    ];
    Montage { rows, panel_width: 320 }.save(folder.join("posterior_uncertainty.png"))?;
    println!("picture: {}/posterior_uncertainty.png", folder.display());
    Ok(())
}
