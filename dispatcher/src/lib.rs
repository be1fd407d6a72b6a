#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]

mod announcement;
mod budget;
mod by_id;
mod claim;
mod clock;
mod core;
mod deadlines;
mod directory;
mod dispatcher;
#[cfg(feature = "durable")]
mod durable;
mod flight;
mod frame;
#[cfg(feature = "git")]
mod git;
mod held;
mod invocation;
pub mod layers;
mod lookup;
mod memory_store;
pub mod native;
mod objects;
mod observe;
mod panic_message;
mod permits;
mod prepare;
mod progress;
mod reach;
mod registry;
mod resolve;
mod rewind;
mod root_call;
mod run;
mod scope;
mod settle;
mod settled;
mod store;
mod sync;
mod through;

pub use budget::Budget;
pub use directory::{DirectoryError, DirectoryObjects, ScanOptions};
pub use dispatcher::{Dispatcher, DispatcherBuilder};
#[cfg(feature = "durable")]
pub use durable::{
    Collected, Damage, DurableStore, Keep, OpenError, StoreOptions, StoreWait, Verified,
};
#[cfg(feature = "git")]
pub use git::GitObjects;
pub use held::Held;
pub use invocation::{Completion, Invocation, Policy};
pub use manifold_runtime_api as api;
#[cfg(feature = "docker")]
pub use manifold_runtime_docker as docker;
#[cfg(feature = "v8")]
pub use manifold_runtime_v8 as v8;
#[cfg(feature = "wasm")]
pub use manifold_runtime_wasm as wasm;
pub use memory_store::MemoryStore;
pub use observe::{Event, Observer, Stats};
pub use progress::Progress;
pub use store::{ObjectSource, Pin, Store};

/// The example of the project's README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ProjectReadme;
