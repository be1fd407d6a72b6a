//! [`Tables`]: the tables of one transaction and the operations on them.

use std::collections::HashSet;

use bytes::Bytes;
use manifold_runtime_api::{Object, ObjectId, ObjectKind, Tree};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, WriteTransaction};

use super::fault::StoreFault;
use super::format::{
    self, CONTENTS, Entry, EntryTable, Head, MAX_INLINE_BYTES, MEMO, OBJECTS, PINS, Place, Stamp,
};

/// The open tables of a read or write transaction.
pub(super) struct Tables<T> {
    pub(super) objects: T,
    pub(super) contents: T,
    pub(super) memo: T,
    pub(super) pins: T,
}

pub(super) type ReadTables = Tables<ReadOnlyTable<format::Bytes, format::Bytes>>;
pub(super) type WriteTables<'a> = Tables<Table<'a, format::Bytes, format::Bytes>>;

impl ReadTables {
    pub(super) fn read(transaction: &ReadTransaction) -> Result<Self, StoreFault> {
        Ok(Self {
            objects: transaction.open_table(OBJECTS)?,
            contents: transaction.open_table(CONTENTS)?,
            memo: transaction.open_table(MEMO)?,
            pins: transaction.open_table(PINS)?,
        })
    }
}

impl<T: ReadableTable<format::Bytes, format::Bytes>> Tables<T> {
    /// Reads the metadata of an object.
    pub(super) fn head(&self, id: ObjectId) -> Result<Option<Head>, StoreFault> {
        let Some(value) = self.objects.get(id.as_bytes())? else { return Ok(None) };
        let (head, _) = Head::decode(value.value()).ok_or(StoreFault::Value("object", id))?;
        Ok(Some(head))
    }

    /// Reads an object and verifies that its content has this id.
    pub(super) fn object(&self, id: ObjectId) -> Result<Option<(Object, Stamp)>, StoreFault> {
        let damaged = || StoreFault::Value("object", id);
        let Some(value) = self.objects.get(id.as_bytes())? else { return Ok(None) };
        let (head, place) = Head::decode(value.value()).ok_or_else(damaged)?;
        let content = match place {
            Place::Inline(content) => Bytes::copy_from_slice(content),
            Place::Separate => {
                let content = self.contents.get(id.as_bytes())?.ok_or_else(damaged)?;
                Bytes::copy_from_slice(content.value())
            }
        };
        let object = Object { kind: head.kind, content };
        if object.id() == id { Ok(Some((object, head.stamp))) } else { Err(damaged()) }
    }

    /// Reads a tree. Returns `None` for a blob, for a missing object, and for a malformed tree.
    pub(super) fn tree(&self, id: ObjectId) -> Result<Option<Tree>, StoreFault> {
        let is_tree = self.head(id)?.is_some_and(|head| head.kind == ObjectKind::Tree);
        let object = if is_tree { self.object(id)? } else { None };
        Ok(object.and_then(|(object, _)| Tree::decode_as_git_reads(&object.content).ok()))
    }

    /// Returns the ids of the entries of the tree `id`, without submodules. Returns none if
    /// [`Tables::tree`] returns none.
    pub(super) fn entries(&self, id: ObjectId) -> Result<Vec<ObjectId>, StoreFault> {
        let tree = self.tree(id)?.unwrap_or_default();
        Ok(tree.objects().map(|held| held.id).collect())
    }

    /// Reads the entry of `request` in `table`. Errors if the entry is damaged.
    pub(super) fn entry(
        &self,
        table: EntryTable,
        request: ObjectId,
    ) -> Result<Option<Entry>, StoreFault> {
        let (table, what) = match table {
            EntryTable::Memo => (&self.memo, "memo entry"),
            EntryTable::Pins => (&self.pins, "pin"),
        };
        let Some(value) = table.get(request.as_bytes())? else { return Ok(None) };
        Entry::decode(request, value.value()).map(Some).ok_or(StoreFault::Value(what, request))
    }

    /// Lists the heads of all objects by id. A damaged head is `None`.
    pub(super) fn heads(&self) -> Result<Vec<(ObjectId, Option<Head>)>, StoreFault> {
        list(&self.objects, |_, value| Head::decode(value).map(|(head, _)| head))
    }

    /// Lists all memo entries by request. A damaged entry is `None`.
    pub(super) fn memo_entries(&self) -> Result<Vec<(ObjectId, Option<Entry>)>, StoreFault> {
        list(&self.memo, Entry::decode)
    }

    /// Lists all pins by request. A damaged pin is `None`.
    pub(super) fn all_pins(&self) -> Result<Vec<(ObjectId, Option<Entry>)>, StoreFault> {
        list(&self.pins, Entry::decode)
    }
}

fn list<V>(
    table: &impl ReadableTable<format::Bytes, format::Bytes>,
    decode: impl Fn(ObjectId, &[u8]) -> Option<V>,
) -> Result<Vec<(ObjectId, Option<V>)>, StoreFault> {
    let mut found = Vec::new();
    for item in table.iter()? {
        let (key, value) = item?;
        let id =
            ObjectId::from_bytes(key.value()).map_err(|_| StoreFault::Key(key.value().len()))?;
        found.push((id, decode(id, value.value())));
    }
    Ok(found)
}

impl<'a> WriteTables<'a> {
    pub(super) fn write(transaction: &'a WriteTransaction) -> Result<Self, StoreFault> {
        Ok(Self {
            objects: transaction.open_table(OBJECTS)?,
            contents: transaction.open_table(CONTENTS)?,
            memo: transaction.open_table(MEMO)?,
            pins: transaction.open_table(PINS)?,
        })
    }

    /// Stores an object, or renews the stamp of an object that is there. Returns whether anything
    /// changed.
    pub(super) fn put(
        &mut self,
        id: ObjectId,
        object: &Object,
        now: Stamp,
    ) -> Result<bool, StoreFault> {
        if let Some(restamped) = self.restamp(id, now)? {
            return Ok(restamped);
        }
        let content = &*object.content;
        let head = Head { kind: object.kind, stamp: now, length: content.len() as u64 };
        self.objects.insert(id.as_bytes(), &*head.encode(content))?;
        if content.len() > MAX_INLINE_BYTES {
            self.contents.insert(id.as_bytes(), content)?;
        }
        Ok(true)
    }

    /// Renews the stamp of an object unless it is fresh. Returns whether anything changed, or
    /// `None` if the object is missing or its head is damaged.
    fn restamp(&mut self, id: ObjectId, now: Stamp) -> Result<Option<bool>, StoreFault> {
        let value = match self.objects.get(id.as_bytes())? {
            None => return Ok(None),
            Some(value) => match Head::decode(value.value()) {
                Some((head, _)) if head.stamp.is_fresh(now) => return Ok(Some(false)),
                Some(_) => Head::restamp(value.value(), now),
                None => return Ok(None),
            },
        };
        self.objects.insert(id.as_bytes(), &*value)?;
        Ok(Some(true))
    }

    /// Renews the stamps of everything that `root` reaches. Missing objects and damaged trees are
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
            if self.restamp(id, now)?.is_none() && id != ObjectId::empty_tree() {
                let Some(object) = rescue(id) else { return Ok(false) };
                self.put(id, &object, now)?;
            }
            let entries = match self.entries(id) {
                Err(StoreFault::Value(..)) => match rescue(id) {
                    Some(object) => {
                        self.drop_object(id)?;
                        self.put(id, &object, now)?;
                        self.entries(id)?
                    }
                    None => return Ok(false),
                },
                entries => entries?,
            };
            pending.extend(entries.into_iter().filter(|entry| seen.insert(*entry)));
        }
        Ok(true)
    }

    /// Removes an object.
    pub(super) fn drop_object(&mut self, id: ObjectId) -> Result<(), StoreFault> {
        self.objects.remove(id.as_bytes())?;
        self.contents.remove(id.as_bytes())?;
        Ok(())
    }
}
