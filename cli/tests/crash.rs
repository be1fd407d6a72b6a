//! A folding process is killed at random points; what it leaves behind is sound, and the fold can be finished.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use serde_json::Value;
use tempfile::TempDir;

/// Files in the directory that is folded: enough for several commits.
const FILES: usize = 4000;

fn manifold(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command.args(arguments).args(["--store", "store"]).current_dir(place).env_remove("MANIFOLD_STORE");
    command
}

fn start_fold(place: &Path, salt: &str) -> Child {
    let mut fold = manifold(place, &["fold", "tree", "--json", "--salt", salt]);
    fold.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn json(place: &Path, arguments: &[&str]) -> Value {
    let output = manifold(place, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(place: &Path) -> u64 {
    let verified = json(place, &["verify", "--json"]);
    assert_eq!(verified["damages"], Value::Array(Vec::new()), "{verified}");
    assert_eq!(verified["entries_without_object"], 0, "a hit without its object: {verified}");
    verified["entries"].as_u64().unwrap()
}

#[test]
fn a_process_that_is_killed_a_hundred_times_leaves_a_sound_store() {
    let place = TempDir::new().unwrap();
    let place = place.path();
    for number in 0..FILES {
        let directory = place.join(format!("tree/{}/{}", number / 500, number / 50));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(number.to_string()), format!("{number}\n")).unwrap();
    }
    let mut random = proptest::test_runner::TestRunner::deterministic();
    let mut delay = || (0u64..450).new_tree(&mut random).unwrap().current();
    let (mut salts, mut in_the_midst, mut least) = (0, 0, 0);
    for crash in 0..100 {
        let salt = salts.to_string();
        let mut victim = start_fold(place, &salt);
        // Sometimes two processes share the store, and one of them is left alone.
        let other = (crash % 4 == 0).then(|| start_fold(place, &salt));
        sleep(Duration::from_millis(delay()));
        let finished = victim.try_wait().unwrap();
        victim.kill().unwrap();
        let output = victim.wait_with_output().unwrap();
        if let Some(mut other) = other {
            assert!(other.wait().unwrap().success(), "the death of one process is the other's, too");
        }
        match finished {
            None => in_the_midst += 1,
            Some(status) => {
                assert!(status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                salts += 1;
            }
        }
        if crash % 5 == 4 {
            let entries = check(place);
            assert!(entries >= least, "what was committed is gone: {entries} entries of {least}");
            least = entries;
        }
    }
    let pins = manifold(place, &["pins"]).output().unwrap();
    let pins = String::from_utf8(pins.stdout).unwrap().lines().count();
    assert!(pins >= salts, "{pins} pins of {salts} folds that came to an end");
    assert!(in_the_midst > 30, "only {in_the_midst} processes were killed at work");
    for salt in 0..=salts {
        let report = json(place, &["fold", "tree", "--json", "--salt", &salt.to_string()]);
        assert_eq!(report["result"]["text"], format!("{FILES}\n"));
    }
    assert!(check(place) >= least);
}
