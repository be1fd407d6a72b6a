//! Prepares arbitrary bytes as a JavaScript or TypeScript module. Preparing must succeed, or fail
//! with a guest error or a breached limit. It must not abort the process or hang.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use manifold_runtime_api::{
    Call, Code, EntryMode, Error, ErrorKind, Host, Limits, Object, ObjectId, ObjectRef, Result,
    Runtime, Tree, TreeEntry,
};
use manifold_runtime_v8::V8Runtime;

static EXECUTOR: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("threads can be started")
});
static RUNTIME: LazyLock<V8Runtime> = LazyLock::new(|| V8Runtime::new().expect("V8 starts"));

/// A host that has a tree with one file, and supports reading only.
struct OneFile {
    file: Object,
    tree: Tree,
}

#[async_trait]
impl Host for OneFile {
    async fn tree(&self, id: ObjectId) -> Result<Arc<Tree>> {
        if id == self.tree.id() { Ok(Arc::new(self.tree.clone())) } else { Err(Error::missing(id)) }
    }

    async fn get(&self, id: ObjectId) -> Result<Bytes> {
        if id == self.file.id() { Ok(self.file.content.clone()) } else { Err(Error::missing(id)) }
    }

    async fn put_blob(&self, _: Bytes) -> Result<ObjectId> {
        Err(Error::store("this host is read-only"))
    }

    async fn put_tree(&self, _: Tree) -> Result<ObjectId> {
        Err(Error::store("this host is read-only"))
    }

    async fn run(&self, _: Call) -> Result<ObjectRef> {
        Err(Error::store("this host runs nothing"))
    }

    async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<ObjectRef>> {
        calls.iter().map(|_| Err(Error::store("this host runs nothing"))).collect()
    }

    fn log(&self, _: &str) {}
}

fuzz_target!(|input: &[u8]| {
    let Some((language, text)) = input.split_first() else { return };
    let name = if *language == b'j' { "main.js" } else { "main.ts" };
    let file = Object::blob(text.to_vec());
    let Ok(tree) = Tree::new([TreeEntry::new(name, EntryMode::Blob, file.id())]) else { return };
    let module = ObjectRef::tree(tree.id());
    let mut limits = Limits::default();
    limits.compute_time = Duration::from_secs(20);
    let prepared =
        EXECUTOR.block_on(RUNTIME.prepare(&Code::Module(module), &limits, &OneFile { file, tree }));
    if let Err(error) = prepared {
        assert!(matches!(error.kind(), ErrorKind::Guest | ErrorKind::Limit), "{error:?}");
    }
});
