//! [`Registry`]: the registered runtimes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use manifold_runtime_api::{
    DockerReference, Error, HostImage, ImageProblem, ObjectId, Result, Runtime,
};
use parking_lot::RwLock;

/// The registered runtimes, by the hash of their host image.
#[derive(Default)]
pub(crate) struct Registry(RwLock<State>);

#[derive(Default)]
struct State {
    runtimes: BTreeMap<ObjectId, Arc<dyn Runtime>>,
    /// The runtime for images that are named by `docker://`, and for modules whose host is such an
    /// image.
    containers: Option<Arc<dyn Runtime>>,
}

impl Registry {
    /// Registers `runtime` under `host`.
    ///
    /// # Errors
    /// [`Reason::RuntimeFailed`](manifold_runtime_api::Reason::RuntimeFailed) if another runtime is
    /// registered there.
    pub(crate) fn insert(&self, host: ObjectId, runtime: Arc<dyn Runtime>) -> Result<()> {
        match self.0.write().runtimes.entry(host) {
            Entry::Vacant(vacant) => {
                vacant.insert(runtime);
                Ok(())
            }
            Entry::Occupied(other) => {
                let names = [other.get().host_image().name(), runtime.host_image().name()];
                let [first, second] = names;
                Err(Error::runtime(format!(
                    "runtimes {first} and {second} are both registered for host image {host}"
                )))
            }
        }
    }

    /// Sets the runtime for containers.
    ///
    /// # Errors
    /// [`Reason::RuntimeFailed`](manifold_runtime_api::Reason::RuntimeFailed) if `runtime` cannot
    /// run containers.
    pub(crate) fn set_containers(&self, runtime: Arc<dyn Runtime>) -> Result<()> {
        if !runtime.capabilities().containers {
            let name = runtime.host_image().name();
            return Err(Error::runtime(format!("runtime {name} cannot run containers")));
        }
        self.0.write().containers = Some(runtime);
        Ok(())
    }

    /// Returns the host images of all registered runtimes, in the order of their ids.
    pub(crate) fn host_images(&self) -> Vec<HostImage> {
        self.0.read().runtimes.values().map(|runtime| runtime.host_image().clone()).collect()
    }

    /// Returns the runtime that is registered under the host image hash `host`.
    pub(crate) fn find(&self, host: ObjectId) -> Result<Arc<dyn Runtime>, ImageProblem> {
        let state = self.0.read();
        let known = |(id, runtime): (&ObjectId, &Arc<dyn Runtime>)| {
            format!("{id} ({})", runtime.host_image().name())
        };
        state.runtimes.get(&host).cloned().ok_or_else(|| ImageProblem::UnknownHost {
            host: host.to_string(),
            known: state.runtimes.iter().map(known).collect(),
        })
    }

    /// Returns the runtime for `container`, whether it is a guest or a host.
    pub(crate) fn for_container(
        &self,
        container: &DockerReference,
    ) -> Result<Arc<dyn Runtime>, ImageProblem> {
        if !container.is_by_digest() {
            return Err(ImageProblem::MovingTag);
        }
        self.0.read().containers.clone().ok_or(ImageProblem::NoContainers)
    }
}
