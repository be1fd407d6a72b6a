//! Claim and run: at most one execution of a request at a time, each in a task of its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use manifold_runtime_api::{Error, Host, Job, Outcome, Reason, Result};
use tokio::runtime::Handle;

use crate::claim::{Claim, Flight, Lead, Settled, Wait};
use crate::core::{Core, Keyed, Scope};
use crate::frame::FrameHost;
use crate::observe::Event;
use crate::panic_message::panic_message;
use crate::permits::Queued;
use crate::prepare::ReadOnlyHost;
use crate::resolve::ResolvedImage;

impl Core {
    /// Makes sure that `keyed` is being run, and answers a place among those who wait for it.
    pub(crate) fn demand(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        keyed: Keyed,
        waiter: Option<&Arc<Flight>>,
    ) -> Result<Wait> {
        let runtime = Handle::try_current().map_err(|_| Error::runtime("a dispatcher runs inside a tokio runtime"))?;
        match self.claims.claim(waiter, keyed.request)? {
            Claim::Join(wait) => {
                self.tell(&Event::Joined { request: keyed.request });
                Ok(wait)
            }
            Claim::Run(lead, wait) => {
                let flight = Arc::clone(lead.flight());
                // The place in the queue is taken here and not in the task, so that nobody who asks later comes first. Preparing
                // a module may take long, and holds neither place nor permit.
                let prepared = keyed.image.prepared.load(Ordering::Relaxed);
                let queued = prepared.then(|| self.permits.queue(scope.root));
                let task = runtime.spawn(Arc::clone(self).lead(Arc::clone(scope), keyed, lead, queued));
                Lead::runs_in(&flight, task.abort_handle());
                Ok(wait)
            }
        }
    }

    async fn lead(self: Arc<Self>, scope: Arc<Scope>, keyed: Keyed, lead: Lead, queued: Option<Queued>) {
        lead.turn().await;
        // Between the caller's look-up and its claim another execution may have settled.
        let settled = match self.look_up(keyed.request) {
            Ok(Some(outcome)) => Settled { result: Ok(outcome), pure: true },
            Err(error) => Settled { result: Err(error), pure: false },
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
                let host = FrameHost::new(Arc::clone(&self), Arc::clone(&scope), keyed.request, flight);
                let host = Arc::new(host);
                let result = self.execute(&scope, &keyed, Arc::clone(&host)).await;
                self.settle(&keyed, result, host.saw_impure(), &lead)
            }
        };
        lead.settle(settled);
    }

    /// Has the runtime prepare an image's module.
    pub(crate) async fn prepare(&self, image: &ResolvedImage) -> Result<()> {
        let prepared = image.runtime.prepare(image.module, &self.limits, &ReadOnlyHost(&self.objects)).await;
        image.prepared.store(true, Ordering::Relaxed);
        prepared
    }

    async fn execute(&self, scope: &Scope, keyed: &Keyed, host: Arc<FrameHost>) -> Result<Outcome> {
        let image = &keyed.image;
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
            limits: self.limits,
        };
        let run = image.runtime.run(job, host as Arc<dyn Host>);
        AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|panic| {
            Err(Error::new(Reason::Panicked { message: panic_message(&*panic) }))
        })
    }
}
