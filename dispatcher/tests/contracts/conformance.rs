//! The stores, sources and layers of this crate pass the public suites.
#![cfg(all(feature = "directory", feature = "durable", feature = "git"))]

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use manifold_conformance::{SourceFixture, StoreFixture};
use manifold_dispatcher::api::{EntryMode, Object, ObjectId, Tree, TreeEntry};
use manifold_dispatcher::layers::{Faults, Faulty, Measured, Overlaid, Verified};
use manifold_dispatcher::{
    DirectoryObjects, DurableStore, GitObjects, Keep, MemoryStore, ObjectSource, Store,
};
use tempfile::TempDir;

/// A store in memory, below a layer.
struct InMemory(fn(MemoryStore) -> Arc<dyn Store>);

impl StoreFixture for InMemory {
    fn store(&self) -> Arc<dyn Store> {
        (self.0)(MemoryStore::new())
    }

    fn reopen(&self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        Some(store)
    }

    fn collect(&self, _: &Arc<dyn Store>) -> bool {
        true
    }
}

mod memory_store {
    manifold_conformance::store_tests!(super::InMemory(|store| std::sync::Arc::new(store)));
}

mod verified {
    use super::Verified;
    manifold_conformance::store_tests!(super::InMemory(|store| {
        std::sync::Arc::new(Verified::new(store))
    }));
}

mod measured {
    use super::Measured;
    manifold_conformance::store_tests!(super::InMemory(|store| {
        std::sync::Arc::new(Measured::new(store))
    }));
}

mod overlaid {
    use super::{MemoryStore, Overlaid};
    manifold_conformance::store_tests!(super::InMemory(|store| {
        std::sync::Arc::new(Overlaid::new(store, MemoryStore::new()))
    }));
}

mod faulty_without_faults {
    use super::{Faults, Faulty};
    manifold_conformance::store_tests!(super::InMemory(|store| {
        std::sync::Arc::new(Faulty::new(store, Faults::seeded(0)))
    }));
}

/// Durable stores, each in a directory of its own.
#[derive(Default)]
struct Durable(Mutex<Vec<(Arc<DurableStore>, TempDir)>>);

impl Durable {
    fn open(directory: TempDir) -> (Arc<DurableStore>, TempDir) {
        (Arc::new(DurableStore::open(directory.path()).unwrap()), directory)
    }
}

impl StoreFixture for Durable {
    fn store(&self) -> Arc<dyn Store> {
        let opened = Self::open(tempfile::tempdir().unwrap());
        let store = Arc::clone(&opened.0);
        self.0.lock().unwrap().push(opened);
        Arc::new(store)
    }

    fn reopen(&self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        // A check has one store at a time.
        drop(store);
        let mut stores = self.0.lock().unwrap();
        let (store, directory) = stores.pop()?;
        drop(store);
        let opened = Self::open(directory);
        let store = Arc::clone(&opened.0);
        stores.push(opened);
        Some(Arc::new(store))
    }

    fn collect(&self, _: &Arc<dyn Store>) -> bool {
        let stores = self.0.lock().unwrap();
        let Some((store, _)) = stores.last() else { return false };
        store.flush().unwrap();
        let keep = Keep::default().used_within(Duration::ZERO).written_within(Duration::ZERO);
        store.collect(&keep, |_| ()).unwrap();
        true
    }
}

mod durable_store {
    manifold_conformance::store_tests!(super::Durable::default());
}

/// The objects of a directory with some files.
fn objects() -> Vec<Object> {
    let files = [("empty", vec![]), ("small", b"hello\n".to_vec()), ("large", vec![7; 1 << 20])];
    let blobs: Vec<_> = files.iter().map(|(_, content)| Object::blob(content.clone())).collect();
    let entry = |index: usize| TreeEntry::new(files[index].0, EntryMode::Blob, blobs[index].id());
    let below = Tree::new([entry(1)]).unwrap();
    let root = Tree::new([
        entry(0),
        entry(1),
        entry(2),
        TreeEntry::new("below", EntryMode::Tree, below.id()),
    ]);
    let trees = [below.to_object(), root.unwrap().to_object()];
    blobs.iter().cloned().chain(trees).collect()
}

/// Writes the files of [`objects`] below `directory`.
fn write_files(directory: &Path) {
    std::fs::create_dir_all(directory.join("below")).unwrap();
    for (path, content) in [("empty", &b""[..]), ("small", b"hello\n"), ("below/small", b"hello\n")]
    {
        std::fs::write(directory.join(path), content).unwrap();
    }
    std::fs::write(directory.join("large"), vec![7; 1 << 20]).unwrap();
}

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_files(directory.path());
        Self(directory)
    }
}

impl SourceFixture for Directory {
    fn source(&self) -> Arc<dyn ObjectSource> {
        Arc::new(DirectoryObjects::scan(self.0.path()).unwrap())
    }

    fn objects(&self) -> Vec<Object> {
        objects()
    }
}

mod directory {
    manifold_conformance::source_tests!(super::Directory::new());
}

struct Repository {
    directory: TempDir,
    commit: ObjectId,
}

impl Repository {
    fn new(packed: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_files(directory.path());
        let git = |arguments: &[&str]| {
            let output = Command::new("git")
                .args(["-c", "user.name=n", "-c", "user.email=e@x"])
                .args(arguments)
                .current_dir(directory.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        git(&["init", "--quiet"]);
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "m"]);
        if packed {
            git(&["repack", "-adq"]);
        }
        let commit = git(&["rev-parse", "HEAD"]).trim().parse().unwrap();
        Self { directory, commit }
    }
}

impl SourceFixture for Repository {
    fn source(&self) -> Arc<dyn ObjectSource> {
        Arc::new(GitObjects::open(self.directory.path()).unwrap())
    }

    fn objects(&self) -> Vec<Object> {
        objects()
    }

    fn object_of_another_kind(&self) -> Option<ObjectId> {
        Some(self.commit)
    }
}

mod loose_objects_of_git {
    manifold_conformance::source_tests!(super::Repository::new(false));
}

mod packed_objects_of_git {
    manifold_conformance::source_tests!(super::Repository::new(true));
}
