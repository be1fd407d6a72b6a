//! Which engine is used: found as the `docker` command finds it.
//!
//! `DOCKER_HOST` names the engine, or `DOCKER_CONTEXT` a context, or the file `config.json` of the
//! `docker` command its current context
//! ([documentation](https://docs.docker.com/engine/manage-resources/contexts/)). Otherwise it is the
//! engine of this machine.

use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::images::hex;

/// The address of an engine, and the directory with the certificates for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) certificates: Option<PathBuf>,
    /// Why the engine that the user chose cannot be used.
    pub(super) problem: Option<String>,
}

/// The engine of this machine.
const OWN: &str = "unix:///var/run/docker.sock";
/// The name of the context that means no context.
const NO_CONTEXT: &str = "default";

impl Endpoint {
    fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), certificates: None, problem: None }
    }

    /// Returns the engine that the environment and the settings of this user name.
    pub(super) fn of_user() -> Self {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let directory = variable("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| env::home_dir().map(|home| home.join(".docker")));
        Self::find(|name| variable(name)?.into_string().ok(), directory.as_deref())
    }

    /// Returns the engine that `variable` and the settings in `directory` name.
    fn find(variable: impl Fn(&str) -> Option<String>, directory: Option<&Path>) -> Self {
        if let Some(address) = variable("DOCKER_HOST") {
            let mut endpoint = Self::new(address);
            let is_tcp = endpoint.address.starts_with("tcp://");
            if is_tcp && (variable("DOCKER_TLS_VERIFY").or(variable("DOCKER_CERT_PATH"))).is_some()
            {
                let named = variable("DOCKER_CERT_PATH").map(PathBuf::from);
                endpoint.certificates = named.or(directory.map(Path::to_owned));
            }
            return endpoint;
        }
        let Some(directory) = directory else { return Self::new(OWN) };
        let context = variable("DOCKER_CONTEXT").or_else(|| {
            let settings = fs::read(directory.join("config.json")).ok()?;
            serde_json::from_slice::<Settings>(&settings).ok()?.current_context
        });
        match context {
            Some(name) if !name.is_empty() && name != NO_CONTEXT => Self::context(&name, directory),
            _ => Self::new(OWN),
        }
    }

    /// Returns the engine of a context.
    fn context(name: &str, directory: &Path) -> Self {
        let id = hex(&Sha256::digest(name));
        let file = directory.join("contexts/meta").join(&id).join("meta.json");
        let described = fs::read(&file).map_err(|error| error.to_string()).and_then(|content| {
            serde_json::from_slice::<Context>(&content).map_err(|error| error.to_string())
        });
        match described {
            Ok(context) => {
                let certificates = directory.join("contexts/tls").join(&id).join("docker");
                Self {
                    certificates: certificates.is_dir().then_some(certificates),
                    ..Self::new(context.endpoints.docker.host)
                }
            }
            Err(error) => {
                let problem = format!(
                    "the Docker context {name} cannot be read from {}: {error}",
                    file.display()
                );
                Self { problem: Some(problem), ..Self::new(format!("the context {name}")) }
            }
        }
    }
}

/// Returns why the engine at `address` cannot be reached, if its kind of address is not supported.
pub(super) fn unsupported(address: &str) -> Option<String> {
    let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        "unix" | "tcp" | "http" | "https" => None,
        "ssh" => {
            let host = address.trim_start_matches("ssh://").split('/').next().unwrap_or_default();
            Some(format!(
                "engines are not reached over ssh; forward the engine's socket with `ssh -nNT -L \
                 /tmp/docker.sock:/var/run/docker.sock {host}` and use \
                 DOCKER_HOST=unix:///tmp/docker.sock"
            ))
        }
        _ => Some(format!(
            "{address:?} is no address of an engine: expected unix:///path or tcp://host:port"
        )),
    }
}

#[derive(Deserialize)]
struct Settings {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

#[derive(Deserialize)]
struct Context {
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: DockerEndpoint,
}

#[derive(Deserialize)]
struct DockerEndpoint {
    #[serde(rename = "Host")]
    host: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)], directory: &Path) -> Endpoint {
        let variable = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Endpoint::find(variable, Some(directory))
    }

    fn describe(directory: &Path, name: &str, content: &str) -> PathBuf {
        let id = hex(&Sha256::digest(name));
        let meta = directory.join("contexts/meta").join(&id);
        fs::create_dir_all(&meta).unwrap();
        fs::write(meta.join("meta.json"), content).unwrap();
        directory.join("contexts/tls").join(&id).join("docker")
    }

    #[test]
    fn the_engine_is_found_as_docker_finds_it() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        assert_eq!(found(&[], place), Endpoint::new(OWN));
        let tcp = ("DOCKER_HOST", "tcp://host:2376");
        assert_eq!(found(&[tcp], place), Endpoint::new("tcp://host:2376"));
        let with = |directory: &Path| Endpoint {
            certificates: Some(directory.to_owned()),
            ..Endpoint::new("tcp://host:2376")
        };
        assert_eq!(found(&[tcp, ("DOCKER_TLS_VERIFY", "1")], place), with(place));
        let path = ("DOCKER_CERT_PATH", "/certs");
        assert_eq!(found(&[tcp, path], place), with(Path::new("/certs")));
        let unix = ("DOCKER_HOST", "unix:///x");
        assert_eq!(found(&[unix, path], place), Endpoint::new("unix:///x"));

        let meta = r#"{"Name":"c","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://host:2376","SkipTLSVerify":false}}}"#;
        let certificates = describe(place, "c", meta);
        fs::write(place.join("config.json"), r#"{"auths":{},"currentContext":"c"}"#).unwrap();
        assert_eq!(found(&[], place), Endpoint::new("tcp://host:2376"));
        fs::create_dir_all(&certificates).unwrap();
        assert_eq!(found(&[], place), with(&certificates));
        // The variables come first.
        assert_eq!(found(&[unix], place), Endpoint::new("unix:///x"));
        assert_eq!(found(&[("DOCKER_CONTEXT", "default")], place), Endpoint::new(OWN));
        let missing = found(&[("DOCKER_CONTEXT", "missing")], place);
        assert!(missing.problem.unwrap().starts_with("the Docker context missing cannot be read"));
        describe(place, "broken", "{}");
        let broken = found(&[("DOCKER_CONTEXT", "broken")], place);
        assert!(broken.problem.unwrap().contains("Endpoints"));
    }

    #[test]
    fn addresses_that_are_not_supported_are_explained() {
        for address in ["unix:///x", "tcp://h:1", "http://h:1", "https://h:1"] {
            assert_eq!(unsupported(address), None);
        }
        let ssh = unsupported("ssh://user@host/path").unwrap();
        assert!(ssh.contains("docker.sock user@host` and use"), "{ssh}");
        assert!(unsupported("npipe:////./pipe/x").unwrap().contains("expected unix:///path"));
        assert!(unsupported("host:2375").unwrap().contains("\"host:2375\" is no address"));
    }
}
