#![doc = include_str!("../README.md")]

mod claim;
mod core;
mod directory;
mod dispatcher;
mod frame;
#[cfg(feature = "git")]
mod git;
mod lookup;
mod memory_store;
pub mod native;
mod objects;
mod observe;
mod permits;
mod prepare;
mod registry;
mod resolve;
mod run;
mod settle;
mod store;

pub use directory::{DirectoryError, DirectoryObjects};
pub use dispatcher::{Completion, Dispatcher, DispatcherBuilder, Invocation};
#[cfg(feature = "git")]
pub use git::GitObjects;
pub use manifold_runtime_api as api;
#[cfg(feature = "wasm")]
pub use manifold_runtime_wasm as wasm;
pub use memory_store::MemoryStore;
pub use observe::{Event, Observer, Stats};
pub use store::{ObjectSource, Store};
