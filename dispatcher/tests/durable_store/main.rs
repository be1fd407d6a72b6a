//! The durable store: persistence, sharing between openers, detection of damage, and collection.

mod collection;
mod corruption;
mod damage;
mod persistence;
mod sharing;
mod timestamps;

use std::path::Path;
use std::time::Duration;

use manifold_dispatcher::api::{EntryMode, Object, ObjectId, ObjectKind, Tree, TreeEntry};
use manifold_dispatcher::{DurableStore, Keep};
use redb::ReadableTable;

fn blob(text: &str) -> Object {
    Object::blob(text.to_owned())
}

fn request(name: &str) -> ObjectId {
    ObjectId::of(ObjectKind::Blob, name.as_bytes())
}

fn tree(entries: &[(&str, EntryMode, ObjectId)]) -> Object {
    Tree::new(entries.iter().map(|(name, mode, id)| TreeEntry::new(*name, *mode, *id)))
        .unwrap()
        .to_object()
}

/// Opens a store that commits only when it is flushed, so that tests control the commits.
fn lazy(directory: &Path) -> DurableStore {
    DurableStore::options().group_time(Duration::MAX).open(directory).unwrap()
}

/// Returns the options of a collection that keeps only what pins reach.
fn nothing_but_pins() -> Keep {
    let mut keep = Keep::default();
    keep.used_within = Duration::ZERO;
    keep.written_within = Duration::ZERO;
    keep
}

/// Changes the value of `key` in `table` with redb alone, without the store's checks.
fn tamper(directory: &Path, table: &str, key: ObjectId, change: impl FnOnce(&mut Vec<u8>)) {
    let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new(table);
    let database = redb::Database::create(directory.join("manifold.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(table).unwrap();
        let mut value = table.get(key.as_bytes()).unwrap().unwrap().value().to_vec();
        change(&mut value);
        table.insert(key.as_bytes(), &*value).unwrap();
    }
    transaction.commit().unwrap();
}
