//! [`Tables`]: the tables of one transaction, and reading from them.

use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::{Object, ObjectId, ObjectKind, ObjectRef, Tree};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition};

use super::chunks::ObjectValue;
use super::fault::StoreFault;
use super::filter::Filter;
use super::format::{self, CHUNKS, CONTENTS, Entry, EntryTable, Head, PAGES, PINS, RUNS, Stamp};
use super::index::{self, Place, Record, Run};
use super::known_runs::{JointFilter, KnownRuns};
use super::memo_value::{Memo, MemoValue, RunParts};
use crate::by_id::ById;
use crate::progress::Progress;
use crate::store::RunRecord;

/// The open tables of a read or write transaction.
pub(super) struct Tables<T> {
    pub(super) chunks: T,
    pub(super) contents: T,
    pub(super) runs: T,
    pub(super) pages: T,
    pub(super) pins: T,
    /// The runs of each index, from the newest to the oldest.
    pub(super) indexes: [Vec<Arc<Run>>; 2],
    /// Filters for all runs of each index together, where they are known.
    joint: [Option<JointFilter>; 2],
}

pub(super) type ReadTables = Tables<ReadOnlyTable<format::Bytes, format::Bytes>>;

/// The index of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Objects = 0,
    Memo = 1,
}

impl Index {
    pub(super) const ALL: [Self; 2] = [Self::Objects, Self::Memo];

    /// The key of a run's header.
    pub(super) fn run_key(self, run: u64) -> [u8; 9] {
        let mut key = [self as u8; 9];
        key[1..].copy_from_slice(&run.to_be_bytes());
        key
    }
}

/// The key of a page.
pub(super) fn page_key(run: u64, page: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&run.to_be_bytes());
    key[8..].copy_from_slice(&page.to_be_bytes());
    key
}

/// What the data of an object or memo entry turns out to be.
pub(super) enum Value {
    Object {
        id: ObjectId,
        head: Head,
        number: Option<u64>,
        is_sound: bool,
    },
    /// The entry is `None` if it is damaged.
    Memo {
        request: ObjectId,
        entry: Option<Memoized>,
        bytes: usize,
    },
}

/// A memo entry, without the record of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memoized {
    /// `None` if there is only the record of a run.
    pub(super) outcome: Option<ObjectRef>,
    pub(super) stamp: Stamp,
}

impl Value {
    pub(super) fn id(&self) -> ObjectId {
        match self {
            Self::Object { id, .. } | Self::Memo { request: id, .. } => *id,
        }
    }

    /// Returns the number of content that is stored by itself.
    fn number(&self) -> Option<u64> {
        match self {
            Self::Object { number, .. } => *number,
            Self::Memo { .. } => None,
        }
    }

    /// Decodes the value of an index that a record names in a chunk. Returns `None` if it is malformed.
    fn decode(index: Index, record: Record, chunk: &[u8]) -> Option<Self> {
        let value = match index {
            Index::Objects => {
                let value = object_at(chunk, record.place)?;
                let number = value.content.number();
                Self::Object { id: value.id, head: head(record, &value), number, is_sound: true }
            }
            Index::Memo => {
                let value = MemoValue::decode(chunk, record.place.offset)?;
                let entry =
                    value.memo.map(|memo| Memoized { outcome: memo.outcome, stamp: record.stamp });
                Self::Memo { request: value.request, entry, bytes: value.bytes }
            }
        };
        (index::prefix(value.id()) == record.prefix).then_some(value)
    }
}

/// All values of an index.
pub(super) struct Listing {
    /// The newest value for each id, with its record, sorted by place.
    pub(super) values: Vec<(Record, Value)>,
    /// The numbers of the contents of older values.
    pub(super) superseded: Vec<u64>,
    /// The chunks that contain a malformed value, or that are missing.
    pub(super) malformed: Vec<u32>,
}

impl ReadTables {
    pub(super) fn read(
        transaction: &ReadTransaction,
        known: &KnownRuns,
    ) -> Result<Self, StoreFault> {
        Self::open(known, |table| Ok(transaction.open_table(table)?))
    }
}

/// Returns the object at a place of a chunk. `None` if it is malformed.
fn object_at(chunk: &[u8], place: Place) -> Option<ObjectValue<'_>> {
    ObjectValue::decode(chunk.get(usize::from(place.offset)..)?)
}

fn malformed(what: &str) -> StoreFault {
    StoreFault::Damaged(format!("{what} is malformed"))
}

impl<T: ReadableTable<format::Bytes, format::Bytes>> Tables<T> {
    /// Opens the tables with `open`, and reads the headers of all runs that are not known.
    pub(super) fn open(
        known: &KnownRuns,
        open: impl Fn(TableDefinition<'static, format::Bytes, format::Bytes>) -> Result<T, StoreFault>,
    ) -> Result<Self, StoreFault> {
        let mut tables = Self {
            chunks: open(CHUNKS)?,
            contents: open(CONTENTS)?,
            runs: open(RUNS)?,
            pages: open(PAGES)?,
            pins: open(PINS)?,
            indexes: Default::default(),
            joint: Default::default(),
        };
        let mut indexes: [Vec<Arc<Run>>; 2] = Default::default();
        for item in tables.runs.iter()? {
            let (key, header) = item?;
            let key = key.value();
            let run = key.split_first().and_then(|(index, run)| {
                Some((usize::from(*index), u64::from_be_bytes(run.try_into().ok()?)))
            });
            let (runs, id) = run
                .and_then(|(index, id)| Some((indexes.get_mut(index)?, id)))
                .ok_or(StoreFault::Key(key.len()))?;
            let run = match known.get(id) {
                Some(run) => run,
                None => {
                    let run = Run::decode(id, header.value(), &known.budget);
                    let run = Arc::new(run.ok_or_else(|| malformed("the header of a run"))?);
                    known.insert(Arc::clone(&run));
                    run
                }
            };
            runs.push(run);
        }
        for runs in &mut indexes {
            runs.sort_unstable_by_key(|run| std::cmp::Reverse(run.order));
        }
        known.keep(indexes.iter().flatten().cloned());
        tables.joint = Index::ALL.map(|index| known.joint_filter(index, &indexes[index as usize]));
        tables.indexes = indexes;
        Ok(tables)
    }

    /// Calls `accept` with the records for `id` and their chunks, the newest first, until it returns a
    /// value. The data in the chunk may be that of another id.
    fn find<V>(
        &self,
        index: Index,
        id: ObjectId,
        mut accept: impl FnMut(Record, Option<&[u8]>) -> Result<Option<V>, StoreFault>,
    ) -> Result<Option<V>, StoreFault> {
        let prefix = index::prefix(id);
        if self.joint[index as usize].as_ref().is_some_and(|joint| !joint.may_contain(prefix)) {
            return Ok(None);
        }
        for run in &self.indexes[index as usize] {
            match run.may_contain(prefix) {
                Some(false) => continue,
                Some(true) => {}
                None => run.set_filter(self.filter(run)?),
            }
            for page in run.pages_of(prefix) {
                let read;
                let bytes = match run.kept.get(page) {
                    Some(bytes) => bytes,
                    None => {
                        read = self.page(run, page)?;
                        run.kept.keep(page, read.value());
                        read.value()
                    }
                };
                let found = index::find(bytes, prefix);
                for record in found.ok_or_else(|| malformed("a page of a run"))? {
                    let chunk = self.chunks.get(&record.place.chunk.to_be_bytes()[..])?;
                    if let Some(value) = accept(record, chunk.as_ref().map(|chunk| chunk.value()))?
                    {
                        return Ok(Some(value));
                    }
                }
            }
        }
        Ok(None)
    }

    fn page(
        &self,
        run: &Run,
        page: u32,
    ) -> Result<redb::AccessGuard<'_, format::Bytes>, StoreFault> {
        let page = self.pages.get(&page_key(run.id, page)[..])?;
        page.ok_or_else(|| StoreFault::Damaged("a page of a run is missing".to_owned()))
    }

    fn filter(&self, run: &Run) -> Result<Filter, StoreFault> {
        let filter = Filter::new(usize::try_from(run.records).unwrap_or(usize::MAX));
        self.each_record(run, |record| filter.insert(record.prefix))?;
        Ok(filter)
    }

    pub(super) fn each_record(
        &self,
        run: &Run,
        mut each: impl FnMut(Record),
    ) -> Result<(), StoreFault> {
        for page in run.pages() {
            let page = self.page(run, page)?;
            let records = index::records(page.value());
            records.ok_or_else(|| malformed("a page of a run"))?.for_each(&mut each);
        }
        Ok(())
    }

    /// Calls `with` with the value of an object, and its record.
    fn object_value<V>(
        &self,
        id: ObjectId,
        with: impl Fn(Record, ObjectValue<'_>) -> Result<V, StoreFault>,
    ) -> Result<Option<V>, StoreFault> {
        self.find(Index::Objects, id, |record, chunk| {
            let value = chunk.and_then(|chunk| object_at(chunk, record.place));
            let value = value.ok_or(StoreFault::Value("object", id))?;
            if value.id == id { with(record, value).map(Some) } else { Ok(None) }
        })
    }

    /// Reads the metadata of an object, and where the object is.
    pub(super) fn head_at(&self, id: ObjectId) -> Result<Option<(Head, Place)>, StoreFault> {
        self.object_value(id, |record, value| Ok((head(record, &value), record.place)))
    }

    /// Reads the metadata of an object.
    pub(super) fn head(&self, id: ObjectId) -> Result<Option<Head>, StoreFault> {
        Ok(self.head_at(id)?.map(|(head, _)| head))
    }

    /// Reads an object and verifies that its content has this id.
    pub(super) fn object(&self, id: ObjectId) -> Result<Option<(Object, Stamp)>, StoreFault> {
        self.object_value(id, |record, value| {
            let object = value.object(|number| self.content(number))?;
            let object = object.ok_or(StoreFault::Value("object", id))?;
            Ok((object, record.stamp))
        })
    }

    fn content(&self, number: u64) -> Result<Option<Bytes>, StoreFault> {
        let content = self.contents.get(&number.to_be_bytes()[..])?;
        Ok(content.map(|content| Bytes::copy_from_slice(content.value())))
    }

    /// Reads a tree. Returns `None` for a blob, for a missing object, and for a malformed tree.
    pub(super) fn tree(&self, id: ObjectId) -> Result<Option<Tree>, StoreFault> {
        let object = self.object_value(id, |_, value| match value.kind {
            ObjectKind::Blob => Ok(None),
            ObjectKind::Tree => {
                let object = value.object(|number| self.content(number))?;
                object.map(Some).ok_or(StoreFault::Value("object", id))
            }
        })?;
        Ok(object.flatten().and_then(|object| Tree::decode_as_git_reads(&object.content).ok()))
    }

    /// Returns the ids of the entries of the tree `id`, without submodules. Returns none if
    /// [`Tables::tree`] returns none.
    pub(super) fn entries(&self, id: ObjectId) -> Result<Vec<ObjectId>, StoreFault> {
        let tree = self.tree(id)?.unwrap_or_default();
        Ok(tree.objects().map(|held| held.id).collect())
    }

    /// Reads an entry of `request`. Errors if the entry is damaged.
    pub(super) fn entry(
        &self,
        table: EntryTable,
        request: ObjectId,
    ) -> Result<Option<Entry>, StoreFault> {
        match table {
            EntryTable::Memo => {
                let entry = self.memo_value(request, |record, memo| {
                    memo.outcome.map(|outcome| Entry { outcome, stamp: record.stamp })
                });
                Ok(entry?.flatten())
            }
            EntryTable::Pins => {
                let Some(value) = self.pins.get(request.as_bytes())? else { return Ok(None) };
                let pin = Entry::decode(request, value.value());
                pin.map(Some).ok_or(StoreFault::Value("pin", request))
            }
        }
    }

    /// Calls `with` with what the memo has for a request, and its record.
    pub(super) fn memo_value<V>(
        &self,
        request: ObjectId,
        with: impl Fn(Record, Memo<'_>) -> V,
    ) -> Result<Option<V>, StoreFault> {
        self.find(Index::Memo, request, |record, chunk| {
            let value = chunk.and_then(|chunk| MemoValue::decode(chunk, record.place.offset));
            let value = value.ok_or(StoreFault::Value("memo entry", request))?;
            if value.request != request {
                return Ok(None);
            }
            let memo = value.memo.ok_or(StoreFault::Value("memo entry", request))?;
            Ok(Some(with(record, memo)))
        })
    }

    /// Reads the record of the last run of a request.
    pub(super) fn run_record(&self, request: ObjectId) -> Result<Option<RunRecord>, StoreFault> {
        Ok(self.memo_value(request, |_, memo| memo.run.map(RunParts::to_record))?.flatten())
    }

    /// Reads the records of all runs, but for damaged ones.
    pub(super) fn run_records(&self) -> Result<Vec<(ObjectId, RunRecord)>, StoreFault> {
        let mut found = Vec::new();
        let values = self.list(Index::Memo)?.values;
        for of_chunk in values.chunk_by(|(one, _), (other, _)| one.place.chunk == other.place.chunk)
        {
            let Some((first, _)) = of_chunk.first() else { continue };
            let Some(chunk) = self.chunks.get(&first.place.chunk.to_be_bytes()[..])? else {
                continue;
            };
            found.extend(of_chunk.iter().filter_map(|(record, _)| {
                let value = MemoValue::decode(chunk.value(), record.place.offset)?;
                Some((value.request, value.memo?.run?.to_record()))
            }));
        }
        Ok(found)
    }

    /// Lists an index. Takes all objects for sound.
    pub(super) fn list(&self, index: Index) -> Result<Listing, StoreFault> {
        self.list_with(index, |_, _| Ok(true))
    }

    /// Returns whether an object's content has its id. A tree must also be well-formed.
    fn is_sound_value(&self, value: &ObjectValue<'_>) -> Result<bool, StoreFault> {
        let object = value.object(|number| self.content(number))?;
        Ok(object.is_some_and(|object| {
            object.kind == ObjectKind::Blob || Tree::decode_as_git_reads(&object.content).is_ok()
        }))
    }

    /// Returns whether an object is there and sound.
    pub(super) fn is_sound(&self, id: ObjectId) -> Result<bool, StoreFault> {
        match self.object_value(id, |_, value| self.is_sound_value(&value)) {
            Ok(found) => Ok(found.unwrap_or(false)),
            Err(StoreFault::Value(..)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Lists all objects, and verifies each.
    pub(super) fn verify_objects(
        &self,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Listing, StoreFault> {
        let mut done = 0;
        self.list_with(Index::Objects, |value, records| {
            progress(Progress::new("objects", done, records as u64));
            done += 1;
            self.is_sound_value(value)
        })
    }

    /// Lists an index. Asks `is_sound` about each object, with the number of all records.
    fn list_with(
        &self,
        index: Index,
        mut is_sound: impl FnMut(&ObjectValue<'_>, usize) -> Result<bool, StoreFault>,
    ) -> Result<Listing, StoreFault> {
        // By place, so that each chunk is read once. Of the records of one place, the newest stays. The
        // records of an id have different ages also in one run, where the newest is first.
        let mut records: Vec<(Record, usize)> = Vec::new();
        for run in &self.indexes[index as usize] {
            self.each_record(run, |record| records.push((record, records.len())))?;
        }
        records.sort_by_key(|(record, age)| (record.place, *age));
        records.dedup_by_key(|(record, _)| record.place);
        let mut newest: ById<(usize, usize)> =
            ById::with_capacity_and_hasher(records.len(), Default::default());
        let mut values: Vec<Option<(Record, Value)>> = Vec::with_capacity(records.len());
        let (mut malformed, mut superseded) = (Vec::new(), Vec::new());
        for of_chunk in
            records.chunk_by(|(one, _), (other, _)| one.place.chunk == other.place.chunk)
        {
            let Some((first, _)) = of_chunk.first() else { continue };
            let number = first.place.chunk;
            let chunk = self.chunks.get(&number.to_be_bytes()[..])?;
            for (record, age) in of_chunk {
                let chunk = chunk.as_ref().map(|chunk| chunk.value());
                let Some((mut value, chunk)) =
                    chunk.and_then(|chunk| Some((Value::decode(index, *record, chunk)?, chunk)))
                else {
                    malformed.push(number);
                    continue;
                };
                if let Value::Object { is_sound: sound, .. } = &mut value
                    && let Some(value) = object_at(chunk, record.place)
                {
                    *sound = is_sound(&value, records.len())?;
                }
                let place = values.len();
                match newest.get(&value.id()) {
                    Some((known, _)) if known < age => {
                        superseded.extend(value.number());
                        continue;
                    }
                    Some((_, older)) => {
                        let older = values.get_mut(*older).and_then(Option::take);
                        superseded.extend(older.and_then(|(_, value)| value.number()));
                    }
                    None => {}
                }
                newest.insert(value.id(), (*age, place));
                values.push(Some((*record, value)));
            }
        }
        malformed.dedup();
        Ok(Listing { values: values.into_iter().flatten().collect(), superseded, malformed })
    }

    /// Lists all pins by request. A damaged pin is `None`.
    pub(super) fn all_pins(&self) -> Result<Vec<(ObjectId, Option<Entry>)>, StoreFault> {
        let mut pins = Vec::new();
        for item in self.pins.iter()? {
            let (key, value) = item?;
            let request = ObjectId::from_bytes(key.value())
                .map_err(|_| StoreFault::Key(key.value().len()))?;
            pins.push((request, Entry::decode(request, value.value())));
        }
        Ok(pins)
    }
}

fn head(record: Record, value: &ObjectValue<'_>) -> Head {
    Head { kind: value.kind, stamp: record.stamp, length: value.content.length() }
}
