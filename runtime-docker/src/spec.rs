//! Description of a container: image, memory, isolation and host module, and the engine's request
//! to create it.

use std::sync::Arc;

use bollard::models::{ContainerCreateBody, HealthConfig};

use manifold_runtime_api::ObjectRef;

use crate::isolation::{Isolation, SOCKET};

/// Description of a container. Containers with equal specs are interchangeable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Spec {
    /// The engine's name of the image.
    pub(crate) image: Arc<str>,
    /// Memory of one job, in bytes.
    pub(crate) memory_bytes: u64,
    pub(crate) isolation: Arc<Isolation>,
    /// The module that a host runs. Modules may have different authors, so they do not share a
    /// host.
    pub(crate) hosted: Option<ObjectRef>,
}

impl Isolation {
    /// Returns the engine's request to create the container of one job, for benchmarks of the
    /// engine alone. The type belongs to bollard and changes with it, so this is not part of the
    /// stable interface.
    #[doc(hidden)]
    pub fn job_container(&self, image: &str) -> ContainerCreateBody {
        let memory_bytes = self.memory_bytes;
        Spec { image: image.into(), memory_bytes, isolation: Arc::new(self.clone()), hosted: None }
            .body(None)
    }
}

impl Spec {
    /// Returns the request to create a container for one job, which communicates over its standard
    /// streams.
    pub(crate) fn for_one_job(&self) -> Box<ContainerCreateBody> {
        Box::new(self.body(None))
    }

    /// Returns the request to create a container for many jobs, which connects to the socket in the
    /// directory `served_from` of this machine.
    pub(crate) fn for_many_jobs(&self, served_from: &str) -> Box<ContainerCreateBody> {
        let env = vec![format!("MANIFOLD_SOCKET={SOCKET}")];
        Box::new(ContainerCreateBody { env: Some(env), ..self.body(Some(served_from)) })
    }

    fn body(&self, served_from: Option<&str>) -> ContainerCreateBody {
        ContainerCreateBody {
            image: Some(self.image.to_string()),
            // Otherwise the engine would choose a random name, which the guest could observe.
            hostname: Some("manifold".to_owned()),
            user: Some(self.isolation.user.clone()),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            open_stdin: Some(true),
            // The guest reads the end of its input when this process ends.
            stdin_once: Some(true),
            tty: Some(false),
            // Otherwise the engine would run the image's health check at intervals in the
            // container.
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            host_config: Some(self.isolation.host_config(self.memory_bytes, served_from)),
            ..ContainerCreateBody::default()
        }
    }
}
