//! How the convolutions of networks round.

use std::sync::atomic::{AtomicU8, Ordering};

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::tensor::Real;

/// The numbers that convolutions multiply; sums are kept in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 24 bits of significand: no rounding beyond that of f32.
    #[default]
    F32,
    /// 11 bits, NVIDIA's TensorFloat-32. On a device all other matrix products of f32 round alike.
    Tf32,
    /// 8 bits, bfloat16; results round too.
    Bf16,
}

const ALL: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// Rounds the convolutions of all networks in this process from now on, [`Precision::F32`] if this is never called.
///
/// A GPU's matrix units multiply in TF32 and bf16 several times as fast as in f32. On the processor nothing gets faster:
/// arguments and weights are rounded and then multiplied as ever, which shows what a GPU's results would lack.
///
/// ```
/// use wellposed::prior::{Precision, precision, set_precision};
/// set_precision(Precision::F32);
/// assert_eq!(precision(), Precision::F32);
/// ```
pub fn set_precision(precision: Precision) {
    candle_core::cuda::set_gemm_reduced_precision_f32(precision == Precision::Tf32);
    CHOSEN.store(precision as u8, Ordering::Relaxed);
}

/// The precision that [`set_precision`] chose.
pub fn precision() -> Precision {
    ALL[usize::from(CHOSEN.load(Ordering::Relaxed))]
}

impl Precision {
    /// The factor of a product: in a narrower type where the device multiplies such, else rounded in f32.
    pub(super) fn factor(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::F32 => Ok(x.clone()),
            Self::Bf16 if !x.device().is_cpu() => Ok(x.to_dtype(DType::BF16)?),
            Self::Bf16 => Ok(x.to_dtype(DType::BF16)?.to_dtype(DType::F32)?),
            Self::Tf32 if !x.device().is_cpu() => Ok(x.clone()),
            Self::Tf32 => {
                // To the nearest of 10 stored bits of 23.
                let round = |v: f32| f32::from_bits((v.to_bits() + 0x1000) & !0x1fff);
                let rounded = f32::tensor(f32::to_vec(x)?.into_iter().map(round).collect(), x.dims())?;
                // What rounding changes is a constant to gradients.
                Ok((x + (rounded - x.detach())?)?)
            }
        }
    }

    /// The f32 result of a product of two [`Precision::factor`]s.
    pub(super) fn product(self, y: Tensor) -> Result<Tensor> {
        match self {
            Self::Bf16 => Ok(y.to_dtype(DType::BF16)?.to_dtype(DType::F32)?),
            _ => Ok(y),
        }
    }
}
