//! The TypeScript guests: compared with the golden vectors and with the wasm guests.

use std::collections::BTreeSet;
use std::sync::Arc;

use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{EntryMode, ObjectId, ObjectRef, Result, Runtime, TreeEntry};
use manifold_runtime_v8::V8Runtime;
use manifold_runtime_wasm::WasmRuntime;
use manifold_standard_guests::native_guests;
use manifold_standard_guests::{self as guests, Hosts};
use manifold_testing::{Journal, VECTORS, Vector, fold_args, store_chain, store_fixture};
use proptest::prelude::*;

struct Both {
    dispatcher: Dispatcher,
    journal: Arc<Journal>,
    std: ObjectId,
}

impl Both {
    /// Creates a dispatcher with both runtimes, and a native one registered as `host_ref`.
    fn new(host_ref: Option<ObjectId>) -> Self {
        let journal = Arc::new(Journal::default());
        let (wasm, v8) =
            (Arc::new(WasmRuntime::new().unwrap()), Arc::new(V8Runtime::new().unwrap()));
        let hosts = Hosts::default().wasm(wasm.host_image().id()).typescript(v8.host_image().id());
        let mut builder =
            Dispatcher::builder().runtime(wasm).runtime(v8).observer(Arc::clone(&journal));
        if let Some(host) = host_ref {
            let native = native_guests(NativeRuntime::builder("native", "1")).build().unwrap();
            builder = builder.runtime_as(host, Arc::new(native));
        }
        let dispatcher = builder.build().unwrap();
        let std = guests::install_for(&dispatcher, hosts)
            .expect("the guests are built by `cargo xtask setup`");
        Self { dispatcher, journal, std }
    }

    fn image(&self, name: &str) -> String {
        self.dispatcher.read_tree(self.std).unwrap().get(name).unwrap().id.to_string()
    }

    async fn try_fold(
        &self,
        fold: &str,
        root: ObjectRef,
        visitors: &[(&str, &str)],
    ) -> Result<String> {
        let args = fold_args(&self.dispatcher, root, visitors);
        let completion =
            self.dispatcher.run(Invocation::new(self.image(fold)).args(args).std(self.std)).await?;
        Ok(String::from_utf8(self.dispatcher.read(completion.outcome.id).unwrap().content.to_vec())
            .unwrap())
    }

    async fn fold(&self, fold: &str, root: ObjectRef, visitors: &[(&str, &str)]) -> String {
        self.try_fold(fold, root, visitors).await.unwrap()
    }

    /// Returns the requests for an image that were run so far.
    fn requests_for(&self, image: &str) -> BTreeSet<ObjectId> {
        let started = self.journal.started.lock().unwrap();
        started
            .iter()
            .filter(|(_, started)| started == image)
            .map(|(request, _)| *request)
            .collect()
    }

    fn runs(&self) -> usize {
        self.journal.started.lock().unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_distinct_runs_match_the_vectors() {
    for name in VECTORS {
        let (both, vector) = (Both::new(None), Vector::read(name));
        let root = ObjectRef::tree(store_fixture(&both.dispatcher, name));
        let visitors = [("post", "file-count.ts")];
        assert_eq!(both.fold("fold.ts", root, &visitors).await, vector.result_text, "{name}");
        assert_eq!(both.runs(), vector.distinct_runs, "{name}");

        let before = both.dispatcher.stats();
        both.fold("fold.ts", root, &visitors).await;
        let done = both.dispatcher.stats() - before;
        assert_eq!(
            (done.runs, done.hits, done.joins),
            (0, 1, 0),
            "{name}: a repeated fold is one hit"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typescript_fold_issues_the_visitor_requests_of_the_vectors() {
    for name in VECTORS {
        let vector = Vector::read(name);
        let both = Both::new(Some(vector.host_ref.0));
        vector.store_images(&both.dispatcher);
        assert_eq!(store_fixture(&both.dispatcher, name), vector.root.0);
        let invocation = Invocation::new(both.image("fold.ts"))
            .args(vector.args(&both.dispatcher))
            .salt(vector.salt.clone())
            .std(vector.std.0);
        let completion = both.dispatcher.run(invocation).await.unwrap();
        assert_eq!(completion.outcome, ObjectRef::blob(vector.result.1.0));

        let issued = both.requests_for(&vector.images["file-count"].0.to_string());
        let posts: BTreeSet<_> =
            vector.runs.iter().filter(|run| run.role == "post").map(|run| run.request.0).collect();
        assert_eq!(issued, posts, "{name}");
        assert_eq!(both.runs(), vector.distinct_runs, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mix_of_wasm_and_typescript_returns_the_same_result() {
    for name in VECTORS {
        let both = Both::new(None);
        let tree = ObjectRef::tree(store_fixture(&both.dispatcher, name));
        let blob = ObjectRef::blob(both.dispatcher.put_blob("two\nlines\n").unwrap());
        for root in [tree, blob] {
            for post in ["file-count", "line-count", "total-size"] {
                let expected = both.fold("fold", root, &[("post", post)]).await;
                for (fold, post) in [
                    ("fold.ts", post.to_owned()),
                    ("fold", format!("{post}.ts")),
                    ("fold.ts", format!("{post}.ts")),
                ] {
                    assert_eq!(
                        both.fold(fold, root, &[("post", &post)]).await,
                        expected,
                        "{name}: {fold} {post}"
                    );
                }
            }
            let expected =
                both.fold("fold", root, &[("post", "file-count"), ("pre", "dirs-only")]).await;
            for (fold, post, pre) in [
                ("fold.ts", "file-count.ts", "dirs-only.ts"),
                ("fold.ts", "file-count", "dirs-only"),
                ("fold", "file-count.ts", "dirs-only.ts"),
            ] {
                assert_eq!(
                    both.fold(fold, root, &[("post", post), ("pre", pre)]).await,
                    expected,
                    "{name}: {fold}"
                );
            }
        }
    }
}

/// A file, or a directory with names and modes of all kinds.
#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>, EntryMode),
    Directory(Vec<(Vec<u8>, Node)>),
}

fn nodes() -> impl Strategy<Value = Node> {
    let mode =
        prop_oneof![Just(EntryMode::Blob), Just(EntryMode::Executable), Just(EntryMode::Symlink)];
    let file = (proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..6), mode)
        .prop_map(|(content, mode)| Node::File(content, mode));
    let name = prop_oneof![
        "[a-c]{1,2}".prop_map(String::into_bytes),
        proptest::collection::vec(128_u8..=255, 1..3),
        "[ä€𝄞]{1,2}".prop_map(String::into_bytes),
    ];
    file.prop_recursive(4, 24, 4, move |node| {
        proptest::collection::vec((name.clone(), node), 0..4).prop_map(Node::Directory)
    })
}

fn store(dispatcher: &Dispatcher, node: &Node) -> (EntryMode, ObjectId) {
    match node {
        Node::File(content, mode) => (*mode, dispatcher.put_blob(content.clone()).unwrap()),
        Node::Directory(entries) => {
            let mut seen = BTreeSet::new();
            let entries =
                entries.iter().filter(|(name, _)| seen.insert(name.clone())).map(|(name, node)| {
                    let (mode, id) = store(dispatcher, node);
                    TreeEntry::new(name.as_slice(), mode, id)
                });
            let entries: Vec<_> = entries.collect();
            (EntryMode::Tree, dispatcher.put_tree(entries).unwrap())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_folds_issue_the_same_visitor_requests(node in nodes(), in_typescript: bool, total: bool) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let both = Both::new(None);
            let (mode, id) = store(&both.dispatcher, &node);
            let root = if mode == EntryMode::Tree { ObjectRef::tree(id) } else { ObjectRef::blob(id) };
            let suffix = if in_typescript { ".ts" } else { "" };
            let post = format!("{}{suffix}", if total { "total-size" } else { "file-count" });
            let visitor = both.image(&post);

            let text = both.fold("fold", root, &[("post", &post)]).await;
            let issued = both.requests_for(&visitor);
            let before = both.runs();
            assert_eq!(both.fold("fold.ts", root, &[("post", &post)]).await, text);
            assert_eq!(both.requests_for(&visitor), issued, "no visit was run again");
            assert_eq!(both.runs() - before, both.requests_for(&both.image("fold.ts")).len());
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_error_of_a_failing_visitor_names_every_frame() {
    let both = Both::new(None);
    let root = ObjectRef::tree(store_chain(&both.dispatcher, 30));
    let error = both.try_fold("fold.ts", root, &[("post", "no-such-visitor")]).await.unwrap_err();
    assert!(
        error.root_cause().to_string().contains("available images: dirs-only.ts, dirs-only"),
        "{error:?}"
    );
    assert_eq!(error.chain().filter(|error| error.frame().is_some()).count(), 30, "{error:?}");

    let error = both.try_fold("fold.ts", root, &[]).await.unwrap_err();
    assert!(error.to_string().starts_with("the argument `post` is missing (sdk.ts:"), "{error}");
    assert!(error.to_string().contains(" ← main.ts:"), "{error}");
    let blob = ObjectRef::blob(both.dispatcher.put_blob("").unwrap());
    let not_a_tree = [("post", "file-count.ts"), ("pre", "file-count.ts")];
    let error = both.try_fold("fold.ts", blob, &not_a_tree).await.unwrap_err();
    assert!(error.root_cause().to_string().contains("must return a tree"), "{error:?}");
}

/// Uses the table of references that hosts are also tested with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn white_space_around_a_visitors_name_is_trimmed_in_both_languages() {
    let both = Both::new(None);
    let lines = include_str!("../../runtime-api/tests/references.txt")
        .lines()
        .filter(|line| line.starts_with('"'));
    let root = both.dispatcher.put_blob("a file").unwrap();
    let mut works = 0;
    for line in lines {
        let (given, trimmed) = line[1..].split_once("\" ").unwrap();
        let given = given.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t");
        let given = given
            .replace("\\u{c}", "\u{c}")
            .replace("\\u{b}", "\u{b}")
            .replace("\\u{a0}", "\u{a0}");
        let is_known = trimmed.trim() == "\"/cas/std/file-count\"";
        works += usize::from(is_known);
        let reference = both.dispatcher.put_blob(given.clone()).unwrap();
        let args = [("in", root), ("post", reference)]
            .map(|(name, id)| TreeEntry::new(name, EntryMode::Blob, id));
        let args = both.dispatcher.put_tree(args).unwrap();
        for fold in ["fold", "fold.ts"] {
            let folded = both
                .dispatcher
                .run(Invocation::new(both.image(fold)).args(args).std(both.std))
                .await;
            let counted =
                folded.ok().map(|folded| both.dispatcher.read(folded.outcome.id).unwrap().content);
            assert_eq!(counted.as_deref(), is_known.then_some(&b"1\n"[..]), "{fold}: {given:?}");
        }
    }
    assert!(works >= 5);
}
