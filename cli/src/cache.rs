//! A cache that several machines share. Whatever fails there is a warning, and the work goes on
//! without it.

use std::collections::{BTreeSet, HashSet};
use std::env;
use std::fs;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_cache_reapi::{
    CacheAddress, CacheError, CacheOptions, Digest, Recorded, Sender, Sent, SharedCache, Taken,
};
use manifold_dispatcher::{Dispatcher, Store};
use manifold_runtime_api::{ObjectId, ObjectRef};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::args::{CacheArgs, CacheStatus};
use crate::error::CliError;
use crate::explain::reached;
use crate::report;
use crate::say::warn;

/// How long a call waits for the cache before it is run, and at its end.
const BEFORE: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(60);

/// The environment variable with a token for the server.
const TOKEN: &str = "MANIFOLD_CACHE_TOKEN";

impl CacheArgs {
    /// Returns the options of the cache that the user named.
    fn options(&self) -> Result<Option<CacheOptions>, CliError> {
        // An empty variable counts as unset, because CI systems define empty variables.
        let Some(address) = self.address.as_deref().filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        let address: CacheAddress = address.parse()?;
        let mut options = CacheOptions::new(address).read_only(self.read_only);
        if let Some(token) = env::var(TOKEN).ok().filter(|token| !token.is_empty()) {
            options = options.header("authorization", &format!("Bearer {token}"))?;
        }
        if let Some(file) = &self.headers {
            let lines = fs::read_to_string(file)
                .map_err(|source| CliError::Unreadable { path: file.clone(), source })?;
            for line in lines.lines().filter(|line| !line.trim().is_empty()) {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
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

    /// Begins to connect, if the user named a cache. Returns also the store to compute with.
    pub(crate) fn begin(
        &self,
        store: Arc<dyn Store>,
    ) -> Result<(Arc<dyn Store>, Option<Connecting>), CliError> {
        let Some(options) = self.options()? else { return Ok((store, None)) };
        let recorded = Arc::new(Recorded::new(Arc::clone(&store)));
        let name = self.name.clone();
        let connected = {
            let name = name.clone();
            tokio::spawn(async move {
                let cache = SharedCache::connect(&options).await?;
                let seed = match &name {
                    Some(name) => cache.fetch_ref(name, &store).await?,
                    None => None,
                };
                Ok((cache, seed))
            })
        };
        Ok((Arc::clone(&recorded) as _, Some(Connecting { recorded, name, connected })))
    }
}

type Seed = Option<(Vec<Digest>, Taken)>;

/// A cache to which a connection is established.
pub(crate) struct Connecting {
    recorded: Arc<Recorded>,
    name: Option<String>,
    connected: JoinHandle<Result<(SharedCache, Seed), CacheError>>,
}

/// A cache in use.
pub(crate) struct Shared {
    cache: SharedCache,
    recorded: Arc<Recorded>,
    /// Sends what is recorded, if the cache takes results.
    sender: Option<Sender>,
    name: Option<String>,
    /// The packs that the name had.
    seed: Option<Vec<Digest>>,
    /// The calls whose outcomes the cache had.
    fetched: HashSet<ObjectId>,
    /// The calls, with their outcomes.
    calls: Vec<(ObjectId, ObjectRef)>,
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
                "the cache does not answer within {} s; the work goes on without it",
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
    pub(crate) async fn ready(self) -> Option<Shared> {
        let Self { recorded, name, connected } = self;
        let connected = async {
            match connected.await {
                Ok(connected) => connected.map(Some),
                // A panic was shown when it happened.
                Err(_) => Ok(None),
            }
        };
        let (cache, seed) = within(BEFORE, connected).await??;
        let mut report =
            CacheReport { address: cache.address().to_owned(), ..CacheReport::default() };
        report.seeded = seed.as_ref().map_or(0, |(_, taken)| taken.entries);
        let sender = cache.can_write().then(|| Sender::start(cache.clone(), Arc::clone(&recorded)));
        let seed = seed.map(|(packs, _)| packs);
        let (fetched, calls) = (HashSet::new(), Vec::new());
        Some(Shared { cache, recorded, sender, name, seed, fetched, calls, report })
    }
}

impl Shared {
    /// Looks up the outcome of a request in the cache, and puts it in the store.
    pub(crate) async fn fetch(&mut self, request: ObjectId) {
        let fetched = within(BEFORE, self.cache.fetch(request, self.recorded.store())).await;
        if let Some(Some(_)) = fetched {
            self.report.hit = true;
            self.fetched.insert(request);
        }
    }

    /// Adds a call that has an outcome.
    pub(crate) fn add(&mut self, request: ObjectId, outcome: ObjectRef) {
        self.calls.push((request, outcome));
    }

    /// Sends the rest, the outcomes of the calls, and what the name has now.
    pub(crate) async fn finish(
        mut self,
        dispatcher: &Dispatcher,
        keeps_provenance: bool,
    ) -> CacheReport {
        let Some(sender) = self.sender.take() else { return self.report };
        let sending = async {
            let mut sent = sender.finish().await?;
            if let Some(name) = &self.name {
                self.set_name(name, &mut sent, dispatcher, keeps_provenance).await?;
            }
            for (request, outcome) in &self.calls {
                if !self.fetched.contains(request) {
                    self.cache.publish(*request, *outcome, self.recorded.store()).await?;
                }
            }
            Ok(sent)
        };
        if let Some(sent) = within(AFTER, sending).await {
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
        let mut packs = self.seed.clone().unwrap_or_default();
        // A new name gets all outcomes that the call reaches, also those that were known before.
        if self.seed.is_none() && keeps_provenance {
            let records = dispatcher.provenances()?;
            let calls = self.calls.iter().flat_map(|(request, _)| reached(*request, &records));
            let mut entries = Vec::new();
            for request in calls.collect::<BTreeSet<_>>() {
                entries.extend(dispatcher.look_up(request)?.map(|outcome| (request, outcome)));
            }
            let all = self.cache.publish_entries(entries, self.recorded.store()).await?;
            sent.bytes += all.iter().map(Digest::length).sum::<u64>();
            sent.packs = all;
        }
        packs.extend(sent.packs.iter().cloned());
        if self.seed.as_ref() == Some(&packs) {
            Ok(())
        } else {
            self.cache.publish_ref(name, &packs).await
        }
    }
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
