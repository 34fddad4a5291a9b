//! Sixteen f32 lanes on whatever the processor has, chosen at run time.
//!
//! The kernels are written once, generic over [`Lanes`]; [`dispatch`] compiles them for AVX-512, for AVX2
//! with FMA, and portably. Everything between `dispatch` and the intrinsics must be `inline(always)`, so that
//! it is compiled with the processor's instructions.

/// A vector of 16 f32 numbers.
///
/// # Safety
/// The methods may only run on a processor that has the type's instructions, which [`dispatch`] sees to;
/// pointers must be valid for 16 elements.
pub(super) trait Lanes: Copy {
    /// Rows and vectors of the register tile of the matrix product.
    const ROWS: usize;
    const VECTORS: usize;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn splat(value: f32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// self · a + b.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
}

/// A computation generic over the instruction set.
pub(super) trait Vectorised {
    type Output;
    /// # Safety
    /// As [`Lanes`]; implementations must be `inline(always)`.
    unsafe fn run<V: Lanes>(self) -> Self::Output;
}

/// Runs a computation with the best instructions that the processor has.
#[inline]
pub(super) fn dispatch<K: Vectorised>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vl") {
            // SAFETY: the processor has the instructions.
            return unsafe { x86::avx512(kernel) };
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instructions.
            return unsafe { x86::avx2(kernel) };
        }
    }
    // SAFETY: plain Rust.
    unsafe { kernel.run::<Portable>() }
}

/// One function for each instruction set that this processor has.
#[cfg(test)]
pub(super) fn every_instruction_set<K: Vectorised>() -> Vec<fn(K) -> K::Output> {
    // SAFETY: plain Rust.
    let mut all: Vec<fn(K) -> K::Output> = vec![|k| unsafe { k.run::<Portable>() }];
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vl") {
            // SAFETY: the processor has the instructions.
            all.push(|k| unsafe { x86::avx512(k) });
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instructions.
            all.push(|k| unsafe { x86::avx2(k) });
        }
    }
    all
}

/// Sixteen numbers in an array, for processors without wider instructions.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 16]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Portable {
    const ROWS: usize = 4;
    const VECTORS: usize = 1;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for 16 elements.
        Self(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 16])
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        self.zip(a, |x, y| x * y).zip(b, |x, y| x + y)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Lanes, Vectorised};

    /// # Safety
    /// The processor must have AVX-512 F and VL.
    #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
    pub(super) unsafe fn avx512<K: Vectorised>(kernel: K) -> K::Output {
        // SAFETY: the instructions are there.
        unsafe { kernel.run::<Wide>() }
    }

    /// # Safety
    /// The processor must have AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<K: Vectorised>(kernel: K) -> K::Output {
        // SAFETY: the instructions are there.
        unsafe { kernel.run::<Pair>() }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Wide(__m512);

    /// Implements the methods by intrinsics on each register of the vector.
    macro_rules! methods {
        ($rows:literal, $vectors:literal, $step:literal, [$($i:tt)*], $load:ident, $store:ident, $set:ident, $add:ident, $sub:ident, $mul:ident, $fma:ident) => {
            const ROWS: usize = $rows;
            const VECTORS: usize = $vectors;
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: as the trait states.
                unsafe { Self($($load(from.add($i * $step))),*) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: as the trait states.
                unsafe { $($store(to.add($i * $step), self.$i);)* }
            }
            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                // SAFETY: as the trait states.
                unsafe { Self($({ let _ = $i; $set(value) }),*) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: as the trait states.
                unsafe { Self($($add(self.$i, other.$i)),*) }
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                // SAFETY: as the trait states.
                unsafe { Self($($sub(self.$i, other.$i)),*) }
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                // SAFETY: as the trait states.
                unsafe { Self($($mul(self.$i, other.$i)),*) }
            }
            #[inline(always)]
            unsafe fn fma(self, a: Self, b: Self) -> Self {
                // SAFETY: as the trait states.
                unsafe { Self($($fma(self.$i, a.$i, b.$i)),*) }
            }
        };
    }

    impl Lanes for Wide {
        methods!(
            12,
            2,
            16,
            [0],
            _mm512_loadu_ps,
            _mm512_storeu_ps,
            _mm512_set1_ps,
            _mm512_add_ps,
            _mm512_sub_ps,
            _mm512_mul_ps,
            _mm512_fmadd_ps
        );
    }

    #[derive(Clone, Copy)]
    pub(super) struct Pair(__m256, __m256);

    impl Lanes for Pair {
        methods!(6, 1, 8, [0 1], _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps, _mm256_fmadd_ps);
    }
}
