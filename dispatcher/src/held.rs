//! What callers gave, kept in memory while their calls run: nobody could make it again if it were taken out of the store beside them.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use manifold_runtime_api::{ImageRef, Object, ObjectId, ObjectKind, Result, Tree};
use parking_lot::Mutex;

use crate::by_id::ById;
use crate::core::Core;
use crate::objects::Objects;

/// How many bytes and objects are kept for one root. What a caller gave beyond that can be lost to a collection beside it; to look at more
/// for every call would cost those that change a little of something large more than they compute.
const MOST_BYTES: usize = 64 << 20;
const MOST_OBJECTS: usize = 10_000;

/// A blob up to this length may be an image reference, which is followed.
const REFERENCE_BYTES: usize = 256;

/// Objects that somebody holds.
#[derive(Default)]
pub(crate) struct HeldObjects(Mutex<State>);

#[derive(Default)]
struct State {
    roots: ById<Root>,
    objects: ById<Kept>,
}

/// What is held under one id.
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

    fn hold_again(&self, root: ObjectId) -> bool {
        let mut state = self.0.lock();
        let Some(root) = state.roots.get_mut(&root) else { return false };
        root.holders += 1;
        true
    }

    fn hold(&self, root: ObjectId, objects: Vec<(ObjectId, Object)>) {
        let state = &mut *self.0.lock();
        match state.roots.entry(root) {
            // Somebody else was faster.
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

/// Objects that are kept in memory until this is dropped, and found there should the store lose them. See
/// [`crate::Dispatcher::hold`].
pub struct Held {
    core: Arc<Core>,
    root: ObjectId,
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
    /// What `root` reaches through objects that are in the store and in no source: trees and what they hold, and images that blobs
    /// name. What is nearest comes first, and images before anything else.
    fn only_in_the_store(&self, root: ObjectId) -> Result<Vec<(ObjectId, Object)>> {
        let mut found = ById::default();
        let (mut images, mut blobs, mut trees) = (Vec::new(), Vec::new(), VecDeque::from([root]));
        let mut left = MOST_BYTES;
        while found.len() < MOST_OBJECTS
            && let Some((id, is_of_image)) = None
                .or_else(|| images.pop().map(|id| (id, true)))
                .or_else(|| blobs.pop().map(|id| (id, false)))
                .or_else(|| trees.pop_front().map(|id| (id, false)))
        {
            if found.contains_key(&id) || self.is_in_a_source(id)? {
                continue;
            }
            let Some(object) = self.store.read(id)? else { continue };
            let Some(rest) = left.checked_sub(object.content.len()) else { continue };
            left = rest;
            match object.kind {
                ObjectKind::Tree => {
                    let tree = Tree::decode_as_git_reads(&object.content).unwrap_or_default();
                    for held in tree.objects() {
                        match held.kind {
                            _ if is_of_image => images.push(held.id),
                            ObjectKind::Blob => blobs.push(held.id),
                            ObjectKind::Tree => trees.push_back(held.id),
                        }
                    }
                }
                ObjectKind::Blob if object.content.len() <= REFERENCE_BYTES => {
                    let text = std::str::from_utf8(&object.content).ok();
                    if let Some(Ok(ImageRef::Node(node))) = text.map(ImageRef::parse) {
                        images.push(node);
                    }
                }
                ObjectKind::Blob => {}
            }
            found.insert(id, object);
        }
        Ok(found.into_iter().collect())
    }

    fn is_in_a_source(&self, id: ObjectId) -> Result<bool> {
        for source in &self.sources {
            if source.kind(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
