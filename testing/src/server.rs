//! [`Server`]: a server on the loopback interface, in a process of its own.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{built, is_required};

/// A server, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Returns the program of a server that the set-up installs. If it is not installed, prints that
    /// `part` is not tested, and returns `None`.
    pub(crate) fn program(name: &str, file: &str, part: &str) -> Option<PathBuf> {
        let program = built(name).join("bin").join(file);
        if program.is_file() {
            return Some(program);
        }
        assert!(!is_required(name), "MANIFOLD_REQUIRE requires {name}, which is not installed");
        eprintln!("SKIPPED: {part} are not tested without {name}. cargo xtask setup");
        None
    }

    /// Returns a port that is free. Hardly anybody else takes it in the next moment.
    pub(crate) fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    /// Starts a server, and waits until it listens on `port`.
    pub(crate) fn start(command: &mut Command, port: u16) -> Self {
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut server = Self(process);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(server.0.try_wait().unwrap().is_none(), "{command:?} has ended");
            assert!(start.elapsed() < Duration::from_secs(60), "{command:?} does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Returns the id of its process.
    pub(crate) fn process(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
