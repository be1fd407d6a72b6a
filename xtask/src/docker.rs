//! A container engine for the tests: one that is there, or a private one for as long as a command takes.

mod private;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use self::private::PrivateEngine;
use crate::process::{Result, requires, run};
use crate::python;

/// Where to get an engine, for those who have none.
const HOW_TO: &str = "\
A container engine runs guests in containers. Any of these makes up for it:
  start Docker (or Podman's socket) so that /var/run/docker.sock answers
  DOCKER_HOST=unix:///path/to/socket                                 names another
  on Debian as root, the set-up installs the packages docker.io and crun, and starts a private engine by itself";

/// The engine's usual place.
const USUAL: &str = "unix:///var/run/docker.sock";

/// An engine that answers.
pub(crate) enum Engine {
    /// It was there, and stays.
    Found,
    /// It goes with this.
    Private(PrivateEngine),
}

impl Engine {
    /// Tells a command where the engine is.
    pub(crate) fn reveal(&self, command: &mut Command) {
        if let Self::Private(engine) = self {
            command.env("DOCKER_HOST", engine.endpoint());
        }
    }
}

/// Finds an engine, or starts one. Says so if there is none.
///
/// # Errors
/// When there is none and `MANIFOLD_REQUIRE` names it.
pub(crate) fn engine() -> Result<Option<Engine>> {
    let named = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let place = named.as_deref().unwrap_or(USUAL);
    if answers(place) {
        return Ok(Some(Engine::Found));
    }
    let problem = match named {
        Some(named) => format!("No container engine answers at DOCKER_HOST={named}."),
        None => match PrivateEngine::start() {
            Ok(engine) => return Ok(Some(Engine::Private(engine))),
            Err(problem) => format!(
                "No container engine answers at {USUAL}, and none could be started:\n{problem}"
            ),
        },
    };
    if requires("docker") {
        return Err(format!(
            "{problem}\nDocker is not available, and MANIFOLD_REQUIRE asks for it.\n{HOW_TO}"
        ));
    }
    eprintln!(
        "\n{problem}\nSKIPPED: Docker is not available, so nothing is tested that runs in containers.\n{HOW_TO}\n"
    );
    Ok(None)
}

/// `cargo xtask docker COMMAND…`: runs a command beside an engine.
pub(crate) fn with_engine(command: &mut Command) -> Result {
    let Some(engine) = engine()? else { return Err("there is no container engine".to_owned()) };
    python::build()?;
    engine.reveal(command);
    run(command)
}

/// Whether an engine answers at a place, in the form of `DOCKER_HOST`.
fn answers(place: &str) -> bool {
    let patience = Duration::from_secs(5);
    let ping = |mut connection: Box<dyn Connection>| -> std::io::Result<bool> {
        connection.be_patient(patience)?;
        connection.write_all(b"GET /_ping HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = [0; 12];
        connection.read_exact(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.") && answer.ends_with(b" 200"))
    };
    let connected: std::io::Result<Box<dyn Connection>> =
        if let Some(path) = place.strip_prefix("unix://") {
            UnixStream::connect(path).map(|connection| Box::new(connection) as _)
        } else if let Some(address) = place.strip_prefix("tcp://") {
            TcpStream::connect(address.trim_end_matches('/'))
                .map(|connection| Box::new(connection) as _)
        } else {
            return false;
        };
    connected.and_then(ping).unwrap_or(false)
}

trait Connection: Read + Write {
    fn be_patient(&mut self, time: Duration) -> std::io::Result<()>;
}

impl Connection for UnixStream {
    fn be_patient(&mut self, time: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

impl Connection for TcpStream {
    fn be_patient(&mut self, time: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}
