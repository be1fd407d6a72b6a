#![doc = include_str!("../README.md")]

mod engine;
mod fiber;
mod functions;
mod guest;
mod host;
mod memory;
mod program;
mod runtime;

pub use runtime::RhaiRuntime;
