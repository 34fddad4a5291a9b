//! Group normalisation, modulation by the noise level and SiLU, fused: two passes over memory, parallel.

use rayon::prelude::*;

use super::map::{Map, Shape};
use super::simd::{Lanes, Vectorised, dispatch};

/// Pixels a partial sum: short enough for f32, fixed so that results don't depend on the threads.
const RUN: usize = 64;
/// Pixels a task.
const TASK: usize = 1024;

/// Group normalisation with learned scale γ and shift β of each channel.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) groups: usize,
    pub(super) gamma: Vec<f32>,
    pub(super) beta: Vec<f32>,
    pub(super) epsilon: f64,
}

/// Scale 1 + s and shift t of each channel, from the noise level: y = γ̂ x̂ + β̂ with γ̂ = γ (1 + s), β̂ = β (1 + s) + t.
#[derive(Clone, Copy)]
pub(super) struct Modulation<'a> {
    pub(super) scale: &'a [f32],
    pub(super) shift: &'a [f32],
}

/// What a normalisation did to each image: x ↦ α x + β by channel, and the statistics of its groups.
#[derive(Debug)]
pub(super) struct Affine {
    alpha: Vec<f32>,
    beta: Vec<f32>,
    /// γ̂ of each channel.
    gamma: Vec<f32>,
    /// (mean, 1/√(variance + ε)) of each group of each image.
    groups: Vec<(f64, f64)>,
    silu: bool,
}

impl Norm {
    /// The statistics of x, and the affine map that normalises it.
    pub(super) fn of(&self, x: &Map, modulation: Option<Modulation>, silu: bool) -> Affine {
        let Shape { images, channels, .. } = x.shape;
        let width = channels / self.groups;
        let count = (x.shape.pixels() * width) as f64;
        let sums = sums(x, None);
        let groups: Vec<(f64, f64)> = (0..images * self.groups)
            .map(|g| {
                let (image, first) = (g / self.groups, g % self.groups * width);
                let of = |k: usize| -> f64 { sums[image][k * channels + first..][..width].iter().sum() };
                let mean = of(0) / count;
                let variance = (of(1) / count - mean * mean).max(0.0);
                (mean, 1.0 / (variance + self.epsilon).sqrt())
            })
            .collect();
        let modulated = |c: usize| {
            let (s, t) = modulation.map_or((0.0, 0.0), |m| (m.scale[c], m.shift[c]));
            (self.gamma[c] * (1.0 + s), self.beta[c] * (1.0 + s) + t)
        };
        let gamma: Vec<f32> = (0..channels).map(|c| modulated(c).0).collect();
        let of =
            |i: usize| (groups[i / channels * self.groups + i % channels / width], modulated(i % channels));
        let alpha = |i| {
            let ((_, inverse), (gamma, _)) = of(i);
            (f64::from(gamma) * inverse) as f32
        };
        let beta = |i| {
            let ((mean, inverse), (gamma, beta)) = of(i);
            (f64::from(beta) - f64::from(gamma) * inverse * mean) as f32
        };
        let all = 0..images * channels;
        Affine { alpha: all.clone().map(alpha).collect(), beta: all.map(beta).collect(), gamma, groups, silu }
    }
}

impl Affine {
    /// y = α x + β, then SiLU where asked for.
    pub(super) fn apply(&self, x: &Map) -> Map {
        let channels = x.shape.channels;
        let mut out = x.like(x.shape);
        let images = out
            .data_mut()
            .par_chunks_exact_mut(x.shape.image())
            .zip(x.data().par_chunks_exact(x.shape.image()));
        images.enumerate().for_each(|(image, (out, x))| {
            let (alpha, beta) =
                (self.part(&self.alpha, image, channels), self.part(&self.beta, image, channels));
            let tasks = out.par_chunks_mut(TASK * channels).zip(x.par_chunks(TASK * channels));
            tasks.for_each(|(out, x)| dispatch(Forward { alpha, beta, x, out, silu: self.silu }));
        });
        out
    }

    fn part<'a>(&self, values: &'a [f32], image: usize, channels: usize) -> &'a [f32] {
        &values[image * channels..][..channels]
    }

    /// The gradient with respect to x, of the gradient g with respect to y.
    ///
    /// With x̂ = (x − μ)/s, u = α x + β and h = g · SiLU'(u): dx = (γ̂ h − mean(γ̂ h) − x̂ mean(γ̂ h x̂))/s, the
    /// means over the group.
    pub(super) fn adjoint(&self, x: &Map, g: &Map) -> Map {
        let Shape { images, channels, .. } = x.shape;
        let mut h = g.like(g.shape);
        let size = x.shape.image();
        let pairs = g.data().par_chunks_exact(size).zip(x.data().par_chunks_exact(size));
        h.data_mut().par_chunks_exact_mut(size).zip(pairs).enumerate().for_each(|(image, (h, (g, x)))| {
            let (alpha, beta) =
                (self.part(&self.alpha, image, channels), self.part(&self.beta, image, channels));
            let tasks = g.par_chunks(TASK * channels).zip(x.par_chunks(TASK * channels));
            h.par_chunks_mut(TASK * channels).zip(tasks).for_each(|(h, (g, x))| {
                dispatch(Backward { alpha, beta, gamma: &self.gamma, x, g, h, silu: self.silu });
            });
        });
        let sums = sums(&h, Some(x));
        let per_image = self.groups.len() / images;
        let width = channels / per_image;
        let count = (x.shape.pixels() * width) as f64;
        for (image, (h, x)) in
            h.data_mut().chunks_exact_mut(size).zip(x.data().chunks_exact(size)).enumerate()
        {
            // dx = a h + b x + c with coefficients of each channel.
            let of = |channel: usize| {
                let group = channel / width;
                let (mean, inverse) = self.groups[image * per_image + group];
                let total =
                    |k: usize| -> f64 { sums[image][k * channels + group * width..][..width].iter().sum() };
                let (plain, along) = (total(0) / count, (total(1) - mean * total(0)) * inverse / count);
                let slope = -along * inverse * inverse;
                (inverse as f32, slope as f32, (-plain * inverse - slope * mean) as f32)
            };
            let coefficients: Vec<(f32, f32, f32)> = (0..channels).map(of).collect();
            let unzip = |f: fn(&(f32, f32, f32)) -> f32| coefficients.iter().map(f).collect::<Vec<_>>();
            let (a, b, c) = (unzip(|k| k.0), unzip(|k| k.1), unzip(|k| k.2));
            h.par_chunks_mut(TASK * channels)
                .zip(x.par_chunks(TASK * channels))
                .for_each(|(h, x)| dispatch(Combine { a: &a, b: &b, c: &c, x, h }));
        }
        h
    }
}

/// Σ x and Σ x² (or Σ x y) of each channel of each image: `[image][k · channels + channel]`.
fn sums(x: &Map, y: Option<&Map>) -> Vec<Vec<f64>> {
    let (size, channels) = (x.shape.image(), x.shape.channels);
    let image_sums = |image: usize| {
        let x = &x.data()[image * size..][..size];
        let y = y.map_or(x, |y| &y.data()[image * size..][..size]);
        let tasks: Vec<Vec<f64>> = x
            .par_chunks(TASK * channels)
            .zip(y.par_chunks(TASK * channels))
            .map(|(x, y)| {
                let mut total = vec![0.0; 2 * channels];
                let mut run = vec![0f32; 2 * channels];
                for (x, y) in x.chunks(RUN * channels).zip(y.chunks(RUN * channels)) {
                    run.fill(0.0);
                    dispatch(Sum { x, y, run: &mut run });
                    total.iter_mut().zip(&run).for_each(|(t, r)| *t += f64::from(*r));
                }
                total
            })
            .collect();
        let mut total = vec![0.0; 2 * channels];
        tasks.iter().for_each(|task| total.iter_mut().zip(task).for_each(|(t, s)| *t += s));
        total
    };
    (0..x.shape.images).map(image_sums).collect()
}

struct Sum<'a> {
    x: &'a [f32],
    y: &'a [f32],
    run: &'a mut [f32],
}

impl Vectorised for Sum<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let channels = self.run.len() / 2;
        let (plain, product) = self.run.split_at_mut(channels);
        for (x, y) in self.x.chunks_exact(channels).zip(self.y.chunks_exact(channels)) {
            for c in 0..channels {
                plain[c] += x[c];
                product[c] += x[c] * y[c];
            }
        }
    }
}

struct Forward<'a> {
    alpha: &'a [f32],
    beta: &'a [f32],
    x: &'a [f32],
    out: &'a mut [f32],
    silu: bool,
}

impl Vectorised for Forward<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let n = self.alpha.len();
        let beta = &self.beta[..n];
        for (out, x) in self.out.chunks_exact_mut(n).zip(self.x.chunks_exact(n)) {
            if self.silu {
                for c in 0..n {
                    let u = self.alpha[c] * x[c] + beta[c];
                    out[c] = u / (1.0 + exp(-u));
                }
            } else {
                for c in 0..n {
                    out[c] = self.alpha[c] * x[c] + beta[c];
                }
            }
        }
    }
}

struct Backward<'a> {
    alpha: &'a [f32],
    beta: &'a [f32],
    gamma: &'a [f32],
    x: &'a [f32],
    g: &'a [f32],
    h: &'a mut [f32],
    silu: bool,
}

impl Vectorised for Backward<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let n = self.alpha.len();
        let (beta, gamma) = (&self.beta[..n], &self.gamma[..n]);
        let pixels = self.x.chunks_exact(n).zip(self.g.chunks_exact(n));
        for (h, (x, g)) in self.h.chunks_exact_mut(n).zip(pixels) {
            if self.silu {
                for c in 0..n {
                    let u = self.alpha[c] * x[c] + beta[c];
                    let s = 1.0 / (1.0 + exp(-u));
                    h[c] = gamma[c] * g[c] * s * (1.0 + u * (1.0 - s));
                }
            } else {
                for c in 0..n {
                    h[c] = gamma[c] * g[c];
                }
            }
        }
    }
}

struct Combine<'a> {
    a: &'a [f32],
    b: &'a [f32],
    c: &'a [f32],
    x: &'a [f32],
    h: &'a mut [f32],
}

impl Vectorised for Combine<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let n = self.a.len();
        let (b, c) = (&self.b[..n], &self.c[..n]);
        for (h, x) in self.h.chunks_exact_mut(n).zip(self.x.chunks_exact(n)) {
            for i in 0..n {
                h[i] = self.a[i] * h[i] + b[i] * x[i] + c[i];
            }
        }
    }
}

/// eˣ to 2 units in the last place, in a form that the compiler vectorises; 0 below −87, finite above 88.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer in the low bits
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_2e-4 * r + 1.398_199_9e-3;
    let p = (p * r + 8.333_452e-3) * r + 4.166_579_6e-2;
    let p = (p * r + 0.166_666_66) * r + 0.5;
    let p = p * r * r + r + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}
