//! Invariant 6: objects are durable before the memo entry that names them; a pin is set before the last reference is let go.
//!
//! `cli/tests/crash.rs` kills a process to the same end.

mod fixture;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use fixture::{VECTORS, Vector, store_fixture};
use manifold_dispatcher::api::{
    EntryMode, Object, ObjectId, ObjectKind, Outcome, Result, Runtime, Tree, TreeEntry,
};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Dispatcher, Invocation, MemoryStore, ObjectSource, Pin, Store};

/// A store that checks at every entry that what it names came before.
#[derive(Default)]
struct Ordered {
    inner: MemoryStore,
    written: Mutex<HashMap<ObjectId, Object>>,
    entries: Mutex<HashSet<ObjectId>>,
}

impl Ordered {
    /// Fails unless all that `root` reaches was written to this very store.
    fn has_all_of(&self, root: ObjectId) {
        let written = self.written.lock().unwrap();
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            let object =
                written.get(&id).unwrap_or_else(|| panic!("{id} comes after what names it"));
            if object.kind == ObjectKind::Tree {
                let tree = Tree::decode(&object.content).unwrap();
                open.extend(
                    tree.entries()
                        .iter()
                        .filter(|entry| entry.mode != EntryMode::Commit)
                        .map(|entry| entry.id),
                );
            }
        }
    }
}

impl ObjectSource for Ordered {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        self.inner.read(id)
    }
}

impl Store for Ordered {
    fn write(&self, object: Object) -> Result<ObjectId> {
        let id = self.inner.write(object.clone())?;
        self.written.lock().unwrap().insert(id, object);
        Ok(id)
    }

    fn recall(&self, request: ObjectId) -> Result<Option<Outcome>> {
        self.inner.recall(request)
    }

    fn remember(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        assert!(self.inner.kind(outcome.id)?.is_some(), "an entry without its object");
        self.entries.lock().unwrap().insert(request);
        self.inner.remember(request, outcome)
    }

    fn pin(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.has_all_of(outcome.id);
        assert!(self.entries.lock().unwrap().contains(&request), "a pin without its entry");
        self.inner.pin(request, outcome)
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.inner.unpin(request)
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<Outcome>> {
        self.inner.pinned(request)
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        self.inner.pins()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_folds_write_in_order_and_are_pinned_when_they_return() {
    for name in VECTORS {
        let vector = Vector::read(name);
        let runtime: Arc<dyn Runtime> =
            Arc::new(NativeRuntime::builder("native", "1").fold_guests().build().unwrap());
        let store = Arc::new(Ordered::default());
        let builder = Dispatcher::builder().store(Arc::clone(&store) as _);
        let dispatcher = builder.runtime_as(vector.host_ref.0, runtime).build().unwrap();
        vector.store_images(&dispatcher);
        store_fixture(&dispatcher, name);
        let invocation = Invocation::new(vector.images["fold-wasm"].0, vector.args(&dispatcher))
            .std(vector.std.0);
        let completion = dispatcher.run(invocation.salt(vector.salt.clone())).await.unwrap();
        let pins = dispatcher.pins().unwrap();
        assert_eq!(pins, [Pin { request: completion.request, outcome: completion.outcome }]);
        store.has_all_of(completion.request);
        assert!(dispatcher.unpin(completion.request).unwrap());
        assert_eq!(dispatcher.pins().unwrap(), []);
    }
}

/// An outcome that names what is only in a source is copied: the source may be gone when the pin is looked at.
#[tokio::test]
async fn what_a_pinned_outcome_reaches_is_copied_from_the_sources() {
    let source = Arc::new(MemoryStore::new());
    let leaf = source.write(Object::blob("in the source")).unwrap();
    let submodule = TreeEntry::new(
        "sub",
        EntryMode::Commit,
        ObjectId::of(ObjectKind::Blob, b"a commit elsewhere"),
    );
    let inner =
        Tree::new([TreeEntry::new("leaf", EntryMode::Executable, leaf), submodule]).unwrap();
    let inner = source.write(inner.to_object()).unwrap();
    let runtime = NativeRuntime::builder("native", "1")
        .guest("wrap", |guest| async move {
            guest.put_tree([guest.required("in").await?]).await.map(Outcome::tree)
        })
        .build()
        .unwrap();
    let store = Arc::new(Ordered::default());
    let fixture = fixture::Fixture::with(runtime, |builder| {
        builder.store(Arc::clone(&store) as _).source(Arc::clone(&source) as _)
    });
    let args = fixture.dispatcher.put_tree([argument("in", Outcome::tree(inner))]).unwrap();
    let invocation = Invocation::new(fixture.image("wrap"), args);
    fixture.dispatcher.run(invocation.clone().unpinned()).await.unwrap();
    assert_eq!(store.inner.kind(leaf).unwrap(), None, "nobody asked for a pin");
    assert_eq!(fixture.dispatcher.pins().unwrap(), []);
    let remembered = fixture.dispatcher.run(invocation).await.unwrap();
    assert!(remembered.remembered);
    assert_eq!(store.inner.kind(leaf).unwrap(), Some(ObjectKind::Blob));
    assert_eq!(fixture.dispatcher.pins().unwrap().len(), 1);
}
