//! What a ref has after calls.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use manifold_dispatcher::{Dispatcher, Store};
use manifold_runtime_api::{ObjectId, ObjectRef};

use crate::shared::{FULL_BYTES, blocking};
use crate::{CacheError, FULL_ENTRIES, Seed, Sent, SharedCache};

/// A ref that has more packs than this, beside full ones, gets its outcomes in new packs.
const SMALL_PACKS: usize = 32;

/// Calls that have ended.
pub(super) struct Ended<'a> {
    pub(super) cache: &'a SharedCache,
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) dispatcher: &'a Dispatcher,
    pub(super) calls: &'a [ObjectId],
}

impl Ended<'_> {
    /// Makes the ref have what it had (`seed`), what was sent, and what others gave it meanwhile.
    pub(super) async fn set(
        &self,
        name: &str,
        seed: Option<&Seed>,
        sent: &mut Sent,
    ) -> Result<(), CacheError> {
        let mut packs = Vec::new();
        match seed {
            Some(seed) => {
                packs.clone_from(&seed.packs);
                let too_many = packs.len() + sent.packs.len() > most_packs(seed);
                if too_many && !sent.packs.is_empty() {
                    let entries: BTreeMap<_, _> = seed.entries.iter().copied().collect();
                    let entries = entries.into_iter().collect();
                    packs = self.cache.publish_entries(entries, self.store).await?;
                }
            }
            None => {
                // A new ref gets all outcomes that the calls reach, also those that were known before.
                let mut entries = self.known().await?;
                entries.retain(|(request, _)| !sent.requests.contains(request));
                sent.packs.extend(self.cache.publish_entries(entries, self.store).await?);
            }
        }
        packs.extend(sent.packs.iter().cloned());
        // Another machine may have set it since. The protocol has no way to set it only if nobody has,
        // so what one sets in the next moment can still be lost.
        let now = self.cache.packs_of_ref(name).await?;
        let listed: HashSet<_> = seed.iter().flat_map(|seed| &seed.listed).collect();
        let others = now.iter().flatten().filter(|pack| !listed.contains(pack)).cloned();
        packs.extend(others.collect::<Vec<_>>());
        let mut met = HashSet::new();
        packs.retain(|pack| met.insert(pack.clone()));
        if packs.is_empty() || now.as_ref() == Some(&packs) {
            return Ok(());
        }
        // The server sees no reads of packs that are in files here, and may remove them first.
        self.cache.keep_packs(&packs).await?;
        self.cache.publish_ref(name, &packs).await
    }

    /// Returns the memo entries that the calls reach, as far as the store has records of them.
    async fn known(&self) -> Result<Vec<(ObjectId, ObjectRef)>, CacheError> {
        let (store, dispatcher) = (Arc::clone(self.store), self.dispatcher.clone());
        let mut open = self.calls.to_vec();
        let walk = move || {
            let mut met: HashSet<_> = open.iter().copied().collect();
            let mut entries = Vec::new();
            while let Some(request) = open.pop() {
                entries.extend(store.look_up(request)?.map(|outcome| (request, outcome)));
                if let Some(record) = dispatcher.provenance(request)? {
                    open.extend(record.wanted.into_iter().filter(|wanted| met.insert(*wanted)));
                }
            }
            Ok(entries)
        };
        blocking(walk).await
    }
}

/// Returns how many packs a ref has at most that has the entries of `seed`.
fn most_packs(seed: &Seed) -> usize {
    let by_bytes = usize::try_from(seed.object_bytes / FULL_BYTES).unwrap_or(usize::MAX);
    SMALL_PACKS.saturating_add((seed.entries.len() / FULL_ENTRIES).max(by_bytes).saturating_mul(2))
}
