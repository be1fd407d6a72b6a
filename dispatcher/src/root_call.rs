//! A root call that the dispatcher's fast path for hits did not complete.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use manifold_runtime_api::{Call, Error, ImageRef, ObjectId, ObjectRef, Request, Result};

use crate::completion::Completion;
use crate::core::{Core, Keyed, Want};
use crate::deadlines;
use crate::held::Held;
use crate::invocation::{Invocation, OwnedRawKey, Policy};
use crate::lookup::LookedUp;
use crate::scope::{Allowance, Scope};
use crate::settled::Settled;
use crate::span::{CallSpan, OpenSpan, Phase, Wanted};

/// A root call with its resolved request.
pub(crate) struct RootCall {
    core: Arc<Core>,
    scope: Arc<Scope>,
    raw_key: OwnedRawKey,
    keyed: Keyed,
    want: Want,
    pin: bool,
    /// The objects that the call was given. They are held once the request has to be run.
    held: Vec<Held>,
    /// When the call began, if spans are observed.
    wanted: Option<Wanted>,
}

/// An outcome of the request, and how the call obtained it.
struct Obtained {
    outcome: ObjectRef,
    /// Whether the outcome was memoized before, so that no guest ran for it.
    from_memo: bool,
    /// Whether the outcome depends on the request alone.
    pure: bool,
}

/// The maximum number of attempts at a run that limits of other calls end, or whose outcome is lost
/// before it can be pinned.
const MAX_TRIES: u32 = 16;

impl RootCall {
    /// Resolves the image of `invocation`, whose named arguments are stored, and computes the id of
    /// the request.
    pub(crate) fn new(core: &Arc<Core>, invocation: Invocation) -> Result<Self> {
        let core = Arc::clone(core);
        let began = core.spans.as_ref().map(|spans| spans.own().now());
        let raw_key = invocation.raw_key().to_owned();
        let Invocation { image, args, salt, std, policy, pin, budget, limits, collects, .. } =
            invocation;
        let allowance = Allowance {
            limits: limits
                .map_or(core.allowance.limits, |limits| limits.within(core.allowance.limits)),
            budget: budget
                .map_or(core.allowance.budget, |budget| budget.within(core.allowance.budget)),
            recomputes_all: policy == Policy::RecomputeAll,
        };
        let root = core.next_root.fetch_add(1, Ordering::Relaxed);
        let scope = Scope::new(root, salt.into(), std, allowance, collects);
        let keyed = core.key(&scope, &Call { image, args }, |_| Ok(()))?;
        let wanted = began.zip(core.spans.as_ref());
        let wanted = wanted.map(|(began, spans)| Wanted { began, keyed: spans.own().now() });
        let private = policy == Policy::DoNotCache;
        let fresh = matches!(policy, Policy::Recompute | Policy::RecomputeAll);
        let want = Want { fresh, private, complete: false };
        Ok(Self {
            core,
            scope: Arc::new(scope),
            raw_key,
            keyed,
            want,
            pin: pin && !private,
            held: Vec::new(),
            wanted,
        })
    }

    pub(crate) fn request(&self) -> ObjectId {
        self.keyed.request
    }

    pub(crate) async fn run(mut self) -> Result<Completion> {
        let span = self.core.spans.as_ref().zip(self.wanted).map(|(spans, wanted)| {
            CallSpan::new(OpenSpan::of_call(spans, self.scope.root, &self.keyed, wanted))
        });
        let completion = self.completion(span.as_ref()).await;
        if let Some(span) = span {
            span.end(
                completion.as_ref().map(|completion| completion.outcome).map_err(Error::clone),
            );
        }
        completion
    }

    async fn completion(&mut self, call: Option<&CallSpan>) -> Result<Completion> {
        let request = self.keyed.request;
        self.store_request()?;
        let mut tries = 1;
        loop {
            let nested = call.map(CallSpan::nested);
            let spans = self.core.spans.as_ref();
            let span = call.zip(spans).map(|(call, spans)| call.request(spans, &self.keyed));
            let settlements = self.core.claims.settlements(request);
            let looked_up = self.core.look_up_or_end(request, self.want, &self.scope, span)?;
            let obtained = match looked_up {
                LookedUp::Found(outcome) => Obtained { outcome, from_memo: true, pure: true },
                LookedUp::Nothing(span) => {
                    self.hold()?;
                    let settled = self.settled(settlements, span).await?;
                    let joined_a_hit = self.want.fresh && !settled.ran;
                    if tries < MAX_TRIES && (joined_a_hit || settled.may_differ_for(&self.scope, 0))
                    {
                        tries += 1;
                        continue;
                    }
                    Obtained {
                        outcome: settled.result?,
                        from_memo: !settled.ran,
                        pure: settled.pure,
                    }
                }
            };
            drop(nested);
            call.iter().for_each(|call| call.enter(Phase::Store));
            let Obtained { outcome, from_memo, pure } = obtained;
            let completion =
                Completion::new(&self.core, request, outcome, from_memo).of_call(&self.scope);
            // An outcome that a failure influenced does not depend on the request alone,
            // so it is not pinned.
            if !pure {
                return Ok(completion);
            }
            let Some(missing) = self.pin(outcome)? else { return Ok(completion) };
            // Arguments cannot be computed again.
            if tries == MAX_TRIES || self.core.objects.missing_below(self.keyed.args)?.is_some() {
                return Err(Error::missing(missing).in_frame(self.core.frame(&self.keyed)));
            }
            tries += 1;
            self.want = Want { fresh: true, complete: true, ..self.want };
        }
    }

    /// Stores the request and caches its id by raw key.
    pub(crate) fn store_request(&mut self) -> Result<()> {
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
        core.raw_keys.insert(self.raw_key.clone(), self.keyed.request);
        Ok(())
    }

    /// Holds the arguments, the image and the named images while the call runs, because they cannot
    /// be computed again.
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

    /// Runs the request, or waits for the run in progress.
    async fn settled(&self, settlements: u64, span: Option<OpenSpan>) -> Result<Settled> {
        let _watched = deadlines::watch(&self.scope)?;
        let keyed = self.keyed.clone();
        let wait =
            self.core.join_or_start(&self.scope, keyed, self.want, None, settlements, span)?;
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

    /// Copies everything that the outcome reaches into the store, and pins the outcome. Returns the
    /// first object that is not available anywhere.
    fn pin(&self, outcome: ObjectRef) -> Result<Option<ObjectId>> {
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
