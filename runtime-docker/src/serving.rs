//! Containers that serve many jobs: a guest that forks a process for each job, or a host of
//! modules.
//!
//! Such a container connects to a socket of this process. Each connection is used for one job and
//! carries the guest ABI. The guest's first request on it is `job` or `job_with_args`, and the response
//! is the job.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use manifold_runtime_api::Status;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::engine::{Container, EXIT_GRACE, EngineError, Roster};
use crate::spec::Spec;
use crate::wire::{Diagnostics, Received, Wire};

/// The serving containers of one [`Spec`].
pub(crate) struct Servers {
    roster: Arc<Roster>,
    spec: Spec,
    /// Maximum number of jobs in one container at a time.
    jobs: usize,
    servers: tokio::sync::Mutex<Vec<Arc<Server>>>,
    last_used: Mutex<Instant>,
}

/// A serving container and its connections that wait for jobs.
pub(crate) struct Server {
    container: Container,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<Wire>>,
    /// Number of jobs that it has now.
    jobs: AtomicUsize,
    /// Whether it gets no further jobs.
    is_retired: AtomicBool,
    has_connected: AtomicBool,
    /// The last line that it wrote to its standard output or standard error.
    last_words: Arc<Mutex<String>>,
    accepting: AbortHandle,
    _directory: TempDir,
}

/// A job's share of a serving container, with its connection. Dropping it ends the container's
/// count of the job.
pub(crate) struct Assignment {
    pub(crate) server: Arc<Server>,
    pub(crate) wire: Option<Wire>,
    /// Whether the job has ended, so that the container can be given further jobs.
    pub(crate) is_settled: bool,
}

/// Maximum number of connections that wait for jobs. Further ones are closed.
const MAX_WAITING: usize = 256;
/// How long a container may take to connect for the first time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a container that has connected before may take to connect again.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(3);

impl Servers {
    pub(crate) fn new(roster: Arc<Roster>, spec: Spec) -> Self {
        // Half of the processes are for jobs, because further ones wait for jobs and one is their
        // parent. The parent needs several file descriptors for each.
        let jobs = (spec.isolation.serving_processes() / 2)
            .min(spec.isolation.open_files / 4)
            .max(1) as usize;
        Self {
            roster,
            spec,
            jobs,
            servers: tokio::sync::Mutex::default(),
            last_used: Mutex::new(Instant::now()),
        }
    }

    /// Returns a connection to a container that has room for a job. Starts a container if there is
    /// none.
    ///
    /// # Errors
    /// - [`EngineError::NotServing`] if the container ended, or takes no further job in time.
    /// - [`EngineError::NotConnecting`] if a new container does not connect in time.
    /// - The error of the engine if a container cannot be started.
    pub(crate) async fn take(&self) -> Result<Assignment, EngineError> {
        *self.last_used.lock() = Instant::now();
        let mut assignment = {
            let mut servers = self.servers.lock().await;
            servers.retain(|server| server.takes_jobs());
            match servers.iter().find(|server| server.jobs.load(Ordering::Relaxed) < self.jobs) {
                Some(server) => Assignment::new(Arc::clone(server)),
                None => {
                    let server = Arc::new(self.start().await?);
                    servers.push(Arc::clone(&server));
                    Assignment::new(server)
                }
            }
        };
        let patience =
            if assignment.server.has_connected() { RECONNECT_TIMEOUT } else { CONNECT_TIMEOUT };
        let failure = match tokio::time::timeout(patience, assignment.server.connection()).await {
            Ok(Some(wire)) => {
                assignment.wire = Some(wire);
                return Ok(assignment);
            }
            Ok(None) => assignment.server.describe_end().await,
            // It has connected before, so it works but takes no more jobs. Another container is
            // needed.
            Err(_) if assignment.server.has_connected() => {
                (format!("did not take another job within {patience:?}"), Status::Transient)
            }
            Err(_) => {
                assignment.server.retire();
                return Err(EngineError::NotConnecting {
                    image: self.spec.image.to_string(),
                    patience,
                });
            }
        };
        assignment.server.retire();
        let (problem, status) = failure;
        Err(EngineError::NotServing { image: self.spec.image.to_string(), problem, status })
    }

    /// Starts a container if there is none that takes jobs.
    pub(crate) async fn warm(&self) -> Result<(), EngineError> {
        let mut servers = self.servers.lock().await;
        servers.retain(|server| server.takes_jobs());
        if servers.is_empty() {
            servers.push(Arc::new(self.start().await?));
        }
        Ok(())
    }

    async fn start(&self) -> Result<Server, EngineError> {
        let (roster, spec) = (Arc::clone(&self.roster), self.spec.clone());
        self.roster
            .client
            .spawn(async move {
                let unusable = |error: std::io::Error| EngineError::NotServing {
                    image: spec.image.to_string(),
                    problem: format!("cannot be started without a socket: {error}"),
                    status: Status::Transient,
                };
                let elsewhere = || EngineError::NotServing {
                    image: spec.image.to_string(),
                    problem: "cannot be reached: serving containers and hosts need an engine that \
                              sees the files of this machine"
                        .to_owned(),
                    status: Status::Permanent,
                };
                if !roster.client.sees_files().await? {
                    return Err(elsewhere());
                }
                let (directory, listener) = listen().map_err(unusable)?;
                let mounted = directory.path().join(MOUNTED);
                let launched = roster.launch(spec.for_many_jobs(&mounted.to_string_lossy())).await;
                let (container, streams) = launched
                    .map_err(|error| if error.is_about_a_mount() { elsewhere() } else { error })?;
                let output = Wire::new(streams.pieces, streams.input);
                let (connections, arrivals) = mpsc::channel(MAX_WAITING);
                let last_words = Arc::<Mutex<String>>::default();
                let log = ServerLog {
                    image: Arc::clone(&spec.image),
                    left: MAX_LOG_BYTES.into(),
                    last: Arc::clone(&last_words),
                };
                let accepting = tokio::spawn(accept(listener, connections, output, log));
                Ok(Server {
                    container,
                    arrivals: tokio::sync::Mutex::new(arrivals),
                    jobs: AtomicUsize::new(0),
                    is_retired: AtomicBool::new(false),
                    has_connected: AtomicBool::new(false),
                    last_words,
                    accepting: accepting.abort_handle(),
                    _directory: directory,
                })
            })
            .await
    }

    /// Drops containers that have ended or are retired, and all of them if none has a job and none
    /// was requested for `time`. Returns whether the latter is the case.
    pub(crate) fn is_idle(&self, time: Duration) -> bool {
        let Ok(mut servers) = self.servers.try_lock() else { return false };
        servers.retain(|server| server.takes_jobs());
        let working = servers.iter().any(|server| server.jobs.load(Ordering::Relaxed) > 0);
        let idle = !working && self.last_used.lock().elapsed() >= time;
        if idle {
            servers.clear();
        }
        idle
    }
}

/// Name of the directory that is mounted in a container. Its parent directory denies access to
/// other users.
const MOUNTED: &str = "container";

/// Creates the directory of a container and listens on a socket in it.
fn listen() -> std::io::Result<(TempDir, UnixListener)> {
    let mode = std::fs::Permissions::from_mode;
    let directory =
        tempfile::Builder::new().prefix("manifold-").permissions(mode(0o700)).tempdir()?;
    let mounted = directory.path().join(MOUNTED);
    std::fs::create_dir(&mounted)?;
    std::fs::set_permissions(&mounted, mode(0o755))?;
    let socket = mounted.join("socket");
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, mode(0o666))?;
    Ok((directory, listener))
}

/// Maximum size of a container's own output that is logged, in bytes.
const MAX_LOG_BYTES: usize = 1 << 20;

/// The log of a container's own output, which belongs to no job.
struct ServerLog {
    image: Arc<str>,
    left: AtomicUsize,
    last: Arc<Mutex<String>>,
}

impl ServerLog {
    fn take(&self, line: &str) {
        let left = self.left.load(Ordering::Relaxed);
        if left > line.len() {
            self.left.store(left - line.len() - 1, Ordering::Relaxed);
            tracing::info!("{}: {line}", self.image);
        }
        line.chars().take(400).collect::<String>().clone_into(&mut self.last.lock());
    }
}

/// Accepts connections and logs the container's own output, until the container ends.
async fn accept(
    listener: UnixListener,
    connections: mpsc::Sender<Wire>,
    mut output: Wire,
    log: ServerLog,
) {
    let take = |line: &str| log.take(line);
    let mut diagnostics = Diagnostics::new(&take);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((connection, _)) = accepted {
                    // If too many connections wait, this one is dropped and so closed.
                    let _ = connections.try_send(Wire::socket(connection));
                } else {
                    // Usually a lack of file descriptors, which is temporary.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            received = output.line(1 << 13, &mut diagnostics) => match received {
                Received::Line(line) => log.take(&String::from_utf8_lossy(&line)),
                Received::TooLong => output.discard(),
                Received::End { .. } => break,
            },
        }
    }
    // The container may have connected before it ended. `describe_end` depends on that.
    while let Some(Ok((connection, _))) = listener.accept().now_or_never() {
        let _ = connections.try_send(Wire::socket(connection));
    }
    diagnostics.flush();
}

impl Server {
    fn takes_jobs(&self) -> bool {
        !self.is_retired.load(Ordering::Relaxed) && !self.accepting.is_finished()
    }

    fn has_connected(&self) -> bool {
        self.has_connected.load(Ordering::Relaxed)
    }

    /// Describes how the container ended, as the predicate of a sentence, and returns whether
    /// another container may succeed.
    async fn describe_end(&self) -> (String, Status) {
        let output = self.last_words.lock().clone();
        let output =
            if output.is_empty() { output } else { format!("; its last output was: {output}") };
        if self.has_connected() {
            return (format!("ended{output}"), Status::Transient);
        }
        match self.container.wait_for_exit(EXIT_GRACE).await {
            Ok(Some(exit)) if exit.out_of_memory => {
                (format!("ran out of memory before it connected{output}"), Status::Permanent)
            }
            Ok(Some(exit)) if exit.ended_by_itself() => {
                let status = exit.exit_code;
                (
                    format!("exited with status {status} before it connected{output}"),
                    Status::Permanent,
                )
            }
            Ok(_) => (format!("was killed before it connected{output}"), Status::Transient),
            Err(error) => (format!("was lost: {error}"), Status::Transient),
        }
    }

    /// Returns a connection that waits for a job; `None` if the container has ended.
    async fn connection(&self) -> Option<Wire> {
        let mut arrivals = self.arrivals.lock().await;
        loop {
            let mut wire = arrivals.recv().await?;
            self.has_connected.store(true, Ordering::Relaxed);
            // A process may end while it waits for a job. Its connection is skipped.
            if !wire.is_closed(&mut Diagnostics::default()) {
                return Some(wire);
            }
        }
    }

    /// Gives this container no further jobs. It is removed when its last job has ended.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Assignment {
    fn new(server: Arc<Server>) -> Self {
        server.jobs.fetch_add(1, Ordering::Relaxed);
        Self { server, wire: None, is_settled: false }
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        if self.wire.is_some() && !self.is_settled {
            // The job's process may run forever. Only the end of the container is certain to end
            // it.
            self.server.retire();
        }
        self.server.jobs.fetch_sub(1, Ordering::Relaxed);
    }
}
