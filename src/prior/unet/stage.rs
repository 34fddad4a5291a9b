//! The blocks of the network, each with its input gradient.

use std::sync::Arc;

use super::attention::{attend, attend_adjoint};
use super::config::UNetConfig;
use super::conv::Conv;
use super::map::Map;
use super::norm::{Affine, Modulation, Norm};
use crate::error::Result;

/// Gives a tensor of weights by its name and expected shape.
pub type Fetch<'a> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>> + 'a;

/// A fully connected layer.
#[derive(Debug)]
pub(super) struct Linear {
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Linear {
    pub(super) fn load(name: &str, inputs: usize, outputs: usize, fetch: &mut Fetch) -> Result<Self> {
        let weights = fetch(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Self { weights, bias: fetch(&format!("{name}.bias"), &[outputs])? })
    }

    pub(super) fn apply(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.weights.chunks_exact(x.len()).zip(&self.bias);
        rows.map(|(row, b)| b + row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>()).collect()
    }
}

pub(super) fn conv(
    name: &str,
    [inputs, outputs, size, stride]: [usize; 4],
    fetch: &mut Fetch,
) -> Result<Conv> {
    let weights = fetch(&format!("{name}.weight"), &[outputs, inputs, size, size])?;
    Ok(Conv::new(weights, fetch(&format!("{name}.bias"), &[outputs])?, size, stride))
}

pub(super) fn norm(name: &str, channels: usize, groups: usize, fetch: &mut Fetch) -> Result<Norm> {
    let gamma = fetch(&format!("{name}.weight"), &[channels])?;
    Ok(Norm { groups, gamma, beta: fetch(&format!("{name}.bias"), &[channels])?, epsilon: 1e-5 })
}

/// A residual block, with self-attention behind it on some levels.
#[derive(Debug)]
pub(super) struct Stage {
    norm1: Norm,
    conv1: Conv,
    embed: Linear,
    norm2: Norm,
    conv2: Conv,
    shortcut: Option<Conv>,
    attention: Option<Attention>,
}

#[derive(Debug)]
struct Attention {
    norm: Norm,
    qkv: Conv,
    proj: Conv,
    heads: usize,
}

/// What the gradient of a stage needs.
#[derive(Debug)]
pub(super) struct StageTrace {
    x: Arc<Map>,
    first: Affine,
    hidden: Map,
    second: Affine,
    attention: Option<AttentionTrace>,
}

#[derive(Debug)]
struct AttentionTrace {
    x: Map,
    norm: Affine,
    qkv: Map,
}

impl Stage {
    pub(super) fn load(
        name: &str,
        [x, y]: [usize; 2],
        attention: bool,
        c: &UNetConfig,
        fetch: &mut Fetch,
    ) -> Result<Self> {
        let (res, a) = (format!("{name}.res"), format!("{name}.attention"));
        let attention = if attention {
            Some(Attention {
                norm: norm(&format!("{a}.norm"), y, c.groups, fetch)?,
                qkv: conv(&format!("{a}.qkv"), [y, 3 * y, 1, 1], fetch)?,
                proj: conv(&format!("{a}.proj"), [y, y, 1, 1], fetch)?,
                heads: y / c.head,
            })
        } else {
            None
        };
        Ok(Self {
            norm1: norm(&format!("{res}.norm1"), x, c.groups, fetch)?,
            conv1: conv(&format!("{res}.conv1"), [x, y, 3, 1], fetch)?,
            embed: Linear::load(&format!("{res}.embed"), c.embedding, 2 * y, fetch)?,
            norm2: norm(&format!("{res}.norm2"), y, c.groups, fetch)?,
            conv2: conv(&format!("{res}.conv2"), [y, y, 3, 1], fetch)?,
            shortcut: if x == y {
                None
            } else {
                Some(conv(&format!("{res}.shortcut"), [x, y, 1, 1], fetch)?)
            },
            attention,
        })
    }

    pub(super) fn apply(&self, x: Arc<Map>, embedding: &[f32], trace: Option<&mut Vec<StageTrace>>) -> Map {
        let modulation = self.embed.apply(embedding);
        let (scale, shift) = modulation.split_at(modulation.len() / 2);
        let first = self.norm1.of(&x, None, true);
        let hidden = self.conv1.apply(&first.apply(&x));
        let second = self.norm2.of(&hidden, Some(Modulation { scale, shift }), true);
        let mut out = match &self.shortcut {
            Some(shortcut) => shortcut.apply(&x),
            None => x.copy(),
        };
        self.conv2.add_to(&second.apply(&hidden), &mut out);
        let mut attention = None;
        if let Some(layer) = &self.attention {
            (out, attention) = layer.apply(out, trace.is_some());
        }
        if let Some(trace) = trace {
            trace.push(StageTrace { x, first, hidden, second, attention });
        }
        out
    }

    pub(super) fn adjoint(&self, trace: &StageTrace, g: Map) -> Map {
        let g = match (&self.attention, &trace.attention) {
            (Some(layer), Some(trace)) => layer.adjoint(trace, g),
            _ => g,
        };
        let shape = trace.hidden.shape;
        let hidden = trace.second.adjoint(&trace.hidden, &self.conv2.adjoint(&g, shape));
        let mut out = trace.first.adjoint(&trace.x, &self.conv1.adjoint(&hidden, trace.x.shape));
        match &self.shortcut {
            Some(shortcut) => out.add(&shortcut.adjoint(&g, trace.x.shape)),
            None => out.add(&g),
        }
        out
    }
}

impl Attention {
    fn apply(&self, x: Map, traced: bool) -> (Map, Option<AttentionTrace>) {
        let norm = self.norm.of(&x, None, false);
        let qkv = self.qkv.apply(&norm.apply(&x));
        let mut out = x.copy();
        self.proj.add_to(&attend(&qkv, self.heads), &mut out);
        (out, traced.then_some(AttentionTrace { x, norm, qkv }))
    }

    fn adjoint(&self, trace: &AttentionTrace, mut g: Map) -> Map {
        let inner = self.proj.adjoint(&g, g.shape);
        let qkv = attend_adjoint(&trace.qkv, self.heads, &inner);
        g.add(&trace.norm.adjoint(&trace.x, &self.qkv.adjoint(&qkv, trace.x.shape)));
        g
    }
}
