//! Penalties on blocks or decimated wavelets without a preferred grid.

use std::sync::atomic::{AtomicU32, Ordering};

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::linalg::{Proximal, Steps};
use crate::tensor::device::Gpu;
use crate::tensor::random::Noise;
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch};

/// A penalty whose proximal map shifts the image by a few points, another shift at every call
/// (Figueiredo and Nowak 2003): what is left is nearly translation-invariant, without the block artefacts of
/// decimated wavelets or of blocks. The shifts are a fixed sequence.
#[derive(Debug)]
pub(super) struct CycleSpinning<P> {
    penalty: P,
    /// Shifts are below this, along the last `axes` axes.
    period: usize,
    axes: usize,
    calls: AtomicU32,
}

impl<P: Proximal> CycleSpinning<P> {
    pub(super) fn new(penalty: P, period: usize, axes: usize) -> Self {
        Self { penalty, period, axes, calls: AtomicU32::new(0) }
    }

    /// Lengths of the axes [z, y, x] that are shifted; those before them are items of a batch.
    fn lengths(&self) -> [usize; 3] {
        match *self.penalty.domain().shape() {
            [.., depth, height, width] if self.axes > 2 => [depth, height, width],
            [.., height, width] => [1, height, width],
            _ => unreachable!("images have two axes"),
        }
    }

    fn roll(&self, from: &Tensor, by: [usize; 3], to: &mut Buffer) -> Result<()> {
        let [depth, height, width] = self.lengths();
        let components = self.penalty.domain().components();
        let by = [by[0] % depth, by[1] % height, by[2] % width * components];
        launch(Roll { depth, height, row: width * components, by }, &[from], &mut [to])
    }
}

impl<P: Proximal> Proximal for CycleSpinning<P> {
    fn domain(&self) -> &Space {
        self.penalty.domain()
    }
    fn value(&self, x: &Tensor) -> Result<Vec<f64>> {
        self.penalty.value(x)
    }
    fn prox(&self, steps: Steps<'_>, x: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let (a, b) = Noise::new(0, 0x7370_696e).uniform_pair(call.into());
        let c = Noise::new(0, 0x7370_697a).uniform(call.into());
        let by = [c, a, b].map(|u| (u * self.period as f64) as usize);
        let [depth, height, width] = self.lengths();
        let mut moved = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
        self.roll(x.tensor(), by, &mut moved)?;
        self.penalty.prox(steps, &mut moved, ws)?;
        let back = [depth - by[0] % depth, height - by[1] % height, width - by[2] % width];
        self.roll(moved.tensor(), back, x)?;
        ws.give(moved);
        Ok(())
    }
}

/// out[z, y, x] ← in[(z + by₀) mod depth, (y + by₁) mod height, (x + by₂) mod width], elements of the row counted singly.
struct Roll {
    depth: usize,
    height: usize,
    row: usize,
    by: [usize; 3],
}

impl Kernel for Roll {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Self { depth, height, row, by } = self;
        outputs[0].par_chunks_mut(row).enumerate().for_each(|(i, out)| {
            let (item, z, y) = (i / height / depth, i / height % depth, i % height);
            let plane = item * depth + (z + by[0]) % depth;
            let from = &inputs[0][(plane * height + (y + by[1]) % height) * row..][..row];
            out[..row - by[2]].copy_from_slice(&from[by[2]..]);
            out[row - by[2]..].copy_from_slice(&from[..by[2]]);
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let lengths = [self.depth, self.height, self.row];
        Some(gpu.roll(gpu.input(0), gpu.output(0), gpu.output_len(0), lengths, self.by))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device};

    use super::*;
    use crate::functional::{L1Norm, Transformed};
    use crate::operator::Identity;
    use crate::tensor::random::standard_normal;

    #[test]
    fn shifts_are_undone() {
        let space = Space::complex(&[2, 9, 7], DType::F64, &Device::Cpu);
        for axes in [2, 3] {
            let identity = Arc::new(Identity::new(&space));
            let nothing = Arc::new(L1Norm::new(&space, 0.0).unwrap());
            let spun = CycleSpinning::new(Transformed::new(identity, nothing).unwrap(), 16, axes);
            let x = standard_normal(Noise::new(1, 0), &space, &[3]).unwrap();
            let mut out = Buffer::copy_of(&x).unwrap();
            for _ in 0..5 {
                spun.prox(Steps::Uniform(1.0), &mut out, &mut Workspace::new()).unwrap();
            }
            assert_eq!(f64::to_vec(out.tensor()).unwrap(), f64::to_vec(&x).unwrap());
        }
    }
}
