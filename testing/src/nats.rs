//! NATS servers (<https://nats.io>) for tests of nodes. Tests are skipped if the server is not installed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::accounts::Accounts;
use crate::certificates::Certificates;
use crate::server::Server;

/// A server with JetStream, which is stopped when this is dropped.
#[derive(Debug)]
pub struct Nats {
    program: PathBuf,
    server: Option<Server>,
    scheme: &'static str,
    port: u16,
    place: TempDir,
    /// What the configuration has beside the port and the place.
    more: String,
}

impl Nats {
    /// Starts a server. If it is not installed, prints a message and returns `None`, and the test is
    /// skipped.
    pub fn start() -> Option<Self> {
        let mut nats = Self::stopped(Server::free_port(), String::new())?;
        nats.resume();
        Some(nats)
    }

    /// Starts a server that has one user, with this name and password. Returns `None` as [`Nats::start`]
    /// does.
    pub fn with_user(name: &str, password: &str) -> Option<Self> {
        let user = format!("authorization {{ user: {name:?}, password: {password:?} }}\n");
        let mut nats = Self::stopped(Server::free_port(), user)?;
        nats.resume();
        Some(nats)
    }

    /// Starts a server that is reached through TLS. Returns `None` as [`Nats::start`] does.
    pub fn start_secure(certificates: &Certificates) -> Option<Self> {
        let (certificate, key) = (certificates.file("server.pem"), certificates.file("server.key"));
        let tls = format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}\n");
        let mut nats = Self::stopped(Server::free_port(), tls)?;
        nats.scheme = "tls";
        nats.resume();
        Some(nats)
    }

    /// Starts a server whose users show a file with credentials. Returns `None` as [`Nats::start`] does.
    pub fn with_accounts(accounts: &Accounts) -> Option<Self> {
        let mut nats = Self::stopped(Server::free_port(), accounts.config().to_owned())?;
        nats.resume();
        Some(nats)
    }

    fn stopped(port: u16, more: String) -> Option<Self> {
        let program = Server::program("nats", "nats-server", "nodes")?;
        let place = TempDir::new().unwrap();
        Some(Self { program, server: None, scheme: "nats", port, place, more })
    }

    /// Starts the server again, with what it had stored.
    pub fn resume(&mut self) {
        let config = self.place.path().join("server.conf");
        let (port, store, more) = (self.port, self.place.path().join("store"), &self.more);
        let text =
            format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?} }}\n{more}");
        fs::write(&config, text).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(config).current_dir(self.place.path());
        self.server = Some(Server::start(&mut command, self.port));
    }

    /// Returns the address of the server.
    pub fn address(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Ends the server at once.
    pub fn kill(&mut self) {
        self.server = None;
    }
}

/// A cluster of three servers, `n0`, `n1` and `n2`.
#[derive(Debug)]
pub struct Cluster {
    pub servers: Vec<Nats>,
}

impl Cluster {
    /// Starts a cluster. Returns `None` as [`Nats::start`] does.
    pub fn start() -> Option<Self> {
        let ports: Vec<_> = (0..3).map(|_| (Server::free_port(), Server::free_port())).collect();
        let routes: Vec<_> =
            ports.iter().map(|(_, route)| format!("\"nats://127.0.0.1:{route}\"")).collect();
        let server = |(number, (port, route)): (usize, &(u16, u16))| {
            let more = format!(
                "server_name: n{number}\ncluster {{ name: tests, listen: \"127.0.0.1:{route}\", \
                 routes: [{}] }}\n",
                routes.join(", ")
            );
            Nats::stopped(*port, more)
        };
        let mut servers = ports.iter().enumerate().map(server).collect::<Option<Vec<_>>>()?;
        servers.iter_mut().for_each(Nats::resume);
        Some(Self { servers })
    }

    /// Returns the addresses of the servers.
    pub fn address(&self) -> String {
        self.servers.iter().map(Nats::address).collect::<Vec<_>>().join(",")
    }
}
