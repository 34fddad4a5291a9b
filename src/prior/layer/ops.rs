//! Between candle's tensors and slices; sums and concatenation of maps.

use candle_core::{CpuStorage, CustomOp2, Layout, Result as CandleResult, Shape, Storage, Tensor};
use rayon::prelude::*;

use crate::error::Result;
use crate::prior::kernel::map::{self, Map};

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

/// Elements a task of an elementwise operation.
const TASK: usize = 1 << 14;

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
        let mut out = vec![0.0; a.len()];
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
    Ok(a.contiguous()?.apply_op2(&b.contiguous()?, Sum { scale: scale as f32 })?)
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
        let (channels, image) = (x.shape.channels, x.shape.image());
        let mut out = vec![0.0; x.data.len()];
        let images = out.par_chunks_exact_mut(image).zip(x.data.par_chunks_exact(image));
        images.zip(rows.par_chunks_exact(channels)).for_each(|((out, x), row)| {
            let pixels = out.par_chunks_exact_mut(channels).with_min_len(64);
            pixels.zip(x.par_chunks_exact(channels)).for_each(|(out, x)| {
                out.iter_mut().zip(x.iter().zip(row)).for_each(|(o, (x, r))| *o = x + r);
            });
        });
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
    Ok(x.contiguous()?.apply_op2(&rows.contiguous()?, AddRows)?)
}

/// The channels of a, then those of b.
pub fn concatenate(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(Tensor::cat(&[a, b], 3)?)
}
