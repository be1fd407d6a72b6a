//! Outcomes that other nodes find: entries of the bucket `memo`, with packs of their objects.
//!
//! An entry is a line of JSON, and then a pack unless that is in the object store, because it is large.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::kv::{CreateErrorKind, Entry, Operation, UpdateErrorKind};
use manifold_dispatcher::api::Result as ApiResult;
use manifold_dispatcher::{Arrived, Dispatcher, Spent, Store};
use manifold_pack::Pack;
use manifold_runtime_api::{ObjectId, ObjectKind, ObjectRef, Tree};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::bus::{Bus, Unavailable};
use crate::message::{self, Id};
use crate::node::Shared;
use crate::objects::in_place;

/// The largest pack that is part of an entry.
const MAX_INLINE: usize = 400 << 10;
/// The largest pack, compressed and decompressed. Larger outcomes stay where they are.
const MAX_PACK_BYTES: u64 = 256 << 20;

/// How long a large pack is waited for.
const TO_READ: Duration = Duration::from_secs(20);

/// The first line of an entry.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    kind: String,
    outcome: Id,
    runs: u64,
    written_bytes: u64,
    micros: u64,
    /// The session of the node that gave the run away, if it was a unit.
    #[serde(default)]
    origin: Option<String>,
    /// The name of the pack in the object store. `None` if it follows.
    pack: Option<String>,
}

/// An outcome from the memo, whose objects are in the store.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) outcome: ObjectRef,
    pub(crate) spent: Spent,
    /// How long the run took, in microseconds.
    pub(crate) micros: u64,
    /// Outcomes of runs nested in it, by request.
    pub(crate) entries: Vec<(ObjectId, ObjectRef)>,
    /// The session of the node that gave the run away, if it was a unit.
    pub(crate) origin: Option<String>,
}

impl Found {
    /// Creates what is found of a run that began at `began` and has just ended.
    pub(crate) fn new(outcome: ObjectRef, spent: Spent, began: Instant) -> Self {
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Self { outcome, spent, micros, entries: Vec::new(), origin: None }
    }

    /// Sets the outcomes of nested runs.
    pub(crate) fn entries(self, entries: Vec<(ObjectId, ObjectRef)>) -> Self {
        Self { entries, ..self }
    }

    /// Sets the session of the node that gave the run away.
    pub(crate) fn of_unit(self, origin: &str) -> Self {
        Self { origin: Some(origin.to_owned()), ..self }
    }

    /// Memoizes the outcome, and those of nested runs whose outcome is not known.
    pub(crate) fn record(self, store: &dyn Store, request: ObjectId) -> ApiResult<()> {
        for (nested, outcome) in self.entries {
            if store.look_up(nested)?.is_none() {
                store.record(nested, outcome)?;
            }
        }
        store.record(request, self.outcome)
    }

    /// Returns the result of the run for a unit.
    pub(crate) fn arrived(self) -> Arrived {
        Arrived::new(self.outcome).spent(self.spent).entries(self.entries)
    }
}

/// Publishes the outcome of a run of this node that began at `began` and was claimed, if it is memoized,
/// and gives up the claim.
pub(crate) async fn publish_and_release(shared: &Shared, request: ObjectId, began: Instant) {
    if let Ok(Some(outcome)) = shared.dispatcher.look_up(request) {
        let found = Found::new(outcome, Spent::new(1, 0), began);
        // Without it, another node computes the outcome once more.
        let _ = publish(shared, request, &found).await;
    }
    shared.bus.release(request, &shared.session).await;
}

/// Publishes an outcome, unless there is one that can be fetched. Returns whether it can be found now.
pub(crate) async fn publish(
    shared: &Shared,
    request: ObjectId,
    found: &Found,
) -> Result<bool, Unavailable> {
    let bus = &shared.bus;
    let mut damaged = None;
    if let Some(entry) = read(bus, request).await? {
        // One that is malformed, or whose objects are lost, would hide this one for as long as it is kept.
        damaged = Some(entry.revision);
        if let Some(known) = open(shared, entry).await {
            report_difference(request, &known, found);
            return Ok(true);
        }
    }
    let packed = in_place(|| pack_of(&shared.dispatcher, request, found));
    let Some(pack) = packed else { return Ok(false) };
    let is_inline = pack.len() <= MAX_INLINE.min(bus.client.max_payload() / 2);
    let key = request.to_string();
    // A name of its own, because the parts of an object that is put again are removed.
    let name = (!is_inline).then(|| format!("{key}-{:016x}", fastrand::u64(..)));
    let head = Head {
        kind: found.outcome.kind.as_str().to_owned(),
        outcome: Id(found.outcome.id),
        runs: found.spent.runs,
        written_bytes: found.spent.written_bytes,
        micros: found.micros,
        origin: found.origin.clone(),
        pack: name.clone(),
    };
    let mut value = message::encode(&head);
    value.push(b'\n');
    match name {
        None => value.extend_from_slice(&pack),
        Some(name) => {
            // The objects are there before the entry that names them.
            let mut content = pack.as_slice();
            bus.packs.put(name.as_str(), &mut content).await.map_err(|_| Unavailable)?;
        }
    }
    let known = match damaged {
        None => match bus.memo.create(&key, value.into()).await {
            Ok(_) => return Ok(true),
            Err(error) => error.kind() == CreateErrorKind::AlreadyExists,
        },
        Some(revision) => match bus.memo.update(&key, value.into(), revision).await {
            Ok(_) => return Ok(true),
            Err(error) => error.kind() == UpdateErrorKind::WrongLastRevision,
        },
    };
    if !known {
        return Err(Unavailable);
    }
    // Another node was faster.
    match fetch(shared, request).await? {
        Some(known) => report_difference(request, &known, found),
        None => return Err(Unavailable),
    }
    Ok(true)
}

fn report_difference(request: ObjectId, known: &Found, found: &Found) {
    if known.outcome != found.outcome {
        tracing::warn!(
            %request, known = %known.outcome.id, here = %found.outcome.id,
            "another node has computed another outcome of the same request"
        );
    }
}

async fn read(bus: &Bus, request: ObjectId) -> Result<Option<Entry>, Unavailable> {
    let entry = bus.noting(bus.memo.entry(request.to_string()).await)?;
    Ok(entry.filter(|entry| entry.operation == Operation::Put))
}

/// Looks up an outcome, and puts its objects in the store. An entry that is malformed or whose pack is
/// not there counts as none.
pub(crate) async fn fetch(
    shared: &Shared,
    request: ObjectId,
) -> Result<Option<Found>, Unavailable> {
    Ok(match read(&shared.bus, request).await? {
        Some(entry) => open(shared, entry).await,
        None => None,
    })
}

/// Reads an entry, and puts its objects in the store. `None` if it is malformed or its pack is not there.
async fn open(shared: &Shared, entry: Entry) -> Option<Found> {
    if shared.refused.lock().contains(&entry.revision) {
        return None;
    }
    let line = entry.value.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let head: Head = message::decode(line)?;
    let kind = match head.kind.as_str() {
        "blob" => ObjectKind::Blob,
        "tree" => ObjectKind::Tree,
        _ => return None,
    };
    // Packs can be large, and many may arrive at once.
    let _turn = shared.unpacking.acquire().await.ok()?;
    let pack = match &head.pack {
        None => {
            let start = entry.value.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            entry.value.slice(start..).to_vec()
        }
        // Parts that are missing would be waited for without end.
        Some(name) => tokio::time::timeout(TO_READ, large(&shared.bus, name)).await.ok()??,
    };
    let outcome = ObjectRef { kind, id: head.outcome.0 };
    let Some(entries) = in_place(|| unpack(shared, &pack, outcome)) else {
        shared.refuse(entry.revision);
        return None;
    };
    let Head { runs, written_bytes, micros, origin, .. } = head;
    Some(Found { outcome, spent: Spent::new(runs, written_bytes), micros, entries, origin })
}

/// Reads a pack from the object store.
async fn large(bus: &Bus, name: &str) -> Option<Vec<u8>> {
    let info = bus.packs.info(name).await.ok()?;
    let is_link = info.options.is_some_and(|options| options.link.is_some());
    if is_link || info.size as u64 > MAX_PACK_BYTES {
        return None;
    }
    let mut pack = Vec::new();
    let object = bus.packs.get(name).await.ok()?;
    object.take(MAX_PACK_BYTES + 1).read_to_end(&mut pack).await.ok()?;
    Some(pack)
}

/// Stores the objects of a pack. Returns its memo entries, or `None` if the outcome is not in it.
fn unpack(shared: &Shared, pack: &[u8], outcome: ObjectRef) -> Option<Vec<(ObjectId, ObjectRef)>> {
    let pack = match Pack::decode(pack, MAX_PACK_BYTES) {
        Ok(pack) => pack,
        Err(problem) => {
            tracing::warn!("a pack of another node is refused: {problem}");
            return None;
        }
    };
    // Otherwise it would only fill the store.
    if pack.objects.get(&outcome.id).is_none_or(|object| object.kind != outcome.kind) {
        tracing::warn!("a pack of another node is refused: it does not have the outcome");
        return None;
    }
    for object in pack.objects.into_values() {
        if let Err(error) = shared.store.write(object) {
            tracing::warn!("an object of another node cannot be stored: {error}");
            return None;
        }
    }
    Some(pack.entries)
}

/// Packs the objects that outcomes reach, with their memo entries. Leaves nested outcomes out that are
/// not all there, or too large. `None` if that holds for the outcome of `request`.
fn pack_of(dispatcher: &Dispatcher, request: ObjectId, found: &Found) -> Option<Vec<u8>> {
    let (mut pack, mut bytes) = (Pack::default(), 0);
    add(&mut pack, &mut bytes, dispatcher, found.outcome)?;
    pack.entries.push((request, found.outcome));
    for &(nested, outcome) in &found.entries {
        if nested != request && add(&mut pack, &mut bytes, dispatcher, outcome).is_some() {
            pack.entries.push((nested, outcome));
        }
    }
    Some(pack.encode())
}

/// Adds the objects that `outcome` reaches to a pack, whose size is `bytes`. `None`, with nothing added,
/// if they are not all there, or the pack would be too large.
fn add(
    pack: &mut Pack,
    bytes: &mut u64,
    dispatcher: &Dispatcher,
    outcome: ObjectRef,
) -> Option<()> {
    let (mut added, mut size) = (HashMap::new(), *bytes);
    let mut open = vec![outcome.id];
    while let Some(id) = open.pop() {
        if pack.objects.contains_key(&id) || added.contains_key(&id) {
            continue;
        }
        let object = dispatcher.read(id).ok()?;
        size += object.content.len() as u64;
        if size > MAX_PACK_BYTES / 2 {
            return None;
        }
        if object.kind == ObjectKind::Tree
            && let Ok(tree) = Tree::decode_as_git_reads(&object.content)
        {
            open.extend(tree.objects().map(|below| below.id));
        }
        added.insert(id, object);
    }
    pack.objects.extend(added);
    *bytes = size;
    Some(())
}
