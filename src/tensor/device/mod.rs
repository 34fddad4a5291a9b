//! Kernels on a device: programs in CUDA C++, and how a [`Kernel`](super::Kernel) runs them.
//!
//! A [`Program`] is the text of a `.cu` file. It is compiled when it is first needed, once with `REAL` as `float` and
//! once as `double`, behind the few declarations of `common.cuh`. Every parameter of its functions takes eight bytes
//! (a pointer, an `Int` or a `double`), and every function runs in blocks of [`BLOCK`] threads along one axis. That
//! keeps the functions so plain that the tests compile them as C++ and run them on the processor, against the
//! kernels that they stand for.

use std::any::Any;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;

#[cfg(feature = "cuda")]
pub(super) mod cuda;
#[cfg(all(test, unix))]
pub(crate) mod emulator;
mod inset;

pub use inset::Inset;

/// Threads of a block.
pub const BLOCK: usize = 256;
/// Elements that a block adds up in a reduction.
const PART: usize = 1 << 12;

/// What precedes every program.
pub(super) const COMMON: &str = include_str!("common.cuh");

/// A file of functions in CUDA C++.
#[derive(Debug)]
pub struct Program {
    /// A name, unique in the process.
    pub name: &'static str,
    /// The text.
    pub source: &'static str,
}

/// Sums of the partial results of blocks.
static REDUCE: Program = Program { name: "reduce", source: include_str!("reduce.cu") };

/// Changes of the order of elements.
static LAYOUT: Program = Program { name: "layout", source: include_str!("layout.cu") };

/// A place in the memory of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub(super) u64);

impl Address {
    /// The place this many bytes further on.
    pub fn further(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// What a function on a device takes.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// A pointer.
    Memory(Address),
    /// An `Int`, of 64 bits.
    Count(usize),
    /// A `double`.
    Number(f64),
}

impl From<Address> for Argument {
    fn from(address: Address) -> Self {
        Self::Memory(address)
    }
}

impl From<usize> for Argument {
    fn from(count: usize) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for Argument {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Argument {
    fn from(flag: bool) -> Self {
        Self::Count(usize::from(flag))
    }
}

impl Argument {
    fn bits(self) -> u64 {
        match self {
            Self::Memory(address) => address.0,
            Self::Count(count) => count as u64,
            Self::Number(number) => number.to_bits(),
        }
    }
}

/// The arguments of a function on a device, of any mixture of types.
#[macro_export]
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => {
        &[$($crate::tensor::device::Argument::from($argument)),*] as &[$crate::tensor::device::Argument]
    };
}
pub use arguments;

/// Memory on a device until it is dropped.
pub(super) struct Memory {
    address: Address,
    _owner: Box<dyn Any + Send + Sync>,
}

impl Memory {
    pub(super) fn new(address: u64, owner: impl Any + Send + Sync) -> Self {
        Self { address: Address(address), _owner: Box::new(owner) }
    }
}

/// What launches functions and holds memory.
pub(super) trait Machine {
    /// Tells machines apart.
    fn id(&self) -> u64;
    fn launch(
        &self,
        program: &Program,
        double: bool,
        function: &str,
        blocks: usize,
        arguments: &[u64],
    ) -> Result<()>;
    fn reserve(&self, bytes: usize) -> Result<Memory>;
    fn upload(&self, bytes: &[u8]) -> Result<Memory>;
    /// Waits for everything before.
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()>;
    /// Unscaled transforms of complex items of up to three axes, where they are.
    fn fourier(
        &self,
        double: bool,
        shape: &[usize],
        items: usize,
        inverse: bool,
        data: Address,
    ) -> Result<()>;
}

/// The CUDA devices of this computer, with name and memory; none in a build without the feature `cuda`, or where there is
/// no driver.
pub fn cards() -> Vec<String> {
    #[cfg(feature = "cuda")]
    return cuda::cards();
    #[cfg(not(feature = "cuda"))]
    Vec::new()
}

/// Numbers that functions on a device read, uploaded when they are first needed and kept as long as their owner.
#[derive(Default)]
pub struct Table(Mutex<Option<(u64, Arc<Memory>)>>);

impl Clone for Table {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

/// One launch of a kernel on a device: its arrays, and what it can do with them.
pub struct Gpu<'a> {
    machine: &'a dyn Machine,
    double: bool,
    inputs: &'a [(Address, usize)],
    outputs: &'a [(Address, usize)],
    /// Memory in use until the functions have been launched.
    held: RefCell<Vec<Arc<Memory>>>,
}

impl<'a> Gpu<'a> {
    pub(super) fn new(
        machine: &'a dyn Machine,
        double: bool,
        inputs: &'a [(Address, usize)],
        outputs: &'a [(Address, usize)],
    ) -> Self {
        Self { machine, double, inputs, outputs, held: RefCell::default() }
    }

    /// The kernel's input number `index`.
    ///
    /// # Panics
    /// Where there are fewer, as also below.
    pub fn input(&self, index: usize) -> Address {
        self.inputs[index].0
    }

    /// The number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Elements of an input.
    pub fn input_len(&self, index: usize) -> usize {
        self.inputs[index].1
    }

    /// The kernel's output number `index`.
    pub fn output(&self, index: usize) -> Address {
        self.outputs[index].0
    }

    /// The number of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Elements of an output.
    pub fn output_len(&self, index: usize) -> usize {
        self.outputs[index].1
    }

    /// The address as a number with the same bits, for an uploaded list of arrays.
    pub fn as_number(address: Address) -> f64 {
        f64::from_bits(address.0)
    }

    /// Bytes of an element.
    pub fn width(&self) -> usize {
        if self.double { 8 } else { 4 }
    }

    /// Runs a function with at least this many threads: those beyond must do nothing.
    ///
    /// # Errors
    /// Where the program doesn't compile or doesn't start.
    pub fn run(
        &self,
        program: &Program,
        function: &str,
        threads: usize,
        arguments: &[Argument],
    ) -> Result<()> {
        self.run_blocks(program, function, threads.div_ceil(BLOCK), arguments)
    }

    /// Runs a function with this many blocks.
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn run_blocks(
        &self,
        program: &Program,
        function: &str,
        blocks: usize,
        arguments: &[Argument],
    ) -> Result<()> {
        if blocks == 0 {
            return Ok(());
        }
        let bits: Vec<u64> = arguments.iter().map(|a| a.bits()).collect();
        self.machine.launch(program, self.double, function, blocks, &bits)
    }

    /// Memory for this many elements with arbitrary contents, to the end of the launch.
    ///
    /// # Errors
    /// Where there is no room.
    pub fn scratch(&self, elements: usize) -> Result<Address> {
        self.reserve(elements * self.width())
    }

    fn reserve(&self, bytes: usize) -> Result<Address> {
        Ok(self.hold(Arc::new(self.machine.reserve(bytes.max(8))?)))
    }

    fn hold(&self, memory: Arc<Memory>) -> Address {
        let address = memory.address;
        self.held.borrow_mut().push(memory);
        address
    }

    /// These numbers, as `double`, to the end of the launch.
    ///
    /// # Errors
    /// Where there is no room.
    pub fn upload(&self, numbers: &[f64]) -> Result<Address> {
        Ok(self.hold(Arc::new(self.uploaded(numbers)?)))
    }

    fn uploaded(&self, numbers: &[f64]) -> Result<Memory> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_ne_bytes()).collect();
        self.machine.upload(if bytes.is_empty() { &[0; 8] } else { &bytes })
    }

    /// The numbers of a table, made and uploaded where this machine doesn't have them yet.
    ///
    /// # Errors
    /// Where there is no room.
    pub fn table(&self, table: &Table, make: impl FnOnce() -> Vec<f64>) -> Result<Address> {
        let mut held = table.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((machine, memory)) = &*held
            && *machine == self.machine.id()
        {
            return Ok(self.hold(memory.clone()));
        }
        let memory = Arc::new(self.uploaded(&make())?);
        *held = Some((self.machine.id(), memory.clone()));
        Ok(self.hold(memory))
    }

    /// Doubles that functions have written.
    ///
    /// # Errors
    /// Where an earlier function has failed.
    pub fn doubles(&self, from: Address, count: usize) -> Result<Vec<f64>> {
        let mut bytes = vec![0; count * 8];
        self.machine.download(from, &mut bytes)?;
        Ok(bytes.chunks_exact(8).map(|b| f64::from_ne_bytes(b.try_into().unwrap_or_default())).collect())
    }

    /// Runs a reduction over `items` arrays of `size` elements: block b of the function gets the `arguments`, then
    /// `size`, the number of parts p and a pointer to partial sums, and writes the `sums` sums over part b mod p of item
    /// b / p to partial\[(s·items + item)·p + part\]. Returns \[sum\]\[item\].
    ///
    /// The parts have a fixed size and are added in a fixed order.
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn reduce(
        &self,
        program: &Program,
        function: &str,
        (items, size, sums): (usize, usize, usize),
        arguments: &[Argument],
    ) -> Result<Vec<Vec<f64>>> {
        let (partial, parts) = self.partial(program, function, (items, size, sums), arguments)?;
        let rows = items * sums;
        let totals = self.reserve(rows * 8)?;
        self.run_blocks(&REDUCE, "totals", rows, arguments![partial, parts, totals])?;
        let totals = self.doubles(totals, rows)?;
        Ok((0..sums).map(|s| totals[s * items..(s + 1) * items].to_vec()).collect())
    }

    /// The partial sums of [`Gpu::reduce`], and the number of parts.
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn partial(
        &self,
        program: &Program,
        function: &str,
        (items, size, sums): (usize, usize, usize),
        arguments: &[Argument],
    ) -> Result<(Address, usize)> {
        let parts = size.div_ceil(PART).max(1);
        let partial = self.reserve(items * sums * parts * 8)?;
        let arguments = [arguments, arguments![items, size, parts, partial]].concat();
        self.run_blocks(program, function, items * parts, &arguments)?;
        Ok((partial, parts))
    }

    /// Elements of each part of [`Gpu::partial`].
    pub const fn part() -> usize {
        PART
    }

    /// to\[item, column, row\] ← from\[item, row, column\].
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn transpose(
        &self,
        from: Address,
        to: Address,
        items: usize,
        height: usize,
        width: usize,
    ) -> Result<()> {
        const TILE: usize = 16;
        let blocks = items * height.div_ceil(TILE) * width.div_ceil(TILE);
        self.run_blocks(&LAYOUT, "transpose", blocks, arguments![from, to, height, width])
    }

    /// to ← factor · from, arrays of `shape` complex numbers whose middle goes to index 0 or, with `back`, the reverse.
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn rotate(
        &self,
        from: Address,
        to: Address,
        (items, shape): (usize, [usize; 3]),
        back: bool,
        factor: f64,
    ) -> Result<()> {
        let [n0, n1, n2] = shape;
        let n = items * n0 * n1 * n2;
        self.run(&LAYOUT, "rotate", n, arguments![from, to, n, n0, n1, n2, back, factor])
    }

    /// x ← factor · x for so many elements.
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn scale(&self, x: Address, elements: usize, factor: f64) -> Result<()> {
        self.run(&LAYOUT, "scale", elements, arguments![x, elements, factor])
    }

    /// Parts ← their places in so many wholes.
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn cut(&self, inset: &Inset, items: usize, whole: Address, part: Address) -> Result<()> {
        let (n, sizes) = inset.arguments(items);
        self.run(&LAYOUT, "cut", n, &[arguments![whole, part], &sizes].concat())
    }

    /// The reverse; what lies around the parts stays.
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn put(&self, inset: &Inset, items: usize, part: Address, whole: Address) -> Result<()> {
        let (n, sizes) = inset.arguments(items);
        self.run(&LAYOUT, "put", n, &[arguments![part, whole], &sizes].concat())
    }

    /// to[z, y, x] ← from[(z + a) mod depth, (y + b) mod height, (x + c) mod width] for `n` elements in arrays of these
    /// three lengths, moved by (a, b, c).
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn roll(
        &self,
        from: Address,
        to: Address,
        n: usize,
        lengths: [usize; 3],
        by: [usize; 3],
    ) -> Result<()> {
        let ([depth, height, width], [a, b, c]) = (lengths, by);
        self.run(&LAYOUT, "roll", n, arguments![from, to, n, depth, height, width, a, b, c])
    }

    /// x ← value for so many elements.
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn fill(&self, x: Address, elements: usize, value: f64) -> Result<()> {
        self.run(&LAYOUT, "fill", elements, arguments![x, elements, value])
    }

    /// Copies elements.
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn copy(&self, from: Address, to: Address, elements: usize) -> Result<()> {
        self.run(&LAYOUT, "copy", elements, arguments![from, to, elements])
    }

    /// Unscaled transforms of `items` complex arrays of up to three axes, about index 0, where they are.
    ///
    /// # Errors
    /// Where the library of the device fails.
    pub fn fourier(&self, shape: &[usize], items: usize, inverse: bool, data: Address) -> Result<()> {
        self.machine.fourier(self.double, shape, items, inverse, data)
    }
}

#[cfg(all(test, unix))]
mod tests;
