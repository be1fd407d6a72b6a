use std::collections::BTreeMap;
use std::sync::Arc;

use manifold_runtime_api::{DockerReference, ImageProblem, ObjectId, Runtime};

/// The runtimes, each under the hash of its host image.
pub(crate) struct Registry {
    runtimes: BTreeMap<ObjectId, Arc<dyn Runtime>>,
    /// Runs the images that are named by `docker://`, and those whose hosts are.
    containers: Option<Arc<dyn Runtime>>,
}

impl Registry {
    pub(crate) fn new(containers: Option<Arc<dyn Runtime>>) -> Self {
        Self { runtimes: BTreeMap::new(), containers }
    }

    /// Adds `runtime` under `host`; answers the one that had that place.
    pub(crate) fn insert(
        &mut self,
        host: ObjectId,
        runtime: Arc<dyn Runtime>,
    ) -> Option<Arc<dyn Runtime>> {
        self.runtimes.insert(host, runtime)
    }

    /// The runtime whose host image is `host`.
    pub(crate) fn find(&self, host: ObjectId) -> Result<&Arc<dyn Runtime>, ImageProblem> {
        let known = |(id, runtime): (&ObjectId, &Arc<dyn Runtime>)| {
            format!("{id} ({})", runtime.host_image().name())
        };
        self.runtimes.get(&host).ok_or_else(|| ImageProblem::UnknownHost {
            host: host.to_string(),
            known: self.runtimes.iter().map(known).collect(),
        })
    }

    /// The runtime for `container`, as a guest or as a host.
    pub(crate) fn for_container(
        &self,
        container: &DockerReference,
    ) -> Result<&Arc<dyn Runtime>, ImageProblem> {
        if !container.is_by_digest() {
            return Err(ImageProblem::MovingTag);
        }
        self.containers.as_ref().ok_or(ImageProblem::NoContainers)
    }
}
