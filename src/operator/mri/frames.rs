//! Series of images, each with an encoding of its own.

use candle_core::Tensor;

use super::Encoding;
use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::{Buffer, Space, Workspace, vector};

/// One encoding for each frame of a series: of time, contrast or diffusion direction. Domain [frame, …, y, x], range
/// [frame, coil, …].
///
/// ```
/// use candle_core::{DType, Device};
/// use wellposed::{linalg::LinearOperator, operator::mri::{Frames, Sampling, Sense, birdcage}};
/// let maps = birdcage(4, [16, 16], 1, DType::F32, &Device::Cpu)?;
/// let frame = |seed| Sense::new(&maps, &Sampling { seed, ..Sampling::default() }.draw([16, 16])?);
/// let series = Frames::new(vec![frame(0)?, frame(1)?, frame(2)?])?;
/// assert_eq!(series.range().shape(), [3, 4, 16, 16]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Frames<E> {
    frames: Vec<E>,
    domain: Space,
    range: Space,
}

impl<E: Encoding> Frames<E> {
    /// The series of these frames.
    ///
    /// # Errors
    /// [`Error::Parameter`] for none, [`Error::Shape`] where images or data differ between frames.
    pub fn new(frames: Vec<E>) -> Result<Self> {
        let Some(first) = frames.first() else {
            return Err(Error::parameter("frames", 0, "a series needs at least one"));
        };
        for frame in &frames {
            first.domain().expect_same("image of a frame", frame.domain())?;
            first.range().expect_same("data of a frame", frame.range())?;
        }
        let stacked = |space: &Space| space.with_shape(&[&[frames.len()], space.shape()].concat());
        let (domain, range) = (stacked(first.domain()), stacked(first.range()));
        Ok(Self { frames, domain, range })
    }

    /// Maps every frame of every item from `x` to `out`.
    fn each(
        &self,
        x: &Tensor,
        [from, to]: [&Space; 2],
        out: &mut Buffer,
        ws: &mut Workspace,
        map: impl Fn(&E, &Tensor, &mut Buffer, &mut Workspace) -> Result<()>,
    ) -> Result<()> {
        let frames = x.reshape(((), from.elements()))?;
        let mut image = ws.take(to, &[])?;
        for i in 0..frames.dims()[0] {
            let frame = frames.get(i)?.reshape(from.tensor_shape(&[]))?;
            map(&self.frames[i % self.frames.len()], &frame, &mut image, ws)?;
            vector::copy_at(image.tensor(), out, i * to.elements())?;
        }
        ws.give(image);
        Ok(())
    }
}

impl<E: Encoding> LinearOperator for Frames<E> {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let spaces = [self.frames[0].domain(), self.frames[0].range()];
        self.each(x, spaces, out, ws, |frame, x, out, ws| frame.apply_into(x, out, ws))
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let spaces = [self.frames[0].range(), self.frames[0].domain()];
        self.each(y, spaces, out, ws, |frame, y, out, ws| frame.adjoint_into(y, out, ws))
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let spaces = [self.frames[0].domain(), self.frames[0].domain()];
        self.each(x, spaces, out, ws, |frame, x, out, ws| frame.normal_into(x, out, ws))
    }
}

impl<E: Encoding> Encoding for Frames<E> {
    fn image_shape(&self) -> &[usize] {
        self.frames[0].image_shape()
    }
    fn support(&self) -> Result<Tensor> {
        let each = self.frames.iter().map(Encoding::support).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&each, 0)?)
    }
    fn squared_norm_bound(&self) -> Result<f64> {
        self.frames.iter().map(Encoding::squared_norm_bound).try_fold(0.0, |m, b| Ok(b?.max(m)))
    }
    fn noise_energy(&self) -> Result<f64> {
        self.frames.iter().map(Encoding::noise_energy).sum()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::mri::{Sampling, Sense, birdcage};
    use crate::testing::check_operator;

    #[test]
    fn passes_every_check() {
        for dtype in [DType::F32, DType::F64] {
            let maps = birdcage(3, [12, 10], 1, dtype, &Device::Cpu).unwrap();
            let frame = |seed| {
                let sampling = Sampling { seed, acceleration: 2.0, ..Sampling::default() };
                Sense::new(&maps, &sampling.draw([12, 10]).unwrap()).unwrap()
            };
            check_operator(&Frames::new(vec![frame(0), frame(1)]).unwrap()).unwrap();
        }
        assert!(Frames::<Sense>::new(vec![]).is_err());
    }
}
