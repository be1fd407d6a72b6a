//! A cache that several machines share. Whatever fails there is a warning, and the work goes on
//! without it.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_cache_reapi::{
    CacheAddress, CacheError, CacheOptions, Digest, FULL_ENTRIES, Recorded, Seed, Sender, Sent,
    SharedCache, check_name,
};
use manifold_dispatcher::{Dispatcher, Invocation, Store};
use manifold_runtime_api::{ObjectId, ObjectRef};
use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::args::{CacheArgs, CacheStatus, UseArgs};
use crate::error::CliError;
use crate::explain::reached;
use crate::patience::remaining;
use crate::report;
use crate::say::warn;

/// How long a call waits for each answer before it is run, how long for the outcomes of a name, and how
/// long at its end.
const BEFORE: Duration = Duration::from_secs(10);
const SEEDING: Duration = Duration::from_secs(60);
const AFTER: Duration = Duration::from_secs(60);

/// A name that has more packs than this, beside full ones, gets its outcomes in new packs.
const SMALL_PACKS: usize = 32;

/// The environment variable with a token for the server.
const TOKEN: &str = "MANIFOLD_CACHE_TOKEN";

impl CacheArgs {
    /// Returns the options of the cache that the user named.
    fn options(&self) -> Result<Option<CacheOptions>, CliError> {
        // An empty text counts as unset, because CI systems define empty variables.
        let Some(address) = self.address.as_deref().filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        if let Some(name) = self.name() {
            check_name(name)?;
        }
        let has_certificates = self.authority.is_some() || self.certificate.is_some();
        if has_certificates && !address.starts_with("grpcs://") {
            return Err(CliError::Cache(CacheError::Credentials {
                what: "certificate".to_owned(),
                problem: "the address does not begin with grpcs://".to_owned(),
            }));
        }
        let address: CacheAddress = address.parse()?;
        let mut options = CacheOptions::new(address).read_only(self.read_only);
        if let Some(token) = env::var(TOKEN).ok().filter(|token| !token.is_empty()) {
            options = options.header("authorization", &format!("Bearer {token}"))?;
        }
        if let Some(file) = &self.headers {
            let lines = fs::read_to_string(file)
                .map_err(|source| CliError::Unreadable { path: file.clone(), source })?;
            for (number, line) in lines.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
                // The line may be a secret.
                let (name, value) = line
                    .split_once(':')
                    .ok_or_else(|| CliError::BadHeader { path: file.clone(), line: number + 1 })?;
                options = options.header(name.trim(), value.trim())?;
            }
        }
        if let Some(authority) = &self.authority {
            options = options.trusting(authority);
        }
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            options = options.identity(certificate, key);
        }
        Ok(Some(options))
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref().filter(|name| !name.is_empty())
    }

    /// Begins to connect, if the user named a cache. Returns also the store to compute with.
    pub(crate) fn begin(&self, store: Arc<dyn Store>) -> Result<(Arc<dyn Store>, Link), CliError> {
        let Some(options) = self.options()? else { return Ok((store, Link::default())) };
        let recorded = Arc::new(Recorded::new(store));
        if self.read_only {
            recorded.stop();
        }
        let name = self.name().map(str::to_owned);
        let (connection, connected) = oneshot::channel();
        let task = {
            let (name, store) = (name.clone(), Arc::clone(recorded.store()));
            tokio::spawn(async move {
                let cache = match SharedCache::connect(&options).await {
                    Ok(cache) => cache,
                    Err(error) => {
                        // The receiver may be gone.
                        let _ = connection.send(Err(error));
                        return Ok(None);
                    }
                };
                let _ = connection.send(Ok(cache.clone()));
                match &name {
                    Some(name) => cache.fetch_ref(name, &store).await,
                    None => Ok(None),
                }
            })
        };
        let task = AbortOnDropHandle::new(task);
        let connecting = Connecting { recorded: Arc::clone(&recorded), name, connected, task };
        Ok((recorded, Link { connecting: Some(connecting), shared: None }))
    }
}

/// The cache that a command uses, if the user named one.
#[derive(Default)]
pub(crate) struct Link {
    connecting: Option<Connecting>,
    shared: Option<Shared>,
}

impl Link {
    /// Looks up a call in the cache, unless its outcome is known here. Returns whether the outcome is
    /// known then.
    pub(crate) async fn look_up(
        &mut self,
        dispatcher: &Dispatcher,
        invocation: &Invocation,
        recompute: bool,
    ) -> Result<bool, CliError> {
        let is_known =
            || -> Result<bool, CliError> { Ok(!recompute && dispatcher.is_memoized(invocation)?) };
        let was_known = is_known()?;
        // An outcome that is known needs no cache, unless a name is to have it.
        if let Some(connecting) =
            self.connecting.take_if(|connecting| !was_known || connecting.name.is_some())
        {
            self.shared = connecting.ready().await;
        }
        let Some(shared) = &mut self.shared else { return Ok(was_known) };
        if recompute || is_known()? {
            return Ok(!recompute);
        }
        shared.fetch(dispatcher.request(invocation)?).await;
        is_known()
    }

    /// Adds a call that has an outcome. `runs` is the number of frames that ran for it.
    pub(crate) fn add(&mut self, request: ObjectId, outcome: ObjectRef, runs: u64) {
        let Some(shared) = &mut self.shared else { return };
        shared.calls.push(request);
        if runs > 0 {
            shared.ran.push((request, outcome));
        }
    }

    /// Sends the rest, the outcomes of the calls, and what the name has now.
    pub(crate) async fn finish(
        &mut self,
        dispatcher: &Dispatcher,
        using: &UseArgs,
    ) -> Option<CacheReport> {
        Some(self.shared.take()?.finish(dispatcher, using).await)
    }
}

/// A cache to which a connection is established.
struct Connecting {
    recorded: Arc<Recorded>,
    name: Option<String>,
    connected: oneshot::Receiver<Result<SharedCache, CacheError>>,
    /// Fetches what the name has.
    task: AbortOnDropHandle<Result<Option<Seed>, CacheError>>,
}

/// A cache in use.
struct Shared {
    cache: SharedCache,
    recorded: Arc<Recorded>,
    /// Sends what is recorded, if the cache takes results.
    sender: Option<Sender>,
    /// The name to set, if what it has is known.
    name: Option<String>,
    /// What the name had.
    seed: Option<Seed>,
    /// The calls that ran frames, with their outcomes.
    ran: Vec<(ObjectId, ObjectRef)>,
    /// All calls.
    calls: Vec<ObjectId>,
    /// Whether the cache has failed, so that it is not asked any more.
    has_failed: bool,
    report: CacheReport,
}

/// What was exchanged with a cache.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CacheReport {
    address: String,
    /// Whether the cache had the outcome of the call.
    hit: bool,
    /// How many outcomes the name had that were not known here.
    seeded: usize,
    /// How many packs were sent, and their number of bytes.
    sent_packs: usize,
    sent_bytes: u64,
}

impl CacheReport {
    /// Formats the report as a line.
    pub(crate) fn line(&self) -> String {
        let Self { address, hit, seeded, sent_packs, sent_bytes } = self;
        let mut parts = Vec::new();
        if *hit {
            parts.push("had the result".to_owned());
        }
        if *seeded > 0 {
            parts.push(format!("{seeded} outcomes taken"));
        }
        if *sent_packs > 0 {
            let size = bytesize::ByteSize(*sent_bytes).display().iec_short();
            let packs = if *sent_packs == 1 { "pack" } else { "packs" };
            parts.push(format!("{sent_packs} {packs} sent ({size})"));
        }
        if parts.is_empty() {
            parts.push("nothing to exchange".to_owned());
        }
        format!("cache   {address}: {}\n", parts.join(", "))
    }
}

/// Waits for the cache at most for a time. Says what failed.
async fn within<T>(time: Duration, work: impl Future<Output = Result<T, CacheError>>) -> Option<T> {
    // What is exchanged has a large state.
    match tokio::time::timeout(time, Box::pin(work)).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            warn(&format!("{}; the work goes on without the cache", chain(&error)));
            None
        }
        Err(_) => {
            warn(&format!(
                "the cache takes longer than {} s; the work goes on without it",
                time.as_secs()
            ));
            None
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl Connecting {
    /// Waits until the connection is established and the outcomes of the name are here.
    async fn ready(self) -> Option<Shared> {
        let Self { recorded, name, connected, task } = self;
        let connected = async {
            match connected.await {
                Ok(connected) => connected.map(Some),
                // A panic was shown when it happened.
                Err(_) => Ok(None),
            }
        };
        let Some(Some(cache)) = within(BEFORE, connected).await else {
            recorded.stop();
            return None;
        };
        let seeded = async { task.await.unwrap_or(Ok(None)) };
        let seeded = within(SEEDING, seeded).await;
        let has_failed = seeded.is_none();
        // A name about which nothing is known stays as it is.
        let name = name.filter(|_| !has_failed);
        let seed = seeded.flatten();
        let sends = cache.can_write() && !has_failed;
        let sender = sends.then(|| Sender::start(cache.clone(), Arc::clone(&recorded)));
        if !sends {
            recorded.stop();
        }
        let report = CacheReport {
            address: cache.address().to_owned(),
            seeded: seed.as_ref().map_or(0, |seed| seed.new_entries),
            ..CacheReport::default()
        };
        let (ran, calls) = (Vec::new(), Vec::new());
        Some(Shared { cache, recorded, sender, name, seed, ran, calls, has_failed, report })
    }
}

impl Shared {
    /// Looks up the outcome of a request in the cache, and puts it in the store.
    async fn fetch(&mut self, request: ObjectId) {
        if self.has_failed {
            return;
        }
        match within(BEFORE, self.cache.fetch(request, self.recorded.store())).await {
            Some(fetched) => self.report.hit |= fetched.is_some(),
            None => self.has_failed = true,
        }
    }

    /// See [`Link::finish`].
    async fn finish(mut self, dispatcher: &Dispatcher, using: &UseArgs) -> CacheReport {
        let keeps_provenance = using.keeps_provenance();
        let Some(sender) = self.sender.take().filter(|_| !self.has_failed) else {
            return self.report;
        };
        // A deadline ends the command, and its result with it.
        let time = using.deadline.map(remaining).map_or(AFTER, |left| left.min(AFTER));
        let sending = async {
            let mut sent = sender.finish().await?;
            if let Some(name) = &self.name {
                self.set_name(name, &mut sent, dispatcher, keeps_provenance).await?;
            }
            for (request, outcome) in &self.ran {
                self.cache.publish(*request, *outcome, self.recorded.store()).await?;
            }
            Ok(sent)
        };
        if let Some(sent) = within(time, sending).await {
            self.report.sent_packs = sent.packs.len();
            self.report.sent_bytes = sent.bytes;
        }
        self.report
    }

    /// Makes the name have what it had and what was sent.
    async fn set_name(
        &self,
        name: &str,
        sent: &mut Sent,
        dispatcher: &Dispatcher,
        keeps_provenance: bool,
    ) -> Result<(), CacheError> {
        let store = self.recorded.store();
        let Some(seed) = &self.seed else {
            // A new name gets all outcomes that the calls reach, also those that were known before.
            if keeps_provenance {
                let mut entries = known(dispatcher, &self.calls)?;
                entries.retain(|(request, _)| !sent.requests.contains(request));
                let more = self.cache.publish_entries(entries, store).await?;
                sent.bytes += more.iter().map(Digest::length).sum::<u64>();
                sent.packs.extend(more);
            }
            return match &sent.packs[..] {
                [] => Ok(()),
                packs => self.cache.publish_ref(name, packs).await,
            };
        };
        let mut packs = seed.packs.clone();
        packs.extend(sent.packs.iter().cloned());
        if packs.len() > SMALL_PACKS + seed.entries.len() / FULL_ENTRIES * 2 {
            let entries: BTreeMap<_, _> = seed.entries.iter().copied().collect();
            packs = self.cache.publish_entries(entries.into_iter().collect(), store).await?;
            packs.extend(sent.packs.iter().cloned());
        }
        if seed.is_whole && seed.packs == packs {
            return Ok(());
        }
        self.cache.publish_ref(name, &packs).await
    }
}

/// Returns the memo entries that calls reach, as far as the store has records of them.
fn known(
    dispatcher: &Dispatcher,
    calls: &[ObjectId],
) -> Result<Vec<(ObjectId, ObjectRef)>, CacheError> {
    // This reads the whole memo.
    tokio::task::block_in_place(|| {
        let records = dispatcher.provenances()?;
        let reached = calls.iter().flat_map(|request| reached(*request, &records));
        let mut entries = Vec::new();
        for request in reached.collect::<BTreeSet<_>>() {
            entries.extend(dispatcher.look_up(request)?.map(|outcome| (request, outcome)));
        }
        Ok(entries)
    })
}

/// `manifold cache status`.
pub(crate) async fn status(options: CacheStatus) -> Result<(), CliError> {
    let cache = options.cache.options()?.ok_or(CliError::NoCache)?;
    let start = Instant::now();
    let cache = SharedCache::connect(&cache).await?;
    let time = start.elapsed();
    let (address, takes) = (cache.address(), cache.can_write());
    let text = if options.json {
        let seconds = time.as_secs_f64();
        report::json(&json!({ "address": address, "takes_results": takes, "seconds": seconds }))?
    } else {
        let takes = if takes { "takes results" } else { "takes no results" };
        format!("{address} answers in {}, and {takes}\n", report::time(time.as_secs_f64()))
    };
    report::print(text.as_bytes())
}
