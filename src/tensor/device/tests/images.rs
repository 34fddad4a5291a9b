//! Blurs, wavelets, non-uniform transforms, filtered back projection and nonlinear measurements.

use std::f64::consts::{PI, TAU};

use super::operators::{even, grid, operator, same};
use super::*;
use crate::linalg::LinearOperator;
use crate::linalg::NonlinearOperator;
use crate::operator::ct::*;
use crate::operator::mri::{NonCartesianSense, OffResonance, Sense, Trajectory, birdcage};
use crate::operator::*;
use crate::reconstruct::Fbp;
use crate::reconstruct::mri::WaveletSense;
use crate::testing::relative_difference;

const BOUNDARIES: [Boundary; 3] = [Boundary::Periodic, Boundary::Reflect, Boundary::Zero];

fn spaces(dtype: DType) -> [Space; 2] {
    [Space::real(&[13, 18], dtype, &Device::Cpu), Space::complex(&[2, 11, 14], dtype, &Device::Cpu)]
}

#[test]
fn blurs_and_resampling_agree() {
    for (dtype, _) in TYPES {
        let any = noise(&[5, 4], dtype, 3);
        for space in spaces(dtype) {
            for boundary in BOUNDARIES {
                operator("Gaussian blur", &Blur::gaussian(&space, 1.2, boundary).unwrap());
                operator("blur", &Blur::new(&space, &any, boundary).unwrap());
            }
            operator("padding", &Pad::new(&space, [17, 20]).unwrap());
        }
        let real = Space::real(&[12, 16], dtype, &Device::Cpu);
        operator("bicubic", &Downsample::bicubic(&real, 4).unwrap());
        operator("padding", &Pad::complex(&real, [15, 16]).unwrap());
        let parts = vec![Identity::new(&real).shared(), Gradient::new(&real, &[0, 1]).unwrap().shared()];
        operator("stack", &Stack::new(parts).unwrap());
    }
}

#[test]
fn wavelets_agree() {
    for (dtype, _) in TYPES {
        for space in spaces(dtype) {
            operator("wavelet", &Wavelet::new(&space, 2, Family::Daubechies(4), 3).unwrap());
        }
        let volume = Space::complex(&[5, 6, 9], dtype, &Device::Cpu);
        operator("wavelet", &Wavelet::new(&volume, 3, Family::Haar, 2).unwrap());
    }
}

#[test]
fn nonlinear_measurements_agree() {
    for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::F64, 1e-12)] {
        let space = Space::real(&[16, 20], dtype, &Device::Cpu);
        let point = |curve| Pointwise::new(&space, curve).unwrap();
        let clip = Curve::Clip { gain: 2.0, lower: -1.0, upper: 1.0 };
        let all: Vec<Box<dyn NonlinearOperator>> = vec![
            Box::new(point(clip)),
            Box::new(point(Curve::Shift { shift: 0.3 })),
            Box::new(point(Curve::Power { exponent: 2.2 })),
            Box::new(phase_retrieval(&space, 2.0).unwrap()),
        ];
        for (index, a) in all.iter().enumerate() {
            let x = standard_normal(Noise::new(1, 0), a.domain(), &[3]).unwrap();
            let v = standard_normal(Noise::new(1, 1), a.range(), &[3]).unwrap();
            // Magnitudes of zeros have no slope.
            for x in [&x, &x.zeros_like().unwrap()] {
                same(&format!("measurement {index}"), tolerance, || Ok(vec![a.apply(x)?, a.vjp(x, &v)?]));
            }
        }
    }
}

#[test]
fn non_uniform_transforms_agree() {
    for (dtype, _) in TYPES {
        for (shape, samples) in [(&[19][..], 40), (&[14, 21], 300), (&[6, 9, 8], 200)] {
            let space = Space::complex(shape, dtype, &Device::Cpu);
            let uniform: Vec<f64> = (0..samples * shape.len())
                .map(|i| (Noise::new(4, 0).uniform(i as u64) - 0.5) * shape[i % shape.len()] as f64)
                .collect();
            let k = Tensor::from_vec(uniform, (samples, shape.len()), &Device::Cpu).unwrap();
            let a = Nufft::new(&space, &k, Accuracy::default()).unwrap();
            operator("non-uniform transform", &a);
            operator("its convolution", &a.toeplitz(None).unwrap());
        }
        let shape = [14, 18];
        let k = Trajectory::GoldenRadial { spokes: 9 }.points(shape, 24).unwrap();
        let space = Space::complex(&shape, dtype, &Device::Cpu);
        let fourier = Nufft::new(&space, &k, Accuracy::default()).unwrap();
        let maps = Space::complex(&[2, 3, 14, 18], dtype, &Device::Cpu);
        let maps = standard_normal(Noise::new(3, 0), &maps, &[]).unwrap();
        operator("radial SENSE", &NonCartesianSense::new(&maps, fourier, None).unwrap());
    }
}

#[test]
fn uneven_fields_agree() {
    for (dtype, _) in TYPES {
        let maps = Space::complex(&[3, 10, 12], dtype, &Device::Cpu);
        let maps = standard_normal(Noise::new(3, 0), &maps, &[]).unwrap();
        let mask = Tensor::ones((10, 12), dtype, &Device::Cpu).unwrap();
        let field = (noise(&[10, 12], DType::F64, 1) * 30.0).unwrap();
        let times = (Tensor::arange(0f64, 12.0, &Device::Cpu).unwrap() * 1e-3).unwrap();
        let plain = Sense::new(&maps, &mask).unwrap();
        operator("field map", &OffResonance::new(plain, &field, &times, 1e-3).unwrap());
    }
}

#[test]
fn wavelet_reconstruction_agrees() {
    let maps = birdcage(3, [16, 20], 1, DType::F64, &Device::Cpu).unwrap();
    let mask: Vec<f64> = (0..20).map(|i| f64::from(i % 3 != 0)).collect();
    let mask = Tensor::new(mask, &Device::Cpu).unwrap().broadcast_as((16, 20)).unwrap().contiguous().unwrap();
    let sense = Sense::new(&maps, &mask).unwrap();
    let x = standard_normal(Noise::new(1, 0), sense.domain(), &[]).unwrap();
    let kspace = sense.apply(&x).unwrap();
    let run = |max_iterations| {
        let method = WaveletSense { max_iterations, tolerance: 0.0, ..WaveletSense::default() };
        method.reconstruct(&sense, &kspace, &mut ()).unwrap().value
    };
    // Units and bounds come from the host, once.
    let Some((_, _, before)) = emulated(|| run(1)) else { return };
    let Some((found, _, fallen_back)) = emulated(|| run(7)) else { return };
    assert_eq!(fallen_back, before, "kernels of an iteration without a version");
    assert!(relative_difference(&found, &run(7)).unwrap() < 1e-9);
}

#[test]
fn filtered_back_projection_agrees() {
    for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::F64, 1e-12)] {
        let (image, fbp) = (grid(19, 24), Fbp::default());
        let draw = |shape: &[usize]| noise(shape, dtype, 6);
        let beam = ParallelBeam::covering(&image, 15, PI).unwrap();
        let rays = RayTransform::new(&image, &beam, dtype, &Device::Cpu).unwrap();
        let data = draw(&[3, 15, beam.bins]);
        same("parallel", tolerance, || Ok(vec![fbp.reconstruct(&rays, &data)?]));
        let mut fan = FanBeam::new(even(40, TAU), 61, 1.5, 60.0, 30.0).unwrap();
        for curved in [false, true] {
            fan.curved = curved;
            let data = draw(&[3, 40, 61]);
            same("fan", tolerance, || Ok(vec![fbp.reconstruct_fan(&image, &fan, &data)?]));
            let volume = VolumeGrid::new(9, grid(11, 13), 1.1).unwrap();
            for (rows, pitch) in [(12, 1.3), (5, 4.0)] {
                let cone = ConeBeam::new(fan.clone(), rows, pitch).unwrap();
                let data = draw(&[2, rows, 40, 61]);
                same("cone", tolerance, || Ok(vec![fbp.reconstruct_slices(&volume, 2..9, &cone, &data)?]));
            }
        }
    }
}
