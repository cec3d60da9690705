//! The program `hookctl`. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookctl::main(std::env::args_os())
}
