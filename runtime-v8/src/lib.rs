#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]
#![allow(
    unsafe_code,
    reason = "V8's bindings leave entering isolates, the allocator and the stack to their user"
)]

mod engine;
mod exception;
mod fatal;
mod guest;
mod isolate;
mod job;
mod limits;
mod operations;
mod pool;
mod prepare;
mod runtime;
mod snapshot;
mod values;
mod worker;

/// The environment of guests as a `.d.ts` file, for editors and compilers.
pub const DECLARATIONS: &str = include_str!("../guest.d.ts");

pub use runtime::{V8Runtime, V8RuntimeBuilder};
