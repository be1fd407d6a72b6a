//! The options of nodes, and the command line of `manifold node`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::UseArgs;

/// The machines that share work with this one.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Nodes")]
pub(crate) struct NodeArgs {
    /// Let other machines take over runs, and find each other through this NATS server with JetStream
    ///
    /// The address is nats://HOST:PORT, or tls://…; those of a cluster are separated by commas. The
    /// other machines run `manifold node`. If the server fails, the work goes on without them.
    #[arg(long = "nats", value_name = "ADDRESS", env = "MANIFOLD_NATS", hide_env_values = true)]
    pub(crate) servers: Option<String>,
    /// Share work with the machines of this pool
    #[arg(long = "nats-pool", value_name = "NAME", default_value = "default")]
    pub(crate) pool: String,
    /// Run here what another machine has not ended after TIME, too
    #[arg(
        long = "nats-patience",
        id = "nats-patience",
        value_name = "TIME",
        default_value = "10m",
        value_parser = humantime::parse_duration
    )]
    pub(crate) patience: Duration,
    /// Use the NATS credentials in this file
    #[arg(
        long = "nats-credentials",
        id = "nats-credentials",
        value_name = "FILE",
        requires = "servers"
    )]
    pub(crate) credentials: Option<PathBuf>,
    /// Trust the certificates in this file (PEM) instead of the system's
    #[arg(long = "nats-ca", id = "nats-ca", value_name = "FILE", requires = "servers")]
    pub(crate) authority: Option<PathBuf>,
}

/// Take over runs of other machines, until the command is interrupted
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  manifold node --nats nats://build.example:4222 --source .")]
pub(crate) struct Node {
    #[command(flatten)]
    pub(crate) nodes: NodeArgs,
    /// Read objects from the git repository of DIR, so that the other machines need not send them
    #[arg(long, value_name = "DIR")]
    pub(crate) source: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) using: UseArgs,
}
