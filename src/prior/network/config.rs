//! The shape of the network, as files state it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Far beyond any network, but its powers and products still fit.
const LARGEST: usize = 1 << 14;

/// What a file of weights doesn't say by itself: the shape of the network.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct UNetConfig {
    /// Channels of the images: 1 for real ones, 2 for re and im.
    pub channels: usize,
    /// Side of the square of pixels that is folded into channels.
    pub patch: usize,
    /// Channels of each level, from the finest; multiples of 16 and of `groups`.
    pub widths: Vec<usize>,
    /// Residual blocks of each level, encoder and decoder alike.
    pub depths: Vec<usize>,
    /// Which levels have self-attention.
    pub attention: Vec<bool>,
    /// Groups of the normalisations.
    pub groups: usize,
    /// Channels of an attention head.
    pub head: usize,
    /// Length of the embedding of the noise level.
    pub embedding: usize,
    /// Frequencies of its Fourier features, from .5 to 64.
    pub frequencies: usize,
}

impl UNetConfig {
    pub(super) fn check(&self) -> Result<()> {
        let levels = self.widths.len();
        let fail = |name: &str, value: String, reason: &str| Err(Error::parameter(name, value, reason));
        if levels == 0 || self.depths.len() != levels || self.attention.len() != levels {
            let value = format!("{levels}, {}, {}", self.depths.len(), self.attention.len());
            return fail("lengths of widths, depths, attention", value, "must be equal and at least 1");
        }
        let sizes = [self.groups, self.patch, self.channels, self.head, self.embedding, self.frequencies];
        let largest = self.widths.iter().chain(&self.depths).chain(&sizes).max().copied().unwrap_or(0);
        if largest > LARGEST {
            return fail("the network's sizes", largest.to_string(), "must be up to 16384 each");
        }
        let groups = self.groups.max(1);
        if self.widths.iter().any(|w| *w == 0 || w % 16 != 0 || w % groups != 0) {
            return fail("widths", format!("{:?}", self.widths), "must be multiples of 16 and of the groups");
        }
        if self.depths.contains(&0) || self.groups == 0 || self.patch == 0 || self.channels == 0 {
            return fail("depths, groups, patch, channels", format!("{self:?}"), "must be at least 1");
        }
        let mut heads = self
            .widths
            .iter()
            .zip(&self.attention)
            .filter(|(_, a)| **a)
            .map(|(w, _)| w)
            .chain(self.widths.last());
        if self.head == 0 || heads.any(|w| w % self.head != 0) {
            return fail(
                "head",
                self.head.to_string(),
                "must divide the widths of the levels with attention",
            );
        }
        if self.embedding == 0 || self.frequencies < 2 {
            return fail(
                "frequencies",
                self.frequencies.to_string(),
                "must be at least 2, the embedding at least 1",
            );
        }
        Ok(())
    }
}
