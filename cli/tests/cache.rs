//! The command with a cache that several machines share. Each machine is a store here.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use manifold_testing::buildgrid::BuildGrid;
use manifold_testing::certificates::Certificates;
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

/// A directory with enough files that a fold of it takes a while.
fn large_place() -> TempDir {
    let place = TempDir::new().unwrap();
    for directory in 0..40 {
        let directory = place.path().join(format!("input/d{directory}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..40 {
            let text = format!("let x = {}; // {file}\n", directory.display()).repeat(200);
            fs::write(directory.join(format!("f{file}.rs")), text).unwrap();
        }
    }
    place
}

/// A fold that goes on while the test does something.
struct Folding {
    process: Child,
}

impl Folding {
    fn start(place: &Path, options: &[&str]) -> Self {
        Self::start_with(place, "lines-by-language", options)
    }

    fn start_with(place: &Path, visitor: &str, options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
        command.args(["fold", "input", "--post", visitor]).args(options);
        command.current_dir(place).env_remove("MANIFOLD_CACHE");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { process: command.spawn().unwrap() }
    }

    /// Waits for the result in the table.
    fn result(&mut self) -> String {
        let stdout = self.process.stdout.as_mut().unwrap();
        let mut text = String::new();
        for line in BufReader::new(stdout).lines() {
            let line = line.unwrap();
            text.push_str(&line);
            text.push('\n');
            let is_id =
                |word: &&str| word.len() == 40 && u128::from_str_radix(&word[..32], 16).is_ok();
            if let Some(id) = line.split_whitespace().find(is_id) {
                return id.to_owned();
            }
        }
        panic!("no id in {text}");
    }

    /// Waits for the end. Returns what the command wrote to standard error.
    fn end(self) -> String {
        let output = self.process.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        errors
    }
}

fn signal(process: u32, signal: &str) {
    let kill = Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status();
    assert!(kill.unwrap().success());
}

/// Folds without a cache.
fn expected(place: &Path) -> String {
    expected_of(place, "lines-by-language")
}

fn expected_of(place: &Path, visitor: &str) -> String {
    let mut alone = Folding::start_with(place, visitor, &["--store", "alone"]);
    let result = alone.result();
    alone.end();
    result
}

/// A visitor that is busy for some tenths of a second, and whose outcome is the empty tree.
const BUSY: &str = r#"(module
    (import "caos_abi_v1" "call" (func $call (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "{\22op\22:\22out\22,\22kind\22:\22tree\22,\22hash\22:\224b825dc642cb6eb9a060e54bf8d69288fbee4904\22}")
    (func (export "caos_run") (local $n i32)
        (loop $again
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $n) (i32.const 1000000000))))
        (drop (call $call (i32.const 0) (i32.const 76)))))"#;

/// A fold with a cache, to whose server something happens. It lasts for longer than half a second
/// because its visitor is busy, so that what happens before happens during the fold.
struct Disturbed {
    _place: TempDir,
    server: BuildGrid,
    expected: String,
    fold: Folding,
}

impl Disturbed {
    fn start() -> Option<Self> {
        let server = BuildGrid::start()?;
        let place = TempDir::new().unwrap();
        fs::create_dir_all(place.path().join("input/d")).unwrap();
        for file in ["input/d/a", "input/d/b"] {
            fs::write(place.path().join(file), file).unwrap();
        }
        fs::write(place.path().join("busy.wasm"), wat::parse_str(BUSY).unwrap()).unwrap();
        let expected = expected_of(place.path(), "busy.wasm");
        let options = ["--cache", &server.address(""), "--cache-ref", "main", "--store", "store"];
        let fold = Folding::start_with(place.path(), "busy.wasm", &options);
        Some(Self { _place: place, server, expected, fold })
    }

    /// Checks that the fold has its result soon, and warns once.
    fn ends(mut self) {
        let start = Instant::now();
        assert_eq!(self.fold.result(), self.expected);
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        self.server.kill();
        let errors = self.fold.end();
        assert_eq!(errors.matches("warning: ").count(), 1, "{errors}");
    }
}

#[test]
fn a_server_that_is_killed_during_a_fold_is_one_warning() {
    let Some(mut disturbed) = Disturbed::start() else { return };
    thread::sleep(Duration::from_millis(300));
    disturbed.server.kill();
    disturbed.ends();
}

#[cfg(unix)]
#[test]
fn a_server_that_stops_answering_during_a_fold_does_not_hold_its_result() {
    let Some(disturbed) = Disturbed::start() else { return };
    thread::sleep(Duration::from_millis(300));
    signal(disturbed.server.process().unwrap(), "STOP");
    disturbed.ends();
}

#[test]
fn a_server_that_is_killed_at_any_time_makes_nothing_wrong() {
    let place = large_place();
    let place = place.path();
    let expected = expected(place);
    for time in [0, 50, 100, 400, 800] {
        let Some(mut server) = BuildGrid::start() else { return };
        let store = format!("store-{time}");
        let options = ["--cache", &server.address(""), "--cache-ref", "main", "--store", &store];
        let mut fold = Folding::start(place, &options);
        thread::sleep(Duration::from_millis(time));
        server.kill();
        assert_eq!(fold.result(), expected);
        let errors = fold.end();
        // Everything may have been sent before.
        assert!(errors.matches("warning: ").count() <= 1, "{errors}");
    }
}

/// The server has room for a part of a pack only, and then for a few packs.
#[test]
fn a_server_that_is_full_or_removes_what_it_has_makes_nothing_wrong() {
    let place = large_place();
    let place = place.path();
    let expected = expected(place);
    for size in ["10K", "200K"] {
        let Some(server) = BuildGrid::start_small(size) else { return };
        let address = server.address("");
        for store in ["one", "two", "three"] {
            let store = format!("{store}-{size}");
            let options = ["--cache", &address, "--cache-ref", "main", "--store", &store];
            let mut fold = Folding::start(place, &options);
            assert_eq!(fold.result(), expected);
            let errors = fold.end();
            assert!(errors.matches("warning: ").count() <= 1, "{errors}");
        }
    }
}

#[test]
fn a_collection_during_a_fold_with_a_cache_makes_nothing_wrong() {
    let Some(server) = BuildGrid::start() else { return };
    let place = large_place();
    let place = place.path();
    let expected = expected(place);
    let address = server.address("");
    let options = |store| ["--cache", &address, "--store", store];
    let mut first = Folding::start(place, &options("one"));
    assert_eq!(first.result(), expected);
    first.end();
    // Most of it is run, and some directories come from the cache.
    for directory in 0..40 {
        fs::write(place.join(format!("input/d{directory}/f3.rs")), "let y = 1;\n").unwrap();
    }
    let expected = self::expected(place);
    let mut second = Folding::start(place, &options("two"));
    let is_over = |fold: &mut Folding| fold.process.try_wait().unwrap().is_some();
    let mut collections = 0;
    while !is_over(&mut second) && collections < 10 {
        let all = ["--used-within", "0s", "--written-within", "0s"];
        let gc = manifold(place, &[&["gc", "--store", "two"], &all[..]].concat());
        assert!(gc.status.success(), "{}", String::from_utf8_lossy(&gc.stderr));
        collections += 1;
    }
    assert!(collections > 0);
    assert_eq!(second.result(), expected);
    // The process whose lock took long is named.
    let errors = second.end();
    assert!(errors.lines().all(|line| line.starts_with("waiting for ")), "{errors}");
}

#[test]
fn a_history_shares_outcomes() {
    let Some(server) = BuildGrid::start() else { return };
    let place = TempDir::new().unwrap();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(arguments);
        assert!(git.current_dir(place.path()).output().unwrap().status.success());
    };
    git(&["init", "--quiet"]);
    for commit in 0..4 {
        fs::write(place.path().join(format!("f{commit}.txt")), "line\n".repeat(commit + 1))
            .unwrap();
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "more"]);
    }
    let address = server.address("");
    let history = |store: &str| {
        let history = ["history", ".", "--post", "total-size", "--store", store];
        let options = ["--cache", &address, "--cache-ref", "history"];
        let output = manifold(place.path(), &[&history[..], &options].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        (String::from_utf8(output.stdout).unwrap(), errors)
    };
    let (rows, exchanged) = history("one");
    assert!(exchanged.contains(" sent ("), "{exchanged}");
    let (again, exchanged) = history("two");
    assert_eq!(again, rows);
    // Each commit has a root and a file of its own.
    assert!(exchanged.contains("outcomes taken") && !exchanged.contains("sent"), "{exchanged}");
}

#[test]
fn a_secure_server_wants_a_certificate() {
    let certificates = Certificates::new();
    let Some(server) = BuildGrid::start_secure(&certificates) else { return };
    let place = place();
    let place = place.path();
    let address = server.address("");
    let file = |name| certificates.file(name).to_str().unwrap().to_owned();
    let authority = ["--cache", &address, "--cache-ca", &file("authority.pem")];
    let identity = ["--cache-cert", &file("client.pem"), "--cache-key", &file("client.key")];
    let known = [&authority[..], &identity].concat();
    let status = manifold(place, &[&["cache", "status"], &known[..]].concat());
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    assert!(fold(place, "one", &known)["cache"]["sent_packs"].as_u64() > Some(0));
    assert_eq!(fold(place, "two", &known)["cache"]["hit"], true);
    for unknown in [&authority[..], &["--cache", &address]] {
        let status = manifold(place, &[&["cache", "status"], unknown].concat());
        assert_eq!(status.status.code(), Some(6), "{}", String::from_utf8_lossy(&status.stderr));
    }
}
