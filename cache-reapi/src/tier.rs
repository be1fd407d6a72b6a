//! [`CacheTier`]: a shared cache behind the store of a dispatcher.

mod name;
mod options;
mod state;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use manifold_dispatcher::{Completion, Dispatcher, Invocation, Policy, Store};
use manifold_runtime_api::{ObjectId, Result as ApiResult};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::units::Units;
use crate::{CacheError, CacheOptions, Recorded, SharedCache};
pub use options::{TierOptions, Use};
pub(crate) use state::Shared;
use state::{Late, State};

/// How many calls are looked up at once.
const AT_ONCE: usize = 32;
/// How many calls a ref has at most from one tier.
const MAX_CALLS: usize = 1_000_000;

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

impl fmt::Debug for CacheTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheTier").field("address", &self.shared.address).finish_non_exhaustive()
    }
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
            looking: Semaphore::new(AT_ONCE),
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
        let late = self.shared.late_look_up(request);
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
                let turn = shared.looking.acquire().await.ok()?;
                let fetched = shared.fetch(&cache, request).await;
                drop(turn);
                if fetched.is_none() {
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
                // This fails if the caller has stopped waiting.
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
        // Most calls are not looked up any more, and need not be hashed for that.
        let late = match self.shared.looks_up_some() {
            true => self.shared.late_look_up(dispatcher.request(invocation)?),
            false => None,
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
        self.add(&completion);
        if !completion.from_memo && !self.shared.stop.is_cancelled() {
            let mut calls = self.shared.calls.lock();
            if calls.ran.len() < MAX_CALLS {
                calls.ran.push(completion.request);
            }
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
        let finished = async {
            tokio::select! {
                () = finish => {}
                () = shared.stopped() => {}
            }
        };
        // Without any time, the cache is not to blame.
        if tokio::time::timeout(time, finished).await.is_err() && !time.is_zero() {
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
