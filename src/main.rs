//! The command-line tool `wellposed`.

fn main() {}
