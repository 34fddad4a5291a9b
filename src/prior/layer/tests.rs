//! Our kernels against candle's own operations: values, and gradients of inputs and weights.

use candle_core::{DType, Device, Tensor, Var};

use super::attention::Attend;
use super::norm::Normalise;
use super::ops::{add, add_rows, concatenate, relu};
use super::resample::{Separable, fold, unfold};
use super::{Conv, Modulation, Names, Norm, Resampling, Residual, Shape, Tape, resampled};
use crate::error::Result;
use crate::prior::Precision;
use crate::prior::kernel::conv::Geometry;
use crate::prior::kernel::norm::Norm as Settings;
use crate::tensor::Space;
use crate::tensor::random::{Noise, standard_normal};
use crate::testing::relative_difference;

fn draw(shape: &[usize], seed: u64) -> Var {
    let space = Space::real(shape, DType::F32, &Device::Cpu);
    Var::from_tensor(&standard_normal(Noise::new(seed, 0), &space, &[]).unwrap()).unwrap()
}

/// Two functions of the same variables agree in value and in all gradients.
fn agree(
    what: &str,
    variables: &[&Var],
    ours: impl Fn(&[&Tensor]) -> Result<Tensor>,
    theirs: impl Fn(&[&Tensor]) -> Result<Tensor>,
) {
    let arguments: Vec<&Tensor> = variables.iter().map(|v| v.as_tensor()).collect();
    let (a, b) = (ours(&arguments).unwrap(), theirs(&arguments).unwrap());
    let error = relative_difference(&a, &b).unwrap();
    assert!(error < 5e-6, "{what}: {error:e}");
    let g = draw(a.dims(), 99).as_tensor().detach();
    let pull = |y: &Tensor| (y * &g).unwrap().sum_all().unwrap().backward().unwrap();
    let (of_a, of_b) = (pull(&a), pull(&b));
    for (index, variable) in variables.iter().enumerate() {
        let (a, b) = (of_a.get(variable.as_tensor()).unwrap(), of_b.get(variable.as_tensor()).unwrap());
        let error = relative_difference(a, b).unwrap();
        assert!(error < 2e-5, "{what}, gradient {index}: {error:e}");
    }
}

#[test]
fn convolutions() {
    // (images, height, width, inputs, outputs, size, stride, before, after)
    let cases = [
        (1, 8, 8, 16, 16, 3, 1, 1, 1),
        (2, 13, 7, 48, 32, 3, 1, 1, 1),
        (3, 5, 6, 16, 4, 3, 1, 1, 1),
        (2, 9, 10, 4, 32, 3, 1, 1, 1),
        (1, 6, 5, 7, 9, 3, 1, 1, 1),
        (2, 12, 8, 16, 48, 3, 2, 1, 1),
        (1, 9, 7, 24, 16, 3, 2, 1, 1),
        (2, 8, 6, 16, 20, 3, 2, 0, 1),
        (1, 9, 7, 3, 16, 3, 2, 0, 0),
        (2, 7, 9, 32, 80, 1, 1, 0, 0),
        (2, 4, 3, 5, 3, 1, 1, 0, 0),
    ];
    for (images, height, width, inputs, outputs, size, stride, before, after) in cases {
        let geometry = Geometry { inputs, outputs, size, stride, before, after };
        let x = draw(&[images, height, width, inputs], 1);
        let (w, b) = (draw(&[outputs, inputs, size, size], 2), draw(&[outputs], 3));
        let conv = |v: &[&Tensor]| Conv::new(geometry, v[1].clone(), v[2].clone());
        let name = format!("{geometry:?} on {height} × {width}");
        agree(&name, &[&x, &w, &b], |v| conv(v).apply(v[0]), |v| conv(v).portable(v[0], Precision::F32));
        let constant = Conv::new(geometry, w.as_tensor().detach(), b.as_tensor().detach());
        agree(&name, &[&x], |v| constant.apply(v[0]), |v| constant.portable(v[0], Precision::F32));
    }
}

#[test]
fn rounded_convolutions_differ_by_their_bits() {
    let geometry = Geometry { inputs: 48, outputs: 32, size: 3, stride: 1, before: 1, after: 1 };
    let x = draw(&[2, 13, 7, 48], 1);
    let (w, b) = (draw(&[32, 48, 3, 3], 2), draw(&[32], 3));
    let conv = Conv::new(geometry, w.as_tensor().detach(), b.as_tensor().detach());
    let both = |precision| {
        let y = conv.portable(&x, precision).unwrap();
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        (y.clone(), gradients.get(&x).unwrap().clone())
    };
    let exact = both(Precision::F32);
    // Half a unit of the last bit of two factors, in the mean of many products; bf16 rounds the result, too.
    for (precision, bit) in [(Precision::Tf32, 2f64.powi(-11)), (Precision::Bf16, 2f64.powi(-8))] {
        let rounded = both(precision);
        for (found, expected) in [(rounded.0, &exact.0), (rounded.1, &exact.1)] {
            let error = relative_difference(&found, expected).unwrap();
            assert!(0.2 * bit < error && error < 2.0 * bit, "{precision:?}: {error:e}");
        }
    }
    // bf16 rounds the factors before they meet, and the sum after them.
    for (x, weights, expected) in
        [([1.0 + 2f32.powi(-9), 1.0], [1f32, -1.0], 0f32), ([1.0, 2f32.powi(-9)], [1.0, 1.0], 1.0)]
    {
        let tensor =
            |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let conv = Conv::pointwise(tensor(&weights, &[1, 2]), tensor(&[0.0], &[1])).unwrap();
        let y = conv.portable(&tensor(&x, &[1, 1, 1, 2]), Precision::Bf16).unwrap();
        assert_eq!(elements(&y), [expected]);
    }
}

#[test]
fn normalisation_with_and_without_modulation() {
    for (channels, groups) in [(32, 4), (24, 24), (6, 2)] {
        let x = draw(&[2, 9, 5, channels], 1);
        let (gamma, beta) = (draw(&[2, channels], 2), draw(&[2, channels], 3));
        for silu in [false, true] {
            let op = || Normalise(Settings { groups, epsilon: 1e-5, silu });
            let name = format!("{channels} channels in {groups} groups, SiLU {silu}");
            agree(
                &name,
                &[&x, &gamma, &beta],
                |v| Ok(v[0].apply_op3(v[1], v[2], op())?),
                |v| op().portable(v[0], v[1], v[2]),
            );
        }
    }
    let fetch = &mut |_: &str, shape: &[usize]| Ok(draw(shape, 4).as_tensor().detach());
    let norm = Norm::load("norm", 16, 4, 1e-5, fetch).unwrap();
    let x = draw(&[1, 3, 3, 16], 5).as_tensor().detach();
    let zero = Tensor::zeros((1, 16), DType::F32, &Device::Cpu).unwrap();
    let (plain, modulated) = (norm.silu(&x).unwrap(), norm.silu_modulated(&x, &zero, &zero).unwrap());
    assert!(relative_difference(&plain, &modulated).unwrap() < 1e-7);
    assert!(Norm::load("norm", 16, 5, 1e-5, fetch).unwrap_err().to_string().contains("`norm`"));
}

#[test]
fn residual_blocks_as_one_operation() {
    let names = || {
        let [norm1, conv1, embed, norm2, conv2, shortcut] =
            ["norm1", "conv1", "embed", "norm2", "conv2", "shortcut"].map(String::from);
        Names { norm1, conv1, embed, norm2, conv2, shortcut }
    };
    for (channels, modulation, shortcut, scale) in [
        ([16, 16], Modulation::ScaleShift, false, 1.0),
        ([32, 16], Modulation::ScaleShift, false, 0.5f64.sqrt()),
        ([16, 48], Modulation::Shift, false, 1.0),
        ([16, 16], Modulation::Shift, false, 0.5),
        ([16, 16], Modulation::Shift, true, 0.5),
    ] {
        let mut seed = 10;
        let fetch = &mut |_: &str, shape: &[usize]| {
            seed += 1;
            Ok((draw(shape, seed).as_tensor().detach() * 0.2)?)
        };
        let (groups, epsilon) = ([4, 8], 1e-5);
        let shape =
            Shape { channels, embedding: 6, groups, epsilon, modulation, resampling: None, shortcut, scale };
        let block = Residual::load(&names(), shape, fetch).unwrap();
        let (x, e) = (draw(&[2, 9, 6, channels[0]], 1), draw(&[2, 6], 2).as_tensor().detach());
        let name = format!("{shape:?}");
        agree(&name, &[&x], |v| block.apply(v[0], &e), |v| block.layers(v[0], &e));
        let alone = block.apply(&x.as_tensor().detach(), &e).unwrap();
        assert_eq!(
            elements(&alone),
            elements(&block.apply(&x, &e).unwrap()),
            "{name}: with a gradient in view"
        );
    }
}

#[test]
fn attention_over_more_pixels_than_a_block() {
    for (heads, channels) in [(2, 32), (3, 15), (1, 8)] {
        let qkv = draw(&[2, 19, 16, 3 * channels], 1);
        let name = format!("{heads} heads of {channels} channels");
        agree(&name, &[&qkv], |v| Ok(v[0].apply_op1(Attend(heads))?), |v| Attend(heads).portable(v[0]));
    }
}

#[test]
fn resampling_sums_and_folding() {
    let all = [
        Resampling::Doubled,
        Resampling::Halved,
        Resampling::FirDoubled,
        Resampling::FirHalved,
        Resampling::FirWidened,
    ];
    for resampling in all {
        let x = draw(&[2, 6, 8, 5], 1);
        let op = || Separable { rows: resampling.taps(6), columns: resampling.taps(8) };
        let name = format!("{resampling:?}");
        agree(&name, &[&x], |v| Ok(v[0].apply_op1(op())?), |v| op().portable(v[0]));
    }
    let (a, b, rows) = (draw(&[2, 3, 4, 5], 1), draw(&[2, 3, 4, 5], 2), draw(&[2, 5], 3));
    agree("sum", &[&a, &b], |v| add(v[0], v[1], 0.7), |v| Ok(((v[0] + v[1])? * 0.7)?));
    let wide = |v: &Tensor| v.reshape((2, 1, 1, 5));
    agree("rows", &[&a, &rows], |v| add_rows(v[0], v[1]), |v| Ok(v[0].broadcast_add(&wide(v[1])?)?));
    agree("rectification", &[&a], |v| relu(v[0]), |v| Ok(v[0].relu()?));
    let c = draw(&[2, 3, 4, 7], 4);
    agree("channels", &[&a, &c], |v| concatenate(v[0], v[1]), |v| Ok(Tensor::cat(v, 3)?));
    let image = Tensor::arange(0f32, 96.0, &Device::Cpu).unwrap().reshape((2, 2, 4, 6)).unwrap();
    let folded = fold(&image, 2).unwrap();
    assert_eq!(folded.dims(), [2, 2, 3, 8]);
    // The second channel's pixel (1, 0) of the first square.
    assert_eq!(folded.get(0).unwrap().to_vec3::<f32>().unwrap()[0][0][6], 30.0);
    assert_eq!(elements(&unfold(&folded, 2).unwrap()), elements(&image));
}

#[test]
fn a_tape_gives_the_gradient_of_layers_alone() {
    let fetch =
        &mut |name: &str, shape: &[usize]| Ok((draw(shape, name.len() as u64).as_tensor().detach() * 0.3)?);
    let (conv, norm) =
        (Conv::load("conv", [4, 4], 3, fetch).unwrap(), Norm::load("n", 4, 2, 1e-5, fetch).unwrap());
    let out = Conv::load("out of", [8, 4], 1, fetch).unwrap();
    let x = draw(&[2, 1, 12, 8], 7);
    // An array with three users, one of them without effect on the value.
    let run = |foreign: bool| {
        let a = conv.apply(&fold(&x, 2)?)?;
        let b = norm.silu(&a)?;
        resampled(&a, Resampling::Halved)?;
        let b = if foreign { b.affine(2.0, 0.0)? } else { b };
        unfold(&out.apply(&concatenate(&add(&a, &b, 0.5)?, &a)?)?, 2)
    };
    let g = draw(&[2, 1, 12, 8], 9).as_tensor().detach();
    for foreign in [false, true] {
        let (y, tape) = Tape::record(|| run(foreign));
        let y = y.unwrap();
        let found = tape.pull(&x, &y, &g).unwrap();
        assert_eq!(found.is_some(), !foreign);
        let gradients = (&y * &g).unwrap().sum_all().unwrap().backward().unwrap();
        if let Some(found) = found {
            assert!(relative_difference(&found, gradients.get(&x).unwrap()).unwrap() < 1e-6);
        }
    }
    // What goes on meanwhile on another tape is not on this one.
    let (y, tape) = Tape::record(|| {
        let (inner, other) = Tape::record(|| run(false));
        assert!(other.pull(&x, &inner?, &g)?.is_some());
        run(false)
    });
    assert!(tape.pull(&x, &y.unwrap(), &g).unwrap().is_some());
}

/// All elements in order.
fn elements(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

#[cfg(unix)]
#[test]
fn fused_normalisation_for_a_device() {
    use crate::tensor::device::emulator::emulated;
    for (silu, groups) in [(false, 3), (true, 12), (true, 1)] {
        let settings = Settings { groups, epsilon: 1e-5, silu };
        let (x, gamma, beta) = (draw(&[2, 19, 17, 12], 1), draw(&[2, 12], 2), draw(&[2, 12], 3));
        let expected = Normalise(settings).portable(&x, &gamma, &beta).unwrap();
        let run = || super::device::normalise(&settings, &x, &gamma, &beta).unwrap();
        assert!(relative_difference(&run(), &expected).unwrap() < 2e-6);
        let Some((found, launched, fallen_back)) = emulated(run) else { return };
        assert!(launched == 3 && fallen_back == 0);
        assert!(relative_difference(&found, &expected).unwrap() < 2e-6);
    }
}

#[cfg(unix)]
#[test]
fn convolutions_for_a_device() {
    use crate::tensor::device::emulator::emulated;
    let cases = [(7, 9, 3, 1, 1, 1), (16, 4, 3, 2, 1, 1), (5, 6, 3, 2, 0, 1), (6, 10, 1, 1, 0, 0)];
    for (inputs, outputs, size, stride, before, after) in cases {
        let geometry = Geometry { inputs, outputs, size, stride, before, after };
        let x = draw(&[3, 11, 8, inputs], 1);
        let (w, b) = (draw(&[outputs, inputs, size, size], 2), draw(&[outputs], 3));
        let conv = Conv::new(geometry, w.as_tensor().detach(), b.as_tensor().detach());
        let expected = conv.portable(&x, Precision::F32).unwrap();
        let (x, matrix) = (x.as_tensor().detach(), conv.matrix().unwrap());
        let run = || super::device::convolve(geometry, &x, matrix, &b, Precision::F32).unwrap();
        assert!(relative_difference(&run(), &expected).unwrap() < 2e-6);
        let Some((found, launched, fallen_back)) = emulated(run) else { return };
        assert!(launched == usize::from(size > 1) && fallen_back == 0);
        assert!(relative_difference(&found, &expected).unwrap() < 2e-6);
    }
}
