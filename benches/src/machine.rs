//! Async runtimes for measuring.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// One thread, on which everything runs: what a thing costs, without what it costs to wake another thread for it.
///
/// # Errors
/// When the system refuses.
pub fn one_core() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// As a program has it: a thread for each core.
///
/// # Errors
/// When the system gives no threads.
pub fn all_cores() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}
