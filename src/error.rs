//! The one error type of the crate. Misuse and bad input are errors; non-convergence and
//! cancellation are values (see [`crate::observe::Termination`]).

use std::path::{Path, PathBuf};

/// Result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

thread_local! {
    static CATCHING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs a parser that is not ours. It should not panic on a corrupt file; should it do so all the same, the file is at
/// fault, not the program, and the result is `None`.
pub(crate) fn catch_panic<T>(call: impl FnOnce() -> T) -> Option<T> {
    let before = CATCHING.replace(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    CATCHING.set(before);
    result.ok()
}

/// Whether a panic on this thread now would become an [`Error`], so that a panic hook has nothing to report.
pub fn catches_panics() -> bool {
    CATCHING.get()
}

/// What went wrong: always names the argument, operator or file, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An array has the wrong shape.
    #[error("{name}: expected shape {expected}, found {found:?}")]
    Shape {
        /// The argument or operator that was given the array.
        name: String,
        /// The shape that was expected, in words with axis names.
        expected: String,
        /// The shape that was found.
        found: Vec<usize>,
    },
    /// An array has the wrong element type.
    #[error("{name}: expected element type {expected}, found {found}")]
    DType {
        /// The argument or operator that was given the array.
        name: String,
        /// The element type that was expected.
        expected: String,
        /// The element type that was found.
        found: String,
    },
    /// An array lies on another device than the operator.
    #[error("{name}: expected an array on {expected}, found one on {found}")]
    Device {
        /// The argument or operator that was given the array.
        name: String,
        /// The device that was expected.
        expected: String,
        /// The device that was found.
        found: String,
    },
    /// A parameter is outside its range.
    #[error("{name} = {value}: {reason}")]
    Parameter {
        /// The parameter's name.
        name: String,
        /// The value that was found.
        value: String,
        /// Why it can't be used, with the allowed range.
        reason: String,
    },
    /// A matrix that must be positive definite is not.
    #[error("{name} is not positive definite: pivot {pivot} is {value:e}")]
    NotPositiveDefinite {
        /// The matrix.
        name: String,
        /// Index of the first failing pivot.
        pivot: usize,
        /// Its value.
        value: f64,
    },
    /// A matrix is singular to working precision.
    #[error("{name} is singular: {reason}")]
    Singular {
        /// The matrix.
        name: String,
        /// Where it fails and what can be done.
        reason: String,
    },
    /// An array holds NaN or an infinity.
    #[error("{name}: {count} of {total} values are NaN or infinite, the first at index {first:?}")]
    NotFinite {
        /// The array, argument or file.
        name: String,
        /// How many values are not finite.
        count: usize,
        /// How many values there are.
        total: usize,
        /// Index of the first of them.
        first: Vec<usize>,
    },
    /// A file's contents can't be understood.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// The operating system refused to read or write.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Something that this build or this operator does not offer.
    #[error("{0}")]
    Unsupported(String),
    /// An error from the tensor library.
    #[error("tensor library: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// [`Error::Parameter`] from anything printable.
    pub fn parameter(
        name: impl Into<String>,
        value: impl std::fmt::Display,
        reason: impl Into<String>,
    ) -> Self {
        Self::Parameter { name: name.into(), value: value.to_string(), reason: reason.into() }
    }

    /// [`Error::Shape`].
    pub fn shape(name: impl Into<String>, expected: impl Into<String>, found: &[usize]) -> Self {
        Self::Shape { name: name.into(), expected: expected.into(), found: found.to_vec() }
    }

    /// [`Error::Format`] for the file at `path`.
    pub fn format(path: impl AsRef<Path>, reason: impl std::fmt::Display) -> Self {
        Self::Format { path: path.as_ref().to_path_buf(), reason: reason.to_string() }
    }

    /// [`Error::Io`] for the file at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }
}
