//! Where the memory of large arrays comes from, and where it goes.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

/// Zeros. Large arrays ask for large pages where the system leaves these to programs that do (transparent huge pages of
/// Linux on `madvise`): the first touch of 2 MiB then costs one fault rather than 512. Memory that was in use before is
/// cleared by all threads.
pub(crate) fn zeros<T: Copy + Default + Send>(count: usize) -> Vec<T> {
    let bytes = count * size_of::<T>();
    if !KEPT.load(Ordering::Relaxed) || !(SHARED..LARGEST_KEPT).contains(&bytes) {
        let array = vec![T::default(); count];
        system::advise_large_pages(array.as_ptr_range());
        return array;
    }
    let mut array = Vec::with_capacity(count);
    let clear = |part: &mut [MaybeUninit<T>]| part.fill(MaybeUninit::new(T::default()));
    let unset = &mut array.spare_capacity_mut()[..count];
    system::advise_large_pages(unset.as_ptr_range());
    unset.par_chunks_mut(SHARED / size_of::<T>()).for_each(clear);
    // SAFETY: so many elements have just been written.
    unsafe { array.set_len(count) };
    array
}

/// Whether freed memory is kept.
static KEPT: AtomicBool = AtomicBool::new(false);

/// Bytes that a thread clears at a time.
const SHARED: usize = 1 << 18;

/// Bytes from which on arrays live outside of the heap where freed memory is kept, the most that glibc allows.
const LARGEST_KEPT: usize = 32 << 20;

/// From here on memory that is freed stays with the process, for the next array: a choice for the whole of a program
/// that makes and drops the same large arrays again and again, as gradients of networks do. Without effect where the
/// allocator isn't glibc's.
///
/// ```
/// wellposed::tensor::memory::keep_freed();
/// ```
pub fn keep_freed() {
    KEPT.store(true, Ordering::Relaxed);
    system::set_thresholds(i32::MAX, LARGEST_KEPT as i32);
}

/// From here on large arrays that are freed go back to the system at once: glibc keeps what is smaller than a threshold,
/// which it raises to the size of whatever was freed, so that a program which reads a volume in parts takes up to twice
/// what it holds. Without effect where the allocator isn't glibc's.
///
/// ```
/// wellposed::tensor::memory::return_freed();
/// ```
pub fn return_freed() {
    KEPT.store(false, Ordering::Relaxed);
    system::set_thresholds(128 << 10, 1 << 20);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod system {
    use std::ffi::{c_int, c_void};
    use std::ops::Range;

    const PAGE: usize = 4096;
    const LARGE_PAGE: usize = 2 << 20;

    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
        fn madvise(start: *mut c_void, length: usize, advice: c_int) -> c_int;
    }

    /// Free bytes on top of the heap that go back to the system, and bytes of arrays that live outside of it.
    pub fn set_thresholds(trim: i32, map: i32) {
        const TRIM_THRESHOLD: c_int = -1;
        const MMAP_THRESHOLD: c_int = -3;
        for (parameter, value) in [(TRIM_THRESHOLD, trim), (MMAP_THRESHOLD, map)] {
            // SAFETY: it takes two numbers and changes nothing but a setting of the allocator.
            unsafe { mallopt(parameter, value) };
        }
    }

    pub fn advise_large_pages<T>(array: Range<*const T>) {
        const HUGEPAGE: c_int = 14;
        let start = (array.start as usize).next_multiple_of(PAGE);
        let length = (array.end as usize / PAGE * PAGE).saturating_sub(start);
        if length >= 2 * LARGE_PAGE {
            // SAFETY: whole pages within a live array; the advice alters no contents, and may be refused.
            unsafe { madvise(start as *mut c_void, length, HUGEPAGE) };
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod system {
    pub fn set_thresholds(_: i32, _: i32) {}
    pub fn advise_large_pages<T>(_: std::ops::Range<*const T>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_any_size() {
        let all_zero = |count| assert!(zeros::<f32>(count) == vec![0.0; count]);
        let counts = [0, 1, 1000, (1 << 20) + 3, 9 << 20];
        counts.into_iter().for_each(all_zero);
        // Memory that was in use before is cleared too.
        keep_freed();
        counts.into_iter().for_each(all_zero);
        (0..3).for_each(|i| {
            let mut array = zeros::<f64>(2 << 20);
            assert!(array.iter().all(|v| *v == 0.0));
            array.fill(f64::from(i) + 1.0);
        });
    }
}
