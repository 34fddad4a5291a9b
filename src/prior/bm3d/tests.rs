use candle_core::{DType, Device};

use super::group::{Cosine, across};
use super::pass::AREA;
use super::*;
use crate::prior::Denoiser;
use crate::tensor::random::{Noise, standard_normal};
use crate::testing::relative_difference;

/// A disc with stripes, an edge and nothing around it.
fn object(size: usize) -> Tensor {
    let pixel = |i: usize| {
        let (y, x) = ((i / size) as f64 / size as f64 - 0.5, (i % size) as f64 / size as f64 - 0.5);
        if x.hypot(y) > 0.42 {
            0.0
        } else if y < 0.0 {
            0.6 + 0.25 * (1.3 * (i % size) as f64).sin()
        } else {
            0.4
        }
    };
    Tensor::from_iter((0..size * size).map(pixel), &Device::Cpu).unwrap().reshape((size, size)).unwrap()
}

fn noise(space: &Space, sigma: f64) -> Tensor {
    (standard_normal(Noise::new(5, 0), space, &[]).unwrap() * sigma).unwrap()
}

fn real(size: usize) -> Space {
    Space::real(&[size, size], DType::F64, &Device::Cpu)
}

/// What is left of the noise.
fn left(x: &Tensor, truth: &Tensor, noise: &Tensor) -> f64 {
    relative_difference(x, truth).unwrap() / relative_difference(&(truth + noise).unwrap(), truth).unwrap()
}

#[test]
fn transforms_are_orthonormal() {
    let pieces = f64::to_vec(&noise(&real(16), 1.0)).unwrap();
    let mut stack: Vec<[f64; AREA]> = pieces.chunks_exact(AREA).map(|p| p.try_into().unwrap()).collect();
    let before = stack.clone();
    let cosine = Cosine::new();
    stack.iter_mut().for_each(|piece| cosine.forward(piece));
    across(&mut stack);
    let energy = |s: &[[f64; AREA]]| s.as_flattened().iter().map(|v| v * v).sum::<f64>();
    assert!((energy(&stack) / energy(&before) - 1.0).abs() < 1e-12);
    // The first coefficient is the mean of everything.
    let sum: f64 = before.as_flattened().iter().sum();
    assert!((stack[0][0] - sum / 16.0).abs() < 1e-12);
    across(&mut stack);
    stack.iter_mut().for_each(|piece| cosine.inverse(piece));
    let worst = |(a, b): (&f64, &f64)| (a - b).abs();
    assert!(stack.as_flattened().iter().zip(before.as_flattened()).map(worst).all(|d| d < 1e-12));
}

#[test]
fn stripes_and_edges_stay_and_noise_goes() {
    let (truth, space) = (object(64), real(64));
    for (sigma, allowed) in [(0.02, 0.5), (0.1, 0.4)] {
        let noise = noise(&space, sigma);
        let clean = Bm3d::new(Field::Real).denoise(&(&truth + &noise).unwrap(), sigma).unwrap();
        let rest = left(&clean, &truth, &noise);
        assert!(rest < allowed, "σ {sigma}: {rest}");
        // No blur does as well, whatever its width.
        for width in [0.4, 0.6, 0.8, 1.2] {
            let blur = Blur::gaussian(&space, width, Boundary::Reflect).unwrap();
            let blurred = blur.apply(&(&truth + &noise).unwrap()).unwrap();
            assert!(left(&blurred, &truth, &noise) > 1.5 * rest, "σ {sigma}, width {width}");
        }
    }
}

#[test]
fn images_and_noise_of_another_size_give_the_same() {
    let x = (object(40) + noise(&real(40), 0.1)).unwrap();
    let once = (Bm3d::new(Field::Real).denoise(&x, 0.1).unwrap() * 1024.0).unwrap();
    let scaled = Bm3d::new(Field::Real).denoise(&(x * 1024.0).unwrap(), 102.4).unwrap();
    assert!(relative_difference(&scaled, &once).unwrap() < 1e-12);
}

/// With a smooth phase a complex image is as good as its magnitude with real noise.
#[test]
fn smooth_phases_cost_little() {
    let (size, sigma) = (64, 0.05);
    let truth = object(size);
    let space = Space::complex(&[size, size], DType::F64, &Device::Cpu);
    let phase = |i: usize| 0.9 + 2.0 * (i % size) as f64 / size as f64 - (i / size) as f64 / size as f64;
    let factors = |part: fn(f64) -> f64| {
        let values = (0..size * size).map(|i| part(phase(i)));
        Tensor::from_iter(values, &Device::Cpu).unwrap().reshape((size, size)).unwrap()
    };
    let parts = [(&truth * factors(f64::cos)).unwrap(), (&truth * factors(f64::sin)).unwrap()];
    let complex = Tensor::stack(&parts, 2).unwrap();
    let noise_2 = noise(&space, sigma);
    let noisy = (&complex + &noise_2).unwrap();
    let clean = Bm3d::new(Field::Complex).denoise(&noisy, sigma).unwrap();
    let magnitude = |x: &Tensor| x.sqr().unwrap().sum(2).unwrap().sqrt().unwrap();
    let found = relative_difference(&magnitude(&clean), &truth).unwrap();
    let alone = noise(&real(size), sigma);
    let as_real = Bm3d::new(Field::Real).denoise(&(&truth + alone).unwrap(), sigma).unwrap();
    let wanted = relative_difference(&as_real, &truth).unwrap();
    assert!(found < 1.15 * wanted, "{found} {wanted}");
    // A quarter turn of all phases changes nothing.
    let turn = |x: &Tensor| {
        let (re, im) = (x.narrow(2, 0, 1).unwrap(), x.narrow(2, 1, 1).unwrap());
        Tensor::cat(&[im.neg().unwrap(), re], 2).unwrap()
    };
    let turned = Bm3d::new(Field::Complex).denoise(&turn(&noisy), sigma).unwrap();
    assert!(relative_difference(&turned, &turn(&clean)).unwrap() < 1e-12);
}

#[test]
fn images_are_denoised_on_their_own_by_any_number_of_threads() {
    let one = (object(48) + noise(&real(48), 0.1)).unwrap().to_dtype(DType::F32).unwrap();
    let both = Tensor::stack(&[&(&one * 0.5).unwrap(), &one], 0).unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let answer = pool.install(|| Bm3d::new(Field::Real).denoise(&both, 0.1).unwrap());
        f32::to_vec(&answer).unwrap()
    };
    let alone = f32::to_vec(&Bm3d::new(Field::Real).denoise(&one, 0.1).unwrap()).unwrap();
    let (first, second) = (run(1), run(3));
    assert_eq!(first, second);
    assert_eq!(first[48 * 48..], alone);
}

#[test]
fn what_cannot_be_denoised_is_refused() {
    let small = Tensor::zeros((7, 30), DType::F32, &Device::Cpu).unwrap();
    let message = Bm3d::new(Field::Real).denoise(&small, 0.1).unwrap_err().to_string();
    assert!(message.contains("8 × 8"), "{message}");
    assert!(Bm3d::new(Field::Real).check(&Space::complex(&[16, 16], DType::F32, &Device::Cpu)).is_err());
    assert!(Bm3d::new(Field::Complex).check(&real(16)).is_err());
    assert!(Bm3d::new(Field::Real).check(&real(16)).is_ok());
    let x = object(16);
    assert!(Bm3d::new(Field::Real).denoise(&x, -1.0).is_err());
    assert!(Bm3d::new(Field::Real).denoise_vjp(&x, 0.1).is_err());
}
