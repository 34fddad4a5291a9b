//! Against the sum that the transform stands for.

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::operator::Fourier;
use crate::tensor::random::{Noise, standard_normal};
use crate::testing::{check_operator, relative_difference};

fn noise(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    standard_normal(Noise::new(seed, 0), &Space::complex(shape, dtype, &Device::Cpu), &[]).unwrap()
}

/// Points all over the band, its edges among them.
fn trajectory(samples: usize, shape: &[usize]) -> Tensor {
    let draw = Noise::new(9, 1);
    let at = |i: usize| {
        let half = 0.5 * shape[i % shape.len()] as f64;
        if i < 2 * shape.len() {
            half * (i as f64 - 1.0).signum()
        } else {
            half * (2.0 * draw.uniform(i as u64) - 1.0)
        }
    };
    let k: Vec<f64> = (0..samples * shape.len()).map(at).collect();
    Tensor::from_vec(k, (samples, shape.len()), &Device::Cpu).unwrap()
}

fn direct(x: &[Complex<f64>], shape: &[usize], k: &[f64]) -> Vec<Complex<f64>> {
    let scale = 1.0 / (x.len() as f64).sqrt();
    k.chunks(shape.len())
        .map(|k| {
            let term = |(i, v): (usize, &Complex<f64>)| {
                let (mut rest, mut turn) = (i, 0.0);
                for (n, k) in shape.iter().zip(k).rev() {
                    turn += k * ((rest % n) as f64 - (n / 2) as f64) / *n as f64;
                    rest /= n;
                }
                v * Complex::from_polar(scale, -std::f64::consts::TAU * turn)
            };
            x.iter().enumerate().map(term).sum()
        })
        .collect()
}

#[test]
fn error_is_below_the_tolerance() {
    for shape in [&[45][..], &[24, 31], &[9, 12, 10]] {
        let k = trajectory(300, shape);
        let x = noise(shape, DType::F64, 2);
        let values = f64::to_vec(&x).unwrap();
        let exact = direct(as_complex(&values), shape, &f64::to_vec(&k).unwrap());
        let exact: Vec<f64> = exact.iter().flat_map(|v| [v.re, v.im]).collect();
        let exact = f64::tensor(exact, &[300, 2]).unwrap();
        for oversampling in [1.25, 1.5, 2.0] {
            for tolerance in [1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10] {
                let space = Space::complex(shape, DType::F64, &Device::Cpu);
                let nufft = Nufft::new(&space, &k, Accuracy { tolerance, oversampling }).unwrap();
                let error = relative_difference(&nufft.apply(&x).unwrap(), &exact).unwrap();
                assert!(error < tolerance, "{shape:?} σ {oversampling}: {error:e} for {tolerance:e}");
                let taps = nufft.windows[0].width;
                // A window that is wider than needed would cost time for nothing.
                assert!(
                    error > 1e-4 * tolerance,
                    "{shape:?} σ {oversampling} w {taps}: {error:e} for {tolerance:e}"
                );
            }
        }
    }
}

#[test]
fn passes_every_check() {
    for dtype in [DType::F32, DType::F64] {
        for shape in [&[20][..], &[15, 12], &[6, 8, 7]] {
            let space = Space::complex(shape, dtype, &Device::Cpu);
            let nufft = Nufft::new(&space, &trajectory(70, shape), Accuracy::default()).unwrap();
            check_operator(&nufft).unwrap();
            check_operator(&nufft.toeplitz(None).unwrap()).unwrap();
        }
    }
}

#[test]
fn whole_numbers_are_the_fast_transform() {
    let shape = [12, 9];
    let k: Vec<f64> = (0..108).flat_map(|i| [(i / 9) as f64 - 6.0, (i % 9) as f64 - 4.0]).collect();
    let k = Tensor::from_vec(k, (108, 2), &Device::Cpu).unwrap();
    let space = Space::complex(&shape, DType::F64, &Device::Cpu);
    let nufft = Nufft::new(&space, &k, Accuracy { tolerance: 1e-10, oversampling: 2.0 }).unwrap();
    let x = noise(&shape, DType::F64, 3);
    let fast = Fourier::new(&space, 2).unwrap().apply(&x).unwrap().reshape((108, 2)).unwrap();
    assert!(relative_difference(&nufft.apply(&x).unwrap(), &fast).unwrap() < 1e-9);
    let density = f64::to_vec(&nufft.density_compensation(20).unwrap()).unwrap();
    assert!(density.iter().all(|w| (w - 1.0).abs() < 0.05), "{density:?}");
}

#[test]
fn convolution_is_the_two_transforms_in_turn() {
    let shape = [18, 23];
    let k = trajectory(200, &shape);
    let space = Space::complex(&shape, DType::F64, &Device::Cpu);
    let nufft = Nufft::new(&space, &k, Accuracy { tolerance: 1e-9, oversampling: 2.0 }).unwrap();
    let x = noise(&[3, 18, 23], DType::F64, 4);
    let weights: Vec<f64> = (0..200).map(|i| 0.5 + (i % 7) as f64).collect();
    let weights = f64::tensor(weights, &[200]).unwrap();
    let y = nufft.apply(&x).unwrap();
    let weighted = y.broadcast_mul(&weights.reshape((200, 1)).unwrap()).unwrap();
    let both = nufft.adjoint(&weighted).unwrap();
    let once = nufft.toeplitz(Some(&weights)).unwrap().apply(&x).unwrap();
    assert!(relative_difference(&once, &both).unwrap() < 1e-8);
}

#[test]
fn any_number_of_threads_gives_the_same() {
    let shape = [40, 52];
    let space = Space::complex(&shape, DType::F32, &Device::Cpu);
    let nufft = Nufft::new(&space, &trajectory(3000, &shape), Accuracy::default()).unwrap();
    let y = noise(&[2, 3000], DType::F32, 5);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        f32::to_vec(&pool.install(|| nufft.adjoint(&y)).unwrap()).unwrap()
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn density_of_a_radial_trajectory_grows_with_the_radius() {
    let (spokes, readout) = (100, 64);
    let k: Vec<f64> = (0..spokes * readout)
        .flat_map(|i| {
            let angle = std::f64::consts::PI * (i / readout) as f64 / spokes as f64;
            let r = (i % readout) as f64 - 32.0 + 0.5;
            [r * angle.sin(), r * angle.cos()]
        })
        .collect();
    let k = Tensor::from_vec(k, (spokes * readout, 2), &Device::Cpu).unwrap();
    let space = Space::complex(&[64, 64], DType::F64, &Device::Cpu);
    let nufft = Nufft::new(&space, &k, Accuracy::default()).unwrap();
    let density = f64::to_vec(&nufft.density_compensation(30).unwrap()).unwrap();
    for (i, w) in density.iter().enumerate() {
        let r = ((i % readout) as f64 - 31.5).abs();
        // The area of a piece of a ring.
        let area = std::f64::consts::PI * r / spokes as f64;
        assert!(!(6.0..=28.0).contains(&r) || (w / area - 1.0).abs() < 0.15, "{r}: {w} {area}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let space = Space::complex(&[16, 16], DType::F32, &Device::Cpu);
    let make = |k: &[[f64; 2]], accuracy| {
        let k = Tensor::from_vec(k.concat(), (k.len(), 2), &Device::Cpu).unwrap();
        Nufft::new(&space, &k, accuracy)
    };
    let good = Accuracy::default();
    assert!(matches!(make(&[[0.0, 9.0]], good), Err(Error::Parameter { .. })));
    assert!(matches!(make(&[[0.0, f64::NAN]], good), Err(Error::NotFinite { .. })));
    assert!(make(&[[0.0, 1.0]], Accuracy { tolerance: 0.0, ..good }).is_err());
    assert!(make(&[[0.0, 1.0]], Accuracy { oversampling: 1.0, ..good }).is_err());
    let line = Tensor::zeros((5, 1), DType::F64, &Device::Cpu).unwrap();
    assert!(matches!(Nufft::new(&space, &line, good), Err(Error::Shape { .. })));
    let real = Space::real(&[16, 16], DType::F32, &Device::Cpu);
    assert!(Nufft::new(&real, &Tensor::zeros((5, 2), DType::F64, &Device::Cpu).unwrap(), good).is_err());
}
