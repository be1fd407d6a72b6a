//! The client of a container engine: calls with deadlines, on threads of its own.

use std::collections::HashMap;
use std::ffi::CStr;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptions,
};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use super::endpoint;
use super::error::{EngineError, Step, with_causes};
use super::options::EngineOptions;
use super::owner::{self, Owner};
use super::retry::RecentFailure;

/// The connection to an engine, and the threads that use it.
pub(crate) struct Client {
    endpoint: String,
    certificates: Option<PathBuf>,
    /// Why the engine cannot be used.
    problem: Option<String>,
    /// Whether the engine sees the files of this machine, once that is known.
    sees_files: Mutex<Option<bool>>,
    /// Maximum time for one call.
    pub(crate) deadline: Duration,
    /// How many containers are removed at a time by [`Client::sweep`], at least 1.
    at_once: usize,
    docker: tokio::sync::Mutex<Option<Docker>>,
    is_podman: AtomicBool,
    /// The last failure to reach the engine. While it is recent, no containers are started.
    pub(crate) connection_failure: RecentFailure<EngineError>,
    /// The last timeout of a removal. While it is recent, no further removals are tried.
    pub(super) removal_failure: RecentFailure<EngineError>,
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Client {
    /// Creates a client of the engine that `options` describe. Does not connect yet.
    ///
    /// # Errors
    /// Returns an error if the client's threads cannot be started.
    pub(super) fn new(options: &EngineOptions) -> std::io::Result<Self> {
        let start = || {
            Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("manifold-docker")
                .enable_all()
                .build()
        };
        // Tokio panics if it cannot start a thread.
        let runtime = std::panic::catch_unwind(start).map_err(|_| {
            std::io::Error::other("cannot start a thread for the container engine's client")
        })??;
        Ok(Self {
            endpoint: options.endpoint.clone(),
            certificates: options.certificates.clone(),
            problem: options.problem.clone().or_else(|| endpoint::unsupported(&options.endpoint)),
            sees_files: Mutex::new(options.shares_files),
            deadline: options.deadline,
            at_once: options.at_once.max(1),
            docker: tokio::sync::Mutex::new(None),
            is_podman: AtomicBool::new(false),
            connection_failure: RecentFailure::default(),
            removal_failure: RecentFailure::default(),
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Runs `work` on this client's own threads and waits for it. The work continues even if the
    /// returned future is dropped.
    pub(crate) async fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.handle.spawn(work).await.unwrap_or(Err(EngineError::Closed))
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Makes one call to the engine, with the default deadline.
    pub(crate) async fn call<T>(
        &self,
        step: Step,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EngineError> {
        self.call_within(self.deadline, step, call).await
    }

    /// Makes one call to the engine, with its own deadline.
    pub(crate) async fn call_within<T>(
        &self,
        deadline: Duration,
        step: Step,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EngineError> {
        let endpoint = &self.endpoint;
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(EngineError::new(endpoint, step, error)),
            Err(_) => {
                let error = EngineError::TimedOut { endpoint: endpoint.clone(), step, deadline };
                match step {
                    Step::Connect | Step::List | Step::Create | Step::Attach | Step::Start => {
                        self.connection_failure.record(&error)
                    }
                    Step::Remove => self.removal_failure.record(&error),
                    // A timeout for one image or container says nothing about others.
                    Step::Load
                    | Step::InspectImage
                    | Step::Save
                    | Step::ListImages
                    | Step::RemoveImage
                    | Step::AddInit
                    | Step::Wait
                    | Step::Inspect => {}
                }
                Err(error)
            }
        }
    }

    /// Returns the connection. The first call connects, and removes orphaned containers.
    pub(crate) async fn docker(&self) -> Result<Docker, EngineError> {
        let mut connected = self.docker.lock().await;
        if let Some(docker) = &*connected {
            return Ok(docker.clone());
        }
        self.connection_failure.check()?;
        let endpoint = &self.endpoint;
        if let Some(problem) = &self.problem {
            return Err(EngineError::Unusable {
                endpoint: endpoint.clone(),
                problem: problem.clone(),
            });
        }
        let docker = match &self.certificates {
            Some(directory) if !endpoint.starts_with("unix://") => self.with_tls(directory)?,
            _ => Docker::connect_with_host(endpoint)
                .map_err(|error| EngineError::new(endpoint, Step::Connect, error))?,
        };
        // Uploads and waits have deadlines of their own.
        let docker = docker.with_timeout(self.deadline * 30);
        let docker = self.call(Step::Connect, docker.negotiate_version()).await?;
        let version = self.call(Step::Connect, docker.version()).await?;
        let is_podman =
            version.components.iter().flatten().any(|component| component.name.contains("Podman"));
        self.is_podman.store(is_podman, Ordering::Relaxed);
        let platform = version.platform.map(|platform| platform.name).unwrap_or_default();
        self.find_out_about_files(&docker, &platform).await?;
        if let Err(error) = self
            .sweep(&docker, |labels| {
                labels.get(owner::LABEL).is_some_and(|owner| Owner::is_orphan(owner))
            })
            .await
        {
            tracing::warn!("cannot remove all orphaned containers: {error}");
        }
        *connected = Some(docker.clone());
        Ok(docker)
    }

    /// Creates a client that uses TLS with the certificates in `directory`.
    #[cfg(feature = "tls")]
    fn with_tls(&self, directory: &Path) -> Result<Docker, EngineError> {
        let [key, certificate, authority] =
            ["key.pem", "cert.pem", "ca.pem"].map(|name| directory.join(name));
        Docker::connect_with_ssl(
            &self.endpoint,
            &key,
            &certificate,
            &authority,
            self.deadline.as_secs(),
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|error| EngineError::Unusable {
            endpoint: self.endpoint.clone(),
            problem: format!(
                "its certificates in {} cannot be used: {}",
                directory.display(),
                with_causes(&error)
            ),
        })
    }

    /// Errors, because this program was built without TLS.
    #[cfg(not(feature = "tls"))]
    fn with_tls(&self, _: &Path) -> Result<Docker, EngineError> {
        let problem = "this program was built without TLS (feature `tls`)".to_owned();
        Err(EngineError::Unusable { endpoint: self.endpoint.clone(), problem })
    }

    /// Finds out whether the engine sees the files of this machine, unless that is known.
    async fn find_out_about_files(
        &self,
        docker: &Docker,
        platform: &str,
    ) -> Result<(), EngineError> {
        if self.sees_files.lock().is_some() {
            return Ok(());
        }
        // Docker Desktop runs its engine in a virtual machine.
        let mut sees_files = !platform.contains("Docker Desktop");
        if sees_files && !self.endpoint.starts_with("unix://") {
            let info = self.call(Step::Connect, docker.info()).await?;
            let own = rustix::system::uname();
            let is_own = |found: Option<String>, own: &CStr| {
                found.is_some_and(|found| found.as_bytes() == own.to_bytes())
            };
            sees_files =
                is_own(info.name, own.nodename()) && is_own(info.kernel_version, own.release());
        }
        *self.sees_files.lock() = Some(sees_files);
        Ok(())
    }

    /// Returns whether the engine sees the files of this machine. Connects if that is not known.
    pub(crate) async fn sees_files(self: &Arc<Self>) -> Result<bool, EngineError> {
        if let Some(sees_files) = *self.sees_files.lock() {
            return Ok(sees_files);
        }
        let client = Arc::clone(self);
        self.spawn(async move { client.docker().await.map(drop) }).await?;
        Ok(self.sees_files.lock().unwrap_or(true))
    }

    /// Notes that the engine does not see the files of this machine after all.
    pub(super) fn sees_no_files(&self) {
        tracing::debug!("the engine does not see the files of this machine");
        *self.sees_files.lock() = Some(false);
    }

    /// Returns the connection if there is one. Does not connect.
    pub(super) async fn connected(&self) -> Option<Docker> {
        self.docker.lock().await.clone()
    }

    /// Returns whether the engine is Podman. Returns false before the client has connected.
    pub(super) fn is_podman(&self) -> bool {
        self.is_podman.load(Ordering::Relaxed)
    }

    /// Kills and removes a container. Succeeds if it does not exist.
    pub(crate) async fn force_removal(
        &self,
        docker: &Docker,
        container: &str,
    ) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.call(Step::Remove, docker.remove_container(container, Some(options))).await {
            // The container does not exist, or is already being removed.
            Err(EngineError::Refused { code: 404 | 409, .. }) => Ok(()),
            result => result,
        }
    }

    /// Removes the containers with labels for which `unwanted` returns true.
    pub(super) async fn sweep(
        &self,
        docker: &Docker,
        unwanted: impl Fn(&HashMap<String, String>) -> bool,
    ) -> Result<(), EngineError> {
        let mut filters = HashMap::from([("label", vec![owner::LABEL])]);
        if self.is_podman() {
            // Podman has a further status, `stopped`, on the way to `exited`, which bollard cannot
            // parse.
            filters.insert("status", vec!["created", "running", "paused", "exited"]);
        }
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers =
            self.call(Step::List, docker.list_containers(Some(options))).await?.into_iter();
        let ids = containers.filter_map(|container| {
            container
                .labels
                .is_some_and(|labels| unwanted(&labels))
                .then_some(container.id)
                .flatten()
        });
        let mut removals = stream::iter(ids.map(async |id| self.force_removal(docker, &id).await))
            .buffer_unordered(self.at_once);
        let mut outcome = Ok(());
        while let Some(removed) = removals.next().await {
            match removed {
                // The engine may refuse to remove one container and still remove the next.
                Err(error @ EngineError::Refused { .. }) => outcome = Err(error),
                removed => removed?,
            }
        }
        outcome
    }
}

/// Waits until a container ends, or until `patience` has passed. Does not return the exit code,
/// because bollard reports any code other than 0 as an error.
pub(super) async fn wait_for_end(docker: &Docker, name: &str, patience: Duration) {
    let mut ends = docker.wait_container(name, None::<WaitContainerOptions>);
    let _ = tokio::time::timeout(patience, ends.next()).await;
}

impl Drop for Client {
    fn drop(&mut self) {
        // The last reference may be dropped on one of the runtime's own threads, where a blocking
        // shutdown would panic.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
