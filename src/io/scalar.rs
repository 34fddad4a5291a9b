//! Numbers as files store them.

use crate::tensor::Real;

/// A type of number in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

/// The order of a number's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endian {
    Little,
    Big,
}

impl Scalar {
    /// Bytes of one number.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// An integer type by its size in bytes.
    pub(crate) fn integer(size: usize, signed: bool) -> Option<Self> {
        Some(match (size, signed) {
            (1, false) => Self::U8,
            (1, true) => Self::I8,
            (2, false) => Self::U16,
            (2, true) => Self::I16,
            (4, false) => Self::U32,
            (4, true) => Self::I32,
            (8, false) => Self::U64,
            (8, true) => Self::I64,
            _ => return None,
        })
    }

    /// A floating-point type by its size in bytes.
    pub(crate) fn float(size: usize) -> Option<Self> {
        [Self::F16, Self::F32, Self::F64].into_iter().find(|s| s.size() == size)
    }

    /// Whether f32 holds every value exactly.
    pub(crate) fn fits_f32(self) -> bool {
        !matches!(self, Self::U32 | Self::I32 | Self::U64 | Self::I64 | Self::F64)
    }

    /// Decodes as many whole numbers as `bytes` holds, each to the nearest `T`.
    pub(crate) fn decode<T: Real>(self, bytes: &[u8], endian: Endian) -> Vec<T> {
        macro_rules! as_type {
            ($type:ty, $convert:expr) => {{
                const N: usize = size_of::<$type>();
                let words = bytes.as_chunks::<N>().0.iter();
                match endian {
                    Endian::Little => words.map(|w| $convert(<$type>::from_le_bytes(*w))).collect(),
                    Endian::Big => words.map(|w| $convert(<$type>::from_be_bytes(*w))).collect(),
                }
            }};
        }
        match self {
            Self::U8 => as_type!(u8, |v| T::of(f64::from(v))),
            Self::I8 => as_type!(i8, |v| T::of(f64::from(v))),
            Self::U16 => as_type!(u16, |v| T::of(f64::from(v))),
            Self::I16 => as_type!(i16, |v| T::of(f64::from(v))),
            Self::U32 => as_type!(u32, |v| T::of(f64::from(v))),
            Self::I32 => as_type!(i32, |v| T::of(f64::from(v))),
            Self::U64 => as_type!(u64, |v| T::of(v as f64)),
            Self::I64 => as_type!(i64, |v| T::of(v as f64)),
            Self::F16 => as_type!(u16, |v| T::of(f64::from(half::f16::from_bits(v)))),
            Self::F32 => as_type!(f32, |v| T::of(f64::from(v))),
            Self::F64 => as_type!(f64, T::of),
        }
    }
}

/// The bytes of f32 numbers, little-endian.
pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_both_byte_orders() {
        let bytes = [0x01, 0x02, 0xff, 0xfe];
        assert_eq!(Scalar::I16.decode::<f32>(&bytes, Endian::Big), [258.0, -2.0]);
        assert_eq!(Scalar::I16.decode::<f32>(&bytes, Endian::Little), [513.0, -257.0]);
        assert_eq!(Scalar::U32.decode::<f64>(&bytes, Endian::Big), [16_973_822.0]);
        assert_eq!(Scalar::F64.decode::<f64>(&(-1.5f64).to_be_bytes(), Endian::Big), [-1.5]);
        assert_eq!(Scalar::F16.decode::<f32>(&[0x00, 0x3c], Endian::Little), [1.0]);
        assert!(Scalar::U64.decode::<f32>(&bytes, Endian::Big).is_empty());
    }
}
