//! A BuildGrid server (<https://buildgrid.build>) for tests of shared caches, on the loopback
//! interface. Tests are skipped if it is not installed.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{built, is_required};

/// A server with an empty cache, which is stopped when this is dropped. The instance with the empty
/// name accepts results, and the instance `readonly`, which has the same content, does not.
#[derive(Debug)]
pub struct BuildGrid {
    process: Child,
    port: u16,
    _place: TempDir,
}

impl BuildGrid {
    /// Starts a server. If BuildGrid is not installed, prints a message and returns `None`, and the
    /// test is skipped.
    pub fn start() -> Option<Self> {
        let program = built("buildgrid").join("bin/bgd");
        if !program.is_file() {
            let required = is_required("buildgrid");
            assert!(!required, "MANIFOLD_REQUIRE requires buildgrid, which is not installed");
            eprintln!("SKIPPED: shared caches are not tested without BuildGrid. cargo xtask setup");
            return None;
        }
        // The port is free, and hardly anybody else takes it in the next moment.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = TempDir::new().unwrap();
        let config = place.path().join("server.yml");
        let text = include_str!("buildgrid.yml").replace("PORT", &port.to_string());
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.args(["server", "start"]).arg(config).current_dir(place.path());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut server = Self { process, port, _place: place };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(server.process.try_wait().unwrap().is_none(), "BuildGrid has ended");
            assert!(start.elapsed() < Duration::from_secs(60), "BuildGrid does not listen");
            thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    /// Returns the address of the instance called `instance`.
    pub fn address(&self, instance: &str) -> String {
        format!("grpc://127.0.0.1:{}/{instance}", self.port)
    }

    /// Ends the server at once.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for BuildGrid {
    fn drop(&mut self) {
        self.kill();
    }
}
