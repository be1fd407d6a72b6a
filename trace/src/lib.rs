#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]

mod events;
mod format;
#[cfg(feature = "metrics")]
mod metrics;
mod page;
mod path;
mod read;
mod recorder;
mod selection;
mod statistics;
mod summary;
#[cfg(feature = "tracing")]
mod tracing;
mod waterfall;

pub use format::{Kept, Label, SpanRecord};
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use metrics::Metrics;
pub use path::{Delay, PathReport};
pub use read::{Trace, TraceError};
pub use recorder::TraceFile;
pub use summary::{Counts, ImageSummary, PhaseSummary, Summary};
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub use tracing::TracingSpans;
pub use waterfall::{Row, Waterfall};
