//! The two element types, `f32` and `f64`, behind one trait.

use std::sync::{LazyLock, Mutex};

use candle_core::{CpuStorage, DType, Device, Tensor};
use num_complex::Complex;
use num_traits::{Float, FloatConst, NumAssign};
use rustfft::FftPlanner;

use crate::error::Result;
use crate::tensor::simd::Registers;

/// A real element type of the kernels: `f32` or `f64`.
pub trait Real:
    Default + Float + FloatConst + NumAssign + rustfft::FftNum + std::iter::Sum + std::fmt::Display + Registers
{
    /// The tensor element type.
    const DTYPE: DType;
    /// The nearest value of this type.
    fn of(value: f64) -> Self;
    /// The same value in double precision.
    fn as_f64(self) -> f64;
    /// The elements of a CPU storage, if they have this type.
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
    /// The elements of a CPU storage for writing, if they have this type.
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
    /// A CPU tensor that takes `data` over without a copy.
    fn tensor(data: Vec<Self>, shape: &[usize]) -> Result<Tensor>;
    /// A copy of a tensor's elements in row-major order, converted to this type, from any device.
    fn to_vec(x: &Tensor) -> Result<Vec<Self>>;
    /// The process-wide planner of one-dimensional Fourier transforms, which keeps every plan it has made.
    fn fft_planner() -> &'static Mutex<FftPlanner<Self>>;
}

macro_rules! real {
    ($type:ty, $variant:ident) => {
        impl Real for $type {
            const DTYPE: DType = DType::$variant;
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn as_f64(self) -> f64 {
                self.into()
            }
            fn slice(storage: &CpuStorage) -> Option<&[Self]> {
                if let CpuStorage::$variant(data) = storage { Some(data) } else { None }
            }
            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                if let CpuStorage::$variant(data) = storage { Some(data) } else { None }
            }
            fn tensor(data: Vec<Self>, shape: &[usize]) -> Result<Tensor> {
                Ok(Tensor::from_vec(data, shape, &Device::Cpu)?)
            }
            fn to_vec(x: &Tensor) -> Result<Vec<Self>> {
                Ok(x.to_dtype(Self::DTYPE)?.flatten_all()?.to_vec1()?)
            }
            fn fft_planner() -> &'static Mutex<FftPlanner<Self>> {
                static PLANNER: LazyLock<Mutex<FftPlanner<$type>>> =
                    LazyLock::new(|| Mutex::new(FftPlanner::new()));
                &PLANNER
            }
        }
    };
}

real!(f32, F32);
real!(f64, F64);

/// Views interleaved `[re, im]` pairs as complex numbers, without a copy.
///
/// # Panics
/// If the length is odd.
pub fn as_complex<T: Real>(values: &[T]) -> &[Complex<T>] {
    assert!(values.len().is_multiple_of(2), "interleaved complex data has even length");
    // SAFETY: `Complex<T>` is `repr(C)` with two `T`s, so it has T's alignment and twice its size.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len() / 2) }
}

/// Views interleaved `[re, im]` pairs as complex numbers, for writing, without a copy.
///
/// # Panics
/// If the length is odd.
pub fn as_complex_mut<T: Real>(values: &mut [T]) -> &mut [Complex<T>] {
    assert!(values.len().is_multiple_of(2), "interleaved complex data has even length");
    // SAFETY: as in `as_complex`; the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len() / 2) }
}
