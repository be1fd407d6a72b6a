//! [`NodeOptions`].

use std::path::PathBuf;

/// How a node joins the others.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NodeOptions {
    /// The addresses of the NATS servers: `nats://HOST:PORT` or `tls://HOST:PORT`. A name and a
    /// password, or a token, can be in the address. Those of a cluster are separated by commas.
    pub servers: String,
    /// The nodes that share work with this one: those of the same pool. Default: `default`.
    pub pool: String,
    /// A file with NATS credentials (`.creds`).
    pub credentials: Option<PathBuf>,
    /// A file with the certificates to trust (PEM), instead of the system's.
    pub authority: Option<PathBuf>,
    /// Whether the node takes runs of other nodes over.
    pub helps: bool,
}

impl NodeOptions {
    /// Creates the options of a node that gives runs away, and takes none over.
    pub fn new(servers: impl Into<String>) -> Self {
        Self { servers: servers.into(), pool: "default".to_owned(), ..Self::default() }
    }

    /// Sets the pool: 1 to 64 letters, digits, `-` and `_`.
    #[must_use]
    pub fn pool(mut self, pool: impl Into<String>) -> Self {
        self.pool = pool.into();
        self
    }

    /// Sets the file with credentials.
    #[must_use]
    pub fn credentials(mut self, file: Option<PathBuf>) -> Self {
        self.credentials = file;
        self
    }

    /// Sets the file with the certificates to trust.
    #[must_use]
    pub fn authority(mut self, file: Option<PathBuf>) -> Self {
        self.authority = file;
        self
    }

    /// Makes the node take runs of other nodes over.
    #[must_use]
    pub fn helping(mut self) -> Self {
        self.helps = true;
        self
    }
}
