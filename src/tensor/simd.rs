//! Vector registers behind one small trait: an inner loop is written once, as a [`Task`], and
//! [`dispatch`] runs it with AVX-512, with AVX2 and FMA, or portably, as the processor allows.
//!
//! The instruction set changes the rounding of the last bit (fused multiply-add), nothing else.

use crate::tensor::Real;

/// A register of [`Lanes::COUNT`] scalars.
///
/// # Safety
/// Every function may be called only where the register's instruction set is available, that is inside
/// [`Task::run`]; `load`, `store` and `pairs` access memory as their names say.
#[allow(clippy::missing_safety_doc, reason = "said once, for the whole trait")]
pub trait Lanes {
    /// The element type.
    type Scalar: Real;
    /// The register.
    type Register: Copy;
    /// Scalars in a register.
    const COUNT: usize;

    /// All lanes equal to `x`.
    unsafe fn splat(x: Self::Scalar) -> Self::Register;
    /// `COUNT` scalars from memory, unaligned.
    unsafe fn load(from: *const Self::Scalar) -> Self::Register;
    /// `COUNT` scalars to memory, unaligned.
    unsafe fn store(to: *mut Self::Scalar, x: Self::Register);
    /// a + b.
    unsafe fn add(a: Self::Register, b: Self::Register) -> Self::Register;
    /// a − b.
    unsafe fn sub(a: Self::Register, b: Self::Register) -> Self::Register;
    /// a · b.
    unsafe fn mul(a: Self::Register, b: Self::Register) -> Self::Register;
    /// a · b + c.
    unsafe fn mul_add(a: Self::Register, b: Self::Register, c: Self::Register) -> Self::Register;
    /// max(a, b).
    unsafe fn max(a: Self::Register, b: Self::Register) -> Self::Register;
    /// The largest whole numbers not above a.
    unsafe fn floor(a: Self::Register) -> Self::Register;
    /// Whole numbers from −2³¹ to 2³¹ − 1 as integers, then zeros.
    unsafe fn whole(a: Self::Register) -> [i32; 16];
    /// `from[i]` and `from[i + 1]` for whole numbers 0 ≤ i ≤ 2·COUNT − 2. Reads 2·COUNT scalars: neighbouring
    /// lanes that want neighbouring elements cost two loads and a shuffle, not a gather.
    unsafe fn pairs(from: *const Self::Scalar, i: Self::Register) -> (Self::Register, Self::Register);
}

/// The registers of an element type on each instruction set.
pub trait Registers: Sized {
    /// 512-bit registers.
    type Avx512: Lanes<Scalar = Self>;
    /// 256-bit registers.
    type Avx2: Lanes<Scalar = Self>;
}

/// An inner loop over registers. Mark `run` `#[inline(always)]`: it takes its instruction set from where it is
/// inlined.
pub trait Task<T: Real> {
    /// What it computes besides what it writes.
    type Output;
    /// The loop.
    ///
    /// # Safety
    /// The instruction set of `L` must be available.
    unsafe fn run<L: Lanes<Scalar = T>>(self) -> Self::Output;
}

/// Runs `task` with the widest registers of this processor.
#[inline]
pub fn dispatch<T: Real, K: Task<T>>(task: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
            // SAFETY: just detected.
            return unsafe { x86::with_avx512(task) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: just detected.
            return unsafe { x86::with_avx2(task) };
        }
    }
    // SAFETY: needs no special instructions.
    unsafe { task.run::<Portable<T>>() }
}

/// Eight lanes in plain Rust, for processors without the instruction sets above.
pub struct Portable<T>(std::marker::PhantomData<T>);

impl<T: Real> Lanes for Portable<T> {
    type Scalar = T;
    type Register = [T; 8];
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: T) -> [T; 8] {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(from: *const T) -> [T; 8] {
        // SAFETY: the caller's.
        unsafe { from.cast::<[T; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut T, x: [T; 8]) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[T; 8]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: [T; 8], b: [T; 8]) -> [T; 8] {
        std::array::from_fn(|l| a[l] + b[l])
    }
    #[inline(always)]
    unsafe fn sub(a: [T; 8], b: [T; 8]) -> [T; 8] {
        std::array::from_fn(|l| a[l] - b[l])
    }
    #[inline(always)]
    unsafe fn mul(a: [T; 8], b: [T; 8]) -> [T; 8] {
        std::array::from_fn(|l| a[l] * b[l])
    }
    #[inline(always)]
    unsafe fn mul_add(a: [T; 8], b: [T; 8], c: [T; 8]) -> [T; 8] {
        std::array::from_fn(|l| a[l] * b[l] + c[l])
    }
    #[inline(always)]
    unsafe fn max(a: [T; 8], b: [T; 8]) -> [T; 8] {
        std::array::from_fn(|l| if a[l] > b[l] { a[l] } else { b[l] })
    }
    #[inline(always)]
    unsafe fn floor(a: [T; 8]) -> [T; 8] {
        a.map(T::floor)
    }
    #[inline(always)]
    unsafe fn whole(a: [T; 8]) -> [i32; 16] {
        std::array::from_fn(|l| a.get(l).map_or(0, |x| x.as_f64() as i32))
    }
    #[inline(always)]
    unsafe fn pairs(from: *const T, i: [T; 8]) -> ([T; 8], [T; 8]) {
        // SAFETY: the caller's: every index is below 2·COUNT − 1.
        let at = |i: T, k: usize| unsafe { *from.add(i.as_f64() as usize + k) };
        (i.map(|i| at(i, 0)), i.map(|i| at(i, 1)))
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl<T: Real> Registers for T {
    type Avx512 = Portable<T>;
    type Avx2 = Portable<T>;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Lanes, Real, Registers, Task};

    #[target_feature(enable = "avx512f,avx512dq,avx2,fma,bmi1,bmi2")]
    pub(super) unsafe fn with_avx512<T: Real, K: Task<T>>(task: K) -> K::Output {
        // SAFETY: the caller's.
        unsafe { task.run::<T::Avx512>() }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn with_avx2<T: Real, K: Task<T>>(task: K) -> K::Output {
        // SAFETY: the caller's.
        unsafe { task.run::<T::Avx2>() }
    }

    pub struct Avx512F32;
    pub struct Avx512F64;
    pub struct Avx2F32;
    pub struct Avx2F64;

    impl Registers for f32 {
        type Avx512 = Avx512F32;
        type Avx2 = Avx2F32;
    }
    impl Registers for f64 {
        type Avx512 = Avx512F64;
        type Avx2 = Avx2F64;
    }

    macro_rules! lanes {
        ($name:ty, $scalar:ty, $register:ty, $count:literal,
         $splat:ident $load:ident $store:ident $add:ident $sub:ident $mul:ident $fma:ident $max:ident,
         |$x:ident| $floor:expr, |$w:ident, $to:ident| $whole:expr, |$from:ident, $i:ident| $pairs:expr) => {
            // SAFETY of all: available by the contract of the trait.
            impl Lanes for $name {
                type Scalar = $scalar;
                type Register = $register;
                const COUNT: usize = $count;
                #[inline(always)]
                unsafe fn splat(x: $scalar) -> $register {
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(from: *const $scalar) -> $register {
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(to: *mut $scalar, x: $register) {
                    unsafe { $store(to, x) }
                }
                #[inline(always)]
                unsafe fn add(a: $register, b: $register) -> $register {
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                unsafe fn sub(a: $register, b: $register) -> $register {
                    unsafe { $sub(a, b) }
                }
                #[inline(always)]
                unsafe fn mul(a: $register, b: $register) -> $register {
                    unsafe { $mul(a, b) }
                }
                #[inline(always)]
                unsafe fn mul_add(a: $register, b: $register, c: $register) -> $register {
                    unsafe { $fma(a, b, c) }
                }
                #[inline(always)]
                unsafe fn max(a: $register, b: $register) -> $register {
                    unsafe { $max(a, b) }
                }
                #[inline(always)]
                unsafe fn floor($x: $register) -> $register {
                    unsafe { $floor }
                }
                #[inline(always)]
                unsafe fn whole($w: $register) -> [i32; 16] {
                    let mut out = [0i32; 16];
                    let $to = out.as_mut_ptr();
                    unsafe { $whole };
                    out
                }
                #[inline(always)]
                unsafe fn pairs($from: *const $scalar, $i: $register) -> ($register, $register) {
                    unsafe { $pairs }
                }
            }
        };
    }

    const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;

    lanes!(Avx512F32, f32, __m512, 16,
    _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_add_ps _mm512_sub_ps _mm512_mul_ps
    _mm512_fmadd_ps _mm512_max_ps,
    |x| _mm512_roundscale_ps::<DOWN>(x),
    |x, to| _mm512_storeu_si512(to.cast(), _mm512_cvttps_epi32(x)),
    |from, i| {
        let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
        let i = _mm512_cvttps_epi32(i);
        let next = _mm512_add_epi32(i, _mm512_set1_epi32(1));
        (_mm512_permutex2var_ps(low, i, high), _mm512_permutex2var_ps(low, next, high))
    });

    lanes!(Avx512F64, f64, __m512d, 8,
    _mm512_set1_pd _mm512_loadu_pd _mm512_storeu_pd _mm512_add_pd _mm512_sub_pd _mm512_mul_pd
    _mm512_fmadd_pd _mm512_max_pd,
    |x| _mm512_roundscale_pd::<DOWN>(x),
    |x, to| _mm256_storeu_si256(to.cast(), _mm512_cvttpd_epi32(x)),
    |from, i| {
        let (low, high) = (_mm512_loadu_pd(from), _mm512_loadu_pd(from.add(8)));
        let i = _mm512_cvttpd_epi64(i);
        let next = _mm512_add_epi64(i, _mm512_set1_epi64(1));
        (_mm512_permutex2var_pd(low, i, high), _mm512_permutex2var_pd(low, next, high))
    });

    lanes!(Avx2F32, f32, __m256, 8,
    _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_add_ps _mm256_sub_ps _mm256_mul_ps
    _mm256_fmadd_ps _mm256_max_ps,
    |x| _mm256_floor_ps(x),
    |x, to| _mm256_storeu_si256(to.cast(), _mm256_cvttps_epi32(x)),
    |from, i| {
        let (low, high) = (_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)));
        let i = _mm256_cvttps_epi32(i);
        let next = _mm256_add_epi32(i, _mm256_set1_epi32(1));
        (pick(low, high, i), pick(low, high, next))
    });

    /// Element i of the sixteen in (low, high), lane by lane.
    #[inline(always)]
    unsafe fn pick(low: __m256, high: __m256, i: __m256i) -> __m256 {
        // SAFETY: the caller has AVX2. Bit 3 of the index chooses the half; shifted to the sign, it blends.
        unsafe {
            let half = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(i));
            _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, i), _mm256_permutevar8x32_ps(high, i), half)
        }
    }

    // Four lanes of doubles have no two-source shuffle in AVX2; the gather costs less than emulating one.
    lanes!(Avx2F64, f64, __m256d, 4,
    _mm256_set1_pd _mm256_loadu_pd _mm256_storeu_pd _mm256_add_pd _mm256_sub_pd _mm256_mul_pd
    _mm256_fmadd_pd _mm256_max_pd,
    |x| _mm256_floor_pd(x),
    |x, to| _mm_storeu_si128(to.cast(), _mm256_cvttpd_epi32(x)),
    |from, i| {
        let i = _mm256_cvttpd_epi32(i);
        (_mm256_i32gather_pd::<8>(from, i), _mm256_i32gather_pd::<8>(from.add(1), i))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x[2l] + ⌊x[2l+1]⌋ · max(x[l], 3) through every operation of the trait.
    struct Mixed<'a, T>(&'a [T]);

    impl<T: Real> Task<T> for Mixed<'_, T> {
        type Output = Vec<T>;
        #[inline(always)]
        unsafe fn run<L: Lanes<Scalar = T>>(self) -> Vec<T> {
            let index: Vec<T> = (0..L::COUNT).map(|l| T::of(((l * 7) % (2 * L::COUNT - 1)) as f64)).collect();
            let mut out = vec![T::zero(); L::COUNT];
            // SAFETY: `self.0` holds 32 values, twice the widest register.
            unsafe {
                let x = self.0.as_ptr();
                let (a, b) = L::pairs(x, L::load(index.as_ptr()));
                let three = L::splat(T::of(3.0));
                let big = L::max(L::load(x), three);
                let whole = L::floor(L::sub(b, L::mul(three, three)));
                let integers = L::whole(whole).map(|i| T::of(f64::from(i)));
                let whole = L::load(integers.as_ptr());
                L::store(out.as_mut_ptr(), L::add(L::mul_add(whole, big, a), three));
            }
            out
        }
    }

    fn expected<T: Real>(x: &[T], count: usize) -> Vec<T> {
        let three = T::of(3.0);
        (0..count)
            .map(|l| {
                let i = (l * 7) % (2 * count - 1);
                (x[i + 1] - three * three).floor() * x[l].max(three) + x[i] + three
            })
            .collect()
    }

    fn every_level<T: Real>() {
        let x: Vec<T> = (0..32).map(|i| T::of(f64::from((i * 37) % 23) * 0.25)).collect();
        // SAFETY: portable.
        let portable = unsafe { Mixed(&x).run::<Portable<T>>() };
        assert!(portable == expected(&x, portable.len()));
        let widest = dispatch(Mixed(&x));
        assert!(widest == expected(&x, widest.len()));
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: just detected.
            let middle = unsafe { x86::with_avx2(Mixed(&x)) };
            assert!(middle == expected(&x, middle.len()));
        }
    }

    #[test]
    fn all_instruction_sets_agree() {
        every_level::<f32>();
        every_level::<f64>();
    }
}
