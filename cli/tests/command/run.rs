//! `manifold run` and `manifold cat`.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{bench, fails, git, json, repository, succeeds};

#[test]
fn run_accepts_names_files_and_texts() {
    let root = bench();
    let run = |arguments: &[&str]| succeeds(root.path(), arguments);
    let text = run(&["run", "fold", "--arg", "in=tree", "--arg", "post=/cas/std/file-count"]);
    assert_eq!(text, "blob 52bd8e43afb01d0c9747f1fedf2fc94684ee4cc4\n120\n");
    let report =
        json(root.path(), &["run", "/cas/std/line-count", "--arg", "in=tree/f1.txt", "--json"]);
    assert_eq!(report["result"]["text"], "1\n");
    assert_eq!(
        run(&["run", "total-size", "--text", "in=tree", "--raw"]),
        "4\n",
        "four letters, not a directory"
    );
    assert_eq!(run(&["run", "total-size", "--arg", "in=no such path", "--raw"]), "12\n");
    let tree = run(&["run", "dirs-only", "--arg", "in=tree", "--raw"]);
    assert_eq!(tree.lines().count(), 3, "{tree}");
    assert!(tree.starts_with("040000 tree ") && tree.contains("\td1\n"), "{tree}");

    let module = r#"(module
        (import "caos_abi_v1" "call" (func $call (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "{\22op\22:\22out\22,\22kind\22:\22tree\22,\22hash\22:\224b825dc642cb6eb9a060e54bf8d69288fbee4904\22}")
        (func (export "caos_run") (drop (call $call (i32.const 0) (i32.const 76)))))"#;
    fs::write(root.path().join("my.wasm"), wat::parse_str(module).unwrap()).unwrap();
    assert_eq!(run(&["run", "my.wasm"]), "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n");
}

#[test]
fn cat_prints_objects_of_a_repository() {
    let root = repository();
    let blob = git(root.path(), &["rev-parse", "HEAD:tree/f1.txt"]);
    assert_eq!(succeeds(root.path(), &["cat", &blob]), "tree/f1.txt\n");
    let tree = git(root.path(), &["rev-parse", "HEAD^{tree}"]);
    assert_eq!(
        succeeds(root.path(), &["cat", &tree]).trim(),
        git(root.path(), &["ls-tree", "HEAD"])
    );

    let tree = git(root.path(), &["rev-parse", "HEAD:tree/d1/d1"]);
    let lines = succeeds(root.path(), &["cat", "--lines", &tree]);
    assert!(lines.starts_with("d1/f1.txt:tree/d1/d1/d1/f1.txt\n"), "{lines}");
    assert_eq!(lines.lines().count(), 12);
    assert_eq!(succeeds(root.path(), &["cat", "--lines", &blob]), "tree/f1.txt\n");

    let elsewhere = TempDir::new().unwrap();
    let from = root.path().to_str().unwrap();
    assert_eq!(succeeds(elsewhere.path(), &["cat", &blob, "--repo", from]), "tree/f1.txt\n");
    assert!(fails(elsewhere.path(), &["cat", &blob]).contains("is not in the store"));
    assert!(fails(root.path(), &["cat", "xyz"]).contains("invalid object id"));
    assert!(
        fails(root.path(), &["cat", &git(root.path(), &["rev-parse", "HEAD"])])
            .contains("is a commit")
    );
}

#[test]
fn arguments_are_paths_texts_or_standard_input() {
    let root = bench();
    let run = |argument: &str, input: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"))
            .args(["run", "total-size", "--raw", "--no-store", "--arg", argument])
            .current_dir(root.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        command.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = command.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let works = |size: &str| (Some(0), format!("{size}\n"), String::new());
    assert_eq!(run("in=-", "from a pipe"), works("11"));
    assert_eq!(run("in=@tree/f1.txt", ""), works("12"));
    assert_eq!(run("in=text", ""), works("4"));
    let (status, _, error) = run("in=@tree/none", "");
    assert_eq!(status, Some(3));
    assert!(error.contains("tree/none does not exist"), "{error}");
    let (status, size, warning) = run("in=tree/none", "");
    assert_eq!((status, size.as_str()), (Some(0), "9\n"));
    assert!(warning.contains("warning: in=tree/none is passed as text"), "{warning}");
    let twice = ["run", "total-size", "--no-store", "--arg", "in=-", "--arg", "other=-"];
    let error = fails(root.path(), &twice);
    assert!(error.contains("standard input is one argument, and cannot be \"other\""), "{error}");
    for text in ["in=/cas/std/x", "in=https://host/path", "in=either / or"] {
        assert_eq!(run(text, "").2, "", "{text}");
    }
}

#[test]
fn folding_a_bare_repository_says_how_to_fold_a_commit() {
    let root = repository();
    git(root.path(), &["clone", "--quiet", "--bare", ".", "bare"]);
    let output = crate::manifold(root.path(), &["fold", "bare"]);
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && warning.contains("bare is a bare git repository"),
        "{warning}"
    );
    assert_eq!(
        json(root.path(), &["fold", "bare", "--rev", "HEAD", "--json"])["result"]["text"],
        "121\n"
    );
}
