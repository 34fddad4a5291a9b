//! A CUDA device as a machine: NVRTC, the driver and cuFFT through cudarc, on candle's device and stream.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cufft::{CudaFft, result as cufft, sys::cufftType};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, DevicePtr, DevicePtrMut, LaunchConfig, PushKernelArg, result,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::{CpuStorage, CudaDevice, CudaStorage, DType, Device, InplaceOp1, Layout, Storage, Tensor};

use super::{Address, BLOCK, COMMON, Gpu, Machine, Memory, Program};
use crate::error::{Error, Result};
use crate::tensor::{Buffer, Kernel};

// cudarc links every library that it binds but this one.
#[link(name = "cufft")]
unsafe extern "C" {}

/// What a library of the device reports.
fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    candle_core::Error::Msg(format!("CUDA: {what}: {error}")).into()
}

/// The kernel's version for the device where it has one and all arrays lie on one CUDA device.
pub(in crate::tensor) fn run<K: Kernel>(
    kernel: &K,
    inputs: &[&Tensor],
    outputs: &mut [&mut Buffer],
) -> Option<Result<K::Output>> {
    let first = inputs.first().copied().or(outputs.first().map(|b| b.tensor()))?;
    let Device::Cuda(device) = first.device() else { return None };
    let together = |x: &Tensor| x.device().same_device(first.device());
    if !(inputs.iter().all(|x| together(x)) && outputs.iter().all(|b| together(b.tensor()))) {
        return None;
    }
    let double = match first.dtype() {
        DType::F32 => false,
        DType::F64 => true,
        _ => return None,
    };
    // Copies of what isn't contiguous must outlive the launch.
    let inputs: Vec<Tensor> = match inputs.iter().map(|x| x.contiguous()).collect() {
        Ok(inputs) => inputs,
        Err(error) => return Some(Err(candle_core::Error::into(error))),
    };
    let places = || -> Result<_> {
        let sources = inputs.iter().map(place).collect::<Result<Vec<_>>>()?;
        let targets = outputs.iter().map(|b| target(b)).collect::<Result<Vec<_>>>()?;
        Ok((sources, targets))
    };
    match places() {
        Err(error) => Some(Err(error)),
        Ok((sources, targets)) => {
            kernel.on_device(&Gpu::new(&Cuda(device.clone()), double, &sources, &targets))
        }
    }
}

/// Where the elements of a contiguous tensor lie.
fn place(x: &Tensor) -> Result<(Address, usize)> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        return Err(Error::Unsupported("an array that is not on the device".into()));
    };
    Ok((Address(start(storage)? + offset(layout, storage.dtype())), x.elem_count()))
}

fn offset(layout: &Layout, dtype: DType) -> u64 {
    (layout.start_offset() * dtype.size_in_bytes()) as u64
}

fn start(storage: &CudaStorage) -> Result<u64> {
    // Everything is launched on one stream, in order, so that the guards have nothing to wait for.
    let stream = storage.device().cuda_stream();
    Ok(match storage.dtype() {
        DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
        _ => storage.as_cuda_slice::<f64>()?.device_ptr(&stream).0,
    })
}

/// Where the elements of a buffer lie, for writing. A buffer is the sole owner of its tensor.
fn target(buffer: &Buffer) -> Result<(Address, usize)> {
    let op = Target(Mutex::new(0));
    buffer.tensor().inplace_op1(&op)?;
    let address = *op.0.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((Address(address), buffer.tensor().elem_count()))
}

struct Target(Mutex<u64>);

impl InplaceOp1 for Target {
    fn name(&self) -> &'static str {
        "address for writing"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        candle_core::bail!("expected an array on the device")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        let dtype = storage.dtype();
        let stream = storage.device().cuda_stream();
        let start = match dtype {
            DType::F32 => storage.as_cuda_slice_mut::<f32>()?.device_ptr_mut(&stream).0,
            _ => storage.as_cuda_slice_mut::<f64>()?.device_ptr_mut(&stream).0,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = start + offset(layout, dtype);
        Ok(())
    }
}

struct Cuda(CudaDevice);

/// Compiled programs by name, type and architecture.
static COMPILED: LazyLock<Mutex<HashMap<String, Arc<str>>>> = LazyLock::new(Mutex::default);

impl Cuda {
    /// The program as PTX for this device.
    fn compiled(&self, module: &str, program: &Program, double: bool) -> Result<Arc<str>> {
        let (major, minor) = self
            .0
            .cuda_stream()
            .context()
            .compute_capability()
            .map_err(|e| failed("the compute capability", e))?;
        let key = format!("{module} {major}.{minor}");
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ptx) = compiled.get(&key) {
            return Ok(ptx.clone());
        }
        let real = if double { "double" } else { "float" };
        let options = CompileOptions {
            options: vec![format!("--gpu-architecture=compute_{major}{minor}"), format!("-DREAL={real}")],
            name: Some(format!("{}.cu", program.name)),
            ..CompileOptions::default()
        };
        let ptx = compile_ptx_with_opts(format!("{COMMON}\n{}", program.source), options)
            .map_err(|e| failed(&format!("compiling {}.cu", program.name), e))?;
        let ptx: Arc<str> = ptx.to_src().into();
        compiled.insert(key, ptx.clone());
        Ok(ptx)
    }
}

impl Machine for Cuda {
    fn id(&self) -> u64 {
        self.0.cuda_stream().context().ordinal() as u64
    }

    fn launch(
        &self,
        program: &Program,
        double: bool,
        function: &str,
        blocks: usize,
        arguments: &[u64],
    ) -> Result<()> {
        let module = format!("wellposed {} {}", program.name, if double { "f64" } else { "f32" });
        let ptx = self.compiled(&module, program, double)?;
        let grid =
            u32::try_from(blocks).map_err(|_| failed(function, format!("{blocks} blocks are too many")))?;
        let found = self.0.get_or_load_custom_func(function, &module, &ptx)?;
        let mut builder = found.builder();
        for argument in arguments {
            builder.arg(argument);
        }
        let shape =
            LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (BLOCK as u32, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: every parameter of every function takes eight bytes; the tests run each function on the processor
        // with the number and order of arguments that its kernel gives.
        unsafe { builder.launch(shape) }.map_err(|e| failed(function, e))?;
        Ok(())
    }

    fn reserve(&self, bytes: usize) -> Result<Memory> {
        // SAFETY: bytes have no invalid values, and functions write before they read.
        let slice = unsafe { self.0.alloc::<u8>(bytes) }?;
        let address = slice.device_ptr(&self.0.cuda_stream()).0;
        Ok(Memory::new(address, slice))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Memory> {
        let slice = self.0.clone_htod(bytes)?;
        let address = slice.device_ptr(&self.0.cuda_stream()).0;
        Ok(Memory::new(address, slice))
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        let stream = self.0.cuda_stream();
        // SAFETY: the caller reads what it has reserved; the stream is waited for before the bytes are used.
        unsafe { result::memcpy_dtoh_async(bytes, from.0, stream.cu_stream()) }
            .map_err(|e| failed("reading a result", e))?;
        stream.synchronize().map_err(|e| failed("waiting for a result", e))
    }

    fn fourier(
        &self,
        double: bool,
        shape: &[usize],
        items: usize,
        inverse: bool,
        data: Address,
    ) -> Result<()> {
        let plan = self.plan(double, shape, items)?;
        let direction = if inverse { 1 } else { -1 };
        let handle = plan.handle();
        // SAFETY: the caller reserves shape · items complex numbers at `data`.
        let done = unsafe {
            if double {
                cufft::exec_z2z(handle, data.0 as *mut _, data.0 as *mut _, direction)
            } else {
                cufft::exec_c2c(handle, data.0 as *mut _, data.0 as *mut _, direction)
            }
        };
        done.map_err(|e| failed("cuFFT", e))
    }
}

/// Machine, element width, shape and items of a transform.
type PlanKey = (u64, bool, Vec<usize>, usize);

/// Plans hold work space on the device; the least recently made goes when there are more than this.
const PLANS: usize = 32;

static FOURIER: Mutex<Vec<(PlanKey, Arc<CudaFft>)>> = Mutex::new(Vec::new());

impl Cuda {
    fn plan(&self, double: bool, shape: &[usize], items: usize) -> Result<Arc<CudaFft>> {
        let key = (self.id(), double, shape.to_vec(), items);
        let mut plans = FOURIER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(k, _)| *k == key) {
            return Ok(plan.clone());
        }
        let int = |n: usize| i32::try_from(n).map_err(|_| failed("cuFFT", format!("a length of {n}")));
        let lengths = shape.iter().map(|n| int(*n)).collect::<Result<Vec<i32>>>()?;
        let kind = if double { cufftType::CUFFT_Z2Z } else { cufftType::CUFFT_C2C };
        let item = int(shape.iter().product())?;
        let stream = self.0.cuda_stream();
        let plan = CudaFft::plan_many(&lengths, None, 1, item, None, 1, item, kind, int(items)?, stream)
            .map_err(|e| failed("a plan of cuFFT", e))?;
        let plan = Arc::new(plan);
        if plans.len() == PLANS {
            plans.remove(0);
        }
        plans.push((key, plan.clone()));
        Ok(plan)
    }
}

/// Every device with its name, compute capability and memory.
pub(super) fn cards() -> Vec<String> {
    let count = CudaContext::device_count().unwrap_or(0);
    let describe = |ordinal: i32| {
        let card = CudaContext::new(usize::try_from(ordinal).ok()?).ok()?;
        let ((major, minor), memory) = (card.compute_capability().ok()?, card.total_mem().ok()?);
        let gib = memory as f64 / f64::from(1 << 30);
        Some(format!("cuda:{ordinal} {} ({major}.{minor}, {gib:.1} GiB)", card.name().ok()?))
    };
    (0..count).filter_map(describe).collect()
}
