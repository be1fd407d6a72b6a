//! The wasm guests compared with the golden vectors, and the frames that a repeated fold does not
//! run again.

use std::collections::BTreeSet;
use std::sync::Arc;

use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{EntryMode, ObjectId, ObjectRef, Runtime, TreeEntry};
use manifold_runtime_wasm::WasmRuntime;
use manifold_standard_guests as guests;
use manifold_standard_guests::native_guests;
use manifold_testing::{Journal, VECTORS, Vector, store_chain, store_fixture};

struct Wasm {
    dispatcher: Dispatcher,
    journal: Arc<Journal>,
    std: ObjectId,
}

impl Wasm {
    fn new() -> Self {
        Self::with(WasmRuntime::new().unwrap(), None)
    }

    /// Creates a dispatcher with the wasm runtime, and a native one registered as `host_ref`.
    fn with(runtime: WasmRuntime, host_ref: Option<ObjectId>) -> Self {
        let journal = Arc::new(Journal::default());
        let wasm = runtime.host_image().id();
        let mut builder = Dispatcher::builder().runtime(runtime).observer(Arc::clone(&journal));
        if let Some(host) = host_ref {
            let native = native_guests(NativeRuntime::builder("native", "1")).build().unwrap();
            builder = builder.runtime_as(host, Arc::new(native));
        }
        let dispatcher = builder.build().unwrap();
        let std = guests::install_for(&dispatcher, guests::Hosts::default().wasm(wasm))
            .expect("the guests are built by `cargo xtask setup`");
        Self { dispatcher, journal, std }
    }

    fn image(&self, name: &str) -> ObjectId {
        self.dispatcher.read_tree(self.std).unwrap().get(name).unwrap().id
    }

    fn invocation(&self, root: ObjectRef, visitors: &[(&str, &str)]) -> Invocation {
        let mut args = vec![argument("in", root)];
        for (role, visitor) in visitors {
            let reference = self.dispatcher.put_blob((*visitor).to_owned()).unwrap();
            args.push(argument(role, ObjectRef::blob(reference)));
        }
        Invocation::new(self.image("fold"))
            .args(self.dispatcher.put_tree(args).unwrap())
            .std(self.std)
    }

    async fn fold(&self, root: ObjectRef, visitors: &[(&str, &str)]) -> String {
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
async fn counts_and_distinct_runs_match_the_vectors() {
    for name in VECTORS {
        let (wasm, vector) = (Wasm::new(), Vector::read(name));
        let root = ObjectRef::tree(store_fixture(&wasm.dispatcher, name));
        assert_eq!(wasm.fold(root, FILE_COUNT).await, vector.result_text, "{name}");
        assert_eq!(wasm.runs(), vector.distinct_runs, "{name}");

        let before = wasm.dispatcher.stats();
        wasm.fold(root, FILE_COUNT).await;
        let done = wasm.dispatcher.stats() - before;
        assert_eq!(
            (done.runs, done.hits, done.joins),
            (0, 1, 0),
            "{name}: a repeated fold is one hit"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wasm_fold_issues_the_visitor_requests_of_the_vectors() {
    for name in VECTORS {
        let vector = Vector::read(name);
        let wasm = Wasm::with(WasmRuntime::new().unwrap(), Some(vector.host_ref.0));
        vector.store_images(&wasm.dispatcher);
        assert_eq!(store_fixture(&wasm.dispatcher, name), vector.root.0);
        let invocation = Invocation::new(wasm.image("fold"))
            .args(vector.args(&wasm.dispatcher))
            .salt(vector.salt.clone())
            .std(vector.std.0);
        let completion = wasm.dispatcher.run(invocation).await.unwrap();
        assert_eq!(completion.outcome, ObjectRef::blob(vector.result.1.0));

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
async fn other_visitors_return_the_expected_results() {
    let wasm = Wasm::new();
    let root = ObjectRef::tree(store_fixture(&wasm.dispatcher, "bench"));
    assert_eq!(wasm.fold(root, &[("post", "/cas/std/line-count")]).await, "120\n");
    // `tree/f1.txt\n` has 12 bytes, and every level adds 3. There are 3 files at the top, and 9, 27
    // and 81 on the levels below.
    let bytes = 3 * 12 + 9 * 15 + 27 * 18 + 81 * 21;
    assert_eq!(wasm.fold(root, &[("post", "/cas/std/total-size")]).await, format!("{bytes}\n"));

    let dirs_only = [("post", "/cas/std/file-count"), ("pre", "/cas/std/dirs-only")];
    assert_eq!(
        wasm.fold(root, &dirs_only).await,
        "0\n",
        "a fold over directories alone counts no files"
    );
    let empty = ObjectRef::blob(wasm.dispatcher.put_blob("").unwrap());
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

/// Puts a tree of `levels` levels of directories over one level of files, each `width` wide.
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

/// Puts the tree `root` with the blob at `path` replaced.
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
async fn a_changed_file_reruns_only_the_frames_on_its_path() {
    let wasm = Wasm::new();
    let root = store_wide(&wasm, "", 10, 3);
    assert_eq!(wasm.fold(ObjectRef::tree(root), FILE_COUNT).await, "10000\n");
    assert_eq!(wasm.runs(), 10_000 + 2 * 1111);

    let changed = replace(&wasm, root, &["d3", "d1", "d4", "f1"], "changed");
    let before = wasm.runs();
    assert_eq!(wasm.fold(ObjectRef::tree(changed), FILE_COUNT).await, "10000\n");
    // The visit of the file, and the fold and the visit of each of the four directories above it.
    assert_eq!(wasm.runs() - before, 1 + 2 * 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_100_000_files_is_folded() {
    const FILES: usize = 100_000;
    let wasm = Wasm::new();
    let files = (0..FILES).map(|number| {
        let blob = wasm.dispatcher.put_blob((number % 1000).to_string()).unwrap();
        TreeEntry::new(format!("file number {number}"), EntryMode::Blob, blob)
    });
    let root = wasm.dispatcher.put_tree(files).unwrap();
    assert_eq!(wasm.fold(ObjectRef::tree(root), FILE_COUNT).await, format!("{FILES}\n"));
    assert_eq!(wasm.runs(), 1000 + 2, "equal files are one request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_one_returns_the_same_outcomes() {
    let wasm = Wasm::with(WasmRuntime::builder().pool_size(1).build().unwrap(), None);
    let usual = Wasm::new();
    for name in VECTORS {
        let root = ObjectRef::tree(store_fixture(&wasm.dispatcher, name));
        store_fixture(&usual.dispatcher, name);
        let tight = wasm.dispatcher.run(wasm.invocation(root, FILE_COUNT)).await.unwrap();
        let roomy = usual.dispatcher.run(usual.invocation(root, FILE_COUNT)).await.unwrap();
        assert_eq!((tight.request, tight.outcome), (roomy.request, roomy.outcome), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_error_of_a_failing_visitor_names_every_frame() {
    let wasm = Wasm::new();
    let root = ObjectRef::tree(store_chain(&wasm.dispatcher, 30));
    let invocation = wasm.invocation(root, &[("post", "/cas/std/no-such-visitor")]);
    let error = wasm.dispatcher.run(invocation).await.unwrap_err();
    assert!(
        error.root_cause().to_string().contains("available images: dirs-only, duplicate-files"),
        "{error:?}"
    );
    assert_eq!(error.chain().filter(|error| error.frame().is_some()).count(), 30, "{error:?}");

    let invocation = wasm.invocation(root, &[]);
    let error = wasm.dispatcher.run(invocation).await.unwrap_err();
    assert_eq!(error.to_string(), "the argument `post` is missing");
    let blob = ObjectRef::blob(wasm.dispatcher.put_blob("").unwrap());
    let not_a_tree = [("post", "/cas/std/file-count"), ("pre", "/cas/std/file-count")];
    let error = wasm.dispatcher.run(wasm.invocation(blob, &not_a_tree)).await.unwrap_err();
    assert!(error.root_cause().to_string().contains("must return a tree"), "{error:?}");
}
