//! [`NodeError`].

use std::path::PathBuf;

/// Why a node cannot join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The name of the pool is none.
    #[error("{name:?} is no pool: a pool has 1 to 64 letters, digits, `-` and `_`")]
    Pool {
        /// The name.
        name: String,
    },
    /// The credentials cannot be read.
    #[error("the credentials in {} cannot be read", file.display())]
    Credentials {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server cannot be reached, or refuses the connection.
    #[error("the NATS server at {address} cannot be used: {problem}")]
    Connect {
        /// The address, without passwords.
        address: String,
        /// What is wrong.
        problem: String,
    },
    /// The dispatcher does not read from the inputs, so that this node cannot run what others give away.
    #[error(
        "the inputs are no source of the dispatcher: add them with `DispatcherBuilder::source`"
    )]
    Inputs,
    /// JetStream fails. It has to be switched on in the server.
    #[error("JetStream of the NATS server at {address} fails: {problem}; is it switched on?")]
    JetStream {
        /// The address, without passwords.
        address: String,
        /// What is wrong.
        problem: String,
    },
}
