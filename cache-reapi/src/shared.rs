//! [`SharedCache`]: outcomes on a server, for many machines.

use std::collections::HashSet;
use std::sync::Arc;

use manifold_cached_files::CachedFiles;
use manifold_dispatcher::{Store, is_note};
use manifold_pack::{BESIDE_BYTES, Pack, PackError};
use manifold_runtime_api::{Object, ObjectId, ObjectKind, ObjectRef, Result as ApiResult, Tree};
use tokio::sync::Semaphore;
use tokio::task::JoinError;

use crate::CacheError;
use crate::backend::{Backend, Key, Value};
use crate::client::Client;
use crate::digest::Digest;
use crate::options::CacheOptions;

/// The largest pack, in bytes, compressed and decompressed.
const MAX_PACK_BYTES: u64 = 256 << 20;
/// Which kind of files packs are kept in, and how many bytes of them there are at most.
const PACK_FILES: &str = "pack-1";
const MAX_FILE_BYTES: u64 = 1 << 30;
/// A pack that has as many bytes of objects is full.
pub(crate) const FULL_BYTES: u64 = 4 << 20;
/// The largest number of entries in a pack.
pub const FULL_ENTRIES: usize = 50_000;
/// An outcome that reaches more bytes of objects is not shared.
const MAX_OUTCOME_BYTES: u64 = 64 << 20;
/// The largest pack of a request, in bytes: its outcome, and the names and lengths of its objects.
const MAX_RESULT_BYTES: u64 = MAX_OUTCOME_BYTES + (16 << 20);
/// How many bytes of packs are sent at once, about.
const MAX_PENDING_BYTES: usize = 16 << 20;
/// How many packs a ref has at most, and how many entries.
const MAX_PACKS: usize = 1024;
const MAX_ENTRIES: usize = 4_000_000;
/// How many packs are in memory at once.
const UNPACKING: usize = 2;

/// Outcomes in a cache that many machines share: a server of the Remote Execution API, or another
/// [`Backend`].
///
/// A request has a value there ([`SharedCache::fetch`]): a [`Pack`] with its outcome. A *ref* is a name
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
    backend: Arc<dyn Backend>,
    is_read_only: bool,
    /// Packs of refs that were fetched or sent before.
    files: Option<CachedFiles>,
    /// Limits how many packs are in memory at once, because a small one can become large.
    unpacking: Arc<Semaphore>,
}

/// What a ref has.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Seed {
    /// The digests of its packs, the oldest first, without those that could not be read.
    pub packs: Vec<Digest>,
    /// The digests of all packs that it names.
    pub listed: Vec<Digest>,
    /// The digests of packs that are left out although they may be sound: of another format, or beyond
    /// the limit.
    pub unread: Vec<Digest>,
    /// The number of bytes of `packs`.
    pub bytes: u64,
    /// All memo entries in them, at most 4,000,000: packs beyond that are left out.
    pub entries: Vec<(ObjectId, ObjectRef)>,
    /// The number of bytes of the objects in them.
    pub object_bytes: u64,
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
        let files = |directory| CachedFiles::new(directory, PACK_FILES, MAX_FILE_BYTES);
        let cache = Self::with_backend(client, options.is_read_only);
        Ok(Self { files: options.packs.clone().map(files), ..cache })
    }

    /// Uses another cache than a server of the Remote Execution API. Nothing is sent if `is_read_only` is
    /// true.
    pub fn with_backend(backend: impl Backend, is_read_only: bool) -> Self {
        let unpacking = Arc::new(Semaphore::new(UNPACKING));
        Self { backend: Arc::new(backend), is_read_only, files: None, unpacking }
    }

    /// Returns the server's address.
    pub fn address(&self) -> &str {
        self.backend.address()
    }

    /// Returns whether results may be sent: the options allow it, and so does the server, as far as it
    /// says so.
    pub fn can_write(&self) -> bool {
        !self.is_read_only && self.backend.accepts_results()
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
        match self.download(request).await? {
            Some(download) => self.unpack(request, download, store).await,
            None => Ok(None),
        }
    }

    /// The part of [`SharedCache::fetch`] that waits for the server.
    pub(crate) async fn download(&self, request: ObjectId) -> Result<Option<Download>, CacheError> {
        let key = Key::Request(request);
        let Some(value) = self.value(&key).await? else { return Ok(None) };
        let [digest] = &value.packs[..] else {
            return Err(malformed(&key, "it has not one pack"));
        };
        let (digest, bound) = (digest.clone(), MAX_RESULT_BYTES);
        if digest.length() > bound {
            return Err(CacheError::TooLarge { digest, bound });
        }
        let content = self.backend.blob(&digest).await?;
        Ok(content.map(|content| Download { digest, content }))
    }

    /// The part of [`SharedCache::fetch`] after that.
    pub(crate) async fn unpack(
        &self,
        request: ObjectId,
        download: Download,
        store: &Arc<dyn Store>,
    ) -> Result<Option<ObjectRef>, CacheError> {
        let key = Key::Request(request);
        let _turn = self.unpacking.acquire().await;
        let mut pack = download.decode(MAX_RESULT_BYTES, None).await?;
        pack.entries.retain(|(found, _)| *found == request);
        let [(_, outcome)] = pack.entries[..] else {
            return Err(malformed(&key, "its pack does not have one outcome of the request"));
        };
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
        self.publish_each(vec![(request, outcome)], store).await.map(drop)
    }

    /// Sends the outcomes of several requests, as [`SharedCache::publish`] does. Returns the digests of
    /// their packs.
    ///
    /// # Errors
    /// [`CacheError`] if the server or the store fails.
    pub async fn publish_each(
        &self,
        entries: Vec<(ObjectId, ObjectRef)>,
        store: &Arc<dyn Store>,
    ) -> Result<Vec<Digest>, CacheError> {
        let (mut digests, mut values, mut blobs) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bytes, count) = (0, entries.len());
        for (number, (request, outcome)) in entries.into_iter().enumerate() {
            if let (Some(pack), _) = collect(vec![(request, outcome)], store).await? {
                let (digest, content) = self.encoded(pack).await;
                bytes += content.len();
                blobs.push(content);
                digests.push(digest.clone());
                let text = format!("{} {}\n", outcome.kind, outcome.id);
                values.push((Key::Request(request), Value { packs: vec![digest], text }));
            }
            // So that large ones do not gather in memory.
            let sends = bytes >= MAX_PENDING_BYTES || number + 1 == count;
            if sends && !values.is_empty() {
                self.backend.add_blobs(std::mem::take(&mut blobs)).await?;
                self.backend.set_values(std::mem::take(&mut values)).await?;
                bytes = 0;
            }
        }
        Ok(digests)
    }

    /// Sends memo entries in packs, with the objects of their outcomes that `store` has. Returns the
    /// digests of the packs.
    ///
    /// # Errors
    /// [`CacheError`] if the server or the store fails.
    pub async fn publish_entries(
        &self,
        mut entries: Vec<(ObjectId, ObjectRef)>,
        store: &Arc<dyn Store>,
    ) -> Result<Vec<Digest>, CacheError> {
        let mut digests = Vec::new();
        while !entries.is_empty() {
            let (pack, rest) = collect(entries, store).await?;
            entries = rest;
            if let Some(pack) = pack {
                digests.push(self.send(pack).await?);
            }
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
        let key = Key::Ref(check_name(name)?.to_owned());
        let Some(Value { packs: listed, .. }) = self.value_of_ref(&key).await? else {
            return Ok(None);
        };
        let mut seed = Seed { is_whole: true, ..Seed::default() };
        let mut met = HashSet::new();
        // If there are too many, the oldest are left out.
        for digest in listed.iter().rev().cloned() {
            if !met.insert(digest.clone()) {
                continue;
            }
            let _turn = self.unpacking.acquire().await;
            let pack = match self.pack(&digest).await {
                Ok(Some(pack)) if seed.entries.len() + pack.entries.len() <= MAX_ENTRIES => pack,
                Ok(Some(_)) => {
                    tracing::warn!("a pack of the ref {name} is left out: it has too many entries");
                    seed.is_whole = false;
                    seed.unread.push(digest);
                    continue;
                }
                // Another version may know it.
                Err(CacheError::BadPack { source: PackError::Foreign, .. }) => {
                    seed.is_whole = false;
                    seed.unread.push(digest);
                    continue;
                }
                Ok(None) => {
                    seed.is_whole = false;
                    continue;
                }
                Err(problem) if problem.is_about_content() => {
                    tracing::warn!("a pack of the ref {name} is left out: {problem}");
                    seed.is_whole = false;
                    continue;
                }
                Err(error) => return Err(error),
            };
            seed.bytes += digest.length();
            seed.entries.extend(&pack.entries);
            let bytes = |object: &Object| object.content.len() as u64 + BESIDE_BYTES;
            seed.object_bytes += pack.objects.values().map(bytes).sum::<u64>();
            seed.new_entries += put(pack, store).await?;
            seed.packs.push(digest);
        }
        seed.packs.reverse();
        seed.unread.reverse();
        Ok(Some(Seed { listed, ..seed }))
    }

    /// Makes `name` refer to these packs, the oldest first. Of more than 1024, the oldest are left out.
    ///
    /// # Errors
    /// [`CacheError`] if the server fails.
    pub async fn publish_ref(&self, name: &str, packs: &[Digest]) -> Result<(), CacheError> {
        let packs = packs[packs.len().saturating_sub(MAX_PACKS)..].to_vec();
        let text = format!("{} packs\n", packs.len());
        let key = Key::Ref(check_name(name)?.to_owned());
        self.backend.set_values(vec![(key, Value { packs, text })]).await
    }

    /// Returns the digests of the packs of a ref, the oldest first. `None` if there is no such ref.
    ///
    /// # Errors
    /// [`CacheError`] if the server fails.
    pub async fn packs_of_ref(&self, name: &str) -> Result<Option<Vec<Digest>>, CacheError> {
        let key = Key::Ref(check_name(name)?.to_owned());
        Ok(self.value_of_ref(&key).await?.map(|value| value.packs))
    }

    /// Returns the value of a ref. One that is malformed counts as none, and can be set again.
    async fn value_of_ref(&self, key: &Key) -> Result<Option<Value>, CacheError> {
        match self.value(key).await {
            Err(error) if error.is_about_content() => {
                tracing::warn!("{}", error.in_a_line());
                Ok(None)
            }
            value => value,
        }
    }

    async fn value(&self, key: &Key) -> Result<Option<Value>, CacheError> {
        let value = self.backend.value(key).await?;
        if value.as_ref().is_some_and(|value| value.packs.len() > MAX_PACKS) {
            return Err(malformed(key, "it has more than 1024 packs"));
        }
        Ok(value)
    }

    /// Sends the packs of a ref again, as far as they are in files here and the server has removed them.
    pub(crate) async fn keep_packs(&self, packs: &[Digest]) -> Result<(), CacheError> {
        let Some(files) = &self.files else { return Ok(()) };
        let (mut pending, mut bytes) = (Vec::new(), 0);
        for (number, digest) in packs.iter().enumerate() {
            if let Some(content) = read_file(files, digest).await {
                bytes += content.len();
                pending.push(content);
            }
            if bytes >= MAX_PENDING_BYTES || number + 1 == packs.len() && !pending.is_empty() {
                self.backend.add_blobs(std::mem::take(&mut pending)).await?;
                bytes = 0;
            }
        }
        Ok(())
    }

    /// Returns a pack of a ref, from a file if it is there.
    async fn pack(&self, digest: &Digest) -> Result<Option<Pack>, CacheError> {
        let (digest, bound) = (digest.clone(), MAX_PACK_BYTES);
        if digest.length() > bound {
            return Err(CacheError::TooLarge { digest, bound });
        }
        let kept = match &self.files {
            Some(files) => read_file(files, &digest).await,
            None => None,
        };
        let (content, files) = match kept {
            Some(content) => (content, None),
            None => match self.backend.blob(&digest).await? {
                Some(content) => (content, self.files.clone()),
                None => return Ok(None),
            },
        };
        Download { digest, content }.decode(bound, files).await.map(Some)
    }

    async fn send(&self, pack: Pack) -> Result<Digest, CacheError> {
        let (digest, content) = self.encoded(pack).await;
        if let Some(files) = self.files.clone() {
            let (name, content) = (digest.hash().to_owned(), content.clone());
            blocking(move || files.write(&name, &[&content])).await;
        }
        self.backend.add_blobs(vec![content]).await?;
        Ok(digest)
    }

    async fn encoded(&self, pack: Pack) -> (Digest, Vec<u8>) {
        let is_plain = self.backend.compresses();
        let encode = move || {
            let content = if is_plain { pack.encode_plain() } else { pack.encode() };
            (Digest::of(&content), content)
        };
        blocking(encode).await
    }
}

/// The content of a pack, which was not looked at.
pub(crate) struct Download {
    digest: Digest,
    content: Vec<u8>,
}

impl Download {
    /// Decodes the pack, which takes at most `bound` bytes in memory, and writes it to a file of its own
    /// among `files`.
    async fn decode(self, bound: u64, files: Option<CachedFiles>) -> Result<Pack, CacheError> {
        let Self { digest, content } = self;
        let decode = move || {
            let found = Digest::of(&content);
            if found != digest {
                return Err(CacheError::WrongContent { digest, found });
            }
            if let Some(files) = files {
                files.write(digest.hash(), &[&content]);
            }
            Pack::decode(&content, bound).map_err(|source| CacheError::BadPack { digest, source })
        };
        blocking(decode).await
    }
}

/// Returns the content of a pack that is in a file.
async fn read_file(files: &CachedFiles, digest: &Digest) -> Option<Vec<u8>> {
    let (files, digest) = (files.clone(), digest.clone());
    let read = move || {
        let content = files.read(digest.hash())?;
        (Digest::of(&content) == digest).then_some(content)
    };
    blocking(read).await
}

fn malformed(key: &Key, problem: &str) -> CacheError {
    CacheError::BadResult { what: key.to_string(), problem: problem.to_owned() }
}

/// Returns `name` if a ref can have it: 1 to 200 bytes without control characters.
///
/// # Errors
/// [`CacheError::RefName`] otherwise.
pub fn check_name(name: &str) -> Result<&str, CacheError> {
    let is_name = (1..=200).contains(&name.len()) && !name.contains(char::is_control);
    if is_name { Ok(name) } else { Err(CacheError::RefName { name: name.to_owned() }) }
}

/// Runs work that takes long or reads files. Panics where the work does.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
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
        // Notes are those of this machine.
        let is_note_at = |id| pack.objects.get(id).is_some_and(is_note);
        for object in pack.objects.values().filter(|object| !is_note(object)) {
            store.write(object.clone())?;
        }
        for &(request, outcome) in
            pack.entries.iter().filter(|(_, outcome)| !is_note_at(&outcome.id))
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

/// Collects the objects of outcomes, as far as `store` has them, until a pack is full. Returns also the
/// rest of the entries.
async fn collect(
    entries: Vec<(ObjectId, ObjectRef)>,
    store: &Arc<dyn Store>,
) -> Result<(Option<Pack>, Vec<(ObjectId, ObjectRef)>), CacheError> {
    let store = Arc::clone(store);
    let collected = blocking(move || -> ApiResult<_> {
        let (mut pack, mut bytes, mut met) = (Pack::default(), 0, HashSet::new());
        let mut rest = entries.into_iter();
        while bytes < FULL_BYTES && pack.entries.len() < FULL_ENTRIES {
            let Some((request, outcome)) = rest.next() else { break };
            let Some(objects) = reached(outcome, &*store, &mut met)? else { continue };
            let size =
                |(_, object): &(ObjectId, Object)| object.content.len() as u64 + BESIDE_BYTES;
            bytes += objects.iter().map(size).sum::<u64>();
            pack.objects.extend(objects);
            pack.entries.push((request, outcome));
        }
        Ok(((!pack.entries.is_empty()).then_some(pack), rest.collect()))
    });
    Ok(collected.await?)
}

/// Returns the objects that `outcome` reaches, as far as `store` has them and they are not in `met`.
/// `None` if they are not to be shared: the outcome is missing, the objects are too large, or it is a
/// note, which only concerns this machine.
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
        bytes += store.size(id)?.unwrap_or(0) + BESIDE_BYTES;
        let object = if bytes > MAX_OUTCOME_BYTES { None } else { store.read(id)? };
        let is_shared = object.as_ref().is_some_and(|object| !is_note(object));
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
