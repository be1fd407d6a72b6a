use std::collections::BTreeMap;
use std::sync::Arc;

use manifold_runtime_api::{HostRef, ImageProblem, ObjectId, Runtime};

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
        let found = match host {
            HostRef::HostImage(id) => self.runtimes.get(id),
            _ => None,
        };
        found.ok_or_else(|| ImageProblem::UnknownHost { host: host.to_string(), known: self.known() })
    }

    pub(crate) fn known(&self) -> Vec<String> {
        self.runtimes.iter().map(|(id, runtime)| format!("{id} ({})", runtime.host_image().name())).collect()
    }
}
