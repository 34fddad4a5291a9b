//! Batches: random images of random subjects, cropped, turned, scaled.

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Settings;
use crate::error::{Error, Result};
use crate::tensor::Real;
use crate::tensor::random::Noise;

/// Stream of random numbers.
const CHOICE: u32 = 3;

/// Images of one subject in the network's units, [images, height, width], for instance the slices of a volume.
#[derive(Clone, Debug)]
pub struct Subject {
    name: String,
    values: Vec<f32>,
    images: usize,
    height: usize,
    width: usize,
    /// Height over width of a pixel.
    aspect: f64,
}

impl Subject {
    /// Images [images, height, width] with pixels of `spacing` [rows, columns]. Complex networks take them as
    /// magnitudes and learn random smooth phases.
    ///
    /// # Errors
    /// [`Error::Shape`] for another rank or no pixel; [`Error::Parameter`] for a spacing that is not positive.
    pub fn new(name: &str, images: &Tensor, spacing: [f64; 2]) -> Result<Self> {
        let &[count, height, width] = images.dims() else {
            return Err(Error::shape(format!("images of {name}"), "[images, height, width]", images.dims()));
        };
        if images.elem_count() == 0 {
            return Err(Error::shape(format!("images of {name}"), "at least one pixel", images.dims()));
        }
        let aspect = spacing[0] / spacing[1];
        if !(aspect > 0.0 && aspect.is_finite()) {
            return Err(Error::parameter("spacing", format!("{spacing:?}"), "must be positive, in mm"));
        }
        Ok(Self { name: name.into(), values: f32::to_vec(images)?, images: count, height, width, aspect })
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many images it has.
    pub fn images(&self) -> usize {
        self.images
    }
}

/// Changes of the images.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Augmentation {
    /// Mirror left and right half of the time.
    pub flip: bool,
    /// Standard deviation of small rotations, in degrees; half of the images are turned.
    pub rotation: f64,
    /// Share of images turned by a multiple of 90° too.
    pub quarter_turns: f64,
    /// Largest |ln| of the scale; 70 % of the images are scaled.
    pub scaling: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { flip: true, rotation: 6.0, quarter_turns: 0.12, scaling: 0.25 }
    }
}

/// Uniform numbers of one image of one step, in order.
struct Draws(Noise, u64);

impl Draws {
    fn uniform(&mut self) -> f64 {
        self.1 += 1;
        self.0.uniform(self.1 - 1)
    }

    fn normal(&mut self) -> f64 {
        self.1 += 1;
        self.0.normal_pair(self.1 - 1).0
    }
}

/// A batch [images, channels, crop, crop] of a step; `range.0` lies outside of the images.
pub(super) fn batch(
    subjects: &[Subject],
    settings: &Settings,
    channels: usize,
    range: (f64, f64),
    step: usize,
) -> Result<Tensor> {
    let total: usize = subjects.iter().map(|s| s.images).sum();
    if total == 0 {
        return Err(Error::parameter("subjects", 0, "there are no images to train on"));
    }
    let size = settings.crop;
    let outside = if channels == 2 { 0.0 } else { range.0 as f32 };
    let noise = Noise::new(settings.seed, CHOICE).at(step as u32);
    let parts: Vec<Vec<f32>> = (0..settings.batch)
        .into_par_iter()
        .map(|image| {
            let mut draws = Draws(noise, (image as u64) << 20);
            let mut index = ((draws.uniform() * total as f64) as usize).min(total - 1);
            let mut chosen = &subjects[0];
            for subject in subjects {
                chosen = subject;
                if index < subject.images {
                    break;
                }
                index -= subject.images;
            }
            let crop = crop(chosen, index, size, outside, &settings.augmentation, &mut draws);
            if channels == 2 { with_phase(&crop, size, &mut draws) } else { crop }
        })
        .collect();
    Ok(Tensor::from_vec(parts.concat(), (settings.batch, channels, size, size), &Device::Cpu)?)
}

/// A square crop of one image.
fn crop(
    s: &Subject,
    index: usize,
    size: usize,
    outside: f32,
    a: &Augmentation,
    draws: &mut Draws,
) -> Vec<f32> {
    let image = &s.values[index * s.height * s.width..][..s.height * s.width];
    let scale = if draws.uniform() < 0.7 { (a.scaling * (2.0 * draws.uniform() - 1.0)).exp() } else { 1.0 };
    let mut angle = if draws.uniform() < 0.5 { draws.normal() * a.rotation.to_radians() } else { 0.0 };
    if draws.uniform() < a.quarter_turns {
        angle += std::f64::consts::FRAC_PI_2 * (4.0 * draws.uniform()).floor();
    }
    let mirror = if a.flip && draws.uniform() < 0.5 { -1.0 } else { 1.0 };
    // The centre: anywhere in the middle three quarters, or the middle where the crop is larger than the image.
    let centre = |n: usize, u: f64| if size >= n { n as f64 / 2.0 } else { (0.12 + 0.76 * u) * n as f64 };
    let (mut cy, mut cx) = (centre(s.height, draws.uniform()), centre(s.width, draws.uniform()));
    let plain = scale == 1.0 && angle == 0.0 && (s.aspect - 1.0).abs() < 0.02;
    if plain {
        // On pixels, so that texture stays as it was measured.
        (cy, cx) = (cy.floor() + 0.5 * (size % 2) as f64, cx.floor() + 0.5 * (size % 2) as f64);
    }
    let (sin, cos) = angle.sin_cos();
    let half = size as f64 / 2.0 - 0.5;
    let aspect = if plain { 1.0 } else { s.aspect };
    let value = |i: usize| {
        let (y, x) = ((i / size) as f64 - half, (i % size) as f64 - half);
        let column = cx - 0.5 + scale * mirror * (cos * x - sin * y);
        let row = cy - 0.5 + scale * (sin * x + cos * y) / aspect;
        bilinear(image, s.height, s.width, row, column, outside)
    };
    (0..size * size).map(value).collect()
}

fn bilinear(image: &[f32], height: usize, width: usize, row: f64, column: f64, outside: f32) -> f32 {
    let (y, x) = (row.floor(), column.floor());
    let (b, a) = ((row - y) as f32, (column - x) as f32);
    let at = |y: f64, x: f64| {
        let inside = y >= 0.0 && x >= 0.0 && y < height as f64 && x < width as f64;
        if inside { image[y as usize * width + x as usize] } else { outside }
    };
    let top = at(y, x) * (1.0 - a) + if a > 0.0 { at(y, x + 1.0) * a } else { 0.0 };
    if b == 0.0 {
        return top;
    }
    let below = at(y + 1.0, x) * (1.0 - a) + if a > 0.0 { at(y + 1.0, x + 1.0) * a } else { 0.0 };
    top * (1.0 - b) + below * b
}

/// A magnitude as re and im [2, size, size] with a random smooth phase and a smooth factor (coil bias).
fn with_phase(magnitude: &[f32], size: usize, draws: &mut Draws) -> Vec<f32> {
    let mut field = |amount: f64| -> Vec<f64> { (0..9).map(|_| amount * draws.normal() / 3.0).collect() };
    let (phase, bias) = (field(1.6), field(0.25));
    let constant = std::f64::consts::TAU * draws.uniform();
    let gain = 0.7 + 0.4 * draws.uniform();
    let smooth = |coefficients: &[f64], i: usize| -> f64 {
        let (u, v) = ((i / size) as f64 / size as f64, (i % size) as f64 / size as f64);
        let wave = |k: usize, t: f64| (std::f64::consts::PI * k as f64 * t).cos();
        coefficients.iter().enumerate().map(|(k, c)| c * wave(k / 3, u) * wave(k % 3, v)).sum()
    };
    let mut out = vec![0.0; 2 * magnitude.len()];
    for (i, value) in magnitude.iter().enumerate() {
        let size = gain * f64::from(*value) * smooth(&bias, i).exp();
        let (sin, cos) = (constant + smooth(&phase, i)).sin_cos();
        (out[i], out[magnitude.len() + i]) = ((size * cos) as f32, (size * sin) as f32);
    }
    out
}
