//! `manifold node` and `fold --nats`, with a real NATS server.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use manifold_testing::nats::Nats;
use tempfile::TempDir;

/// A node in a process of its own, which is killed when this is dropped.
struct Helper(Child);

impl Helper {
    fn start(server: &Nats, store: &Path) -> Self {
        let mut node = manifold(store);
        node.args(["node", "--nats", &server.address()]).stderr(Stdio::piped());
        let mut process = node.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("takes runs over"), "{line}");
        Self(process)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn manifold(store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command.env("MANIFOLD_STORE", store).env_remove("MANIFOLD_NATS").stdout(Stdio::piped());
    command
}

fn fold(store: &Path, input: &Path, nats: Option<&str>) -> Output {
    let mut fold = manifold(store);
    fold.arg("fold").arg(input).args(["--post", "lines-by-language", "--guest", "wasm"]);
    if let Some(nats) = nats {
        fold.args(["--nats", nats]);
    }
    fold.output().unwrap()
}

/// Returns the outcome id in the table of a fold.
fn outcome(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let is_id = |word: &&str| word.len() == 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split_whitespace().find(is_id).expect("an id in the table").to_owned()
}

/// Writes a directory whose fold takes a while: 60 directories with 40 files each.
fn write_input(directory: &Path) {
    for outer in 0..60 {
        let directory = directory.join(format!("d{outer}"));
        std::fs::create_dir(&directory).unwrap();
        for inner in 0..40 {
            let lines = format!("let x = {outer}; // {inner}\n").repeat(400);
            std::fs::write(directory.join(format!("f{inner}.rs")), lines).unwrap();
        }
    }
}

#[test]
fn a_fold_with_nodes_has_the_same_outcome() {
    let Some(server) = Nats::start() else { return };
    let [here, alone, there, input] = [(); 4].map(|()| TempDir::new().unwrap());
    write_input(input.path());
    let expected = outcome(&fold(alone.path(), input.path(), None));
    let helper = Helper::start(&server, there.path());
    let shared = fold(here.path(), input.path(), Some(&server.address()));
    assert_eq!(outcome(&shared), expected);
    let text = String::from_utf8_lossy(&shared.stdout);
    let line = text.lines().find(|line| line.starts_with("nodes")).expect("a line about nodes");
    assert!(line.contains("1 other node"), "{line}");
    drop(helper);
    // Another machine finds the outcome without running anything.
    let third = TempDir::new().unwrap();
    let found = fold(third.path(), input.path(), Some(&server.address()));
    assert_eq!(outcome(&found), expected);
}

#[test]
fn a_history_with_nodes_has_the_same_values() {
    let Some(server) = Nats::start() else { return };
    let [here, alone, there, repository] = [(); 4].map(|()| TempDir::new().unwrap());
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(arguments);
        assert!(git.current_dir(repository.path()).output().unwrap().status.success());
    };
    git(&["init", "--quiet"]);
    for commit in 0..4 {
        let text = "line\n".repeat(commit + 1);
        std::fs::write(repository.path().join(format!("f{commit}.txt")), text).unwrap();
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "more"]);
    }
    let history = |store: &Path, nats: Option<&str>| {
        let mut history = manifold(store);
        history.arg("history").arg(repository.path());
        history.args(["--post", "total-size", "--guest", "wasm", "--json"]);
        nats.iter().for_each(|nats| _ = history.args(["--nats", nats]));
        let output = history.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let _helper = Helper::start(&server, there.path());
    let shared = history(here.path(), Some(&server.address()));
    assert_eq!(shared.lines().count(), 4);
    assert_eq!(shared, history(alone.path(), None));
}

// Otherwise its units would be waited for until its time to live is over.
#[cfg(unix)]
#[test]
fn a_node_says_goodbye_when_it_is_told_to_end() {
    let Some(server) = Nats::start() else { return };
    for signal in ["INT", "TERM"] {
        let [here, there, input] = [(); 3].map(|()| TempDir::new().unwrap());
        std::fs::write(input.path().join("f.rs"), format!("fn {signal}() {{}}\n")).unwrap();
        let mut helper = Helper::start(&server, there.path());
        let id = helper.0.id().to_string();
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success()
        );
        helper.0.wait().unwrap();
        let shared = fold(here.path(), input.path(), Some(&server.address()));
        assert!(String::from_utf8_lossy(&shared.stdout).contains("0 other nodes"), "{shared:?}");
    }
}

#[test]
fn without_a_server_the_work_goes_on_with_one_warning() {
    let [here, input] = [(); 2].map(|()| TempDir::new().unwrap());
    std::fs::write(input.path().join("f.rs"), "fn main() {}\n").unwrap();
    let folded = fold(here.path(), input.path(), Some("nats://user:secret@127.0.0.1:1"));
    assert!(folded.status.success());
    let warnings = String::from_utf8_lossy(&folded.stderr).into_owned();
    assert_eq!(warnings.matches("warning").count(), 1, "{warnings}");
    assert!(warnings.contains("127.0.0.1:1") && !warnings.contains("secret"), "{warnings}");
}

#[test]
fn a_node_needs_a_server() {
    let store = TempDir::new().unwrap();
    let mut node = manifold(store.path());
    let output = node.arg("node").stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--nats"));
    let mut node = manifold(store.path());
    node.args(["node", "--nats", "nats://127.0.0.1:1", "--nats-pool", "a.b"]);
    let output = node.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
