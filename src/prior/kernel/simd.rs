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
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// self · a + b.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    /// 2ⁿ, where the low bits of the number hold n (as after adding 1.5 · 2²³ to n).
    unsafe fn power_of_low_bits(self) -> Self;

    /// eˣ to 2 units in the last place; e^−87 below −87, e^88 above 88.
    ///
    /// # Safety
    /// As the other methods.
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // SAFETY: the caller runs with the type's instructions.
        unsafe {
            let round = Self::splat(12_582_912.0); // 1.5 · 2²³: adding it rounds to an integer in the low bits
            let x = self.max(Self::splat(-87.0)).min(Self::splat(88.0));
            let shifted = x.fma(Self::splat(std::f32::consts::LOG2_E), round);
            let n = shifted.sub(round);
            let r = n.fma(Self::splat(-0.693_359_4), x);
            let r = n.fma(Self::splat(2.121_944_4e-4), r);
            let mut p = Self::splat(1.987_569_2e-4);
            for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5, 1.0, 1.0] {
                p = p.fma(r, Self::splat(coefficient));
            }
            p.mul(shifted.power_of_low_bits())
        }
    }
}

/// A computation generic over the instruction set.
pub(super) trait Vectorised {
    type Output;
    /// # Safety
    /// As [`Lanes`]; implementations must be `inline(always)`.
    unsafe fn run<V: Lanes>(self) -> Self::Output;
}

/// eˣ of one number, as [`Lanes::exp`], in a form that the compiler vectorises.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer in the low bits
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_2e-4 * r + 1.398_199_9e-3;
    let p = (p * r + 8.333_452e-3) * r + 4.166_579_6e-2;
    let p = (p * r + 0.166_666_66) * r + 0.5;
    let p = p * r * r + r + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
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
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, f32::max)
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, f32::min)
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        self.zip(a, |x, y| x * y).zip(b, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn power_of_low_bits(self) -> Self {
        Self(self.0.map(|x| f32::from_bits((x.to_bits() << 23).wrapping_add(0x3f80_0000))))
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
        ($rows:literal, $vectors:literal, $step:literal, [$($i:tt)*], $load:ident, $store:ident, $set:ident, $fma:ident,
         $($name:ident $binary:ident),*) => {
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
            unsafe fn fma(self, a: Self, b: Self) -> Self {
                // SAFETY: as the trait states.
                unsafe { Self($($fma(self.$i, a.$i, b.$i)),*) }
            }
            methods!(@binary [$($i)*], $($name $binary),*);
        };
        (@binary $lanes:tt, $($name:ident $binary:ident),*) => { $(methods!(@one $lanes, $name, $binary);)* };
        (@one [$($i:tt)*], $name:ident, $binary:ident) => {
            #[inline(always)]
            unsafe fn $name(self, other: Self) -> Self {
                // SAFETY: as the trait states.
                unsafe { Self($($binary(self.$i, other.$i)),*) }
            }
        };
    }

    impl Lanes for Wide {
        methods!(
            12, 2, 16, [0], _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps,
            add _mm512_add_ps, sub _mm512_sub_ps, mul _mm512_mul_ps, div _mm512_div_ps, max _mm512_max_ps, min _mm512_min_ps
        );
        #[inline(always)]
        unsafe fn power_of_low_bits(self) -> Self {
            // SAFETY: as the trait states.
            unsafe {
                let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
                Self(_mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(0x3f80_0000))))
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Pair(__m256, __m256);

    impl Lanes for Pair {
        methods!(
            6, 1, 8, [0 1], _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps,
            add _mm256_add_ps, sub _mm256_sub_ps, mul _mm256_mul_ps, div _mm256_div_ps, max _mm256_max_ps, min _mm256_min_ps
        );
        #[inline(always)]
        unsafe fn power_of_low_bits(self) -> Self {
            // SAFETY: as the trait states.
            let half = |x: __m256| unsafe {
                let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(x));
                _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f80_0000)))
            };
            Self(half(self.0), half(self.1))
        }
    }
}
