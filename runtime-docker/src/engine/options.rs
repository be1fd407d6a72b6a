//! How to reach an engine, and bounds for its use.

use std::time::Duration;

/// How to reach an engine, and bounds for its use.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The engine's address: `unix:///path` or `tcp://host:port`. Default: the value of
    /// `DOCKER_HOST`, or `unix:///var/run/docker.sock` if that is not set.
    pub endpoint: String,
    /// Maximum time for one call. Default: 20 s.
    pub deadline: Duration,
    /// How many containers are started, and how many removed, at a time. Default: 4 of each.
    pub at_once: usize,
    /// Maximum number of containers at one time. A job that needs one more fails. It does not wait,
    /// because the jobs that would have to end first may be waiting for it. Default: 512.
    pub containers: usize,
}

impl EngineOptions {
    /// Sets [`EngineOptions::endpoint`](#structfield.endpoint).
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Sets [`EngineOptions::deadline`](#structfield.deadline).
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets [`EngineOptions::at_once`](#structfield.at_once).
    #[must_use]
    pub const fn at_once(mut self, at_once: usize) -> Self {
        self.at_once = at_once;
        self
    }

    /// Sets [`EngineOptions::containers`](#structfield.containers).
    #[must_use]
    pub const fn containers(mut self, containers: usize) -> Self {
        self.containers = containers;
        self
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        let endpoint = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        Self {
            endpoint: endpoint.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned()),
            deadline: Duration::from_secs(20),
            at_once: 4,
            containers: 512,
        }
    }
}
