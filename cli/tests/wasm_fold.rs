//! The wasm guests against the golden vectors, and what a fold does not run again.

#[path = "../../dispatcher/tests/fixture/mod.rs"]
mod fixture;

use std::collections::BTreeSet;
use std::sync::Arc;

use fixture::{Journal, VECTORS, Vector, store_chain, store_fixture};
use manifold::guests;
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{EntryMode, ObjectId, Outcome, Runtime, TreeEntry};
use manifold_runtime_wasm::WasmRuntime;

struct Wasm {
    dispatcher: Dispatcher,
    journal: Arc<Journal>,
    std: ObjectId,
}

impl Wasm {
    fn new() -> Self {
        Self::with(WasmRuntime::new().unwrap(), None)
    }

    /// The wasm runtime, and a native one that answers as `host_ref`.
    fn with(runtime: WasmRuntime, host_ref: Option<ObjectId>) -> Self {
        let journal = Arc::new(Journal::default());
        let wasm = runtime.host_image().id();
        let mut builder =
            Dispatcher::builder().runtime(Arc::new(runtime)).observer(Arc::clone(&journal) as _);
        if let Some(host) = host_ref {
            let native = NativeRuntime::builder("native", "1").fold_guests().build().unwrap();
            builder = builder.runtime_as(host, Arc::new(native));
        }
        let dispatcher = builder.build().unwrap();
        let std =
            guests::install(&dispatcher, guests::Hosts { wasm: Some(wasm), ..Default::default() })
                .expect("the set-up has built the guests: cargo xtask setup");
        Self { dispatcher, journal, std }
    }

    fn image(&self, name: &str) -> ObjectId {
        self.dispatcher.read_tree(self.std).unwrap().get(name).unwrap().id
    }

    fn invocation(&self, root: Outcome, visitors: &[(&str, &str)]) -> Invocation {
        let mut args = vec![argument("in", root)];
        for (role, visitor) in visitors {
            let reference = self.dispatcher.put_blob((*visitor).to_owned()).unwrap();
            args.push(argument(role, Outcome::blob(reference)));
        }
        Invocation::new(self.image("fold"), self.dispatcher.put_tree(args).unwrap()).std(self.std)
    }

    async fn fold(&self, root: Outcome, visitors: &[(&str, &str)]) -> String {
        let completion = self.dispatcher.run(self.invocation(root, visitors)).await.unwrap();
        String::from_utf8(self.dispatcher.read(completion.outcome.id).unwrap().content.to_vec())
            .unwrap()
    }

    fn runs(&self) -> usize {
        self.journal.started.lock().unwrap().len()
    }
}

const FILE_COUNT: &[(&str, &str)] = &[("post", "/cas/std/file-count")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_distinct_runs_of_the_vectors() {
    for name in VECTORS {
        let (wasm, vector) = (Wasm::new(), Vector::read(name));
        let root = Outcome::tree(store_fixture(&wasm.dispatcher, name));
        assert_eq!(wasm.fold(root, FILE_COUNT).await, vector.result_text, "{name}");
        assert_eq!(wasm.runs(), vector.distinct_runs, "{name}");

        let before = wasm.dispatcher.stats();
        wasm.fold(root, FILE_COUNT).await;
        let done = wasm.dispatcher.stats() - before;
        assert_eq!(
            (done.runs, done.hits, done.joins),
            (0, 1, 0),
            "{name}: repeating a fold is one look-up"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_vectors_visitor_the_wasm_fold_issues_exactly_the_vectors_requests() {
    for name in VECTORS {
        let vector = Vector::read(name);
        let wasm = Wasm::with(WasmRuntime::new().unwrap(), Some(vector.host_ref.0));
        vector.store_images(&wasm.dispatcher);
        assert_eq!(store_fixture(&wasm.dispatcher, name), vector.root.0);
        let invocation = Invocation::new(wasm.image("fold"), vector.args(&wasm.dispatcher))
            .salt(vector.salt.clone())
            .std(vector.std.0);
        let completion = wasm.dispatcher.run(invocation).await.unwrap();
        assert_eq!(completion.outcome, Outcome::blob(vector.result.1.0));

        let visitor = vector.images["file-count"].0.to_string();
        let started = wasm.journal.started.lock().unwrap();
        let issued: BTreeSet<_> = started
            .iter()
            .filter(|(_, image)| *image == visitor)
            .map(|(request, _)| *request)
            .collect();
        let posts: BTreeSet<_> =
            vector.runs.iter().filter(|run| run.role == "post").map(|run| run.request.0).collect();
        assert_eq!(issued, posts, "{name}");
        assert_eq!(started.len(), vector.distinct_runs, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_visitors() {
    let wasm = Wasm::new();
    let root = Outcome::tree(store_fixture(&wasm.dispatcher, "bench"));
    assert_eq!(wasm.fold(root, &[("post", "/cas/std/line-count")]).await, "120\n");
    // `tree/f1.txt\n` has 12 bytes, and every level adds 3: 3 files at the top, 9, 27 and 81 below.
    let bytes = 3 * 12 + 9 * 15 + 27 * 18 + 81 * 21;
    assert_eq!(wasm.fold(root, &[("post", "/cas/std/total-size")]).await, format!("{bytes}\n"));

    let dirs_only = [("post", "/cas/std/file-count"), ("pre", "/cas/std/dirs-only")];
    assert_eq!(wasm.fold(root, &dirs_only).await, "0\n", "directories hold no files then");
    let empty = Outcome::blob(wasm.dispatcher.put_blob("").unwrap());
    for (visitor, expected) in [("file-count", "1\n"), ("line-count", "0\n"), ("total-size", "0\n")]
    {
        let reference = format!("/cas/std/{visitor}");
        assert_eq!(
            wasm.fold(empty, &[("post", &reference)]).await,
            expected,
            "{visitor} of an empty blob"
        );
    }
    assert_eq!(wasm.fold(empty, &dirs_only).await, "1\n");
}

/// A tree of `width` to the power of `levels` files.
fn store_wide(wasm: &Wasm, path: &str, width: usize, levels: usize) -> ObjectId {
    let entries = (0..width).map(|number| {
        let path = format!("{path}/{number}");
        if levels == 0 {
            return TreeEntry::new(
                format!("f{number}"),
                EntryMode::Blob,
                wasm.dispatcher.put_blob(path).unwrap(),
            );
        }
        TreeEntry::new(
            format!("d{number}"),
            EntryMode::Tree,
            store_wide(wasm, &path, width, levels - 1),
        )
    });
    let entries: Vec<_> = entries.collect();
    wasm.dispatcher.put_tree(entries).unwrap()
}

/// The tree `root` with the blob at `path` replaced.
fn replace(wasm: &Wasm, root: ObjectId, path: &[&str], content: &str) -> ObjectId {
    let mut entries = wasm.dispatcher.read_tree(root).unwrap().into_entries();
    let entry = entries.iter_mut().find(|entry| entry.name == path[0]).unwrap();
    entry.id = match path {
        [_] => wasm.dispatcher.put_blob(content.to_owned()).unwrap(),
        [_, rest @ ..] => replace(wasm, entry.id, rest, content),
        [] => unreachable!(),
    };
    wasm.dispatcher.put_tree(entries).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_changed_file_runs_again_only_the_frames_on_its_path() {
    let wasm = Wasm::new();
    let root = store_wide(&wasm, "", 10, 3);
    assert_eq!(wasm.fold(Outcome::tree(root), FILE_COUNT).await, "10000\n");
    assert_eq!(wasm.runs(), 10_000 + 2 * 1111);

    let changed = replace(&wasm, root, &["d3", "d1", "d4", "f1"], "changed");
    let before = wasm.runs();
    assert_eq!(wasm.fold(Outcome::tree(changed), FILE_COUNT).await, "10000\n");
    // The file's visitor, and fold and visitor for each of the four directories above it.
    assert_eq!(wasm.runs() - before, 1 + 2 * 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_directory_of_100_000_files() {
    const FILES: usize = 100_000;
    let wasm = Wasm::new();
    let files = (0..FILES).map(|number| {
        let blob = wasm.dispatcher.put_blob((number % 1000).to_string()).unwrap();
        TreeEntry::new(format!("file number {number}"), EntryMode::Blob, blob)
    });
    let root = wasm.dispatcher.put_tree(files).unwrap();
    assert_eq!(wasm.fold(Outcome::tree(root), FILE_COUNT).await, format!("{FILES}\n"));
    assert_eq!(wasm.runs(), 1000 + 2, "equal files are one request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_one_changes_nothing() {
    let wasm = Wasm::with(WasmRuntime::builder().pool_size(1).build().unwrap(), None);
    let usual = Wasm::new();
    for name in VECTORS {
        let root = Outcome::tree(store_fixture(&wasm.dispatcher, name));
        store_fixture(&usual.dispatcher, name);
        let tight = wasm.dispatcher.run(wasm.invocation(root, FILE_COUNT)).await.unwrap();
        let roomy = usual.dispatcher.run(usual.invocation(root, FILE_COUNT)).await.unwrap();
        assert_eq!((tight.request, tight.outcome), (roomy.request, roomy.outcome), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_visitor_is_explained_through_every_frame() {
    let wasm = Wasm::new();
    let root = Outcome::tree(store_chain(&wasm.dispatcher, 30));
    let invocation = wasm.invocation(root, &[("post", "/cas/std/no-such-visitor")]);
    let error = wasm.dispatcher.run(invocation).await.unwrap_err();
    assert!(
        error.root_cause().to_string().contains("there are: dirs-only, file-count"),
        "{error:?}"
    );
    assert_eq!(error.chain().filter(|error| error.frame().is_some()).count(), 30, "{error:?}");

    let invocation = wasm.invocation(root, &[]);
    let error = wasm.dispatcher.run(invocation).await.unwrap_err();
    assert_eq!(error.to_string(), "the argument `post` is missing");
    let blob = Outcome::blob(wasm.dispatcher.put_blob("").unwrap());
    let not_a_tree = [("post", "/cas/std/file-count"), ("pre", "/cas/std/file-count")];
    let error = wasm.dispatcher.run(wasm.invocation(blob, &not_a_tree)).await.unwrap_err();
    assert!(error.root_cause().to_string().contains("has to answer a tree"), "{error:?}");
}
