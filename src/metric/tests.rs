//! Against scikit-image 0.26 and fastMRI's definitions: the numbers of tests/reference/metrics.py.

use candle_core::{DType, Device, Tensor};

use super::*;

const SHAPE: (usize, usize, usize) = (3, 24, 29);

/// The volumes of metrics.py.
fn volumes() -> (Tensor, Tensor) {
    let (slices, height, width) = SHAPE;
    let mut reference = Vec::new();
    let mut x = Vec::new();
    for n in 0..slices * height * width {
        let (k, i, j) = (n / (height * width), n / width % height, n % width);
        let wave = (0.31 * j as f64 + 0.2 * k as f64).sin() * (0.17 * i as f64).cos();
        let value = 2.0 + wave + 0.5 * ((j / 5 + i / 4 + k) % 2) as f64;
        let noise = ((n as u64 * 1_103_515_245 + 12345) % 2_147_483_648) as f64 / 2_147_483_648.0 - 0.5;
        reference.push(value);
        x.push(value + 0.3 * noise + 0.05);
    }
    let tensor = |data| Tensor::from_vec(data, SHAPE, &Device::Cpu).unwrap();
    (tensor(x), tensor(reference))
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "found {found:.12}, expected {expected:.12}");
}

#[test]
fn point_metrics_agree_with_the_reference_implementations() {
    let (x, r) = volumes();
    let top = maximum(&r).unwrap();
    close(top, 3.499783764189);
    let volume = compare(&x, &r, top).unwrap().volume;
    close(volume.psnr, 30.888656143959);
    close(psnr(&x, &r, top).unwrap(), 30.888656143959);
    close(volume.nmse, 0.001895481425);
    close(volume.relative_l2, 0.043537126967);
    close(relative_l2(&x, &r).unwrap(), 0.043537126967);
    close(volume.rmse, 0.099909872533);
    close(volume.mae, 0.083267710298);
    close(volume.ssim, 0.973967483191);
    close(compare(&x, &r, 4.0).unwrap().slices[1].psnr, 32.046848768422);
}

#[test]
fn similarity_agrees_with_the_reference_implementations() {
    let (x, r) = volumes();
    close(Ssim::scikit_image().mean(&x, &r, 4.0).unwrap(), 0.974304786899);
    close(Ssim::scikit_image().slices(&x, &r, 4.0).unwrap()[2], 0.974087545425);
    close(Ssim::fast_mri(&x, &r).unwrap(), 0.973967483191);
    close(Ssim::gaussian().slices(&x, &r, 4.0).unwrap()[1], 0.965334305788);
}

#[test]
fn single_precision_agrees_with_double() {
    let (x, r) = volumes();
    let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
    let (a, b) = (compare(&x, &r, 4.0).unwrap(), compare(&single(&x), &single(&r), 4.0).unwrap());
    for (a, b) in a.slices.iter().zip(&b.slices) {
        assert!((a.psnr - b.psnr).abs() < 1e-4 && (a.ssim - b.ssim).abs() < 1e-6, "{a:?} {b:?}");
    }
}

#[test]
fn equal_arrays_are_perfect() {
    let (x, _) = volumes();
    let scores = compare(&x, &x, 1.0).unwrap().volume;
    assert_eq!((scores.psnr, scores.nmse, scores.rmse, scores.mae), (f64::INFINITY, 0.0, 0.0, 0.0));
    assert!((scores.ssim - 1.0).abs() < 1e-12);
}

#[test]
fn bad_input_is_named() {
    let (x, r) = volumes();
    let short = r.narrow(0, 0, 2).unwrap();
    assert!(matches!(compare(&x, &short, 1.0), Err(Error::Shape { .. })));
    assert!(matches!(compare(&x, &r, 0.0), Err(Error::Parameter { .. })));
    assert!(matches!(compare(&x, &r, f64::NAN), Err(Error::Parameter { .. })));
    let small = x.narrow(1, 0, 6).unwrap();
    let message = Ssim::scikit_image().slices(&small, &small, 1.0).unwrap_err().to_string();
    assert!(message.contains("at least 7 × 7"), "{message}");
    let wrong = Ssim { window: Window::Uniform(4), ..Ssim::scikit_image() };
    assert!(matches!(wrong.slices(&x, &r, 1.0), Err(Error::Parameter { .. })));
    let broken = (&x / 0.0).unwrap();
    assert!(matches!(compare(&broken, &r, 1.0), Err(Error::NotFinite { .. })));
}
