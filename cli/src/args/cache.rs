//! The options of a shared cache, and the command line of `manifold cache`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// A cache that several machines share.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Shared cache")]
pub(crate) struct CacheArgs {
    /// Share outcomes through this server of the Remote Execution API
    ///
    /// The address is grpc://HOST:PORT[/INSTANCE], or grpcs://… for TLS. The server's results are looked
    /// up before a call is run, and new ones are sent. If the server fails, the work goes on without it.
    #[arg(long = "cache", value_name = "ADDRESS", env = "MANIFOLD_CACHE")]
    pub(crate) address: Option<String>,
    /// Begin with the results that NAME has in the cache, and let NAME have those of this call
    ///
    /// Then only what is different from the last call of that name is run, on any machine.
    #[arg(long = "cache-ref", value_name = "NAME", requires = "address")]
    pub(crate) name: Option<String>,
    /// Send no results to the cache
    #[arg(long = "cache-read-only", requires = "address")]
    pub(crate) read_only: bool,
    /// Send each line of this file (`name: value`) as a header to the server
    ///
    /// $MANIFOLD_CACHE_TOKEN, if it is set, is sent as `authorization: Bearer …`.
    #[arg(long = "cache-headers", value_name = "FILE", requires = "address")]
    pub(crate) headers: Option<PathBuf>,
    /// Trust the certificates in this file (PEM) instead of the system's
    #[arg(long = "cache-ca", value_name = "FILE", requires = "address")]
    pub(crate) authority: Option<PathBuf>,
    /// Show the server the certificate in this file (PEM)
    #[arg(long = "cache-cert", value_name = "FILE", requires = "address", requires = "key")]
    pub(crate) certificate: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long = "cache-key", value_name = "FILE", requires = "certificate", id = "key")]
    pub(crate) key: Option<PathBuf>,
}

/// Look at a shared cache
#[derive(Debug, Args)]
pub(crate) struct Cache {
    #[command(subcommand)]
    pub(crate) kind: CacheKind,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheKind {
    Status(CacheStatus),
}

/// Say whether a shared cache can be reached, and whether it takes results
#[derive(Debug, Args)]
pub(crate) struct CacheStatus {
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
