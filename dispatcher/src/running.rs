//! [`Running`]: a started run, for the observer.

use manifold_runtime_api::{Error, ObjectId, ObjectRef, Reason};

use crate::claim::Lead;
use crate::core::{Core, Keyed};
use crate::observe::Event;

/// A run that has started. When it is dropped before its end, because it is cancelled or because
/// the dispatcher panics, the observer is told that it was cancelled.
pub(crate) struct Running<'a> {
    core: &'a Core,
    request: ObjectId,
    pub(crate) lead: &'a Lead,
    ended: bool,
}

impl<'a> Running<'a> {
    /// Emits [`Event::Started`].
    pub(crate) fn start(core: &'a Core, keyed: &Keyed, lead: &'a Lead) -> Self {
        core.emit(&Event::Started {
            request: keyed.request,
            args: keyed.args,
            image: &keyed.image.text,
            runtime: keyed.image.runtime.host_image().name(),
        });
        if let Some(span) = &lead.span {
            span.started();
        }
        Self { core, request: keyed.request, lead, ended: false }
    }

    /// Emits [`Event::Settled`].
    pub(crate) fn end(mut self, result: Result<&ObjectRef, &Error>, memoized: bool) {
        self.ended = true;
        self.core.emit(&Event::Settled { request: self.request, result, memoized });
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let error = Error::new(Reason::Cancelled);
            let (request, result) = (self.request, Err(&error));
            self.core.emit(&Event::Settled { request, result, memoized: false });
        }
    }
}
