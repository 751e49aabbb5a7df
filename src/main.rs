//! `reveille`: the binary. All it does is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    reveille::cli::run()
}
