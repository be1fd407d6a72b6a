//! [`SharedCache`]: outcomes on a server, for many machines.

use std::collections::HashSet;
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use manifold_dispatcher::{Provenance, Store};
use manifold_pack::Pack;
use manifold_runtime_api::{Object, ObjectId, ObjectKind, ObjectRef, Result as ApiResult, Tree};
use tokio::task::JoinError;

use crate::CacheError;
use crate::action::Action;
use crate::client::Client;
use crate::digest::Digest;
use crate::options::CacheOptions;

/// The largest pack, in bytes, compressed and decompressed.
const MAX_PACK_BYTES: u64 = 256 << 20;
/// A pack that has as many bytes of objects is full.
const FULL_BYTES: u64 = 4 << 20;
/// The largest number of entries in a pack.
pub const FULL_ENTRIES: usize = 50_000;
/// An outcome that reaches more bytes of objects is not shared.
const MAX_OUTCOME_BYTES: u64 = 64 << 20;
/// The path of the pack in the result of a request.
const OUTCOME: &str = "outcome";
/// How many packs a result or a ref has at most.
const MAX_PACKS: usize = 1024;

/// Outcomes on a server of the Remote Execution API, which many machines share.
///
/// A request has a result there ([`SharedCache::fetch`]): a [`Pack`] with its outcome. A *ref* is a name
/// for several packs ([`SharedCache::fetch_ref`]), which together have the outcomes of all runs of a
/// call, so that a similar call on another machine runs only what is different.
///
/// # Trust
/// What comes back is checked: a blob against its digest, and an object is stored under the id that its
/// content has. Only a run of a request shows whether an outcome is that of the request, so whoever may
/// write to the cache can give a request a wrong outcome. Let only machines write that you trust as
/// much as your own.
#[derive(Debug, Clone)]
pub struct SharedCache {
    client: Client,
    is_read_only: bool,
}

/// What a ref has.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Seed {
    /// The digests of its packs, the oldest first, without those that could not be read.
    pub packs: Vec<Digest>,
    /// Their number of bytes.
    pub bytes: u64,
    /// All memo entries in them.
    pub entries: Vec<(ObjectId, ObjectRef)>,
    /// How many of the entries the store did not have.
    pub new_entries: usize,
    /// Whether all packs could be read. The server may have removed some, or they may be damaged.
    pub is_whole: bool,
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
        let mut whole = Pack::default();
        for digest in &digests {
            let Some(pack) = self.pack(digest).await? else { return Ok(None) };
            whole.entries.extend(pack.entries.into_iter().filter(|(found, _)| *found == request));
            whole.objects.extend(pack.objects);
        }
        let [(_, outcome)] = whole.entries[..] else {
            return Err(malformed("its packs do not have one outcome of the request"));
        };
        put(whole, store).await?;
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
        let text = format!("{} {}\n", outcome.kind, outcome.id);
        let files = [(OUTCOME.to_owned(), digest)];
        self.set(Action::of_request(request), files, text.into_bytes()).await
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

    /// Puts the memo entries of all packs of a ref in `store`. A pack that the server has removed, or
    /// that is damaged or too large, is left out. `None` if there is no such ref.
    ///
    /// # Errors
    /// [`CacheError`] if the server or the store fails. The packs before are stored then.
    pub async fn fetch_ref(
        &self,
        name: &str,
        store: &Arc<dyn Store>,
    ) -> Result<Option<Seed>, CacheError> {
        let action = Action::of_ref(check_name(name)?);
        let Some(result) = self.client.result(&action.digest).await? else { return Ok(None) };
        let digests = packs(&result).ok_or_else(|| CacheError::BadResult {
            what: format!("ref {name}"),
            problem: "a digest is malformed, or there are too many packs".to_owned(),
        })?;
        let (mut seed, mut met) = (Seed { is_whole: true, ..Seed::default() }, HashSet::new());
        for digest in digests {
            if !met.insert(digest.clone()) {
                continue;
            }
            let pack = match self.pack(&digest).await {
                Ok(Some(pack)) => pack,
                Ok(None) => {
                    seed.is_whole = false;
                    continue;
                }
                Err(
                    problem @ (CacheError::TooLarge { .. }
                    | CacheError::BadPack { .. }
                    | CacheError::WrongContent { .. }),
                ) => {
                    tracing::warn!("a pack of the ref {name} is left out: {problem}");
                    seed.is_whole = false;
                    continue;
                }
                Err(error) => return Err(error),
            };
            seed.bytes += digest.length();
            seed.entries.extend(&pack.entries);
            seed.new_entries += put(pack, store).await?;
            seed.packs.push(digest);
        }
        Ok(Some(seed))
    }

    /// Makes `name` refer to these packs, the oldest first. Of more than 1024, the oldest are left out.
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

/// Returns `name` if a ref can have it: 1 to 200 bytes without control characters.
///
/// # Errors
/// [`CacheError::RefName`] otherwise.
pub fn check_name(name: &str) -> Result<&str, CacheError> {
    let is_name = (1..=200).contains(&name.len()) && !name.contains(char::is_control);
    if is_name { Ok(name) } else { Err(CacheError::RefName { name: name.to_owned() }) }
}

/// Returns the digests of the packs of a result. `None` if one is malformed, or if there are too many.
fn packs(result: &reapi::ActionResult) -> Option<Vec<Digest>> {
    let files = result.output_files.iter();
    if files.len() > MAX_PACKS {
        return None;
    }
    files.map(|file| Digest::from_reapi(file.digest.as_ref()?)).collect()
}

/// Runs work that takes long or reads files. Panics where the work does.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match joined(tokio::task::spawn_blocking(work).await) {
        Some(done) => done,
        // The runtime is shutting down, so the result is not needed.
        None => std::future::pending().await,
    }
}

/// Returns the result of a task, `None` if the task was cancelled. Panics if the task did.
pub(crate) fn joined<T>(ended: Result<T, JoinError>) -> Option<T> {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(done) => Some(done),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => None,
    }
}

/// Puts the entries of a pack in a store. Returns how many the store did not have. An entry whose
/// outcome is missing is left out, and so is one for which the store has another outcome.
async fn put(pack: Pack, store: &Arc<dyn Store>) -> Result<usize, CacheError> {
    let store = Arc::clone(store);
    let stored = blocking(move || -> ApiResult<usize> {
        let mut count = 0;
        // Records and notes are those of this machine.
        let is_record = |id| pack.objects.get(id).is_some_and(Provenance::is_record);
        for object in pack.objects.values().filter(|object| !Provenance::is_record(object)) {
            store.write(object.clone())?;
        }
        for &(request, outcome) in
            pack.entries.iter().filter(|(_, outcome)| !is_record(&outcome.id))
        {
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
            let Some(objects) = reached(outcome, &*store, &mut met)? else { continue };
            bytes += objects.iter().map(|(_, object)| object.content.len() as u64).sum::<u64>();
            pack.objects.extend(objects);
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
/// `None` if they are not to be shared: the outcome is missing, the objects are too large, or it is a
/// record that only concerns this machine.
fn reached(
    outcome: ObjectRef,
    store: &dyn Store,
    met: &mut HashSet<ObjectId>,
) -> ApiResult<Option<Vec<(ObjectId, Object)>>> {
    let (mut objects, mut open, mut bytes) = (Vec::new(), vec![outcome.id], 0);
    let mut new = Vec::new();
    while let Some(id) = open.pop() {
        if !met.insert(id) {
            continue;
        }
        new.push(id);
        bytes += store.size(id)?.unwrap_or(0);
        let object = if bytes > MAX_OUTCOME_BYTES { None } else { store.read(id)? };
        let is_shared = object.as_ref().is_some_and(|object| !Provenance::is_record(object));
        if bytes > MAX_OUTCOME_BYTES || id == outcome.id && !is_shared {
            for id in &new {
                met.remove(id);
            }
            return Ok(None);
        }
        let Some(object) = object else { continue };
        if object.kind == ObjectKind::Tree
            && let Ok(tree) = Tree::decode_as_git_reads(&object.content)
        {
            open.extend(tree.objects().map(|below| below.id));
        }
        objects.push((id, object));
    }
    Ok(Some(objects))
}
