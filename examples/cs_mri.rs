//! Compressed sensing MRI: from a quarter of the k-space of eight coils,
//!
//!   y_c = M (F S_c x + n_c),
//!
//! the image is recovered as x̂ = argmin ½ Σ_c ‖M F S_c x − y_c‖² + λ‖W x‖₁ with wavelets W, and compared with the
//! zero-filled image and with least squares. The coil maps S come from the fully sampled centre by ESPIRiT.
//!
//! cargo run --release --example cs_mri -- [FOLDER] [SIZE]   (target/examples-output and 256 by default)

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use wellposed::error::Result;
use wellposed::metric::psnr;
use wellposed::observe::History;
use wellposed::operator::ct::ImageGrid;
use wellposed::operator::mri::{Pattern, Sampling, Sense, birdcage, measure};
use wellposed::phantom::{Contrast, shepp_logan};
use wellposed::plot::{Curves, Image, Montage, Panel, Scale, Series};
use wellposed::reconstruct::mri::{
    ConjugateGradientSense, Espirit, WaveletSense, calibration_region, zero_filled,
};
use wellposed::tensor::random::Noise;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(256);
    std::fs::create_dir_all(&folder).map_err(|e| wellposed::error::Error::io(&folder, e))?;

    // Truth: the Shepp–Logan head, real and not negative, as a complex image [y, x, 2].
    let grid = ImageGrid::new(size, size, 1.0)?;
    let truth = shepp_logan(Contrast::Modified, size as f64 / 2.0).picture::<f32>(&grid, 4)?;
    let image = Tensor::stack(&[&truth, &truth.zeros_like()?], 2)?;

    // Data: eight coils, points that keep a distance, 1 % noise.
    let pattern = Pattern::PoissonDisc { calibration: 24, growth: 2.0, corners: false };
    let mask = Sampling { pattern, acceleration: 4.0, seed: 1 }.draw([size, size])?;
    let coils = birdcage(8, [size, size], 1, DType::F32, &Device::Cpu)?;
    let kspace = measure(&Sense::new(&coils, &mask)?, &image, 0.01, Noise::new(1, 0))?;

    // Operator: maps from the data alone.
    let maps = Espirit::default().maps(&kspace, calibration_region(&mask, 24)?)?.maps;
    let encoding = Sense::new(&maps, &mask)?;

    // Methods.
    let zeros = zero_filled(&encoding, &kspace)?;
    let mut history = [History::default(), History::default()];
    let least_squares =
        ConjugateGradientSense::default().reconstruct(&encoding, &kspace, &mut history[0])?.value;
    let sparse = WaveletSense::default().reconstruct(&encoding, &kspace, &mut history[1])?.value;

    // Result: magnitudes.
    let mut panels = Vec::new();
    for (name, x) in [("zero-filled", &zeros), ("SENSE", &least_squares), ("wavelet", &sparse)] {
        let magnitude = x.sqr()?.sum(2)?.sqrt()?;
        let note = format!("PSNR {:.2} dB", psnr(&magnitude, &truth, 1.0)?);
        println!("{name:<12} {note}");
        panels.push(Panel::new(name, note, Image::new(&magnitude, [1.0, 1.0])?));
    }
    let reference = Panel::new("truth", "R = 4, 8 coils", Image::new(&truth, [1.0, 1.0])?);
    Montage::comparison(reference, panels, Scale::gray(0.0, 0.6, ""), Scale::error(0.1, "error"))?
        .save(folder.join("cs_mri.png"))?;
    let series = vec![
        Series::history("SENSE: relative residual", &history[0].values),
        Series::history("wavelet: relative change", &history[1].values),
    ];
    Curves::convergence("measure of convergence", series).save(folder.join("cs_mri-convergence.png"))?;
    println!("pictures: {}/cs_mri.png, cs_mri-convergence.png", folder.display());
    Ok(())
}
