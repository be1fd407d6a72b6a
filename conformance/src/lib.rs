#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]

mod behavior;
mod check;
mod content;
mod macros;
mod module;
mod program;
mod report;
mod runtime;
mod source;
mod store;

#[doc(hidden)]
pub use check::test;
pub use check::{Check, Verdict, Violation};
pub use module::{Module, ModuleFile};
pub use program::Program;
pub use report::{CheckResult, Report};
pub use runtime::{RuntimeFixture, runtime_checks};
pub use source::{SourceFixture, source_checks};
pub use store::{StoreFixture, store_checks};

// Re-exported for fixtures, because the fixture traits use their types.
pub use manifold_dispatcher as dispatcher;
pub use manifold_runtime_api as api;
