//! The command line of `manifold trace`.

use std::path::PathBuf;

use clap::Args;

use super::StoreArgs;

/// Show what a command did that was run with `--trace FILE`
///
/// Without an option, prints a summary: how often each image ran, how long its phases took, how busy
/// the permits were, and what the memo saved.
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// File that `--trace` has written
    pub(crate) file: PathBuf,
    /// Print the chain of spans that the time consists of, and what would have to be faster
    #[arg(long)]
    pub(crate) critical_path: bool,
    /// Print the spans below a request (its id or the start of it), indented, with their times
    /// [default: the slowest root call]
    #[arg(long, value_name = "REQUEST", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "the option, and its value, may be missing")]
    pub(crate) waterfall: Option<Option<String>>,
    /// Print the N spans that took longest themselves, without what they waited for
    #[arg(long, value_name = "N")]
    pub(crate) slowest: Option<usize>,
    /// The number of lines of --critical-path and --waterfall
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) lines: usize,
    /// Print JSON
    #[arg(long, conflicts_with_all = ["perfetto", "html"])]
    pub(crate) json: bool,
    /// Write Chrome trace events, which ui.perfetto.dev and speedscope.app open
    #[arg(long, value_name = "OUT")]
    pub(crate) perfetto: Option<PathBuf>,
    /// Write a page with a timeline to zoom and search, which needs nothing but a browser
    #[arg(long, value_name = "OUT")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}
