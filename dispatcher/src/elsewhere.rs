//! Runs that something outside of the dispatcher takes over, such as another machine.
//!
//! A run can be taken over while it waits for a permit ([`Dispatcher::take_queued`]), or while it is in
//! progress ([`LongRun::take_over`]). Its callers go on waiting, and more can join. A [`Unit`] says what
//! is to be run; it is settled with an outcome from elsewhere, or given back and then run here.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use manifold_runtime_api::{Error, Limits, ObjectId, ObjectRef};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::budget::Budget;
use crate::clock::Queueing;
use crate::core::{Core, Keyed, Want};
use crate::dispatcher::Dispatcher;
use crate::flight::Flight;
use crate::observe::Event;
use crate::resolve::ResolvedImage;
use crate::scope::Scope;
use crate::settled::Settled;
use crate::spending::Spent;
use crate::thread_number::ByThread;

/// Where a run goes that is taken over.
pub(crate) type Taker = oneshot::Sender<Unit>;

/// How many nested runs of one `run_many` are in progress at once while somebody wants runs.
const WIDE: usize = 1024;

/// How many runs of a group of threads are remembered until [`LongRuns::take`] is called, and how many for
/// each list. The bound holds even if it is never called.
const MAX_BEGUN: usize = 100_000;

/// What a dispatcher needs to give runs away.
#[derive(Default)]
pub(crate) struct Sharing {
    /// Whether somebody wants runs.
    is_wanted: AtomicBool,
    wanted: Notify,
    /// The number of runs that were taken over so far.
    taken: AtomicU64,
    /// The requests whose runs have begun since [`LongRuns::take`] was called. Most of the runs have
    /// ended: references would keep their flights in memory, and cost a tenth of a small frame.
    begun: ByThread<Mutex<Vec<ObjectId>>, 8>,
    /// What each list of long runs is still to learn.
    inboxes: Mutex<Vec<Weak<Inbox>>>,
}

/// Requests whose runs have begun, for one list of long runs.
type Inbox = Mutex<Vec<ObjectId>>;

impl Sharing {
    /// Records that a run begins.
    pub(crate) fn begins(&self, flight: &Arc<Flight>) {
        flight.allow_leaving();
        let mut begun = self.begun.own().lock();
        if begun.len() < MAX_BEGUN {
            begun.push(flight.request);
        }
    }

    /// Tells all lists of long runs which runs have begun.
    fn distribute(&self) {
        let mut inboxes = self.inboxes.lock();
        let begun: Vec<_> =
            self.begun.all().flat_map(|begun| std::mem::take(&mut *begun.lock())).collect();
        inboxes.retain(|inbox| {
            let Some(inbox) = inbox.upgrade() else { return false };
            let mut inbox = inbox.lock();
            let room = MAX_BEGUN.saturating_sub(inbox.len());
            inbox.extend(begun.iter().take(room));
            true
        });
    }

    /// Waits until somebody wants runs.
    async fn wanted(&self) {
        loop {
            let notified = self.wanted.notified();
            if self.is_wanted.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }
}

/// A run that waits for a permit, and that may be given away.
pub(crate) struct Offer {
    /// When it began to wait.
    pub(crate) since: Instant,
    flight: Weak<Flight>,
    image: Weak<ResolvedImage>,
}

impl Offer {
    fn run(&self) -> Option<(Arc<Flight>, Arc<ResolvedImage>)> {
        self.flight.upgrade().zip(self.image.upgrade())
    }

    fn waiting<'a>(
        &self,
        flight: &Flight,
        image: &'a ResolvedImage,
        now: Instant,
    ) -> WaitingRun<'a> {
        WaitingRun {
            request: flight.request,
            image: &image.text,
            host: image.runtime.host_image().id(),
            waited: now.saturating_duration_since(self.since),
        }
    }
}

#[cfg(test)]
impl Offer {
    /// Creates an offer of no run.
    pub(crate) fn of_tests() -> Self {
        Self { since: Instant::now(), flight: Weak::new(), image: Weak::new() }
    }
}

/// A run that waits for a permit.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WaitingRun<'a> {
    /// The id of the request.
    pub request: ObjectId,
    /// The image reference in the request.
    pub image: &'a str,
    /// The id of the host image of its runtime.
    pub host: ObjectId,
    /// How long the run has waited.
    pub waited: Duration,
}

/// A run that was taken over: what is to be run, and the duty to settle it. If this is dropped before
/// it is settled, the run is given back, and runs in its dispatcher as if it had never left.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unit {
    /// The id of the request.
    pub request: ObjectId,
    /// The image reference in the request.
    pub image: Arc<str>,
    /// The id of the host image of the image's runtime.
    pub host: ObjectId,
    /// The id of the tree of all arguments.
    pub args: ObjectId,
    /// The salt of the call.
    pub salt: Arc<str>,
    /// The id of the tree of named images.
    pub std: Option<ObjectId>,
    /// What is left of the call's budget. Several units can have the same rest: what one spends counts
    /// when it is settled ([`Unit::settle`]).
    pub budget: Budget,
    /// The limits of each frame.
    pub limits: Limits,
    /// Another number for each unit of the dispatcher.
    pub number: u64,
    answer: oneshot::Sender<Answer>,
}

/// The end of a unit.
#[derive(Debug)]
enum Answer {
    Outcome(Arrived),
    Failure(Error),
    Refused,
}

/// How a run ends that was given away.
pub(crate) enum Elsewhere {
    Settled(Settled),
    /// It is to be run here.
    GivenBack,
    /// It is to be run here, and not to be given away while it waits.
    Refused,
}

/// The result of a run elsewhere.
#[derive(Debug)]
#[non_exhaustive]
pub struct Arrived {
    /// The outcome. Its object must be in the store or a source of the dispatcher.
    pub outcome: ObjectRef,
    /// What the run counts against the call's budget.
    pub spent: Spent,
    /// Outcomes of runs nested in it, by request, which are memoized unless an outcome is known.
    pub entries: Vec<(ObjectId, ObjectRef)>,
}

impl Arrived {
    /// Creates the result of a run without nested ones, which has spent nothing.
    pub fn new(outcome: ObjectRef) -> Self {
        Self { outcome, spent: Spent::default(), entries: Vec::new() }
    }

    /// Sets what the run counts against the call's budget.
    #[must_use]
    pub fn spent(mut self, spent: Spent) -> Self {
        self.spent = spent;
        self
    }

    /// Sets the outcomes of nested runs.
    #[must_use]
    pub fn entries(mut self, entries: Vec<(ObjectId, ObjectRef)>) -> Self {
        self.entries = entries;
        self
    }
}

impl Unit {
    /// Settles the run with an outcome, which is memoized. If its object is not available, the run is
    /// given back.
    pub fn settle(self, arrived: Arrived) {
        // This fails if the run was cancelled.
        let _ = self.answer.send(Answer::Outcome(arrived));
    }

    /// Settles the run with an error.
    pub fn fail(self, error: Error) {
        let _ = self.answer.send(Answer::Failure(error));
    }

    /// Gives the run back, because it cannot be run elsewhere. It is not given away again while it waits.
    pub fn refuse(self) {
        let _ = self.answer.send(Answer::Refused);
    }

    /// Waits until the run is cancelled: its last caller stopped waiting. The unit need not be settled
    /// then.
    pub async fn cancelled(&mut self) {
        self.answer.closed().await;
    }

    /// Returns whether the run is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.answer.is_closed()
    }
}

/// The runs of a dispatcher that take long. Several parts of a program can each have such a list.
pub struct LongRuns {
    core: Arc<Core>,
    inbox: Arc<Inbox>,
    /// The requests whose runs had begun when [`LongRuns::take`] was called last.
    before: Vec<ObjectId>,
}

impl fmt::Debug for LongRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LongRuns").finish_non_exhaustive()
    }
}

impl LongRuns {
    /// Returns the runs that have been in progress since before the last call of this method and may be
    /// given away. Each is returned once.
    pub fn take(&mut self) -> Vec<LongRun> {
        let Some(sharing) = &self.core.sharing else { return Vec::new() };
        sharing.distribute();
        let begun = std::mem::take(&mut *self.inbox.lock());
        let before = std::mem::replace(&mut self.before, begun);
        before.into_iter().filter_map(|request| self.core.run_in_progress(request)).collect()
    }
}

/// A run that is in progress.
#[derive(Debug)]
pub struct LongRun {
    request: ObjectId,
    flight: Weak<Flight>,
}

impl LongRun {
    /// Returns the id of the request.
    pub fn request(&self) -> ObjectId {
        self.request
    }

    /// Returns whether the run is still in progress here.
    pub fn is_in_progress(&self) -> bool {
        self.flight.upgrade().is_some_and(|flight| flight.can_leave())
    }

    /// Stops the run, and takes it over. Its nested runs are cancelled unless they have other callers.
    /// Returns `None` if the run has ended or was taken over before.
    pub async fn take_over(self) -> Option<Unit> {
        let flight = self.flight.upgrade()?;
        if !flight.can_leave() {
            return None;
        }
        let (taker, taken) = oneshot::channel();
        flight.set_taker(taker);
        if let Some(guest) = flight.guest_waker() {
            guest.wake();
        }
        match select(taken, flight.settled.wait()).await {
            Either::Left((taken, _)) => taken.ok(),
            // The run may have been given away and cancelled at once.
            Either::Right(_) => None,
        }
    }
}

/// Methods for something that runs requests elsewhere. They have no effect unless
/// [`DispatcherBuilder::shares_runs`](crate::DispatcherBuilder::shares_runs) was set.
impl Dispatcher {
    /// Takes over the run that has waited for a permit the longest, at least for `waited`, and that
    /// `accept` accepts. Returns `None` if there is none.
    ///
    /// Runs of calls that must be run here are not given away: those of a policy other than
    /// [`Policy::Reuse`](crate::Policy::Reuse), and with a bound on fuel.
    pub async fn take_queued(
        &self,
        waited: Duration,
        mut accept: impl FnMut(&WaitingRun<'_>) -> bool,
    ) -> Option<Unit> {
        loop {
            let now = Instant::now();
            let before = now.checked_sub(waited)?;
            let mut taken = None;
            let gave = self.core.permits.give_away(before, &mut |offer| {
                let Some((flight, image)) = offer.run() else { return false };
                let accepts = accept(&offer.waiting(&flight, &image, now));
                if accepts {
                    let (taker, receiver) = oneshot::channel();
                    flight.set_taker(taker);
                    taken = Some(receiver);
                }
                accepts
            });
            if !gave {
                return None;
            }
            // It fails if the run is cancelled just now.
            if let Ok(unit) = taken?.await {
                return Some(unit);
            }
        }
    }

    /// Passes runs that have waited for a permit at least for `waited`, and that may be given away, to
    /// `visit`, until that returns `false`. Those that have waited longer come before others of the same
    /// thread and call. `visit` must not call methods of the dispatcher.
    pub fn visit_queued(&self, waited: Duration, mut visit: impl FnMut(&WaitingRun<'_>) -> bool) {
        let now = Instant::now();
        let Some(before) = now.checked_sub(waited) else { return };
        let mut goes_on = true;
        self.core.permits.give_away(before, &mut |offer| {
            if goes_on && let Some((flight, image)) = offer.run() {
                goes_on = visit(&offer.waiting(&flight, &image, now));
            }
            false
        });
    }

    /// Returns whether a run that may be given away has waited for a permit at least for `waited`, and
    /// about how many runs wait.
    pub fn surplus(&self, waited: Duration) -> (bool, usize) {
        match Instant::now().checked_sub(waited) {
            Some(before) if self.core.sharing.is_some() => self.core.permits.surplus(before),
            _ => (false, 0),
        }
    }

    /// Sets whether somebody wants runs. Meanwhile a `run_many` has up to 1024 runs in progress, so
    /// that those beyond the usual width can be taken over, too.
    pub fn want_runs(&self, is_wanted: bool) {
        if let Some(sharing) = &self.core.sharing {
            sharing.is_wanted.store(is_wanted, Ordering::Release);
            sharing.wanted.notify_waiters();
        }
    }

    /// Returns a list of the runs that take long.
    pub fn long_runs(&self) -> LongRuns {
        let inbox = Arc::new(Inbox::default());
        if let Some(sharing) = &self.core.sharing {
            sharing.inboxes.lock().push(Arc::downgrade(&inbox));
        }
        LongRuns { core: Arc::clone(&self.core), inbox, before: Vec::new() }
    }

    /// Returns the run of `request`, if it is in progress here and may be given away.
    pub fn run_in_progress(&self, request: ObjectId) -> Option<LongRun> {
        self.core.run_in_progress(request)
    }

    /// Returns whether a run of `request` is in progress, waits to begin, or is elsewhere.
    pub fn is_in_progress(&self, request: ObjectId) -> bool {
        self.core.claims.in_progress(request).is_some()
    }

    /// Returns the units that the run of `request` waits for, directly or through nested runs: the
    /// requests, with the numbers of the units. If it is a unit itself, only that one. Empty if
    /// `request` is not in progress.
    pub fn waits_elsewhere(&self, request: ObjectId) -> Vec<(ObjectId, u64)> {
        let mut open: Vec<_> = self.core.claims.in_progress(request).into_iter().collect();
        let (mut met, mut away) = (HashSet::new(), Vec::new());
        while let Some(flight) = open.pop() {
            if !met.insert(Arc::as_ptr(&flight)) {
                continue;
            }
            match flight.away() {
                Some(number) => away.push((flight.request, number)),
                None => open.extend(flight.edges().waits_for.iter().cloned()),
            }
        }
        away
    }
}

impl Core {
    fn run_in_progress(&self, request: ObjectId) -> Option<LongRun> {
        let flight = self.claims.in_progress(request).filter(|flight| flight.can_leave())?;
        Some(LongRun { request, flight: Arc::downgrade(&flight) })
    }

    /// Returns the maximum number of nested runs of one `run_many` that are in progress at once.
    pub(crate) fn width(&self) -> usize {
        let sharing = self.sharing.as_ref();
        let is_wanted = sharing.is_some_and(|sharing| sharing.is_wanted.load(Ordering::Acquire));
        if is_wanted { self.width.max(WIDE) } else { self.width }
    }

    /// Waits for `next`. Returns `None` if more runs can be begun before it.
    pub(crate) async fn next_or_more<T>(
        &self,
        next: impl Future<Output = T> + Unpin,
        in_progress: usize,
        has_more: bool,
    ) -> Option<T> {
        let sharing = self.sharing.as_ref().filter(|_| has_more && in_progress < WIDE);
        let Some(sharing) = sharing else { return Some(next.await) };
        match select(next, std::pin::pin!(sharing.wanted())).await {
            Either::Left((next, _)) => Some(next),
            Either::Right(_) => None,
        }
    }

    /// Returns the offer of a run, if it may be given away.
    pub(crate) fn offer(
        &self,
        keyed: &Keyed,
        want: Want,
        scope: &Scope,
        flight: &Arc<Flight>,
    ) -> Option<Offer> {
        self.may_leave(want, scope).then(|| Offer {
            since: Instant::now(),
            flight: Arc::downgrade(flight),
            image: Arc::downgrade(&keyed.image),
        })
    }

    /// Returns whether a run may be given away.
    pub(crate) fn may_leave(&self, want: Want, scope: &Scope) -> bool {
        self.sharing.is_some()
            && !(want.fresh || want.private || want.complete)
            && !scope.recomputes_all()
            && scope.allowance.fuel_bound().is_none()
    }

    /// Gives a run to `taker`, and waits for its end.
    pub(crate) async fn run_elsewhere(
        &self,
        scope: &Scope,
        keyed: &Keyed,
        flight: &Arc<Flight>,
        queueing: Option<Queueing>,
        taker: Taker,
    ) -> Elsewhere {
        let Some(sharing) = &self.sharing else { return Elsewhere::GivenBack };
        let number = sharing.taken.fetch_add(1, Ordering::Relaxed) + 1;
        let _away = flight.leave(number, queueing);
        let (answer, answered) = oneshot::channel();
        let unit = Unit {
            request: keyed.request,
            image: Arc::clone(&keyed.image.text),
            host: keyed.image.runtime.host_image().id(),
            args: keyed.args,
            salt: Arc::clone(&scope.salt),
            std: scope.std,
            budget: scope.budget_left(flight.depth),
            limits: scope.allowance.limits,
            number,
            answer,
        };
        if taker.send(unit).is_err() {
            return Elsewhere::GivenBack;
        }
        self.emit(&Event::GivenAway { request: keyed.request });
        let ended = match answered.await {
            Ok(Answer::Outcome(arrived)) => {
                match self.accept(scope, keyed, flight.depth, arrived) {
                    Some(settled) => Elsewhere::Settled(settled),
                    None => Elsewhere::Refused,
                }
            }
            Ok(Answer::Failure(error)) => {
                let pure = error.is_function_of_request();
                let error = error.in_frame(self.frame(keyed));
                let failed = Settled::failed_for(error, scope, flight.depth);
                Elsewhere::Settled(Settled { pure, ..failed })
            }
            Ok(Answer::Refused) => Elsewhere::Refused,
            Err(_) => Elsewhere::GivenBack,
        };
        if !matches!(ended, Elsewhere::Settled(_)) {
            self.emit(&Event::GivenBack { request: keyed.request });
        }
        ended
    }

    /// Memoizes what has arrived from elsewhere. Returns `None` if the object of the outcome is not
    /// available here.
    fn accept(
        &self,
        scope: &Scope,
        keyed: &Keyed,
        depth: u32,
        arrived: Arrived,
    ) -> Option<Settled> {
        let Arrived { outcome, spent, entries } = arrived;
        self.objects.check(outcome.id, outcome.kind).ok()?;
        let counted = scope.count_spent(spent).map_err(|error| {
            let error = error.in_frame(self.frame(keyed));
            scope.stop(error.clone());
            error
        });
        let recorded = counted.and_then(|()| {
            let store = &self.objects.store;
            for (request, outcome) in entries {
                if store.look_up(request)?.is_none() {
                    store.record(request, outcome)?;
                    scope.note_success(request, outcome);
                }
            }
            store.record(keyed.request, outcome)?;
            scope.note_success(keyed.request, outcome);
            Ok(())
        });
        if recorded.is_ok() {
            self.emit(&Event::Arrived { request: keyed.request, outcome: &outcome });
        }
        Some(match recorded {
            Ok(()) => Settled { ran: true, root: Some(scope.root), ..Settled::from_memo(outcome) },
            Err(error) => Settled::failed_for(error, scope, depth),
        })
    }
}
