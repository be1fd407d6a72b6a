#![cfg_attr(target_arch = "wasm32", no_std)]
#![doc = include_str!("../README.md")]

#[cfg(not(any(target_arch = "wasm32", unix)))]
compile_error!("guests are built for wasm32-unknown-unknown, or for containers on Linux");

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

pub use error::{Error, ErrorKind, Result};
pub use job::Job;
pub use object::{Entry, Id, Kind, Mode, ObjectRef};
pub use operations::{get, get_range, log, put_blob, put_tree, run, run_many, size, tree};
pub use outcome::IntoOutcome;
#[cfg(not(target_arch = "wasm32"))]
pub use process::run_process;

/// Makes a function the guest's entry point. It takes the [`Job`] and returns the outcome.
///
/// The function has the type `fn(&Job) -> Result<T>` where `T` implements [`IntoOutcome`]: text and
/// bytes are stored as a blob, entries are stored as a tree, and an [`ObjectRef`] becomes the
/// outcome itself. If the function returns an error, the job fails with the error's message.
#[macro_export]
macro_rules! main {
    ($function:path) => {
        /// The entry point of a wasm guest, called by the host.
        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        pub extern "C" fn caos_run() {
            $crate::run_job($function)
        }

        /// The entry point of a container guest, called by its `main` function.
        #[cfg(not(target_arch = "wasm32"))]
        pub fn main() {
            $crate::run_process(|| $crate::run_job($function))
        }
    };
}

#[doc(hidden)]
pub fn run_job<T: IntoOutcome>(function: impl FnOnce(&Job) -> Result<T>) {
    let outcome = operations::job().and_then(|job| function(&job));
    if let Err(error) = outcome.and_then(IntoOutcome::become_outcome) {
        operations::fail(error.message());
    }
}
