//! [`WriteTables`]: the tables of a write transaction, and what it adds to them.

use std::collections::HashSet;
use std::mem::take;
use std::ops::Deref;
use std::sync::Arc;

use manifold_runtime_api::{Object, ObjectId, ObjectKind, ObjectRef, Tree};
use redb::{ReadableTable, Table, WriteTransaction};

use super::batch::Recorded;
use super::chunks::{Content, Filling, MAX_INLINE_BYTES, ObjectValue};
use super::fault::StoreFault;
use super::format::{self, Entry, EntryTable, NUMBERS, Stamp};
use super::index::{self, Place, Record, Run};
use super::known_runs::{KnownRuns, NewRun};
use super::memo_value::{Memo, MemoValue, RunParts};
use super::tables::{Index, Listing, Tables, Value, page_key};

type Data<'a> = Table<'a, format::Bytes, format::Bytes>;

/// The tables of a write transaction. Reads find what was committed before, and not what the
/// transaction has added. [`WriteTables::finish`] writes that.
pub(super) struct WriteTables<'a> {
    tables: Tables<Data<'a>>,
    numbers: Table<'a, &'static str, u64>,
    filling: Filling,
    /// The records to add to each index, from the oldest to the newest.
    added: [Vec<Record>; 2],
    /// Objects that were put in this transaction, as far as they may be put again.
    put: HashSet<ObjectId, foldhash::quality::RandomState>,
    next_content: u64,
    next_run: u64,
    known: &'a KnownRuns,
}

/// The keys of the next numbers in the table `numbers`.
const NEXT_CHUNK: &str = "chunk";
const NEXT_CONTENT: &str = "content";
const NEXT_RUN: &str = "run";

impl<'a> Deref for WriteTables<'a> {
    type Target = Tables<Data<'a>>;

    fn deref(&self) -> &Self::Target {
        &self.tables
    }
}

/// Takes a damaged value, which is about to be replaced, for a missing one.
pub(super) fn sound<T>(found: Result<Option<T>, StoreFault>) -> Result<Option<T>, StoreFault> {
    match found {
        Err(StoreFault::Value(..)) => Ok(None),
        found => found,
    }
}

impl<'a> WriteTables<'a> {
    pub(super) fn open(
        transaction: &'a WriteTransaction,
        known: &'a KnownRuns,
    ) -> Result<Self, StoreFault> {
        let numbers = transaction.open_table(NUMBERS)?;
        let next = |key| Ok::<_, StoreFault>(numbers.get(key)?.map_or(0, |next| next.value()));
        let chunk = u32::try_from(next(NEXT_CHUNK)?)
            .map_err(|_| StoreFault::Damaged("the store has too many chunks".to_owned()))?;
        let (next_content, next_run) = (next(NEXT_CONTENT)?, next(NEXT_RUN)?);
        Ok(Self {
            tables: Tables::open(known, |table| Ok(transaction.open_table(table)?))?,
            numbers,
            filling: Filling::new(chunk),
            added: Default::default(),
            put: HashSet::default(),
            next_content,
            next_run,
            known,
        })
    }

    /// Reserves memory for as many objects and memo entries.
    pub(super) fn expect(&mut self, objects: usize, entries: usize) {
        for (index, count) in [(Index::Objects, objects), (Index::Memo, entries)] {
            self.added[index as usize].reserve(count);
        }
    }

    /// Sets a pin. Returns whether anything changed: a pin that was set within the last hour stays as
    /// it is.
    pub(super) fn set_pin(&mut self, request: ObjectId, pin: &Entry) -> Result<bool, StoreFault> {
        if let Ok(Some(known)) = self.tables.entry(EntryTable::Pins, request)
            && known.outcome == pin.outcome
            && known.stamp.is_fresh(pin.stamp)
        {
            return Ok(false);
        }
        self.tables.pins.insert(request.as_bytes(), &*pin.encode(request))?;
        Ok(true)
    }

    /// Returns the outcome that a request is pinned with.
    pub(super) fn pinned(&self, request: ObjectId) -> Result<Option<ObjectRef>, StoreFault> {
        let known = sound(self.tables.entry(EntryTable::Pins, request))?;
        Ok(known.map(|known| known.outcome))
    }

    /// Returns whether objects or memo entries were put, or their stamps renewed.
    pub(super) fn have_additions(&self) -> bool {
        self.added.iter().any(|records| !records.is_empty())
    }

    /// Removes a pin. Returns whether there was one.
    pub(super) fn remove_pin(&mut self, request: ObjectId) -> Result<bool, StoreFault> {
        Ok(self.tables.pins.remove(request.as_bytes())?.is_some())
    }

    /// Notes that these objects were put.
    pub(super) fn have_put<'b>(&mut self, objects: impl Iterator<Item = &'b ObjectId>) {
        self.put.extend(objects);
    }

    /// Like [`WriteTables::put`], for an object that may be put again in this transaction.
    pub(super) fn put_once(
        &mut self,
        id: ObjectId,
        object: &Object,
        now: Stamp,
    ) -> Result<bool, StoreFault> {
        let changed = self.put(id, object, now)?;
        self.put.insert(id);
        Ok(changed)
    }

    /// Stores an object, or renews the stamp of an object that is there. Returns whether anything
    /// changed. An object is not put twice in one transaction.
    pub(super) fn put(
        &mut self,
        id: ObjectId,
        object: &Object,
        now: Stamp,
    ) -> Result<bool, StoreFault> {
        if let Some(restamped) = self.restamp(id, now)? {
            return Ok(restamped);
        }
        let length = object.content.len();
        let content = if length <= MAX_INLINE_BYTES {
            Content::Inline(&object.content)
        } else {
            let number = self.next_content;
            self.next_content += 1;
            self.tables.contents.insert(&number.to_be_bytes()[..], &*object.content)?;
            Content::Separate { number, length: length as u64 }
        };
        let value = ObjectValue { id, kind: object.kind, content };
        let place = self.fill(value.length(), |bytes| value.encode(bytes))?;
        self.add(Index::Objects, id, place, now);
        Ok(true)
    }

    /// Renews the stamp of an object unless it is fresh. Returns whether anything changed, or
    /// `None` if the object is missing or damaged.
    fn restamp(&mut self, id: ObjectId, now: Stamp) -> Result<Option<bool>, StoreFault> {
        if self.put.contains(&id) {
            return Ok(Some(false));
        }
        let Some((head, place)) = sound(self.tables.head_at(id))? else { return Ok(None) };
        if head.stamp.is_fresh(now) {
            return Ok(Some(false));
        }
        self.add(Index::Objects, id, place, now);
        Ok(Some(true))
    }

    /// Renews the stamps of everything that `root` reaches. Missing and damaged objects are
    /// replaced with copies from `rescue`. Returns `false` if `rescue` does not have one of them.
    pub(super) fn restamp_reachable(
        &mut self,
        root: ObjectId,
        now: Stamp,
        rescue: impl Fn(ObjectId) -> Option<Object>,
    ) -> Result<bool, StoreFault> {
        let mut seen = HashSet::from([root]);
        let mut pending = vec![root];
        while let Some(id) = pending.pop() {
            let is_there = self.restamp(id, now)?.is_some();
            let head = sound(self.tables.head(id))?;
            if is_there && head.is_some_and(|head| head.kind == ObjectKind::Blob) {
                continue;
            }
            let committed = sound(self.tables.object(id))?.map(|(object, _)| object);
            let object = match committed.or_else(|| rescue(id)) {
                Some(object) => object,
                None if id == ObjectId::empty_tree() => continue,
                // It was put in this transaction, by somebody who did not keep it.
                None if is_there => continue,
                None => return Ok(false),
            };
            if !is_there {
                self.put_once(id, &object, now)?;
            }
            let tree = match object.kind {
                ObjectKind::Blob => None,
                ObjectKind::Tree => Tree::decode_as_git_reads(&object.content).ok(),
            };
            let entries = tree.unwrap_or_default();
            pending.extend(entries.objects().map(|held| held.id).filter(|id| seen.insert(*id)));
        }
        Ok(true)
    }

    /// Stores what was recorded for a request, or renews the stamp if that is known. What was not
    /// recorded stays as it is. A renewal of another outcome than the known one is ignored. Returns
    /// whether another outcome was replaced.
    pub(super) fn put_memo(
        &mut self,
        request: ObjectId,
        recorded: &Recorded,
        now: Stamp,
    ) -> Result<bool, StoreFault> {
        let known = self.tables.memo_value(request, |record, memo| {
            (record.place, memo.outcome, memo.run.map(RunParts::to_record))
        });
        let (place, known_outcome, known_run) = match sound(known)? {
            Some((place, outcome, run)) => (Some(place), outcome, run),
            None => (None, None, None),
        };
        let mut entry = recorded.entry;
        if recorded.is_renewal && entry.map(|entry| entry.outcome) != known_outcome {
            entry = None;
            if recorded.run.is_none() {
                return Ok(false);
            }
        }
        let outcome = entry.map(|entry| entry.outcome).or(known_outcome);
        let run = recorded.run.as_ref().or(known_run.as_ref());
        let is_known = outcome == known_outcome && run == known_run.as_ref();
        let place = match place.filter(|_| is_known) {
            Some(place) => place,
            None => self.fill_memo(request, &Memo { outcome, run: run.map(RunParts::of) })?,
        };
        let stamp = entry.map_or(now, |entry| entry.stamp);
        self.add(Index::Memo, request, place, stamp);
        Ok(known_outcome.is_some() && outcome != known_outcome)
    }

    fn add(&mut self, index: Index, id: ObjectId, place: Place, stamp: Stamp) {
        self.added[index as usize].push(Record { prefix: index::prefix(id), place, stamp });
    }

    /// Adds a value of this length, which `encode` adds, to the chunk that is being filled.
    fn fill(
        &mut self,
        length: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Place, StoreFault> {
        let added = self.filling.add(length, encode);
        self.write_full(added)
    }

    /// Adds a memo entry to the chunk that is being filled.
    fn fill_memo(&mut self, request: ObjectId, memo: &Memo<'_>) -> Result<Place, StoreFault> {
        let added = self.filling.add_memo(request, memo);
        self.write_full(added)
    }

    /// Writes the chunk that is full, if one is. Returns the place of what was added.
    fn write_full(
        &mut self,
        (place, full): (Place, Option<(u32, Vec<u8>)>),
    ) -> Result<Place, StoreFault> {
        if let Some((number, bytes)) = full {
            self.tables.chunks.insert(&number.to_be_bytes()[..], &*bytes)?;
            self.filling.reuse(bytes);
        }
        Ok(place)
    }

    /// Removes the objects and memo entries that these functions do not keep, and all malformed
    /// values. `listings` are the lists of all objects and of all memo entries. Chunks that are mostly garbage are replaced.
    pub(super) fn retain(
        &mut self,
        listings: [Listing; 2],
        keeps_object: impl Fn(ObjectId) -> bool,
        keeps_entry: impl Fn(ObjectId) -> bool,
    ) -> Result<(), StoreFault> {
        let mut live: Vec<(Record, Index, usize)> = Vec::new();
        for (index, listing) in Index::ALL.into_iter().zip(listings) {
            for number in listing.superseded {
                self.tables.contents.remove(&number.to_be_bytes()[..])?;
            }
            for (record, value) in listing.values {
                match value {
                    Value::Object { id, head, number, .. } if keeps_object(id) => {
                        live.push((record, index, ObjectValue::bytes(id, head.length, number)));
                    }
                    Value::Object { number: Some(number), .. } => {
                        self.tables.contents.remove(&number.to_be_bytes()[..])?;
                    }
                    Value::Memo { request, entry: Some(_), bytes } if keeps_entry(request) => {
                        live.push((record, index, bytes));
                    }
                    _ => {}
                }
            }
        }
        live.sort_unstable_by_key(|(record, ..)| record.place);
        let mut kept: HashSet<u32> = HashSet::new();
        let mut records: [Vec<Record>; 2] = take(&mut self.added);
        for of_chunk in live.chunk_by(|one, other| one.0.place.chunk == other.0.place.chunk) {
            let Some((first, ..)) = of_chunk.first() else { continue };
            let number = first.place.chunk;
            let bytes: usize = of_chunk.iter().map(|(.., bytes)| bytes).sum();
            let chunk = self.tables.chunks.get(&number.to_be_bytes()[..])?;
            let chunk = chunk.map_or_else(Vec::new, |chunk| chunk.value().to_vec());
            let is_kept = bytes * 10 >= chunk.len() * 9;
            if is_kept {
                kept.insert(number);
            }
            for (record, index, bytes) in of_chunk {
                let Place { offset, .. } = record.place;
                let start = usize::from(offset);
                let place = match index {
                    _ if is_kept => record.place,
                    Index::Objects => {
                        let value = chunk.get(start..start + bytes).unwrap_or_default();
                        self.fill(value.len(), |bytes| bytes.extend_from_slice(value))?
                    }
                    Index::Memo => {
                        let value = MemoValue::decode(&chunk, offset);
                        let Some((request, memo)) =
                            value.and_then(|value| Some((value.request, value.memo?)))
                        else {
                            continue;
                        };
                        self.fill_memo(request, &memo)?
                    }
                };
                records[*index as usize].push(Record { place, ..*record });
            }
        }
        // Chunks of this transaction have numbers that no record has named before.
        let first_new = self.first_new_chunk()?;
        self.tables.chunks.retain(|key, _| {
            let number = key.try_into().map(u32::from_be_bytes);
            number.is_ok_and(|number| number >= first_new || kept.contains(&number))
        })?;
        for index in Index::ALL {
            for run in take(&mut self.tables.indexes[index as usize]) {
                self.remove_run(index, &run)?;
            }
        }
        self.added = records;
        Ok(())
    }

    fn first_new_chunk(&self) -> Result<u32, StoreFault> {
        let next = self.numbers.get(NEXT_CHUNK)?.map_or(0, |next| next.value());
        Ok(u32::try_from(next).unwrap_or(u32::MAX))
    }

    fn remove_run(&mut self, index: Index, run: &Run) -> Result<(), StoreFault> {
        for page in run.pages() {
            self.tables.pages.remove(&page_key(run.id, page)[..])?;
        }
        self.tables.runs.remove(&index.run_key(run.id)[..])?;
        Ok(())
    }

    /// Writes what was added. Returns the new runs.
    pub(super) fn finish(mut self) -> Result<Vec<NewRun>, StoreFault> {
        if !self.filling.bytes.is_empty() {
            let number = self.filling.chunk.to_be_bytes();
            self.tables.chunks.insert(&number[..], &*self.filling.bytes)?;
            self.filling.chunk += 1;
        }
        let mut written = Vec::new();
        for index in Index::ALL {
            let mut records = take(&mut self.added[index as usize]);
            if !records.is_empty() {
                records.reverse();
                written.push(self.write_run(index, records)?);
            }
        }
        self.numbers.insert(NEXT_CHUNK, u64::from(self.filling.chunk))?;
        self.numbers.insert(NEXT_CONTENT, self.next_content)?;
        self.numbers.insert(NEXT_RUN, self.next_run)?;
        Ok(written)
    }

    /// Writes records, which are sorted from the newest to the oldest, as a run. Merges them with
    /// runs of similar size.
    fn write_run(&mut self, index: Index, mut records: Vec<Record>) -> Result<NewRun, StoreFault> {
        let prefix = |record: &Record| record.prefix;
        let others = &self.tables.indexes[index as usize];
        let mut covered = self.known.cover(index, others, records.iter().map(prefix));
        index::sort(&mut records);
        loop {
            let runs = &self.tables.indexes[index as usize];
            let sizes = runs.iter().map(|run| run.records);
            let count = index::to_merge([records.len() as u64].into_iter().chain(sizes));
            if count == 0 {
                break;
            }
            let merged: Vec<_> = self.tables.indexes[index as usize].drain(..count - 1).collect();
            for run in merged {
                self.tables.each_record(&run, |record| records.push(record))?;
                self.remove_run(index, &run)?;
            }
            index::sort(&mut records);
        }
        let others = &self.tables.indexes[index as usize];
        if covered.is_none() && others.is_empty() {
            covered = self.known.cover(index, others, records.iter().map(prefix));
        }
        self.next_run += 1;
        let (run, pages) =
            index::encode(self.next_run, self.next_run, &records, &self.known.budget);
        for (page, number) in pages.iter().zip(0..) {
            self.tables.pages.insert(&page_key(run.id, number)[..], &**page)?;
        }
        self.tables.runs.insert(&index.run_key(run.id)[..], &*run.encode())?;
        Ok(NewRun { index, run: Arc::new(run), covered })
    }
}
