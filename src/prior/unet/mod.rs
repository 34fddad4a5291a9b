//! The U-net of wellposed's own priors, on the CPU: channels-last maps, convolutions by Winograd's algorithm and
//! packed matrix products, and exact input gradients. f32; the same bits for any number of threads, and for an
//! image alone or in a batch.
//!
//! Squares of `patch` × `patch` pixels are first folded into channels, so that the network runs at a fraction of
//! the resolution. Each level has residual blocks (normalise, SiLU, convolve, normalise and modulate by the noise
//! level, SiLU, convolve), with self-attention on some levels; every encoder block hands its output to the
//! decoder block of the same place. Down: a 3 × 3 convolution of stride 2. Up: a 1 × 1 convolution, then each
//! pixel four times.

mod attention;
mod config;
mod conv;
mod gemm;
mod map;
mod norm;
mod simd;
mod stage;
#[cfg(test)]
mod tests;
mod winograd;

use std::sync::Arc;

pub use config::UNetConfig;
pub use stage::Fetch;

use crate::error::Result;
use conv::Conv;
use map::{Map, Pool, Shape};
use norm::{Affine, Norm};
use stage::{Linear, Stage, StageTrace, conv, norm};

/// The network with its weights.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    pool: Pool,
    embed: [Linear; 2],
    conv_in: Conv,
    encoder: Vec<Vec<Stage>>,
    down: Vec<Conv>,
    middle: Vec<Stage>,
    decoder: Vec<Vec<Stage>>,
    up: Vec<Conv>,
    norm_out: Norm,
    conv_out: Conv,
}

/// What the gradient of a forward pass needs.
#[derive(Debug)]
pub struct Trace {
    stages: Vec<StageTrace>,
    last: Map,
    norm: Affine,
}

/// Images [images, channels, height, width] as the network takes them.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// Row-major elements.
    pub data: &'a [f32],
    /// Number of images.
    pub images: usize,
    /// Pixels down, a multiple of [`UNet::granule`].
    pub height: usize,
    /// Pixels across, a multiple of [`UNet::granule`].
    pub width: usize,
}

impl UNet {
    /// The network of this configuration with weights from `fetch`.
    ///
    /// # Errors
    /// [`crate::error::Error::Parameter`] for a configuration that makes no network; what `fetch` reports.
    pub fn new(config: UNetConfig, fetch: &mut Fetch) -> Result<Self> {
        config.check()?;
        let (w, c) = (&config.widths, &config);
        let (last, pixels) = (w[w.len() - 1], c.channels * c.patch * c.patch);
        let level = |part: &str, i: usize, inputs: usize, fetch: &mut Fetch| -> Result<Vec<Stage>> {
            let name = |j: usize| format!("{part}.{i}.{j}");
            (0..c.depths[i])
                .map(|j| Stage::load(&name(j), [inputs, w[i]], c.attention[i], c, fetch))
                .collect()
        };
        let levels = 0..w.len();
        let embed = [
            Linear::load("embed1", 2 * c.frequencies, c.embedding, fetch)?,
            Linear::load("embed2", c.embedding, c.embedding, fetch)?,
        ];
        let conv_in = conv("conv_in", [pixels, w[0], 3, 1], fetch)?;
        let encoder = levels.clone().map(|i| level("encoder", i, w[i], fetch)).collect::<Result<_>>()?;
        let down = |i: usize, fetch: &mut Fetch| conv(&format!("down.{i}"), [w[i], w[i + 1], 3, 2], fetch);
        let down = (0..w.len() - 1).map(|i| down(i, fetch)).collect::<Result<_>>()?;
        let middle = vec![
            Stage::load("middle.0", [last, last], true, c, fetch)?,
            Stage::load("middle.1", [last, last], false, c, fetch)?,
        ];
        let decoder = levels.map(|i| level("decoder", i, 2 * w[i], fetch)).collect::<Result<_>>()?;
        let up = |i: usize, fetch: &mut Fetch| conv(&format!("up.{i}"), [w[i + 1], w[i], 1, 1], fetch);
        let up = (0..w.len() - 1).map(|i| up(i, fetch)).collect::<Result<_>>()?;
        let norm_out = norm("norm_out", w[0], c.groups, fetch)?;
        let conv_out = conv("conv_out", [w[0], pixels, 3, 1], fetch)?;
        let pool = Pool::default();
        Ok(Self { pool, embed, conv_in, encoder, down, middle, decoder, up, norm_out, conv_out, config })
    }

    /// The configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// What heights and widths must be multiples of.
    pub fn granule(&self) -> usize {
        self.config.patch << (self.config.widths.len() - 1)
    }

    /// F(x, t), of the shape of x.
    pub fn forward(&self, x: Images, time: f64) -> Vec<f32> {
        self.run(x, time, None).0
    }

    /// F(x, t), and what [`UNet::adjoint`] needs.
    pub fn forward_traced(&self, x: Images, time: f64) -> (Vec<f32>, Trace) {
        let mut stages = Vec::new();
        let (value, last, norm) = self.run(x, time, Some(&mut stages));
        (value, Trace { stages, last, norm })
    }

    fn run(&self, x: Images, time: f64, mut trace: Option<&mut Vec<StageTrace>>) -> (Vec<f32>, Map, Affine) {
        let embedding = self.embedding(time);
        let mut h = self.conv_in.apply(&self.fold(x));
        let mut skips: Vec<Arc<Map>> = Vec::new();
        for (i, level) in self.encoder.iter().enumerate() {
            if i > 0 {
                h = self.down[i - 1].apply(&h);
            }
            let mut last = Arc::new(h);
            for stage in level {
                last = Arc::new(stage.apply(last, &embedding, trace.as_deref_mut()));
                skips.push(last.clone());
            }
            h = last.copy();
        }
        for stage in &self.middle {
            h = stage.apply(Arc::new(h), &embedding, trace.as_deref_mut());
        }
        for (i, level) in self.decoder.iter().enumerate().rev() {
            for stage in level {
                if let Some(skip) = skips.pop() {
                    h = stage.apply(Arc::new(h.concatenated(&skip)), &embedding, trace.as_deref_mut());
                }
            }
            if i > 0 {
                h = self.up[i - 1].apply(&h).doubled();
            }
        }
        let norm = self.norm_out.of(&h, None, true);
        (self.unfold(&self.conv_out.apply(&norm.apply(&h))), h, norm)
    }

    /// Jᵀ g at the traced point, for g of the shape of F.
    pub fn adjoint(&self, trace: &Trace, g: Images) -> Vec<f32> {
        let mut stages = trace.stages.iter().rev();
        let mut back = |stage: &Stage, g: Map| match stages.next() {
            Some(trace) => stage.adjoint(trace, g),
            None => g,
        };
        let mut h =
            trace.norm.adjoint(&trace.last, &self.conv_out.adjoint(&self.fold_padded(g), trace.last.shape));
        // Gradients of the encoder's outputs, in the order in which the encoder is walked back.
        let mut skips: Vec<Map> = Vec::new();
        for (i, level) in self.decoder.iter().enumerate() {
            if i > 0 {
                let small = h.halved_by_sums();
                h = self.up[i - 1].adjoint(&small, small.shape);
            }
            for stage in level.iter().rev() {
                let (left, right) = back(stage, h).split(self.config.widths[i]);
                skips.push(right);
                h = left;
            }
        }
        for stage in self.middle.iter().rev() {
            h = back(stage, h);
        }
        for (i, level) in self.encoder.iter().enumerate().rev() {
            for stage in level.iter().rev() {
                if let Some(skip) = skips.pop() {
                    h.add(&skip);
                }
                h = back(stage, h);
            }
            if i > 0 {
                let Shape { height, width, .. } = h.shape;
                h = self.down[i - 1].adjoint(&h, Shape { height: 2 * height, width: 2 * width, ..h.shape });
            }
        }
        let shape = h.shape;
        self.unfold(&self.conv_in.adjoint(&h, shape))
    }

    fn embedding(&self, time: f64) -> Vec<f32> {
        let n = self.config.frequencies;
        let (low, high) = (0.5f64.ln(), 64f64.ln());
        let angle = |k: usize| time * (low + (high - low) * k as f64 / (n - 1) as f64).exp();
        let features: Vec<f32> =
            (0..2 * n).map(|k| if k < n { angle(k).cos() } else { angle(k - n).sin() } as f32).collect();
        let silu = |x: Vec<f32>| -> Vec<f32> { x.into_iter().map(|x| x / (1.0 + (-x).exp())).collect() };
        silu(self.embed[1].apply(&silu(self.embed[0].apply(&features))))
    }

    /// Squares of patch × patch pixels become channels.
    fn fold(&self, x: Images) -> Map {
        let p = self.config.patch;
        self.folded(x, self.config.channels * p * p)
    }

    fn fold_padded(&self, x: Images) -> Map {
        self.folded(x, self.conv_out.channels())
    }

    fn folded(&self, x: Images, channels: usize) -> Map {
        let p = self.config.patch;
        let shape = Shape { images: x.images, height: x.height / p, width: x.width / p, channels };
        let mut out = self.pool.map(shape);
        let planes = self.config.channels;
        let data = out.data_mut();
        data.fill(0.0);
        self.each_pixel(shape, planes, |from, to| data[to] = x.data[from]);
        out
    }

    /// The inverse of `fold`; channels behind the last one of the images are left out.
    fn unfold(&self, y: &Map) -> Vec<f32> {
        let (p, planes) = (self.config.patch, self.config.channels);
        let mut out = vec![0.0; y.shape.images * planes * y.shape.pixels() * p * p];
        self.each_pixel(y.shape, planes, |to, from| out[to] = y.data()[from]);
        out
    }

    /// Calls `f(index in [images, planes, height, width], index in the folded map)`.
    fn each_pixel(&self, shape: Shape, planes: usize, mut f: impl FnMut(usize, usize)) {
        let p = self.config.patch;
        let width = shape.width * p;
        for image in 0..shape.images {
            for plane in 0..planes {
                let start = (image * planes + plane) * shape.pixels() * p * p;
                for y in 0..shape.height * p {
                    for x in 0..width {
                        let pixel = image * shape.pixels() + y / p * shape.width + x / p;
                        let channel = (plane * p + y % p) * p + x % p;
                        f(start + y * width + x, pixel * shape.channels + channel);
                    }
                }
            }
        }
    }
}
