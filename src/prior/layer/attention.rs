//! Self-attention over pixels.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result as CandleResult, Shape, Tensor};

use super::ops::{done, map, read};
use super::tape::apply1;
use super::{Conv, Fetch, Norm, add};
use crate::error::{Error, Result};
use crate::prior::kernel::attention::{attend, attend_adjoint};
use crate::prior::kernel::map::{self as maps, Map};

/// x + out(softmax(q kᵀ/√d) v), with q, k, v = linear maps of the normalised x (or of x itself).
#[derive(Debug)]
pub struct Attention {
    norm: Option<Norm>,
    qkv: Conv,
    out: Conv,
    heads: usize,
    /// Factor of the sum, 1 or 1/√2.
    scale: f64,
}

/// How the rows of one matrix for q, k and v are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// q of all heads, then k, then v.
    QueriesFirst,
    /// q, k, v of the first head, then those of the next.
    HeadsFirst,
}

/// Where q, k and v come from.
pub enum Projection<'a> {
    /// One matrix NAME.weight with a bias NAME.bias; `axes` of size 1 behind it (1 for conv1d, 2 for conv2d).
    Joint { name: &'a str, order: Order, axes: usize },
    /// A matrix each; `suffixes` of weight and bias; `transposed`: [inputs, outputs].
    Apart { names: [&'a str; 3], suffixes: [&'a str; 2], transposed: bool },
}

/// A matrix [outputs, inputs] and a bias, of which the file has `axes` more axes of size 1, or the transpose.
fn matrix(
    names: [&str; 2],
    [inputs, outputs]: [usize; 2],
    axes: usize,
    transposed: bool,
    fetch: &mut Fetch,
) -> Result<(Tensor, Tensor)> {
    let mut shape = if transposed { vec![inputs, outputs] } else { vec![outputs, inputs] };
    shape.extend(std::iter::repeat_n(1, axes));
    let weight = fetch(names[0], &shape)?;
    let weight = if transposed { weight.t()?.contiguous()? } else { weight.reshape((outputs, inputs))? };
    Ok((weight, fetch(names[1], &[outputs])?))
}

impl Attention {
    /// Attention on `channels` with weights from these places; `out` as for the projection.
    pub fn load(
        norm: Option<Norm>,
        channels: usize,
        heads: usize,
        projection: &Projection,
        out: [&str; 2],
        scale: f64,
        fetch: &mut Fetch,
    ) -> Result<Self> {
        if heads == 0 || !channels.is_multiple_of(heads) {
            let reason = format!("must divide the {channels} channels");
            return Err(Error::parameter("heads of the attention", heads, reason));
        }
        let (qkv, axes, transposed) = match projection {
            Projection::Joint { name, order, axes } => {
                let names = [format!("{name}.weight"), format!("{name}.bias")];
                let names = [&*names[0], &*names[1]];
                let (weight, bias) = matrix(names, [channels, 3 * channels], *axes, false, fetch)?;
                let sorted = |x: &Tensor| -> Result<Tensor> {
                    if *order == Order::QueriesFirst {
                        return Ok(x.clone());
                    }
                    let rest = x.elem_count() / (3 * channels);
                    let x = x.reshape((heads, 3, channels / heads, rest))?;
                    Ok(x.transpose(0, 1)?.contiguous()?.reshape((3 * channels, rest))?)
                };
                let bias = if *order == Order::HeadsFirst { sorted(&bias)?.flatten_all()? } else { bias };
                ((sorted(&weight)?, bias), *axes, false)
            }
            Projection::Apart { names, suffixes, transposed } => {
                let mut weights = Vec::new();
                let mut biases = Vec::new();
                for name in names {
                    let names = suffixes.map(|suffix| format!("{name}{suffix}"));
                    let names = [&*names[0], &*names[1]];
                    let (weight, bias) = matrix(names, [channels; 2], 0, *transposed, fetch)?;
                    weights.push(weight);
                    biases.push(bias);
                }
                ((Tensor::cat(&weights, 0)?, Tensor::cat(&biases, 0)?), 0, *transposed)
            }
        };
        let (weight, bias) = matrix(out, [channels; 2], axes, transposed, fetch)?;
        let out = Conv::pointwise(weight, bias)?;
        Ok(Self { norm, qkv: Conv::pointwise(qkv.0, qkv.1)?, out, heads, scale })
    }

    /// Attention of x [images, height, width, channels].
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let normalised = self.norm.as_ref().map_or(Ok(x.clone()), |norm| norm.apply(x))?;
        let qkv = self.qkv.apply(&normalised)?;
        let op = Attend(self.heads);
        let values = if x.device().is_cpu() { apply1(&qkv, op)? } else { op.portable(&qkv)? };
        add(x, &self.out.apply(&values)?, self.scale)
    }
}

/// softmax(Q Kᵀ/√d) V with this many heads, of [q, k, v].
pub(super) struct Attend(pub(super) usize);

impl Attend {
    /// The same by candle's operations, on any device.
    pub(super) fn portable(&self, qkv: &Tensor) -> Result<Tensor> {
        let (images, height, width, channels) = qkv.dims4()?;
        let (heads, pixels, size) = (self.0, height * width, channels / 3 / self.0);
        let part = |which: usize| -> Result<Tensor> {
            let x = qkv.reshape((images, pixels, 3, heads, size))?.narrow(2, which, 1)?.squeeze(2)?;
            Ok(x.transpose(1, 2)?.contiguous()?)
        };
        let scores = (part(0)?.matmul(&part(1)?.t()?)? / (size as f64).sqrt())?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        let values = weights.matmul(&part(2)?)?.transpose(1, 2)?.contiguous()?;
        Ok(values.reshape((images, height, width, channels / 3))?)
    }
}

impl CustomOp1 for Attend {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let qkv = map(qkv, layout)?;
        let shape = qkv.shape.with_channels(qkv.shape.channels / 3);
        Ok(done(attend(qkv, self.0), &shape.dims()))
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, g: &Tensor) -> CandleResult<Option<Tensor>> {
        let (images, height, width, channels) = qkv.dims4()?;
        let shape = maps::Shape { images, height, width, channels };
        let found = read([qkv, g], |[qkv, g]| {
            let g = Map::new(shape.with_channels(channels / 3), g);
            attend_adjoint(Map::new(shape, qkv), self.0, g)
        })?;
        Ok(Some(Tensor::from_vec(found, qkv.shape(), qkv.device())?))
    }
}
