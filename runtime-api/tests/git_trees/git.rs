//! The installed git, which the tests compare with.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use manifold_runtime_api::ObjectId;
use tempfile::TempDir;

/// An empty repository in which git checks trees.
pub(crate) struct Git(TempDir);

impl Git {
    pub(crate) fn new() -> Self {
        let git = Self(TempDir::new().unwrap());
        git.run(&["init", "--quiet", "--object-format=sha1", "."], b"").unwrap();
        git.run(&["hash-object", "-w", "-t", "blob", "--stdin"], b"").unwrap();
        git.run(&["hash-object", "-w", "-t", "tree", "--stdin"], b"").unwrap();
        git
    }

    pub(crate) fn run(&self, arguments: &[&str], input: &[u8]) -> Result<String, String> {
        run(self.0.path(), arguments, input)
    }

    /// Stores a tree with git and returns its id, or git's error if git refuses the tree.
    pub(crate) fn store(&self, encoded: &[u8]) -> Result<ObjectId, String> {
        let id = self.run(&["hash-object", "-w", "-t", "tree", "--stdin"], encoded)?;
        Ok(id.trim().parse().unwrap())
    }

    pub(crate) fn version(&self) -> (u32, u32) {
        let version = self.run(&["version"], b"").unwrap();
        let mut numbers = version
            .trim_start_matches("git version ")
            .split('.')
            .map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Returns the id that git computes for a tree without validating it.
    pub(crate) fn id(&self, encoded: &[u8]) -> ObjectId {
        self.run(&["hash-object", "--literally", "-t", "tree", "--stdin"], encoded)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// Stores a tree without validation, checks it with `git fsck --strict`, and removes it again.
    pub(crate) fn fsck(&self, encoded: &[u8]) -> Result<(), String> {
        let id =
            self.run(&["hash-object", "-w", "--literally", "-t", "tree", "--stdin"], encoded)?;
        let checked = self.run(&["fsck", "--strict", "--no-dangling", id.trim()], b"");
        std::fs::remove_file(
            self.0.path().join(".git/objects").join(&id[..2]).join(id[2..].trim()),
        )
        .unwrap();
        checked.map(drop)
    }
}

fn run(directory: &Path, arguments: &[&str], input: &[u8]) -> Result<String, String> {
    let mut child = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git is installed");
    // If git fails before it has read all of its input, it closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
