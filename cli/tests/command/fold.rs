//! `manifold fold`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use tempfile::TempDir;

use crate::{bench, fails, git, json, manifold, repository, succeeds};

#[test]
fn fold_prints_one_json_object() {
    let root = bench();
    let report = json(root.path(), &["fold", "tree", "--repeat", "3", "--json"]);
    assert_eq!(
        report["result"],
        serde_json::json!({
            "kind": "blob", "hash": "52bd8e43afb01d0c9747f1fedf2fc94684ee4cc4", "text": "120\n"
        })
    );
    assert_eq!(report["nodes"], 160);
    assert_eq!(report["request"].as_str().unwrap().len(), 40);
    let repeats = report["repeats"].as_array().unwrap();
    assert_eq!(repeats.len(), 3);
    assert_eq!((&repeats[0]["runs"], &repeats[0]["hits"]), (&Value::from(200), &Value::from(0)));
    for repeat in &repeats[1..] {
        assert_eq!((&repeat["runs"], &repeat["hits"]), (&Value::from(0), &Value::from(1)));
        assert!(repeat["seconds"].as_f64().unwrap() > 0.0);
    }
    let mut keys: Vec<_> = report.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        ["compile_seconds", "guest", "nodes", "repeats", "request", "result", "scan_seconds"]
    );
    assert!(report["scan_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn fold_prints_a_table_with_a_row_for_each_repeat() {
    let root = bench();
    let table = succeeds(root.path(), &["fold", "tree", "--repeat", "2"]);
    for word in
        ["result", "nodes", "frames run", "memo hits", "scan", "compile", "time", "frames/s", "160"]
    {
        assert!(table.contains(word), "{word} is not in:\n{table}");
    }
    assert!(table.contains("blob 52bd8e43afb01d0c9747f1fedf2fc94684ee4cc4"), "{table}");
}

/// The visitor asks for sizes. A file that is too large to be read has one, too.
#[test]
fn total_size_reads_no_content() {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("files")).unwrap();
    fs::write(root.path().join("files/large"), vec![0; 1 << 20]).unwrap();
    let fold = ["fold", "files", "--json", "--post", "total-size", "--max-response", "64KiB"];
    assert_eq!(json(root.path(), &fold)["result"]["text"], "1048576\n");
}

#[test]
fn the_index_of_a_directory_is_private_and_beside_the_store() {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("files")).unwrap();
    fs::write(root.path().join("files/a"), "a\n").unwrap();
    let first = json(root.path(), &["fold", "files", "--json", "--store", "store"]);
    let is_index = |name: &OsStr| name.as_bytes().starts_with(b"manifold-cached-directory-");
    let indexes = || -> Vec<_> {
        let entries = fs::read_dir(root.path().join("store")).unwrap();
        entries.map(|entry| entry.unwrap()).filter(|entry| is_index(&entry.file_name())).collect()
    };
    let [index] = &indexes()[..] else { panic!("{:?}", indexes()) };
    assert_eq!(index.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(root.path().join("files/a"), "b\n").unwrap();
    let second = json(root.path(), &["fold", "files", "--json", "--store", "store"]);
    assert_ne!(first["request"], second["request"]);
    let rehashed = json(root.path(), &["fold", "files", "--json", "--store", "store", "--rehash"]);
    assert_eq!(second["request"], rehashed["request"]);
}

#[test]
fn fold_accepts_the_current_directory_and_other_visitors() {
    let root = bench();
    let tree = root.path().join("tree");
    assert_eq!(json(&tree, &["fold", "--json"])["result"]["text"], "120\n");
    assert_eq!(json(&tree, &["fold", "--json", "--post", "line-count"])["result"]["text"], "120\n");
    assert_eq!(
        json(&tree, &["fold", "--json", "--post", "/cas/std/total-size"])["result"]["text"],
        "2358\n"
    );
    let dirs_only = json(&tree, &["fold", "--json", "--pre", "dirs-only"]);
    assert_eq!(
        (&dirs_only["result"]["text"], &dirs_only["nodes"]),
        (&Value::from("0\n"), &Value::from(160))
    );
    let one_file = json(&tree, &["fold", "f1.txt", "--json"]);
    assert_eq!(
        (&one_file["result"]["text"], &one_file["nodes"]),
        (&Value::from("1\n"), &Value::from(1))
    );
    let salted = json(&tree, &["fold", "--json", "--salt", "x"]);
    assert_ne!(salted["request"], json(&tree, &["fold", "--json"])["request"]);
}

/// In base64, 100 MB exceed the library's default limit on a response.
#[test]
fn large_files_and_non_utf8_names_are_accepted() {
    let root = TempDir::new().unwrap();
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::write(root.path().join(name), vec![b'\n'; 100_000_000]).unwrap();
    for visitor in ["total-size", "line-count"] {
        let report = json(root.path(), &["fold", "--json", "--post", visitor]);
        assert_eq!(report["result"]["text"], "100000000\n", "{visitor}");
    }
    let arguments = ["run", "file-count", "--raw", "--arg"].map(OsStr::new);
    let output =
        manifold(root.path(), &[&arguments[..], &[OsStr::from_bytes(b"in=caf\xe9")]].concat());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `--arg` and `--text` are arguments of the visitor. The lines of an outcome are below the table.
#[test]
fn visitors_have_arguments_and_lines() {
    let root = bench();
    let table =
        succeeds(root.path(), &["fold", "tree", "--post", "grep", "--text", "pattern=d1/f2"]);
    let (_, lines) = table.split_once("\n\n").unwrap();
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines[0], "count:13");
    assert_eq!(lines[1], "lines/d1/d1/d1/f2.txt:1:tree/d1/d1/d1/f2.txt");
    assert_eq!(lines.len(), 14);

    fs::write(root.path().join("pattern"), "d1/f2").unwrap();
    let fold = ["fold", "tree", "--json", "--post", "grep", "--arg", "pattern=pattern"];
    let report = json(root.path(), &fold);
    assert_eq!(report["result"]["values"], serde_json::json!({ "count": 13 }));
    let with_pre = [&fold[..], &["--pre", "dirs-only", "--text", "count=1"]].concat();
    assert_eq!(json(root.path(), &with_pre)["result"]["values"], serde_json::json!({ "count": 0 }));

    let all = succeeds(root.path(), &["fold", "tree", "--post", "grep", "--text", "pattern=tree"]);
    let (table, lines) = all.split_once("\n\n").unwrap();
    assert_eq!(lines.lines().count(), 42, "{lines}");
    let id = table.lines().last().unwrap().split(' ').next_back().unwrap();
    assert!(
        lines.ends_with(&format!("…\nmanifold cat --lines {id} prints all of it\n")),
        "{lines}"
    );

    let table = json(root.path(), &["fold", "tree", "--json", "--post", "lines-by-language"]);
    assert_eq!(
        table["result"]["values"],
        serde_json::json!({
            "Plain Text files": 120, "Plain Text code": 0, "Plain Text comments": 120,
            "Plain Text blanks": 0
        })
    );
    for (arguments, problem) in [
        (&["--text", "in=x"][..], "the argument \"in\" of a visitor is one that fold passes"),
        (&["--text", "a=1", "--text", "a=2"], "a"),
        (&["--text", "a"], "NAME=VALUE"),
    ] {
        let errors = fails(root.path(), &[&["fold", "tree"], arguments].concat());
        assert!(errors.contains(problem), "{errors}");
    }
}

#[test]
fn a_directory_and_its_revision_have_the_same_request() {
    let root = repository();
    let directory = json(root.path(), &["fold", "--json"]);
    assert_eq!(directory["result"]["text"], "121\n", "a symbolic link is a leaf");
    for rev in ["HEAD", "main", "v1", &git(root.path(), &["rev-parse", "HEAD"]), "HEAD:"] {
        let revision = json(root.path(), &["fold", "--rev", rev, "--json"]);
        assert_eq!(revision["request"], directory["request"], "{rev}");
        assert_eq!(revision["nodes"], directory["nodes"], "{rev}");
    }
    let folder = json(&root.path().join("tree/d1"), &["fold", "--rev", "HEAD:tree", "--json"]);
    assert_eq!(folder["request"], json(root.path(), &["fold", "tree", "--json"])["request"]);
    assert_eq!(
        json(root.path(), &["fold", "--rev", "HEAD:tree/f1.txt", "--json"])["result"]["text"],
        "1\n"
    );

    assert_eq!(
        json(root.path(), &["fold", "tree/f1.txt", "--rev", "HEAD", "--json"])["request"],
        directory["request"]
    );
    git(root.path(), &["tag", "-a", "-m", "a file", "file", "HEAD:tree/f1.txt"]);
    assert_eq!(json(root.path(), &["fold", "--rev", "file", "--json"])["result"]["text"], "1\n");

    git(root.path(), &["gc", "--quiet"]);
    let packed = json(root.path(), &["fold", "--rev", "HEAD", "--json"]);
    assert_eq!(packed["request"], directory["request"]);
    let linked = TempDir::new().unwrap();
    git(root.path(), &["worktree", "add", "--quiet", linked.path().join("tree").to_str().unwrap()]);
    let worktree = json(&linked.path().join("tree"), &["fold", "--rev", "HEAD", "--json"]);
    assert_eq!(worktree["request"], directory["request"], "a linked worktree");
}
