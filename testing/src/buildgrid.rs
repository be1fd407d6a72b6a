//! A BuildGrid server (<https://buildgrid.build>) for tests of shared caches. Tests are skipped if it is
//! not installed.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::server::Server;

/// A server with an empty cache, which is stopped when this is dropped. The instance with the empty
/// name accepts results, and the instance `readonly`, which has the same content, does not.
#[derive(Debug)]
pub struct BuildGrid {
    server: Option<Server>,
    scheme: &'static str,
    port: u16,
    _place: TempDir,
}

impl BuildGrid {
    /// Starts a server. If BuildGrid is not installed, prints a message and returns `None`, and the
    /// test is skipped.
    pub fn start() -> Option<Self> {
        Self::start_with(|config| config)
    }

    /// Starts a server that keeps at most `size` bytes (`10K`) of blobs, and removes the least recently
    /// used ones.
    pub fn start_small(size: &str) -> Option<Self> {
        Self::start_with(|config| config.replace("256M", size))
    }

    /// Starts a server that is reached through TLS, and accepts only clients of the certificates'
    /// authority.
    pub fn start_secure(certificates: &Certificates) -> Option<Self> {
        let file = |name| format!("\"{}\"", certificates.file(name).display());
        let credentials = format!(
            "insecure-mode: false\n    credentials:\n      tls-server-key: {}\n      \
             tls-server-cert: {}\n      tls-client-certs: {}",
            file("server.key"),
            file("server.pem"),
            file("authority.pem"),
        );
        let mut server =
            Self::start_with(|config| config.replace("insecure-mode: true", &credentials))?;
        server.scheme = "grpcs";
        Some(server)
    }

    fn start_with(change: impl FnOnce(String) -> String) -> Option<Self> {
        let program = Server::program("buildgrid", "bgd", "shared caches")?;
        let (port, place) = (Server::free_port(), TempDir::new().unwrap());
        let config = place.path().join("server.yml");
        let text = include_str!("buildgrid.yml").replace("PORT", &port.to_string());
        fs::write(&config, change(text)).unwrap();
        let mut command = Command::new(program);
        command.args(["server", "start"]).arg(config).current_dir(place.path());
        let server = Some(Server::start(&mut command, port));
        Some(Self { server, scheme: "grpc", port, _place: place })
    }

    /// Returns the address of the instance called `instance`.
    pub fn address(&self, instance: &str) -> String {
        format!("{}://127.0.0.1:{}/{instance}", self.scheme, self.port)
    }

    /// Ends the server at once.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Returns the id of the server's process.
    pub fn process(&self) -> Option<u32> {
        self.server.as_ref().map(Server::process)
    }
}
