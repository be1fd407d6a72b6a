//! How to reach an engine, and bounds for its use.

use std::path::PathBuf;
use std::time::Duration;

use super::endpoint::Endpoint;

/// How to reach an engine, and bounds for its use.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The engine's address: `unix:///path` or `tcp://host:port`. Default: the engine that the command
    /// `docker` uses, which `DOCKER_HOST`, `DOCKER_CONTEXT` or the current context name, or
    /// `unix:///var/run/docker.sock`.
    pub endpoint: String,
    /// The directory with `ca.pem`, `cert.pem` and `key.pem`, for an engine that is reached by TLS
    /// at `tcp://host:port`. Default: that of the context, or `DOCKER_CERT_PATH`, or the directory of
    /// `docker`'s settings if `DOCKER_TLS_VERIFY` is set.
    pub certificates: Option<PathBuf>,
    /// Whether the engine sees the files of this machine, as it does if it runs on it. Serving
    /// containers and hosts need that. Default: `None`, for finding it out.
    pub shares_files: Option<bool>,
    /// Maximum time for one call. Default: 20 s.
    pub deadline: Duration,
    /// How many containers are started, and how many removed, at a time. Default: 4 of each.
    pub at_once: usize,
    /// Maximum number of containers at one time. A job that needs one more fails. It does not wait,
    /// because the jobs that would have to end first may be waiting for it. Default: 512, or one for
    /// each 16 MiB of this machine's memory if that is less. That is about what a container takes
    /// whose program waits, with the engine's process for it.
    pub containers: usize,
    /// Why the engine that the user chose cannot be used.
    pub(super) problem: Option<String>,
}

impl EngineOptions {
    /// Sets [`EngineOptions::endpoint`](#structfield.endpoint).
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self.problem = None;
        self
    }

    /// Sets [`EngineOptions::certificates`](#structfield.certificates).
    #[must_use]
    pub fn certificates(mut self, directory: Option<PathBuf>) -> Self {
        self.certificates = directory;
        self
    }

    /// Sets [`EngineOptions::shares_files`](#structfield.shares_files).
    #[must_use]
    pub const fn shares_files(mut self, shares_files: Option<bool>) -> Self {
        self.shares_files = shares_files;
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

/// Returns how many containers this machine has memory for, at most 512.
fn containers_for_memory() -> usize {
    const MOST: usize = 512;
    const BYTES: u64 = 16 << 20;
    let memory = rustix::system::sysinfo();
    let bytes = memory.totalram.saturating_mul(memory.mem_unit.into());
    usize::try_from(bytes / BYTES).map_or(MOST, |containers| containers.clamp(8, MOST))
}

impl Default for EngineOptions {
    fn default() -> Self {
        let Endpoint { address, certificates, problem } = Endpoint::of_user();
        Self {
            endpoint: address,
            certificates,
            shares_files: None,
            problem,
            deadline: Duration::from_secs(20),
            at_once: 4,
            containers: containers_for_memory(),
        }
    }
}
