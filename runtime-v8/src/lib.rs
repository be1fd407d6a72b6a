#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
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
mod symbols;
mod values;
mod worker;

/// The environment of guests as a `.d.ts` file, for editors and compilers.
pub const DECLARATIONS: &str = include_str!("../guest.d.ts");

pub use runtime::{V8Runtime, V8RuntimeBuilder};
