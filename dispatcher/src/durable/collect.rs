//! Garbage collection: what pins reach stays, and what was used lately.

use std::collections::HashSet;
use std::time::Duration;

use manifold_runtime_api::{ImageRef, MAX_IMAGE_DEPTH, NodeShape, ObjectId, ObjectKind, Result, Tree};

use super::DurableStore;
use super::format::{Entry, Stamp};
use crate::progress::Progress;
use crate::store::{ObjectSource, Store};

/// What a collection keeps besides what pins reach. Ages are counted in minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keep {
    /// Memo entries used within this time stay, with all that their outcomes reach. Default: 30 days.
    pub used_within: Duration,
    /// Of those, the last used whose objects fit into so many bytes together with what pins reach. Default: no bound.
    pub at_most_bytes: Option<u64>,
    /// Objects written within this time stay, for a run may be about to name them. Default: one day.
    pub written_within: Duration,
    /// Pins set within this time stay; older ones are taken away first. Default: all stay.
    pub pinned_within: Option<Duration>,
}

impl Default for Keep {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self { used_within: 30 * DAY, at_most_bytes: None, written_within: DAY, pinned_within: None }
    }
}

/// What a collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Collected {
    /// Objects that stay.
    pub kept_objects: u64,
    /// The bytes of their contents.
    pub kept_bytes: u64,
    /// Objects that are gone.
    pub dropped_objects: u64,
    /// The bytes of their contents.
    pub dropped_bytes: u64,
    /// Memo entries that stay.
    pub kept_entries: u64,
    /// Memo entries that are gone.
    pub dropped_entries: u64,
    /// Pins that stay.
    pub kept_pins: u64,
    /// Pins that are gone.
    pub dropped_pins: u64,
    /// Whether the file was made smaller. It is not while other processes use it.
    pub compacted: bool,
}

/// How many deletions share a transaction.
const CHUNK: usize = 10_000;

impl DurableStore {
    /// Drops what neither a pin nor `keep` keeps, and makes the file smaller.
    ///
    /// # Behavior
    /// - A pin keeps its outcome, and the request itself with arguments, image and named images as far as they are in the store.
    /// - Runs may be under way. One that loses an object all the same computes it again.
    ///
    /// # Errors
    /// `StoreFailed`. What was dropped before stays dropped; nothing else is lost.
    pub fn collect(&self, keep: &Keep, mut progress: impl FnMut(Progress)) -> Result<Collected> {
        self.flush()?;
        let now = Stamp::now();
        let mut collected = Collected::default();
        let mut marked = Marked { store: self, ids: HashSet::new(), bytes: 0 };

        let mut pins = Vec::new();
        self.disk.each_pin(|request, entry| pins.push((request, entry)))?;
        let (kept, dropped): (Vec<_>, Vec<_>) = pins.into_iter().partition(|(_, pin)| {
            pin.is_some_and(|pin| keep.pinned_within.is_none_or(|within| is_within(pin.stamp, within, now)))
        });
        let dropped: Vec<_> = dropped.into_iter().map(|(request, _)| request).collect();
        self.disk.delete_pins(&dropped)?;
        for request in &dropped {
            self.pins.remove(request);
        }
        let pinned: HashSet<ObjectId> = kept.iter().map(|(request, _)| *request).collect();
        (collected.kept_pins, collected.dropped_pins) = (kept.len() as u64, dropped.len() as u64);
        for (done, (request, pin)) in kept.iter().enumerate() {
            progress(Progress::new("pins", done as u64, kept.len() as u64));
            marked.request(*request)?;
            if let Some(pin) = pin {
                marked.mark(pin.outcome.id, None)?;
            }
        }

        let mut entries: Vec<(ObjectId, Option<Entry>)> = Vec::new();
        self.disk.each_memo(|request, entry| entries.push((request, entry)))?;
        // The last used first; damaged ones last.
        entries.sort_unstable_by_key(|(_, entry)| std::cmp::Reverse(entry.map(|entry| entry.stamp)));
        let mut stale = Vec::new();
        let total = entries.len() as u64;
        for (done, (request, entry)) in entries.into_iter().enumerate() {
            progress(Progress::new("memo entries", done as u64, total));
            let stays = match entry {
                None => false,
                Some(entry) if pinned.contains(&request) => marked.mark(entry.outcome.id, None)?,
                Some(entry) if !is_within(entry.stamp, keep.used_within, now) => false,
                Some(entry) => marked.mark(entry.outcome.id, keep.at_most_bytes)?,
            };
            if stays {
                collected.kept_entries += 1;
            } else {
                stale.push((request, entry.map(|entry| entry.stamp)));
            }
        }
        collected.dropped_entries = stale.len() as u64;

        let mut garbage = Vec::new();
        self.disk.each_object(|id, head| {
            let length = head.map_or(0, |head| head.length);
            let young = head.is_some_and(|head| is_within(head.stamp, keep.written_within, now));
            if young || head.is_some() && marked.ids.contains(&id) {
                collected.kept_objects += 1;
                collected.kept_bytes += length;
            } else {
                collected.dropped_objects += 1;
                collected.dropped_bytes += length;
                garbage.push((id, head.map(|head| head.stamp)));
            }
        })?;

        // All entries go before the first object does.
        for chunk in stale.chunks(CHUNK) {
            self.disk.delete(chunk, &[])?;
            for (request, _) in chunk {
                self.memo.remove(request);
            }
        }
        let total = garbage.len() as u64;
        for (index, chunk) in garbage.chunks(CHUNK).enumerate() {
            progress(Progress::new("dropped objects", (index * CHUNK) as u64, total));
            self.disk.delete(&[], chunk)?;
            for (id, _) in chunk {
                self.objects.remove(id);
            }
        }
        collected.compacted = self.disk.compact()?;
        Ok(collected)
    }
}

fn is_within(stamp: Stamp, within: Duration, now: Stamp) -> bool {
    u64::from(now.0.saturating_sub(stamp.0)) * 60 < within.as_secs()
}

/// What stays.
struct Marked<'a> {
    store: &'a DurableStore,
    ids: HashSet<ObjectId>,
    bytes: u64,
}

impl Marked<'_> {
    /// Marks `root` and all that it reaches in the store. With a `bound`, only if no more bytes than that are marked then.
    fn mark(&mut self, root: ObjectId, bound: Option<u64>) -> Result<bool> {
        let mut new = Vec::new();
        let mut bytes = 0u64;
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            if !self.ids.insert(id) {
                continue;
            }
            new.push(id);
            let Some(head) = self.store.disk.head(id)? else { continue };
            bytes += head.length;
            if bound.is_some_and(|bound| self.bytes + bytes > bound) {
                for id in &new {
                    self.ids.remove(id);
                }
                return Ok(false);
            }
            // What a tree that is none reaches cannot be told; verification tells that it is damaged.
            if head.kind == ObjectKind::Tree
                && let Some(object) = self.store.read(id)?
                && let Ok(tree) = Tree::decode(&object.content)
            {
                open.extend(
                    tree.entries().iter().filter(|entry| entry.mode.object_kind().is_some()).map(|entry| entry.id),
                );
            }
        }
        self.bytes += bytes;
        Ok(true)
    }

    /// Marks a request: the tree, and the images that its blobs name.
    fn request(&mut self, request: ObjectId) -> Result<()> {
        self.mark(request, None)?;
        let Some(tree) = self.tree(request)? else { return Ok(()) };
        if let Some(std) = self.text(&tree, "std")?.and_then(|text| ObjectId::from_hex(&text).ok()) {
            self.mark(std, None)?;
        }
        let mut image = self.text(&tree, "image")?;
        for _ in 0..MAX_IMAGE_DEPTH {
            let Some(Ok(ImageRef::Node(node))) = image.as_deref().map(ImageRef::parse) else { break };
            self.mark(node, None)?;
            let Some(tree) = self.tree(node)? else { break };
            image = match NodeShape::of(&tree) {
                Ok(NodeShape::Curry { .. }) => self.text(&tree, "base")?,
                _ => None,
            };
        }
        Ok(())
    }

    fn tree(&self, id: ObjectId) -> Result<Option<Tree>> {
        Ok(self.store.read(id)?.and_then(|object| Tree::decode(&object.content).ok()))
    }

    fn text(&self, tree: &Tree, name: &str) -> Result<Option<String>> {
        let Some(entry) = tree.get(name) else { return Ok(None) };
        Ok(self.store.read(entry.id)?.and_then(|object| String::from_utf8(object.content.to_vec()).ok()))
    }
}
