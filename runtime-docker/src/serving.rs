//! Containers that serve many jobs: a guest that forks a process for each, or a host of modules.
//!
//! Such a container connects to a socket of this process, and every connection is good for one job: what goes over it is the
//! guest ABI, and the answer to the connection's first request, `job`, is the job.

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

use crate::engine::{Container, LAST_BREATH, Shared};
use crate::error::EngineError;
use crate::spec::Spec;
use crate::wire::{Diagnostics, Received, Wire};

/// The containers of one image.
pub(crate) struct Servers {
    engine: Arc<Shared>,
    spec: Spec,
    /// How many jobs one container has at a time.
    jobs: usize,
    servers: tokio::sync::Mutex<Vec<Arc<Server>>>,
    last_used: Mutex<Instant>,
}

/// A container, and the connections on which it waits for jobs.
pub(crate) struct Server {
    container: Container,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<Wire>>,
    jobs: AtomicUsize,
    /// No more jobs for this one.
    is_retired: AtomicBool,
    has_connected: AtomicBool,
    /// The last line that it wrote beside its connections.
    last_words: Arc<Mutex<String>>,
    accepting: AbortHandle,
    _directory: TempDir,
}

/// A connection for one job. The container has one job less when it is dropped.
pub(crate) struct Place {
    pub(crate) server: Arc<Server>,
    pub(crate) wire: Option<Wire>,
    /// Whether the container may be given further jobs: this one has come to its end.
    pub(crate) is_settled: bool,
}

/// How many connections may wait for jobs. One more is closed.
const WAITING: usize = 256;
/// How long a container may take to connect for the first time, and again.
const CONNECTING: Duration = Duration::from_secs(20);
const BUSY: Duration = Duration::from_secs(3);

impl Servers {
    pub(crate) fn new(engine: Arc<Shared>, spec: Spec) -> Self {
        // Some processes wait for jobs, one waits for them, and needs file descriptors for each.
        let jobs = (spec.isolation.serving_processes() / 2)
            .min(spec.isolation.open_files / 4)
            .max(1) as usize;
        Self {
            engine,
            spec,
            jobs,
            servers: tokio::sync::Mutex::default(),
            last_used: Mutex::new(Instant::now()),
        }
    }

    /// A connection to a container that has room for a job. Starts one if there is none.
    pub(crate) async fn take(&self) -> Result<Place, EngineError> {
        *self.last_used.lock() = Instant::now();
        let mut place = {
            let mut servers = self.servers.lock().await;
            servers.retain(|server| server.takes_jobs());
            match servers.iter().find(|server| server.jobs.load(Ordering::Relaxed) < self.jobs) {
                Some(server) => Place::new(Arc::clone(server)),
                None => {
                    let server = Arc::new(self.start().await?);
                    servers.push(Arc::clone(&server));
                    Place::new(server)
                }
            }
        };
        let patience = if place.server.has_connected() { BUSY } else { CONNECTING };
        let failure = match tokio::time::timeout(patience, place.server.connection()).await {
            Ok(Some(wire)) => {
                place.wire = Some(wire);
                return Ok(place);
            }
            Ok(None) => place.server.why_it_ended().await,
            // It had connections before: it has as many jobs as it takes, and another container is needed.
            Err(_) if place.server.has_connected() => {
                (format!("took no further job within {patience:?}"), Status::Transient)
            }
            Err(_) => {
                place.server.retire();
                return Err(EngineError::NotConnecting {
                    image: self.spec.image.to_string(),
                    patience,
                });
            }
        };
        place.server.retire();
        let (problem, status) = failure;
        Err(EngineError::NotServing { image: self.spec.image.to_string(), problem, status })
    }

    /// Makes sure that there is a container.
    pub(crate) async fn warm(&self) -> Result<(), EngineError> {
        let mut servers = self.servers.lock().await;
        servers.retain(|server| server.takes_jobs());
        if servers.is_empty() {
            servers.push(Arc::new(self.start().await?));
        }
        Ok(())
    }

    async fn start(&self) -> Result<Server, EngineError> {
        let (engine, spec) = (Arc::clone(&self.engine), self.spec.clone());
        self.engine
            .spawn(async move {
                let unusable = |error: std::io::Error| EngineError::NotServing {
                    image: spec.image.to_string(),
                    problem: format!("cannot be given a socket: {error}"),
                    status: Status::Transient,
                };
                let (directory, listener) = listen().map_err(unusable)?;
                let inside = directory.path().join(INSIDE);
                let (container, output) =
                    engine.launch(spec.for_many_jobs(&inside.to_string_lossy())).await?;
                let (connections, arrivals) = mpsc::channel(WAITING);
                let last_words = Arc::<Mutex<String>>::default();
                let log = ServerLog {
                    image: Arc::clone(&spec.image),
                    left: LOG.into(),
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

    /// Lets containers go that have ended, and all of them if nobody has asked for so long. Answers whether that is so.
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

/// The directory that a container gets to see. The one around it keeps everybody else out.
const INSIDE: &str = "container";

fn listen() -> std::io::Result<(TempDir, UnixListener)> {
    let mode = std::fs::Permissions::from_mode;
    let directory =
        tempfile::Builder::new().prefix("manifold-").permissions(mode(0o700)).tempdir()?;
    let inside = directory.path().join(INSIDE);
    std::fs::create_dir(&inside)?;
    std::fs::set_permissions(&inside, mode(0o755))?;
    let socket = inside.join("socket");
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, mode(0o666))?;
    Ok((directory, listener))
}

/// How much of what a container says is logged, in bytes.
const LOG: usize = 1 << 20;

/// What a container says that is no job's.
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

/// Takes connections, and what the container says beside them, until it ends.
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
                    // Too many at once: this one is closed.
                    let _ = connections.try_send(Wire::socket(connection));
                } else {
                    // Out of file descriptors, say. It passes.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            said = output.line(1 << 13, &mut diagnostics) => match said {
                Received::Line(line) => log.take(&String::from_utf8_lossy(&line)),
                Received::TooLong => output.discard(),
                Received::End { .. } => break,
            },
        }
    }
    // It may have connected before it ended, which makes a difference.
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

    /// What became of a container that has ended, and whether another one may do better.
    async fn why_it_ended(&self) -> (String, Status) {
        let said = self.last_words.lock().clone();
        let said = if said.is_empty() { said } else { format!("; it said: {said}") };
        if self.has_connected() {
            return (format!("ended{said}"), Status::Transient);
        }
        match self.container.death(LAST_BREATH).await {
            Ok(Some(death)) if death.out_of_memory => {
                (format!("used up its memory before it waited for jobs{said}"), Status::Permanent)
            }
            Ok(Some(death)) if death.is_of_its_own() => {
                let status = death.exit_code;
                (
                    format!("ended with status {status} before it waited for jobs{said}"),
                    Status::Permanent,
                )
            }
            Ok(_) => (format!("was ended before it waited for jobs{said}"), Status::Transient),
            Err(error) => (format!("was lost: {error}"), Status::Transient),
        }
    }

    /// A connection that waits for a job; `None` when the container has ended.
    async fn connection(&self) -> Option<Wire> {
        let mut arrivals = self.arrivals.lock().await;
        loop {
            let mut wire = arrivals.recv().await?;
            self.has_connected.store(true, Ordering::Relaxed);
            // A process may end while it waits.
            if !wire.is_closed(&mut Diagnostics::default()) {
                return Some(wire);
            }
        }
    }

    /// Gives this container no more jobs. It goes when its last one has ended.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Place {
    fn new(server: Arc<Server>) -> Self {
        server.jobs.fetch_add(1, Ordering::Relaxed);
        Self { server, wire: None, is_settled: false }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.wire.is_some() && !self.is_settled {
            // The process may go on for ever. Only the end of the container ends it for certain.
            self.server.retire();
        }
        self.server.jobs.fetch_sub(1, Ordering::Relaxed);
    }
}
