//! The state that all requests share ([`Core`]), and the description of one request ([`Keyed`],
//! [`Want`]).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use manifold_runtime_api::{Call, ObjectId, ObjectKind, Result, Runtime};
#[cfg(feature = "functions")]
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::runtime::Handle;

use crate::claim::Claims;
use crate::elsewhere::Sharing;
#[cfg(feature = "functions")]
use crate::function::FunctionRuntime;
use crate::invocation::OwnedRawKey;
use crate::objects::Objects;
use crate::observe::{Counters, Event, Observer};
use crate::permits::Permits;
use crate::registry::Registry;
use crate::resolve::{ResolvedImage, Resolver};
use crate::scope::{Allowance, Scope};
use crate::span::Spans;

/// The shared state of a dispatcher.
pub(crate) struct Core {
    pub(crate) objects: Objects,
    pub(crate) registry: Registry,
    pub(crate) resolver: Resolver,
    pub(crate) claims: Arc<Claims>,
    pub(crate) permits: Arc<Permits>,
    /// The limits and the budget of every root call.
    pub(crate) allowance: Allowance,
    /// The request ids of recent root calls, by raw key.
    pub(crate) raw_keys: Cache<OwnedRawKey, ObjectId>,
    /// The maximum number of nested runs of one `run_many` that are in progress at once.
    pub(crate) width: usize,
    /// `None` if no runs are given away.
    pub(crate) sharing: Option<Sharing>,
    /// The tokio runtime that executes runs. `None` means the runtime of the caller that requests a
    /// run first.
    pub(crate) executor: Option<Handle>,
    pub(crate) counters: Counters,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
    /// `None` if no observer wants spans.
    pub(crate) spans: Option<Spans>,
    /// Whether the provenance of each run is recorded.
    pub(crate) provenance: bool,
    /// The number of the next root call.
    pub(crate) next_root: AtomicU64,
    /// The runtime of memoized functions, once there is one.
    #[cfg(feature = "functions")]
    pub(crate) functions: Mutex<Option<Arc<FunctionRuntime>>>,
}

/// A request whose image is resolved and whose id is known.
#[derive(Clone)]
pub(crate) struct Keyed {
    pub(crate) request: ObjectId,
    pub(crate) image: Arc<ResolvedImage>,
    pub(crate) args: ObjectId,
}

/// How a caller wants a request to be executed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Want {
    /// Whether the outcome must not come from the memo.
    pub(crate) fresh: bool,
    /// Whether the run is for one caller alone, and not memoized.
    pub(crate) private: bool,
    /// Whether a nested object was lost. An outcome from the memo then counts only if everything
    /// that it reaches is available.
    pub(crate) complete: bool,
}

impl Core {
    /// Resolves the image of `call` and computes the id of the request. Calls `charge` with the size
    /// of a tree of arguments that has to be stored, in bytes.
    pub(crate) fn key(
        &self,
        scope: &Scope,
        call: &Call,
        charge: impl FnOnce(usize) -> Result<()>,
    ) -> Result<Keyed> {
        let image = self.resolver.resolve(&call.image, scope.std, &self.objects, &self.registry)?;
        self.objects.check(call.args, ObjectKind::Tree)?;
        let args = image.arguments(call.args, &self.objects, charge)?;
        let request = scope.hashes.key(image.text_blob, args)?;
        Ok(Keyed { request, image, args })
    }

    /// Stores the host image of `runtime` and registers it under `host`.
    pub(crate) fn register(&self, host: ObjectId, runtime: Arc<dyn Runtime>) -> Result<()> {
        for object in runtime.host_image().node().clone().into_objects() {
            self.objects.store.write(object)?;
        }
        self.registry.insert(host, runtime)
    }

    /// Counts and traces an event, and passes it to the observers.
    #[inline]
    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.counters.count(event);
        if !matches!(event, Event::Hit { .. }) {
            event.trace();
        }
        for observer in &self.observers {
            observer.on_event(event);
        }
    }
}
