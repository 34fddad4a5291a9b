//! Between candle's tensors and slices; sums, rectification and concatenation of maps.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result as CandleResult, Shape, Storage, Tensor};
use rayon::prelude::*;

use super::tape::{apply1, apply2};
use crate::error::Result;
use crate::prior::kernel::map::{self, Map};
use crate::tensor::memory::zeros;

/// The elements of a contiguous f32 storage.
pub(super) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => candle_core::bail!("expected a contiguous array"),
    }
}

/// A contiguous [images, height, width, channels] as a map.
pub(super) fn map<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<Map<'a>> {
    let (images, height, width, channels) = layout.shape().dims4()?;
    Ok(Map::new(map::Shape { images, height, width, channels }, slice(storage, layout)?))
}

/// The result of an operation.
pub(super) fn done(values: Vec<f32>, dims: &[usize]) -> (CpuStorage, Shape) {
    (CpuStorage::F32(values), Shape::from(dims))
}

/// Calls `f` with the elements of contiguous tensors on the CPU.
pub(super) fn read<const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> R,
) -> CandleResult<R> {
    let tensors = tensors.map(Tensor::contiguous);
    let mut guards = Vec::with_capacity(N);
    for tensor in &tensors {
        match tensor {
            Ok(tensor) => guards.push(tensor.storage_and_layout()),
            Err(error) => candle_core::bail!("{error}"),
        }
    }
    let mut slices = [&[][..]; N];
    for (to, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(storage) = &**storage else { candle_core::bail!("expected an array on the CPU") };
        *to = slice(storage, layout)?;
    }
    Ok(f(slices))
}

/// Elements, and pixels, a task of an elementwise operation.
const TASK: usize = 1 << 14;
const PIXELS: usize = 128;

/// scale (a + b).
struct Sum {
    scale: f32,
}

impl CustomOp2 for Sum {
    fn name(&self) -> &'static str {
        "scaled sum"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (a, b) = (slice(a, la)?, slice(b, lb)?);
        let mut out = zeros(a.len());
        let parts = a.par_chunks(TASK).zip(b.par_chunks(TASK));
        out.par_chunks_mut(TASK).zip(parts).for_each(|(out, (a, b))| {
            for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
                *out = self.scale * (a + b);
            }
        });
        Ok(done(out, la.dims()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let g = if self.scale == 1.0 { g.clone() } else { g.affine(f64::from(self.scale), 0.0)? };
        Ok((Some(g.clone()), Some(g)))
    }
}

/// scale (a + b), of equal shapes.
pub fn add(a: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor> {
    if !a.device().is_cpu() {
        return Ok(((a + b)? * scale)?);
    }
    apply2(a, b, Sum { scale: scale as f32 })
}

/// max(x, 0).
struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "rectification"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let mut out = zeros(x.len());
        out.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(out, x)| {
            out.iter_mut().zip(x).for_each(|(out, x)| *out = x.max(0.0));
        });
        Ok(done(out, layout.dims()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> CandleResult<Option<Tensor>> {
        let found = read([x, g], |[x, g]| {
            let mut out = zeros(x.len());
            let parts = x.par_chunks(TASK).zip(g.par_chunks(TASK));
            out.par_chunks_mut(TASK).zip(parts).for_each(|(out, (x, g))| {
                for (out, (x, g)) in out.iter_mut().zip(x.iter().zip(g)) {
                    *out = if *x > 0.0 { *g } else { 0.0 };
                }
            });
            out
        })?;
        Ok(Some(Tensor::from_vec(found, x.shape(), x.device())?))
    }
}

/// max(x, 0).
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return Ok(x.relu()?);
    }
    apply1(x, Relu)
}

/// Adds a row of channels to every pixel of an image.
struct AddRows;

impl CustomOp2 for AddRows {
    fn name(&self) -> &'static str {
        "rows added"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        rows: &CpuStorage,
        lr: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (x, rows) = (map(x, lx)?, slice(rows, lr)?);
        let mut out = x.data.to_vec();
        map::add_rows(x.shape, rows, &mut out);
        Ok(done(out, lx.dims()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(g.clone()), Some(g.sum((1, 2))?)))
    }
}

/// x [images, height, width, channels] + rows [images, channels].
pub fn add_rows(x: &Tensor, rows: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return Ok(x.broadcast_add(&rows.unsqueeze(1)?.unsqueeze(1)?)?);
    }
    apply2(x, rows, AddRows)
}

/// The channels of two maps.
struct Concatenation;

impl CustomOp2 for Concatenation {
    fn name(&self) -> &'static str {
        "concatenation"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (a, b) = (map(a, la)?, map(b, lb)?);
        let (first, second) = (a.shape.channels, b.shape.channels);
        let shape = a.shape.with_channels(first + second);
        let mut out = zeros(shape.elements());
        let pixels = a.data.par_chunks_exact(first).zip(b.data.par_chunks_exact(second));
        out.par_chunks_exact_mut(first + second).with_min_len(PIXELS).zip(pixels).for_each(
            |(out, (a, b))| {
                out[..first].copy_from_slice(a);
                out[first..].copy_from_slice(b);
            },
        );
        Ok(done(out, &shape.dims()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let (first, second) = (a.dim(3)?, b.dim(3)?);
        let part = |channels| g.contiguous()?.apply_op1_no_bwd(&Part(channels));
        Ok((Some(part(0..first)?), Some(part(first..first + second)?)))
    }
}

/// Some channels of a map.
struct Part(Range<usize>);

impl CustomOp1 for Part {
    fn name(&self) -> &'static str {
        "part of the channels"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = map(x, layout)?;
        let shape = x.shape.with_channels(self.0.len());
        let mut out = zeros(shape.elements());
        let pixels = x.data.par_chunks_exact(x.shape.channels);
        out.par_chunks_exact_mut(shape.channels).with_min_len(PIXELS).zip(pixels).for_each(|(out, x)| {
            out.copy_from_slice(&x[self.0.clone()]);
        });
        Ok(done(out, &shape.dims()))
    }
}

/// The channels of a, then those of b.
pub fn concatenate(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !a.device().is_cpu() || a.dims()[..3] != b.dims()[..3] {
        return Ok(Tensor::cat(&[a, b], 3)?);
    }
    apply2(a, b, Concatenation)
}
