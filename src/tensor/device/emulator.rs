//! The processor as a machine for tests: programs compiled by the C++ compiler at hand, memory of the host.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use num_complex::Complex;

use super::{Address, COMMON, Gpu, Machine, Memory, Program};
use crate::error::{Error, Result};
use crate::tensor::fft::{Direction, Origin, Plan};
use crate::tensor::{Kernel, Real, as_complex_mut};

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static LAUNCHED: Cell<usize> = const { Cell::new(0) };
    static FALLEN_BACK: Cell<usize> = const { Cell::new(0) };
}

/// Runs `work` with the device's version of every kernel that has one, and returns how many functions it launched and
/// how many kernels have none; `None`, with the reason printed, where there is no C++ compiler.
pub(crate) fn emulated<R>(work: impl FnOnce() -> R) -> Option<(R, usize, usize)> {
    if COMPILER.is_none() {
        println!(
            "skipped: no C++ compiler (CXX, g++ or clang++) to run functions for a GPU on the processor"
        );
        return None;
    }
    let _reset = Reset;
    ACTIVE.set(true);
    LAUNCHED.set(0);
    FALLEN_BACK.set(0);
    let result = work();
    Some((result, LAUNCHED.get(), FALLEN_BACK.get()))
}

struct Reset;

impl Drop for Reset {
    fn drop(&mut self) {
        ACTIVE.set(false);
    }
}

/// The kernel's version for a device, where it is wanted.
pub(in crate::tensor) fn run<T: Real, K: Kernel>(
    kernel: &K,
    inputs: &[&[T]],
    outputs: &mut [&mut [T]],
) -> Option<Result<K::Output>> {
    if !ACTIVE.get() {
        return None;
    }
    let sources: Vec<_> = inputs.iter().map(|x| (Address(x.as_ptr() as u64), x.len())).collect();
    let targets: Vec<_> = outputs.iter_mut().map(|x| (Address(x.as_mut_ptr() as u64), x.len())).collect();
    // What the device's version itself launches has no second version.
    let answer = kernel.on_device(&Gpu::new(&Processor, size_of::<T>() == 8, &sources, &targets));
    if answer.is_none() {
        FALLEN_BACK.set(FALLEN_BACK.get() + 1);
        println!("no device version: {}", std::any::type_name::<K>());
    }
    answer
}

static COMPILER: LazyLock<Option<String>> = LazyLock::new(|| {
    let works =
        |name: &String| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    std::env::var("CXX").into_iter().chain(["g++".into(), "clang++".into()]).find(works)
});

pub(super) struct Processor;

/// Loaded libraries, and the lock under which their functions run, whose state is global.
static LIBRARIES: LazyLock<Mutex<HashMap<(String, bool), usize>>> = LazyLock::new(Mutex::default);

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

fn broken(what: String) -> Error {
    candle_core::Error::Msg(what).into()
}

fn library(program: &Program, double: bool) -> Result<usize> {
    let folder = tempfile::tempdir().map_err(|e| broken(e.to_string()))?;
    let (source, built) = (folder.path().join("program.cpp"), folder.path().join("program.so"));
    let text = format!(
        "{}\n{COMMON}\n#line 1 \"{}.cu\"\n{}",
        include_str!("emulator.hpp"),
        program.name,
        program.source
    );
    std::fs::write(&source, text).map_err(|e| broken(e.to_string()))?;
    let real = if double { "-DREAL=double" } else { "-DREAL=float" };
    let compiler = COMPILER.as_deref().unwrap_or("g++");
    let output = Command::new(compiler)
        .args(["-std=c++17", "-O1", "-w", "-shared", "-fPIC", real, "-o"])
        .args([&built, &source])
        .output()
        .map_err(|e| broken(e.to_string()))?;
    if !output.status.success() {
        return Err(broken(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    open(&built)
}

fn open(path: &Path) -> Result<usize> {
    let path = CString::new(path.to_string_lossy().as_bytes()).map_err(|e| broken(e.to_string()))?;
    // SAFETY: the library was compiled above and has no initialisers of its own.
    let library = unsafe { dlopen(path.as_ptr(), 2) };
    if library.is_null() {
        Err(broken("cannot load the compiled program".into()))
    } else {
        Ok(library as usize)
    }
}

impl Machine for Processor {
    fn id(&self) -> u64 {
        u64::MAX
    }

    fn launch(
        &self,
        program: &Program,
        double: bool,
        function: &str,
        blocks: usize,
        arguments: &[u64],
    ) -> Result<()> {
        let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (program.name.to_string(), double);
        let library = match libraries.get(&key) {
            Some(library) => *library,
            None => *libraries.entry(key).or_insert(library(program, double)?),
        };
        let name = CString::new(format!("launch_{function}")).map_err(|e| broken(e.to_string()))?;
        // SAFETY: the symbol, where it exists, is the function that KERNEL in emulator.hpp defines.
        let found = unsafe { dlsym(library as *mut c_void, name.as_ptr()) };
        if found.is_null() {
            return Err(broken(format!("{}.cu has no function {function}", program.name)));
        }
        type Launch = unsafe extern "C" fn(*const u64, i64, i64) -> c_int;
        // SAFETY: as above.
        let call: Launch = unsafe { std::mem::transmute(found) };
        // SAFETY: the function reads as many arguments as it is given.
        let takes = unsafe { call(arguments.as_ptr(), arguments.len() as i64, blocks as i64) };
        if takes >= 0 {
            return Err(broken(format!("{function} takes {takes} arguments, not {}", arguments.len())));
        }
        LAUNCHED.set(LAUNCHED.get() + 1);
        Ok(())
    }

    fn reserve(&self, bytes: usize) -> Result<Memory> {
        // NaN, so that functions which read before they write are found.
        let data = vec![u64::MAX; bytes.div_ceil(8)];
        Ok(Memory::new(data.as_ptr() as u64, data))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Memory> {
        let mut data = vec![0u64; bytes.len().div_ceil(8)];
        for (word, bytes) in data.iter_mut().zip(bytes.chunks(8)) {
            let mut all = [0; 8];
            all[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(all);
        }
        Ok(Memory::new(data.as_ptr() as u64, data))
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the address is one that this machine has lent for at least as many bytes.
        bytes.copy_from_slice(unsafe { std::slice::from_raw_parts(from.0 as *const u8, bytes.len()) });
        Ok(())
    }

    fn fourier(
        &self,
        double: bool,
        shape: &[usize],
        items: usize,
        inverse: bool,
        data: Address,
    ) -> Result<()> {
        fn of<T: Real>(shape: &[usize], items: usize, inverse: bool, data: Address) -> Result<()> {
            let count: usize = shape.iter().product();
            // SAFETY: the caller has reserved items · count complex numbers here.
            let data = unsafe { std::slice::from_raw_parts_mut(data.0 as *mut T, 2 * items * count) };
            let direction = if inverse { Direction::Inverse } else { Direction::Forward };
            let data: &mut [Complex<T>] = as_complex_mut(data);
            Plan::new(shape, Origin::Corner)?.run_in_place(direction, data);
            let scale = T::of((count as f64).sqrt());
            data.iter_mut().for_each(|v| *v = v.scale(scale));
            Ok(())
        }
        if double { of::<f64>(shape, items, inverse, data) } else { of::<f32>(shape, items, inverse, data) }
    }
}
