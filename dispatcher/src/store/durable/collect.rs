//! Garbage collection: what pins reach stays, and what was used lately.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use manifold_runtime_api::{ImageRef, MAX_IMAGE_DEPTH, NodeShape, ObjectId, Result, Tree};

use super::DurableStore;
use super::disk::{Done, Trouble};
use super::format::{Entry, Stamp};
use super::tables::WriteTables;
use crate::progress::Progress;
use crate::store::Store;

/// What a collection keeps besides what pins reach. Ages are counted in minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keep {
    /// Memo entries used within this time stay, with all that their outcomes reach. Default: 30 days.
    pub used_within: Duration,
    /// Of those, the last used whose objects fit into so many bytes together with what pins reach. Default: no bound.
    pub at_most_bytes: Option<u64>,
    /// Objects written within this time, and up to two hours more, stay, for a run may be about to name them. Zero is for a store
    /// that nobody else uses. Default: one day.
    pub written_within: Duration,
    /// Pins set or used within this time stay; older ones are taken away first. Default: all stay.
    pub pinned_within: Option<Duration>,
}

impl Default for Keep {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            used_within: 30 * DAY,
            at_most_bytes: None,
            written_within: DAY,
            pinned_within: None,
        }
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

impl DurableStore {
    /// Drops what neither a pin nor `keep` keeps, and makes the file smaller.
    ///
    /// # Behavior
    /// - What a clock has dated more than a day into the future is as good as not dated: entries and objects go, unless a pin keeps
    ///   them, and a pin ages from now on.
    /// - A pin keeps its outcome, and the request itself with arguments, image and named images as far as they are in the store.
    /// - It happens in one transaction: all of it or nothing. Other writers wait meanwhile; while the file is made smaller,
    ///   readers wait, too.
    /// - Runs may be under way, in other processes as well. One that loses an object all the same computes it again.
    ///
    /// # Errors
    /// `StoreFailed`, also when a pin is damaged, for nobody knows what it keeps; [`DurableStore::verify`] and
    /// [`DurableStore::drop_damaged`] come first then.
    pub fn collect(&self, keep: &Keep, mut progress: impl FnMut(Progress)) -> Result<Collected> {
        self.check_writable()?;
        self.flush()?;
        let mut collected =
            self.disk.write(|tables| sweep(tables, keep, &mut progress).map(Done::removed))?;
        self.forget();
        collected.compacted = self.disk.compact()?;
        Ok(collected)
    }
}

fn sweep(
    tables: &mut WriteTables<'_>,
    keep: &Keep,
    progress: &mut impl FnMut(Progress),
) -> Result<Collected, Trouble> {
    let now = Stamp::now();
    let mut collected = Collected::default();
    let mut marked = Marked { tables, ids: HashSet::new(), bytes: 0 };

    let pins = marked.tables.all_pins()?;
    let total = pins.len() as u64;
    let (mut pinned, mut unpinned, mut misdated) = (HashSet::new(), Vec::new(), Vec::new());
    for (done, (request, pin)) in pins.into_iter().enumerate() {
        progress(Progress::new("pins", done as u64, total));
        let pin = pin.ok_or(Trouble::Value("the pin of request", request))?;
        let is_wrong = pin.stamp.is_wrong(now);
        if is_wrong || keep.pinned_within.is_none_or(|within| is_within(pin.stamp, within, now)) {
            marked.request(request)?;
            marked.mark(pin.outcome.id, None)?;
            pinned.insert(request);
            if is_wrong {
                misdated.push((request, Entry { stamp: now, ..pin }));
            }
        } else {
            unpinned.push(request);
        }
    }
    (collected.kept_pins, collected.dropped_pins) = (pinned.len() as u64, unpinned.len() as u64);

    let mut entries = marked.tables.memo_entries()?;
    // The last used first; damaged ones last.
    entries.sort_unstable_by_key(|(_, entry)| Reverse(entry.map(|entry| entry.stamp)));
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
            stale.push(request);
        }
    }
    collected.dropped_entries = stale.len() as u64;

    let written_within = match keep.written_within {
        Duration::ZERO => Duration::ZERO,
        within => within.saturating_add(SLACK),
    };
    let mut garbage = Vec::new();
    for (id, head) in marked.tables.heads()? {
        let length = head.map_or(0, |head| head.length);
        let stays = head.is_some_and(|head| {
            marked.ids.contains(&id) || is_within(head.stamp, written_within, now)
        });
        if stays {
            collected.kept_objects += 1;
            collected.kept_bytes += length;
        } else {
            collected.dropped_objects += 1;
            collected.dropped_bytes += length;
            garbage.push(id);
        }
    }

    for (request, pin) in misdated {
        tables.pins.insert(request.as_bytes(), &*pin.encode(request))?;
    }
    for request in &unpinned {
        tables.pins.remove(request.as_bytes())?;
    }
    for request in &stale {
        tables.memo.remove(request.as_bytes())?;
    }
    let total = garbage.len() as u64;
    for (done, id) in garbage.into_iter().enumerate() {
        progress(Progress::new("dropped objects", done as u64, total));
        tables.drop_object(id)?;
    }
    Ok(collected)
}

/// How much older than its last write an object's stamp may be: what is fresh gets no new one, neither in memory nor on disk.
const SLACK: Duration = Duration::from_secs(2 * 60 * 60);

/// A stamp from a clock that was wrong says nothing, so nothing stays for its sake.
fn is_within(stamp: Stamp, within: Duration, now: Stamp) -> bool {
    !stamp.is_wrong(now) && u64::from(now.0.saturating_sub(stamp.0)) * 60 < within.as_secs()
}

/// What stays.
struct Marked<'a, 't> {
    tables: &'a WriteTables<'t>,
    ids: HashSet<ObjectId>,
    bytes: u64,
}

impl Marked<'_, '_> {
    /// Marks `root` and all that it reaches in the store. With a `bound`, only if no more bytes than that are marked then.
    fn mark(&mut self, root: ObjectId, bound: Option<u64>) -> Result<bool, Trouble> {
        let mut new = Vec::new();
        let mut bytes = 0u64;
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            if !self.ids.insert(id) {
                continue;
            }
            new.push(id);
            let Some(head) = self.tables.head(id)? else { continue };
            bytes += head.length;
            if bound.is_some_and(|bound| self.bytes + bytes > bound) {
                for id in &new {
                    self.ids.remove(id);
                }
                return Ok(false);
            }
            open.extend(self.tables.entries(id)?);
        }
        self.bytes += bytes;
        Ok(true)
    }

    /// Marks a request: the tree, and the images that its blobs name.
    fn request(&mut self, request: ObjectId) -> Result<(), Trouble> {
        self.mark(request, None)?;
        let Some(tree) = self.tree(request)? else { return Ok(()) };
        if let Some(std) = self.text(&tree, "std")?.and_then(|text| ObjectId::from_hex(&text).ok())
        {
            self.mark(std, None)?;
        }
        let mut image = self.text(&tree, "image")?;
        for _ in 0..MAX_IMAGE_DEPTH {
            let Some(Ok(ImageRef::Node(node))) = image.as_deref().map(ImageRef::parse) else {
                break;
            };
            self.mark(node, None)?;
            let Some(tree) = self.tree(node)? else { break };
            image = match NodeShape::of(&tree) {
                Ok(NodeShape::Curry { .. }) => self.text(&tree, "base")?,
                _ => None,
            };
        }
        Ok(())
    }

    fn tree(&self, id: ObjectId) -> Result<Option<Tree>, Trouble> {
        Ok(self
            .tables
            .object(id)?
            .and_then(|(object, _)| Tree::decode_as_git_reads(&object.content).ok()))
    }

    fn text(&self, tree: &Tree, name: &str) -> Result<Option<String>, Trouble> {
        let Some(entry) = tree.get(name) else { return Ok(None) };
        Ok(self
            .tables
            .object(entry.id)?
            .and_then(|(object, _)| String::from_utf8(object.content.to_vec()).ok()))
    }
}
