//! What the tests of Manifold's crates share.
#![allow(missing_docs, reason = "an unpublished crate for tests")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod fixture;

pub use fixture::*;
