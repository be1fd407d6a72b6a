//! The end of a run: a success is memoized, and the result is reported.

use manifold_runtime_api::{Frame, Limit, ObjectId, ObjectRef, Reason, Result};

use crate::core::{Core, Keyed, Want};
use crate::frame::Seen;
use crate::observe::Event;
use crate::running::Running;
use crate::scope::Scope;
use crate::settled::{Limited, Settled};
use crate::store::{RunRecord, Store};

/// What a run came to.
pub(crate) struct Ended {
    pub(crate) result: Result<ObjectRef>,
    pub(crate) seen: Seen,
    /// What to keep of the run.
    pub(crate) record: Option<RunRecord>,
}

impl Core {
    /// Memoizes the outcome of a run, if the run succeeded and the request alone decided the
    /// outcome. The caller has checked that the outcome's object is available.
    pub(crate) fn settle(
        &self,
        scope: &Scope,
        keyed: &Keyed,
        want: Want,
        ended: Ended,
        run: Running<'_>,
    ) -> Settled {
        let Ended { result, seen, mut record } = ended;
        let request = keyed.request;
        let mut memoized = false;
        let result = result
            .and_then(|outcome| {
                if !seen.impure && !want.private && !run.lead.is_abandoned() {
                    let recomputed = want.fresh || scope.recomputes_all();
                    self.record(recomputed, request, outcome, record.take())?;
                    scope.note_success(request, outcome);
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
        if let Some(record) = record {
            // It is of no importance for the result.
            let _ = self.objects.store.record_run(request, None, record);
        }
        if let Some(span) = &run.lead.span {
            span.settling(memoized);
        }
        let error = result.as_ref().err();
        let breached = seen.breached.and(error.and_then(|error| error.breached_limit()));
        let limited = Limited::of(breached, scope, run.lead.flight().depth);
        let pure = !seen.impure && error.is_none_or(|error| error.is_function_of_request());
        run.end(result.as_ref(), memoized);
        Settled { result, pure, ran: true, root: Some(scope.root), limited, span: None }
    }

    /// Records an outcome in the memo. If the request was recomputed, also reports an outcome that
    /// differs from the memoized one.
    fn record(
        &self,
        recomputed: bool,
        request: ObjectId,
        outcome: ObjectRef,
        record: Option<RunRecord>,
    ) -> Result<()> {
        let store = &self.objects.store;
        if recomputed
            && let Some(memoized) = store.look_up(request)?
            && memoized != outcome
        {
            tracing::warn!(
                %request,
                "the request has another outcome than before: {} instead of {}",
                outcome.id,
                memoized.id
            );
            self.emit(&Event::Diverged { request, memoized: &memoized, recomputed: &outcome });
        }
        match record {
            Some(record) => store.record_run(request, Some(outcome), record),
            None => store.record(request, outcome),
        }
    }

    /// Returns the frame of `keyed` for errors.
    pub(crate) fn frame(&self, keyed: &Keyed) -> Frame {
        let runtime = keyed.image.runtime.host_image().name();
        Frame::new(keyed.request, &*keyed.image.text, runtime).with_args(keyed.args)
    }
}

/// Returns whether no further run of the whole call can succeed.
fn ends_the_call(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::LimitBreached(limit)
            if limit.is_of_call() && !matches!(limit, Limit::Depth { .. })
    )
}
