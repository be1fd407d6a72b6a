//! [`Inputs`]: what the runs of other nodes read.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use manifold_dispatcher::ObjectSource;
use manifold_dispatcher::api::Result as ApiResult;
use manifold_runtime_api::{Object, ObjectId, Tree};
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::node::Shared;
use crate::objects::{self, InputError};

/// The objects that the runs of other nodes read: a source of objects for the dispatcher of a node that
/// helps, the last one. An object that is missing is fetched from the node that gave the run away, with
/// those below it, up to 400 KiB at once. So a run can begin before its inputs are here, and what it does
/// not read is not sent.
///
/// Reading blocks for as long as that takes. The node must run in a multi-threaded runtime of tokio;
/// otherwise nothing is fetched.
///
/// ```
/// # use std::sync::Arc;
/// # use manifold_dispatcher::{Dispatcher, MemoryStore};
/// # use manifold_nodes::{Inputs, NodeOptions};
/// let (store, inputs) = (Arc::new(MemoryStore::new()), Inputs::new());
/// let dispatcher =
///     Dispatcher::builder().store(store.clone()).source(inputs.clone()).shares_runs(true).build()?;
/// let options = NodeOptions::new("nats://build.example:4222").helping(inputs);
/// // Node::join(dispatcher, store, &options).await?
/// # Ok::<(), manifold_dispatcher::api::Error>(())
/// ```
#[derive(Clone)]
pub struct Inputs(Arc<Inner>);

struct Inner {
    /// The node that has joined with this source last.
    node: Mutex<Option<(Weak<Shared>, Handle)>>,
    /// Has another reference for each thread that waits.
    waiting: Arc<()>,
    /// The objects that are being fetched, or the trees that contain them.
    arriving: Mutex<HashMap<ObjectId, Arc<Mutex<()>>>>,
    /// The trees that contain objects which have not arrived.
    parents: Mutex<HashMap<ObjectId, ObjectId>>,
    /// An object that only this source has.
    probe: Object,
}

thread_local! {
    /// Whether this thread reads for another node, which asks the others itself.
    static IS_ANSWERING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, which reads only what this node has.
pub(crate) fn without_others<T>(work: impl FnOnce() -> T) -> T {
    let before = IS_ANSWERING.replace(true);
    let result = work();
    IS_ANSWERING.set(before);
    result
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").finish_non_exhaustive()
    }
}

impl Default for Inputs {
    fn default() -> Self {
        Self::new()
    }
}

impl Inputs {
    /// Creates a source, which has nothing until a node with it joins others.
    pub fn new() -> Self {
        let probe = Object::blob(format!("probe {:032x}", fastrand::u128(..)));
        let (node, waiting, arriving, parents) = Default::default();
        Self(Arc::new(Inner { node, waiting, arriving, parents, probe }))
    }

    /// Returns the id of an object that no other source has.
    pub(crate) fn probe(&self) -> ObjectId {
        self.0.probe.id()
    }

    /// Makes this the source of a node.
    pub(crate) fn serve(&self, node: &Arc<Shared>) {
        *self.0.node.lock() = Some((Arc::downgrade(node), Handle::current()));
    }

    /// Fetches an object, and what is below it, unless another thread does just that.
    fn fetch(&self, id: ObjectId) -> Option<Object> {
        let (node, runtime) = self.0.node.lock().clone()?;
        if IS_ANSWERING.get() || runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
            return None;
        }
        let node = node.upgrade()?;
        let origins = node.origins(id);
        let waiting = Arc::clone(&self.0.waiting);
        if origins.is_empty() || Arc::strong_count(&waiting) > MAX_WAITING {
            return None;
        }
        let parent = self.0.parents.lock().get(&id).copied();
        let key = parent.unwrap_or(id);
        let turn = Arc::clone(self.0.arriving.lock().entry(key).or_default());
        let fetch = || {
            let _turn = turn.lock();
            if let Ok(Some(object)) = node.store.read(id) {
                return Some(object);
            }
            let (send, receive) = std::sync::mpsc::channel();
            let (fetching, beside) = (Arc::clone(&node), self.beside(&node, id, parent));
            runtime.spawn(async move {
                let ids = [id];
                let work = objects::fetch(&fetching, &origins, &ids, &beside);
                let fetched = tokio::select! {
                    fetched = tokio::time::timeout(TO_FETCH, work) => fetched.ok(),
                    () = fetching.ends() => None,
                };
                let _ = send.send(fetched.unwrap_or(Err(InputError::Late { id })));
            });
            match receive.recv() {
                Ok(Ok(trees)) => {
                    self.remember(&trees);
                    node.store.read(id).ok()?
                }
                Ok(Err(problem)) => {
                    tracing::debug!("{id} is not fetched: {problem}");
                    None
                }
                Err(_) => None,
            }
        };
        let object = match Handle::try_current().map(|current| current.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(fetch),
            _ => fetch(),
        };
        self.0.arriving.lock().remove(&key);
        object
    }
}

/// How long an object is waited for.
const TO_FETCH: Duration = Duration::from_secs(20);
/// How many threads wait for objects at once: a part of those that tokio has for what blocks.
const MAX_WAITING: usize = 128;
/// How many nodes are asked for an object.
const MAX_ORIGINS: usize = 16;
/// How many trees' entries are remembered, and how many objects are fetched beside one.
const MAX_PARENTS: usize = 1_000_000;
const MAX_BESIDE: usize = 2_000;

impl Inputs {
    /// Remembers what trees contain.
    pub(crate) fn remember(&self, trees: &[(ObjectId, Tree)]) {
        let mut parents = self.0.parents.lock();
        if parents.len() > MAX_PARENTS {
            parents.clear();
        }
        for (parent, tree) in trees {
            parents.extend(tree.objects().map(|below| (below.id, *parent)));
        }
    }

    /// Returns what else is in the tree that contains an object and has not arrived, the nearest first: it
    /// is likely to be read next.
    fn beside(&self, node: &Shared, id: ObjectId, parent: Option<ObjectId>) -> Vec<ObjectId> {
        let Some(Ok(Some(tree))) = parent.map(|parent| node.store.read(parent)) else {
            return Vec::new();
        };
        let Ok(tree) = Tree::decode_as_git_reads(&tree.content) else { return Vec::new() };
        let entries: Vec<_> = tree.objects().map(|below| below.id).collect();
        let at = entries.iter().position(|entry| *entry == id).unwrap_or_default();
        let mut others: Vec<_> = (0..entries.len()).filter(|index| *index != at).collect();
        others.sort_by_key(|index| index.abs_diff(at));
        let is_missing = |id: &ObjectId| matches!(node.store.kind(*id), Ok(None));
        others.into_iter().take(MAX_BESIDE).map(|index| entries[index]).filter(is_missing).collect()
    }
}

impl ObjectSource for Inputs {
    fn read(&self, id: ObjectId) -> ApiResult<Option<Object>> {
        if id == self.probe() {
            return Ok(Some(self.0.probe.clone()));
        }
        Ok(self.fetch(id))
    }
}

impl Shared {
    /// Returns the nodes that may have an object which a run of another node reads: those that gave runs
    /// away, and those from which these came. None for the request of a run, which nobody stores.
    fn origins(&self, id: ObjectId) -> BTreeSet<String> {
        let taken = self.taken.lock();
        if taken.contains_key(&id) {
            return BTreeSet::new();
        }
        let mut origins = BTreeSet::new();
        for source in taken.values().flat_map(|taken| &taken.sources) {
            if origins.len() == MAX_ORIGINS {
                break;
            }
            origins.insert(source.clone());
        }
        origins
    }
}
