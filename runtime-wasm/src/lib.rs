#![doc = include_str!("../README.md")]

mod engines;
mod guest_state;
mod imports;
mod instance;
mod mailbox;
mod module_cache;
mod runtime;
mod ticker;
mod trap;
mod wasi;

pub use runtime::{WasmRuntime, WasmRuntimeBuilder};
