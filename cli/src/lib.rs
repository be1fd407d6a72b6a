//! Parts of the `manifold` command that tests and benchmarks share: the embedded guests and the
//! standard tree, the export of outcomes to git, and the measuring of trees.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod export;
pub mod tree_size;
