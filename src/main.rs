//! The command-line tool `wellposed`.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    // Networks take images on all of rayon's threads. candle's own pool, whose threads wait for each other actively, would
    // be in their way.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    cli::main()
}
