//! The set of arrays that an operator takes or gives: shape, field, element type, device.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::tensor::Buffer;

/// The scalars of a [`Space`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Real numbers.
    Real,
    /// Complex numbers, stored as a trailing axis of length 2.
    Complex,
}

/// Shape (without batch axes and without the complex axis), field, element type and device of an array.
///
/// ```
/// use candle_core::{DType, Device};
/// use wellposed::tensor::Space;
/// let image = Space::complex(&[256, 256], DType::F32, &Device::Cpu);
/// assert_eq!(image.tensor_shape(&[4]), [4, 256, 256, 2]);
/// ```
#[derive(Clone, Debug)]
pub struct Space {
    shape: Vec<usize>,
    field: Field,
    dtype: DType,
    device: Device,
}

impl Space {
    /// Real arrays of the given shape.
    pub fn real(shape: &[usize], dtype: DType, device: &Device) -> Self {
        Self { shape: shape.to_vec(), field: Field::Real, dtype, device: device.clone() }
    }

    /// Complex arrays of the given shape; tensors have one more axis of length 2.
    pub fn complex(shape: &[usize], dtype: DType, device: &Device) -> Self {
        Self { shape: shape.to_vec(), field: Field::Complex, dtype, device: device.clone() }
    }

    /// The same field, element type and device with another shape.
    pub fn with_shape(&self, shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), ..self.clone() }
    }

    /// The same shape, element type and device over another field.
    pub fn with_field(&self, field: Field) -> Self {
        Self { field, ..self.clone() }
    }

    /// Shape without batch axes and without the complex axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Real or complex.
    pub fn field(&self) -> Field {
        self.field
    }

    /// Element type of the tensors, `F32` or `F64`.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the tensors lie.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of scalars of one item (a complex number counts once).
    pub fn scalars(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of stored elements of one item (a complex number counts twice).
    pub fn elements(&self) -> usize {
        self.scalars() * self.components()
    }

    /// Stored elements per scalar: 1 for real, 2 for complex.
    pub fn components(&self) -> usize {
        match self.field {
            Field::Real => 1,
            Field::Complex => 2,
        }
    }

    /// The shape of a tensor with these batch axes in front.
    pub fn tensor_shape(&self, batch: &[usize]) -> Vec<usize> {
        let mut shape = [batch, &self.shape].concat();
        if self.field == Field::Complex {
            shape.push(2);
        }
        shape
    }

    /// Checks that `x` lies in this space and returns its batch axes: the only shape check of the crate.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] or [`Error::Device`], naming `name`.
    pub fn check<'a>(&self, name: &str, x: &'a Tensor) -> Result<&'a [usize]> {
        let found = x.dims();
        let item = self.tensor_shape(&[]);
        if found.len() < item.len() || found[found.len() - item.len()..] != item[..] {
            let field = if self.field == Field::Complex { " (complex: trailing [re, im])" } else { "" };
            return Err(Error::shape(name, format!("[batch…, {}]{field}", join(&item)), found));
        }
        if x.dtype() != self.dtype {
            return Err(Error::DType {
                name: name.into(),
                expected: self.dtype.as_str().into(),
                found: x.dtype().as_str().into(),
            });
        }
        if !x.device().same_device(&self.device) {
            return Err(Error::Device {
                name: name.into(),
                expected: format!("{:?}", self.device.location()),
                found: format!("{:?}", x.device().location()),
            });
        }
        Ok(&found[..found.len() - item.len()])
    }

    /// Whether both describe the same arrays.
    pub fn same(&self, other: &Self) -> bool {
        self.shape == other.shape
            && self.field == other.field
            && self.dtype == other.dtype
            && self.device.same_device(&other.device)
    }

    /// An error unless both describe the same arrays; `name` says who asks.
    pub fn expect_same(&self, name: &str, other: &Self) -> Result<()> {
        if self.same(other) {
            return Ok(());
        }
        Err(Error::shape(name, self.to_string(), &other.tensor_shape(&[])))
    }

    /// A buffer of zeros with these batch axes.
    pub fn buffer(&self, batch: &[usize]) -> Result<Buffer> {
        Buffer::zeros(&self.tensor_shape(batch), self.dtype, &self.device)
    }

    /// A tensor of zeros with these batch axes.
    pub fn zeros(&self, batch: &[usize]) -> Result<Tensor> {
        Ok(Tensor::zeros(self.tensor_shape(batch), self.dtype, &self.device)?)
    }
}

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = if self.field == Field::Complex { "complex" } else { "real" };
        write!(f, "[{}] {field} {}", join(&self.shape), self.dtype.as_str())
    }
}

fn join(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_accepts_batches_and_names_what_is_wrong() {
        let space = Space::complex(&[3, 4], DType::F32, &Device::Cpu);
        let x = Tensor::zeros((5, 3, 4, 2), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(space.check("x", &x).unwrap(), [5]);
        let real = Tensor::zeros((3, 4), DType::F32, &Device::Cpu).unwrap();
        let message = space.check("x", &real).unwrap_err().to_string();
        assert!(message.contains("[batch…, 3, 4, 2]") && message.contains("[3, 4]"), "{message}");
        let double = Tensor::zeros((3, 4, 2), DType::F64, &Device::Cpu).unwrap();
        assert!(matches!(space.check("x", &double), Err(Error::DType { .. })));
    }
}
