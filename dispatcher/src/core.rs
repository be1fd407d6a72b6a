//! The parts that a request passes through, and what all requests share.

use std::sync::Arc;

use manifold_runtime_api::{Call, Limits, ObjectId, ObjectKind, RequestScope, Result};

use crate::claim::Claims;
use crate::objects::Objects;
use crate::observe::{Counters, Event, Observer};
use crate::permits::{Permits, RootId};
use crate::registry::Registry;
use crate::resolve::{ResolvedImage, Resolver};

pub(crate) struct Core {
    pub(crate) objects: Objects,
    pub(crate) registry: Registry,
    pub(crate) resolver: Resolver,
    pub(crate) claims: Arc<Claims>,
    pub(crate) permits: Arc<Permits>,
    pub(crate) limits: Limits,
    /// How many nested runs of one frame are under way at once.
    pub(crate) width: usize,
    pub(crate) counters: Counters,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

/// What a call from outside and everything it leads to have in common.
pub(crate) struct Scope {
    pub(crate) root: RootId,
    pub(crate) salt: Arc<str>,
    pub(crate) std: Option<ObjectId>,
    pub(crate) hashes: RequestScope,
}

/// A request that is resolved and has its key.
pub(crate) struct Keyed {
    pub(crate) request: ObjectId,
    pub(crate) image: Arc<ResolvedImage>,
    pub(crate) args: ObjectId,
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

    pub(crate) fn tell(&self, event: &Event<'_>) {
        self.counters.count(event);
        if let Some(observer) = &self.observer {
            observer.on_event(event);
        }
    }
}
