//! The parts that a request passes through, and what all requests share.

use std::sync::Arc;

use manifold_runtime_api::{Call, ObjectId, ObjectKind, Result};
use quick_cache::sync::Cache;
use tokio::runtime::Handle;

use crate::claim::Claims;
use crate::invocation::OwnedSpelling;
use crate::objects::Objects;
use crate::observe::{Counters, Event, Observer};
use crate::permits::Permits;
use crate::registry::Registry;
use crate::resolve::{ResolvedImage, Resolver};
use crate::scope::{Allowance, Scope};

pub(crate) struct Core {
    pub(crate) objects: Objects,
    pub(crate) registry: Registry,
    pub(crate) resolver: Resolver,
    pub(crate) claims: Arc<Claims>,
    pub(crate) permits: Arc<Permits>,
    /// What every call may use up.
    pub(crate) allowance: Allowance,
    /// The requests that calls from outside came down to.
    pub(crate) spellings: Cache<OwnedSpelling, ObjectId>,
    /// How many nested runs of one frame are under way at once.
    pub(crate) width: usize,
    /// Where runs are executed; `None` is wherever they are asked for first.
    pub(crate) executor: Option<Handle>,
    pub(crate) counters: Counters,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

/// A request that is resolved and has its key.
#[derive(Clone)]
pub(crate) struct Keyed {
    pub(crate) request: ObjectId,
    pub(crate) image: Arc<ResolvedImage>,
    pub(crate) args: ObjectId,
}

/// How a request is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Want {
    /// Not from the memo.
    pub(crate) fresh: bool,
    /// For one caller alone, and not to be remembered.
    pub(crate) private: bool,
    /// Something was lost below: an outcome from the memo counts only if all that it reaches is there.
    pub(crate) complete: bool,
}

impl Core {
    /// Resolve and key: from a call to the request that is looked up.
    pub(crate) fn key(&self, scope: &Scope, call: &Call) -> Result<Keyed> {
        let image = self.resolver.resolve(&call.image, scope.std, &self.objects, &self.registry)?;
        self.objects.check(call.args, ObjectKind::Tree)?;
        let args = image.arguments(call.args, &self.objects)?;
        let request = scope.hashes.key(image.text_blob, args)?;
        Ok(Keyed { request, image, args })
    }

    #[inline]
    pub(crate) fn tell(&self, event: &Event<'_>) {
        self.counters.count(event);
        if !matches!(event, Event::Hit { .. }) {
            event.trace();
        }
        if let Some(observer) = &self.observer {
            observer.on_event(event);
        }
    }
}
