//! [`Shared`]: the state of a tier, and what its tasks do with the cache.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::{ObjectId, ObjectRef, Result as ApiResult};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Following, TierOptions, Use, name};
use crate::digest::Digest;
use crate::shared::{blocking, joined};
use crate::{CacheError, Recorded, Seed, Sender, SharedCache, units};

/// How many requests are remembered whose outcomes were sent.
const MAX_PUBLISHED: usize = 100_000;

/// The state of a tier.
pub(crate) struct Shared {
    pub(super) options: TierOptions,
    /// The address of the cache, for messages.
    pub(super) address: String,
    pub(super) recorded: Arc<Recorded>,
    pub(super) state: watch::Sender<State>,
    /// Ends all tasks once the cache is not used any more.
    pub(super) stop: CancellationToken,
    /// Whether the user was told that the cache has failed.
    pub(super) was_told: AtomicBool,
    /// Whether the cache has refused something that was sent, so that nothing is sent any more.
    pub(super) refuses: AtomicBool,
    /// What the ref had.
    pub(super) seed: Mutex<Option<Seed>>,
    /// Sends what the ref gets.
    pub(super) sender: Mutex<Option<Sender>>,
    pub(super) calls: Mutex<Calls>,
    /// Look-ups of calls, until they end.
    pub(super) late: Mutex<HashMap<ObjectId, Late>>,
    /// Limits how many of them are on their way at once.
    pub(super) looking: Semaphore,
    pub(super) hit: AtomicBool,
    /// The requests whose outcomes were sent on their own, as far as they are remembered.
    pub(super) published: Mutex<HashSet<ObjectId>>,
    /// How many packs were sent, and their number of bytes.
    pub(super) sent: Mutex<(usize, u64)>,
}

/// Is there once the outcome has arrived. An error if it does not come.
pub(super) type Late = futures_util::future::Shared<oneshot::Receiver<()>>;

#[derive(Debug, Clone)]
pub(super) enum State {
    Connecting,
    /// It is connected, and the outcomes of the ref may still arrive.
    Connected(SharedCache),
    Ready(SharedCache),
    /// It is not used any more.
    Ended,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The requests of all calls, if there is a ref.
    pub(super) all: HashSet<ObjectId>,
    /// Those that were run, and whose outcomes are to be sent.
    pub(super) ran: Vec<ObjectId>,
}

impl Shared {
    pub(super) async fn start(
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
            match tokio::time::timeout(within, fetch).await {
                Ok(seed) => *self.seed.lock() = seed?,
                Err(_) => {
                    // It stays as it is.
                    self.tell(&self.too_slow("send a ref", within), Use::WithoutRef);
                    self.recorded.stop();
                    *self.sender.lock() = None;
                }
            }
        }
        self.enter(State::Ready(cache));
        Ok(())
    }

    /// Changes the state, unless the cache is not used any more.
    pub(super) fn enter(&self, next: State) {
        self.state.send_if_modified(|state| {
            let changes = !matches!(state, State::Ended);
            if changes {
                *state = next;
            }
            changes
        });
    }

    /// Returns the cache if there is a connection.
    pub(super) fn cache(&self) -> Option<SharedCache> {
        match &*self.state.borrow() {
            State::Connected(cache) | State::Ready(cache) => Some(cache.clone()),
            State::Connecting | State::Ended => None,
        }
    }

    /// Waits until the cache is connected. `None` if it is not used any more.
    pub(super) async fn connected(&self) -> Option<SharedCache> {
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
        let fetched = match tokio::time::timeout(within, cache.download(request)).await {
            Ok(Ok(Some(download))) => cache.unpack(request, download, self.recorded.store()).await,
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => Err(error),
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
            let published = self.published.lock();
            requests.retain(|request| !published.contains(request));
        }
        requests.sort_unstable();
        requests.dedup();
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
            self.remember(&outcomes);
            cache.publish_each(outcomes, self.recorded.store()).await
        };
        match published.await {
            Ok(packs) => self.count_sent(&packs),
            Err(error) => self.refuse(&error),
        }
    }

    /// Remembers that the outcomes of requests are sent.
    pub(super) fn remember(&self, outcomes: &[(ObjectId, ObjectRef)]) {
        let mut published = self.published.lock();
        if published.len() >= MAX_PUBLISHED {
            published.clear();
        }
        published.extend(outcomes.iter().map(|(request, _)| *request));
    }

    /// Returns whether any call is being looked up.
    pub(super) fn looks_up_some(&self) -> bool {
        !self.late.lock().is_empty()
    }

    /// Returns the look-up of a call of the request, if it has not ended.
    pub(super) fn late_look_up(&self, request: ObjectId) -> Option<Late> {
        self.late.lock().get(&request).cloned()
    }

    /// Returns whether a call of the request is being looked up.
    pub(crate) fn looks_up(&self, request: ObjectId) -> bool {
        self.late.lock().contains_key(&request)
    }

    /// Takes the requests that were run and whose outcomes are to be sent.
    pub(crate) fn take_ran(&self) -> Vec<ObjectId> {
        std::mem::take(&mut self.calls.lock().ran)
    }

    pub(crate) fn can_write(&self, cache: &SharedCache) -> bool {
        cache.can_write() && !self.refuses.load(Ordering::Relaxed)
    }

    pub(super) fn count_sent(&self, packs: &[Digest]) {
        let mut sent = self.sent.lock();
        sent.0 += packs.len();
        sent.1 += packs.iter().map(Digest::length).sum::<u64>();
    }

    pub(super) fn tell(&self, error: &CacheError, still: Use) {
        if !self.was_told.swap(true, Ordering::Relaxed) {
            (self.options.on_problem)(error, still);
        }
    }

    /// Sends nothing any more, because the cache has refused something.
    pub(super) fn refuse(&self, error: &CacheError) {
        self.tell(error, Use::ReadOnly);
        self.refuses.store(true, Ordering::Relaxed);
        self.recorded.stop();
        *self.sender.lock() = None;
    }

    /// Uses the cache no more, because it has failed.
    pub(super) fn fail(&self, error: &CacheError) {
        self.tell(error, Use::Ended);
        self.stop();
    }

    /// Uses the cache no more.
    pub(super) fn stop(&self) {
        self.enter(State::Ended);
        self.stop.cancel();
        self.recorded.stop();
        *self.sender.lock() = None;
    }

    pub(super) fn too_slow(&self, operation: &'static str, time: Duration) -> CacheError {
        CacheError::TooSlow { address: self.address.clone(), operation, time }
    }

    pub(super) async fn finish(&self, dispatcher: &Dispatcher, following: Option<Following>) {
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
        if !has_name && ran.is_empty() && rest.is_empty() {
            return;
        }
        let cache = self.connected().await;
        let Some(cache) = cache.filter(|cache| self.can_write(cache)) else { return };
        units::publish_rest(self, &cache, &ran).await;
        if has_name && self.ready().await.is_none() {
            return;
        }
        let sender = self.sender.lock().take();
        if let Some((name, sender)) = self.options.name.as_ref().zip(sender)
            && let Err(error) = self.set_name(name, &cache, dispatcher, sender).await
        {
            return self.refuse(&error);
        }
        units::publish_rest(self, &cache, &rest).await;
    }

    pub(super) async fn set_name(
        &self,
        name: &str,
        cache: &SharedCache,
        dispatcher: &Dispatcher,
        sender: Sender,
    ) -> Result<(), CacheError> {
        let sent = sender.finish().await?;
        self.count_sent(&sent.packs);
        let calls: Vec<_> = self.calls.lock().all.drain().collect();
        let seed = self.seed.lock().clone();
        let ended = name::Ended { cache, store: self.recorded.store(), dispatcher, calls: &calls };
        self.count_sent(&ended.set(name, seed, sent).await?);
        Ok(())
    }
}
