//! [`SharedCache`]: outcomes on a server, for many machines.

use std::collections::HashSet;
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use manifold_dispatcher::{Provenance, Store};
use manifold_runtime_api::{Object, ObjectId, ObjectKind, ObjectRef, Result as ApiResult, Tree};

use crate::CacheError;
use crate::action::Action;
use crate::client::Client;
use crate::digest::Digest;
use crate::options::CacheOptions;
use crate::pack::Pack;

/// The largest pack, in bytes, compressed and decompressed.
const MAX_PACK_BYTES: u64 = 256 << 20;
/// A pack that has as many bytes of objects is full.
const FULL_BYTES: u64 = 4 << 20;
/// A pack that has as many entries is full.
pub(crate) const FULL_ENTRIES: usize = 50_000;
/// The path of the pack in the result of a request.
const OUTCOME: &str = "outcome";
/// How many packs a ref has at most. The oldest are left out.
const MAX_PACKS: usize = 64;

/// Outcomes on a server of the Remote Execution API, which many machines share.
///
/// A request has a result there ([`SharedCache::fetch`]): a [`Pack`] with its outcome. A *ref* is a name
/// for several packs ([`SharedCache::fetch_ref`]), which together have the outcomes of all runs of a
/// call, so that a similar call on another machine runs only what is different.
///
/// # Trust
/// What comes back is checked: a blob against its digest, and an object is stored under the id that its
/// content has. That a request has an outcome cannot be checked without running it, so whoever may
/// write to the cache can make a request have a wrong outcome. Let only machines write that you trust
/// as much as your own.
#[derive(Debug, Clone)]
pub struct SharedCache {
    client: Client,
    is_read_only: bool,
}

/// What was taken from a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken {
    /// The number of packs.
    pub packs: usize,
    /// Their number of bytes.
    pub bytes: u64,
    /// The number of memo entries that the store did not have.
    pub entries: usize,
}

impl SharedCache {
    /// Connects to a server.
    ///
    /// # Errors
    /// [`CacheError`] if the server cannot be reached or lacks something.
    pub async fn connect(options: &CacheOptions) -> Result<Self, CacheError> {
        let client = Client::connect(options).await?;
        Ok(Self { client, is_read_only: options.is_read_only })
    }

    /// Returns the server's address.
    pub fn address(&self) -> &str {
        self.client.address()
    }

    /// Returns whether results may be sent: the options allow it, and so does the server, as far as it
    /// says so.
    pub fn can_write(&self) -> bool {
        !self.is_read_only && self.client.accepts_results()
    }

    /// Looks up the outcome of a request, and puts it in `store` with its memo entry. `None` if the
    /// server does not have it.
    ///
    /// # Errors
    /// [`CacheError`] if the server fails, or if what it returns is malformed. Nothing is stored then.
    pub async fn fetch(
        &self,
        request: ObjectId,
        store: &Arc<dyn Store>,
    ) -> Result<Option<ObjectRef>, CacheError> {
        let action = Action::of_request(request);
        let Some(result) = self.client.result(&action.digest).await? else { return Ok(None) };
        let malformed = |problem: &str| CacheError::BadResult {
            what: format!("request {request}"),
            problem: problem.to_owned(),
        };
        let digests = packs(&result).ok_or_else(|| malformed("a digest is malformed"))?;
        let [digest] = &digests[..] else {
            return Err(malformed("it does not have one pack"));
        };
        let Some(mut pack) = self.pack(digest).await? else { return Ok(None) };
        let outcome = pack.entries.iter().find(|(found, _)| *found == request);
        let (_, outcome) = *outcome.ok_or_else(|| malformed("its pack has another request"))?;
        pack.entries.retain(|(found, _)| *found == request);
        put(pack, store).await?;
        // Its outcome may not be in the pack.
        Ok(store.look_up(request)?.filter(|found| *found == outcome))
    }

    /// Sends the outcome of a request, with the objects that it reaches and `store` has.
    ///
    /// # Errors
    /// [`CacheError`] if the server or the store fails.
    pub async fn publish(
        &self,
        request: ObjectId,
        outcome: ObjectRef,
        store: &Arc<dyn Store>,
    ) -> Result<(), CacheError> {
        let mut packs = collect(vec![(request, outcome)], store).await?;
        let Some(pack) = packs.pop() else { return Ok(()) };
        let digest = self.send(pack).await?;
        let text = format!("{outcome}\n", outcome = text_of(outcome)).into_bytes();
        self.set(Action::of_request(request), [(OUTCOME.to_owned(), digest)], text).await
    }

    /// Sends memo entries in packs, with the objects of their outcomes that `store` has. Returns the
    /// digests of the packs.
    ///
    /// # Errors
    /// [`CacheError`] if the server or the store fails.
    pub async fn publish_entries(
        &self,
        entries: Vec<(ObjectId, ObjectRef)>,
        store: &Arc<dyn Store>,
    ) -> Result<Vec<Digest>, CacheError> {
        let mut digests = Vec::new();
        for pack in collect(entries, store).await? {
            digests.push(self.send(pack).await?);
        }
        Ok(digests)
    }

    /// Puts the memo entries of all packs of a ref in `store`. Returns the digests of the packs. A pack
    /// that the server has removed is left out. `None` if there is no such ref.
    ///
    /// # Errors
    /// [`CacheError`] if the server or the store fails, or if a pack is malformed. The packs before it
    /// are stored then.
    pub async fn fetch_ref(
        &self,
        name: &str,
        store: &Arc<dyn Store>,
    ) -> Result<Option<(Vec<Digest>, Taken)>, CacheError> {
        let action = Action::of_ref(check_name(name)?);
        let Some(result) = self.client.result(&action.digest).await? else { return Ok(None) };
        let digests = packs(&result).ok_or_else(|| CacheError::BadResult {
            what: format!("ref {name}"),
            problem: "a digest is malformed".to_owned(),
        })?;
        let (mut found, mut taken) = (Vec::new(), Taken::default());
        for digest in digests {
            let Some(pack) = self.pack(&digest).await? else { continue };
            taken.packs += 1;
            taken.bytes += digest.length();
            taken.entries += put(pack, store).await?;
            found.push(digest);
        }
        Ok(Some((found, taken)))
    }

    /// Makes `name` refer to these packs, the oldest first.
    ///
    /// # Errors
    /// [`CacheError`] if the server fails.
    pub async fn publish_ref(&self, name: &str, packs: &[Digest]) -> Result<(), CacheError> {
        let packs = &packs[packs.len().saturating_sub(MAX_PACKS)..];
        let files = packs.iter().enumerate();
        let files = files.map(|(number, digest)| (format!("pack-{number:04}"), digest.clone()));
        self.set(Action::of_ref(check_name(name)?), files, Vec::new()).await
    }

    async fn pack(&self, digest: &Digest) -> Result<Option<Pack>, CacheError> {
        let Some(content) = self.client.blob(digest, MAX_PACK_BYTES).await? else {
            return Ok(None);
        };
        let pack = blocking(move || Pack::decode(&content, MAX_PACK_BYTES)).await;
        let pack = pack.map_err(|source| CacheError::BadPack { digest: digest.clone(), source })?;
        Ok(Some(pack))
    }

    async fn send(&self, pack: Pack) -> Result<Digest, CacheError> {
        let (digest, content) = blocking(move || {
            let content = pack.encode();
            (Digest::of(&content), content)
        })
        .await;
        self.client.add_blobs(vec![content]).await?;
        Ok(digest)
    }

    async fn set(
        &self,
        action: Action,
        files: impl IntoIterator<Item = (String, Digest)>,
        stdout: Vec<u8>,
    ) -> Result<(), CacheError> {
        let files = files.into_iter().map(|(path, digest)| reapi::OutputFile {
            path,
            digest: Some(digest.to_reapi()),
            ..reapi::OutputFile::default()
        });
        let result = reapi::ActionResult {
            output_files: files.collect(),
            stdout_raw: stdout,
            ..reapi::ActionResult::default()
        };
        let digest = action.digest.clone();
        self.client.add_blobs(action.blobs().into()).await?;
        self.client.set_result(&digest, result).await
    }
}

fn check_name(name: &str) -> Result<&str, CacheError> {
    let is_name = (1..=200).contains(&name.len()) && !name.contains(char::is_control);
    if is_name { Ok(name) } else { Err(CacheError::RefName { name: name.to_owned() }) }
}

fn text_of(outcome: ObjectRef) -> String {
    format!("{} {}", outcome.kind, outcome.id)
}

fn packs(result: &reapi::ActionResult) -> Option<Vec<Digest>> {
    let files = result.output_files.iter();
    files.map(|file| Digest::from_reapi(file.digest.as_ref()?)).collect()
}

/// Runs work that takes long or reads files. Panics where the work does.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and nobody waits for this any more.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Puts the entries of a pack in a store. Returns how many the store did not have. An entry whose
/// outcome is missing is left out, and so is one for which the store has another outcome.
async fn put(pack: Pack, store: &Arc<dyn Store>) -> Result<usize, CacheError> {
    let store = Arc::clone(store);
    let stored = blocking(move || -> ApiResult<usize> {
        let mut count = 0;
        for object in pack.objects.values() {
            store.write(object.clone())?;
        }
        for (request, outcome) in pack.entries {
            match store.look_up(request)? {
                Some(known) if known != outcome => tracing::warn!(
                    %request, known = %known.id, cached = %outcome.id,
                    "the shared cache has another outcome than the store"
                ),
                Some(_) => {}
                None if store.kind(outcome.id)? == Some(outcome.kind) => {
                    store.record(request, outcome)?;
                    count += 1;
                }
                None => {}
            }
        }
        Ok(count)
    });
    Ok(stored.await?)
}

/// Collects the objects of outcomes, as far as `store` has them, in packs.
async fn collect(
    entries: Vec<(ObjectId, ObjectRef)>,
    store: &Arc<dyn Store>,
) -> Result<Vec<Pack>, CacheError> {
    let store = Arc::clone(store);
    let collected = blocking(move || -> ApiResult<Vec<Pack>> {
        let (mut packs, mut pack, mut bytes) = (Vec::new(), Pack::default(), 0);
        let mut met = HashSet::new();
        for (request, outcome) in entries {
            let objects = reached(outcome, &*store, &mut met)?;
            // What only this machine knows is not for others.
            if objects.iter().any(Provenance::is_record) {
                continue;
            }
            for object in objects {
                bytes += object.content.len() as u64;
                pack.objects.insert(object.id(), object);
            }
            pack.entries.push((request, outcome));
            if bytes >= FULL_BYTES || pack.entries.len() >= FULL_ENTRIES {
                packs.push(std::mem::take(&mut pack));
                (bytes, met) = (0, HashSet::new());
            }
        }
        if !pack.entries.is_empty() {
            packs.push(pack);
        }
        Ok(packs)
    });
    Ok(collected.await?)
}

/// Returns the objects that `outcome` reaches, as far as `store` has them and they are not in `met`.
fn reached(
    outcome: ObjectRef,
    store: &dyn Store,
    met: &mut HashSet<ObjectId>,
) -> ApiResult<Vec<Object>> {
    let (mut objects, mut open) = (Vec::new(), vec![outcome.id]);
    while let Some(id) = open.pop() {
        if !met.insert(id) {
            continue;
        }
        let Some(object) = store.read(id)? else { continue };
        if object.kind == ObjectKind::Tree
            && let Ok(tree) = Tree::decode_as_git_reads(&object.content)
        {
            open.extend(tree.objects().map(|below| below.id));
        }
        objects.push(object);
    }
    Ok(objects)
}
