//! [`CacheTier`]: a shared cache behind the store of a dispatcher.

mod name;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use manifold_dispatcher::{Completion, Dispatcher, Invocation, Policy, Store};
use manifold_runtime_api::{ObjectId, ObjectRef, Result as ApiResult};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::digest::Digest;
use crate::shared::{blocking, joined};
use crate::units::{self, Units};
use crate::{CacheError, CacheOptions, Recorded, Seed, Sender, SharedCache, check_name};

/// How many requests are remembered whose outcomes were sent.
const MAX_PUBLISHED: usize = 100_000;
/// How many calls a ref has at most from one tier.
const MAX_CALLS: usize = 1_000_000;

/// How the calls of a dispatcher use a shared cache.
#[derive(Clone)]
#[must_use]
pub struct TierOptions {
    name: Option<String>,
    head_start: Duration,
    look_up_within: Duration,
    fetch_within: Duration,
    on_problem: Arc<dyn Fn(&CacheError) + Send + Sync>,
}

impl fmt::Debug for TierOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TierOptions").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Default for TierOptions {
    fn default() -> Self {
        Self {
            name: None,
            head_start: Duration::from_secs(2),
            look_up_within: Duration::from_secs(10),
            fetch_within: Duration::from_secs(60),
            on_problem: Arc::new(|error| tracing::warn!("{}", error.in_a_line())),
        }
    }
}

impl TierOptions {
    /// Begins with the outcomes that the ref `name` has, and lets it have those of the calls.
    ///
    /// # Errors
    /// [`CacheError::RefName`] if no ref can have that name.
    pub fn name(mut self, name: &str) -> Result<Self, CacheError> {
        self.name = Some(check_name(name)?.to_owned());
        Ok(self)
    }

    /// Sets how long a call waits for the cache before it is run beside the look-up. Default: 2 seconds.
    pub fn head_start(mut self, time: Duration) -> Self {
        self.head_start = time;
        self
    }

    /// Sets how long the cache may take for a connection, and for the look-up of a call. Default: 10
    /// seconds.
    pub fn look_up_within(mut self, time: Duration) -> Self {
        self.look_up_within = time;
        self
    }

    /// Sets how long the cache may take for the outcomes of a ref. Default: 60 seconds.
    pub fn fetch_within(mut self, time: Duration) -> Self {
        self.fetch_within = time;
        self
    }

    /// Sets what is called when the cache fails, at most once. Then it is not used any more, or, if it has
    /// refused what was sent, only read. Default: an event of `tracing`.
    pub fn on_problem(mut self, handle: impl Fn(&CacheError) + Send + Sync + 'static) -> Self {
        self.on_problem = Arc::new(handle);
        self
    }
}

/// A shared cache behind the store of a dispatcher: calls are looked up in it before they are run, the
/// runs below them that take long while they wait or run, and new outcomes are sent in the background.
///
/// What computes never waits for it, but for the head start that a call gives it. If it fails, the work
/// goes on without it.
///
/// ```no_run
/// use manifold_cache_reapi::{CacheOptions, CacheTier, TierOptions};
/// use manifold_dispatcher::{Dispatcher, Invocation, MemoryStore};
/// use std::sync::Arc;
///
/// # async fn example(call: Invocation) -> Result<(), Box<dyn std::error::Error>> {
/// let server = CacheOptions::new("grpc://cache.example.com:8980".parse()?);
/// let options = TierOptions::default().name("my-repository@main")?;
/// let (store, cache) = CacheTier::connect(server, options, Arc::new(MemoryStore::new()));
/// // Runs can be taken over by the cache while they wait.
/// let dispatcher = Dispatcher::builder().store(store).shares_runs(true).build()?;
/// let completion = cache.run(&dispatcher, call).await?;
/// println!("{}", completion.outcome.id);
/// cache.finish(&dispatcher, std::time::Duration::from_secs(60)).await;
/// # Ok(())
/// # }
/// ```
pub struct CacheTier {
    shared: Arc<Shared>,
    units: Mutex<Option<Following>>,
}

/// What was exchanged with a shared cache.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Exchanged {
    /// The address of the cache. Empty if no connection was established.
    pub address: String,
    /// Whether the cache had the outcome of a call.
    pub hit: bool,
    /// How many outcomes of the ref were not known here.
    pub seeded: usize,
    /// How many runs below calls the cache had the outcomes of.
    pub found: usize,
    /// How many packs with outcomes were sent.
    pub sent_packs: usize,
    /// Their number of bytes.
    pub sent_bytes: u64,
}

/// The runs below the calls, and what follows them.
struct Following {
    units: Arc<Units>,
    ended: CancellationToken,
    /// Returns the requests whose outcomes are still to be sent.
    task: AbortOnDropHandle<Vec<ObjectId>>,
}

/// The state of a tier.
pub(crate) struct Shared {
    options: TierOptions,
    /// The address of the cache, for messages.
    address: String,
    recorded: Arc<Recorded>,
    state: watch::Sender<State>,
    /// Ends all tasks once the cache is not used any more.
    stop: CancellationToken,
    /// Whether the user was told that the cache has failed.
    was_told: AtomicBool,
    /// Whether the cache has refused something that was sent, so that nothing is sent any more.
    refuses: AtomicBool,
    /// What the ref had.
    seed: Mutex<Option<Seed>>,
    /// Sends what the ref gets.
    sender: Mutex<Option<Sender>>,
    calls: Mutex<Calls>,
    /// Look-ups of calls that took longer than the head start.
    late: Mutex<HashMap<ObjectId, Late>>,
    hit: AtomicBool,
    /// The requests whose outcomes were sent on their own, as far as they are remembered.
    published: Mutex<HashSet<ObjectId>>,
    /// How many packs were sent, and their number of bytes.
    sent: Mutex<(usize, u64)>,
}

/// Is there once the outcome has arrived. An error if it does not come.
type Late = futures_util::future::Shared<oneshot::Receiver<()>>;

impl fmt::Debug for CacheTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheTier").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
enum State {
    Connecting,
    /// It is connected, and the outcomes of the ref may still arrive.
    Connected(SharedCache),
    Ready(SharedCache),
    /// It is not used any more.
    Ended,
}

#[derive(Debug, Default)]
struct Calls {
    /// The requests of all calls, if there is a ref.
    all: HashSet<ObjectId>,
    /// Those that were run, and whose outcomes are to be sent.
    ran: Vec<ObjectId>,
}

impl CacheTier {
    /// Begins to connect to a server. Returns the store for the dispatcher, which keeps everything in
    /// `store`.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn connect(
        server: CacheOptions,
        options: TierOptions,
        store: Arc<dyn Store>,
    ) -> (Arc<dyn Store>, Self) {
        let address = server.address.to_string();
        let connect = async move { SharedCache::connect(&server).await };
        Self::begin(connect, address, options, store)
    }

    /// Uses a cache to which a connection exists. Otherwise like [`CacheTier::connect`].
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn new(
        cache: SharedCache,
        options: TierOptions,
        store: Arc<dyn Store>,
    ) -> (Arc<dyn Store>, Self) {
        let address = cache.address().to_owned();
        Self::begin(async move { Ok(cache) }, address, options, store)
    }

    fn begin(
        connect: impl Future<Output = Result<SharedCache, CacheError>> + Send + 'static,
        address: String,
        options: TierOptions,
        store: Arc<dyn Store>,
    ) -> (Arc<dyn Store>, Self) {
        let recorded = Arc::new(Recorded::new(store));
        if options.name.is_none() {
            // Only a ref has the outcomes of short runs.
            recorded.stop();
        }
        let shared = Arc::new(Shared {
            options,
            address,
            recorded: Arc::clone(&recorded),
            state: watch::Sender::new(State::Connecting),
            stop: CancellationToken::new(),
            was_told: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            seed: Mutex::default(),
            sender: Mutex::default(),
            calls: Mutex::default(),
            late: Mutex::default(),
            hit: AtomicBool::new(false),
            published: Mutex::default(),
            sent: Mutex::default(),
        });
        let task = Arc::clone(&shared);
        tokio::spawn(async move {
            let started = tokio::select! {
                started = task.start(connect) => started,
                () = task.stopped() => Ok(()),
            };
            if let Err(error) = started {
                task.fail(&error);
            }
        });
        (recorded, Self { shared, units: Mutex::default() })
    }

    /// Looks up a call in the cache, unless its outcome is known here, and waits for that as long as the
    /// head start. Returns whether the outcome is known then.
    ///
    /// # Errors
    /// As [`Dispatcher::is_memoized`]. What fails in the cache is no error.
    pub async fn look_up(
        &self,
        dispatcher: &Dispatcher,
        invocation: &Invocation,
    ) -> ApiResult<bool> {
        if invocation.policy != Policy::Reuse {
            return Ok(false);
        }
        if dispatcher.is_memoized(invocation)? {
            return Ok(true);
        }
        let request = dispatcher.request(invocation)?;
        let late = self.shared.late.lock().get(&request).cloned();
        let found = late.unwrap_or_else(|| self.begin_look_up(dispatcher, invocation, request));
        let deadline = invocation.budget.map_or(Duration::MAX, |budget| budget.deadline);
        let head_start = self.shared.options.head_start.min(deadline / 4);
        let found = tokio::time::timeout(head_start, found).await;
        Ok(found.is_ok_and(|found| found.is_ok()))
    }

    fn begin_look_up(
        &self,
        dispatcher: &Dispatcher,
        invocation: &Invocation,
        request: ObjectId,
    ) -> Late {
        let (found, is_found) = oneshot::channel();
        let is_found = is_found.shared();
        self.shared.late.lock().insert(request, is_found.clone());
        let (shared, invocation, dispatcher) =
            (Arc::clone(&self.shared), invocation.clone(), dispatcher.clone());
        tokio::spawn(async move {
            let look_up = async {
                let cache = shared.connected().await?;
                if shared.fetch(&cache, request).await.is_none() {
                    // The ref may have it.
                    shared.ready().await?;
                    let is_known = dispatcher.is_memoized(&invocation).unwrap_or_default();
                    return is_known.then_some(());
                }
                shared.hit.store(true, Ordering::Relaxed);
                Some(())
            };
            let arrived = tokio::select! {
                arrived = look_up => arrived,
                () = shared.stopped() => None,
            };
            if arrived.is_some() {
                // Nobody may wait for it any more.
                let _ = found.send(());
            }
            shared.late.lock().remove(&request);
        });
        is_found
    }

    /// Runs a call. If it was looked up ([`CacheTier::look_up`]) and its outcome arrives meanwhile, the
    /// run ends with that.
    ///
    /// `run` runs it, for example [`Dispatcher::run`].
    ///
    /// # Errors
    /// The error of the run.
    pub async fn run_beside(
        &self,
        dispatcher: &Dispatcher,
        invocation: &Invocation,
        run: impl Future<Output = ApiResult<Completion>>,
    ) -> ApiResult<Completion> {
        self.follow(dispatcher);
        let request = dispatcher.request(invocation)?;
        let late = self.shared.late.lock().get(&request).cloned();
        let arrives = async {
            match late {
                Some(late) => late.await.is_ok(),
                None => false,
            }
        };
        let mut run = std::pin::pin!(run);
        let completion = tokio::select! {
            completion = &mut run => completion,
            true = arrives => dispatcher.run(invocation.clone()).await,
        }?;
        self.add(&completion);
        if !completion.from_memo {
            self.shared.calls.lock().ran.push(completion.request);
        }
        Ok(completion)
    }

    /// Looks up a call and runs it.
    ///
    /// # Errors
    /// As [`Dispatcher::run`].
    pub async fn run(
        &self,
        dispatcher: &Dispatcher,
        invocation: Invocation,
    ) -> ApiResult<Completion> {
        self.look_up(dispatcher, &invocation).await?;
        self.run_beside(dispatcher, &invocation, dispatcher.run(invocation.clone())).await
    }

    /// Begins to look up and to send the runs below the calls of `dispatcher`. Further calls have no
    /// effect. It has none either if the dispatcher does not share runs
    /// ([`DispatcherBuilder::shares_runs`](manifold_dispatcher::DispatcherBuilder::shares_runs)).
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn follow(&self, dispatcher: &Dispatcher) {
        if self.shared.stop.is_cancelled() {
            return;
        }
        self.units.lock().get_or_insert_with(|| {
            let units = Arc::new(Units::new(Arc::clone(&self.shared), dispatcher.clone()));
            let ended = CancellationToken::new();
            let task = tokio::spawn(Arc::clone(&units).follow(ended.clone()));
            Following { units, ended, task: AbortOnDropHandle::new(task) }
        });
    }

    /// Waits until the cache is connected and the outcomes of the ref are here, as long as the head start
    /// of a call.
    pub async fn wait(&self) {
        // Whatever has come of it, the work goes on.
        let _ = tokio::time::timeout(self.shared.options.head_start, self.shared.ready()).await;
    }

    /// Adds a call that has ended and was not run with this tier, so that a ref has what it reaches.
    pub fn add(&self, completion: &Completion) {
        let mut calls = self.shared.calls.lock();
        if self.shared.options.name.is_some() && calls.all.len() < MAX_CALLS {
            calls.all.insert(completion.request);
        }
    }

    /// Sends the outcomes of the calls, what the ref has now, and the rest. Gives up after `time`. The
    /// cache is not used any more then.
    pub async fn finish(&self, dispatcher: &Dispatcher, time: Duration) -> Exchanged {
        let (shared, following) = (&self.shared, self.units.lock().take());
        let units = following.as_ref().map(|following| Arc::clone(&following.units));
        // What is sent has a large state.
        let finish = Box::pin(shared.finish(dispatcher, following));
        if tokio::time::timeout(time, finish).await.is_err() {
            shared.fail(&shared.too_slow("accept the rest", time));
        }
        let is_connected = shared.cache().is_some();
        shared.stop();
        let (sent_packs, sent_bytes) = *shared.sent.lock();
        Exchanged {
            address: if is_connected { shared.address.clone() } else { String::new() },
            hit: shared.hit.load(Ordering::Relaxed),
            seeded: shared.seed.lock().as_ref().map_or(0, |seed| seed.new_entries),
            found: units.map_or(0, |units| units.found()),
            sent_packs,
            sent_bytes,
        }
    }
}

impl Drop for CacheTier {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    async fn start(
        &self,
        connect: impl Future<Output = Result<SharedCache, CacheError>>,
    ) -> Result<(), CacheError> {
        let within = self.options.look_up_within;
        let cache = tokio::time::timeout(within, connect).await;
        let cache = cache.map_err(|_| self.too_slow("connect", within))??;
        let name = self.options.name.as_ref();
        if !cache.can_write() {
            self.recorded.stop();
        } else if name.is_some() {
            let sender = Sender::start(cache.clone(), Arc::clone(&self.recorded));
            *self.sender.lock() = Some(sender);
        }
        self.enter(State::Connected(cache.clone()));
        if let Some(name) = name {
            let within = self.options.fetch_within;
            let fetch = cache.fetch_ref(name, self.recorded.store());
            let seed = tokio::time::timeout(within, fetch).await;
            *self.seed.lock() = seed.map_err(|_| self.too_slow("send a ref", within))??;
        }
        self.enter(State::Ready(cache));
        Ok(())
    }

    /// Changes the state, unless the cache is not used any more.
    fn enter(&self, next: State) {
        self.state.send_if_modified(|state| {
            let changes = !matches!(state, State::Ended);
            if changes {
                *state = next;
            }
            changes
        });
    }

    /// Returns the cache if there is a connection.
    fn cache(&self) -> Option<SharedCache> {
        match &*self.state.borrow() {
            State::Connected(cache) | State::Ready(cache) => Some(cache.clone()),
            State::Connecting | State::Ended => None,
        }
    }

    /// Waits until the cache is connected. `None` if it is not used any more.
    async fn connected(&self) -> Option<SharedCache> {
        let mut state = self.state.subscribe();
        // Fails if the tier is gone.
        drop(state.wait_for(|state| !matches!(state, State::Connecting)).await.ok()?);
        self.cache()
    }

    /// Waits until the outcomes of the ref are here, too. `None` if the cache is not used any more.
    pub(crate) async fn ready(&self) -> Option<SharedCache> {
        let mut state = self.state.subscribe();
        let is_decided = |state: &State| matches!(state, State::Ready(_) | State::Ended);
        drop(state.wait_for(is_decided).await.ok()?);
        self.cache()
    }

    /// Waits until the cache is not used any more.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Fetches the outcome of a request. `None` if the cache does not have it, or has something that is
    /// malformed.
    pub(crate) async fn fetch(&self, cache: &SharedCache, request: ObjectId) -> Option<ObjectRef> {
        let within = self.options.look_up_within;
        let fetch = cache.fetch(request, self.recorded.store());
        let fetched = match tokio::time::timeout(within, fetch).await {
            Ok(fetched) => fetched,
            Err(_) => Err(self.too_slow("look up a result", within)),
        };
        match fetched {
            Ok(found) => found,
            Err(error) if error.is_about_content() => {
                // It is run, and sent again.
                tracing::warn!("a result of the cache is not used: {}", error.in_a_line());
                None
            }
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    /// Sends the outcomes of requests, as far as they are memoized.
    pub(crate) async fn publish(&self, cache: &SharedCache, mut requests: Vec<ObjectId>) {
        if !self.can_write(cache) {
            return;
        }
        {
            let mut published = self.published.lock();
            if published.len() >= MAX_PUBLISHED {
                published.clear();
            }
            requests.retain(|request| published.insert(*request));
        }
        let store = Arc::clone(self.recorded.store());
        let memoized = move || -> ApiResult<Vec<_>> {
            let mut outcomes = Vec::new();
            for request in requests {
                outcomes.extend(store.look_up(request)?.map(|outcome| (request, outcome)));
            }
            Ok(outcomes)
        };
        let published = async {
            let outcomes = blocking(memoized).await?;
            cache.publish_each(outcomes, self.recorded.store()).await
        };
        match published.await {
            Ok(packs) => self.count_sent(&packs),
            Err(error) => self.refuse(&error),
        }
    }

    /// Takes the requests that were run and whose outcomes are to be sent.
    pub(crate) fn take_ran(&self) -> Vec<ObjectId> {
        std::mem::take(&mut self.calls.lock().ran)
    }

    pub(crate) fn can_write(&self, cache: &SharedCache) -> bool {
        cache.can_write() && !self.refuses.load(Ordering::Relaxed)
    }

    fn count_sent(&self, packs: &[Digest]) {
        let mut sent = self.sent.lock();
        sent.0 += packs.len();
        sent.1 += packs.iter().map(Digest::length).sum::<u64>();
    }

    fn tell(&self, error: &CacheError) {
        if !self.was_told.swap(true, Ordering::Relaxed) {
            (self.options.on_problem)(error);
        }
    }

    /// Sends nothing any more, because the cache has refused something.
    fn refuse(&self, error: &CacheError) {
        self.tell(error);
        self.refuses.store(true, Ordering::Relaxed);
        self.recorded.stop();
        *self.sender.lock() = None;
    }

    /// Uses the cache no more, because it has failed.
    fn fail(&self, error: &CacheError) {
        self.tell(error);
        self.stop();
    }

    /// Uses the cache no more.
    fn stop(&self) {
        self.enter(State::Ended);
        self.stop.cancel();
        self.recorded.stop();
        *self.sender.lock() = None;
    }

    fn too_slow(&self, operation: &'static str, time: Duration) -> CacheError {
        CacheError::TooSlow { address: self.address.clone(), operation, time }
    }

    async fn finish(&self, dispatcher: &Dispatcher, following: Option<Following>) {
        let rest = match following {
            Some(Following { ended, task, .. }) => {
                ended.cancel();
                joined(task.await).unwrap_or_default()
            }
            None => Vec::new(),
        };
        let ran = self.take_ran();
        // If nothing is to be sent, nothing is waited for.
        let has_name = self.options.name.is_some();
        let cache = if has_name { self.ready().await } else { self.connected().await };
        let Some(cache) = cache.filter(|cache| self.can_write(cache)) else { return };
        units::publish_rest(self, &cache, &ran).await;
        let sender = self.sender.lock().take();
        if let Some((name, sender)) = self.options.name.as_ref().zip(sender)
            && let Err(error) = self.set_name(name, &cache, dispatcher, sender).await
        {
            return self.refuse(&error);
        }
        units::publish_rest(self, &cache, &rest).await;
    }

    async fn set_name(
        &self,
        name: &str,
        cache: &SharedCache,
        dispatcher: &Dispatcher,
        sender: Sender,
    ) -> Result<(), CacheError> {
        let mut sent = sender.finish().await?;
        let calls: Vec<_> = self.calls.lock().all.drain().collect();
        let seed = self.seed.lock().clone();
        let ended = name::Ended { cache, store: self.recorded.store(), dispatcher, calls: &calls };
        ended.set(name, seed.as_ref(), &mut sent).await?;
        self.count_sent(&sent.packs);
        Ok(())
    }
}
