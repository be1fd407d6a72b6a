//! The subcommands of `manifold`, run as a user runs them.

mod changes;
mod errors;
mod explain;
mod fold;
mod git;
mod history;
mod images;
mod machine;
mod new;
mod objects;
mod original_abi;
mod page;
mod run;
mod trace;
#[cfg(feature = "v8")]
mod typescript;
mod words;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
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
