//! Parametrizations against the closed form of a normal prior; layout and padding by the dot test.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::prior::Denoiser;
use crate::prior::mixture::Mixture;
use crate::tensor::Real;
use crate::tensor::{Field, Space, vector};
use crate::testing::relative_difference;

/// The exact network of x₀ ~ N(m, v) for one kind of prediction: affine in x_t.
#[derive(Clone, Debug)]
struct Affine {
    /// Slope and shift at each time.
    at: fn(f64) -> (f64, f64),
}

impl Network for Affine {
    fn channels(&self) -> usize {
        1
    }
    fn granule(&self) -> usize {
        4
    }
    fn forward(&self, x: &Tensor, time: f64) -> Result<Tensor> {
        assert_eq!(x.dims()[2..], [4, 4]);
        let (slope, shift) = (self.at)(time);
        Ok(x.affine(slope, shift)?.pad_with_zeros(1, 0, 1)?)
    }
    fn forward_vjp(&self, x: &Tensor, time: f64) -> Result<(Tensor, Pullback)> {
        let (slope, _) = (self.at)(time);
        let pull = move |c: &Tensor| Ok(c.narrow(1, 0, 1)?.contiguous()?.affine(slope, 0.0)?);
        Ok((self.forward(x, time)?, Pullback::new(pull)))
    }
}

const MEAN: f64 = 0.3;
const VARIANCE: f64 = 0.49;

/// E[x₀ | x_t] = a x_t + b at one level.
fn posterior_mean(signal: f64, noise: f64) -> (f64, f64) {
    let slope = signal * VARIANCE / (signal * signal * VARIANCE + noise * noise);
    (slope, MEAN * (1.0 - slope * signal))
}

fn ddpm(t: f64) -> (f64, f64) {
    // The table at integer times only: the test uses its own noise levels.
    let alpha = Betas::default().alphas_cumprod(1000)[t.round() as usize];
    (alpha.sqrt(), (1.0 - alpha).sqrt())
}

/// Slope and shift of a network at a time.
type Line = fn(f64) -> (f64, f64);

fn exact(kind: &str) -> (Prediction, Line) {
    let times = Times::Discrete(DiscreteTimes::new(Betas::default(), 1000).unwrap());
    match kind {
        "sample" => (Prediction::Sample(times), |t| posterior_mean(ddpm(t).0, ddpm(t).1)),
        "noise" => (Prediction::Noise(times), |t| {
            let (signal, noise) = ddpm(t);
            let (a, b) = posterior_mean(signal, noise);
            ((1.0 - signal * a) / noise, -signal * b / noise)
        }),
        "velocity" => (Prediction::Velocity(times), |t| {
            let (signal, noise) = ddpm(t);
            let (a, b) = posterior_mean(signal, noise);
            ((signal - a) / noise, -b / noise)
        }),
        "score" => (Prediction::Score(Times::Continuous { sde: Sde::SUB_VP, scale: 999.0 }), |t| {
            let (signal, noise) = Sde::SUB_VP.marginal(t / 999.0);
            let (a, b) = posterior_mean(signal, noise);
            (-(1.0 - signal * a) / noise.powi(2), signal * b / noise.powi(2))
        }),
        "ve score" => (Prediction::Score(Times::Sigma), |sigma| {
            let (a, b) = posterior_mean(1.0, sigma);
            ((a - 1.0) / sigma.powi(2), b / sigma.powi(2))
        }),
        _ => (Prediction::Edm { sigma_data: 0.5 }, |time| {
            let sigma = (4.0 * time).exp();
            let (a, b) = posterior_mean(1.0, sigma);
            let c = Prediction::Edm { sigma_data: 0.5 }.coefficients(sigma);
            ((a - c.skip) / (c.out * c.input), b / c.out)
        }),
    }
}

#[test]
fn every_parametrization_of_a_normal_prior_is_its_closed_form() {
    let oracle = Mixture::new(&[2, 3], vec![(1.0, vec![MEAN; 6], VARIANCE.sqrt())]).unwrap();
    let x = Tensor::new(&[[0.1f64, 2.0, -1.0], [0.5, 0.0, 3.0]], &Device::Cpu).unwrap();
    let levels = Betas::default().sigmas(1000);
    for kind in ["sample", "noise", "velocity", "score", "ve score", "edm"] {
        let (prediction, at) = exact(kind);
        let prior = NetworkDenoiser::new(Arc::new(Affine { at }), prediction, (-1.0, 1.0)).unwrap();
        for sigma in [levels[20], levels[200], levels[700]] {
            let (value, pull) = prior.denoise_vjp(&x, sigma).unwrap();
            let (expected, exact_pull) = oracle.denoise_vjp(&x, sigma).unwrap();
            // The networks compute in f32; D cancels large terms in some conventions.
            assert!(relative_difference(&value, &expected).unwrap() < 2e-5, "{kind} {sigma}");
            let (found, expected) = (pull.pull(&x).unwrap(), exact_pull.pull(&x).unwrap());
            assert!(relative_difference(&found, &expected).unwrap() < 1e-4, "{kind} {sigma}");
            let plain = prior.denoise(&x, sigma).unwrap();
            assert_eq!(f64::to_vec(&plain).unwrap(), f64::to_vec(&value).unwrap());
        }
    }
}

/// Multiplies re by 2 and im by 3 and adds to every element the one below it.
#[derive(Clone, Debug)]
struct Mixing;

impl Network for Mixing {
    fn channels(&self) -> usize {
        2
    }
    fn granule(&self) -> usize {
        2
    }
    fn forward(&self, x: &Tensor, _: f64) -> Result<Tensor> {
        let gain = Tensor::new(&[[[[2f32]], [[3.0]]]], &Device::Cpu)?;
        Ok((x.broadcast_mul(&gain)? + x.roll(1, 2)?)?)
    }
    fn forward_vjp(&self, x: &Tensor, t: f64) -> Result<(Tensor, Pullback)> {
        let gain = Tensor::new(&[[[[2f32]], [[3.0]]]], &Device::Cpu)?;
        let pull = move |c: &Tensor| Ok((c.broadcast_mul(&gain)? + c.roll(-1, 2)?)?);
        Ok((self.forward(x, t)?, Pullback::new(pull)))
    }
}

#[test]
fn complex_images_and_padding_pass_the_dot_test() {
    let prior =
        NetworkDenoiser::new(Arc::new(Mixing), Prediction::Sample(Times::Sigma), (-1.0, 1.0)).unwrap();
    let draw = |stream| {
        let space = Space::complex(&[5, 3], DType::F64, &Device::Cpu);
        crate::tensor::random::standard_normal(crate::tensor::random::Noise::new(8, stream), &space, &[2])
    };
    let (u, v) = (draw(0).unwrap(), draw(1).unwrap());
    // The network is linear, so that D(u) = J u.
    let (value, pull) = prior.denoise_vjp(&u, 1.0).unwrap();
    let inner = |x, y| vector::inner(x, y, 1).unwrap()[0];
    let (left, right) = (inner(&value, &v), inner(&u, &pull.pull(&v).unwrap()));
    assert!((left - right).abs() < 1e-5 * left.abs().max(1.0), "{left} {right}");
    // Row 5 of the padded image is the reflection of row 4, and row 1 gets row 0.
    let (d, x) = (f64::to_vec(&value).unwrap(), f64::to_vec(&u).unwrap());
    assert!((d[6] - 2.0 * x[6] - x[0]).abs() < 1e-5 && (d[1] - 3.0 * x[1] - x[25]).abs() < 1e-5);
    let real = Space::real(&[8, 8], DType::F32, &Device::Cpu);
    assert!(prior.check(&real).is_err() && prior.check(&real.with_field(Field::Complex)).is_ok());
    assert!(prior.denoise(&real.zeros(&[]).unwrap(), 1.0).is_err());
}

#[test]
fn rescaling_moves_range_and_noise() {
    let unit = Mixture::new(&[1, 3], vec![(1.0, vec![0.0; 3], 1.0)]).unwrap();
    let direct = Mixture::new(&[1, 3], vec![(1.0, vec![7.0; 3], 2.0)]).unwrap();
    let prior = Rescaled::new(unit.clone(), -2.0, 7.0).unwrap();
    let x = Tensor::new(&[[1f64, 5.0, 9.0]], &Device::Cpu).unwrap();
    let (found, pull) = prior.denoise_vjp(&x, 0.8).unwrap();
    let (expected, exact) = direct.denoise_vjp(&x, 0.8).unwrap();
    assert!(relative_difference(&found, &expected).unwrap() < 1e-14);
    assert!(relative_difference(&pull.pull(&x).unwrap(), &exact.pull(&x).unwrap()).unwrap() < 1e-14);
    assert!(Rescaled::new(unit, 0.0, 1.0).is_err());
}
