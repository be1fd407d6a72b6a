//! A container engine for the tests and benchmarks: one that is running already, or a private one
//! for the duration of a command.

mod private;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use self::private::PrivateEngine;
use crate::install::{Installing, Need, provide};
use crate::process::{Result, is_runnable, run};
use crate::python;
use crate::skip::skip;

/// The ways to get an engine, shown where none is available.
const HOW_TO: &str = "\
Guests in containers need a container engine. Do one of these:
  start Docker (or Podman's socket) so that it listens on /var/run/docker.sock
  set DOCKER_HOST=unix:///path/to/socket to use another engine
  on Debian, run this as root and without --no-install: the set-up installs the packages
  docker.io and crun, and starts a private engine";

/// The endpoint where an engine usually listens.
const DEFAULT_ENDPOINT: &str = "unix:///var/run/docker.sock";

/// An engine that responds to pings.
pub(crate) enum Engine {
    /// An engine that was running already. It is left running.
    Found,
    /// An engine that was started by this process. It is stopped when this value is dropped.
    Private(PrivateEngine),
}

impl Engine {
    /// Sets `DOCKER_HOST` for a command where it is needed to find the engine.
    pub(crate) fn reveal(&self, command: &mut Command) {
        if let Self::Private(engine) = self {
            command.env("DOCKER_HOST", engine.endpoint());
        }
    }
}

/// Returns the packages of a private engine if one is needed and they are not installed.
pub(crate) fn need() -> Option<Need> {
    let is_needed = named().is_none() && !responds(DEFAULT_ENDPOINT);
    let packages = || {
        Need::apt_get(&["docker.io", "crun"], "a private container engine for the container tests")
    };
    (is_needed && !private::PROGRAMS.into_iter().all(is_runnable)).then(packages)
}

/// Finds a running engine, or starts a private one. Returns `None`, after a message, if neither is
/// possible.
///
/// # Errors
/// Returns an error if no engine is available and `MANIFOLD_REQUIRE` contains `docker`.
pub(crate) fn engine() -> Result<Option<Engine>> {
    let named = named();
    let endpoint = named.as_deref().unwrap_or(DEFAULT_ENDPOINT);
    if responds(endpoint) {
        return Ok(Some(Engine::Found));
    }
    let problem = match named {
        Some(named) => format!("no container engine responds at DOCKER_HOST={named}"),
        None => match PrivateEngine::start() {
            Ok(engine) => return Ok(Some(Engine::Private(engine))),
            Err(problem) => format!(
                "no container engine responds at {DEFAULT_ENDPOINT}, and none could be \
                 started:\n{problem}"
            ),
        },
    };
    skip("docker", "nothing that runs in containers is tested", &problem, HOW_TO)?;
    Ok(None)
}

/// Returns the endpoint that the user has named, if any.
fn named() -> Option<String> {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty())
}

/// `cargo xtask docker COMMAND…`: runs a command while an engine is available to it.
pub(crate) fn with_engine(command: &mut Command, installing: Installing) -> Result {
    provide(need().into_iter().chain(python::need()), installing);
    let Some(engine) = engine()? else { return Err("there is no container engine".to_owned()) };
    python::build()?;
    engine.reveal(command);
    run(command)
}

/// Returns whether an engine responds to a ping at `endpoint`, which has the form of `DOCKER_HOST`.
fn responds(endpoint: &str) -> bool {
    let timeout = Duration::from_secs(5);
    let ping = |mut connection: Box<dyn Connection>| -> std::io::Result<bool> {
        connection.set_timeout(timeout)?;
        connection.write_all(b"GET /_ping HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut status = [0; 12];
        connection.read_exact(&mut status)?;
        Ok(status.starts_with(b"HTTP/1.") && status.ends_with(b" 200"))
    };
    let connected: std::io::Result<Box<dyn Connection>> =
        if let Some(path) = endpoint.strip_prefix("unix://") {
            UnixStream::connect(path).map(|connection| Box::new(connection) as _)
        } else if let Some(address) = endpoint.strip_prefix("tcp://") {
            TcpStream::connect(address.trim_end_matches('/'))
                .map(|connection| Box::new(connection) as _)
        } else {
            return false;
        };
    connected.and_then(ping).unwrap_or(false)
}

trait Connection: Read + Write {
    /// Sets the timeout of reads.
    fn set_timeout(&mut self, time: Duration) -> std::io::Result<()>;
}

impl Connection for UnixStream {
    fn set_timeout(&mut self, time: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

impl Connection for TcpStream {
    fn set_timeout(&mut self, time: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}
