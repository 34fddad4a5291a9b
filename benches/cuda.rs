//! On a CUDA device: medians of seven runs in ms, one JSON object a line, for `benches/peers/gpu.py`.

use std::f64::consts::PI;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use wellposed::error::Result;
use wellposed::linalg::LinearOperator;
use wellposed::operator::ct::{ImageGrid, ParallelBeam, RayTransform};
use wellposed::operator::mri::Sense;
use wellposed::prior::{Denoiser, checkpoint::Prior};
use wellposed::sampler::{AdmmTv, Guided, Problem, sample};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Space, device, staged_bytes};

fn median(device: &Device, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut once = || -> Result<f64> {
        device.synchronize()?;
        let start = Instant::now();
        run()?;
        device.synchronize()?;
        Ok(1e3 * start.elapsed().as_secs_f64())
    };
    once()?;
    let mut times = (0..7).map(|_| once()).collect::<Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[3])
}

fn report(name: &str, milliseconds: f64) {
    println!("{{\"name\": \"{name}\", \"ms\": {milliseconds:.4}}}");
}

fn noise(space: &Space, batch: &[usize]) -> Result<Tensor> {
    standard_normal(Noise::new(1, 0), space, batch)
}

fn projector(device: &Device) -> Result<()> {
    let grid = ImageGrid::new(512, 512, 1.0)?;
    let angles = (0..720).map(|i| PI * f64::from(i) / 720.0).collect();
    let a = RayTransform::new(&grid, &ParallelBeam::new(angles, 729, 1.0)?, DType::F32, device)?;
    for slices in [1, 16] {
        let x = noise(a.domain(), &[slices])?;
        let y = a.apply(&x)?;
        let forward = median(device, || a.apply(&x).map(drop))?;
        report(&format!("projection 512x512x720x729, {slices} slices"), forward);
        let back = median(device, || a.adjoint(&y).map(drop))?;
        report(&format!("back projection, {slices} slices"), back);
    }
    Ok(())
}

fn sense(device: &Device) -> Result<()> {
    let maps = noise(&Space::complex(&[8, 256, 256], DType::F32, device), &[])?;
    let mask = Tensor::ones((256, 256), DType::F32, &Device::Cpu)?;
    let a = Sense::new(&maps, &mask)?;
    let x = noise(a.domain(), &[4])?;
    report("SENSE normal operator, 4 images of 256x256, 8 coils", median(device, || a.normal(&x).map(drop))?);
    Ok(())
}

fn network(device: &Device) -> Result<Prior> {
    let prior = Prior::find_on("ct", device)?;
    let space = Space::real(&[256, 256], DType::F32, device);
    for batch in [1, 8] {
        let x = noise(&space, &[batch])?;
        report(
            &format!("denoiser, batch {batch}"),
            median(device, || prior.denoiser.denoise(&x, 0.5).map(drop))?,
        );
        let gradient = median(device, || {
            let (value, pull) = prior.denoiser.denoise_vjp(&x, 0.5)?;
            pull.pull(&value).map(drop)
        })?;
        report(&format!("denoiser with gradient, batch {batch}"), gradient);
    }
    Ok(prior)
}

/// A volume of 256³ by DDS with 50 steps, from 60 views.
fn volume(device: &Device, prior: &Prior) -> Result<()> {
    let grid = ImageGrid::new(256, 256, 1.0)?;
    let a = RayTransform::new(&grid, &ParallelBeam::covering(&grid, 60, PI)?, DType::F32, device)?;
    let data = a.apply(&noise(a.domain(), &[256])?)?;
    let problem = Problem::new(&a, &data, 1.0, &prior.denoiser)?.with_chunk(8);
    let admm = AdmmTv { rho: 100.0, lambda: 0.1, iterations: 5 };
    let (before, start) = (staged_bytes(), Instant::now());
    sample(&Guided::dds_volume(admm), &problem, 1, &mut ())?;
    device.synchronize()?;
    report("DDS, 256x256x256, 50 steps", 1e3 * start.elapsed().as_secs_f64());
    eprintln!("{} bytes staged in the run", staged_bytes() - before);
    Ok(())
}

fn main() -> Result<()> {
    let device = match Device::new_cuda(0) {
        Ok(device) => device,
        Err(error) => {
            println!("skipped: no CUDA device ({error})");
            return Ok(());
        }
    };
    eprintln!("{}", device::cards().join(", "));
    projector(&device)?;
    sense(&device)?;
    let prior = network(&device)?;
    volume(&device, &prior)
}
