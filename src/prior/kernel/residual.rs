//! The residual block of diffusion U-nets as one operation: nothing but its result is allocated, and of its
//! intermediate maps the gradient keeps the first convolution's alone.

use std::sync::Arc;

use rayon::prelude::*;

use super::conv::Conv;
use super::map::{Map, add_rows};
use super::norm::Norm;
use super::scratch::lend;
use crate::tensor::memory::zeros;

/// Elements a task.
const TASK: usize = 1 << 14;

/// y = scale (x' + conv2(SiLU(norm2(h + shift)))), h = conv1(SiLU(norm1(x))), x' = x or its 1 × 1 convolution.
#[derive(Debug)]
pub struct Residual {
    norm1: Norm,
    conv1: Arc<Conv>,
    norm2: Norm,
    conv2: Arc<Conv>,
    shortcut: Option<Arc<Conv>>,
    scale: f32,
}

/// What the noise level decides, each [images, channels].
#[derive(Debug)]
pub struct Modulation {
    /// γ and β of the two normalisations.
    pub norm1: [Vec<f32>; 2],
    pub norm2: [Vec<f32>; 2],
    /// Added between the first convolution and the second normalisation.
    pub shift: Option<Vec<f32>>,
}

impl Residual {
    /// A block of these parts, if it is of the kind that runs as one: 3 × 3 and 1 × 1 convolutions of stride 1 with
    /// multiples of 16 channels, normalisations with SiLU.
    pub fn new(
        norms: [Norm; 2],
        convs: [Arc<Conv>; 2],
        shortcut: Option<Arc<Conv>>,
        scale: f32,
    ) -> Option<Self> {
        let ([norm1, norm2], [conv1, conv2]) = (norms, convs);
        let fits = conv1.is_plain()
            && conv2.is_plain()
            && shortcut.as_ref().is_none_or(|shortcut| shortcut.is_pointwise())
            && norm1.silu
            && norm2.silu;
        fits.then_some(Self { norm1, conv1, norm2, conv2, shortcut, scale })
    }

    /// Channels of the result.
    pub fn outputs(&self) -> usize {
        self.conv1.geometry().outputs
    }

    /// The result; h + shift goes to `keep`, for [`Residual::input_gradient`].
    pub fn apply(&self, x: Map, modulation: &Modulation, keep: Option<&mut Vec<f32>>) -> Vec<f32> {
        let shape = x.shape.with_channels(self.outputs());
        let mut out = zeros(shape.elements());
        let first = |h: &mut [f32]| {
            lend(x.data.len(), |unit| {
                self.norm1.apply_into(x, &modulation.norm1[0], &modulation.norm1[1], unit);
                self.conv1.apply_into(Map::new(x.shape, unit), None, 1.0, h);
            });
            if let Some(shift) = &modulation.shift {
                add_rows(shape, shift, h);
            }
        };
        let [gamma, beta] = &modulation.norm2;
        lend(shape.elements(), |unit| {
            if let Some(keep) = keep {
                *keep = zeros(shape.elements());
                first(keep);
                self.norm2.apply_into(Map::new(shape, keep), gamma, beta, unit);
            } else {
                first(unit);
                self.norm2.apply_in_place(shape, unit, gamma, beta);
            }
            self.last(x, Map::new(shape, unit), &mut out);
        });
        out
    }

    /// out ← scale (x' + conv2(u)).
    fn last(&self, x: Map, u: Map, out: &mut [f32]) {
        let Some(shortcut) = &self.shortcut else {
            return self.conv2.apply_into(u, Some(x.data), self.scale, out);
        };
        lend(out.len(), |around| {
            shortcut.apply_into(x, None, 1.0, around);
            self.conv2.apply_into(u, Some(around), self.scale, out);
        });
    }

    /// The gradient with respect to x of the gradient g of the result, where `h` was kept by [`Residual::apply`].
    pub fn input_gradient(&self, x: Map, modulation: &Modulation, h: &[f32], g: Map) -> Vec<f32> {
        let mut out = zeros(x.data.len());
        lend(h.len(), |inner| {
            let [gamma, beta] = &modulation.norm2;
            self.conv2.input_gradient_into(g, self.scale, inner);
            self.norm2.gradients_in_place(Map::new(g.shape, h), gamma, beta, inner);
            self.conv1.input_gradient_into(Map::new(g.shape, inner), 1.0, &mut out);
        });
        let [gamma, beta] = &modulation.norm1;
        self.norm1.gradients_in_place(x, gamma, beta, &mut out);
        match &self.shortcut {
            None => accumulate(&mut out, self.scale, g.data),
            Some(shortcut) => lend(x.data.len(), |around| {
                shortcut.input_gradient_into(g, 1.0, around);
                accumulate(&mut out, self.scale, around);
            }),
        }
        out
    }
}

/// x ← x + scale y.
fn accumulate(x: &mut [f32], scale: f32, y: &[f32]) {
    x.par_chunks_mut(TASK).zip(y.par_chunks(TASK)).for_each(|(x, y)| {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += scale * y);
    });
}
