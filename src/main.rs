//! The command-line tool `wellposed`.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
