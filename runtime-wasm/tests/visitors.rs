//! The visitors in Rust: what they return.

use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{EntryMode, ObjectId, ObjectKind, ObjectRef, TreeEntry};
use manifold_runtime_wasm::WasmRuntime;
use manifold_standard_guests::{self as guests, native_guests};

const MIT: &str = "MIT License\n\nPermission is hereby granted, free of charge, to any person\n\
                   obtaining a copy of this software\n";

const AGPL_NOTICE: &str = "// under the terms of the GNU Affero General Public License, either\n\
                           // version 3 of the License, or (at your option) any later version.\n\
                           // See the GNU General Public License.\n";

struct Wasm {
    dispatcher: Dispatcher,
    std: ObjectId,
}

impl Wasm {
    fn new() -> Self {
        let dispatcher =
            Dispatcher::builder().runtime(WasmRuntime::new().unwrap()).build().unwrap();
        let std =
            guests::install(&dispatcher).expect("the guests are built by `cargo xtask setup`");
        Self { dispatcher, std }
    }

    /// Stores a tree of files, whose paths have at most one directory.
    fn tree(&self, files: &[(&str, &str)]) -> ObjectRef {
        let mut entries = Vec::new();
        let mut below = std::collections::BTreeMap::<&str, Vec<(&str, &str)>>::new();
        for (path, content) in files {
            match path.split_once('/') {
                Some((directory, name)) => {
                    below.entry(directory).or_default().push((name, content));
                }
                None => {
                    let id = self.dispatcher.put_blob((*content).to_owned()).unwrap();
                    entries.push(TreeEntry::new(*path, EntryMode::Blob, id));
                }
            }
        }
        for (directory, files) in below {
            entries.push(TreeEntry::new(directory, EntryMode::Tree, self.tree(&files).id));
        }
        ObjectRef::tree(self.dispatcher.put_tree(entries).unwrap())
    }

    /// Folds, and returns each line of the outcome, after the path of its blob.
    async fn fold(&self, root: ObjectRef, visitor: &str, with: &[(&str, &str)]) -> Vec<String> {
        let fold = self.dispatcher.read_tree(self.std).unwrap().get("fold").unwrap().id;
        self.fold_with(fold, root, visitor, with).await
    }

    async fn fold_with(
        &self,
        fold: ObjectId,
        root: ObjectRef,
        visitor: &str,
        with: &[(&str, &str)],
    ) -> Vec<String> {
        let mut invocation = Invocation::new(fold).std(self.std).arg("in", root);
        invocation = invocation.arg("post", format!("/cas/std/{visitor}"));
        if !with.is_empty() {
            let with = with.iter().map(|(name, text)| {
                let id = self.dispatcher.put_blob((*text).to_owned()).unwrap();
                TreeEntry::new(*name, EntryMode::Blob, id)
            });
            let with = self.dispatcher.put_tree(with.collect::<Vec<_>>()).unwrap();
            invocation = invocation.arg("with", ObjectRef::tree(with));
        }
        let outcome = self.dispatcher.run(invocation).await.unwrap().outcome;
        let mut lines = Vec::new();
        self.lines("", outcome, &mut lines);
        lines
    }

    fn lines(&self, path: &str, object: ObjectRef, lines: &mut Vec<String>) {
        if object.kind == ObjectKind::Blob {
            let text = self.dispatcher.read(object.id).unwrap().content;
            lines.extend(text.to_str().unwrap().lines().map(|line| format!("{path}{line}")));
            return;
        }
        for entry in self.dispatcher.read_tree(object.id).unwrap().entries() {
            let (name, kind) = (&entry.name, entry.mode.object_kind().unwrap());
            let (below, end) = (ObjectRef { kind, id: entry.id }, path.trim_end_matches(':'));
            let slash = if end.is_empty() { "" } else { "/" };
            self.lines(&format!("{end}{slash}{name}:"), below, lines);
        }
    }
}

#[tokio::test]
async fn lines_by_language_adds_up_the_files_of_each_language() {
    let wasm = Wasm::new();
    let root = wasm.tree(&[
        ("main.rs", "fn main() {\n\n    // a comment\n    let a = \"// no comment\"; // b\n}\n"),
        (
            "src/lib.rs",
            "/* a\n /* nested */\n\n*/ fn f() {}\nconst A: &str = r#\"\n\n// text\"#;\n",
        ),
        ("src/run.py", "# a comment\n\"\"\"Text.\n\n# text\n\"\"\"\nx = 'a # b'\n"),
        ("README.md", "# Title\n\nText.\n"),
        ("unknown.xyz", "text\n"),
        ("c", "no language\n"),
        ("raw.rs", "const A: &str = r\"\\\";\n// a comment\n"),
        ("Makefile", "all:\n\ttrue # that is all"),
    ]);
    assert_eq!(
        wasm.fold(root, "lines-by-language", &[]).await,
        [
            "language\tfiles\tcode\tcomments\tblanks",
            "Makefile\t1\t2\t0\t0",
            "Markdown\t1\t0\t2\t1",
            "Python\t1\t5\t1\t0",
            "Rust\t3\t8\t4\t2",
        ]
    );
}

/// The native fold passes the entries of `with` to its visitors as the wasm fold does: no visit is
/// run again.
#[tokio::test]
async fn the_native_fold_makes_the_same_requests() {
    let wasm = Wasm::new();
    let native = native_guests(NativeRuntime::builder("native", "1")).build().unwrap();
    let native = wasm.dispatcher.add_runtime(native).unwrap();
    let native = wasm.dispatcher.install(native, "fold").unwrap();
    let root = wasm.tree(&[("a", "12345"), ("d/b", "1234567")]);
    let expected = wasm.fold(root, "largest-files", &[("count", "1")]).await;
    let before = wasm.dispatcher.stats();
    let folded = wasm.fold_with(native, root, "largest-files", &[("count", "1")]).await;
    assert_eq!(folded, expected);
    // A frame of fold for the root and one for `d`.
    assert_eq!((wasm.dispatcher.stats() - before).runs, 2);
}

/// A file that did not change is not counted again, wherever it moved.
#[tokio::test]
async fn lines_by_language_counts_a_file_once() {
    let wasm = Wasm::new();
    let before = wasm.tree(&[("a/one.rs", "fn one() {}\n"), ("b/two.rs", "fn two() {}\n")]);
    wasm.fold(before, "lines-by-language", &[]).await;
    let done = wasm.dispatcher.stats();
    let after = wasm.tree(&[("a/one.rs", "fn one() {}\n"), ("c/moved.rs", "fn two() {}\n")]);
    let lines = wasm.fold(after, "lines-by-language", &[]).await;
    assert_eq!(lines[1..], ["Rust\t2\t2\t0\t0"]);
    // A fold and a visit for the root and for `c`.
    assert_eq!((wasm.dispatcher.stats() - done).runs, 4);
}

#[tokio::test]
async fn largest_files_lists_the_largest_first() {
    let wasm = Wasm::new();
    let root = wasm.tree(&[("a", "12345"), ("d/b", "1234567"), ("d/c", "12345"), ("tab\t", "1")]);
    assert_eq!(
        wasm.fold(root, "largest-files", &[]).await,
        ["path\tbytes", "d/b\t7", "a\t5", "d/c\t5", "tab\\t\t1"]
    );
    let two = wasm.fold(root, "largest-files", &[("count", "2\n")]).await;
    assert_eq!(two, ["path\tbytes", "d/b\t7", "a\t5"]);
}

#[tokio::test]
async fn duplicate_files_lists_what_could_be_saved() {
    let wasm = Wasm::new();
    let root = wasm.tree(&[
        ("a", "12345"),
        ("b", "1234567"),
        ("d/a2", "12345"),
        ("d/a3", "12345"),
        ("d/b2", "1234567"),
        ("e1", ""),
        ("e2", ""),
        ("only", "once"),
    ]);
    assert_eq!(
        wasm.fold(root, "duplicate-files", &[]).await,
        ["bytes:17", "copies:5\ta\td/a2\td/a3", "copies:7\tb\td/b2", "files:3"]
    );
    let root = wasm.tree(&[("d/a2", "12345")]);
    assert_eq!(wasm.fold(root, "duplicate-files", &[]).await, ["bytes:0", "files:0"]);
}

#[tokio::test]
async fn todo_comments_lists_words_in_comments_only() {
    let wasm = Wasm::new();
    let root = wasm.tree(&[
        ("src/a.rs", "// TODO: mend\nlet TODO = 1;\n/*\n * FIXME later\n */\n"),
        ("b.py", "x = 1  # HACK\r\n# TODOS are no such word\n"),
        (".gitattributes", "TODO = 1 # TODO: a name that only a file can have\n"),
        ("binary", "// TODO\0"),
    ]);
    assert_eq!(
        wasm.fold(root, "todo-comments", &[]).await,
        [
            "count:4",
            "lines/.gitattributes:1:TODO: a name that only a file can have",
            "lines/b.py:1:HACK",
            "lines/src/a.rs:1:TODO: mend",
            "lines/src/a.rs:4:FIXME later"
        ]
    );
    let root = wasm.tree(&[("a", "text\n")]);
    assert_eq!(wasm.fold(root, "todo-comments", &[]).await, ["count:0"]);
}

#[tokio::test]
async fn licenses_counts_tags_and_texts() {
    let wasm = Wasm::new();
    let root = wasm.tree(&[
        ("LICENSE", MIT),
        ("src/a.c", "/* SPDX-License-Identifier: GPL-2.0-only */\n"),
        ("src/b.rs", "// SPDX-License-Identifier: MIT OR Apache-2.0\nfn b() {}\n"),
        ("src/c.rs", "// Licensed under the Apache License, Version 2.0 (the\n// \"License\")\n"),
        ("src/d.rs", "const TAG: &str = \"SPDX-License-Identifier:\";\n"),
        ("copy/LICENSE", MIT),
        (".gitmodules", "# SPDX-License-Identifier:\tISC\n"),
        ("src/f.c", AGPL_NOTICE),
        ("copy/e.html", "<!-- SPDX-License-Identifier: MIT -->\n"),
    ]);
    assert_eq!(
        wasm.fold(root, "licenses", &[]).await,
        ["AGPL-3.0:1", "Apache-2.0:1", "GPL-2.0-only:1", "ISC:1", "MIT:3", "MIT OR Apache-2.0:1"]
    );
}

#[tokio::test]
async fn grep_lists_matching_lines() {
    let wasm = Wasm::new();
    let root = wasm.tree(&[
        ("a.txt", "one\ntwo\nthree\r\n"),
        ("d/b.txt", "twofold\n"),
        ("d/c.txt", "none\n"),
        ("binary", "two\0"),
    ]);
    assert_eq!(
        wasm.fold(root, "grep", &[("pattern", r"^t\w+(o|e)$|fold")]).await,
        ["count:3", "lines/a.txt:2:two", "lines/a.txt:3:three", "lines/d/b.txt:1:twofold"]
    );
    assert_eq!(wasm.fold(root, "grep", &[("pattern", "four")]).await, ["count:0"]);
}
