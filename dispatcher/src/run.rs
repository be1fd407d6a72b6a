//! Claim and run: at most one execution of a request at a time, each in a task of its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use futures_util::future::Abortable;
use manifold_runtime_api::{Error, Host, Job, Limit, Outcome, Reason, Result};
use tokio::runtime::Handle;

use crate::claim::{Claim, Claimant, Flight, Lead, Settled, Wait};
use crate::clock::Queueing;
use crate::core::{Core, Keyed, Want};
use crate::frame::FrameHost;
use crate::observe::Event;
use crate::panic_message::panic_message;
use crate::permits::Queued;
use crate::prepare::ReadOnlyHost;
use crate::resolve::ResolvedImage;
use crate::rewind::Rewinds;
use crate::scope::{Allowance, Scope};

impl Core {
    /// Makes sure that `keyed` is being run, and answers a place among those who wait for it.
    pub(crate) fn demand(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        keyed: Keyed,
        want: Want,
        waiter: Option<&Arc<Flight>>,
    ) -> Result<Wait> {
        let runtime = Handle::try_current().map_err(|_| Error::runtime("a dispatcher runs inside a tokio runtime"))?;
        let levels = scope.allowance.budget.depth;
        if waiter.is_some_and(|waiter| waiter.depth >= levels) {
            return Err(Limit::Depth { levels }.into());
        }
        let claimant = Claimant { waiter, clock: &scope.clock, private: want.private };
        match self.claims.claim(keyed.request, &claimant)? {
            Claim::Join(wait) => {
                self.tell(&Event::Joined { request: keyed.request });
                Ok(wait)
            }
            Claim::Run(mut lead, wait) => {
                let queueing = scope.clock.queues();
                // The place in the queue is taken here and not in the task, so that nobody who asks later comes first. Preparing
                // a module may take long, and holds neither place nor permit.
                let prepared = keyed.image.prepared.load(Ordering::Relaxed);
                let queued = prepared.then(|| self.permits.queue(scope.root));
                let registration = lead.registration();
                let run = Arc::clone(self).lead(Arc::clone(scope), keyed, want, lead, queued, queueing);
                match registration {
                    Some(registration) => runtime.spawn(Abortable::new(run, registration).map(drop)),
                    None => runtime.spawn(run),
                };
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
        queued: Option<Queued>,
        queueing: Queueing,
    ) {
        lead.turn().await;
        // Between the caller's look-up and its claim another execution may have settled.
        let settled = match self.look_up_wanted(keyed.request, want, &scope) {
            Ok(Some(outcome)) => Settled::remembered(outcome),
            Err(error) => Settled::lost(error),
            Ok(None) => {
                let queued = match queued {
                    Some(queued) => queued,
                    None => {
                        // A module that cannot be prepared cannot be run, and the run says so with its frame.
                        let _ = self.prepare(&keyed.image).await;
                        self.permits.queue(scope.root)
                    }
                };
                let flight = Arc::clone(lead.flight());
                flight.keep_permit(queued.permit().await);
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
                    let result = self.execute(&scope, &keyed, Arc::clone(&host)).await;
                    let result =
                        result.and_then(|outcome| self.objects.check(outcome.id, outcome.kind).map(|()| outcome));
                    let seen = host.seen();
                    let Some(lost) = rewinds.mendable(&self, &scope, &keyed, &result, seen) else {
                        break self.settle(&scope, &keyed, want, result, seen, &lead);
                    };
                    self.tell(&Event::Rewound { request: keyed.request, lost });
                    want.complete = true;
                    host.resume().await;
                }
            }
        };
        lead.settle(settled);
    }

    /// Has the runtime prepare an image's module.
    pub(crate) async fn prepare(&self, image: &ResolvedImage) -> Result<()> {
        let prepared = image.runtime.prepare(image.module, &self.allowance.limits, &ReadOnlyHost(&self.objects)).await;
        image.prepared.store(true, Ordering::Relaxed);
        prepared
    }

    async fn execute(&self, scope: &Scope, keyed: &Keyed, host: Arc<FrameHost>) -> Result<Outcome> {
        let image = &keyed.image;
        scope.count_run()?;
        let Allowance { limits, budget } = scope.allowance;
        if limits.fuel.or(budget.fuel).is_some() && !image.runtime.capabilities().fuel {
            let name = image.runtime.host_image().name();
            return Err(Error::runtime(format!("runtime {name} measures no fuel, and the call has a bound on it")));
        }
        self.tell(&Event::Started {
            request: keyed.request,
            image: &image.text,
            runtime: image.runtime.host_image().name(),
        });
        let job = Job {
            request: keyed.request,
            image: Arc::clone(&image.text),
            module: image.module,
            args: keyed.args,
            std: scope.std,
            salt: Arc::clone(&scope.salt),
            limits,
            meter: Arc::clone(&scope.meter),
        };
        let run = image.runtime.run(job, host as Arc<dyn Host>);
        AssertUnwindSafe(run)
            .catch_unwind()
            .await
            .unwrap_or_else(|panic| Err(Error::new(Reason::Panicked { message: panic_message(&*panic) })))
    }
}
