//! The TypeScript guests against the golden vectors, and beside the wasm guests.
#![cfg(feature = "v8")]

#[path = "../../dispatcher/tests/fixture/mod.rs"]
mod fixture;

use std::collections::BTreeSet;
use std::sync::Arc;

use fixture::{Journal, VECTORS, Vector, fold_args, store_chain, store_fixture};
use manifold::guests::{self, Hosts};
use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{EntryMode, ObjectId, Outcome, Result, Runtime, TreeEntry};
use manifold_runtime_v8::V8Runtime;
use manifold_runtime_wasm::WasmRuntime;
use proptest::prelude::*;

struct Both {
    dispatcher: Dispatcher,
    journal: Arc<Journal>,
    std: ObjectId,
}

impl Both {
    /// Both runtimes, and a native one that answers as `host_ref`.
    fn new(host_ref: Option<ObjectId>) -> Self {
        let journal = Arc::new(Journal::default());
        let (wasm, v8) =
            (Arc::new(WasmRuntime::new().unwrap()), Arc::new(V8Runtime::new().unwrap()));
        let hosts = Hosts {
            wasm: Some(wasm.host_image().id()),
            typescript: Some(v8.host_image().id()),
            ..Hosts::default()
        };
        let mut builder =
            Dispatcher::builder().runtime(wasm).runtime(v8).observer(Arc::clone(&journal) as _);
        if let Some(host) = host_ref {
            let native = NativeRuntime::builder("native", "1").fold_guests().build().unwrap();
            builder = builder.runtime_as(host, Arc::new(native));
        }
        let dispatcher = builder.build().unwrap();
        let std = guests::install(&dispatcher, hosts)
            .expect("the set-up has built the guests: cargo xtask setup");
        Self { dispatcher, journal, std }
    }

    fn image(&self, name: &str) -> String {
        self.dispatcher.read_tree(self.std).unwrap().get(name).unwrap().id.to_string()
    }

    async fn try_fold(
        &self,
        fold: &str,
        root: Outcome,
        visitors: &[(&str, &str)],
    ) -> Result<String> {
        let args = fold_args(&self.dispatcher, root, visitors);
        let completion =
            self.dispatcher.run(Invocation::new(self.image(fold), args).std(self.std)).await?;
        Ok(String::from_utf8(self.dispatcher.read(completion.outcome.id).unwrap().content.to_vec())
            .unwrap())
    }

    async fn fold(&self, fold: &str, root: Outcome, visitors: &[(&str, &str)]) -> String {
        self.try_fold(fold, root, visitors).await.unwrap()
    }

    /// The requests for an image that were run so far.
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
async fn counts_and_distinct_runs_of_the_vectors() {
    for name in VECTORS {
        let (both, vector) = (Both::new(None), Vector::read(name));
        let root = Outcome::tree(store_fixture(&both.dispatcher, name));
        let visitors = [("post", "file-count.ts")];
        assert_eq!(both.fold("fold.ts", root, &visitors).await, vector.result_text, "{name}");
        assert_eq!(both.runs(), vector.distinct_runs, "{name}");

        let before = both.dispatcher.stats();
        both.fold("fold.ts", root, &visitors).await;
        let done = both.dispatcher.stats() - before;
        assert_eq!(
            (done.runs, done.hits, done.joins),
            (0, 1, 0),
            "{name}: repeating a fold is one look-up"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_vectors_visitor_the_typescript_fold_issues_exactly_the_vectors_requests() {
    for name in VECTORS {
        let vector = Vector::read(name);
        let both = Both::new(Some(vector.host_ref.0));
        vector.store_images(&both.dispatcher);
        assert_eq!(store_fixture(&both.dispatcher, name), vector.root.0);
        let invocation = Invocation::new(both.image("fold.ts"), vector.args(&both.dispatcher))
            .salt(vector.salt.clone())
            .std(vector.std.0);
        let completion = both.dispatcher.run(invocation).await.unwrap();
        assert_eq!(completion.outcome, Outcome::blob(vector.result.1.0));

        let issued = both.requests_for(&vector.images["file-count"].0.to_string());
        let posts: BTreeSet<_> =
            vector.runs.iter().filter(|run| run.role == "post").map(|run| run.request.0).collect();
        assert_eq!(issued, posts, "{name}");
        assert_eq!(both.runs(), vector.distinct_runs, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pipeline_of_wasm_and_typescript_answers_the_same() {
    for name in VECTORS {
        let both = Both::new(None);
        let tree = Outcome::tree(store_fixture(&both.dispatcher, name));
        let blob = Outcome::blob(both.dispatcher.put_blob("two\nlines\n").unwrap());
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

/// A directory of files and directories, with names and modes of all kinds.
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
    fn over_one_visitor_both_folds_issue_the_same_requests(node in nodes(), in_typescript: bool, total: bool) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let both = Both::new(None);
            let (mode, id) = store(&both.dispatcher, &node);
            let root = if mode == EntryMode::Tree { Outcome::tree(id) } else { Outcome::blob(id) };
            let suffix = if in_typescript { ".ts" } else { "" };
            let post = format!("{}{suffix}", if total { "total-size" } else { "file-count" });
            let visitor = both.image(&post);

            let answer = both.fold("fold", root, &[("post", &post)]).await;
            let issued = both.requests_for(&visitor);
            let before = both.runs();
            assert_eq!(both.fold("fold.ts", root, &[("post", &post)]).await, answer);
            assert_eq!(both.requests_for(&visitor), issued, "no visitor was run again");
            assert_eq!(both.runs() - before, both.requests_for(&both.image("fold.ts")).len());
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_visitor_is_explained_through_every_frame() {
    let both = Both::new(None);
    let root = Outcome::tree(store_chain(&both.dispatcher, 30));
    let error = both.try_fold("fold.ts", root, &[("post", "no-such-visitor")]).await.unwrap_err();
    assert!(
        error.root_cause().to_string().contains("there are: dirs-only.ts, dirs-only"),
        "{error:?}"
    );
    assert_eq!(error.chain().filter(|error| error.frame().is_some()).count(), 30, "{error:?}");

    let error = both.try_fold("fold.ts", root, &[]).await.unwrap_err();
    assert!(error.to_string().starts_with("the argument `post` is missing (sdk.ts:"), "{error}");
    assert!(error.to_string().contains(" ← main.ts:"), "{error}");
    let blob = Outcome::blob(both.dispatcher.put_blob("").unwrap());
    let not_a_tree = [("post", "file-count.ts"), ("pre", "file-count.ts")];
    let error = both.try_fold("fold.ts", blob, &not_a_tree).await.unwrap_err();
    assert!(error.root_cause().to_string().contains("has to answer a tree"), "{error:?}");
}

/// The table that hosts are tested with, too.
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
            let folded =
                both.dispatcher.run(Invocation::new(both.image(fold), args).std(both.std)).await;
            let counted =
                folded.ok().map(|folded| both.dispatcher.read(folded.outcome.id).unwrap().content);
            assert_eq!(counted.as_deref(), is_known.then_some(&b"1\n"[..]), "{fold}: {given:?}");
        }
    }
    assert!(works >= 5);
}
