//! [`Places`]: where the objects of a scanned directory are in its records.

use std::hash::BuildHasher;
use std::path::PathBuf;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use manifold_runtime_api::{ObjectId, ObjectKind};

use super::index::Records;
use super::names;
use super::record::{Entry, Node, Record};

/// The places of objects, by id.
pub(super) struct Places {
    table: HashTable<Place>,
    hasher: RandomState,
    /// Where each record begins, in ascending order.
    records: Vec<usize>,
}

/// Where an object is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The tree of the record that begins here.
    Tree(usize),
    /// The entry of a file or link.
    Leaf(usize),
}

/// An object of a scanned directory.
pub(super) enum Found<'a> {
    Tree(Record<'a>),
    Link(&'a [u8]),
    File {
        /// Where the entry of the file is. [`Places::path`] makes a path of it, which takes longer.
        place: usize,
        length: u64,
    },
}

impl Found<'_> {
    pub(super) fn kind(&self) -> ObjectKind {
        match self {
            Self::Tree(_) => ObjectKind::Tree,
            Self::Link(_) | Self::File { .. } => ObjectKind::Blob,
        }
    }
}

impl Places {
    pub(super) fn of(records: &Records) -> Self {
        let body = &records.body[..];
        let mut starts = Vec::new();
        let mut pending = vec![records.root];
        while let Some(start) = pending.pop() {
            starts.push(start);
            let entries = Record::at(body, start).into_iter().flat_map(|record| record.entries());
            pending.extend(entries.filter_map(|(_, entry)| match entry.node {
                Node::Directory(start) => Some(start),
                _ => None,
            }));
        }
        starts.sort_unstable();
        let nodes = Record::at(body, records.root).map_or(0, |record| record.head.nodes);
        // No object takes fewer bytes. A wrong number must not make a table of any size.
        let at_most = usize::try_from(nodes).unwrap_or(usize::MAX).min(body.len() / 64 + 1);
        let mut table = HashTable::with_capacity(at_most);
        let hasher = RandomState::default();
        let mut insert = |id: ObjectId, place| {
            let hash_of = |place: &Place| id_at(body, *place).map_or(0, |id| hasher.hash_one(id));
            let is_it = |place: &Place| id_at(body, *place) == Some(id);
            let _ = table.entry(hasher.hash_one(id), is_it, hash_of).or_insert(place);
        };
        for start in &starts {
            let Some(record) = Record::at(body, *start) else { continue };
            if let Some(tree) = record.head.tree {
                insert(tree, Place::Tree(*start));
            }
            for (place, entry) in record.entries() {
                if let Node::File { file, .. } | Node::Link { file, .. } = entry.node {
                    insert(file.id, Place::Leaf(place.start));
                }
            }
        }
        Self { table, hasher, records: starts }
    }

    /// Finds an object.
    pub(super) fn find<'a>(&self, body: &'a [u8], id: ObjectId) -> Option<Found<'a>> {
        let is_it = |place: &Place| id_at(body, *place) == Some(id);
        let place = match *self.table.find(self.hasher.hash_one(id), is_it)? {
            Place::Tree(start) => return Some(Found::Tree(Record::at(body, start)?)),
            Place::Leaf(place) => place,
        };
        match leaf_at(body, place)?.node {
            Node::Link { target, .. } => Some(Found::Link(target)),
            Node::File { file, .. } => Some(Found::File { place, length: file.length }),
            Node::Directory(_) | Node::Nested(_) => None,
        }
    }

    /// Returns the path below the scanned directory of the file at `place`.
    pub(super) fn path(&self, body: &[u8], place: usize) -> Option<PathBuf> {
        let before = self.records.partition_point(|start| *start < place);
        let record = Record::at(body, *self.records.get(before.checked_sub(1)?)?)?;
        let directory = PathBuf::from(names::from_bytes(record.head.path));
        Some(directory.join(names::from_bytes(leaf_at(body, place)?.name)))
    }
}

/// Decodes the entry of a file or link at `place`.
fn leaf_at(body: &[u8], place: usize) -> Option<Entry<'_>> {
    Entry::at(body, place, place).map(|(_, entry)| entry)
}

/// Returns the id of the object at `place`.
fn id_at(body: &[u8], place: Place) -> Option<ObjectId> {
    match place {
        Place::Tree(start) => Record::at(body, start)?.head.tree,
        Place::Leaf(place) => match leaf_at(body, place)?.node {
            Node::File { file, .. } | Node::Link { file, .. } => Some(file.id),
            Node::Directory(_) | Node::Nested(_) => None,
        },
    }
}
