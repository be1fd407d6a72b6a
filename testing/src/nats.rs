//! NATS servers (<https://nats.io>) for tests of nodes, on the loopback interface. Tests are skipped if
//! the server is not installed.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{built, is_required};

/// A server with JetStream, which is stopped when this is dropped.
#[derive(Debug)]
pub struct Nats {
    process: Option<Child>,
    port: u16,
    place: TempDir,
}

impl Nats {
    /// Starts a server. If it is not installed, prints a message and returns `None`, and the test is
    /// skipped.
    pub fn start() -> Option<Self> {
        if !built("nats").join("bin/nats-server").is_file() {
            assert!(!is_required("nats"), "MANIFOLD_REQUIRE requires nats, which is not installed");
            eprintln!("SKIPPED: nodes are not tested without a NATS server. cargo xtask setup");
            return None;
        }
        // The port is free, and hardly anybody else takes it in the next moment.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { process: None, port, place: TempDir::new().unwrap() };
        server.resume();
        Some(server)
    }

    /// Starts the server again, with what it had stored.
    pub fn resume(&mut self) {
        let config = self.place.path().join("server.conf");
        let store = self.place.path().join("store");
        let text = format!(
            "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?} }}\n",
            self.port, store
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(built("nats").join("bin/nats-server"));
        command.arg("-c").arg(config).current_dir(self.place.path());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let process = self.process.insert(process);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "the NATS server has ended");
            assert!(start.elapsed() < Duration::from_secs(60), "the NATS server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the address of the server.
    pub fn address(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends the server at once.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
