//! A call from outside that the memo did not answer at once.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::{Either, select};
use manifold_runtime_api::{Call, Error, ObjectId, Outcome, Request, Result};

use crate::claim::Settled;
use crate::core::{Core, Keyed, Want};
use crate::deadlines;
use crate::dispatcher::Dispatcher;
use crate::invocation::{Completion, Invocation, Policy};
use crate::scope::{Allowance, Scope};

pub(crate) struct RootCall {
    core: Arc<Core>,
    scope: Arc<Scope>,
    keyed: Keyed,
    want: Want,
    pin: bool,
}

/// How often a run is tried that others' limits ended, or whose outcome was lost before it could be pinned.
const TRIES: u32 = 4;

impl RootCall {
    /// Resolves and keys the call, and stores its request.
    pub(crate) fn new(dispatcher: &Dispatcher, invocation: Invocation) -> Result<Self> {
        let core = Arc::clone(&dispatcher.core);
        let spelling = invocation.spelling().to_owned();
        let Invocation { image, args, salt, std, policy, pin, budget, limits } = invocation;
        let allowance = Allowance {
            limits: limits.map_or(core.allowance.limits, |limits| limits.within(core.allowance.limits)),
            budget: budget.map_or(core.allowance.budget, |budget| budget.within(core.allowance.budget)),
        };
        let root = dispatcher.roots.fetch_add(1, Ordering::Relaxed);
        let scope = Scope::new(root, salt.into(), std, allowance, policy == Policy::RecomputeAll);
        let keyed = core.key(&scope, &Call { image, args })?;
        if core.objects.kind(keyed.request)?.is_none() {
            let request = Request {
                args: keyed.args,
                image: Arc::clone(&keyed.image.text),
                salt: Arc::clone(&scope.salt),
                std: scope.std,
            };
            dispatcher.put_node(request.encode()?)?;
        }
        core.spellings.insert(spelling, keyed.request);
        let private = policy == Policy::DoNotCache;
        let fresh = matches!(policy, Policy::Recompute | Policy::RecomputeAll);
        let want = Want { fresh, private, complete: false };
        Ok(Self { core, scope: Arc::new(scope), keyed, want, pin: pin && !private })
    }

    pub(crate) fn request(&self) -> ObjectId {
        self.keyed.request
    }

    pub(crate) async fn run(mut self) -> Result<Completion> {
        let request = self.keyed.request;
        let _watched = deadlines::watch(&self.scope)?;
        let mut tries = 1;
        loop {
            let (outcome, remembered) = match self.core.look_up_wanted(request, self.want, &self.scope)? {
                Some(outcome) => (outcome, true),
                None => {
                    let settled = self.settled().await?;
                    let joined_a_hit = self.want.fresh && !settled.ran;
                    if tries < TRIES && (joined_a_hit || settled.may_differ_for(&self.scope, 0)) {
                        tries += 1;
                        continue;
                    }
                    (settled.result?, false)
                }
            };
            let completion = Completion { request, outcome, remembered };
            let Some(missing) = self.pin(outcome)? else { return Ok(completion) };
            if tries == TRIES {
                return Err(Error::missing(missing).in_frame(self.core.frame(&self.keyed)));
            }
            tries += 1;
            self.want = Want { fresh: true, complete: true, ..self.want };
        }
    }

    /// Runs the request, or waits for somebody who does.
    async fn settled(&self) -> Result<Settled> {
        let wait = self.core.demand(&self.scope, self.keyed.clone(), self.want, None)?;
        match select(pin!(wait.settled()), pin!(self.scope.stopped())).await {
            Either::Left((settled, _)) => Ok(settled),
            Either::Right((error, _)) if error.frame().is_some_and(|frame| frame.request == self.keyed.request) => {
                Err(error)
            }
            Either::Right((error, _)) => Err(error.in_frame(self.core.frame(&self.keyed))),
        }
    }

    /// Pins the outcome, once all that it reaches is in the store. Answers what is not to be found anywhere.
    fn pin(&self, outcome: Outcome) -> Result<Option<ObjectId>> {
        let (objects, request) = (&self.core.objects, self.keyed.request);
        if !self.pin || objects.store.pinned(request)? == Some(outcome) {
            return Ok(None);
        }
        let missing = objects.adopt(outcome.id)?;
        if missing.is_none() {
            objects.store.pin(request, outcome)?;
        }
        Ok(missing)
    }
}
