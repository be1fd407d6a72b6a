#![cfg_attr(target_arch = "wasm32", no_std)]
#![doc = include_str!("../README.md")]

#[cfg(not(any(target_arch = "wasm32", unix)))]
compile_error!(
    "guests are built for wasm32-unknown-unknown, or for containers on Linux; `cargo xtask setup` does both"
);

extern crate alloc;

mod error;
mod job;
#[cfg(not(target_arch = "wasm32"))]
mod json;
mod object;
mod operations;
mod outcome;
#[cfg(not(target_arch = "wasm32"))]
mod process;
#[cfg(all(target_arch = "wasm32", feature = "no-std-runtime"))]
mod runtime;
mod transport;
#[cfg(any(target_arch = "wasm32", test))]
mod wire_binary;
#[cfg(not(target_arch = "wasm32"))]
mod wire_json;

pub use error::{Error, Result};
pub use job::Job;
pub use object::{Entry, Id, Kind, Mode, Object};
pub use operations::{get, log, put_blob, put_tree, run, run_many, tree};
pub use outcome::IntoOutcome;
#[cfg(not(target_arch = "wasm32"))]
pub use process::run_process;

/// Makes a function the guest's entry: it takes the [`Job`], and what it returns is the outcome.
///
/// The function has the type `fn(&Job) -> Result<T>` where `T` is [`IntoOutcome`]: text or bytes become a blob, entries a
/// tree, and an [`Object`] is the outcome as it is. An error ends the job with its words.
#[macro_export]
macro_rules! main {
    ($function:path) => {
        /// What the host calls.
        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        pub extern "C" fn caos_run() {
            $crate::run_job($function)
        }

        /// What a container runs.
        #[cfg(not(target_arch = "wasm32"))]
        pub fn main() {
            $crate::run_process(|| $crate::run_job($function))
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
