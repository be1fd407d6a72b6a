//! The command with a cache that several machines share. Each machine is a store here.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use manifold_testing::buildgrid::BuildGrid;
use serde_json::Value;
use tempfile::TempDir;

/// A directory `input` with four directories of four files.
fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    for directory in 0..4 {
        let directory = place.path().join(format!("input/d{directory}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..4 {
            let path = directory.join(format!("f{file}"));
            fs::write(&path, path.strip_prefix(place.path()).unwrap().to_str().unwrap()).unwrap();
        }
    }
    place
}

fn manifold(place: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command.args(arguments).current_dir(place).env_remove("MANIFOLD_CACHE");
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Folds on the machine `store`.
fn fold(place: &Path, store: &str, options: &[&str]) -> Value {
    let fold = ["fold", "input", "--json", "--post", "line-count", "--store", store];
    json(&manifold(place, &[&fold[..], options].concat()))
}

fn runs(report: &Value) -> u64 {
    report["repeats"][0]["runs"].as_u64().unwrap()
}

/// A fold runs a frame for each of the 16 files, and two for each of the 5 directories.
const ALL: u64 = 16 + 2 * 5;
/// After a change of one file: its frame, its directory's and the root's.
const PATH: u64 = 1 + 2 * 2;

#[test]
fn machines_share_outcomes() {
    let Some(server) = BuildGrid::start() else { return };
    let place = place();
    let place = place.path();
    let address = server.address("");
    let cache = ["--cache", &address];
    let with_ref = ["--cache", &address, "--cache-ref", "input@main"];

    let first = fold(place, "one", &with_ref);
    assert_eq!((runs(&first), &first["cache"]["hit"]), (ALL, &false.into()), "{first}");
    assert!(first["cache"]["sent_bytes"].as_u64().unwrap() > 500, "{first}");
    let second = fold(place, "two", &cache);
    assert_eq!((runs(&second), &second["cache"]["hit"]), (0, &true.into()), "{second}");
    assert_eq!(second["result"], first["result"]);

    // A machine that never saw the input runs what has changed since.
    fs::write(place.join("input/d2/f3"), "change 0\n").unwrap();
    let third = fold(place, "three", &with_ref);
    assert_eq!(runs(&third), PATH, "{third}");
    assert!(third["cache"]["seeded"].as_u64() >= Some(ALL), "{third}");
    // The name has that as well now, also for one that only reads.
    fs::write(place.join("input/d1/f0"), "change 1\n").unwrap();
    let reading = [&with_ref[..], &["--cache-read-only"]].concat();
    let fourth = fold(place, "four", &reading);
    assert_eq!((runs(&fourth), &fourth["cache"]["sent_packs"]), (PATH, &0.into()), "{fourth}");
    let fifth = fold(place, "five", &with_ref);
    assert_eq!(runs(&fifth), PATH, "the machine before sent nothing: {fifth}");
    let alone = fold(place, "six", &[]);
    assert_eq!((runs(&alone), &alone["result"]), (ALL, &fifth["result"]));

    // A new name gets what was known before as well.
    let again = fold(place, "six", &["--cache", &address, "--cache-ref", "other"]);
    assert_eq!(runs(&again), 0);
    fs::write(place.join("input/d1/f1"), "change 2\n").unwrap();
    let seventh = fold(place, "seven", &["--cache", &address, "--cache-ref", "other"]);
    assert_eq!(runs(&seventh), PATH, "{seventh}");

    let run = ["run", "total-size", "--arg", "in=input/d1/f1", "--arg", "children=empty", "--json"];
    fs::create_dir(place.join("empty")).unwrap();
    let run =
        |store: &str| json(&manifold(place, &[&run[..], &cache, &["--store", store]].concat()));
    assert_eq!(run("one")["cache"]["hit"], false);
    assert_eq!(run("two")["cache"]["hit"], true);
}

#[test]
fn without_a_cache_the_work_goes_on_with_one_warning() {
    let Some(mut server) = BuildGrid::start() else { return };
    let place = place();
    let place = place.path();
    let address = server.address("");
    let status = ["cache", "status", "--cache", &address, "--json"];
    assert_eq!(json(&manifold(place, &status))["takes_results"], true);
    let read_only = server.address("readonly");
    let status_of = |address: &str| manifold(place, &["cache", "status", "--cache", address]);
    let text = String::from_utf8(status_of(&read_only).stdout).unwrap();
    assert!(text.contains("takes no results"), "{text}");
    server.kill();
    assert_eq!(status_of(&address).status.code(), Some(6));

    let fold = ["fold", "input", "--json", "--store", "s", "--cache", &address];
    let output = manifold(place, &[&fold[..], &["--cache-ref", "main"]].concat());
    assert!(output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors.matches("warning: ").count(), 1, "{errors}");
    assert!(errors.contains("cannot be reached"), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["result"]["text"], "16\n");
}

#[test]
fn wrong_options_are_usage_errors_that_show_no_secrets() {
    let place = place();
    let file = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
    file("headers", "authorization: Bearer top secret\nx y: secret\n");
    file("no-headers", "Bearer-secret\n");
    for options in [
        &["--cache", "http://127.0.0.1:1"][..],
        &["--cache-ref", "main"],
        &["--cache", "grpc://secret@127.0.0.1:1"],
        &["--cache", "grpc://127.0.0.1:1", "--cache-headers", "headers"],
        &["--cache", "grpc://127.0.0.1:1", "--cache-headers", "no-headers"],
        &["--cache", "grpc://127.0.0.1:1", "--cache-ca", "headers"],
        &["--cache", "grpc://127.0.0.1:1", "--cache-ref", "line\nline"],
    ] {
        let output = manifold(place.path(), &[&["fold", "input", "--no-store"], options].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {errors}");
        assert!(!errors.contains("secret"), "{errors}");
    }
    let output = manifold(place.path(), &["cache", "status"]);
    assert_eq!(output.status.code(), Some(2));
}
