//! Claims a request and runs it. A request has at most one execution at a time, and every execution
//! is a task of its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::Abortable;
use manifold_runtime_api::{Error, Host, Job, Limit, ObjectRef, Reason, Result};
use tokio::runtime::Handle;

use crate::claim::{Claim, Claimant, Lead, Wait};
use crate::clock::Queueing;
use crate::core::{Core, Keyed, Want};
use crate::elsewhere::{Elsewhere, Taker};
use crate::flight::Flight;
use crate::frame::FrameHost;
use crate::observe::Event;
use crate::panic_message::panic_message;
use crate::permits::Queued;
use crate::prepare::ReadOnlyHost;
use crate::resolve::ResolvedImage;
use crate::rewind::Rewinds;
use crate::running::Running;
use crate::scope::{Allowance, Scope};
use crate::settle::Ended;
use crate::settled::Settled;
use crate::span::{FrameSpan, OpenSpan, Phase, SpanKind};

impl Core {
    /// Joins the execution of `keyed`, or starts one. Returns a place among its waiters.
    /// `settlements` is [`Claims::settlements`](crate::claim::Claims::settlements) from before the
    /// caller looked the request up. `span` is the caller's span of the request.
    pub(crate) fn join_or_start(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        keyed: Keyed,
        want: Want,
        waiter: Option<&Arc<Flight>>,
        settlements: u64,
        span: Option<OpenSpan>,
    ) -> Result<Wait> {
        let (executor, claim) = match self.claim(scope, &keyed, want, waiter) {
            Ok(claimed) => claimed,
            Err(error) => {
                if let Some(span) = span {
                    span.end(Err(error.clone()), None);
                }
                return Err(error);
            }
        };
        match claim {
            Claim::Join(mut wait) => {
                if let Some(mut span) = span {
                    span.begin(SpanKind::Join);
                    span.enter(Phase::Wait);
                    wait.ends(span);
                }
                wait.flight().join_queue(scope.root, &scope.clock, &self.permits);
                self.emit(&Event::Joined { request: keyed.request });
                Ok(wait)
            }
            Claim::Run(mut lead, registration, wait) => {
                lead.span = span.map(|mut span| {
                    span.begin(SpanKind::Run);
                    FrameSpan::queueing(span)
                });
                // The run is queued here and not in the task, so that no later request is queued
                // before it. A run that has to prepare its module or to wait for an earlier
                // execution is queued in the task: both can take long, and it holds neither a place
                // nor a permit meanwhile.
                let ready = keyed.image.is_prepared(&scope.allowance) && !lead.has_to_wait();
                let queued = ready.then(|| self.enqueue(lead.flight(), scope, &keyed, want, true));
                let run = Arc::clone(self).lead(
                    Arc::clone(scope),
                    keyed,
                    want,
                    lead,
                    queued,
                    settlements,
                );
                executor.spawn(Abortable::new(run, registration));
                Ok(wait)
            }
        }
    }

    /// Claims `keyed`, unless the call may not run it. Returns also what executes the run.
    fn claim(
        &self,
        scope: &Scope,
        keyed: &Keyed,
        want: Want,
        waiter: Option<&Arc<Flight>>,
    ) -> Result<(Handle, Claim)> {
        let executor = match &self.executor {
            Some(executor) => executor.clone(),
            None => Handle::try_current().map_err(|_| {
                Error::runtime(
                    "no tokio runtime is running; run the dispatcher in one or set an executor",
                )
            })?,
        };
        let levels = scope.allowance.budget.depth;
        if waiter.is_some_and(|waiter| waiter.depth >= levels) {
            return Err(Limit::Depth { levels }.into());
        }
        if scope.bounds_fuel_in_vain(keyed) {
            let name = keyed.image.runtime.host_image().name();
            let problem =
                format!("runtime {name} measures no fuel, but the call has a bound on fuel");
            return Err(Error::runtime(problem).in_frame(self.frame(keyed)));
        }
        let claimant = Claimant { waiter, clock: &scope.clock, private: want.private };
        Ok((executor, self.claims.claim(keyed.request, &claimant)?))
    }

    async fn lead(
        self: Arc<Self>,
        scope: Arc<Scope>,
        keyed: Keyed,
        want: Want,
        lead: Lead,
        queued: Option<(Queued, Queueing)>,
        settlements: u64,
    ) {
        lead.turn().await;
        let enter = |phase| lead.span.iter().for_each(|span| span.enter(phase));
        // Another execution may have settled between the caller's lookup and its claim.
        let memoized = if self.claims.settlements(keyed.request) == settlements {
            Ok(None)
        } else {
            enter(Phase::LookUp);
            let found = self.look_up_wanted(keyed.request, want, &scope);
            enter(Phase::Queue);
            found
        };
        let settled = match memoized {
            Ok(Some(outcome)) => Settled::from_memo(outcome),
            Err(error) => Settled::failed(error),
            Ok(None) => self.run_claimed(&scope, &keyed, want, &lead, queued).await,
        };
        lead.settle(settled);
    }

    /// Runs a request that was claimed, here or elsewhere.
    async fn run_claimed(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        keyed: &Keyed,
        want: Want,
        lead: &Lead,
        mut queued: Option<(Queued, Queueing)>,
    ) -> Settled {
        let enter = |phase| lead.span.iter().for_each(|span| span.enter(phase));
        let flight = lead.flight();
        let mut may_leave = true;
        loop {
            let (queued, queueing) = match queued.take() {
                Some(queued) => queued,
                None => {
                    let _compiling = scope.clock.queue();
                    enter(Phase::Prepare);
                    // The error is ignored: a module that cannot be prepared cannot be run
                    // either, and the error of the run has a frame.
                    let _ = self.prepare(&keyed.image, &scope.allowance).await;
                    enter(Phase::Queue);
                    self.enqueue(flight, scope, keyed, want, may_leave)
                }
            };
            let permit = queued.permit().await;
            let taken = self.sharing.as_ref().and_then(|_| flight.take_taker());
            let (taker, queueing) = match taken {
                Some(taker) => {
                    drop(permit);
                    (taker, Some(queueing))
                }
                None => {
                    flight.begin(permit, queueing);
                    match self.run_here(scope, keyed, want, lead).await {
                        Ok(settled) => return settled,
                        Err(taker) => (taker, None),
                    }
                }
            };
            enter(Phase::Wait);
            // Few runs are given away, and every waiting run would be as large as this future.
            let elsewhere = Box::pin(self.run_elsewhere(scope, keyed, flight, queueing, taker));
            match elsewhere.await {
                Elsewhere::Settled(settled) => {
                    if settled.result.is_ok() {
                        lead.span.iter().for_each(|span| span.arrived());
                    }
                    return settled;
                }
                Elsewhere::GivenBack => {}
                Elsewhere::Refused => may_leave = false,
            }
        }
    }

    /// Runs a request with the permit of its flight. Returns who takes the run over if it is stopped for
    /// that.
    async fn run_here(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        keyed: &Keyed,
        mut want: Want,
        lead: &Lead,
    ) -> Result<Settled, Taker> {
        let enter = |phase| lead.span.iter().for_each(|span| span.enter(phase));
        let flight = lead.flight();
        let mut rewinds = Rewinds::default();
        let run = Running::start(self, keyed, lead);
        let may_leave = self.may_leave(want, scope);
        if let Some(sharing) = self.sharing.as_ref().filter(|_| may_leave) {
            sharing.begins(flight);
        }
        loop {
            let host = Arc::new(FrameHost::new(
                Arc::clone(self),
                Arc::clone(scope),
                keyed,
                want,
                Arc::clone(flight),
                lead.span.clone(),
            ));
            let execution = self.execute(scope, keyed, Arc::clone(&host));
            let watched = host.suspension().watched(execution);
            let result = if may_leave {
                flight.until_taken(watched).await.inspect_err(|_| flight.stop())?
            } else {
                watched.await
            };
            enter(Phase::Store);
            let result = result
                .and_then(|outcome| self.objects.check(outcome.id, outcome.kind).map(|()| outcome));
            let seen = host.seen();
            let Some(lost) = rewinds.recoverable(self, scope, keyed, &result, seen) else {
                let record = if self.provenance && !want.private {
                    // It is of no importance for the outcome. A store that fails also fails
                    // to record that.
                    let wanted = host.take_wanted();
                    self.run_record(scope, keyed, &wanted, result.as_ref().err()).unwrap_or(None)
                } else {
                    None
                };
                return Ok(self.settle(scope, keyed, want, Ended { result, seen, record }, run));
            };
            self.emit(&Event::Rewound { request: keyed.request, lost });
            want.complete = true;
            lead.span.iter().for_each(|span| span.rewound());
            enter(Phase::Queue);
            if !flight.has_permit() {
                let _queueing = scope.clock.queue();
                flight.keep_permit(self.permits.queue(scope.root).permit().await);
            }
            enter(Phase::Compute);
        }
    }

    /// Queues `flight` for a permit. The call's clock counts it as queueing until the guard is
    /// dropped.
    fn enqueue(
        &self,
        flight: &Arc<Flight>,
        scope: &Scope,
        keyed: &Keyed,
        want: Want,
        may_leave: bool,
    ) -> (Queued, Queueing) {
        let queueing = scope.clock.queue();
        let offer = || if may_leave { self.offer(keyed, want, scope, flight) } else { None };
        let queued = self.permits.queue_run(scope.root, offer);
        flight.queue(&queued, scope.root, &self.permits);
        (queued, queueing)
    }

    /// Makes the runtime prepare the module of an image.
    pub(crate) async fn prepare(&self, image: &ResolvedImage, allowance: &Allowance) -> Result<()> {
        let mut limits = allowance.limits;
        limits.fuel = allowance.fuel_bound();
        let prepared =
            image.runtime.prepare(&image.code, &limits, &ReadOnlyHost(&self.objects)).await;
        image.prepared.set(limits.fuel.is_some());
        prepared
    }

    async fn execute(
        &self,
        scope: &Scope,
        keyed: &Keyed,
        host: Arc<FrameHost>,
    ) -> Result<ObjectRef> {
        let image = &keyed.image;
        scope.count_run()?;
        let job = Job::new(keyed.request, Arc::clone(&image.text), image.code.clone(), keyed.args)
            .std(scope.std)
            .salt(Arc::clone(&scope.salt))
            .limits(scope.allowance.limits)
            .meter(Arc::clone(&scope.meter));
        let run = image.runtime.run(job, host as Arc<dyn Host>);
        AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|panic| {
            Err(Error::new(Reason::Panicked { message: panic_message(&*panic) }))
        })
    }
}
