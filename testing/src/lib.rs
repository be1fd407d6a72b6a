//! What the tests of Manifold's crates share.
#![allow(missing_docs, reason = "an unpublished crate for tests")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

pub mod accounts;
pub mod browser;
pub mod buildgrid;
pub mod certificates;
#[cfg(feature = "containers")]
pub mod containers;
mod fixture;
pub mod nats;
mod server;
pub mod spans;

use std::path::PathBuf;

pub use fixture::*;

/// Whether the fixtures include the V8 runtime.
pub const HAS_V8: bool = cfg!(feature = "v8");

/// Returns the path of a file or directory that `cargo xtask setup` has built for the tests: `guests/<name>` in
/// the target directory of the running test. It does not exist before the set-up.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let mut paths = test.ancestors().map(|folder| folder.join("guests").join(name));
    paths.find(|path| path.exists()).unwrap_or_else(|| PathBuf::from(name))
}

/// Returns whether the tests that need `name` must not be skipped: `MANIFOLD_REQUIRE` contains it.
pub fn is_required(name: &str) -> bool {
    std::env::var("MANIFOLD_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == name))
}
