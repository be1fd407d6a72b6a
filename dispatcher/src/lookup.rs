//! Lookups in the memo.

use manifold_runtime_api::{ObjectId, ObjectRef, Result};

use crate::core::{Core, Want};
use crate::observe::Event;
use crate::scope::Scope;
use crate::span::OpenSpan;

/// The result of a look-up.
pub(crate) enum LookedUp {
    /// The outcome is memoized.
    Found(ObjectRef),
    /// It is not, and the span of the request goes on.
    Nothing(Option<OpenSpan>),
}

impl Core {
    /// Returns the memoized outcome of `request`. An entry whose object is not available or has
    /// another kind counts as none.
    pub(crate) fn look_up(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        let outcome = self.memoized(request)?;
        if outcome.is_some() {
            self.emit(&Event::Hit { request });
        }
        Ok(outcome)
    }

    /// Like [`Core::look_up`], but only returns an outcome that `want` and `scope` accept.
    pub(crate) fn look_up_wanted(
        &self,
        request: ObjectId,
        want: Want,
        scope: &Scope,
    ) -> Result<Option<ObjectRef>> {
        if want.fresh || want.private || scope.is_stale(request) {
            return Ok(None);
        }
        let Some(outcome) = self.memoized(request)? else { return Ok(None) };
        if want.complete && self.objects.missing_below(outcome.id)?.is_some() {
            return Ok(None);
        }
        self.emit(&Event::Hit { request });
        Ok(Some(outcome))
    }

    /// Like [`Core::look_up_wanted`]. Ends `span`, the caller's span of the request, unless nothing is
    /// found.
    pub(crate) fn look_up_or_end(
        &self,
        request: ObjectId,
        want: Want,
        scope: &Scope,
        span: Option<OpenSpan>,
    ) -> Result<LookedUp> {
        match (self.look_up_wanted(request, want, scope), span) {
            (Ok(None), span) => Ok(LookedUp::Nothing(span)),
            (Ok(Some(outcome)), span) => {
                if let Some(span) = span {
                    span.hit(outcome);
                }
                Ok(LookedUp::Found(outcome))
            }
            (Err(error), span) => {
                if let Some(span) = span {
                    span.end(Err(error.clone()), None);
                }
                Err(error)
            }
        }
    }

    /// Like [`Core::look_up`], without emitting [`Event::Hit`].
    pub(crate) fn memoized(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        let store = &self.objects.store;
        let Some((outcome, is_there)) = store.look_up_with_object(request)? else {
            return Ok(None);
        };
        let is_there = is_there || self.objects.kind(outcome.id)? == Some(outcome.kind);
        Ok(is_there.then_some(outcome))
    }
}
