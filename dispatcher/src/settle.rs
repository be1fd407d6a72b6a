use std::sync::Arc;

use manifold_runtime_api::{Frame, Limit, ObjectId, Outcome, Reason, Result};

use crate::claim::Lead;
use crate::core::{Core, Keyed, Want};
use crate::frame::Seen;
use crate::observe::Event;
use crate::scope::Scope;
use crate::settled::{Limited, Settled};

impl Core {
    /// Remembers what a run answered, if it is a success that the request alone decided. Its object was found in the store.
    pub(crate) fn settle(
        &self,
        scope: &Scope,
        keyed: &Keyed,
        want: Want,
        result: Result<Outcome>,
        seen: Seen,
        lead: &Lead,
    ) -> Settled {
        let request = keyed.request;
        let mut memoized = false;
        let result = result
            .and_then(|outcome| {
                if !seen.impure && !want.private && !lead.is_abandoned() {
                    self.remember(want.fresh || scope.recomputes_all(), request, outcome)?;
                    scope.note_success(request);
                    memoized = true;
                }
                Ok(outcome)
            })
            .map_err(|error| {
                let ends_the_call = ends_the_call(error.reason()) && scope.is_breached();
                let error = error.in_frame(self.frame(keyed));
                if ends_the_call {
                    scope.stop(error.clone());
                }
                error
            });
        self.tell(&Event::Settled { request, result: result.as_ref(), memoized });
        let error = result.as_ref().err();
        let limit = seen.limit.or_else(|| error.and_then(|error| error.breached_limit()));
        let limited = limit.map(|limit| {
            let (allowance, depth) = (scope.allowance, lead.flight().depth);
            Arc::new(Limited { limit, root: scope.root, allowance, depth })
        });
        let pure = !seen.impure && error.is_none_or(|error| error.is_function_of_request());
        Settled { result, pure, ran: true, root: Some(scope.root), limited }
    }

    fn remember(&self, again: bool, request: ObjectId, outcome: Outcome) -> Result<()> {
        let store = &self.objects.store;
        if again
            && let Some(remembered) = store.recall(request)?
            && remembered != outcome
        {
            tracing::warn!(%request, "run again, a request had another outcome: {} and not {}", outcome.id, remembered.id);
            self.tell(&Event::Diverged { request, remembered: &remembered, recomputed: &outcome });
        }
        store.remember(request, outcome)
    }

    pub(crate) fn frame(&self, keyed: &Keyed) -> Frame {
        Frame::new(keyed.request, &*keyed.image.text, keyed.image.runtime.host_image().name())
    }
}

/// Whether nothing more of the whole call can succeed.
fn ends_the_call(reason: &Reason) -> bool {
    matches!(reason, Reason::LimitBreached(limit) if limit.is_of_call() && !matches!(limit, Limit::Depth { .. }))
}
