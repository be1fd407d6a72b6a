#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]

mod events;
mod format;
mod page;
mod path;
mod read;
mod recorder;
mod selection;
mod statistics;
mod summary;
mod waterfall;

pub use format::{Kept, Label, SpanRecord};
pub use path::{Delay, PathReport};
pub use read::{Trace, TraceError};
pub use recorder::TraceFile;
pub use summary::{Counts, ImageSummary, PhaseSummary, Summary};
pub use waterfall::{Row, Waterfall};
