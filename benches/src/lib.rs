//! Everything that the benches measure: the library's operations and two alternatives, on the same inputs.
#![allow(
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    reason = "a library for the benches, their tests and the peers"
)]

pub mod alternatives;
pub mod contest;
pub mod frozen;
pub mod grid;
pub mod kernel;
pub mod layer;
pub mod recorder;
pub mod step;

/// Enters the project's folder. Cargo runs benches in their package's, and files in options are meant from the
/// project's.
pub fn enter_project() -> std::io::Result<()> {
    match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(package) => std::env::set_current_dir(std::path::Path::new(&package).join("..")),
        None => Ok(()),
    }
}
