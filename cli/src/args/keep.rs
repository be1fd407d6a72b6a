//! The command lines of the commands that maintain the store.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

use super::StoreArgs;

/// List the pins: the requests whose outcomes `gc` keeps, and images
///
/// A line has the request, its outcome, when the pin was last set or used, the image with its arguments,
/// and where its input was. `fold` and `run` pin their outcome unless --no-pin is given. `curry` and
/// `image import` pin the image under its own id.
#[derive(Debug, Args)]
pub(crate) struct Pins {
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Remove pins, so that `gc` can delete the outcomes
#[derive(Debug, Args)]
pub(crate) struct Unpin {
    /// Request ids, in hexadecimal
    #[arg(required = true)]
    pub(crate) requests: Vec<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Delete from the store what is neither pinned nor recently used, and reclaim the space
///
/// Container images that were loaded from the store into the container engine are removed from the
/// engine, unless the store still has them or a container uses them.
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Keep memo entries used within this time, and the objects of their outcomes
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30days",
        value_parser = humantime::parse_duration
    )]
    pub(crate) used_within: Duration,
    /// Of those, keep only the last used that fit into this size (`2GiB`) [default: no bound]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_size: Option<ByteSize>,
    /// Keep objects written within this time, which a run in progress may still need
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1day",
        value_parser = humantime::parse_duration
    )]
    pub(crate) written_within: Duration,
    /// First remove pins of requests that were neither set nor used within this time [default: keep all pins]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) pinned_within: Option<Duration>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Hash every object in the store again, and check every memo entry and pin
///
/// Fails if anything is damaged.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Delete what is damaged, so that it is computed again
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Write pinned outcomes to a git repository, each as the ref `refs/manifold/<request>`
///
/// The ref keeps the outcome from being deleted by `git gc`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Any path in the repository
    pub(crate) repo: PathBuf,
    /// Request ids, in hexadecimal [default: all pinned requests]
    pub(crate) requests: Vec<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}
