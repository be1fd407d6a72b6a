//! The durable store: persistence, sharing between openers, detection of damage, and collection.

mod collection;
mod corruption;
mod damage;
mod oracle;
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

/// Changes those values of `table` for which `change` returns true, with redb alone, without the
/// store's checks. The values with the highest keys are the first.
fn tamper(directory: &Path, table: &str, mut change: impl FnMut(&[u8], &mut Vec<u8>) -> bool) {
    let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new(table);
    let database = redb::Database::create(directory.join("manifold.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(table).unwrap();
        let values: Vec<_> = table
            .iter()
            .unwrap()
            .rev()
            .map(|item| item.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
            .collect::<Result<_, _>>()
            .unwrap();
        let changed: Vec<_> = values
            .into_iter()
            .filter_map(|(key, mut value)| change(&key, &mut value).then_some((key, value)))
            .collect();
        assert!(!changed.is_empty(), "nothing is changed");
        for (key, value) in changed {
            table.insert(&*key, &*value).unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// Flips a bit of the object or memo entry whose value begins with `id`, `offset` bytes after the
/// id.
fn flip_in_chunk(directory: &Path, id: ObjectId, offset: usize) {
    let begin = [&[20], id.as_bytes()].concat();
    tamper(directory, "chunks", |_, chunk| {
        let place = chunk.windows(begin.len()).position(|bytes| bytes == begin);
        place.map(|place| chunk[place + begin.len() + offset] ^= 1).is_some()
    });
}

/// Passes the stamps of the index records for `id` to `change`, in minutes since 1970, the newest
/// first.
fn change_stamp(directory: &Path, id: ObjectId, mut change: impl FnMut(&mut [u8; 4])) {
    tamper(directory, "pages", |_, page| {
        let (records, _) = page.as_chunks_mut::<18>();
        let record = records.iter_mut().find(|record| record[..8] == id.as_bytes()[..8]);
        let stamp = record.and_then(|record| record[8..].first_chunk_mut());
        stamp.map(&mut change).is_some()
    });
}
