//! Why a command ends without a result.

use std::fmt;
use std::process::ExitCode;

use wellposed::error::Error;

/// What a command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a command ends without a result; decides the exit code.
#[derive(Debug)]
pub enum Failure {
    /// The arguments can't be used: exit code 2.
    Usage(String),
    /// The work failed: exit code 1.
    Run(Error),
    /// The reader of stdout went away, which is success.
    BrokenPipe,
}

impl Failure {
    /// [`Failure::Usage`] for `flag`, which was given `value`.
    pub fn usage(flag: &str, value: impl fmt::Display, reason: &str) -> Self {
        Self::Usage(format!("{flag} {value}: {reason}"))
    }

    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Run(_) => ExitCode::from(1),
            Self::BrokenPipe => ExitCode::SUCCESS,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(reason) => write!(f, "{reason}\nTry --help."),
            Self::Run(error) => write!(f, "{error}"),
            Self::BrokenPipe => write!(f, "stdout was closed"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Self::Run(error.into())
    }
}
