//! What the `manifold` command is made of, for the command itself, for tests and for benchmarks.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod export;
pub mod guests;
pub mod tree_size;
