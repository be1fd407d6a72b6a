//! `manifold request`, `manifold get`, `manifold diff`, and `manifold cat` with paths.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use crate::{bench, fails, git, json, repository, succeeds};

#[test]
fn request_says_what_run_would_run() {
    let root = bench();
    let arguments = ["line-count", "--arg", "in=tree/f1.txt", "--json", "--store", "s"];
    let asked = json(root.path(), &[&["request"], &arguments[..]].concat());
    assert!(asked["outcome"].is_null(), "{asked}");
    let ran = json(root.path(), &[&["run"], &arguments[..]].concat());
    assert_eq!(ran["request"], asked["request"]);
    let again = json(root.path(), &[&["request"], &arguments[..]].concat());
    assert_eq!(again["outcome"]["hash"], ran["result"]["hash"]);
    let request = asked["request"].as_str().unwrap();
    let shown = succeeds(root.path(), &["cat", request, "--store", "s"]);
    assert!(shown.ends_with("\tstd\n") && shown.contains("\targs\n"), "{shown}");
    let salted = [&["request"], &arguments[..], &["--salt", "1"]].concat();
    assert_ne!(json(root.path(), &salted)["request"], asked["request"]);
    let text = succeeds(root.path(), &["request", "grep", "--text", "pattern=x", "--store", "s"]);
    assert_eq!(text.lines().nth(1), Some("not memoized"));
}

#[test]
fn objects_are_found_by_their_path() {
    let root = repository();
    let tree = git(root.path(), &["rev-parse", "HEAD^{tree}"]);
    let cat = |path: &str| succeeds(root.path(), &["cat", &format!("{tree}:{path}")]);
    assert_eq!(cat("tree/d1/f2.txt"), "tree/d1/f2.txt\n");
    assert_eq!(cat("/tree//d1/f2.txt/"), "tree/d1/f2.txt\n");
    assert_eq!(cat("link"), "tree/f1.txt");
    assert_eq!(cat("tree").trim(), git(root.path(), &["ls-tree", "HEAD:tree"]));
    assert_eq!(cat("").trim(), git(root.path(), &["ls-tree", "HEAD"]));
    for path in ["tree/none", "tree/f1.txt/x", "none"] {
        let error = fails(root.path(), &["cat", &format!("{tree}:{path}/")]);
        assert!(error.contains(&format!("{tree} has nothing at the path {path}")), "{error}");
    }
}

#[test]
fn get_writes_a_tree_as_git_checks_it_out() {
    let root = repository();
    fs::write(root.path().join("tree/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.path().join("tree/run"), fs::Permissions::from_mode(0o755)).unwrap();
    git(root.path(), &["add", "--all"]);
    git(root.path(), &["commit", "--quiet", "--message", "executable"]);
    let tree = git(root.path(), &["rev-parse", "HEAD^{tree}"]);
    let places = TempDir::new().unwrap();
    let place = |name: &str| places.path().join(name).to_str().unwrap().to_owned();
    let get = |arguments: &[&str]| succeeds(root.path(), &[&["get", &tree], arguments].concat());

    fs::create_dir(place("empty")).unwrap();
    for to in [place("new/deep"), place("empty")] {
        get(&["--to", &to]);
        let index = places.path().join("index");
        let _ = fs::remove_file(&index);
        let git_dir = root.path().join(".git");
        let written = std::process::Command::new("git")
            .args(["add", "--all"])
            .current_dir(&to)
            .env("GIT_DIR", &git_dir)
            .env("GIT_WORK_TREE", &to)
            .env("GIT_INDEX_FILE", &index)
            .status();
        assert!(written.unwrap().success());
        let written = std::process::Command::new("git")
            .arg("write-tree")
            .env("GIT_DIR", &git_dir)
            .env("GIT_INDEX_FILE", &index)
            .output();
        assert_eq!(String::from_utf8_lossy(&written.unwrap().stdout).trim(), tree);
    }
    get(&["tree/f1.txt", "--to", &place("file")]);
    assert_eq!(fs::read_to_string(place("file")).unwrap(), "tree/f1.txt\n");
    get(&["tree/d1", "--to", &place("d1")]);
    assert!(fs::exists(place("d1/d1/f1.txt")).unwrap());

    let refused = |arguments: &[&str]| fails(root.path(), &[&["get", &tree], arguments].concat());
    for taken in ["file", "d1"] {
        let error = refused(&["--to", &place(taken)]);
        assert!(error.contains(&format!("cannot write {}", place(taken))), "{error}");
    }
    symlink("d1", place("leads")).unwrap();
    assert!(refused(&["tree/f1.txt", "--to", &place("leads")]).contains("cannot write"));
    assert!(refused(&["no/such", "--to", &place("other")]).contains("nothing at the path no/such"));
    assert!(!fs::exists(place("other")).unwrap());

    // What was written before a failure is removed.
    let leaf = git(root.path(), &["rev-parse", "HEAD:tree/d3/f3.txt"]);
    fs::remove_file(root.path().join(".git/objects").join(&leaf[..2]).join(&leaf[2..])).unwrap();
    fs::remove_dir_all(place("empty")).unwrap();
    fs::create_dir(place("empty")).unwrap();
    for to in ["part", "empty"] {
        assert!(refused(&["--to", &place(to)]).contains(&leaf));
    }
    assert!(!fs::exists(place("part")).unwrap());
    assert_eq!(fs::read_dir(place("empty")).unwrap().count(), 0);
}

#[test]
fn diff_prints_the_paths_and_lines_that_differ() {
    let root = repository();
    let before = git(root.path(), &["rev-parse", "HEAD^{tree}"]);
    let path = |name: &str| root.path().join(name);
    fs::write(path("tree/f1.txt"), "changed\n").unwrap();
    fs::remove_file(path("tree/f2.txt")).unwrap();
    fs::write(path("new"), "1\n2\n").unwrap();
    fs::remove_file(path("link")).unwrap();
    fs::write(path("link"), "a file").unwrap();
    fs::remove_dir_all(path("tree/d3")).unwrap();
    fs::write(path("tree/d3"), [0, 1, 2]).unwrap();
    git(root.path(), &["add", "--all"]);
    git(root.path(), &["commit", "--quiet", "--message", "changes"]);
    let after = git(root.path(), &["rev-parse", "HEAD^{tree}"]);

    let names = succeeds(root.path(), &["diff", &before, &after, "--name-status"]);
    let of_git = git(root.path(), &["diff", "--no-renames", "--name-status", &before, &after]);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.trim().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&names), sorted(&of_git));
    let text = succeeds(root.path(), &["diff", &before, &after]);
    assert!(text.contains("A\tnew\n@@ -0,0 +1,2 @@\n+1\n+2\n"), "{text}");
    assert!(text.contains("M\ttree/f1.txt\n@@ -1 +1 @@\n-tree/f1.txt\n+changed\n"), "{text}");
    assert!(text.contains("A\ttree/d3\n"), "{text}");

    assert_eq!(succeeds(root.path(), &["diff", &before, &before]), "");
    let files = [format!("{before}:tree/f1.txt"), format!("{after}:tree/f1.txt")];
    let text = succeeds(root.path(), &["diff", &files[0], &files[1]]);
    assert!(text.starts_with("M\t.\n@@"), "{text}");
    let error = fails(root.path(), &["diff", &before, &"ab".repeat(20)]);
    assert!(error.contains("is not in the store"), "{error}");
}
