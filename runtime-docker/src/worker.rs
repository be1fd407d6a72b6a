//! A container that has one job at a time, which its init starts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_runtime_api::Status;
use tokio::task::JoinHandle;

use crate::engine::{Container, EXIT_GRACE, EngineError, Roster};
use crate::init::{Link, Recycled};
use crate::spec::Spec;

/// How long a container that was started may take until its init is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A container and the connection to its init. Dropping it removes the container.
pub(crate) struct Worker {
    pub(crate) container: Container,
    pub(crate) link: Link,
    /// How many jobs it has had.
    jobs: u32,
    /// When it was last without a job.
    pub(crate) since: Instant,
}

impl Worker {
    /// Starts a container.
    ///
    /// # Errors
    /// - The error of the engine if the container cannot be started.
    /// - [`EngineError::NotServing`] if its init does not become ready.
    pub(crate) async fn start(roster: &Arc<Roster>, spec: &Spec) -> Result<Self, EngineError> {
        let (container, streams) = roster.launch_with_init(spec).await?;
        let unusable = |problem: String| EngineError::NotServing {
            image: spec.image.to_string(),
            problem,
            status: Status::Transient,
        };
        match tokio::time::timeout(READY_TIMEOUT, Link::open(streams)).await {
            Ok(Ok(link)) => Ok(Self { container, link, jobs: 0, since: Instant::now() }),
            Ok(Err(words)) => Err(unusable(format!("ended before its init was ready: {words}"))),
            Err(_) => Err(unusable(format!("was not ready within {READY_TIMEOUT:?}"))),
        }
    }

    /// Removes the container. The returned task ends when it is removed.
    pub(crate) fn remove(self) -> JoinHandle<()> {
        let Self { container, link, .. } = self;
        // The init ends, and the container with it.
        drop(link);
        container.remove(EXIT_GRACE)
    }

    /// Waits until nothing is left of the last job. Returns `None`, and removes the container, if
    /// something is, or if it has had `most` jobs.
    pub(crate) async fn recycle(mut self, most: u32) -> Option<Self> {
        self.jobs += 1;
        if self.jobs >= most {
            self.remove();
            return None;
        }
        match self.link.recycle().await {
            Recycled::Clean => {
                self.since = Instant::now();
                Some(self)
            }
            Recycled::Dirty(problem) => {
                tracing::debug!("a container is thrown away after {} jobs: {problem}", self.jobs);
                self.remove();
                None
            }
            Recycled::Lost => {
                tracing::debug!("the init of a container does not answer after {} jobs", self.jobs);
                None
            }
        }
    }
}
