//! [`Node`].

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures_util::StreamExt;
use manifold_dispatcher::api::{Limit, Result as ApiResult};
use manifold_dispatcher::{Completion, Dispatcher, Invocation, Policy, Store};
use manifold_runtime_api::{Error, ObjectId};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::{Bus, Unavailable};
use crate::claim::{self, Claim};
use crate::error::NodeError;
use crate::inputs::{Inputs, without_others};
use crate::memo;
use crate::message::{self, About, Cancel, Done, End, Id, Presence, UnitMessage, Wanted, encode};
use crate::options::NodeOptions;
use crate::policy::Estimate;
use crate::{cycle, give, long_runs, objects, take};

/// How long an estimate holds.
const ESTIMATED: Duration = Duration::from_secs(5);

/// How many nodes are asked for the inputs of a unit.
const MAX_SOURCES: usize = 8;

/// How many images something is known of.
const MAX_IMAGES: usize = 10_000;

/// How long a node that leaves waits until its messages are sent.
const FAREWELL: Duration = Duration::from_millis(100);

/// How often a node says that it is alive.
const PRESENCE: Duration = Duration::from_secs(1);

/// A dispatcher that shares its work with those of other nodes.
///
/// # Trust
/// The nodes of a pool trust each other: one can give a request a wrong outcome, and read every object
/// of another by its id. Nodes that do not trust each other need accounts of their own at the NATS
/// server. Objects are checked against their ids when they arrive.
pub struct Node {
    shared: Arc<Shared>,
}

/// The state that the tasks of a node share.
pub(crate) struct Shared {
    pub(crate) bus: Bus,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) store: Arc<dyn Store>,
    /// The name of this node, another one for each start.
    pub(crate) session: String,
    /// The units of other nodes that this one runs.
    pub(crate) taken: Mutex<HashMap<ObjectId, Taken>>,
    /// Who waits for which units.
    hints: Mutex<HashMap<ObjectId, Vec<mpsc::UnboundedSender<Hint>>>>,
    /// How long the units of each image take, and when that was measured.
    estimates: Mutex<HashMap<String, (Estimate, Instant)>>,
    /// How many other nodes there are.
    peers: AtomicUsize,
    /// Has another reference for each run that other nodes have taken over from this one.
    pub(crate) away: Arc<()>,
    /// Has another reference for each unit that this node has taken over and that may not have begun.
    pub(crate) fresh: Arc<()>,
    /// The images of units that have begun here, so that their modules are compiled.
    compiled: Mutex<HashSet<String>>,
    /// The revisions of memo entries that were refused: they need not be fetched again.
    pub(crate) refused: Mutex<HashSet<u64>>,
    /// Has another reference for each call whose outcome is being published.
    publishing: Arc<()>,
    /// Whether this node is leaving, and takes nothing over any more.
    pub(crate) leaves: AtomicBool,
    /// The requests of calls that this node has claimed, or is about to.
    pub(crate) roots: Mutex<HashSet<ObjectId>>,
    /// What the runs of other nodes read, if this node takes such runs over.
    pub(crate) inputs: Option<Inputs>,
    /// How long this node waits for a run that another node has claimed.
    pub(crate) patience: Duration,
    /// Limits how many searches for cycles there are at once.
    pub(crate) searching: Semaphore,
    /// Limits how many packs are read at once.
    pub(crate) unpacking: Semaphore,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A unit of another node.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) stop: CancellationToken,
    /// The session of the node that gave it away.
    origin: String,
    /// The sessions that have its inputs.
    pub(crate) sources: Vec<String>,
}

impl Taken {
    pub(crate) fn new(unit: &UnitMessage) -> Self {
        Self {
            stop: CancellationToken::new(),
            origin: unit.origin.clone(),
            sources: unit.sources.iter().take(MAX_SOURCES).cloned().collect(),
        }
    }
}

/// What is said about a unit to whoever waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// It has ended.
    Ended(End),
    /// A run of this node has begun to wait for it, which may close a cycle.
    Waited,
}

impl Shared {
    /// Starts a task that ends with the node.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Waits until the node leaves, or has lost the server.
    pub(crate) async fn ends(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.bus.lost() => {}
        }
    }

    /// Returns the host images of the runtimes.
    pub(crate) fn hosts(&self) -> Vec<Id> {
        self.dispatcher.runtimes().iter().map(|host| Id(host.id())).collect()
    }

    /// Returns the sessions that have the inputs of this node's runs: its own, and those from which its
    /// units came.
    pub(crate) fn sources(&self) -> Vec<String> {
        let mut sources = vec![self.session.clone()];
        for taken in self.taken.lock().values() {
            for source in &taken.sources {
                if sources.len() < MAX_SOURCES && !sources.contains(source) {
                    sources.push(source.clone());
                }
            }
        }
        sources
    }

    /// Returns whether a run of `request` is in progress here, or is about to be published.
    pub(crate) fn is_busy_with(&self, request: ObjectId) -> bool {
        self.dispatcher.is_in_progress(request)
            || self.taken.lock().contains_key(&request)
            || self.roots.lock().contains(&request)
    }

    /// Records that a memo entry is refused.
    pub(crate) fn refuse(&self, revision: u64) {
        let mut refused = self.refused.lock();
        if refused.len() > MAX_IMAGES {
            refused.clear();
        }
        refused.insert(revision);
    }

    /// Returns how many nodes there are.
    pub(crate) fn nodes(&self) -> u64 {
        self.peers.load(Ordering::Relaxed) as u64 + 1
    }

    /// Returns whether there are other nodes.
    pub(crate) fn has_peers(&self) -> bool {
        self.peers.load(Ordering::Relaxed) > 0
    }

    /// Returns what is said about a unit.
    pub(crate) fn hints(&self, request: ObjectId) -> mpsc::UnboundedReceiver<Hint> {
        let (send, receive) = mpsc::unbounded_channel();
        let mut hints = self.hints.lock();
        hints.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        hints.entry(request).or_default().push(send);
        receive
    }

    /// Says something to whoever waits for a unit.
    pub(crate) fn hint(&self, request: ObjectId, hint: Hint) {
        for sender in self.hints.lock().get(&request).into_iter().flatten() {
            // Who does not listen any more needs no hint.
            let _ = sender.send(hint);
        }
    }

    /// Returns the requests that this node runs for other nodes or has claimed as calls.
    pub(crate) fn running(&self) -> Vec<ObjectId> {
        let taken: Vec<_> = self.taken.lock().keys().copied().collect();
        let roots: Vec<_> = self.roots.lock().iter().copied().collect();
        [taken, roots].concat()
    }

    /// Records how long a unit of an image took.
    pub(crate) fn measured(&self, image: &str, micros: u64) {
        let mut estimates = self.estimates.lock();
        if estimates.len() > MAX_IMAGES {
            estimates.clear();
        }
        let unknown = (Estimate::default(), Instant::now());
        let (estimate, at) = estimates.entry(image.to_owned()).or_insert(unknown);
        estimate.measured(micros);
        *at = Instant::now();
    }

    /// Returns whether the module of an image is compiled.
    pub(crate) fn is_compiled(&self, image: &str) -> bool {
        self.compiled.lock().contains(image)
    }

    /// Records that the module of an image is compiled.
    pub(crate) fn has_compiled(&self, image: &str) {
        let mut compiled = self.compiled.lock();
        if compiled.len() > MAX_IMAGES {
            compiled.clear();
        }
        compiled.insert(image.to_owned());
    }

    /// Returns how long a unit of an image takes, in microseconds. `None` if that is not known.
    pub(crate) fn estimate(&self, image: &str) -> Option<u64> {
        let estimates = self.estimates.lock();
        let (estimate, at) = estimates.get(image)?;
        // What is too small to be given away is not measured any more, and may be larger elsewhere.
        if at.elapsed() < ESTIMATED { estimate.micros() } else { None }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("session", &self.shared.session).finish_non_exhaustive()
    }
}

impl Node {
    /// Joins the other nodes. `dispatcher` must share runs
    /// ([`DispatcherBuilder::shares_runs`](manifold_dispatcher::DispatcherBuilder::shares_runs)), and
    /// `store` is its store.
    ///
    /// # Errors
    /// [`NodeError`] if the server cannot be reached, or does not have JetStream.
    pub async fn join(
        dispatcher: Dispatcher,
        store: Arc<dyn Store>,
        options: &NodeOptions,
    ) -> Result<Self, NodeError> {
        let bus = Bus::connect(options).await?;
        let session = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let shared = Arc::new(Shared {
            bus,
            dispatcher,
            store,
            session,
            taken: Mutex::default(),
            hints: Mutex::default(),
            estimates: Mutex::default(),
            peers: AtomicUsize::new(0),
            away: Arc::default(),
            fresh: Arc::default(),
            compiled: Mutex::default(),
            refused: Mutex::default(),
            publishing: Arc::default(),
            leaves: AtomicBool::new(false),
            roots: Mutex::default(),
            inputs: options.inputs.clone(),
            patience: options.patience,
            searching: Semaphore::new(4),
            unpacking: Semaphore::new(8),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let node = Self { shared: Arc::clone(&shared) };
        node.listen("obj", |shared, payload| {
            let wanted: Wanted = message::decode(payload)?;
            let answer = || without_others(|| objects::answer(&shared.dispatcher, &wanted));
            Some(objects::in_place(answer))
        })
        .await?;
        node.listen("waits", |shared, payload| {
            let about: About = message::decode(payload)?;
            Some(encode(&cycle::waits(shared, about.request.0)))
        })
        .await?;
        node.listen("done", |shared, payload| {
            let done: Done = message::decode(payload)?;
            shared.hint(done.request.0, Hint::Ended(done.end));
            None
        })
        .await?;
        node.listen("cancel", |shared, payload| {
            let cancel: Cancel = message::decode(payload)?;
            // Another node may have given the same run away, and still wait.
            let taken = shared.taken.lock().get(&cancel.request.0).cloned();
            let taken = taken.filter(|taken| taken.origin == cancel.origin);
            taken.into_iter().for_each(|taken| taken.stop.cancel());
            None
        })
        .await?;
        shared.spawn(keep_alive(Arc::clone(&shared)));
        shared.spawn(give::give(Arc::clone(&shared)));
        shared.spawn(long_runs::follow(Arc::clone(&shared)));
        shared.spawn(cycle::watch(Arc::clone(&shared)));
        if let Some(inputs) = &options.inputs {
            inputs.serve(&shared);
            if shared.dispatcher.read(inputs.probe()).is_err() {
                return Err(NodeError::Inputs);
            }
            shared.spawn(take::take(Arc::clone(&shared)));
        }
        Ok(node)
    }

    /// Answers the messages of one kind for this node.
    async fn listen(
        &self,
        kind: &str,
        answer: impl Fn(&Arc<Shared>, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Result<(), NodeError> {
        let shared = Arc::clone(&self.shared);
        let subject = shared.bus.subject(kind, Some(&shared.session));
        let subscribed = shared.bus.client.subscribe(subject).await;
        let mut messages: Subscriber = subscribed.map_err(|error| NodeError::Connect {
            address: shared.bus.address.clone(),
            problem: error.to_string(),
        })?;
        let task = Arc::clone(&shared);
        task.spawn(async move {
            while let Some(message) = messages.next().await {
                let answer = answer(&shared, &message.payload);
                if let Some((reply, answer)) = message.reply.zip(answer) {
                    let _ = shared.bus.client.publish(reply, answer.into()).await;
                }
            }
        });
        Ok(())
    }

    /// Returns the name of this node, which is another one for each start.
    pub fn session(&self) -> &str {
        &self.shared.session
    }

    /// Returns how many other nodes there are, as far as is known.
    pub fn peers(&self) -> usize {
        self.shared.peers.load(Ordering::Relaxed)
    }

    /// Returns how many units of other nodes this one runs now.
    pub fn taken(&self) -> usize {
        self.shared.taken.lock().len()
    }

    /// Runs a call as [`Dispatcher::run`] does. If another node runs the same request now or has run
    /// it, its outcome is used.
    ///
    /// # Errors
    /// As [`Dispatcher::run`].
    pub async fn run(&self, invocation: Invocation) -> ApiResult<Completion> {
        let shared = &self.shared;
        let is_measured = invocation.budget.is_some_and(|budget| budget.fuel.is_some())
            || invocation.limits.is_some_and(|limits| limits.fuel.is_some());
        let shares = invocation.policy == Policy::Reuse
            && !is_measured
            && !shared.stop.is_cancelled()
            && !shared.bus.is_lost()
            && !shared.dispatcher.is_memoized(&invocation)?;
        if !shares {
            return shared.dispatcher.run(invocation).await;
        }
        let request = shared.dispatcher.request(&invocation)?;
        let budget = invocation.budget.unwrap_or_default();
        let (deadline, began) = (budget.deadline, Instant::now());
        let claim = tokio::time::timeout(deadline, self.claim_root(request)).await;
        let claimed = claim.map_err(|_| Error::from(Limit::Deadline { time: deadline }))?;
        // Another call of this node may be running the same request.
        let is_mine = claimed && shared.roots.lock().insert(request);
        let running = is_mine.then(|| Root { shared: Arc::clone(shared), request });
        let left = deadline.saturating_sub(began.elapsed());
        let invocation = match invocation.budget {
            Some(budget) => invocation.budget(budget.deadline(left)),
            None => invocation,
        };
        let began = Instant::now();
        let completion = shared.dispatcher.run(invocation).await;
        if let Some(running) = running.filter(|_| !shared.bus.is_lost()) {
            // The caller need not wait for it. `leave` does.
            let (shared, publishing) = (Arc::clone(shared), Arc::clone(&shared.publishing));
            let task = Arc::clone(&shared);
            task.spawn(async move {
                let _running = (running, publishing);
                memo::publish_and_release(&shared, request, began).await;
            });
        }
        completion
    }

    /// Claims the request of a call, or waits until another node has its outcome, which is in the memo
    /// of the dispatcher then. Returns whether this node is to publish the outcome.
    async fn claim_root(&self, request: ObjectId) -> bool {
        let shared = &self.shared;
        let (began, mut pause) = (Instant::now(), Duration::from_millis(5));
        loop {
            let claimed = match memo::fetch(shared, request).await {
                Ok(Some(found)) => Ok(Claim::Known(found)),
                Ok(None) => claim::claim(shared, request, began.elapsed()).await,
                Err(Unavailable) => return false,
            };
            match claimed {
                Ok(Claim::Mine) => return true,
                Ok(Claim::Known(found)) => {
                    // If the store fails, the call runs and says so.
                    let _ = found.record(&*shared.store, request);
                    return false;
                }
                Ok(Claim::Theirs) => {}
                Err(Unavailable) if shared.bus.is_lost() => return false,
                Err(Unavailable) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Leaves the other nodes. Units that this node runs are given back, and runs that it has given away
    /// are run here. Calls that are made later are run without the others. Has no effect the second time.
    pub async fn leave(&self) {
        let shared = &self.shared;
        if shared.leaves.swap(true, Ordering::Relaxed) {
            return;
        }
        let taken: Vec<_> = shared.taken.lock().drain().collect();
        let goodbye = async {
            while Arc::strong_count(&shared.publishing) > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            shared.bus.depart(&shared.session).await;
            for (request, unit) in &taken {
                unit.stop.cancel();
                shared.bus.release(*request, &shared.session).await;
            }
            let began = Instant::now();
            // Their tasks tell the nodes where they came from, and those of cancelled runs the nodes
            // that have them.
            while began.elapsed() < FAREWELL
                && (!taken.is_empty() || Arc::strong_count(&shared.away) > 1)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let _ = shared.bus.client.flush().await;
        };
        // Without a server, nobody hears it.
        if shared.bus.connected_for().is_some() {
            let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
        }
        shared.stop.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
    }
}

/// A call whose request this node has claimed.
struct Root {
    shared: Arc<Shared>,
    request: ObjectId,
}

impl Drop for Root {
    fn drop(&mut self) {
        self.shared.roots.lock().remove(&self.request);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// Says that this node is alive, and counts the others.
async fn keep_alive(shared: Arc<Shared>) {
    while !shared.leaves.load(Ordering::Relaxed) {
        let presence = Presence { hosts: shared.hosts(), permits: shared.dispatcher.permits().1 };
        let say = shared.bus.nodes.put(&shared.session, encode(&presence).into());
        let said = match tokio::time::timeout(PRESENCE, say).await {
            Ok(said) => shared.bus.noting(said),
            Err(late) => shared.bus.noting(Err(late)),
        };
        if said.is_err() && shared.bus.connected_for().is_some() {
            shared.bus.reopen().await;
        }
        if said.is_ok()
            // `status` says what the bucket was like when it was opened.
            && let Ok(info) = shared.bus.nodes.stream.get_info().await
        {
            let count = usize::try_from(info.state.messages).unwrap_or(usize::MAX);
            shared.peers.store(count.saturating_sub(1), Ordering::Relaxed);
        }
        tokio::time::sleep(PRESENCE).await;
    }
}
