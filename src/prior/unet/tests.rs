//! Every part against a plain f64 computation, gradients by the dot test.

use super::attention::{attend, attend_adjoint};
use super::conv::Conv;
use super::map::{Map, Pool, Shape};
use super::norm::{Modulation, Norm, exp};

/// Numbers in [−1, 1).
fn draw(count: usize, seed: u64) -> Vec<f32> {
    let noise = crate::tensor::random::Noise::new(seed, 0);
    (0..count as u64).map(|i| (2.0 * noise.uniform(i) - 1.0) as f32).collect()
}

fn map(images: usize, height: usize, width: usize, channels: usize, seed: u64) -> Map {
    let mut map = Pool::default().map(Shape { images, height, width, channels });
    map.data_mut().copy_from_slice(&draw(images * height * width * channels, seed));
    map
}

fn relative(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let error: f64 = found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).powi(2)).sum();
    (error / expected.iter().map(|e| e * e).sum::<f64>()).sqrt()
}

fn inner(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The convolution by its definition, in f64; channels behind `outputs` are zero.
fn direct(x: &Map, weights: &[f32], bias: &[f32], size: usize, stride: usize, channels: usize) -> Vec<f64> {
    let Shape { images, height, width, channels: inputs } = x.shape;
    let (rows, columns) = (height.div_ceil(stride), width.div_ceil(stride));
    let mut out = vec![0.0; images * rows * columns * channels];
    for (at, value) in out.iter_mut().enumerate() {
        let (o, pixel) = (at % channels, at / channels);
        let (column, row, image) = (pixel % columns, pixel / columns % rows, pixel / columns / rows);
        if o >= bias.len() {
            continue;
        }
        *value = f64::from(bias[o]);
        for tap in 0..size * size {
            let y = (row * stride + tap / size).wrapping_sub(size / 2);
            let z = (column * stride + tap % size).wrapping_sub(size / 2);
            if y < height && z < width {
                for i in 0..inputs {
                    let pixel = x.data()[((image * height + y) * width + z) * inputs + i];
                    *value += f64::from(pixel) * f64::from(weights[(o * inputs + i) * size * size + tap]);
                }
            }
        }
    }
    out
}

#[test]
fn convolutions_match_their_definition_and_their_adjoints() {
    // (images, height, width, inputs, outputs, size, stride)
    let cases = [
        (1, 8, 8, 16, 16, 3, 1),
        (2, 13, 7, 48, 32, 3, 1),
        (1, 33, 30, 32, 48, 3, 1),
        (3, 5, 6, 16, 4, 3, 1),
        (2, 9, 10, 4, 32, 3, 1),
        (2, 12, 8, 16, 48, 3, 2),
        (1, 10, 6, 48, 16, 3, 2),
        (2, 7, 9, 32, 80, 1, 1),
    ];
    for (index, (images, height, width, inputs, outputs, size, stride)) in cases.into_iter().enumerate() {
        let seed = 10 * index as u64;
        let (weights, bias) = (draw(outputs * inputs * size * size, seed), draw(outputs, seed + 1));
        let x = map(images, height, width, inputs, seed + 2);
        let conv = Conv::new(weights.clone(), bias.clone(), size, stride);
        let mut found = conv.apply(&x);
        let expected = direct(&x, &weights, &bias, size, stride, found.shape.channels);
        let error = relative(found.data(), &expected);
        assert!(error < 5e-6, "case {index}: {error:e}");
        if stride == 1 {
            conv.add_to(&x, &mut found);
            let doubled: Vec<f64> = expected.iter().map(|e| 2.0 * e).collect();
            assert!(relative(found.data(), &doubled) < 5e-6);
        }
        // ⟨conv x, g⟩ = ⟨x, adjoint g⟩ for the linear part.
        let linear = Conv::new(weights, vec![0.0; outputs], size, stride);
        let forward = linear.apply(&x);
        let mut g = forward.like(forward.shape);
        g.data_mut().copy_from_slice(&draw(forward.data().len(), seed + 3));
        let back = linear.adjoint(&g, x.shape);
        let back: Vec<f32> =
            back.data().chunks_exact(back.shape.channels).flat_map(|p| p[..inputs].to_vec()).collect();
        let size = inner(forward.data(), forward.data()).sqrt() * inner(g.data(), g.data()).sqrt();
        let defect = (inner(forward.data(), g.data()) - inner(x.data(), &back)).abs() / size;
        assert!(defect < 2e-6, "case {index}: {defect:e}");
    }
}

#[test]
fn convolutions_treat_images_alone_as_in_a_batch() {
    let conv = Conv::new(draw(32 * 16 * 9, 1), draw(32, 2), 3, 1);
    let x = map(3, 11, 14, 16, 3);
    let together = conv.apply(&x);
    let mut alone = Pool::default().map(Shape { images: 1, ..x.shape });
    let image = x.shape.image();
    alone.data_mut().copy_from_slice(&x.data()[image..2 * image]);
    let expected = &together.data()[together.shape.image()..][..together.shape.image()];
    assert_eq!(conv.apply(&alone).data(), expected);
}

/// Group normalisation, modulation and SiLU by their definition, in f64.
fn normalised(x: &[f64], channels: usize, norm: &Norm, scale: &[f32], shift: &[f32]) -> Vec<f64> {
    let width = channels / norm.groups;
    let mut out = vec![0.0; x.len()];
    for group in 0..norm.groups {
        let members: Vec<usize> = (0..x.len()).filter(|i| i % channels / width == group).collect();
        let mean = members.iter().map(|i| x[*i]).sum::<f64>() / members.len() as f64;
        let variance = members.iter().map(|i| (x[*i] - mean).powi(2)).sum::<f64>() / members.len() as f64;
        for i in members {
            let c = i % channels;
            let unit = (x[i] - mean) / (variance + norm.epsilon).sqrt();
            let y = unit * f64::from(norm.gamma[c]) + f64::from(norm.beta[c]);
            let u = y * (1.0 + f64::from(scale[c])) + f64::from(shift[c]);
            out[i] = u / (1.0 + (-u).exp());
        }
    }
    out
}

#[test]
fn normalisation_matches_its_definition_and_differences() {
    let (channels, height, width) = (32, 9, 5);
    let norm = Norm { groups: 4, gamma: draw(channels, 1), beta: draw(channels, 2), epsilon: 1e-5 };
    let (scale, shift) = (draw(channels, 3), draw(channels, 4));
    let mut x = map(2, height, width, channels, 5);
    x.data_mut().iter_mut().for_each(|v| *v = 3.0 * *v + 2.0);
    let affine = norm.of(&x, Some(Modulation { scale: &scale, shift: &shift }), true);
    let image = x.shape.image();
    let of = |data: &[f64]| normalised(data, channels, &norm, &scale, &shift);
    let wide: Vec<f64> = x.data().iter().map(|v| f64::from(*v)).collect();
    let expected: Vec<f64> = wide.chunks(image).flat_map(of).collect();
    assert!(relative(affine.apply(&x).data(), &expected) < 1e-6);

    let (g, v) = (map(2, height, width, channels, 6), draw(2 * image, 7));
    let back = affine.adjoint(&x, &g);
    let moved = |h: f64| -> Vec<f64> {
        let data: Vec<f64> = wide.iter().zip(&v).map(|(x, v)| x + h * f64::from(*v)).collect();
        data.chunks(image).flat_map(of).collect()
    };
    let (up, down) = (moved(1e-5), moved(-1e-5));
    let slope: f64 =
        up.iter().zip(&down).zip(g.data()).map(|((u, d), g)| (u - d) / 2e-5 * f64::from(*g)).sum();
    let found = inner(back.data(), &v);
    assert!((slope - found).abs() < 1e-5 * inner(back.data(), back.data()).sqrt() * 20.0, "{slope} {found}");
}

/// One head after the other, in f64.
fn attention(qkv: &[f64], channels: usize, heads: usize) -> Vec<f64> {
    let (pixels, d) = (qkv.len() / (3 * channels), channels / heads);
    let at = |which: usize, pixel: usize, c: usize| qkv[pixel * 3 * channels + which * channels + c];
    let mut out = vec![0.0; pixels * channels];
    for head in 0..heads {
        for i in 0..pixels {
            let score = |j: usize| -> f64 {
                (head * d..(head + 1) * d).map(|c| at(0, i, c) * at(1, j, c)).sum::<f64>() / (d as f64).sqrt()
            };
            let weights: Vec<f64> = (0..pixels).map(|j| score(j).exp()).collect();
            let total: f64 = weights.iter().sum();
            for c in head * d..(head + 1) * d {
                out[i * channels + c] = (0..pixels).map(|j| weights[j] / total * at(2, j, c)).sum();
            }
        }
    }
    out
}

#[test]
fn attention_matches_its_definition_and_differences() {
    let (height, width, channels, heads) = (19, 16, 32, 2); // more pixels than one block of keys
    let mut qkv = map(1, height, width, 3 * channels, 1);
    qkv.data_mut().iter_mut().for_each(|v| *v *= 2.0);
    let wide: Vec<f64> = qkv.data().iter().map(|v| f64::from(*v)).collect();
    assert!(relative(attend(&qkv, heads).data(), &attention(&wide, channels, heads)) < 2e-6);

    let (g, v) = (map(1, height, width, channels, 2), draw(wide.len(), 3));
    let back = attend_adjoint(&qkv, heads, &g);
    let moved = |h: f64| {
        attention(
            &wide.iter().zip(&v).map(|(x, v)| x + h * f64::from(*v)).collect::<Vec<_>>(),
            channels,
            heads,
        )
    };
    let (up, down) = (moved(1e-5), moved(-1e-5));
    let slope: f64 =
        up.iter().zip(&down).zip(g.data()).map(|((u, d), g)| (u - d) / 2e-5 * f64::from(*g)).sum();
    let found = inner(back.data(), &v);
    assert!((slope - found).abs() < 1e-5 * inner(back.data(), back.data()).sqrt() * 20.0, "{slope} {found}");
}

#[test]
fn resampling_and_splitting_are_adjoint() {
    let (x, y) = (map(2, 3, 5, 16, 1), map(2, 6, 10, 16, 2));
    let inner = |a: &Map, b: &Map| inner(a.data(), b.data());
    assert!((inner(&x.doubled(), &y) - inner(&x, &y.halved_by_sums())).abs() < 1e-4);
    let (a, b) = (map(1, 2, 3, 16, 3), map(1, 2, 3, 32, 4));
    let (left, right) = a.concatenated(&b).split(16);
    assert_eq!((left.data(), right.data()), (a.data(), b.data()));
}

#[test]
fn exponential_is_accurate_over_its_range() {
    for i in -8700..8800 {
        let x = i as f32 * 0.01;
        assert!((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs() < 3e-7, "{x}");
    }
    assert!(exp(-1e30) < 1e-37 && exp(1e30).is_finite());
}
