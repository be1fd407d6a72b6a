//! What a ref has after calls.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use manifold_dispatcher::{Dispatcher, Store};
use manifold_runtime_api::{ObjectId, ObjectRef};

use crate::digest::Digest;
use crate::shared::{FULL_BYTES, blocking};
use crate::{CacheError, FULL_ENTRIES, Seed, Sent, SharedCache};

/// A ref that has more packs than this, beside full ones, gets its outcomes in new packs.
const SMALL_PACKS: usize = 32;

/// The packs of a ref have at most so many bytes: others wait for them.
const MAX_REF_BYTES: u64 = 256 << 20;

/// Calls that have ended.
pub(super) struct Ended<'a> {
    pub(super) cache: &'a SharedCache,
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) dispatcher: &'a Dispatcher,
    pub(super) calls: &'a [ObjectId],
}

impl Ended<'_> {
    /// Makes the ref have what it had (`seed`), what was sent, what the calls reach and it lacks, and what
    /// others gave it meanwhile. Returns the digests of the packs that this sends.
    pub(super) async fn set(
        &self,
        name: &str,
        seed: Option<Seed>,
        sent: Sent,
    ) -> Result<Vec<Digest>, CacheError> {
        let seed = seed.unwrap_or_default();
        let known = self.known(&seed, sent.requests).await?;
        let mut new = self.cache.publish_entries(known, self.store).await?;
        if sent.packs.is_empty() && new.is_empty() {
            return Ok(new);
        }
        let mut packs = seed.packs.clone();
        if packs.len() + sent.packs.len() + new.len() > most_packs(&seed) {
            let entries: BTreeMap<_, _> = seed.entries.iter().copied().collect();
            let entries = entries.into_iter().collect();
            packs = self.cache.publish_entries(entries, self.store).await?;
            new.extend(packs.iter().cloned());
        } else {
            // The server sees no reads of packs that are in files here, and may have removed them.
            self.cache.keep_packs(&packs).await?;
        }
        // Another machine may have set the ref since it was fetched. The protocol has no compare-and-set,
        // so a write between this look-up and the next write is still lost.
        let now = self.cache.packs_of_ref(name).await?.unwrap_or_default();
        let listed: HashSet<_> = seed.listed.iter().collect();
        let stays = |pack: &&Digest| !listed.contains(pack) || seed.unread.contains(pack);
        let mut all: Vec<_> = now.iter().filter(stays).cloned().collect();
        all.extend(packs);
        all.extend(sent.packs);
        all.extend(new.iter().cloned());
        let mut met = HashSet::new();
        all.retain(|pack| met.insert(pack.clone()));
        self.cache.publish_ref(name, newest(&all)).await?;
        Ok(new)
    }

    /// Returns the memo entries that the calls reach, and that neither the ref has nor were sent, as far
    /// as the store has records of them. What is below a request that the ref has is not looked at.
    async fn known(
        &self,
        seed: &Seed,
        sent: HashSet<ObjectId>,
    ) -> Result<Vec<(ObjectId, ObjectRef)>, CacheError> {
        let (store, dispatcher) = (Arc::clone(self.store), self.dispatcher.clone());
        let mut met: HashSet<_> = seed.entries.iter().map(|(request, _)| *request).collect();
        let calls = self.calls.to_vec();
        let walk = move || {
            let mut open: Vec<_> =
                calls.into_iter().filter(|request| met.insert(*request)).collect();
            let mut entries = Vec::new();
            while let Some(request) = open.pop() {
                if !sent.contains(&request) {
                    entries.extend(store.look_up(request)?.map(|outcome| (request, outcome)));
                }
                if let Some(record) = dispatcher.provenance(request)? {
                    open.extend(record.wanted.into_iter().filter(|wanted| met.insert(*wanted)));
                }
            }
            Ok(entries)
        };
        blocking(walk).await
    }
}

/// Returns the newest of the packs, which are not too large together to be fetched.
fn newest(packs: &[Digest]) -> &[Digest] {
    let mut bytes = 0_u64;
    let fits = packs.iter().rev().take_while(|pack| {
        bytes = bytes.saturating_add(pack.length());
        bytes <= MAX_REF_BYTES
    });
    &packs[packs.len() - fits.count()..]
}

/// Returns how many packs a ref has at most that has the entries of `seed`.
fn most_packs(seed: &Seed) -> usize {
    let by_bytes = usize::try_from(seed.object_bytes / FULL_BYTES).unwrap_or(usize::MAX);
    SMALL_PACKS.saturating_add((seed.entries.len() / FULL_ENTRIES).max(by_bytes).saturating_mul(2))
}
