//! Arrays as files hold them, before anyone says what their axes mean.

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::io::scalar::{Endian, Scalar};
use crate::tensor::{Field, Real};

/// An array of any rank from a file: f32 where that is exact, else f64; complex numbers with a trailing
/// [re, im]. The last axis (before [re, im]) is the one that varies fastest in the file.
#[derive(Clone, Debug)]
pub struct Array {
    /// The numbers, on the CPU.
    pub data: Tensor,
    /// Whether `data` has a trailing [re, im].
    pub field: Field,
}

impl Array {
    /// Axis lengths, without the [re, im] axis.
    pub fn shape(&self) -> &[usize] {
        let dims = self.data.dims();
        &dims[..dims.len() - usize::from(self.field == Field::Complex)]
    }

    /// The numbers in single precision.
    pub fn to_f32(&self) -> Result<Tensor> {
        Ok(self.data.to_dtype(DType::F32)?)
    }

    /// From the bytes of a file: `scalar`s of axis lengths `shape`, complex as pairs.
    pub(crate) fn decode(
        bytes: &[u8],
        scalar: Scalar,
        endian: Endian,
        shape: &[usize],
        field: Field,
    ) -> Result<Self> {
        let mut dims = shape.to_vec();
        if field == Field::Complex {
            dims.push(2);
        }
        let data = if scalar.fits_f32() {
            f32::tensor(scalar.decode(bytes, endian), &dims)?
        } else {
            f64::tensor(scalar.decode(bytes, endian), &dims)?
        };
        Ok(Self { data, field })
    }

    /// The same numbers with the axes in the opposite order.
    pub(crate) fn reversed(&self) -> Result<Self> {
        let rank = self.shape().len();
        let mut axes: Vec<usize> = (0..rank).rev().collect();
        axes.extend(rank..self.data.rank());
        Ok(Self { data: self.data.permute(axes)?.contiguous()?, field: self.field })
    }

    /// The last two axes exchanged: MATLAB's columns, which vary fastest in its files, become rows.
    pub(crate) fn paged(self) -> Result<Self> {
        let rank = self.shape().len();
        if rank < 2 {
            return Ok(self);
        }
        Ok(Self { data: self.data.transpose(rank - 2, rank - 1)?.contiguous()?, field: self.field })
    }

    /// The voxels of a volume: axes of length 1 in front are dropped, a picture becomes one slice.
    pub(crate) fn into_voxels(self, name: &str) -> Result<Tensor> {
        let shape = self.shape();
        let leading = shape.iter().take_while(|&&n| n == 1).count();
        let tail = &shape[leading.min(shape.len().saturating_sub(3))..];
        let mut dims = match tail.len() {
            2 => vec![1, tail[0], tail[1]],
            3 => tail.to_vec(),
            _ => return Err(Error::shape(name, "[slices, height, width] or [height, width]", shape)),
        };
        if self.field == Field::Complex {
            dims.push(2);
        }
        Ok(self.to_f32()?.reshape(dims)?)
    }
}

/// The number of elements, unless it overflows.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s)).filter(|&n| n <= isize::MAX as usize / 16)
}
