//! Claim and run: at most one execution of a request at a time, each in a task of its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use futures_util::future::Abortable;
use manifold_runtime_api::{Error, Host, Job, Limit, Outcome, Reason, Result};
use tokio::runtime::Handle;

use crate::claim::{Claim, Claimant, Lead, Wait};
use crate::clock::Queueing;
use crate::core::{Core, Keyed, Want};
use crate::flight::Flight;
use crate::frame::FrameHost;
use crate::observe::Event;
use crate::panic_message::panic_message;
use crate::permits::Queued;
use crate::prepare::ReadOnlyHost;
use crate::resolve::ResolvedImage;
use crate::rewind::Rewinds;
use crate::scope::{Allowance, Scope};
use crate::settled::Settled;

impl Core {
    /// Makes sure that `keyed` is being run, and answers a place among those who wait for it.
    pub(crate) fn demand(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        keyed: Keyed,
        want: Want,
        waiter: Option<&Arc<Flight>>,
    ) -> Result<Wait> {
        let executor = match &self.executor {
            Some(executor) => executor.clone(),
            None => Handle::try_current()
                .map_err(|_| Error::runtime("a dispatcher runs inside a tokio runtime"))?,
        };
        let levels = scope.allowance.budget.depth;
        if waiter.is_some_and(|waiter| waiter.depth >= levels) {
            return Err(Limit::Depth { levels }.into());
        }
        let measures = keyed.image.runtime.capabilities().fuel;
        if !measures && scope.allowance.fuel_bound().is_some() {
            let name = keyed.image.runtime.host_image().name();
            let problem =
                format!("runtime {name} measures no fuel, and the call has a bound on it");
            return Err(Error::runtime(problem).in_frame(self.frame(&keyed)));
        }
        let claimant = Claimant { waiter, clock: &scope.clock, private: want.private };
        match self.claims.claim(keyed.request, &claimant)? {
            Claim::Join(wait) => {
                wait.flight().is_wanted_by(scope.root, &scope.clock, &self.permits);
                self.tell(&Event::Joined { request: keyed.request });
                Ok(wait)
            }
            Claim::Run(lead, registration, wait) => {
                // The place in the queue is taken here and not in the task, so that nobody who asks later comes first. Preparing
                // a module may take long, and so may an earlier execution's end: they hold neither place nor permit.
                let ready = keyed.image.is_prepared(&scope.allowance) && !lead.has_to_wait();
                let queued = ready.then(|| self.enqueue(lead.flight(), scope));
                let run = Arc::clone(self).lead(Arc::clone(scope), keyed, want, lead, queued);
                executor.spawn(Abortable::new(run, registration));
                Ok(wait)
            }
        }
    }

    async fn lead(
        self: Arc<Self>,
        scope: Arc<Scope>,
        keyed: Keyed,
        mut want: Want,
        lead: Lead,
        queued: Option<(Queued, Queueing)>,
    ) {
        lead.turn().await;
        // Between the caller's look-up and its claim another execution may have settled.
        let settled = match self.look_up_wanted(keyed.request, want, &scope) {
            Ok(Some(outcome)) => Settled::remembered(outcome),
            Err(error) => Settled::lost(error),
            Ok(None) => {
                let flight = Arc::clone(lead.flight());
                let (queued, queueing) = match queued {
                    Some(queued) => queued,
                    None => {
                        let _compiling = scope.clock.queues();
                        // A module that cannot be prepared cannot be run, and the run says so with its frame.
                        let _ = self.prepare(&keyed.image, &scope.allowance).await;
                        self.enqueue(&flight, &scope)
                    }
                };
                flight.keep_permit(queued.permit().await);
                flight.begins();
                drop(queueing);
                let mut rewinds = Rewinds::default();
                loop {
                    let host = Arc::new(FrameHost::new(
                        Arc::clone(&self),
                        Arc::clone(&scope),
                        &keyed,
                        want,
                        Arc::clone(&flight),
                    ));
                    let result =
                        host.watched(self.execute(&scope, &keyed, Arc::clone(&host))).await;
                    let result = result.and_then(|outcome| {
                        self.objects.check(outcome.id, outcome.kind).map(|()| outcome)
                    });
                    let seen = host.seen();
                    let Some(lost) = rewinds.mendable(&self, &scope, &keyed, &result, seen) else {
                        break self.settle(&scope, &keyed, want, result, seen, &lead);
                    };
                    self.tell(&Event::Rewound { request: keyed.request, lost });
                    want.complete = true;
                    if !flight.has_permit() {
                        let _queueing = scope.clock.queues();
                        flight.keep_permit(self.permits.queue(scope.root).permit().await);
                    }
                }
            }
        };
        lead.settle(settled);
    }

    /// Takes a place in the queue, and has the call's clock stand still meanwhile.
    fn enqueue(&self, flight: &Flight, scope: &Scope) -> (Queued, Queueing) {
        let queueing = scope.clock.queues();
        let queued = self.permits.queue(scope.root);
        flight.queues(&queued, scope.root, &self.permits);
        (queued, queueing)
    }

    /// Has the runtime prepare an image's module.
    pub(crate) async fn prepare(&self, image: &ResolvedImage, allowance: &Allowance) -> Result<()> {
        let mut limits = allowance.limits;
        limits.fuel = allowance.fuel_bound();
        let prepared =
            image.runtime.prepare(&image.code, &limits, &ReadOnlyHost(&self.objects)).await;
        image.prepared[usize::from(limits.fuel.is_some())].store(true, Ordering::Relaxed);
        prepared
    }

    async fn execute(&self, scope: &Scope, keyed: &Keyed, host: Arc<FrameHost>) -> Result<Outcome> {
        let image = &keyed.image;
        scope.count_run()?;
        self.tell(&Event::Started {
            request: keyed.request,
            image: &image.text,
            runtime: image.runtime.host_image().name(),
        });
        let job = Job {
            request: keyed.request,
            image: Arc::clone(&image.text),
            code: image.code.clone(),
            args: keyed.args,
            std: scope.std,
            salt: Arc::clone(&scope.salt),
            limits: scope.allowance.limits,
            meter: Arc::clone(&scope.meter),
        };
        let run = image.runtime.run(job, host as Arc<dyn Host>);
        AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|panic| {
            Err(Error::new(Reason::Panicked { message: panic_message(&*panic) }))
        })
    }
}
