//! Garbage collection: keeps what pins reach and what was used recently, and removes the rest.
//!
//! Marking and sweeping happen in one write transaction, so that no pin can be set in between.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use manifold_runtime_api::{ObjectId, ObjectKind, Result};

use super::DurableStore;
use super::disk::Done;
use super::fault::StoreFault;
use super::format::{Entry, Head, Stamp};
use super::tables::{Index, Value};
use super::write::WriteTables;
use crate::by_id::ById;
use crate::note;
use crate::progress::Progress;
use crate::store::{MAX_REFERENCE_BYTES, Pin, Store, named_node};

/// What a collection keeps besides what pins reach. Ages are measured in whole minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keep {
    /// Memo entries that were used within this time are kept, with everything that their outcomes
    /// reach. Default: 30 days.
    pub used_within: Duration,
    /// A bound for the objects that pins and memo entries keep, in bytes. The most recently used
    /// memo entries are kept first; entries that no longer fit are removed. Pins are always kept. The
    /// entries themselves, with the records of runs, do not count.
    /// Default: no bound.
    pub at_most_bytes: Option<u64>,
    /// Objects that were written within this time, plus up to two hours, are kept, because a run in
    /// progress may be about to refer to them. Set it to zero only if nothing else uses the store.
    /// Default: one day.
    pub written_within: Duration,
    /// Pins of requests that were set or used within this time are kept. Older ones are removed
    /// first, and keep nothing. Pins of other objects, such as images, always stay. Default: all are
    /// kept.
    pub pinned_within: Option<Duration>,
}

impl Keep {
    /// Sets [`Keep::used_within`](#structfield.used_within).
    #[must_use]
    pub const fn used_within(mut self, used_within: Duration) -> Self {
        self.used_within = used_within;
        self
    }

    /// Sets [`Keep::at_most_bytes`](#structfield.at_most_bytes).
    #[must_use]
    pub const fn at_most_bytes(mut self, at_most_bytes: Option<u64>) -> Self {
        self.at_most_bytes = at_most_bytes;
        self
    }

    /// Sets [`Keep::written_within`](#structfield.written_within).
    #[must_use]
    pub const fn written_within(mut self, written_within: Duration) -> Self {
        self.written_within = written_within;
        self
    }

    /// Sets [`Keep::pinned_within`](#structfield.pinned_within).
    #[must_use]
    pub const fn pinned_within(mut self, pinned_within: Option<Duration>) -> Self {
        self.pinned_within = pinned_within;
        self
    }
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

/// The result of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Collected {
    /// The number of objects that were kept.
    pub kept_objects: u64,
    /// The total length of the kept objects' contents, in bytes.
    pub kept_bytes: u64,
    /// The number of objects that were removed.
    pub dropped_objects: u64,
    /// The total length of the removed objects' contents, in bytes.
    pub dropped_bytes: u64,
    /// The number of memo entries that were kept.
    pub kept_entries: u64,
    /// The number of memo entries that were removed.
    pub dropped_entries: u64,
    /// The number of pins that were kept.
    pub kept_pins: u64,
    /// The number of pins that were removed.
    pub dropped_pins: u64,
    /// Whether the file was compacted. It is not compacted while other processes use it.
    pub compacted: bool,
}

impl DurableStore {
    /// Removes everything that neither a pin nor `keep` keeps, and compacts the file.
    ///
    /// # Behavior
    /// - A pin keeps its outcome and the request itself, with its arguments, image and named images
    ///   as far as they are in the store. The pin of an image or of named images also keeps the
    ///   images that they refer to.
    /// - A stamp more than a day in the future comes from a wrong clock and is ignored. Memo
    ///   entries and objects with such a stamp are removed unless a pin keeps them. A pin with such
    ///   a stamp is stamped with the current time.
    /// - All removals happen in one transaction. Other writers wait for it. While the file is
    ///   compacted, readers wait too.
    /// - Runs may be in progress, also in other processes. A run that loses an object computes it
    ///   again.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the file cannot be read or
    /// written, or if a pin or the list of objects is damaged, because then it is unknown which objects
    /// are kept. In the latter case call [`DurableStore::verify`] and [`DurableStore::drop_damaged`] first.
    pub fn collect(&self, keep: &Keep, mut progress: impl FnMut(Progress)) -> Result<Collected> {
        self.check_writable()?;
        self.flush()?;
        let mut collected =
            self.disk.write(|tables| sweep(tables, keep, &mut progress).map(Done::removed))?;
        self.clear_memory_tier();
        collected.compacted = self.disk.compact()?;
        Ok(collected)
    }
}

/// Marks what is to be kept and removes the rest.
fn sweep(
    tables: &mut WriteTables<'_>,
    keep: &Keep,
    progress: &mut impl FnMut(Progress),
) -> Result<Collected, StoreFault> {
    let now = Stamp::now();
    let mut collected = Collected::default();
    // Listed once, because a lookup for each object would take several times as long.
    let listings = [tables.list(Index::Objects)?, tables.list(Index::Memo)?];
    let [objects, memo] = &listings;
    // A tree among them keeps objects that would be removed otherwise.
    if let Some(chunk) = objects.malformed.first() {
        return Err(StoreFault::Chunk(*chunk));
    }
    let heads = objects.values.iter().filter_map(|(_, value)| match value {
        Value::Object { id, head, .. } => Some((*id, *head)),
        Value::Memo { .. } => None,
    });
    let heads: ById<Head> = heads.collect();
    let mut marks =
        Marks { tables, heads: &heads, ids: HashSet::new(), followed: HashSet::new(), bytes: 0 };

    let pins = marks.tables.all_pins()?;
    let total = pins.len() as u64;
    let (mut pinned, mut unpinned, mut misdated) = (HashSet::new(), Vec::new(), Vec::new());
    for (done, (request, pin)) in pins.into_iter().enumerate() {
        progress(Progress::new("pins", done as u64, total));
        let pin = pin.ok_or(StoreFault::Value("the pin of request", request))?;
        let is_wrong = pin.stamp.is_wrong(now);
        let is_of_request = Pin { request, outcome: pin.outcome }.is_of_request();
        if !is_of_request {
            marks.mark_with_images(pin.outcome.id)?;
        }
        if is_wrong
            || !is_of_request
            || keep.pinned_within.is_none_or(|within| is_within(pin.stamp, within, now))
        {
            marks.mark_request(request)?;
            marks.mark(pin.outcome.id, None)?;
            pinned.insert(request);
            if is_wrong {
                misdated.push((request, Entry { stamp: now, ..pin }));
            }
        } else {
            unpinned.push(request);
        }
    }
    (collected.kept_pins, collected.dropped_pins) = (pinned.len() as u64, unpinned.len() as u64);

    let mut entries = Vec::new();
    let (mut stale, mut with_pins) = (HashSet::new(), HashSet::new());
    for (_, value) in &memo.values {
        match value {
            Value::Memo { request, entry: Some(entry), .. } => entries.push((*request, *entry)),
            other => drop(stale.insert(other.id())),
        }
    }
    // A note is used as recently as its request, and stays with it.
    let stamps: ById<Stamp> =
        entries.iter().map(|(request, entry)| (*request, entry.stamp)).collect();
    for (request, entry) in &mut entries {
        let of = note::key(*request);
        let with = stamps.get(&of).filter(|stamp| !stamp.is_wrong(now));
        if let Some(with) = with.filter(|with| !entry.stamp.is_wrong(now) && **with > entry.stamp) {
            entry.stamp = *with;
        }
        if pinned.contains(&of) {
            with_pins.insert(*request);
        }
    }
    // The most recently used first.
    entries.sort_unstable_by_key(|(_, entry)| Reverse(entry.stamp));
    let total = entries.len() as u64;
    for (done, (request, entry)) in entries.into_iter().enumerate() {
        progress(Progress::new("memo entries", done as u64, total));
        let is_pinned = pinned.contains(&request) || with_pins.contains(&request);
        let bound = keep.at_most_bytes.filter(|_| !is_pinned);
        let stays = (is_pinned || is_within(entry.stamp, keep.used_within, now))
            && match entry.outcome {
                Some(outcome) => marks.mark(outcome.id, bound)?,
                None => true,
            };
        if stays {
            collected.kept_entries += 1;
        } else {
            stale.insert(request);
        }
    }
    collected.dropped_entries = stale.len() as u64;

    let written_within = match keep.written_within {
        Duration::ZERO => Duration::ZERO,
        within => within.saturating_add(STAMP_SLACK),
    };
    let mut garbage = HashSet::new();
    for (&id, head) in &heads {
        if marks.ids.contains(&id) || is_within(head.stamp, written_within, now) {
            collected.kept_objects += 1;
            collected.kept_bytes += head.length;
        } else {
            collected.dropped_objects += 1;
            collected.dropped_bytes += head.length;
            garbage.insert(id);
        }
    }

    for (request, pin) in misdated {
        tables.set_pin(request, &pin)?;
    }
    for request in &unpinned {
        tables.remove_pin(*request)?;
    }
    progress(Progress::new("dropped objects", 0, collected.dropped_objects));
    tables.retain(listings, |id| !garbage.contains(&id), |request| !stale.contains(&request))?;
    Ok(collected)
}

/// How much older than the last write of its object a stamp may be. A stamp is not renewed while it
/// is fresh, neither in memory nor on disk.
const STAMP_SLACK: Duration = Duration::from_secs(2 * 60 * 60);

/// Returns whether `stamp` is younger than `within`. A stamp from a wrong clock never is.
fn is_within(stamp: Stamp, within: Duration, now: Stamp) -> bool {
    !stamp.is_wrong(now) && u64::from(now.0.saturating_sub(stamp.0)) * 60 < within.as_secs()
}

/// The objects to keep.
struct Marks<'a, 't> {
    tables: &'a WriteTables<'t>,
    /// All objects of the store.
    heads: &'a ById<Head>,
    ids: HashSet<ObjectId>,
    /// The objects below which images were marked that blobs name.
    followed: HashSet<ObjectId>,
    bytes: u64,
}

impl Marks<'_, '_> {
    /// Marks `root` and everything that it reaches in the store. With a `bound`, marks nothing and
    /// returns `false` if more than `bound` bytes would be marked in total.
    fn mark(&mut self, root: ObjectId, bound: Option<u64>) -> Result<bool, StoreFault> {
        let mut new = Vec::new();
        let mut bytes = 0u64;
        let mut pending = vec![root];
        while let Some(id) = pending.pop() {
            if !self.ids.insert(id) {
                continue;
            }
            new.push(id);
            let Some(head) = self.heads.get(&id) else { continue };
            bytes += head.length;
            if bound.is_some_and(|bound| self.bytes + bytes > bound) {
                for id in &new {
                    self.ids.remove(id);
                }
                return Ok(false);
            }
            if head.kind == ObjectKind::Tree {
                pending.extend(self.tables.entries(id)?);
            }
        }
        self.bytes += bytes;
        Ok(true)
    }

    /// Marks `root`, everything that it reaches, and the images that short blobs name.
    fn mark_with_images(&mut self, root: ObjectId) -> Result<(), StoreFault> {
        let mut pending = vec![root];
        while let Some(id) = pending.pop() {
            if !self.followed.insert(id) {
                continue;
            }
            let is_new = self.ids.insert(id);
            let Some(head) = self.heads.get(&id) else { continue };
            if is_new {
                self.bytes += head.length;
            }
            match head.kind {
                ObjectKind::Tree => pending.extend(self.tables.entries(id)?),
                ObjectKind::Blob if head.length <= MAX_REFERENCE_BYTES as u64 => {
                    pending.extend(self.content(id)?.as_deref().and_then(named_node));
                }
                ObjectKind::Blob => {}
            }
        }
        Ok(())
    }

    /// Marks a request: its tree, its image and its named images.
    fn mark_request(&mut self, request: ObjectId) -> Result<(), StoreFault> {
        self.mark(request, None)?;
        let Some(tree) = self.tables.tree(request)? else { return Ok(()) };
        for name in ["image", "std"] {
            let Some(entry) = tree.get(name) else { continue };
            if let Some(named) = self.content(entry.id)?.as_deref().and_then(named_node) {
                self.mark_with_images(named)?;
            }
        }
        Ok(())
    }

    fn content(&self, blob: ObjectId) -> Result<Option<Bytes>, StoreFault> {
        Ok(self.tables.object(blob)?.map(|(object, _)| object.content))
    }
}
