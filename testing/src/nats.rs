//! NATS servers (<https://nats.io>) for tests of nodes. Tests are skipped if the server is not installed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::server::Server;

/// A server with JetStream, which is stopped when this is dropped.
#[derive(Debug)]
pub struct Nats {
    program: PathBuf,
    server: Option<Server>,
    port: u16,
    place: TempDir,
}

impl Nats {
    /// Starts a server. If it is not installed, prints a message and returns `None`, and the test is
    /// skipped.
    pub fn start() -> Option<Self> {
        let program = Server::program("nats", "nats-server", "nodes")?;
        let (port, place) = (Server::free_port(), TempDir::new().unwrap());
        let mut nats = Self { program, server: None, port, place };
        nats.resume();
        Some(nats)
    }

    /// Starts the server again, with what it had stored.
    pub fn resume(&mut self) {
        let config = self.place.path().join("server.conf");
        let store = self.place.path().join("store");
        let text =
            format!("listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {store:?} }}\n", self.port);
        fs::write(&config, text).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(config).current_dir(self.place.path());
        self.server = Some(Server::start(&mut command, self.port));
    }

    /// Returns the address of the server.
    pub fn address(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends the server at once.
    pub fn kill(&mut self) {
        self.server = None;
    }
}
