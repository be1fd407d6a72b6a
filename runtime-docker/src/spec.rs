//! What a container is made from.

use std::sync::Arc;

use bollard::models::{ContainerCreateBody, HealthConfig};

use manifold_runtime_api::Module;

use crate::isolation::{Isolation, SOCKET};

/// Everything that makes containers interchangeable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Spec {
    /// The image as the engine knows it.
    pub(crate) image: Arc<str>,
    /// Memory of one job, in bytes.
    pub(crate) memory_bytes: u64,
    pub(crate) isolation: Arc<Isolation>,
    /// What a host runs: modules that may have different authors do not share one.
    pub(crate) hosted: Option<Module>,
}

impl Isolation {
    /// What the engine is told for the container of one job, for those who measure what the engine alone takes for it. Its type is
    /// bollard's and goes with that, so it is no part of the stable interface.
    #[doc(hidden)]
    pub fn job_container(&self, image: &str) -> ContainerCreateBody {
        let memory_bytes = self.memory_bytes;
        Spec { image: image.into(), memory_bytes, isolation: Arc::new(self.clone()), hosted: None }
            .body(None)
    }
}

impl Spec {
    /// A container for one job, which speaks over its standard streams.
    pub(crate) fn for_one_job(&self) -> Box<ContainerCreateBody> {
        Box::new(self.body(None))
    }

    /// A container for many jobs, which connects to the socket in the directory `served_from` of this machine.
    pub(crate) fn for_many_jobs(&self, served_from: &str) -> Box<ContainerCreateBody> {
        let env = vec![format!("MANIFOLD_SOCKET={SOCKET}")];
        Box::new(ContainerCreateBody { env: Some(env), ..self.body(Some(served_from)) })
    }

    fn body(&self, served_from: Option<&str>) -> ContainerCreateBody {
        ContainerCreateBody {
            image: Some(self.image.to_string()),
            // The engine would choose one at random, and the guest would see it.
            hostname: Some("manifold".to_owned()),
            user: Some(self.isolation.user.clone()),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            open_stdin: Some(true),
            // When this process is gone, the guest reads the end of its input.
            stdin_once: Some(true),
            tty: Some(false),
            // The engine would run further processes, by the clock.
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            host_config: Some(self.isolation.host_config(self.memory_bytes, served_from)),
            ..ContainerCreateBody::default()
        }
    }
}
