//! Changes of resolution.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result as CandleResult, Shape, Tensor};

use super::Resampling;
use super::ops::{done, map, slice};
use super::tape::apply1;
use crate::error::Result;
use crate::prior::kernel::map as maps;
use crate::prior::kernel::resample::{self as kernel, Taps, resample};

/// x [images, height, width, channels] at another resolution.
pub fn resampled(x: &Tensor, resampling: Resampling) -> Result<Tensor> {
    let (_, height, width, _) = x.dims4()?;
    let op = Separable { rows: resampling.taps(height), columns: resampling.taps(width) };
    if !x.device().is_cpu() {
        return op.portable(x);
    }
    apply1(x, op)
}

/// A sparse matrix along each axis.
pub(super) struct Separable {
    pub(super) rows: Taps,
    pub(super) columns: Taps,
}

impl Separable {
    /// The same by dense matrices, on any device.
    pub(super) fn portable(&self, x: &Tensor) -> Result<Tensor> {
        let (images, height, width, channels) = x.dims4()?;
        let (rows, columns) = (dense(&self.rows, x.device())?, dense(&self.columns, x.device())?);
        let x = x.reshape((images, height, width * channels))?;
        let x = rows.broadcast_matmul(&x)?.reshape((images * self.rows.rows.len(), width, channels))?;
        let x = columns.broadcast_matmul(&x)?;
        Ok(x.reshape((images, self.rows.rows.len(), self.columns.rows.len(), channels))?)
    }
}

fn dense(taps: &Taps, device: &Device) -> Result<Tensor> {
    let mut values = vec![0f32; taps.rows.len() * taps.inputs];
    for (output, row) in taps.rows.iter().enumerate() {
        row.iter().for_each(|(input, weight)| values[output * taps.inputs + input] += weight);
    }
    Ok(Tensor::from_vec(values, (taps.rows.len(), taps.inputs), device)?)
}

impl CustomOp1 for Separable {
    fn name(&self) -> &'static str {
        "resampling"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = map(x, layout)?;
        let dims = [x.shape.images, self.rows.rows.len(), self.columns.rows.len(), x.shape.channels];
        Ok(done(resample(x, &self.rows, &self.columns), &dims))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> CandleResult<Option<Tensor>> {
        let back = Separable { rows: self.rows.transposed(), columns: self.columns.transposed() };
        Ok(Some(g.contiguous()?.apply_op1_no_bwd(&back)?))
    }
}

/// Squares of patch × patch pixels become channels: images [images, channels, height, width] as networks take them
/// to [images, height/patch, width/patch, channels · patch²], ordered channel, row, column.
pub fn fold(x: &Tensor, patch: usize) -> Result<Tensor> {
    if x.device().is_cpu() {
        return apply1(x, Fold(patch));
    }
    let (n, c, h, w) = x.dims4()?;
    let x = x.reshape(vec![n, c, h / patch, patch, w / patch, patch])?;
    let x = x.permute(vec![0, 2, 4, 1, 3, 5])?.contiguous()?;
    Ok(x.reshape((n, h / patch, w / patch, c * patch * patch))?)
}

/// The inverse of [`fold`].
pub fn unfold(x: &Tensor, patch: usize) -> Result<Tensor> {
    if x.device().is_cpu() {
        return apply1(x, Unfold(patch));
    }
    let (n, h, w, c) = x.dims4()?;
    let channels = c / (patch * patch);
    let x = x.reshape(vec![n, h, w, channels, patch, patch])?;
    let x = x.permute(vec![0, 3, 1, 4, 2, 5])?.contiguous()?;
    Ok(x.reshape((n, channels, h * patch, w * patch))?)
}

struct Fold(usize);

struct Unfold(usize);

impl CustomOp1 for Fold {
    fn name(&self) -> &'static str {
        "folding"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (images, channels, height, width) = layout.shape().dims4()?;
        let patch = self.0;
        let (height, width, channels) = (height / patch, width / patch, channels * patch * patch);
        let shape = maps::Shape { images, height, width, channels };
        Ok(done(kernel::fold(slice(x, layout)?, shape, patch), &shape.dims()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> CandleResult<Option<Tensor>> {
        Ok(Some(g.contiguous()?.apply_op1_no_bwd(&Unfold(self.0))?))
    }
}

impl CustomOp1 for Unfold {
    fn name(&self) -> &'static str {
        "unfolding"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (x, patch) = (map(x, layout)?, self.0);
        let maps::Shape { images, height, width, channels } = x.shape;
        let dims = [images, channels / (patch * patch), height * patch, width * patch];
        Ok(done(kernel::unfold(x, patch), &dims))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> CandleResult<Option<Tensor>> {
        Ok(Some(g.contiguous()?.apply_op1_no_bwd(&Fold(self.0))?))
    }
}
