//! A folding process is killed at random points. The store stays sound, and the fold can be
//! finished.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use serde_json::Value;
use tempfile::TempDir;

/// The number of files in the folded directory. Each has its own size, so that every visit has its
/// own outcome.
const FILES: usize = 4000;

/// Returns the command with the store of this round.
fn manifold(place: &Path, round: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    let store = format!("store-{round}");
    command
        .args(arguments)
        .args(["--store", &store])
        .current_dir(place)
        .env_remove("MANIFOLD_STORE");
    command
}

const FOLD: [&str; 5] = ["fold", "tree", "--json", "--post", "total-size"];

fn start_fold(place: &Path, round: usize) -> Child {
    manifold(place, round, &FOLD).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn json(place: &Path, round: usize, arguments: &[&str]) -> Value {
    let output = manifold(place, round, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Verifies the store of this round, and returns the number of its memo entries and pins.
fn check(place: &Path, round: usize) -> (u64, u64) {
    let verified = json(place, round, &["verify", "--json"]);
    assert_eq!(verified["damages"], Value::Array(Vec::new()), "{verified}");
    assert_eq!(verified["entries_without_object"], 0, "a hit without its object: {verified}");
    (verified["entries"].as_u64().unwrap(), verified["pins"].as_u64().unwrap())
}

/// Waits until the store's file has changed `times` times, or `victim` has ended.
fn wait_for_writes(place: &Path, round: usize, times: u64, victim: &mut Child) {
    let file = place.join(format!("store-{round}/manifold.redb"));
    let state = || fs::metadata(&file).and_then(|file| Ok((file.len(), file.modified()?))).ok();
    let mut seen = state();
    let mut changes = 0;
    while changes < times && victim.try_wait().unwrap().is_none() {
        sleep(Duration::from_micros(200));
        let now = state();
        changes += u64::from(now != seen);
        seen = now;
    }
}

#[test]
fn a_store_stays_sound_when_its_process_is_killed_a_hundred_times() {
    let place = TempDir::new().unwrap();
    let place = place.path();
    for number in 0..FILES {
        let directory = place.join(format!("tree/{}/{}", number / 500, number / 50));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(number.to_string()), vec![b'.'; number]).unwrap();
    }
    let mut random = proptest::test_runner::TestRunner::deterministic();
    let mut up_to = |most: u64| (0..most).new_tree(&mut random).unwrap().current();
    let (mut round, mut least, mut killed) = (0, 0, 0);
    for crash in 0..100 {
        let mut victim = start_fold(place, round);
        // Sometimes a second process shares the store and is not killed.
        let other = (crash % 8 == 0).then(|| start_fold(place, round));
        // Half of the victims are killed at any time, the others while they write.
        if crash % 2 == 0 {
            sleep(Duration::from_millis(up_to(400)));
        } else {
            wait_for_writes(place, round, 1 + up_to(6), &mut victim);
            sleep(Duration::from_micros(up_to(10_000)));
        }
        let finished = victim.try_wait().unwrap();
        victim.kill().unwrap();
        let output = victim.wait_with_output().unwrap();
        let other = other.map(|other| other.wait_with_output().unwrap());
        for output in other.iter().chain(finished.map(|_| &output)) {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "a process fails because another was killed: {errors}"
            );
        }
        killed += u32::from(finished.is_none());

        // Checked at once, before another process can repair the store.
        let (entries, pins) = check(place, round);
        assert!(entries >= least, "committed entries are lost: {entries} of {least} are left");
        if finished.is_some() || other.is_some() {
            assert_eq!(pins, 1, "the outcome of a finished fold is pinned");
            round += 1;
        }
        least = if finished.is_some() || other.is_some() { 0 } else { entries };
    }
    assert!(killed > 30, "only {killed} processes were killed while they were running");
    for round in 0..=round {
        let report = json(place, round, &FOLD);
        assert_eq!(report["result"]["text"], format!("{}\n", FILES * (FILES - 1) / 2));
        check(place, round);
    }
}
