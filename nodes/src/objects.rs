//! The inputs of a unit: the node that took it over asks the node that gave it away for the objects that
//! it does not have.

use std::collections::{HashSet, VecDeque};

use async_nats::Request;
use manifold_dispatcher::Dispatcher;
use manifold_pack::Pack;
use manifold_runtime_api::{Object, ObjectId, ObjectKind, Tree};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::bus::TIME_TO_LIVE;
use crate::message::{self, Id, Wanted};
use crate::node::Shared;

/// How many bytes of objects an answer has at most, before they are compressed.
const MAX_ANSWER: usize = 400 << 10;
/// How many objects a node asks for at once.
const MAX_WANTED: usize = 5_000;
/// How many objects and bytes the input of a unit has at most. A larger one runs where it is.
const MAX_OBJECTS: usize = 2_000_000;
const MAX_BYTES: u64 = 1 << 30;

/// Runs work that reads files on this thread, and lets other threads do what else there is.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Answers `wanted`: a pack with objects, the most wanted first, or a part of a large one.
pub(crate) fn answer(dispatcher: &Dispatcher, wanted: &Wanted) -> Vec<u8> {
    if let (Some(offset), [id]) = (wanted.offset, &wanted.ids[..]) {
        // Only blobs are read in parts.
        if let Ok(size) = dispatcher.blob_size(id.0) {
            let start = offset.min(size);
            let part = start..size.min(start.saturating_add(MAX_ANSWER as u64));
            return dispatcher.read_range(id.0, part).map(|part| part.to_vec()).unwrap_or_default();
        }
        let Ok(object) = dispatcher.read(id.0) else { return Vec::new() };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(object.content.len());
        let end = object.content.len().min(start + MAX_ANSWER);
        return object.content.slice(start..end).to_vec();
    }
    let (mut pack, mut bytes, mut read) = (Pack::default(), 0, 0);
    let mut open: VecDeque<_> = wanted.ids.iter().map(|id| id.0).take(MAX_WANTED).collect();
    let mut met: HashSet<_> = open.iter().copied().collect();
    while let Some(id) = open.pop_front() {
        let Ok(object) = dispatcher.read(id) else { continue };
        read += object.content.len();
        if bytes + object.content.len() > MAX_ANSWER {
            // The node asks for it again.
            if read > 4 * MAX_ANSWER {
                break;
            }
            continue;
        }
        bytes += object.content.len() + 64;
        if wanted.closure
            && object.kind == ObjectKind::Tree
            && let Ok(tree) = Tree::decode_as_git_reads(&object.content)
        {
            open.extend(tree.objects().map(|below| below.id).filter(|id| met.insert(*id)));
        }
        pack.objects.insert(id, object);
        if bytes >= MAX_ANSWER {
            break;
        }
    }
    pack.encode()
}

/// Why the inputs of a unit cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("object {0} is not available at the node that gave the run away")]
    Missing(ObjectId),
    #[error("the inputs have more than {MAX_OBJECTS} objects or {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the node that gave the run away does not answer: {0}")]
    NoAnswer(String),
    #[error("the store fails: {0}")]
    Store(#[from] manifold_runtime_api::Error),
}

/// Fetches what `roots` reach and this node does not have from the node of the session `origin`.
pub(crate) async fn fetch(
    shared: &Shared,
    origin: &str,
    roots: Vec<ObjectId>,
) -> Result<(), InputError> {
    let (mut met, mut open, mut fetched) = (HashSet::new(), roots, 0_u64);
    let mut stored = HashSet::new();
    loop {
        // The walk reads files, but trees are small and most objects are looked up only.
        let missing = in_place(|| missing(&shared.dispatcher, &mut met, &open))?;
        if missing.is_empty() {
            return Ok(());
        }
        let mut next = Vec::new();
        for part in missing.chunks(MAX_WANTED) {
            let ids: Vec<_> = part.iter().copied().map(Id).collect();
            let wanted = Wanted { ids, closure: true, offset: None };
            let answer = ask(shared, origin, &wanted).await?;
            let pack = Pack::decode(&answer, 4 * MAX_ANSWER as u64)
                .map_err(|problem| InputError::NoAnswer(problem.to_string()))?;
            if !part.iter().any(|id| pack.objects.contains_key(id)) {
                // None of them fits in an answer.
                let id = *part.first().ok_or(InputError::TooLarge)?;
                fetched += large(shared, origin, id).await?;
            }
            for (id, object) in pack.objects {
                // It was stored, and yet is missing: a tree may say that it is of another kind.
                if part.contains(&id) && !stored.insert(id) {
                    return Err(InputError::Missing(id));
                }
                fetched += object.content.len() as u64;
                shared.store.write(object)?;
            }
            if fetched > MAX_BYTES || met.len() > MAX_OBJECTS {
                return Err(InputError::TooLarge);
            }
            next.extend_from_slice(part);
        }
        for id in &next {
            met.remove(id);
        }
        open = next;
    }
}

/// Returns which of the objects that `roots` reach are not here. Those that are here are added to `met`.
fn missing(
    dispatcher: &Dispatcher,
    met: &mut HashSet<ObjectId>,
    roots: &[ObjectId],
) -> Result<Vec<ObjectId>, InputError> {
    let mut open: Vec<_> = roots.iter().map(|id| (*id, None)).collect();
    let mut missing = Vec::new();
    while let Some((id, kind)) = open.pop() {
        if !met.insert(id) {
            continue;
        }
        if kind == Some(ObjectKind::Blob) {
            if dispatcher.blob_size(id).is_err() {
                missing.push(id);
            }
            continue;
        }
        match dispatcher.read(id) {
            Err(_) => missing.push(id),
            Ok(object) if object.kind == ObjectKind::Tree => {
                if let Ok(tree) = Tree::decode_as_git_reads(&object.content) {
                    open.extend(tree.objects().map(|below| (below.id, Some(below.kind))));
                }
            }
            Ok(_) => {}
        }
        if met.len() > MAX_OBJECTS {
            return Err(InputError::TooLarge);
        }
    }
    Ok(missing)
}

/// Fetches an object that is too large for one answer, in parts. Returns its size.
async fn large(shared: &Shared, origin: &str, id: ObjectId) -> Result<u64, InputError> {
    let mut content = Vec::new();
    loop {
        let offset = Some(content.len() as u64);
        let wanted = Wanted { ids: vec![Id(id)], closure: false, offset };
        let part = ask(shared, origin, &wanted).await?;
        let is_last = part.len() < MAX_ANSWER;
        content.extend_from_slice(&part);
        if content.len() as u64 > MAX_BYTES {
            return Err(InputError::TooLarge);
        }
        if is_last {
            break;
        }
    }
    let size = content.len() as u64;
    for object in [Object::blob(content.clone()), Object::encoded_tree(content)] {
        if object.id() == id {
            shared.store.write(object)?;
            return Ok(size);
        }
    }
    Err(InputError::Missing(id))
}

async fn ask(shared: &Shared, origin: &str, wanted: &Wanted) -> Result<Vec<u8>, InputError> {
    let request =
        Request::new().payload(message::encode(wanted).into()).timeout(Some(TIME_TO_LIVE));
    let subject = shared.bus.subject("obj", Some(origin));
    let answer = shared.bus.client.send_request(subject, request).await;
    answer
        .map(|answer| answer.payload.to_vec())
        .map_err(|error| InputError::NoAnswer(error.to_string()))
}
