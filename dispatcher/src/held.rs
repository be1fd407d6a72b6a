//! Objects that root calls were given, kept in memory while the calls run. If a collection removes
//! them from the store meanwhile, they cannot be computed again.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use manifold_runtime_api::{Object, ObjectId, ObjectKind, Result, Tree};
use parking_lot::Mutex;

use crate::by_id::ById;
use crate::core::Core;
use crate::objects::Objects;
use crate::store::named_node;

/// The maximum size of the objects that are kept for one root, in bytes.
///
/// Objects beyond this limit and [`MAX_HELD_OBJECTS`] can be lost to a concurrent collection. With
/// higher limits, a call that changes a small part of a large tree would spend more time on reading
/// objects than on computing.
const MAX_HELD_BYTES: usize = 64 << 20;
/// The maximum number of objects that are kept for one root.
const MAX_HELD_OBJECTS: usize = 10_000;

/// The objects that are held in memory, and how many roots hold each.
#[derive(Default)]
pub(crate) struct HeldObjects(Mutex<State>);

#[derive(Default)]
struct State {
    roots: ById<Root>,
    objects: ById<Kept>,
}

/// The objects that are held for one root id.
struct Root {
    holders: usize,
    objects: Vec<ObjectId>,
}

struct Kept {
    object: Object,
    roots: usize,
}

impl HeldObjects {
    pub(crate) fn get(&self, id: ObjectId) -> Option<Object> {
        self.0.lock().objects.get(&id).map(|kept| kept.object.clone())
    }

    pub(crate) fn kind(&self, id: ObjectId) -> Option<ObjectKind> {
        self.0.lock().objects.get(&id).map(|kept| kept.object.kind)
    }

    /// Adds a holder to `root` if `root` is held already. Returns whether it is.
    fn hold_again(&self, root: ObjectId) -> bool {
        let mut state = self.0.lock();
        let Some(root) = state.roots.get_mut(&root) else { return false };
        root.holders += 1;
        true
    }

    fn hold(&self, root: ObjectId, objects: Vec<(ObjectId, Object)>) {
        let state = &mut *self.0.lock();
        match state.roots.entry(root) {
            // Another caller has added the root meanwhile.
            Entry::Occupied(mut root) => root.get_mut().holders += 1,
            Entry::Vacant(vacant) => {
                vacant.insert(Root {
                    holders: 1,
                    objects: objects.iter().map(|(id, _)| *id).collect(),
                });
                for (id, object) in objects {
                    state.objects.entry(id).or_insert(Kept { object, roots: 0 }).roots += 1;
                }
            }
        }
    }

    fn release(&self, root: ObjectId) {
        let state = &mut *self.0.lock();
        let Entry::Occupied(mut entry) = state.roots.entry(root) else { return };
        entry.get_mut().holders -= 1;
        if entry.get().holders > 0 {
            return;
        }
        for id in entry.remove().objects {
            if let Entry::Occupied(mut kept) = state.objects.entry(id) {
                kept.get_mut().roots -= 1;
                if kept.get().roots == 0 {
                    kept.remove();
                }
            }
        }
    }
}

/// Keeps objects in memory until dropped, so that they stay available even if the store loses them.
/// Created by [`Dispatcher::hold`](crate::Dispatcher::hold).
pub struct Held {
    core: Arc<Core>,
    root: ObjectId,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Held {
    pub(crate) fn new(core: &Arc<Core>, root: ObjectId) -> Result<Self> {
        let held = &core.objects.held;
        if !held.hold_again(root) {
            let keeps_everything = core.objects.store.keeps_everything();
            held.hold(
                root,
                if keeps_everything { Vec::new() } else { core.objects.only_in_the_store(root)? },
            );
        }
        Ok(Self { core: Arc::clone(core), root })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.core.objects.held.release(self.root);
    }
}

impl Objects {
    /// Returns the objects that `root` reaches through objects that are in the store and in no
    /// source: trees with their contents, and images that blobs name. Images come first, then
    /// objects near the root.
    fn only_in_the_store(&self, root: ObjectId) -> Result<Vec<(ObjectId, Object)>> {
        let mut found = ById::default();
        let (mut images, mut blobs, mut trees) = (Vec::new(), Vec::new(), VecDeque::from([root]));
        let mut bytes_left = MAX_HELD_BYTES;
        while found.len() < MAX_HELD_OBJECTS
            && let Some((id, in_image)) = None
                .or_else(|| images.pop().map(|id| (id, true)))
                .or_else(|| blobs.pop().map(|id| (id, false)))
                .or_else(|| trees.pop_front().map(|id| (id, false)))
        {
            if found.contains_key(&id) || self.is_in_a_source(id)? {
                continue;
            }
            let Some(object) = self.store.read(id)? else { continue };
            let Some(rest) = bytes_left.checked_sub(object.content.len()) else { continue };
            bytes_left = rest;
            match object.kind {
                ObjectKind::Tree => {
                    let tree = Tree::decode_as_git_reads(&object.content).unwrap_or_default();
                    for held in tree.objects() {
                        match held.kind {
                            _ if in_image => images.push(held.id),
                            ObjectKind::Blob => blobs.push(held.id),
                            ObjectKind::Tree => trees.push_back(held.id),
                        }
                    }
                }
                ObjectKind::Blob => images.extend(named_node(&object.content)),
            }
            found.insert(id, object);
        }
        Ok(found.into_iter().collect())
    }

    fn is_in_a_source(&self, id: ObjectId) -> Result<bool> {
        for source in &*self.sources.read_recursive() {
            if source.kind(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
