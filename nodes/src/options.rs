//! [`NodeOptions`].

use std::path::PathBuf;
use std::time::Duration;

use crate::inputs::Inputs;

/// How a node joins the others.
#[derive(Debug, Clone)]
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
    /// What the runs of other nodes read, if this node takes such runs over: a source of objects of its
    /// dispatcher.
    pub inputs: Option<Inputs>,
    /// How long this node waits for a run that another node has claimed. Then it runs the request itself,
    /// even if the other node says that it is still running it. Default: 10 minutes.
    pub patience: Duration,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            servers: String::new(),
            pool: "default".to_owned(),
            credentials: None,
            authority: None,
            inputs: None,
            patience: Duration::from_secs(600),
        }
    }
}

impl NodeOptions {
    /// Creates the options of a node that gives runs away, and takes none over.
    pub fn new(servers: impl Into<String>) -> Self {
        Self { servers: servers.into(), ..Self::default() }
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

    /// Sets how long this node waits for a run that another node has claimed.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Makes the node take runs of other nodes over. `inputs` must be a source of its dispatcher.
    #[must_use]
    pub fn helping(mut self, inputs: Inputs) -> Self {
        self.inputs = Some(inputs);
        self
    }
}
