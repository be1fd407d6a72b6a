//! Common parts of the benchmarks: dispatchers with guests, inputs of different sizes and shapes,
//! and floors.
//!
//! A criterion group measures one operation. Its lines are Manifold's ([`OURS`]), the same
//! operation in the underlying library alone (`floor: …`), and other programs that do the same
//! (`peer: …`). All lines of a group are measured in one run.

mod containers;
mod floor;
mod host;
mod inputs;
mod machine;
mod measured;
mod memory;
mod setting;

pub use containers::{container_job, container_jobs, file_count_answers};
pub use floor::{count_files, fold_files};
pub use host::FixedHost;
pub use inputs::{branching, chain, sized, tree_of, wide, with_one_changed};
pub use machine::{all_cores, one_core};
pub use measured::{Cores, Measured, Waited, append_result};
pub use memory::{forget_peak, resident};
pub use setting::{Language, PYTHON, Setting, container_engine};

/// The benchmark id of Manifold's own line in a group, or the id's prefix where there are several.
pub const OURS: &str = "manifold";
