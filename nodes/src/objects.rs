//! Objects on their way: a node that took a run over asks the node that gave it away for those that it
//! does not have.

use std::collections::{BTreeSet, HashSet, VecDeque};

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
/// How many bytes an object has at most.
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
        if object.kind == ObjectKind::Tree
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
    #[error("object {0} is not available at the nodes that gave the run away")]
    Missing(ObjectId),
    #[error("object {id} has more than {MAX_BYTES} bytes")]
    TooLarge { id: ObjectId },
    #[error("the node that gave the run away does not answer: {0}")]
    NoAnswer(String),
    #[error("object {id} does not arrive")]
    Late { id: ObjectId },
    #[error("the store fails: {0}")]
    Store(#[from] manifold_runtime_api::Error),
}

/// Fetches objects from the first of `nodes` that has them, and as far as an answer has room those of
/// `beside` and what is below all of them. Returns the trees that have arrived.
///
/// # Errors
/// Errors if none of the nodes has one of the objects.
pub(crate) async fn fetch(
    shared: &Shared,
    nodes: &BTreeSet<String>,
    ids: &[ObjectId],
    beside: &[ObjectId],
) -> Result<Vec<(ObjectId, Tree)>, InputError> {
    let mut missing = ids.to_vec();
    let (mut trees, mut problem) = (Vec::new(), None);
    for node in nodes {
        let ids = missing.iter().chain(beside).copied().map(Id).collect();
        let wanted = Wanted { ids, offset: None };
        let pack = match ask(shared, node, &wanted).await {
            Ok(answer) => Pack::decode(&answer, 4 * MAX_ANSWER as u64)
                .map_err(|problem| InputError::NoAnswer(problem.to_string())),
            Err(error) => Err(error),
        };
        match pack {
            Ok(pack) => {
                for (id, object) in pack.objects {
                    if object.kind == ObjectKind::Tree
                        && let Ok(tree) = Tree::decode_as_git_reads(&object.content)
                    {
                        trees.push((id, tree));
                    }
                    shared.store.write(object)?;
                }
            }
            Err(error) => problem = Some(error),
        }
        let mut left = Vec::new();
        for id in missing {
            // One that is missing may not fit in an answer.
            if shared.store.read(id)?.is_none() && !large(shared, node, id).await? {
                left.push(id);
            }
        }
        missing = left;
        if missing.is_empty() {
            return Ok(trees);
        }
    }
    match (problem, missing.first()) {
        (Some(problem), _) => Err(problem),
        (None, Some(&id)) => Err(InputError::Missing(id)),
        (None, None) => Ok(trees),
    }
}

/// Fetches an object that is too large for one answer, in parts. Returns `false` if the node does not have
/// it.
async fn large(shared: &Shared, node: &str, id: ObjectId) -> Result<bool, InputError> {
    let mut content = Vec::new();
    loop {
        let offset = Some(content.len() as u64);
        let wanted = Wanted { ids: vec![Id(id)], offset };
        let Ok(part) = ask(shared, node, &wanted).await else { return Ok(false) };
        let is_last = part.len() < MAX_ANSWER;
        content.extend_from_slice(&part);
        if content.len() as u64 > MAX_BYTES {
            return Err(InputError::TooLarge { id });
        }
        if is_last {
            break;
        }
    }
    for object in [Object::blob(content.clone()), Object::encoded_tree(content)] {
        if object.id() == id {
            shared.store.write(object)?;
            return Ok(true);
        }
    }
    Ok(false)
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
