//! Outcomes that other nodes find: entries of the bucket `memo`, with packs of their objects.
//!
//! An entry is a line of JSON, and then a pack unless that is in the object store, because it is large.

use std::collections::HashSet;
use std::sync::Arc;

use async_nats::jetstream::kv::{CreateErrorKind, Operation};
use manifold_dispatcher::{Spent, Store};
use manifold_pack::Pack;
use manifold_runtime_api::{Error, ObjectId, ObjectKind, ObjectRef, Result, Tree};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::bus::{Bus, Unavailable};
use crate::message::{self, Id};

/// The largest pack that is part of an entry.
const MAX_INLINE: usize = 400 << 10;
/// The largest pack, compressed and decompressed. Larger outcomes stay where they are.
const MAX_PACK_BYTES: u64 = 256 << 20;

/// The first line of an entry.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    kind: String,
    outcome: Id,
    runs: u64,
    written_bytes: u64,
    micros: u64,
    /// Whether the pack follows.
    inline: bool,
}

/// An outcome from the memo, whose objects are in the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) outcome: ObjectRef,
    pub(crate) spent: Spent,
    /// How long the run took, in microseconds.
    pub(crate) micros: u64,
}

/// Publishes an outcome, unless there is one. Returns whether it can be found now.
pub(crate) async fn publish(
    bus: &Bus,
    store: &Arc<dyn Store>,
    request: ObjectId,
    found: Found,
) -> Result<bool, Unavailable> {
    let Some(pack) = blocking(store, move |store| pack_of(store, request, found.outcome)).await
    else {
        return Ok(false);
    };
    let inline = pack.len() <= MAX_INLINE.min(bus.client.max_payload() / 2);
    let key = request.to_string();
    let head = Head {
        kind: found.outcome.kind.as_str().to_owned(),
        outcome: Id(found.outcome.id),
        runs: found.spent.runs,
        written_bytes: found.spent.written_bytes,
        micros: found.micros,
        inline,
    };
    let mut value = message::encode(&head);
    value.push(b'\n');
    if inline {
        value.extend_from_slice(&pack);
    } else {
        // The objects are there before the entry that names them.
        let mut content = pack.as_slice();
        bus.packs.put(key.as_str(), &mut content).await.map_err(|_| Unavailable)?;
    }
    match bus.memo.create(&key, value.into()).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
            if let Some((known, _)) = read_head(bus, request).await?
                && known.outcome.0 != found.outcome.id
            {
                tracing::warn!(
                    %request, known = %known.outcome.0, here = %found.outcome.id,
                    "another node has computed another outcome of the same request"
                );
            }
            Ok(true)
        }
        Err(_) => Err(Unavailable),
    }
}

async fn read_head(
    bus: &Bus,
    request: ObjectId,
) -> Result<Option<(Head, async_nats::jetstream::kv::Entry)>, Unavailable> {
    let entry = bus.memo.entry(request.to_string()).await.map_err(|_| Unavailable)?;
    let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else {
        return Ok(None);
    };
    let line = entry.value.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(message::decode(line).map(|head| (head, entry)))
}

/// Looks up an outcome, and puts its objects in the store. An entry that is malformed or whose objects
/// are not all there counts as none.
pub(crate) async fn fetch(
    bus: &Bus,
    store: &Arc<dyn Store>,
    request: ObjectId,
) -> Result<Option<Found>, Unavailable> {
    let Some((head, entry)) = read_head(bus, request).await? else { return Ok(None) };
    let kind = match head.kind.as_str() {
        "blob" => ObjectKind::Blob,
        "tree" => ObjectKind::Tree,
        _ => return Ok(None),
    };
    let pack = if head.inline {
        let start = entry.value.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        entry.value.slice(start..).to_vec()
    } else {
        let Ok(object) = bus.packs.get(request.to_string()).await else { return Ok(None) };
        let mut pack = Vec::new();
        let read = object.take(MAX_PACK_BYTES + 1).read_to_end(&mut pack).await;
        read.map_err(|_| Unavailable)?;
        pack
    };
    let found = Found {
        outcome: ObjectRef { kind, id: head.outcome.0 },
        spent: Spent::new(head.runs, head.written_bytes),
        micros: head.micros,
    };
    let is_there = blocking(store, move |store| unpack(store, &pack, found.outcome)).await;
    Ok(is_there.then_some(found))
}

fn unpack(store: &dyn Store, pack: &[u8], outcome: ObjectRef) -> bool {
    let pack = match Pack::decode(pack, MAX_PACK_BYTES) {
        Ok(pack) => pack,
        Err(problem) => {
            tracing::warn!("a pack of another node is refused: {problem}");
            return false;
        }
    };
    for object in pack.objects.into_values() {
        if let Err(error) = store.write(object) {
            tracing::warn!("an object of another node cannot be stored: {error}");
            return false;
        }
    }
    matches!(store.kind(outcome.id), Ok(Some(kind)) if kind == outcome.kind)
}

/// Packs the objects that an outcome reaches. `None` if they are not all there, or too large.
fn pack_of(store: &dyn Store, request: ObjectId, outcome: ObjectRef) -> Option<Vec<u8>> {
    let mut pack = Pack { entries: vec![(request, outcome)], ..Pack::default() };
    let (mut met, mut open, mut bytes) = (HashSet::new(), vec![outcome.id], 0);
    while let Some(id) = open.pop() {
        if !met.insert(id) {
            continue;
        }
        // Objects of the input, which the outcome may have parts of, are in sources.
        let object = match read(store, id) {
            Ok(Some(object)) => object,
            Ok(None) if id != outcome.id => continue,
            _ => return None,
        };
        bytes += object.content.len() as u64;
        if bytes > MAX_PACK_BYTES / 2 {
            return None;
        }
        if object.kind == ObjectKind::Tree
            && let Ok(tree) = Tree::decode_as_git_reads(&object.content)
        {
            open.extend(tree.objects().map(|below| below.id));
        }
        pack.objects.insert(id, object);
    }
    Some(pack.encode())
}

fn read(store: &dyn Store, id: ObjectId) -> Result<Option<manifold_runtime_api::Object>, Error> {
    store.read(id)
}

/// Runs work that takes long or reads files.
async fn blocking<T: Send + 'static>(
    store: &Arc<dyn Store>,
    work: impl FnOnce(&dyn Store) -> T + Send + 'static,
) -> T {
    let store = Arc::clone(store);
    match tokio::task::spawn_blocking(move || work(&*store)).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, so the result is not needed.
            Err(_) => std::future::pending().await,
        },
    }
}
