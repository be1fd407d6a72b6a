//! The command lines of `manifold explain` and `manifold where`.

use clap::Args;

use super::ReadArgs;

/// Explain a request: what it is, what it wanted, and how it differs from the nearest one before it
///
/// The store keeps what each request was and which requests it ran (unless the command that ran it was
/// given --no-provenance), also of those that failed.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Id of a request, or the first digits of it
    pub(crate) request: String,
    /// Compare with this request [default: the one that is most alike]
    #[arg(long, value_name = "REQUEST")]
    pub(crate) against: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) reading: ReadArgs,
}

/// Find the requests that made an object, and the pins that keep it
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// Id of an object, or the first digits of an outcome
    pub(crate) id: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) reading: ReadArgs,
}
