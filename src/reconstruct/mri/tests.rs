//! Reconstructions of simulated scans whose truth is known.

use candle_core::{DType, Device};

use super::*;
use crate::linalg::LinearOperator;
use crate::operator::mri::{Pattern, Sampling, Sense, birdcage, measure};
use crate::tensor::random::Noise;
use crate::testing::relative_difference;

/// Two discs and a bar with a smooth phase, off centre.
fn object(n: usize) -> Tensor {
    let mut values = Vec::with_capacity(2 * n * n);
    for i in 0..n * n {
        let (y, x) = ((i / n) as f64 / n as f64 - 0.5, (i % n) as f64 / n as f64 - 0.5);
        let disc = |cy: f64, cx: f64, r: f64| f64::from(u8::from((y - cy).hypot(x - cx) < r));
        let size = disc(0.0, 0.02, 0.4) - 0.5 * disc(0.1, -0.1, 0.15)
            + 0.7 * f64::from(u8::from((y + 0.2).abs() < 0.03 && x.abs() < 0.25));
        let phase = 0.8 * x - 0.5 * y;
        values.extend([size * phase.cos(), size * phase.sin()]);
    }
    f64::tensor(values, &[n, n, 2]).unwrap()
}

struct Scan {
    truth: Tensor,
    maps: Tensor,
    mask: Tensor,
    kspace: Tensor,
}

fn scan(n: usize, acceleration: f64, sigma: f64) -> Scan {
    let truth = object(n);
    let maps = birdcage(6, [n, n], 2, DType::F64, &Device::Cpu).unwrap();
    let pattern = Pattern::PoissonDisc { calibration: 20, growth: 1.5, corners: true };
    let mask = Sampling { pattern, acceleration, seed: 4 }.draw([n, n]).unwrap();
    let encoding = Sense::new(&maps, &mask).unwrap();
    let kspace = measure(&encoding, &truth, sigma, Noise::new(3, 0)).unwrap();
    Scan { truth, maps, mask, kspace }
}

#[test]
fn conjugate_gradients_recover_a_noiseless_image() {
    let scan = scan(64, 1.5, 0.0);
    let encoding = Sense::new(&scan.maps, &scan.mask).unwrap();
    let method = ConjugateGradientSense { lambda: 0.0, max_iterations: 300, tolerance: 1e-8, stop: None };
    let found = method.reconstruct(&encoding, &scan.kspace, &mut ()).unwrap().value;
    assert!(relative_difference(&encoding.apply(&found).unwrap(), &scan.kspace).unwrap() < 1e-4);
    assert!(relative_difference(&found, &scan.truth).unwrap() < 0.05);
}

#[test]
fn penalties_beat_least_squares_and_least_squares_beats_zero_filling() {
    let scan = scan(96, 4.0, 0.01);
    let encoding = Sense::new(&scan.maps, &scan.mask).unwrap();
    let error = |found: &Tensor| relative_difference(found, &scan.truth).unwrap();
    let zero = error(&zero_filled(&encoding, &scan.kspace).unwrap());
    let ridge = ConjugateGradientSense::default().reconstruct(&encoding, &scan.kspace, &mut ()).unwrap();
    let tv = TotalVariationSense::default().reconstruct(&encoding, &scan.kspace, &mut ()).unwrap();
    let (ridge, tv) = (error(&ridge.value), error(&tv.value));
    assert!(tv < 0.7 * ridge && ridge < 0.8 * zero, "TV {tv}, ridge {ridge}, zero-filled {zero}");
}

#[test]
fn results_scale_with_the_data() {
    let scan = scan(48, 3.0, 0.01);
    let encoding = Sense::new(&scan.maps, &scan.mask).unwrap();
    let large = (&scan.kspace * 5e13).unwrap();
    let run =
        |kspace: &Tensor| TotalVariationSense::default().reconstruct(&encoding, kspace, &mut ()).unwrap();
    let (small, large) = (run(&scan.kspace).value, run(&large).value);
    assert!(relative_difference(&large, &(small * 5e13).unwrap()).unwrap() < 1e-9);
}

#[test]
fn maps_from_the_centre_explain_the_data() {
    let scan = scan(64, 3.0, 0.0);
    let region = calibration_region(&sampled_points(&scan.kspace).unwrap(), 24).unwrap();
    assert!(region[0] >= 20 && region[1] >= 20);
    let maps = low_resolution_maps(&scan.kspace, region).unwrap();
    let encoding = Sense::new(&maps, &scan.mask).unwrap();
    let found = ConjugateGradientSense::default().reconstruct(&encoding, &scan.kspace, &mut ()).unwrap();
    let magnitude = |x: &Tensor| x.sqr().unwrap().sum(2).unwrap().sqrt().unwrap();
    let error = relative_difference(&magnitude(&found.value), &magnitude(&scan.truth)).unwrap();
    assert!(error < 0.1, "{error}");
}

#[test]
fn sum_of_squares_of_full_data_is_the_magnitude() {
    let scan = scan(48, 3.0, 0.0);
    let full = Sense::new(&scan.maps, &Tensor::ones((48, 48), DType::F64, &Device::Cpu).unwrap()).unwrap();
    let image = root_sum_of_squares(&full.apply(&scan.truth).unwrap()).unwrap();
    let magnitude = scan.truth.sqr().unwrap().sum(2).unwrap().sqrt().unwrap();
    assert!(relative_difference(&image, &magnitude).unwrap() < 1e-12);
}

#[test]
fn bad_input_is_named() {
    let scan = scan(48, 3.0, 0.0);
    let encoding = Sense::new(&scan.maps, &scan.mask).unwrap();
    let nan = (&scan.kspace * f64::NAN).unwrap();
    let method = ConjugateGradientSense::default();
    assert!(matches!(method.reconstruct(&encoding, &nan, &mut ()), Err(Error::NotFinite { .. })));
    let short = scan.kspace.narrow(0, 0, 5).unwrap();
    assert!(matches!(method.reconstruct(&encoding, &short, &mut ()), Err(Error::Shape { .. })));
    let negative = ConjugateGradientSense { lambda: -1.0, ..method };
    assert!(matches!(negative.reconstruct(&encoding, &scan.kspace, &mut ()), Err(Error::Parameter { .. })));
    assert!(matches!(low_resolution_maps(&scan.kspace, [0, 4]), Err(Error::Parameter { .. })));
    let zero = scan.kspace.zeros_like().unwrap();
    let found = TotalVariationSense::default().reconstruct(&encoding, &zero, &mut ()).unwrap();
    assert_eq!(found.value.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap(), 0.0);
}
