//! Penalties on blocks or decimated wavelets without a preferred grid.

use std::sync::atomic::{AtomicU32, Ordering};

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::linalg::{Proximal, Steps};
use crate::tensor::random::Noise;
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch};

/// A penalty whose proximal map shifts the image by a few points, another shift at every call
/// (Figueiredo and Nowak 2003): what is left is nearly translation-invariant, without the block artefacts of
/// decimated wavelets or of blocks. The shifts are a fixed sequence.
#[derive(Debug)]
pub(super) struct CycleSpinning<P> {
    penalty: P,
    /// Shifts are below this.
    period: usize,
    calls: AtomicU32,
}

impl<P: Proximal> CycleSpinning<P> {
    pub(super) fn new(penalty: P, period: usize) -> Self {
        Self { penalty, period, calls: AtomicU32::new(0) }
    }

    fn roll(&self, from: &Tensor, by: [usize; 2], to: &mut Buffer) -> Result<()> {
        let [.., height, width] = *self.penalty.domain().shape() else {
            unreachable!("images have two axes")
        };
        let row = width * self.penalty.domain().components();
        let by = [by[0] % height, by[1] % width * self.penalty.domain().components()];
        launch(Roll { height, row, by }, &[from], &mut [to])
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
        let by = [a, b].map(|u| (u * self.period as f64) as usize);
        let [.., height, width] = *self.domain().shape() else { unreachable!("images have two axes") };
        let mut moved = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
        self.roll(x.tensor(), by, &mut moved)?;
        self.penalty.prox(steps, &mut moved, ws)?;
        self.roll(moved.tensor(), [height - by[0] % height, width - by[1] % width], x)?;
        ws.give(moved);
        Ok(())
    }
}

/// out[y, x] ← in[(y + by₀) mod height, (x + by₁) mod width], elements of the row counted singly.
struct Roll {
    height: usize,
    row: usize,
    by: [usize; 2],
}

impl Kernel for Roll {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Self { height, row, by } = self;
        outputs[0].par_chunks_mut(row).enumerate().for_each(|(i, out)| {
            let (plane, y) = (i / height, i % height);
            let from = &inputs[0][(plane * height + (y + by[0]) % height) * row..][..row];
            out[..row - by[1]].copy_from_slice(&from[by[1]..]);
            out[row - by[1]..].copy_from_slice(&from[..by[1]]);
        });
        Ok(())
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
        let identity = Arc::new(Identity::new(&space));
        let nothing = Arc::new(L1Norm::new(&space, 0.0).unwrap());
        let spun = CycleSpinning::new(Transformed::new(identity, nothing).unwrap(), 16);
        let x = standard_normal(Noise::new(1, 0), &space, &[3]).unwrap();
        let mut out = Buffer::copy_of(&x).unwrap();
        for _ in 0..5 {
            spun.prox(Steps::Uniform(1.0), &mut out, &mut Workspace::new()).unwrap();
        }
        assert_eq!(f64::to_vec(out.tensor()).unwrap(), f64::to_vec(&x).unwrap());
    }
}
