#![cfg_attr(not(test), no_std)]
#![doc = include_str!("../README.md")]

#[cfg(not(any(target_arch = "wasm32", test)))]
compile_error!("guests are built for wasm32-unknown-unknown; `cargo xtask setup` does");

extern crate alloc;

mod error;
mod job;
mod json;
mod object;
mod operations;
mod outcome;
#[cfg(all(target_arch = "wasm32", feature = "no-std-runtime"))]
mod runtime;
mod transport;

pub use error::{Error, Result};
pub use job::Job;
pub use object::{Entry, Id, Kind, Mode, Object};
pub use operations::{get, log, put_blob, put_tree, run, run_many, tree};
pub use outcome::IntoOutcome;

/// Makes a function the guest's entry: it takes the [`Job`], and what it returns is the outcome.
///
/// The function has the type `fn(&Job) -> Result<T>` where `T` is [`IntoOutcome`]: text or bytes become a blob, entries a
/// tree, and an [`Object`] is the outcome as it is. An error ends the job with its words.
#[macro_export]
macro_rules! main {
    ($function:path) => {
        /// What the host calls.
        #[unsafe(no_mangle)]
        pub extern "C" fn caos_run() {
            $crate::run_job($function)
        }
    };
}

#[doc(hidden)]
pub fn run_job<T: IntoOutcome>(function: impl FnOnce(&Job) -> Result<T>) {
    let outcome = Job::receive().and_then(|job| function(&job)).and_then(IntoOutcome::into_outcome);
    match outcome.and_then(|object| operations::out(&object)) {
        Ok(()) => {}
        Err(error) => operations::fail(error.message()),
    }
}
