//! The terminal: text and JSON on stdout, messages and progress on stderr, Ctrl-C.

use std::io::{ErrorKind, Write};

use serde::Serialize;
use wellposed::error::Error;

use super::failure::{Failure, Outcome};

/// Sets the number of worker threads; 0 leaves it to the environment.
pub fn set_threads(threads: usize) -> Outcome {
    if threads == 0 {
        return Ok(());
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.map_err(|error| Failure::usage("--threads", threads, &error.to_string()))
}

/// Prints text on stdout.
pub fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::BrokenPipe,
        _ => Failure::Run(Error::io("stdout", error)),
    })
}

/// Prints one JSON object on stdout.
pub fn print_json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Unsupported(format!("the result as JSON: {error}")))?;
    print(&(text + "\n"))
}

/// Prints a message on stderr; there is nobody to tell if that fails.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{message}");
}
