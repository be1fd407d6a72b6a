//! The subcommands of `manifold`, run as a user runs them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Runs the command with a new store.
fn manifold<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> Output {
    let cache = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command
        .args(arguments)
        .current_dir(directory)
        .env("XDG_CACHE_HOME", cache.path())
        .env_remove("MANIFOLD_STORE");
    command.output().unwrap()
}

fn succeeds(directory: &Path, arguments: &[&str]) -> String {
    let output = manifold(directory, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "manifold {arguments:?}: {errors}");
    assert_eq!(errors, "", "manifold {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(directory: &Path, arguments: &[&str]) -> Value {
    let text = succeeds(directory, arguments);
    assert_eq!(text.lines().count(), 1, "one object: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Returns the standard error of a failing command. Its standard output must be empty.
fn fails(directory: &Path, arguments: &[&str]) -> String {
    let output = manifold(directory, arguments);
    assert!(!output.status.success(), "manifold {arguments:?} succeeds");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "manifold {arguments:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("error: "), "{errors}");
    assert_eq!(errors.matches("error: ").count(), 1, "{errors}");
    errors
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let identity =
        ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
    let output =
        Command::new("git").args(identity).args(arguments).current_dir(directory).output().unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Writes the fixture *bench* to a directory.
fn bench() -> TempDir {
    fn fill(directory: &Path, path: &str, levels: usize) {
        fs::create_dir_all(directory).unwrap();
        for number in 1..=3 {
            fs::write(directory.join(format!("f{number}.txt")), format!("{path}/f{number}.txt\n"))
                .unwrap();
            if levels > 0 {
                fill(
                    &directory.join(format!("d{number}")),
                    &format!("{path}/d{number}"),
                    levels - 1,
                );
            }
        }
    }
    let root = TempDir::new().unwrap();
    fill(&root.path().join("tree"), "tree", 3);
    root
}

fn repository() -> TempDir {
    let root = bench();
    git(root.path(), &["init", "--quiet", "--initial-branch=main", "."]);
    symlink("tree/f1.txt", root.path().join("link")).unwrap();
    git(root.path(), &["add", "--all"]);
    git(root.path(), &["commit", "--quiet", "--message", "bench"]);
    git(root.path(), &["tag", "-a", "-m", "a tag", "v1"]);
    root
}

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
    assert_eq!(keys, ["guest", "nodes", "repeats", "request", "result"]);
}

#[test]
fn fold_prints_a_table_with_a_row_for_each_repeat() {
    let root = bench();
    let table = succeeds(root.path(), &["fold", "tree", "--repeat", "2"]);
    for word in
        ["result", "nodes", "frames run", "memo hits", "time", "frames/s", "120", "160", "200"]
    {
        assert!(table.contains(word), "{word} is not in:\n{table}");
    }
    assert!(table.contains("blob 52bd8e43afb01d0c9747f1fedf2fc94684ee4cc4"), "{table}");
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
fn bad_input_is_reported_as_one_error() {
    let root = repository();
    let error = |arguments: &[&str]| fails(root.path(), arguments);
    assert!(error(&["fold", "nowhere"]).contains("nowhere does not exist"));
    assert!(
        error(&["fold", "--post", "no-such"])
            .contains("one of dirs-only, file-count, fold, line-count, total-size")
    );
    assert!(error(&["fold", "--post", "/cas/std/no-such"]).contains("no image"));
    assert!(error(&["fold", "--post", &"ab".repeat(20)]).contains("is not in the store"));
    assert!(
        error(&["fold", "--rev", "no-such"])
            .contains("\"no-such\" does not name a file or directory")
    );
    assert!(
        error(&["fold", "--rev", "HEAD:no/such"]).contains("does not name a file or directory")
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

#[test]
fn a_deep_failure_shows_the_first_and_last_frames() {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join(["d"; 40].join("/"))).unwrap();
    fs::write(root.path().join(["d"; 40].join("/")).join("f"), "").unwrap();
    let error =
        fails(root.path(), &["run", "fold", "--arg", "in=.", "--text", "post=no such image"]);
    assert!(error.starts_with("error: image \"no such image\": expected"), "{error}");
    assert!(error.contains("\n      … 31 more …\n"), "{error}");
    assert_eq!(error.matches("\n      in request ").count(), 10, "{error}");
}

#[cfg(feature = "v8")]
mod typescript {
    use super::*;

    #[test]
    fn several_languages_return_the_same_result() {
        let bench = bench();
        let report = json(bench.path(), &["fold", "tree", "--guest", "wasm,ts", "--json"]);
        assert_eq!(report["agree"], true);
        let guests = report["guests"].as_array().unwrap();
        assert_eq!(
            guests.iter().map(|guest| guest["guest"].as_str().unwrap()).collect::<Vec<_>>(),
            ["wasm", "ts"]
        );
        assert!(guests.iter().all(|guest| guest["result"]["text"] == "120\n"), "{report}");
        assert_eq!(guests[0]["repeats"][0]["runs"], guests[1]["repeats"][0]["runs"]);

        // With one visitor for both languages, the second fold gets all its visits from the memo.
        for post in ["file-count.wasm", "file-count.ts"] {
            let report = json(
                bench.path(),
                &["fold", "tree", "--guest", "wasm,ts", "--post", post, "--json"],
            );
            assert_eq!(report["guests"][0]["repeats"][0]["runs"], 200, "{report}");
            assert_eq!(report["guests"][1]["repeats"][0]["runs"], 40, "{report}");
        }
        let table =
            succeeds(bench.path(), &["fold", "tree", "--guest", "ts,wasm", "--repeat", "2"]);
        assert_eq!(
            table
                .lines()
                .filter(|line| line.starts_with(" ts ") || line.starts_with(" wasm "))
                .count(),
            4,
            "{table}"
        );
        assert!(fails(bench.path(), &["fold", "--guest", "cobol"]).contains("wasm, ts"));
    }

    #[test]
    fn a_file_or_directory_can_be_run_as_a_guest() {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("shout.ts"), "import { get, tree } from 'manifold:guest';\nexport default async ({ args }: { args: string }) =>\n  new TextDecoder().decode(await get((await tree(args))[0]!.hash)).toUpperCase();\n").unwrap();
        assert_eq!(
            succeeds(directory.path(), &["run", "shout.ts", "--text", "in=hello", "--raw"]),
            "HELLO"
        );
        fs::write(path("plain.js"), "export default () => 'plain';").unwrap();
        assert_eq!(succeeds(directory.path(), &["run", "plain.js", "--raw"]), "plain");

        fs::create_dir_all(path("guest/lib")).unwrap();
        fs::create_dir_all(path("guest/node_modules/typescript")).unwrap();
        fs::write(
            path("guest/main.ts"),
            "import { name } from './lib/name.ts';\nexport default () => `${name}`;",
        )
        .unwrap();
        fs::write(path("guest/lib/name.ts"), "export const name: string = 'a tree';").unwrap();
        fs::write(path("guest/node_modules/typescript/huge.js"), "no code").unwrap();
        assert_eq!(succeeds(directory.path(), &["run", "guest", "--raw"]), "a tree");

        fs::write(
            path("broken.ts"),
            "export default () => {\n  throw new Error('my own words');\n};\n",
        )
        .unwrap();
        let error = fails(directory.path(), &["run", "broken.ts"]);
        assert!(error.contains("my own words (main.ts:2:9 in default)"), "{error}");
    }

    #[test]
    fn types_prints_the_declarations() {
        let types = succeeds(Path::new("."), &["types"]);
        assert!(types.contains("declare module \"manifold:guest\""), "{types}");
    }
}
