//! Invariant 6: objects are durable before the memo entry that names them, and a pin is set before
//! the last reference is dropped.
//!
//! `cli/tests/crash.rs` tests the same by killing a process.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use manifold_dispatcher::api::{
    EntryMode, Object, ObjectId, ObjectKind, ObjectRef, Result, Runtime, Tree, TreeEntry,
};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Dispatcher, Invocation, MemoryStore, ObjectSource, Pin, Store};
use manifold_standard_guests::native_guests;
use manifold_testing::{VECTORS, Vector, store_fixture};

/// A store that asserts at every memo entry and pin that the objects it names were written before.
#[derive(Default)]
struct Ordered {
    inner: MemoryStore,
    written: Mutex<HashMap<ObjectId, Object>>,
    entries: Mutex<HashSet<ObjectId>>,
}

impl Ordered {
    /// Panics unless every object that `root` reaches was written to this store.
    fn assert_complete(&self, root: ObjectId) {
        let written = self.written.lock().unwrap();
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            let object =
                written.get(&id).unwrap_or_else(|| panic!("{id} is named before it is written"));
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

    fn look_up(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        self.inner.look_up(request)
    }

    fn record(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        assert!(self.inner.kind(outcome.id)?.is_some(), "an entry without its object");
        self.entries.lock().unwrap().insert(request);
        self.inner.record(request, outcome)
    }

    fn pin(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.assert_complete(outcome.id);
        assert!(self.entries.lock().unwrap().contains(&request), "a pin without its entry");
        self.inner.pin(request, outcome)
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.inner.unpin(request)
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        self.inner.pinned(request)
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        self.inner.pins()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folds_write_objects_before_entries_and_are_pinned_when_they_return() {
    for name in VECTORS {
        let vector = Vector::read(name);
        let runtime: Arc<dyn Runtime> =
            Arc::new(native_guests(NativeRuntime::builder("native", "1")).build().unwrap());
        let store = Arc::new(Ordered::default());
        let builder = Dispatcher::builder().store(Arc::clone(&store));
        let dispatcher = builder.runtime_as(vector.host_ref.0, runtime).build().unwrap();
        vector.store_images(&dispatcher);
        store_fixture(&dispatcher, name);
        let invocation = Invocation::new(vector.images["fold-wasm"].0)
            .args(vector.args(&dispatcher))
            .std(vector.std.0);
        let completion = dispatcher.run(invocation.salt(vector.salt.clone())).await.unwrap();
        let pins = dispatcher.pins().unwrap();
        assert_eq!(pins, [Pin { request: completion.request, outcome: completion.outcome }]);
        store.assert_complete(completion.request);
        assert!(dispatcher.unpin(completion.request).unwrap());
        assert_eq!(dispatcher.pins().unwrap(), []);
    }
}

/// Objects that a pinned outcome reaches and that are only in a source are copied to the store,
/// because the source may not exist any more when the pin is used.
#[tokio::test]
async fn objects_that_a_pinned_outcome_reaches_are_copied_from_the_sources() {
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
            guest.put_tree([guest.required("in").await?]).await.map(ObjectRef::tree)
        })
        .build()
        .unwrap();
    let store = Arc::new(Ordered::default());
    let fixture = manifold_testing::Fixture::with(runtime, |builder| {
        builder.store(Arc::clone(&store)).source(Arc::clone(&source))
    });
    let args = fixture.dispatcher.put_tree([argument("in", ObjectRef::tree(inner))]).unwrap();
    let invocation = Invocation::new(fixture.image("wrap")).args(args);
    fixture.dispatcher.run(invocation.clone().unpinned()).await.unwrap();
    assert_eq!(store.inner.kind(leaf).unwrap(), None, "the call sets no pin");
    assert_eq!(fixture.dispatcher.pins().unwrap(), []);
    let remembered = fixture.dispatcher.run(invocation).await.unwrap();
    assert!(remembered.from_memo);
    assert_eq!(store.inner.kind(leaf).unwrap(), Some(ObjectKind::Blob));
    assert_eq!(fixture.dispatcher.pins().unwrap().len(), 1);
}
