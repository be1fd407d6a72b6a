#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]

mod artifacts;
mod engines;
mod guest_state;
mod imports;
mod job;
mod limits;
mod mailbox;
mod prepare;
mod runtime;
#[cfg(target_os = "linux")]
mod stacks;
mod ticker;
mod trap;
mod wasi;

pub use runtime::{WasmRuntime, WasmRuntimeBuilder};
