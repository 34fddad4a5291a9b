//! Buffers, the only arrays that kernels write into, and the workspace that lends them.

use std::cell::RefCell;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor};

use crate::error::{Error, Result};
use crate::tensor::memory::zeros;
use crate::tensor::{Real, Space};

/// The sole owner of a contiguous tensor. Not `Clone`: candle tensors share their storage, so an
/// in-place write to a shared tensor would change every clone of it.
///
/// [`Buffer::tensor`] lends the tensor for reading; don't clone what it lends (a clone would see later
/// writes). [`Buffer::freeze`] gives it away.
#[derive(Debug)]
pub struct Buffer {
    tensor: Tensor,
}

impl Buffer {
    /// A buffer of zeros.
    pub fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Result<Self> {
        let count = shape.iter().product();
        let tensor = match dtype {
            DType::F32 if device.is_cpu() => f32::tensor(zeros(count), shape)?,
            DType::F64 if device.is_cpu() => f64::tensor(zeros(count), shape)?,
            _ => Tensor::zeros(shape, dtype, device)?,
        };
        Ok(Self { tensor })
    }

    /// A buffer with a copy of `x`.
    pub fn copy_of(x: &Tensor) -> Result<Self> {
        let tensor = x.contiguous()?.copy()?.detach();
        Ok(Self { tensor })
    }

    /// A CPU buffer that takes `data` over without a copy.
    pub fn from_vec<T: Real>(data: Vec<T>, shape: &[usize]) -> Result<Self> {
        Ok(Self { tensor: T::tensor(data, shape)? })
    }

    /// The contents, for reading, until the next write.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Gives the contents away as an immutable tensor.
    pub fn freeze(self) -> Tensor {
        self.tensor
    }

    /// Axis lengths.
    pub fn dims(&self) -> &[usize] {
        self.tensor.dims()
    }

    /// The same elements under another shape, without a copy.
    ///
    /// # Errors
    /// [`Error::Tensor`] where the number of elements differs.
    pub fn reshape(self, shape: &[usize]) -> Result<Self> {
        Ok(Self { tensor: self.tensor.reshape(shape)? })
    }

    /// Writes a copy of `x`, which has the same number of elements.
    pub fn copy_from(&mut self, x: &Tensor) -> Result<()> {
        crate::tensor::vector::copy(x, self)
    }

    /// Takes over a tensor that nothing else holds, such as the result of a device's own operation.
    ///
    /// # Errors
    /// [`Error::Shape`] where it has another number of elements.
    pub(crate) fn adopt(&mut self, fresh: Tensor) -> Result<()> {
        let shape = self.tensor.dims().to_vec();
        if fresh.elem_count() != self.tensor.elem_count() {
            return Err(Error::shape("result on the device", format!("{shape:?}"), fresh.dims()));
        }
        self.tensor = fresh.reshape(shape)?;
        Ok(())
    }

    pub(super) fn replace(&mut self, tensor: Tensor) {
        self.tensor = tensor;
    }

    /// Calls `write` with the elements of a CPU buffer.
    pub(super) fn with_slice<T: Real, R>(&mut self, write: impl FnOnce(&mut [T]) -> R) -> Result<R> {
        let op = Write {
            call: RefCell::new(Some(write)),
            answer: RefCell::new(None),
            element: std::marker::PhantomData,
        };
        self.tensor.inplace_op1(&op)?;
        op.answer.into_inner().ok_or_else(|| Error::Unsupported("a buffer that is not on the CPU".into()))
    }
}

/// Hands the storage of a buffer to a closure; candle gives mutable access to storage in no other way.
struct Write<T, F, R> {
    call: RefCell<Option<F>>,
    answer: RefCell<Option<R>>,
    element: std::marker::PhantomData<T>,
}

impl<T: Real, R, F: FnOnce(&mut [T]) -> R> InplaceOp1 for Write<T, F, R> {
    fn name(&self) -> &'static str {
        "write"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or_else(|| candle_core::Error::Msg("a buffer must be contiguous".into()))?;
        let data = T::slice_mut(storage).ok_or_else(|| {
            candle_core::Error::Msg(format!("the buffer does not hold {}", T::DTYPE.as_str()))
        })?;
        let call = self.call.borrow_mut().take();
        *self.answer.borrow_mut() = call.map(|call| call(&mut data[start..end]));
        Ok(())
    }
}

/// A pool of buffers, so that a steady-state solver step allocates nothing: [`Workspace::take`] a
/// buffer, use it, [`Workspace::give`] it back.
#[derive(Debug, Default)]
pub struct Workspace {
    free: Vec<Buffer>,
}

impl Workspace {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer of `space` with these batch axes. Its contents are arbitrary.
    pub fn take(&mut self, space: &Space, batch: &[usize]) -> Result<Buffer> {
        self.take_shape(&space.tensor_shape(batch), space.dtype(), space.device())
    }

    /// A buffer of this shape. Its contents are arbitrary.
    pub fn take_shape(&mut self, shape: &[usize], dtype: DType, device: &Device) -> Result<Buffer> {
        let wanted: usize = shape.iter().product();
        let fits = |b: &Buffer| {
            b.tensor.elem_count() == wanted
                && b.tensor.dtype() == dtype
                && b.tensor.device().same_device(device)
        };
        match self.free.iter().position(fits) {
            Some(index) => self.free.swap_remove(index).reshape(shape),
            None => Buffer::zeros(shape, dtype, device),
        }
    }

    /// Takes a buffer back for later use.
    pub fn give(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_reuses_storage_of_the_same_size() {
        let mut ws = Workspace::new();
        let space = Space::real(&[2, 6], DType::F64, &Device::Cpu);
        let mut buffer = ws.take(&space, &[]).unwrap();
        buffer.with_slice(|x: &mut [f64]| x.fill(7.0)).unwrap();
        ws.give(buffer);
        let again = ws.take(&space.with_shape(&[3, 4]), &[]).unwrap();
        assert_eq!(again.tensor().to_vec2::<f64>().unwrap(), vec![vec![7.0; 4]; 3]);
        let other = ws.take(&Space::real(&[12], DType::F32, &Device::Cpu), &[]).unwrap();
        assert_eq!(other.tensor().to_vec1::<f32>().unwrap(), vec![0.0; 12]);
    }

    #[test]
    fn copy_of_does_not_share() {
        let x = Tensor::ones(4, DType::F32, &Device::Cpu).unwrap();
        let mut buffer = Buffer::copy_of(&x).unwrap();
        buffer.with_slice(|x: &mut [f32]| x.fill(0.0)).unwrap();
        assert_eq!(x.to_vec1::<f32>().unwrap(), [1.0; 4]);
    }
}
