//! Operators, samplers and the network on a CUDA device, where there is one.
//!
//! Functions for the device also run in `cargo test` on machines without one, as C++ on the processor; see
//! `tensor::device`. What is left for this file is the driver, the compiler and cuFFT.
#![cfg(feature = "cuda")]

use std::f64::consts::{PI, TAU};

use candle_core::{DType, Device, Tensor};
use wellposed::error::Result;
use wellposed::linalg::LinearOperator;
use wellposed::operator::ct::*;
use wellposed::operator::mri::{NonCartesianSense, Sense, Trajectory};
use wellposed::operator::{Accuracy, Blur, Boundary, Family, Fourier, Gradient, Nufft, Wavelet};
use wellposed::prior::{Denoiser, checkpoint::Prior};
use wellposed::sampler::{AdmmTv, Guided, Problem, sample};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Space, staged_bytes, vector};
use wellposed::testing::{check_operator, dot_test, relative_difference};

fn device() -> Option<Device> {
    let device = Device::new_cuda(0);
    if let Err(error) = &device {
        println!("skipped: no CUDA device ({error})");
    }
    device.ok()
}

fn grid(height: usize, width: usize) -> ImageGrid {
    ImageGrid::new(height, width, 1.3).unwrap()
}

fn even(views: usize, arc: f64) -> Vec<f64> {
    (0..views).map(|i| arc * i as f64 / views as f64 + 0.1).collect()
}

type Operator = Box<dyn LinearOperator>;

fn operators(dtype: DType, device: &Device) -> Vec<(&'static str, Operator)> {
    let image = Space::real(&[18, 25], dtype, device);
    let complex = Space::complex(&[18, 25], dtype, device);
    let parallel = ParallelBeam::new(even(31, PI), 41, 0.9).unwrap().with_offset(0.4);
    let fan = FanBeam::new(even(31, TAU), 61, 1.1, 60.0, 40.0).unwrap();
    let cone = ConeBeam::new(FanBeam::new(even(11, TAU), 25, 2.2, 60.0, 40.0).unwrap(), 12, 2.0).unwrap();
    let volume = VolumeGrid::new(9, grid(13, 16), 1.1).unwrap();
    let maps = standard_normal(Noise::new(9, 0), &Space::complex(&[3, 18, 25], dtype, &Device::Cpu), &[]);
    let maps = maps.unwrap().to_device(device).unwrap();
    let mask: Vec<f64> = (0..18 * 25).map(|i| f64::from(u8::from(i * i % 7 < 3))).collect();
    let mask = Tensor::from_vec(mask, (18, 25), &Device::Cpu).unwrap();
    let spokes = Trajectory::GoldenRadial { spokes: 15 }.points([18, 25], 32).unwrap();
    let nufft = Nufft::new(&complex, &spokes, Accuracy::default()).unwrap();
    let corner: Vec<f64> = (0..20).map(|i| f64::from(i * i % 7)).collect();
    let corner = Tensor::from_vec(corner, (4, 5), &Device::Cpu).unwrap();
    let rays = |tilt: f64| ConeBeam { tilt, ..cone.clone() }.vectors();
    vec![
        ("gradient", Box::new(Gradient::new(&image, &[0, 1]).unwrap())),
        ("Fourier", Box::new(Fourier::new(&complex, 2).unwrap())),
        ("parallel", Box::new(RayTransform::new(&grid(18, 25), &parallel, dtype, device).unwrap())),
        ("fan", Box::new(FanTransform::new(&grid(18, 25), &fan.vectors(), dtype, device).unwrap())),
        ("cone", Box::new(ConeTransform::new(&volume, &rays(0.0), dtype, device).unwrap())),
        ("tilted cone", Box::new(ConeTransform::new(&volume, &rays(0.2), dtype, device).unwrap())),
        ("SENSE", Box::new(Sense::new(&maps, &mask).unwrap())),
        ("Gaussian blur", Box::new(Blur::gaussian(&image, 1.5, Boundary::Reflect).unwrap())),
        ("blur", Box::new(Blur::new(&image, &corner, Boundary::Zero).unwrap())),
        ("wavelet", Box::new(Wavelet::new(&complex, 2, Family::Daubechies(4), 2).unwrap())),
        ("radial SENSE", Box::new(NonCartesianSense::new(&maps, nufft.clone(), None).unwrap())),
        ("non-uniform Fourier", Box::new(nufft)),
    ]
}

#[test]
fn operators_pass_every_check_and_agree_with_the_processor() {
    let Some(device) = device() else { return };
    for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::F64, 1e-11)] {
        for ((name, here), (_, there)) in operators(dtype, &Device::Cpu).iter().zip(operators(dtype, &device))
        {
            // Its AᴴA is a convolution, as accurate as the transform rather than the type.
            match (name, dtype) {
                (&"radial SENSE", DType::F64) => assert!(dot_test(&*there, 3).unwrap().defect < 1e-14),
                _ => check_operator(&*there).unwrap(),
            }
            let x = standard_normal(Noise::new(1, 0), here.domain(), &[5]).unwrap();
            let y = standard_normal(Noise::new(1, 1), here.range(), &[5]).unwrap();
            let up = |x: &Tensor| x.to_device(&device).unwrap();
            let before = staged_bytes();
            let (ax, aty) = (there.apply(&up(&x)).unwrap(), there.adjoint(&up(&y)).unwrap());
            assert_eq!(staged_bytes(), before, "{name} leaves the device");
            let down = |x: Tensor| x.to_device(&Device::Cpu).unwrap();
            for (found, expected) in [(ax, here.apply(&x).unwrap()), (aty, here.adjoint(&y).unwrap())] {
                let error = relative_difference(&down(found), &expected).unwrap();
                println!("{name} {dtype:?}: {error:.1e}");
                assert!(error < tolerance, "{name} {dtype:?}: {error:e}");
            }
        }
    }
}

#[test]
fn devices_draw_the_same_numbers() {
    let Some(device) = device() else { return };
    let draw = |device: &Device| {
        let space = Space::real(&[10_001], DType::F64, device);
        standard_normal(Noise::new(7, 3).at(5), &space, &[]).unwrap().to_device(&Device::Cpu).unwrap()
    };
    assert!(relative_difference(&draw(&device), &draw(&Device::Cpu)).unwrap() < 1e-14);
}

#[test]
fn the_network_agrees_and_stays_on_the_device() {
    let Some(device) = device() else { return };
    let (here, there) = (Prior::find("ct").unwrap(), Prior::find_on("ct", &device).unwrap());
    let space = Space::real(&[96, 80], DType::F32, &Device::Cpu);
    let x = standard_normal(Noise::new(1, 0), &space, &[3]).unwrap();
    let run = |prior: &Prior, x: &Tensor| -> Result<(Tensor, Tensor)> {
        let (value, pull) = prior.denoiser.denoise_vjp(x, 0.5)?;
        let gradient = pull.pull(&value)?;
        Ok((prior.denoiser.denoise(x, 0.5)?.to_device(&Device::Cpu)?, gradient.to_device(&Device::Cpu)?))
    };
    let before = staged_bytes();
    let found = run(&there, &x.to_device(&device).unwrap()).unwrap();
    assert_eq!(staged_bytes(), before, "the network leaves the device");
    let expected = run(&here, &x).unwrap();
    for (found, expected) in [(found.0, expected.0), (found.1, expected.1)] {
        assert!(relative_difference(&found, &expected).unwrap() < 1e-4);
    }
}

/// The steps of DDS on a volume move nothing between host and device.
#[test]
fn a_volume_by_diffusion_stays_on_the_device() {
    let Some(device) = device() else { return };
    let prior = Prior::find_on("ct", &device).unwrap();
    let beam = ParallelBeam::covering(&grid(64, 64), 24, PI).unwrap();
    let rays = RayTransform::new(&grid(64, 64), &beam, DType::F32, &device).unwrap();
    let image = Space::real(&[64, 64], DType::F32, &device);
    let data = rays.apply(&standard_normal(Noise::new(1, 1), &image, &[3]).unwrap()).unwrap();
    let problem = Problem::new(&rays, &data, 0.1, &prior.denoiser).unwrap();
    let admm = AdmmTv { rho: 10.0, lambda: 0.4, iterations: 5 };
    let before = staged_bytes();
    let drawn = sample(&Guided { steps: 4, ..Guided::dds_volume(admm) }, &problem, 1, &mut ()).unwrap();
    vector::require_finite("volume", &drawn.value).unwrap();
    assert_eq!(staged_bytes(), before);
}
