//! A call from outside that the memo did not answer at once.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use manifold_runtime_api::{Call, Error, ImageRef, ObjectId, Outcome, Request, Result};

use crate::core::{Core, Keyed, Want};
use crate::deadlines;
use crate::dispatcher::Dispatcher;
use crate::held::Held;
use crate::invocation::{Completion, Invocation, OwnedSpelling, Policy};
use crate::scope::{Allowance, Scope};
use crate::settled::Settled;

pub(crate) struct RootCall {
    core: Arc<Core>,
    scope: Arc<Scope>,
    spelling: OwnedSpelling,
    keyed: Keyed,
    want: Want,
    pin: bool,
    /// What the call was given, once it has to be run.
    held: Vec<Held>,
}

/// How often a run is tried that others' limits ended, or whose outcome was lost before it could be pinned.
const TRIES: u32 = 16;

impl RootCall {
    /// Resolves and keys the call.
    pub(crate) fn new(dispatcher: &Dispatcher, invocation: Invocation) -> Result<Self> {
        let core = Arc::clone(&dispatcher.core);
        let spelling = invocation.spelling().to_owned();
        let Invocation { image, args, salt, std, policy, pin, budget, limits } = invocation;
        let allowance = Allowance {
            limits: limits
                .map_or(core.allowance.limits, |limits| limits.within(core.allowance.limits)),
            budget: budget
                .map_or(core.allowance.budget, |budget| budget.within(core.allowance.budget)),
            recomputes_all: policy == Policy::RecomputeAll,
        };
        let root = dispatcher.roots.fetch_add(1, Ordering::Relaxed);
        let scope = Scope::new(root, salt.into(), std, allowance);
        let keyed = core.key(&scope, &Call { image, args })?;
        let private = policy == Policy::DoNotCache;
        let fresh = matches!(policy, Policy::Recompute | Policy::RecomputeAll);
        let want = Want { fresh, private, complete: false };
        Ok(Self {
            core,
            scope: Arc::new(scope),
            spelling,
            keyed,
            want,
            pin: pin && !private,
            held: Vec::new(),
        })
    }

    pub(crate) fn request(&self) -> ObjectId {
        self.keyed.request
    }

    pub(crate) async fn run(mut self) -> Result<Completion> {
        let request = self.keyed.request;
        self.store_request()?;
        let mut tries = 1;
        loop {
            let (outcome, remembered, lasts) =
                match self.core.look_up_wanted(request, self.want, &self.scope)? {
                    Some(outcome) => (outcome, true, true),
                    None => {
                        self.hold()?;
                        let settled = self.settled().await?;
                        let joined_a_hit = self.want.fresh && !settled.ran;
                        if tries < TRIES && (joined_a_hit || settled.may_differ_for(&self.scope, 0))
                        {
                            tries += 1;
                            continue;
                        }
                        (settled.result?, !settled.ran, settled.pure)
                    }
                };
            let completion = Completion { request, outcome, remembered };
            // What a breach decided, or a clock, is not what the request stands for.
            if !lasts {
                return Ok(completion);
            }
            let Some(missing) = self.pin(outcome)? else { return Ok(completion) };
            // What was given cannot be made again.
            if tries == TRIES || self.core.objects.missing_below(self.keyed.args)?.is_some() {
                return Err(Error::missing(missing).in_frame(self.core.frame(&self.keyed)));
            }
            tries += 1;
            self.want = Want { fresh: true, complete: true, ..self.want };
        }
    }

    fn store_request(&mut self) -> Result<()> {
        let core = &self.core;
        if core.objects.kind(self.keyed.request)?.is_none() {
            let request = Request {
                args: self.keyed.args,
                image: Arc::clone(&self.keyed.image.text),
                salt: Arc::clone(&self.scope.salt),
                std: self.scope.std,
            };
            core.objects.write_node(request.encode()?)?;
        }
        core.spellings.insert(self.spelling.clone(), self.keyed.request);
        Ok(())
    }

    /// Keeps arguments, image and named images for as long as the call runs: nobody could make them again.
    fn hold(&mut self) -> Result<()> {
        if !self.held.is_empty() || self.core.objects.store.keeps_everything() {
            return Ok(());
        }
        let image = match ImageRef::parse(&self.keyed.image.text) {
            Ok(ImageRef::Node(node)) => Some(node),
            _ => None,
        };
        let roots = [Some(self.keyed.args), image, self.scope.std].into_iter().flatten();
        self.held = roots.map(|root| Held::new(&self.core, root)).collect::<Result<_>>()?;
        Ok(())
    }

    /// Runs the request, or waits for somebody who does.
    async fn settled(&self) -> Result<Settled> {
        let _watched = deadlines::watch(&self.scope)?;
        let wait = self.core.demand(&self.scope, self.keyed.clone(), self.want, None)?;
        let settled = match select(pin!(wait.settled()), pin!(self.scope.stopped())).await {
            Either::Left((settled, _)) if settled.result.is_ok() => return Ok(settled),
            Either::Left((settled, stopped)) => stopped.now_or_never().map_or(Ok(settled), Err),
            Either::Right((error, _)) => Err(error),
        };
        settled.map_err(|error| match error.frame() {
            Some(frame) if frame.request == self.keyed.request => error,
            _ => error.in_frame(self.core.frame(&self.keyed)),
        })
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
