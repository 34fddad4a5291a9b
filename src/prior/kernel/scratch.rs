//! Arrays that are lent and taken back, so that a network asks the system for memory once instead of in every layer.

use std::sync::{Mutex, PoisonError};

use crate::tensor::memory::zeros;

/// As many arrays as were ever lent at once, each as large as it has ever had to be.
static IDLE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Calls `f` with an array of this length, of any contents.
pub(super) fn lend<R>(length: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let lent = idle().pop();
    let mut array = lent.unwrap_or_default();
    if array.len() < length {
        // Not grown, which would copy it.
        array = zeros(length);
    }
    let result = f(&mut array[..length]);
    idle().push(array);
    result
}
