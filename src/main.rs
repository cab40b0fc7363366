//! The program; everything is in the library.

fn main() -> std::process::ExitCode {
    btw_backup::cli::run()
}
