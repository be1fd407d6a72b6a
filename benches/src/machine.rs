//! Tokio runtimes to measure on.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Returns a runtime that runs all tasks on the calling thread, so that measurements do not include
/// waking another thread.
///
/// # Errors
/// Returns an error if the system does not provide the resources.
pub fn one_core() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Returns a runtime with a thread for each core, as programs usually have.
///
/// # Errors
/// Returns an error if the system does not provide the threads.
pub fn all_cores() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}
