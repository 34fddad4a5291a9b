//! Group normalisation and SiLU, fused: two passes over memory, parallel.
//!
//! y = f(γ x̂ + β), with x̂ = (x − μ)/√(v + ε) over the pixels and channels of a group, γ and β for each channel of
//! each image (so that a noise level can modulate them), and f the identity or SiLU.

use rayon::prelude::*;

use super::map::{Map, Shape};
use super::simd::{Lanes, Vectorised, dispatch};
use crate::tensor::memory::zeros;

/// Pixels a partial sum: short enough for f32, fixed so that results don't depend on the threads.
const RUN: usize = 64;
/// Pixels a task.
const TASK: usize = 1024;

/// How a map is normalised.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    pub groups: usize,
    pub epsilon: f64,
    pub silu: bool,
}

/// Gradients with respect to x, γ and β.
pub struct Gradients {
    pub x: Vec<f32>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

/// (μ, 1/√(v + ε)) of each group of each image.
type Statistics = Vec<(f64, f64)>;

impl Norm {
    fn statistics(&self, x: Map) -> Statistics {
        let Shape { images, channels, .. } = x.shape;
        let width = channels / self.groups;
        let count = (x.shape.pixels() * width) as f64;
        let sums = sums(x, None);
        (0..images * self.groups)
            .map(|g| {
                let (image, first) = (g / self.groups, g % self.groups * width);
                let of = |k: usize| -> f64 { sums[image][k * channels + first..][..width].iter().sum() };
                let mean = of(0) / count;
                let variance = (of(1) / count - mean * mean).max(0.0);
                (mean, 1.0 / (variance + self.epsilon).sqrt())
            })
            .collect()
    }

    /// u = α x + β' as one affine map of each channel of each image.
    fn affine(&self, channels: usize, s: &Statistics, gamma: &[f32], beta: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let width = channels / self.groups;
        let of = |i: usize| {
            let (mean, inverse) = s[i / channels * self.groups + i % channels / width];
            let slope = f64::from(gamma[i]) * inverse;
            (slope as f32, (f64::from(beta[i]) - slope * mean) as f32)
        };
        (0..gamma.len()).map(of).unzip()
    }

    /// y for γ and β of [images, channels].
    pub fn apply(&self, x: Map, gamma: &[f32], beta: &[f32]) -> Vec<f32> {
        let mut out = zeros(x.data.len());
        self.apply_into(x, gamma, beta, &mut out);
        out
    }

    /// The same into an array.
    pub fn apply_into(&self, x: Map, gamma: &[f32], beta: &[f32], out: &mut [f32]) {
        let channels = x.shape.channels;
        let (alpha, beta) = self.affine(channels, &self.statistics(x), gamma, beta);
        tasks(x.shape, out, |image, start, out| {
            let part = |v| part(v, image, channels);
            let x = Some(&x.data[start..][..out.len()]);
            dispatch(Forward { alpha: part(&alpha), beta: part(&beta), x, out, silu: self.silu });
        });
    }

    /// The same in the place of x.
    pub fn apply_in_place(&self, shape: Shape, x: &mut [f32], gamma: &[f32], beta: &[f32]) {
        let channels = shape.channels;
        let (alpha, beta) = self.affine(channels, &self.statistics(Map::new(shape, x)), gamma, beta);
        tasks(shape, x, |image, _, out| {
            let part = |v| part(v, image, channels);
            dispatch(Forward { alpha: part(&alpha), beta: part(&beta), x: None, out, silu: self.silu });
        });
    }

    /// The gradients of the gradient g with respect to y.
    ///
    /// With u = γ x̂ + β, h = g f'(u) and s = √(v + ε): dβ = Σ h, dγ = Σ h x̂ over the pixels, and
    /// dx = (γ h − mean(γ h) − x̂ mean(γ h x̂))/s with means over the group.
    pub fn gradients(&self, x: Map, gamma: &[f32], beta: &[f32], g: Map) -> Gradients {
        let mut h = g.data.to_vec();
        let [gamma, beta] = self.gradients_in_place(x, gamma, beta, &mut h);
        Gradients { x: h, gamma, beta }
    }

    /// The same; the gradient with respect to x takes the place of g, and those of γ and β are returned.
    pub fn gradients_in_place(&self, x: Map, gamma: &[f32], beta: &[f32], g: &mut [f32]) -> [Vec<f32>; 2] {
        let Shape { images, channels, .. } = x.shape;
        let statistics = self.statistics(x);
        let (alpha, shift) = self.affine(channels, &statistics, gamma, beta);
        if self.silu {
            tasks(x.shape, g, |image, start, h| {
                let part = |v| part(v, image, channels);
                dispatch(Backward {
                    alpha: part(&alpha),
                    beta: part(&shift),
                    x: &x.data[start..][..h.len()],
                    h,
                });
            });
        }
        let sums = sums(Map::new(x.shape, g), Some(x));
        let width = channels / self.groups;
        let count = (x.shape.pixels() * width) as f64;
        let mut of_gamma = vec![0.0; gamma.len()];
        let mut of_beta = vec![0.0; gamma.len()];
        // dx = a h + b x + c with coefficients of each channel.
        let mut coefficients = vec![[0f32; 3]; images * channels];
        for image in 0..images {
            for group in 0..self.groups {
                let (mean, inverse) = statistics[image * self.groups + group];
                let members = group * width..(group + 1) * width;
                let (mut plain, mut along) = (0.0, 0.0);
                for c in members.clone() {
                    let (sum, product) = (sums[image][c], sums[image][channels + c]);
                    let unit = (product - mean * sum) * inverse;
                    let i = image * channels + c;
                    of_beta[i] = sum as f32;
                    of_gamma[i] = unit as f32;
                    plain += f64::from(gamma[i]) * sum / count;
                    along += f64::from(gamma[i]) * unit / count;
                }
                let slope = -along * inverse * inverse;
                let constant = (-plain * inverse - slope * mean) as f32;
                for c in members {
                    let i = image * channels + c;
                    coefficients[i] = [(f64::from(gamma[i]) * inverse) as f32, slope as f32, constant];
                }
            }
        }
        let column = |k: usize| coefficients.iter().map(|c| c[k]).collect::<Vec<f32>>();
        let (a, b, c) = (column(0), column(1), column(2));
        tasks(x.shape, g, |image, start, h| {
            let part = |v| part(v, image, channels);
            dispatch(Combine { a: part(&a), b: part(&b), c: part(&c), x: &x.data[start..][..h.len()], h });
        });
        [of_gamma, of_beta]
    }
}

fn part(values: &[f32], image: usize, channels: usize) -> &[f32] {
    &values[image * channels..][..channels]
}

/// Calls `f(image, start, part)` for parts of a map of this shape, in parallel.
fn tasks(shape: Shape, out: &mut [f32], f: impl Fn(usize, usize, &mut [f32]) + Sync) {
    let (image, task) = (shape.image(), TASK * shape.channels);
    out.par_chunks_exact_mut(image).enumerate().for_each(|(index, out)| {
        out.par_chunks_mut(task).enumerate().for_each(|(at, out)| f(index, index * image + at * task, out));
    });
}

/// Σ x and Σ x² (or Σ x y) of each channel of each image: `[image][k · channels + channel]`.
fn sums(x: Map, y: Option<Map>) -> Vec<Vec<f64>> {
    let (size, channels) = (x.shape.image(), x.shape.channels);
    let image_sums = |image: usize| {
        let x = &x.data[image * size..][..size];
        let y = y.map_or(x, |y| &y.data[image * size..][..size]);
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

/// Calls `f(element, channel)` for each vector of 16 of an array of pixels whose channels are a multiple of 16.
#[inline(always)]
fn each_vector(elements: usize, channels: usize, mut f: impl FnMut(usize, usize)) {
    for pixel in (0..elements).step_by(channels) {
        for channel in (0..channels).step_by(16) {
            f(pixel + channel, channel);
        }
    }
}

#[inline(always)]
fn sigmoid(u: f32) -> f32 {
    1.0 / (1.0 + super::simd::exp(-u))
}

/// Adds x and x · y to the sums of each channel.
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
        assert!(self.y.len() == self.x.len() && self.x.len().is_multiple_of(channels));
        if !channels.is_multiple_of(16) {
            let (plain, product) = self.run.split_at_mut(channels);
            for (x, y) in self.x.chunks_exact(channels).zip(self.y.chunks_exact(channels)) {
                for c in 0..channels {
                    plain[c] += x[c];
                    product[c] += x[c] * y[c];
                }
            }
            return;
        }
        let (x, y, run) = (self.x.as_ptr(), self.y.as_ptr(), self.run.as_mut_ptr());
        for channel in (0..channels).step_by(16) {
            // SAFETY: inside the arrays, whose lengths are multiples of the channels.
            unsafe {
                let mut sums = (V::load(run.add(channel)), V::load(run.add(channels + channel)));
                for pixel in (0..self.x.len()).step_by(channels) {
                    let (x, y) = (V::load(x.add(pixel + channel)), V::load(y.add(pixel + channel)));
                    sums = (sums.0.add(x), x.fma(y, sums.1));
                }
                sums.0.store(run.add(channel));
                sums.1.store(run.add(channels + channel));
            }
        }
    }
}

/// y = f(α x + β); without x, of what is in the place of y.
struct Forward<'a> {
    alpha: &'a [f32],
    beta: &'a [f32],
    x: Option<&'a [f32]>,
    out: &'a mut [f32],
    silu: bool,
}

impl Vectorised for Forward<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (n, elements) = (self.alpha.len(), self.out.len());
        assert!(self.beta.len() == n && elements.is_multiple_of(n));
        assert!(self.x.is_none_or(|x| x.len() == elements));
        if !n.is_multiple_of(16) {
            for (i, out) in self.out.iter_mut().enumerate() {
                let u = self.alpha[i % n] * self.x.map_or(*out, |x| x[i]) + self.beta[i % n];
                *out = if self.silu { u * sigmoid(u) } else { u };
            }
            return;
        }
        let (alpha, beta) = (self.alpha.as_ptr(), self.beta.as_ptr());
        let out = self.out.as_mut_ptr();
        let x = self.x.map_or(out.cast_const(), <[f32]>::as_ptr);
        // SAFETY: `each_vector` stays inside the arrays, whose lengths are checked.
        each_vector(elements, n, |at, c| unsafe {
            let u = V::load(alpha.add(c)).fma(V::load(x.add(at)), V::load(beta.add(c)));
            let y = if self.silu { u.div(V::splat(0.0).sub(u).exp().add(V::splat(1.0))) } else { u };
            y.store(out.add(at));
        });
    }
}

/// h ← h f'(α x + β) with SiLU for f.
struct Backward<'a> {
    alpha: &'a [f32],
    beta: &'a [f32],
    x: &'a [f32],
    h: &'a mut [f32],
}

impl Vectorised for Backward<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let n = self.alpha.len();
        assert!(self.beta.len() == n && self.x.len().is_multiple_of(n) && self.h.len() == self.x.len());
        if !n.is_multiple_of(16) {
            for (i, (h, x)) in self.h.iter_mut().zip(self.x).enumerate() {
                let u = self.alpha[i % n] * x + self.beta[i % n];
                let s = sigmoid(u);
                *h = *h * s * (1.0 + u * (1.0 - s));
            }
            return;
        }
        let (alpha, beta) = (self.alpha.as_ptr(), self.beta.as_ptr());
        let (x, h) = (self.x.as_ptr(), self.h.as_mut_ptr());
        // SAFETY: `each_vector` stays inside the arrays, whose lengths are checked.
        each_vector(self.x.len(), n, |at, c| unsafe {
            let one = V::splat(1.0);
            let u = V::load(alpha.add(c)).fma(V::load(x.add(at)), V::load(beta.add(c)));
            let s = one.div(V::splat(0.0).sub(u).exp().add(one));
            V::load(h.add(at)).mul(s).mul(u.fma(one.sub(s), one)).store(h.add(at));
        });
    }
}

/// h ← a h + b x + c.
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
        assert!(self.b.len() == n && self.c.len() == n);
        assert!(self.h.len() == self.x.len() && self.x.len().is_multiple_of(n));
        if !n.is_multiple_of(16) {
            for (i, (h, x)) in self.h.iter_mut().zip(self.x).enumerate() {
                *h = self.a[i % n] * *h + self.b[i % n] * x + self.c[i % n];
            }
            return;
        }
        let (a, b, c) = (self.a.as_ptr(), self.b.as_ptr(), self.c.as_ptr());
        let (x, h) = (self.x.as_ptr(), self.h.as_mut_ptr());
        // SAFETY: `each_vector` stays inside the arrays, whose lengths are checked.
        each_vector(self.x.len(), n, |at, i| unsafe {
            let rest = V::load(b.add(i)).fma(V::load(x.add(at)), V::load(c.add(i)));
            V::load(a.add(i)).fma(V::load(h.add(at)), rest).store(h.add(at));
        });
    }
}
