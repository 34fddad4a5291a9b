//! Kernels over slices, and the one place that opens tensor storage and runs them.

use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Storage, Tensor};

use crate::error::{Error, Result};
use crate::tensor::device::Gpu;
use crate::tensor::{Buffer, Real};

/// A computation over contiguous slices, written once for `f32` and `f64`.
///
/// `run` gets every input and every output as a flat slice in row-major order. It must give the same
/// result for any number of threads: split work into chunks of fixed size, and add partial sums in order.
pub trait Kernel {
    /// What the computation returns besides what it writes (a norm, say).
    type Output;
    /// The computation.
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<Self::Output>;
    /// The same computation on a device, for kernels and arguments that have such a version. The others are staged.
    fn on_device(&self, _: &Gpu) -> Option<Result<Self::Output>> {
        None
    }
}

/// Runs a kernel on tensors. All must have one element type, `f32` or `f64`.
///
/// Arrays on a CUDA device stay there where the kernel has a version for it ([`Kernel::on_device`]); otherwise they are
/// staged through the host, and [`staged_bytes`] counts what that moved.
///
/// # Errors
/// [`Error::DType`] where the element types differ; what the kernel returns.
pub fn launch<K: Kernel>(kernel: K, inputs: &[&Tensor], outputs: &mut [&mut Buffer]) -> Result<K::Output> {
    let first = inputs.first().copied().or(outputs.first().map(|b| b.tensor()));
    let Some(first) = first else { return kernel.run::<f32>(&[], &mut []) };
    let dtype = first.dtype();
    let tensors = inputs.iter().copied().chain(outputs.iter().map(|b| b.tensor()));
    for x in tensors {
        if x.dtype() != dtype {
            return Err(Error::DType {
                name: "kernel argument".into(),
                expected: dtype.as_str().into(),
                found: x.dtype().as_str().into(),
            });
        }
    }
    let on_host =
        inputs.iter().all(|x| x.device().is_cpu()) && outputs.iter().all(|b| b.tensor().device().is_cpu());
    if !on_host {
        #[cfg(feature = "cuda")]
        if let Some(answer) = crate::tensor::device::cuda::run(&kernel, inputs, outputs) {
            return answer;
        }
        return staged(kernel, inputs, outputs);
    }
    match dtype {
        DType::F32 => on_cpu::<f32, K>(kernel, inputs, outputs),
        DType::F64 => on_cpu::<f64, K>(kernel, inputs, outputs),
        other => Err(Error::DType {
            name: "kernel argument".into(),
            expected: "f32 or f64".into(),
            found: other.as_str().into(),
        }),
    }
}

static STAGED: AtomicU64 = AtomicU64::new(0);

/// Bytes that kernels without a device version have moved between host and device so far in this process.
pub fn staged_bytes() -> u64 {
    STAGED.load(Ordering::Relaxed)
}

fn staged<K: Kernel>(kernel: K, inputs: &[&Tensor], outputs: &mut [&mut Buffer]) -> Result<K::Output> {
    let host = inputs.iter().map(|x| x.to_device(&Device::Cpu)).collect::<candle_core::Result<Vec<_>>>()?;
    let mut results = Vec::with_capacity(outputs.len());
    for output in outputs.iter() {
        results.push(Buffer::copy_of(&output.tensor().to_device(&Device::Cpu)?)?);
    }
    let answer =
        launch(kernel, &host.iter().collect::<Vec<_>>(), &mut results.iter_mut().collect::<Vec<_>>())?;
    let bytes = |x: &Tensor| (x.elem_count() * x.dtype().size_in_bytes()) as u64;
    let mut moved: u64 = inputs.iter().map(|x| bytes(x)).sum();
    for (output, result) in outputs.iter_mut().zip(results) {
        moved += 2 * bytes(result.tensor());
        let device = output.tensor().device().clone();
        output.replace(result.freeze().to_device(&device)?);
    }
    STAGED.fetch_add(moved, Ordering::Relaxed);
    Ok(answer)
}

fn on_cpu<T: Real, K: Kernel>(
    kernel: K,
    inputs: &[&Tensor],
    outputs: &mut [&mut Buffer],
) -> Result<K::Output> {
    let contiguous = inputs.iter().map(|x| x.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    let guards: Vec<_> = contiguous.iter().map(|x| x.storage_and_layout()).collect();
    let mut slices = Vec::with_capacity(guards.len());
    for (storage, layout) in &guards {
        let Storage::Cpu(data) = &**storage else { unreachable!("checked by launch") };
        let start = layout.start_offset();
        let Some(elements) = T::slice(data) else { unreachable!("checked by launch") };
        slices.push(&elements[start..start + layout.shape().elem_count()]);
    }
    let mut call = |written: &mut [&mut [T]], kernel: K| {
        #[cfg(all(test, unix))]
        if let Some(answer) = crate::tensor::device::emulator::run(&kernel, &slices, written) {
            return answer;
        }
        kernel.run(&slices, written)
    };
    nest(outputs, Vec::with_capacity(outputs.len()), kernel, &mut call)?
}

/// Opens the outputs one inside the other, so that all of them stay locked while the kernel runs.
fn nest<T: Real, K, R>(
    rest: &mut [&mut Buffer],
    mut open: Vec<&mut [T]>,
    kernel: K,
    call: &mut dyn FnMut(&mut [&mut [T]], K) -> R,
) -> Result<R> {
    match rest.split_first_mut() {
        None => Ok(call(&mut open, kernel)),
        Some((next, rest)) => next.with_slice(move |slice: &mut [T]| {
            let mut open: Vec<&mut [T]> = open;
            open.push(slice);
            nest(rest, open, kernel, call)
        })?,
    }
}
