//! The public handle of a container engine. Below it are the client, which makes calls to the
//! engine, and the roster of containers.

mod client;
mod endpoint;
mod error;
mod exit;
mod options;
mod owner;
mod retry;
mod roster;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

pub(crate) use client::Client;
pub use error::{EngineError, Step};
pub(crate) use exit::{EXIT_GRACE, LOST_ITS_HOST};
pub use options::EngineOptions;
pub(crate) use retry::{ATTEMPTS, RecentFailure, pause, retrying};
pub(crate) use roster::{Container, Roster};

/// A connection to a container engine. Cloning is cheap, and clones share the connection and its
/// containers.
///
/// # Behavior
/// - It connects when the first job needs it. Containers that crashed processes have left in the
///   engine are removed then.
/// - Every call has a deadline. Only a few containers are started at a time, because more would
///   stall the engine.
/// - Containers are removed in the background. [`ContainerEngine::close`] waits for that.
#[derive(Clone)]
pub struct ContainerEngine {
    pub(crate) roster: Arc<Roster>,
}

impl fmt::Debug for ContainerEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerEngine").finish_non_exhaustive()
    }
}

impl ContainerEngine {
    /// Creates a client of the engine that `options` describe. Does not connect yet.
    ///
    /// # Errors
    /// Returns an error if the client's threads cannot be started.
    pub fn new(options: EngineOptions) -> std::io::Result<Self> {
        let client = Client::new(&options)?;
        Ok(Self { roster: Arc::new(Roster::new(client, &options)) })
    }

    /// Connects to the engine and returns its name and version.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] or [`EngineError::TimedOut`] if the engine does not respond.
    pub async fn version(&self) -> Result<String, EngineError> {
        let client = Arc::clone(&self.roster.client);
        self.roster
            .client
            .spawn(async move {
                let docker = client.docker().await?;
                let version = client.call(Step::Connect, docker.version()).await?;
                client.connection_failure.clear();
                let name =
                    version.platform.map_or_else(|| "engine".to_owned(), |platform| platform.name);
                Ok(format!("{name} {}", version.version.unwrap_or_default()).trim().to_owned())
            })
            .await
    }

    /// Returns the digest of the image that `name` currently stands for in the engine. `name` may
    /// be a tag. The digest is what to put after `docker://`.
    ///
    /// # Errors
    /// - [`EngineError::Refused`] if the engine has no such image.
    /// - [`EngineError::Unreachable`] or [`EngineError::TimedOut`] if the engine does not respond.
    pub async fn digest(&self, name: &str) -> Result<String, EngineError> {
        let (client, name) = (Arc::clone(&self.roster.client), name.to_owned());
        self.roster
            .client
            .spawn(async move {
                let docker = client.docker().await?;
                let image = client.call(Step::InspectImage, docker.inspect_image(&name)).await?;
                image.id.ok_or_else(|| EngineError::Refused {
                    step: Step::InspectImage,
                    code: 200,
                    message: "the response contains no image id".to_owned(),
                })
            })
            .await
    }

    /// Returns the labels of the containers that are created through this connection.
    pub fn labels(&self) -> HashMap<String, String> {
        self.roster.labels()
    }

    /// Returns whether this connection has containers, including those that are being started.
    pub fn has_containers(&self) -> bool {
        self.roster.has_containers()
    }

    /// Accepts no more jobs, removes all containers of this connection, and waits until they are
    /// removed.
    ///
    /// # Errors
    /// Returns an error if containers remain because the engine cannot be reached or does not
    /// respond. The next process that uses the engine removes them.
    pub fn close(&self) -> Result<(), EngineError> {
        let roster = Arc::clone(&self.roster);
        let deadline = roster.client.deadline;
        roster.close();
        roster.wait_until_idle(deadline);
        let (done, end) = std::sync::mpsc::channel();
        self.roster.client.handle().spawn(async move {
            let _ = done.send(roster.remove_own().await);
        });
        end.recv_timeout(deadline * 2).unwrap_or(Err(EngineError::Closed))
    }
}
