//! Bad input and failing guests: one error that names the thing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::Value;
use tempfile::TempDir;

use crate::{bench, fails, git, manifold, repository};

#[test]
fn bad_input_is_reported_as_one_error() {
    let root = repository();
    let error = |arguments: &[&str]| fails(root.path(), arguments);
    assert!(error(&["fold", "nowhere"]).contains("nowhere does not exist"));
    assert!(
        error(&["fold", "--post", "no-such"])
            .contains("one of dirs-only, duplicate-files, file-count, fold, grep, largest-files, ")
    );
    assert!(error(&["fold", "--post", "/cas/std/no-such"]).contains("no image"));
    assert!(error(&["fold", "--post", &"ab".repeat(20)]).contains("is not in the store"));
    assert!(
        error(&["fold", "--rev", "no-such"])
            .contains("\"no-such\" names nothing in the repository of .")
    );
    assert!(
        error(&["fold", "--rev", "HEAD:no/such"]).contains("\"HEAD:no/such\" names nothing in")
    );
    assert!(error(&["fold", "/dev/null"]).contains("neither a directory nor a file"));
    assert!(error(&["run", "fold", "--arg", "in"]).contains("expected NAME=VALUE"));
    assert!(error(&["run", "fold", "--arg", "a=1", "--text", "a=2"]).contains("given twice"));
    assert!(error(&["run", "fold", "--arg", "a/b=1"]).contains("slash"));

    let elsewhere = TempDir::new().unwrap();
    let not_a_repository = fails(elsewhere.path(), &["fold", "--rev", "HEAD"]);
    assert!(
        not_a_repository.contains("not in a git repository")
            && not_a_repository.contains("because: ")
    );

    let error = fails(elsewhere.path(), &["cat", &"ab".repeat(20), "--repo", "."]);
    assert!(error.contains("not in a git repository"), "{error}");
    symlink("round", elsewhere.path().join("round")).unwrap();
    for arguments in [&["fold", "round"][..], &["run", "file-count", "--arg", "in=round"]] {
        let error = fails(elsewhere.path(), arguments);
        assert!(
            error.contains("cannot read round") && error.contains("because: Too many levels"),
            "{error}"
        );
    }
    git(elsewhere.path(), &["init", "--quiet", "--object-format=sha256", "other"]);
    for arguments in
        [&["fold", "other", "--rev", "HEAD"][..], &["cat", &"ab".repeat(20), "--repo", "other"]]
    {
        let error = fails(elsewhere.path(), arguments);
        assert!(error.contains("has SHA-256 ids, which are not supported"), "{error}");
    }

    // A nested repository without a commit cannot be stored as a submodule.
    let nested = fails(elsewhere.path(), &["fold"]);
    assert!(nested.contains("nested git repository ./other"), "{nested}");
    fs::remove_dir_all(elsewhere.path().join("other")).unwrap();
    fs::write(elsewhere.path().join("git~1"), "").unwrap();
    let refused = fails(elsewhere.path(), &["fold"]);
    assert!(refused.contains("git~1") && refused.contains("because: "), "{refused}");
}

/// Root can read every file. As root, the test folds a file whose reads fail.
#[test]
fn an_unreadable_file_is_named_in_the_error() {
    let root = bench();
    let secret = root.path().join("tree/d2/f3.txt");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&secret).is_ok() {
        // Opening this file succeeds, but reading it fails even for root.
        let memory = fails(root.path(), &["fold", "/proc/self/mem"]);
        assert!(memory.contains("/proc/self/mem cannot be read"), "{memory}");
        return;
    }
    assert!(fails(root.path(), &["fold", "tree"]).contains("d2/f3.txt cannot be read"));
}

#[test]
fn a_failing_guest_is_shown_once_with_its_frames() {
    let root = bench();
    let error =
        fails(root.path(), &["run", "fold", "--arg", "in=tree", "--text", "post=/cas/std/fold"]);
    assert_eq!(error.matches("the argument `post` is missing").count(), 1, "{error}");
    assert_eq!(
        error.matches("\n      in request ").count(),
        5,
        "four levels and the visitor: {error}"
    );
    assert!(error.contains("runtime wasmtime"), "{error}");
}

/// Three files are too large for their visitor. Everything else is folded, and remembered.
#[test]
fn all_frames_that_fail_are_listed_on_request() {
    let root = bench();
    let tree = root.path().join("tree");
    for (path, length) in [("large", 5000), ("d1/large", 6000), ("d2/d3/large", 7000)] {
        fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
        fs::write(tree.join(path), vec![b'\n'; length]).unwrap();
    }
    let fold = ["fold", "tree", "--post", "line-count", "--store", "s"];
    let small = [&fold[..], &["--max-response", "4KiB"]].concat();
    let plain = fails(root.path(), &small);
    assert!(plain.contains("  2 other frames failed as well; --keep-going lists all"), "{plain}");
    assert!(plain.starts_with("error: failed at "), "{plain}");

    for store in [&[][..], &["--no-store"]] {
        let all = fails(root.path(), &[&small[..], &["--keep-going"], store].concat());
        let lines: Vec<_> = all.lines().map(str::trim_start).collect();
        assert!(lines[0].starts_with("error: 3 frames failed"), "{all}");
        for (line, path) in lines[1..].iter().zip(["d1/large: ", "d2/d3/large: ", "large: "]) {
            assert!(line.starts_with(path) && line.contains("(line-count, request "), "{all}");
        }
        assert_eq!(lines[4], "--max-response raises this limit");
    }
    let output = manifold(root.path(), &[&small[..], &["--keep-going", "--json"]].concat());
    assert_eq!(output.status.code(), Some(7));
    let json: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(json["error"]["failed"].as_array().unwrap().len(), 3, "{json}");
    assert_eq!(json["error"]["failed"][2]["path"], "large");

    // Only what failed, and what depends on it, is left to run.
    let rest = manifold(root.path(), &[&fold[..], &["--json", "--explain"]].concat());
    let rest: Value = serde_json::from_slice(&rest.stdout).unwrap();
    let whole = manifold(root.path(), &[&fold[..], &["--json", "--recompute"]].concat());
    let whole: Value = serde_json::from_slice(&whole.stdout).unwrap();
    let runs = |fold: &Value| fold["repeats"][0]["runs"].as_u64().unwrap();
    assert_eq!(runs(&rest), 3 + 2 * 4, "three files, and fold and visitor of four directories");
    assert!(runs(&whole) > 2 * runs(&rest), "{whole}");
}

#[test]
fn a_deep_failure_shows_the_first_and_last_frames() {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join(["d"; 40].join("/"))).unwrap();
    fs::write(root.path().join(["d"; 40].join("/")).join("f"), "").unwrap();
    let error =
        fails(root.path(), &["run", "fold", "--arg", "in=.", "--text", "post=no such image"]);
    assert!(error.starts_with("error: failed at d/d/d/d/d/d/"), "{error}");
    assert!(error.contains("\n  because: image \"no such image\": expected"), "{error}");
    assert!(error.contains("\n      … 31 more …\n"), "{error}");
    assert_eq!(error.matches("\n      in request ").count(), 10, "{error}");
}

#[test]
fn the_exit_status_and_json_tell_the_kind_of_a_failure() {
    let root = repository();
    fs::write(root.path().join("trap.wasm"), trap()).unwrap();
    fs::write(root.path().join("damaged"), "no database").unwrap();
    for (arguments, status, kind) in [
        (&["fold", "--post", "no-such"][..], 2, "usage"),
        (&["run", "grep", "--arg", "x"], 2, "usage"),
        (&["run", &"ab".repeat(20)], 7, "store"),
        (&["fold", "nowhere"], 3, "input"),
        (&["fold", "--rev", "nowhere"], 3, "input"),
        (&["run", "trap.wasm"], 4, "guest"),
        (&["run", "grep"], 4, "guest"),
        (&["fold", "tree", "--total-runs", "3"], 5, "limit"),
        (&["fold", "tree", "--store", "damaged"], 7, "store"),
    ] {
        let failed = manifold(root.path(), arguments);
        assert_eq!(failed.status.code(), Some(status), "{arguments:?}");
        let failed = manifold(root.path(), &[arguments, &["--json"]].concat());
        assert_eq!((failed.status.code(), failed.stdout.len()), (Some(status), 0), "{arguments:?}");
        let text = String::from_utf8(failed.stderr).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["error"]["kind"], kind, "{arguments:?}: {text}");
        assert!(!json["error"]["message"].as_str().unwrap().is_empty());
        let frames = json["error"]["frames"].as_array().unwrap().len();
        assert_eq!(frames > 0, matches!(kind, "guest" | "limit"), "{arguments:?}: {text}");
    }
    assert_eq!(manifold(root.path(), &["fold", "--no-such"]).status.code(), Some(2));
    assert_eq!(manifold(root.path(), &["fold", "tree"]).status.code(), Some(0));
}

/// A guest that traps.
fn trap() -> Vec<u8> {
    let text = r#"(module (memory (export "memory") 1) (func (export "caos_run") unreachable))"#;
    wat::parse_str(text).unwrap()
}
