//! What the `manifold` command is made of, for the command itself, for tests and for benchmarks.

pub mod guests;
pub mod tree_size;
