//! A BuildGrid server (<https://buildgrid.build>) for tests of shared caches. Tests are skipped if it is
//! not installed.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::server::Server;

/// A server with an empty cache, which is stopped when this is dropped. The instance with the empty
/// name accepts results, and the instance `readonly`, which has the same content, does not.
#[derive(Debug)]
pub struct BuildGrid {
    server: Option<Server>,
    port: u16,
    _place: TempDir,
}

impl BuildGrid {
    /// Starts a server. If BuildGrid is not installed, prints a message and returns `None`, and the
    /// test is skipped.
    pub fn start() -> Option<Self> {
        let program = Server::program("buildgrid", "bgd", "shared caches")?;
        let (port, place) = (Server::free_port(), TempDir::new().unwrap());
        let config = place.path().join("server.yml");
        let text = include_str!("buildgrid.yml").replace("PORT", &port.to_string());
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.args(["server", "start"]).arg(config).current_dir(place.path());
        Some(Self { server: Some(Server::start(&mut command, port)), port, _place: place })
    }

    /// Returns the address of the instance called `instance`.
    pub fn address(&self, instance: &str) -> String {
        format!("grpc://127.0.0.1:{}/{instance}", self.port)
    }

    /// Ends the server at once.
    pub fn kill(&mut self) {
        self.server = None;
    }
}
