//! Containers that serve many jobs: a guest that forks a process for each, or a host of modules.
//!
//! Such a container connects to a socket of this process, and every connection is good for one job: what goes over it is the
//! guest ABI, and the answer to the connection's first request, `job`, is the job.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::engine::{Container, Shared};
use crate::error::{EngineError, Step};
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
    pub(crate) container: Container,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<Wire>>,
    jobs: AtomicUsize,
    /// No more jobs for this one.
    is_retired: AtomicBool,
    accepting: AbortHandle,
    _directory: TempDir,
}

/// A connection for one job. The container has one job less when it is dropped.
pub(crate) struct Place {
    pub(crate) server: Arc<Server>,
    pub(crate) wire: Option<Wire>,
}

/// How many connections may wait for jobs. One more is closed.
const WAITING: usize = 256;
/// How long a container may take to connect.
const CONNECTING: Duration = Duration::from_secs(20);

impl Servers {
    pub(crate) fn new(engine: Arc<Shared>, spec: Spec) -> Self {
        // Some processes wait for jobs, and one waits for them.
        let jobs = (spec.isolation.serving_processes() / 2).max(1) as usize;
        Self { engine, spec, jobs, servers: tokio::sync::Mutex::default(), last_used: Mutex::new(Instant::now()) }
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
        let arrival = async { place.server.arrivals.lock().await.recv().await };
        match tokio::time::timeout(CONNECTING, arrival).await {
            Ok(Some(wire)) => {
                place.wire = Some(wire);
                Ok(place)
            }
            Ok(None) => {
                place.server.retire();
                Err(EngineError::Refused {
                    step: Step::Start,
                    code: 503,
                    message: format!("the container of {} ended, and did not wait for jobs", self.spec.image),
                })
            }
            Err(_) => {
                place.server.retire();
                Err(EngineError::Refused {
                    step: Step::Start,
                    code: 400,
                    message: format!(
                        "the container of {} did not connect to its socket within {CONNECTING:?}; is it made for many jobs?",
                        self.spec.image
                    ),
                })
            }
        }
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
                let unusable = |error: std::io::Error| EngineError::Refused {
                    step: Step::Create,
                    code: 400,
                    message: format!("this process can make no socket for it: {error}"),
                };
                let (directory, listener) = listen().map_err(unusable)?;
                let inside = directory.path().join(INSIDE);
                let container = engine.launch(spec.for_many_jobs(&inside.to_string_lossy())).await?;
                let output = container.take_wire().ok_or(EngineError::Closed)?;
                let (connections, arrivals) = mpsc::channel(WAITING);
                let accepting = tokio::spawn(accept(listener, connections, output, Arc::clone(&spec.image)));
                Ok(Server {
                    container,
                    arrivals: tokio::sync::Mutex::new(arrivals),
                    jobs: AtomicUsize::new(0),
                    is_retired: AtomicBool::new(false),
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
    let directory = tempfile::Builder::new().prefix("manifold-").tempdir()?;
    let inside = directory.path().join(INSIDE);
    std::fs::create_dir(&inside)?;
    let mode = std::fs::Permissions::from_mode;
    std::fs::set_permissions(&inside, mode(0o755))?;
    let socket = inside.join("socket");
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, mode(0o666))?;
    Ok((directory, listener))
}

/// Takes connections, and what the container says beside them, until it ends.
async fn accept(listener: UnixListener, connections: mpsc::Sender<Wire>, mut output: Wire, image: Arc<str>) {
    let log = |line: &str| tracing::info!("{image}: {line}");
    let mut diagnostics = Diagnostics::new(&log);
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
            said = output.line(1 << 16, &mut diagnostics) => match said {
                Received::Line(line) => tracing::info!("{image}: {}", String::from_utf8_lossy(&line)),
                Received::TooLong | Received::End { .. } => break,
            },
        }
    }
    diagnostics.flush();
}

impl Server {
    fn takes_jobs(&self) -> bool {
        !self.is_retired.load(Ordering::Relaxed) && !self.accepting.is_finished()
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
        Self { server, wire: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server.jobs.fetch_sub(1, Ordering::Relaxed);
    }
}
