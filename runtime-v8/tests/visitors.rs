//! The visitors in TypeScript, compared with those in Rust.

use std::cell::Cell;
use std::collections::BTreeMap;

use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{EntryMode, ObjectRef, Result, TreeEntry};
use manifold_runtime_v8::V8Runtime;
use manifold_runtime_wasm::WasmRuntime;
use manifold_standard_guests as guests;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use tokio::runtime::Runtime;

const VISITORS: [&str; 5] =
    ["lines-by-language", "largest-files", "duplicate-files", "todo-comments", "licenses"];

/// Names that select a language, that differ in their order by UTF-8 and by UTF-16, and that are
/// shown escaped.
const NAMES: [&[u8]; 20] = [
    b".gitattributes",
    b"rs",
    b"g.rb",
    b"a.rs",
    b"b.PY",
    b"c.ts",
    b"d.c",
    b"e.lua",
    b"f.sh",
    b"g.toml",
    b"h.md",
    b"i.html",
    b"k.sql",
    b"Makefile",
    b"plain",
    b"tab\tline\nback\\slash\x7f",
    b"caf\xe9.rs",
    b"caf\xc3\xa9.go",
    b"\xef\xbf\xa0",
    b"\xf0\x9d\x84\x9e",
];

/// Parts of files: what starts and ends comments and strings, and what visitors look for.
const PARTS: [&[u8]; 46] = [
    b"\n",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\r",
    b" ",
    b"\t",
    b"\x0b",
    b"\x0c",
    b"x",
    b"code();",
    b"/*",
    b"*/",
    b"*",
    b"//",
    b"#",
    b"--",
    b"--[[",
    b"]]",
    b"[[",
    b"<!--",
    b"-->",
    b"\"",
    b"\"\"\"",
    b"'",
    b"'\"'",
    b"`",
    b"\\",
    b"r#\"",
    b"\"#",
    b"=begin",
    b"TODO",
    b"FIXME: x",
    b"XXXL",
    b"_HACK",
    b"SPDX-License-Identifier:",
    b"MIT OR (Apache-2.0)",
    b"Apache License, Version 2.0",
    b"Permission is hereby granted, free of charge,\n// to any person obtaining a copy",
    b"Redistribution and use in source and binary forms",
    b"Neither the name",
    b"\xc3\xa9",
    b"\xff",
    b"\xf0\x9d\x84",
    b"\xef\xbb\xbf",
    b"\0",
];

/// Parts of patterns, each of which some engine may read in another way.
const PATTERN: [&str; 54] = [
    "[a-", "-z", "a", "b", "é", ".", "*", "+", "?", "*?", "|", "(", ")", "(?:", "(?i)", "(?<n>",
    "[", "]", "[^", "[]", "-", "--", "&&", "~~", "^", "$", "{", "}", "{2}", "{1,}", "{0,2}",
    "{,2}", "{2,1}", "\\d", "\\w", "\\s", "\\D", "\\W", "\\S", "\\b", "\\B", "\\t", "\\.", "\\-",
    "\\/", "\\<", "\\_", "\\n", "\\1", "\\p{L}", "\\é", "\\", "/", "<",
];

const LINES: &str =
    "ab aab\n\t a-b_b\n\nx{2} a/b <b> [a] ~&\néa bé é\n0 12 a1\r\nA\u{2028}b\u{a0}\n$^.\n";

#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>, EntryMode),
    Directory(BTreeMap<Vec<u8>, Node>),
}

fn nodes() -> impl Strategy<Value = Node> {
    let content = vec(prop::sample::select(&PARTS[..]), 0..24).prop_map(|parts| parts.concat());
    let mode = prop_oneof![
        6 => Just(EntryMode::Blob),
        1 => Just(EntryMode::Executable),
        1 => Just(EntryMode::Symlink),
    ];
    let file = (content, mode).prop_map(|(content, mode)| Node::File(content, mode));
    file.prop_recursive(3, 32, 8, |node| {
        let name = prop::sample::select(&NAMES[..]).prop_map(<[u8]>::to_vec);
        btree_map(name, node, 0..8).prop_map(Node::Directory)
    })
}

struct Both {
    dispatcher: Dispatcher,
    std: manifold_runtime_api::ObjectId,
}

impl Both {
    fn new() -> Self {
        let builder = Dispatcher::builder().runtime(WasmRuntime::new().unwrap());
        let dispatcher = builder.runtime(V8Runtime::new().unwrap()).build().unwrap();
        let std =
            guests::install(&dispatcher).expect("the guests are built by `cargo xtask setup`");
        Self { dispatcher, std }
    }

    fn put(&self, node: &Node) -> TreeEntry {
        match node {
            Node::File(content, mode) => {
                TreeEntry::new("in", *mode, self.dispatcher.put_blob(content.clone()).unwrap())
            }
            Node::Directory(nodes) => {
                // Git allows this name for files only.
                let is_allowed = |(name, node): &(&Vec<u8>, &Node)| {
                    *name != b".gitattributes"
                        || matches!(node, Node::File(_, EntryMode::Blob | EntryMode::Executable))
                };
                let entries = nodes.iter().filter(is_allowed);
                let entries = entries
                    .map(|(name, node)| TreeEntry { name: name.clone().into(), ..self.put(node) });
                let tree = self.dispatcher.put_tree(entries.collect::<Vec<_>>()).unwrap();
                TreeEntry::new("in", EntryMode::Tree, tree)
            }
        }
    }

    /// Folds with a visitor and its arguments, both in the language with this ending.
    async fn fold(
        &self,
        root: &Node,
        visitor: &str,
        with: &[(&str, &str)],
        ending: &str,
    ) -> Result<ObjectRef> {
        let blob = |name: &str, text: &str| {
            let id = self.dispatcher.put_blob(text.to_owned()).unwrap();
            TreeEntry::new(name, EntryMode::Blob, id)
        };
        let with = with.iter().map(|(name, text)| blob(name, text)).collect::<Vec<_>>();
        let with = self.dispatcher.put_tree(with).unwrap();
        let args = [
            self.put(root),
            blob("post", &format!("/cas/std/{visitor}{ending}")),
            TreeEntry::new("with", EntryMode::Tree, with),
        ];
        let args = self.dispatcher.put_tree(args).unwrap();
        let fold = self.dispatcher.read_tree(self.std).unwrap();
        let fold = fold.get(format!("fold{ending}")).unwrap().id;
        let invocation = Invocation::new(fold).args(args).std(self.std);
        Ok(self.dispatcher.run(invocation).await?.outcome)
    }

    /// Folds in both languages, and errors unless they agree. Errors agree if what TypeScript says
    /// begins with what Rust says.
    async fn agree(
        &self,
        root: &Node,
        visitor: &str,
        with: &[(&str, &str)],
    ) -> std::result::Result<Result<ObjectRef>, TestCaseError> {
        let rust = self.fold(root, visitor, with, "").await;
        let typescript = self.fold(root, visitor, with, ".ts").await;
        match (&rust, &typescript) {
            (Ok(rust), Ok(typescript)) => {
                let read = |object: &ObjectRef| self.dispatcher.read(object.id).unwrap().content;
                prop_assert_eq!(
                    rust,
                    typescript,
                    "{}: {:?} {:?}",
                    visitor,
                    read(rust),
                    read(typescript)
                );
            }
            (Err(rust), Err(typescript)) => {
                let (rust, typescript) =
                    (rust.root_cause().to_string(), typescript.root_cause().to_string());
                prop_assert!(typescript.starts_with(&rust), "{visitor}: {rust} / {typescript}");
            }
            _ => prop_assert!(false, "{visitor} {with:?}: {rust:?} / {typescript:?}"),
        }
        Ok(rust)
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn visitors_in_both_languages_agree_on_random_trees() {
    let (both, runtime) = (Both::new(), runtime());
    let config =
        ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(root in nodes(), count in 1..4_u32)| {
        runtime.block_on(async {
            for visitor in VISITORS {
                both.agree(&root, visitor, &[]).await?.unwrap();
            }
            both.agree(&root, "largest-files", &[("count", &count.to_string())]).await?.unwrap();
            both.agree(&root, "grep", &[("pattern", "[^x]\\B.$|^\\s*/")]).await?.unwrap();
            Ok::<_, TestCaseError>(())
        })?;
    });
}

#[test]
fn patterns_mean_the_same_in_both_languages() {
    let (both, runtime) = (Both::new(), runtime());
    let (works, fails) = (Cell::new(0), Cell::new(0));
    let lines = Node::File(LINES.into(), EntryMode::Blob);
    let config =
        ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() };
    let patterns = vec(prop::sample::select(&PATTERN[..]), 1..7);
    proptest!(config, |(parts in patterns)| {
        let pattern = parts.concat();
        match runtime.block_on(both.agree(&lines, "grep", &[("pattern", &pattern)]))? {
            Ok(_) => works.set(works.get() + 1),
            Err(_) => fails.set(fails.get() + 1),
        }
    });
    let (works, fails) = (works.get(), fails.get());
    assert!(works > 50 && fails > 50, "{works} patterns are valid, {fails} are not");
}

#[test]
fn invalid_arguments_are_errors_in_both_languages() {
    let both = Both::new();
    let root =
        Node::Directory([(b"a.rs".to_vec(), Node::File(b"a".to_vec(), EntryMode::Blob))].into());
    let file = Node::File(b"a".to_vec(), EntryMode::Blob);
    for (root, visitor, with, problem) in [
        (
            &root,
            "largest-files",
            &[("count", "0")][..],
            "`count` must be a number from 1 to 100000",
        ),
        (&root, "largest-files", &[("count", "many")], "`count` must be"),
        (&root, "grep", &[], "the argument `pattern` is missing"),
        (&root, "grep", &[("pattern", "(")], "`pattern` is not a regular expression: ("),
        (&root, "grep", &[("pattern", "(?i)a")], "`pattern` contains `(?` without `:`: (?i)a"),
        (&root, "grep", &[("pattern", "a\nb")], "`pattern` has several lines"),
        (&root, "grep", &[("pattern", "[+-\\d]")], "`pattern` contains a range of a set"),
        (&root, "grep", &[("pattern", "[\\w-z]")], "`pattern` contains a range of a set"),
        (
            &root,
            "lines-by-language",
            &[("language", "Rust")],
            "`language` is an argument for a single",
        ),
        (&root, "file-count", &[("in", "x")], "`with` must not contain `in` or `children`"),
        (
            &file,
            "lines-by-language",
            &[("language", "C--")],
            "`C--` is not a language that is known",
        ),
    ] {
        let error = runtime().block_on(both.agree(root, visitor, with)).unwrap().unwrap_err();
        let error = error.root_cause().to_string();
        assert!(error.starts_with(problem), "{visitor} {with:?}: {error}");
    }
}

#[test]
fn a_line_break_ends_a_pattern() {
    let (both, runtime) = (Both::new(), runtime());
    let lines = Node::File(LINES.into(), EntryMode::Blob);
    let found = |pattern: &str| {
        runtime.block_on(both.agree(&lines, "grep", &[("pattern", pattern)])).unwrap().unwrap()
    };
    assert_eq!(found("^ab\n"), found("^ab"));
    assert_eq!(found("^ab\r\n"), found("^ab"));
    assert_ne!(found("^ab"), found("^b"));
}

/// Each takes minutes if the time is quadratic in the length of a line.
#[test]
fn long_lines_and_large_files_are_read_in_linear_time() {
    let (both, runtime) = (Both::new(), runtime());
    let spaces = " ".repeat(400_000);
    let words = "XXX-XX-1234, ".repeat(100_000);
    // Longer than the pieces in which TypeScript decodes a file, with line breaks at their borders.
    let lines = "caf\u{e9} \u{1d11e}\r\n\n".repeat(200_000) + "the end\r";
    for (name, content, visitor, with) in [
        ("a.c", format!("x{spaces}x\n"), "lines-by-language", &[][..]),
        ("b.c", format!("// SPDX-License-Identifier: M{spaces}T\n"), "licenses", &[]),
        ("c", words, "todo-comments", &[]),
        ("d", format!("x{spaces}x\n"), "grep", &[("pattern", "^x +x$")]),
        ("e.md", lines.clone(), "lines-by-language", &[]),
        ("f", lines, "grep", &[("pattern", "\u{1d11e}$|end")]),
    ] {
        let file = Node::File(content.into_bytes(), EntryMode::Blob);
        let root = Node::Directory([(name.as_bytes().to_vec(), file)].into());
        runtime.block_on(both.agree(&root, visitor, with)).unwrap().unwrap();
    }
}
