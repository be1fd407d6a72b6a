//! [`CacheTier`]: a shared cache behind the store of a dispatcher.

mod name;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use manifold_dispatcher::{Completion, Dispatcher, Invocation, Policy, Store};
use manifold_runtime_api::{ObjectId, ObjectRef, Result as ApiResult};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::digest::Digest;
use crate::units::Units;
use crate::{CacheError, CacheOptions, Recorded, Seed, Sender, SharedCache, check_name};

/// How many outcomes of calls are sent at once.
const BATCH: usize = 64;

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

    /// Sets what is called when the cache fails, at most once. The cache is not used any more then.
    /// Default: an event of `tracing`.
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
#[derive(Debug)]
pub struct CacheTier {
    shared: Arc<Shared>,
    /// Connects, and fetches the outcomes of the ref.
    _begins: AbortOnDropHandle<()>,
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
    /// How many packs with new outcomes were sent.
    pub sent_packs: usize,
    /// Their number of bytes.
    pub sent_bytes: u64,
}

/// The runs below the calls, and what follows them.
#[derive(Debug)]
struct Following {
    ended: CancellationToken,
    task: AbortOnDropHandle<Option<usize>>,
}

/// The state of a tier.
struct Shared {
    options: TierOptions,
    recorded: Arc<Recorded>,
    state: watch::Sender<State>,
    has_failed: AtomicBool,
    /// What the ref had.
    seed: Mutex<Option<Seed>>,
    sender: Mutex<Option<Sender>>,
    calls: Mutex<Calls>,
    /// Look-ups of calls that took longer than the head start.
    late: Mutex<HashMap<ObjectId, oneshot::Receiver<()>>>,
    hit: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
enum State {
    Connecting,
    /// It is connected, and the outcomes of the ref may still arrive.
    Connected(SharedCache),
    Ready(SharedCache),
    Failed,
}

#[derive(Debug, Default)]
struct Calls {
    /// The requests of all calls.
    all: Vec<ObjectId>,
    /// Those that were run, with their outcomes.
    ran: Vec<(ObjectId, ObjectRef)>,
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
        let connect = async move { SharedCache::connect(&server).await };
        Self::begin(connect, options, store)
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
        Self::begin(async move { Ok(cache) }, options, store)
    }

    fn begin(
        connect: impl Future<Output = Result<SharedCache, CacheError>> + Send + 'static,
        options: TierOptions,
        store: Arc<dyn Store>,
    ) -> (Arc<dyn Store>, Self) {
        let recorded = Arc::new(Recorded::new(store));
        let shared = Arc::new(Shared {
            options,
            recorded: Arc::clone(&recorded),
            state: watch::Sender::new(State::Connecting),
            has_failed: AtomicBool::new(false),
            seed: Mutex::default(),
            sender: Mutex::default(),
            calls: Mutex::default(),
            late: Mutex::default(),
            hit: AtomicBool::new(false),
        });
        let task = Arc::clone(&shared);
        let begins = tokio::spawn(async move {
            if let Err(error) = task.start(connect).await {
                task.fail(&error);
            }
        });
        (
            recorded,
            Self { shared, _begins: AbortOnDropHandle::new(begins), units: Mutex::default() },
        )
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
        let (found, mut is_found) = oneshot::channel();
        let (shared, invocation, dispatcher) =
            (Arc::clone(&self.shared), invocation.clone(), dispatcher.clone());
        tokio::spawn(async move {
            let Some(cache) = shared.ready().await else { return };
            // The ref may have it.
            let is_known = dispatcher.is_memoized(&invocation).unwrap_or_default();
            if is_known || shared.fetch(&cache, request).await {
                // The call may have ended.
                let _ = found.send(());
            }
        });
        match tokio::time::timeout(self.shared.options.head_start, &mut is_found).await {
            Ok(found) => Ok(found.is_ok()),
            Err(_) => {
                self.shared.late.lock().insert(request, is_found);
                Ok(false)
            }
        }
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
        let late = {
            let mut late = self.shared.late.lock();
            if late.is_empty() { None } else { late.remove(&dispatcher.request(invocation)?) }
        };
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
        let mut calls = self.shared.calls.lock();
        calls.all.push(completion.request);
        if !completion.from_memo {
            calls.ran.push((completion.request, completion.outcome));
        }
        drop(calls);
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
    pub fn follow(&self, dispatcher: &Dispatcher) {
        self.units.lock().get_or_insert_with(|| {
            let (ended, shared) = (CancellationToken::new(), Arc::clone(&self.shared));
            let (until, dispatcher) = (ended.clone(), dispatcher.clone());
            let task = tokio::spawn(async move {
                // A ref has most of what is worth a look-up.
                let cache = shared.ready().await?;
                let store = Arc::clone(shared.recorded.store());
                let units = Arc::new(Units::new(cache, store, dispatcher));
                if let Err(error) = Arc::clone(&units).follow(until).await {
                    shared.fail(&error);
                }
                Some(units.found())
            });
            Following { ended, task: AbortOnDropHandle::new(task) }
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
        self.shared.calls.lock().all.push(completion.request);
    }

    /// Sends the rest, the outcomes of the calls, and what the ref has now. Gives up after `time`.
    /// The cache is not used any more then.
    pub async fn finish(&self, dispatcher: &Dispatcher, time: Duration) -> Exchanged {
        let (shared, units) = (&self.shared, self.units.lock().take());
        let mut exchanged = Exchanged::default();
        let finish = shared.finish(dispatcher, units, &mut exchanged);
        // What is sent has a large state.
        match tokio::time::timeout(time, Box::pin(finish)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => shared.fail(&error),
            Err(_) => shared.fail(&shared.too_slow("accept the rest", time)),
        }
        exchanged
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
        if cache.can_write() {
            let sender = Sender::start(cache.clone(), Arc::clone(&self.recorded));
            *self.sender.lock() = Some(sender);
        } else {
            self.recorded.stop();
        }
        self.state.send_replace(State::Connected(cache.clone()));
        if let Some(name) = &self.options.name {
            let within = self.options.fetch_within;
            let fetch = cache.fetch_ref(name, self.recorded.store());
            let seed = tokio::time::timeout(within, fetch).await;
            *self.seed.lock() = seed.map_err(|_| self.too_slow("send a ref", within))??;
        }
        self.state.send_replace(State::Ready(cache));
        Ok(())
    }

    /// Waits until the cache is connected and the outcomes of the ref are here. `None` if it has failed.
    async fn ready(&self) -> Option<SharedCache> {
        let mut state = self.state.subscribe();
        let is_decided = |state: &State| matches!(state, State::Ready(_) | State::Failed);
        match &*state.wait_for(is_decided).await.ok()? {
            State::Ready(cache) => Some(cache.clone()),
            _ => None,
        }
    }

    /// Fetches the outcome of a request. Returns whether it is here then.
    async fn fetch(&self, cache: &SharedCache, request: ObjectId) -> bool {
        let within = self.options.look_up_within;
        let fetch = cache.fetch(request, self.recorded.store());
        let fetched = match tokio::time::timeout(within, fetch).await {
            Ok(fetched) => fetched,
            Err(_) => Err(self.too_slow("look up a call", within)),
        };
        match fetched {
            Ok(found) => {
                self.hit.fetch_or(found.is_some(), Ordering::Relaxed);
                found.is_some()
            }
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    /// Uses the cache no more.
    fn fail(&self, error: &CacheError) {
        if !self.has_failed.swap(true, Ordering::Relaxed) {
            (self.options.on_problem)(error);
        }
        self.recorded.stop();
        *self.sender.lock() = None;
        self.state.send_replace(State::Failed);
    }

    fn too_slow(&self, operation: &'static str, time: Duration) -> CacheError {
        let address = match &*self.state.borrow() {
            State::Connected(cache) | State::Ready(cache) => cache.address().to_owned(),
            State::Connecting | State::Failed => String::new(),
        };
        CacheError::TooSlow { address, operation, time }
    }

    async fn finish(
        &self,
        dispatcher: &Dispatcher,
        units: Option<Following>,
        exchanged: &mut Exchanged,
    ) -> Result<(), CacheError> {
        let ready = self.ready().await;
        if let Some(Following { ended, task }) = units {
            ended.cancel();
            exchanged.found = task.await.ok().flatten().unwrap_or_default();
        }
        let Some(cache) = ready else { return Ok(()) };
        exchanged.address = cache.address().to_owned();
        exchanged.hit = self.hit.load(Ordering::Relaxed);
        let seed = self.seed.lock().take();
        exchanged.seeded = seed.as_ref().map_or(0, |seed| seed.new_entries);
        let sender = self.sender.lock().take();
        // It is gone if the cache has failed.
        let Some(sender) = sender else { return Ok(()) };
        let mut sent = sender.finish().await?;
        let Calls { all, ran } = std::mem::take(&mut *self.calls.lock());
        let store = self.recorded.store();
        if let Some(name) = &self.options.name {
            let ended = name::Ended { cache: &cache, store, dispatcher, calls: &all };
            ended.set(name, seed.as_ref(), &mut sent).await?;
        }
        for outcomes in ran.chunks(BATCH) {
            cache.publish_each(outcomes.to_vec(), store).await?;
        }
        exchanged.sent_packs = sent.packs.len();
        exchanged.sent_bytes = sent.packs.iter().map(Digest::length).sum();
        Ok(())
    }
}
