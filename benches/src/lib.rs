//! What the benchmarks have in common: dispatchers with guests, and inputs of every size and shape.
//!
//! Every group has one line for Manifold and one for each thing that it stands on (`floor: …`) or beside (`peer: …`), all of
//! them measured in one run.

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
pub use measured::Measured;
pub use memory::{forget_peak, resident};
pub use setting::{Language, Setting, container_engine};

/// The word for Manifold's own line in a group.
pub const OURS: &str = "manifold";
