//! The tables of one transaction, and what is done in them.

use std::collections::HashSet;

use bytes::Bytes;
use manifold_runtime_api::{Object, ObjectId, ObjectKind, Tree};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, WriteTransaction};

use super::disk::Trouble;
use super::format::{self, Book, CONTENTS, Entry, Head, MEMO, OBJECTS, PINS, Place, SHORT, Stamp};

pub(super) struct Tables<T> {
    pub(super) objects: T,
    pub(super) contents: T,
    pub(super) memo: T,
    pub(super) pins: T,
}

pub(super) type ReadTables = Tables<ReadOnlyTable<format::Bytes, format::Bytes>>;
pub(super) type WriteTables<'a> = Tables<Table<'a, format::Bytes, format::Bytes>>;

impl ReadTables {
    pub(super) fn read(transaction: &ReadTransaction) -> Result<Self, Trouble> {
        Ok(Self {
            objects: transaction.open_table(OBJECTS)?,
            contents: transaction.open_table(CONTENTS)?,
            memo: transaction.open_table(MEMO)?,
            pins: transaction.open_table(PINS)?,
        })
    }
}

impl<T: ReadableTable<format::Bytes, format::Bytes>> Tables<T> {
    pub(super) fn head(&self, id: ObjectId) -> Result<Option<Head>, Trouble> {
        let Some(value) = self.objects.get(id.as_bytes())? else { return Ok(None) };
        let (head, _) = Head::decode(value.value()).ok_or(Trouble::Value("object", id))?;
        Ok(Some(head))
    }

    /// Reads an object and checks that it has its id.
    pub(super) fn object(&self, id: ObjectId) -> Result<Option<(Object, Stamp)>, Trouble> {
        let damaged = || Trouble::Value("object", id);
        let Some(value) = self.objects.get(id.as_bytes())? else { return Ok(None) };
        let (head, place) = Head::decode(value.value()).ok_or_else(damaged)?;
        let content = match place {
            Place::Here(content) => Bytes::copy_from_slice(content),
            Place::Apart => {
                let content = self.contents.get(id.as_bytes())?.ok_or_else(damaged)?;
                Bytes::copy_from_slice(content.value())
            }
        };
        let object = Object { kind: head.kind, content };
        if object.id() == id { Ok(Some((object, head.stamp))) } else { Err(damaged()) }
    }

    /// What the tree `id` holds, submodules aside; nothing for a blob, for what is not there, and for a tree that is none.
    pub(super) fn entries(&self, id: ObjectId) -> Result<Vec<ObjectId>, Trouble> {
        let is_tree = self.head(id)?.is_some_and(|head| head.kind == ObjectKind::Tree);
        let tree = if is_tree { self.object(id)? } else { None };
        let Some(tree) =
            tree.and_then(|(object, _)| Tree::decode_as_git_reads(&object.content).ok())
        else {
            return Ok(Vec::new());
        };
        Ok(tree.objects().map(|held| held.id).collect())
    }

    /// What stands in `book` under `request`, if it is what was written.
    pub(super) fn entry(&self, book: Book, request: ObjectId) -> Result<Option<Entry>, Trouble> {
        let (table, what) = match book {
            Book::Memo => (&self.memo, "memo entry"),
            Book::Pins => (&self.pins, "pin"),
        };
        let Some(value) = table.get(request.as_bytes())? else { return Ok(None) };
        Entry::decode(request, value.value()).map(Some).ok_or(Trouble::Value(what, request))
    }

    /// Every object, by id. One whose head makes no sense comes as `None`.
    pub(super) fn heads(&self) -> Result<Vec<(ObjectId, Option<Head>)>, Trouble> {
        list(&self.objects, |_, value| Head::decode(value).map(|(head, _)| head))
    }

    /// Every memo entry, by request. A damaged one comes as `None`.
    pub(super) fn memo_entries(&self) -> Result<Vec<(ObjectId, Option<Entry>)>, Trouble> {
        list(&self.memo, Entry::decode)
    }

    /// Every pin, by request. A damaged one comes as `None`.
    pub(super) fn all_pins(&self) -> Result<Vec<(ObjectId, Option<Entry>)>, Trouble> {
        list(&self.pins, Entry::decode)
    }
}

fn list<V>(
    table: &impl ReadableTable<format::Bytes, format::Bytes>,
    decode: impl Fn(ObjectId, &[u8]) -> Option<V>,
) -> Result<Vec<(ObjectId, Option<V>)>, Trouble> {
    let mut found = Vec::new();
    for item in table.iter()? {
        let (key, value) = item?;
        let id = ObjectId::from_bytes(key.value()).map_err(|_| Trouble::Key(key.value().len()))?;
        found.push((id, decode(id, value.value())));
    }
    Ok(found)
}

impl<'a> WriteTables<'a> {
    pub(super) fn write(transaction: &'a WriteTransaction) -> Result<Self, Trouble> {
        Ok(Self {
            objects: transaction.open_table(OBJECTS)?,
            contents: transaction.open_table(CONTENTS)?,
            memo: transaction.open_table(MEMO)?,
            pins: transaction.open_table(PINS)?,
        })
    }

    /// Stores an object, or notes that it was stored again. Answers whether that changed anything.
    pub(super) fn put(
        &mut self,
        id: ObjectId,
        object: &Object,
        now: Stamp,
    ) -> Result<bool, Trouble> {
        if let Some(restamped) = self.restamp(id, now)? {
            return Ok(restamped);
        }
        let content = &*object.content;
        let head = Head { kind: object.kind, stamp: now, length: content.len() as u64 };
        self.objects.insert(id.as_bytes(), &*head.encode(content))?;
        if content.len() > SHORT {
            self.contents.insert(id.as_bytes(), content)?;
        }
        Ok(true)
    }

    /// Notes that an object is wanted still. Answers whether that changed anything; `None` when it is not there.
    fn restamp(&mut self, id: ObjectId, now: Stamp) -> Result<Option<bool>, Trouble> {
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

    /// Notes that all that `root` reaches is wanted still. What is not there, or is a damaged tree, comes from `rescue`; false when
    /// that has it not.
    pub(super) fn keep_all_of(
        &mut self,
        root: ObjectId,
        now: Stamp,
        rescue: impl Fn(ObjectId) -> Option<Object>,
    ) -> Result<bool, Trouble> {
        let mut met = HashSet::from([root]);
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            if self.restamp(id, now)?.is_none() && id != ObjectId::empty_tree() {
                let Some(object) = rescue(id) else { return Ok(false) };
                self.put(id, &object, now)?;
            }
            let entries = match self.entries(id) {
                Err(Trouble::Value(..)) => match rescue(id) {
                    Some(object) => {
                        self.drop_object(id)?;
                        self.put(id, &object, now)?;
                        self.entries(id)?
                    }
                    None => return Ok(false),
                },
                entries => entries?,
            };
            open.extend(entries.into_iter().filter(|entry| met.insert(*entry)));
        }
        Ok(true)
    }

    /// Takes an object away.
    pub(super) fn drop_object(&mut self, id: ObjectId) -> Result<(), Trouble> {
        self.objects.remove(id.as_bytes())?;
        self.contents.remove(id.as_bytes())?;
        Ok(())
    }
}
