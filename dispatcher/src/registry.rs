use std::collections::BTreeMap;
use std::sync::Arc;

use manifold_runtime_api::{DockerReference, HostRef, ImageProblem, ObjectId, Runtime};

/// The runtimes, each under the hash of its host image.
#[derive(Default)]
pub(crate) struct Registry {
    runtimes: BTreeMap<ObjectId, Arc<dyn Runtime>>,
}

impl Registry {
    /// Adds `runtime` under `host`; answers the one that had that place.
    pub(crate) fn insert(&mut self, host: ObjectId, runtime: Arc<dyn Runtime>) -> Option<Arc<dyn Runtime>> {
        self.runtimes.insert(host, runtime)
    }

    pub(crate) fn find(&self, host: &HostRef) -> Result<&Arc<dyn Runtime>, ImageProblem> {
        match host {
            HostRef::HostImage(id) => self.runtimes.get(id).ok_or_else(|| self.unknown(host.to_string())),
            HostRef::Container(container) => Err(self.refuse_container(container)),
        }
    }

    /// Why a container can neither be run nor host others: no runtime for containers exists yet.
    pub(crate) fn refuse_container(&self, container: &DockerReference) -> ImageProblem {
        if container.is_by_digest() { self.unknown(container.to_string()) } else { ImageProblem::MovingTag }
    }

    fn unknown(&self, host: String) -> ImageProblem {
        let known = |(id, runtime): (&ObjectId, &Arc<dyn Runtime>)| format!("{id} ({})", runtime.host_image().name());
        ImageProblem::UnknownHost { host, known: self.runtimes.iter().map(known).collect() }
    }
}
