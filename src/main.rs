//! The command-line tool `wellposed`.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    // SAFETY: no other thread runs yet.
    unsafe { wellposed::prior::leave_threads_to_rayon() };
    cli::main()
}
