//! `manifold explain`, `manifold where` and `fold --explain`, for a table of constructed changes.

use std::fs;
use std::path::Path;

use crate::changes::{Change, check_all, check_engine, input};
use crate::machine::EMPTY_TREE_GUEST;
use crate::{fails, git, succeeds};
use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{Dispatcher, DurableStore, Invocation};
use serde_json::Value;
use tempfile::TempDir;

/// Runs the command with the store `store`.
fn with_store(root: &Path, arguments: &[&str]) -> String {
    succeeds(root, &[arguments, &["--store", "store"]].concat())
}

fn explain(root: &Path, request: &str) -> Value {
    serde_json::from_str(&with_store(root, &["explain", request, "--json"])).unwrap()
}

/// Folds `input`, and returns the id of the request and the explanation.
fn fold(root: &Path, options: &[&str]) -> (String, String) {
    let text = with_store(root, &[&["fold", "input", "--explain"], options].concat());
    let request = text.lines().find_map(|line| line.strip_prefix("request ")).unwrap();
    (request.to_owned(), text.lines().last().unwrap().to_owned())
}

#[test]
fn explanations_name_exactly_what_changed() {
    check_all("wasm");
}

#[tokio::test]
async fn explanations_name_another_version_of_wasmtime() {
    check_engine("wasm", "engine").await;
}

#[test]
fn explanations_name_a_module_that_changed() {
    let module = |root: &Path, number: u8| {
        let mut module = wat::parse_str(EMPTY_TREE_GUEST).unwrap();
        // A section that has no meaning.
        module.extend([0, 3, 1, b'n', number]);
        fs::write(root.join("v.wasm"), module).unwrap();
    };
    Change {
        prepare: &|root| module(root, 1),
        change: &|root| module(root, 2),
        options: &["--post", "v.wasm"],
        differences: &["post: another module"],
        ..Change::NONE
    }
    .check();
}

#[test]
fn revisions_are_compared_in_their_repository() {
    let root = input();
    let repository = root.path().join("input");
    git(&repository, &["init", "--quiet", "--initial-branch=main", "."]);
    git(&repository, &["add", "--all"]);
    git(&repository, &["commit", "--quiet", "--message", "first"]);
    fs::write(repository.join("d2/f3.txt"), "changed\n").unwrap();
    git(&repository, &["commit", "--quiet", "--all", "--message", "second"]);
    fold(root.path(), &["--rev", "HEAD~1"]);
    let (_, explanation) = fold(root.path(), &["--rev", "HEAD"]);
    assert_eq!(explanation, "5 of 17 frames ran, because d2/f3.txt changed");
}

#[test]
fn a_request_says_what_it_is_what_it_wanted_and_who_wanted_it() {
    let root = input();
    let (request, _) = fold(root.path(), &[]);
    let whole = explain(root.path(), &request);
    assert_eq!(whole["image"]["name"], "fold");
    assert!(whole["runtime"].as_str().unwrap().starts_with("wasmtime "), "{whole}");
    assert_eq!(whole["args"]["post"], "file-count");
    assert_eq!(whole["wanted"].as_array().unwrap().len(), 4, "three directories and the visitor");
    let below = whole["wanted"][0].as_str().unwrap();
    let below_it = explain(root.path(), below);
    assert_eq!(below_it["wanted_by"], serde_json::json!([request]));
    assert_eq!(below_it["wanted"].as_array().unwrap().len(), 4, "three files and the visitor");

    // The tree of a request that a guest made is shown like any other.
    let tree = with_store(root.path(), &["cat", below]);
    assert!(tree.contains("\targs\n") && tree.contains("\timage\n"), "{tree}");
    assert_eq!(with_store(root.path(), &["cat", &format!("{}:salt", &below[..12])]), "");

    let outcome = below_it["outcome"]["hash"].as_str().unwrap();
    let made = with_store(root.path(), &["where", outcome, "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    let makers = made["made_by"].as_array().unwrap();
    assert!(makers.iter().any(|maker| maker["request"] == below && maker["image"] == "fold"));
    let root_outcome = whole["outcome"]["hash"].as_str().unwrap();
    let text = with_store(root.path(), &["where", root_outcome]);
    assert!(text.contains(&request) && text.contains("reached by 1 pins"), "{text}");
}

#[test]
fn a_failed_request_can_be_looked_at() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("bad.wasm"), "no wasm").unwrap();
    fails(root.path(), &["run", "bad.wasm", "--store", "store"]);
    let request = with_store(root.path(), &["request", "bad.wasm"]);
    let request = request.lines().next().unwrap();
    let explained = explain(root.path(), request);
    assert!(explained["error"].as_str().unwrap().contains("WebAssembly"), "{explained}");
    assert_eq!(explained["outcome"], Value::Null);
    assert!(with_store(root.path(), &["cat", request]).contains("\timage\n"));
}

#[test]
fn without_records_nothing_is_explained() {
    let root = input();
    let (request, explanation) = fold(root.path(), &["--no-provenance"]);
    assert_eq!(explanation, "nothing to explain: no record of requests is kept");
    let error = fails(root.path(), &["explain", &request, "--store", "store"]);
    assert!(error.contains("no record") && error.contains("--no-provenance"), "{error}");
    for (id, expected) in [
        ("0123456789abcdef", "begins with 0123456789abcdef"),
        ("12", "invalid object id"),
        ("not an id", "invalid object id"),
    ] {
        let error = fails(root.path(), &["explain", id, "--store", "store"]);
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn another_version_of_a_runtime_is_named() {
    let root = TempDir::new().unwrap();
    let mut requests = Vec::new();
    for version in ["1", "2"] {
        let guests = NativeRuntime::builder("engine", version)
            .guest("echo", |guest| async move { guest.blob(guest.text("in").await?).await });
        let store = DurableStore::open(root.path().join("store")).unwrap();
        let dispatcher = Dispatcher::builder().store(store).provenance(true).build().unwrap();
        let host = dispatcher.add_runtime(guests.build().unwrap()).unwrap();
        let image = dispatcher.install(host, "echo").unwrap();
        let run = dispatcher.run(Invocation::new(image).arg("in", "a text")).await.unwrap();
        requests.push(run.request.to_string());
        dispatcher.flush().unwrap();
    }
    let explained = explain(root.path(), &requests[1]);
    assert_eq!(explained["against"], requests[0]);
    assert_eq!(
        explained["differences"],
        serde_json::json!(["host image: engine version 1 → 2"]),
        "{explained}"
    );
}

#[test]
fn an_audit_runs_remembered_requests_again() {
    let root = input();
    let (request, _) = fold(root.path(), &[]);
    let audit = |options: &[&str]| {
        let json = with_store(root.path(), &[&["audit", "--json"], options].concat());
        serde_json::from_str::<Value>(&json).unwrap()
    };
    let all = audit(&["--share", "100%", "--input", "input"]);
    assert_eq!((&all["same"], &all["differ"], &all["skipped"]), (&17.into(), &0.into(), &0.into()));
    let some = audit(&["--share", "20%", "--seed", "7", "--input", "input"]);
    assert_eq!(some["same"], 4, "a fifth of 17, rounded up");
    // Directories are there, but the files are not in the store.
    let named = audit(&[&request[..12]]);
    assert_eq!(named["same"], 1, "{named}");
    let without = audit(&["--share", "100%"]);
    assert!(without["skipped"].as_u64().unwrap() > 0, "{without}");
    let reason = without["requests"][0]["skipped"].as_str().unwrap();
    assert!(reason.contains("--input"), "{reason}");
    let error = fails(root.path(), &["audit", "--share", "0%", "--store", "store"]);
    assert!(error.contains("percentage"), "{error}");
}

#[test]
fn a_fold_shows_the_result_of_each_directory() {
    let root = input();
    fs::create_dir(root.path().join("input/d2/below")).unwrap();
    fs::write(root.path().join("input/d2/below/f"), "f").unwrap();
    let shown = |options: &[&str]| {
        let text = with_store(root.path(), &[&["fold", "input", "--tree"], options].concat());
        text.split_once("\n\n").map(|(_, tree)| tree.to_owned()).unwrap()
    };
    let all = ".  10\n  d1  3\n  d2  4\n    d2/below  1\n  d3  3\n";
    assert_eq!(shown(&[]), all);
    assert_eq!(shown(&[]), all, "also from the memo");
    assert_eq!(shown(&["--depth", "1"]), all.replace("    d2/below  1\n", ""));
    assert_eq!(shown(&["--depth", "0"]), ".  10\n");
    let json = with_store(root.path(), &["fold", "input", "--tree", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["tree"][3]["path"], "d2/below");
    assert_eq!(json["tree"][3]["result"]["text"], "1\n");
}

#[test]
fn a_failing_fold_names_the_path_that_failed() {
    let root = input();
    fs::write(root.path().join("input/d2/bad.bin"), [0xff, 0xfe, 0, 1]).unwrap();
    let fold = ["fold", "input", "--store", "store", "--post", "grep", "--text", "pattern=("];
    for without_records in [&[][..], &["--no-provenance"], &["--no-store"]] {
        let error = fails(root.path(), &[&fold[..], without_records].concat());
        assert!(error.contains("failed at d") && error.contains(" of the input"), "{error}");
    }
}
