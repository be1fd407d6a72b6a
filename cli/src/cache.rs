//! A cache that several machines share. Whatever fails there is a warning, and the work goes on
//! without it.

use std::env;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_cache_reapi::{
    CacheAddress, CacheError, CacheOptions, CacheTier, Exchanged, SharedCache, TierOptions, Use,
};
use manifold_dispatcher::{Invocation, Store};
use serde::Serialize;
use serde_json::json;

use crate::args::{CacheArgs, CacheStatus, UseArgs};
use crate::error::CliError;
use crate::patience::remaining;
use crate::report;
use crate::say::warn;
use crate::session::Session;

/// How long the cache may take at the end.
const AFTER: Duration = Duration::from_secs(60);

/// The environment variable with a token for the server.
const TOKEN: &str = "MANIFOLD_CACHE_TOKEN";

impl CacheArgs {
    /// Returns the options of the cache that the user named.
    fn options(&self) -> Result<Option<CacheOptions>, CliError> {
        // An empty text counts as unset, because CI systems define empty variables.
        let Some(address) = self.address.as_deref().filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
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

    /// Opens the store, and begins to connect to the cache, if the user named one. Returns the store to
    /// compute with.
    pub(crate) fn begin(
        &self,
        using: &UseArgs,
    ) -> Result<(Arc<dyn Store>, Option<CacheTier>), CliError> {
        let (server, store) = (self.options()?, using.open()?);
        let Some(mut server) = server else { return Ok((store, None)) };
        if !using.no_store {
            server = server.packs_in(using.store.directory()?);
        }
        let mut options = TierOptions::default().on_problem(|error, still| {
            let goes_on = match still {
                Use::ReadOnly => "nothing is sent to it any more",
                Use::WithoutRef => "the work goes on without what the name has",
                _ => "the work goes on without the cache",
            };
            warn(&format!("{}; {goes_on}", error.in_a_line()));
        });
        if let Some(name) = self.name() {
            options = options.name(name)?;
        }
        let (store, tier) = CacheTier::connect(server, options, store);
        Ok((store, Some(tier)))
    }
}

impl Session {
    /// Uses the cache for the calls of this session.
    pub(crate) fn share(&mut self, cache: Option<CacheTier>) {
        self.cache = cache;
        if let Some(cache) = &self.cache {
            cache.follow(&self.dispatcher);
        }
    }

    /// Looks up a call in the cache. Returns whether its outcome is known then.
    pub(crate) async fn look_up(&self, invocation: &Invocation) -> Result<bool, CliError> {
        Ok(match &self.cache {
            Some(cache) => cache.look_up(&self.dispatcher, invocation).await?,
            None => self.dispatcher.is_memoized(invocation)?,
        })
    }

    /// Sends the rest of what was computed to the cache, and what its name has now.
    pub(crate) async fn finish_cache(&self, using: &UseArgs) -> Option<CacheReport> {
        let cache = self.cache.as_ref()?;
        // A deadline ends the command, and its result with it.
        let time = using.deadline.map(remaining).map_or(AFTER, |left| left.min(AFTER));
        CacheReport::of(cache.finish(&self.dispatcher, time).await)
    }
}

/// What was exchanged with a cache.
#[derive(Debug, Serialize)]
pub(crate) struct CacheReport {
    address: String,
    /// Whether the cache had the outcome of the call.
    hit: bool,
    /// How many outcomes the name had that were not known here.
    seeded: usize,
    /// How many runs below the call the cache had.
    found: usize,
    /// How many packs were sent, and their number of bytes.
    sent_packs: usize,
    sent_bytes: u64,
}

impl CacheReport {
    /// Returns `None` if there was no connection.
    fn of(exchanged: Exchanged) -> Option<Self> {
        let Exchanged { address, hit, seeded, found, sent_packs, sent_bytes, .. } = exchanged;
        let is_connected = !address.is_empty();
        is_connected.then_some(Self { address, hit, seeded, found, sent_packs, sent_bytes })
    }

    /// Formats the report as a line.
    pub(crate) fn line(&self) -> String {
        let Self { address, hit, seeded, found, sent_packs, sent_bytes } = self;
        let mut parts = Vec::new();
        if *hit {
            parts.push("had the result".to_owned());
        }
        if *seeded > 0 {
            parts.push(format!("{seeded} outcomes taken"));
        }
        if *found > 0 {
            parts.push(format!("{found} results of parts taken"));
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
