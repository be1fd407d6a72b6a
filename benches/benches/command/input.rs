//! Directories and repositories to measure on.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;

/// How many files or directories a directory has.
const WIDTH: usize = 10;

/// Writes a directory with so many files, ten in each directory, and ten directories in each above.
pub(crate) fn write(directory: &Path, files: usize) -> Result<()> {
    for number in 0..files {
        let mut path = directory.to_owned();
        let mut at = number / WIDTH;
        let mut above = files.div_ceil(WIDTH);
        let mut names = Vec::new();
        while above > 1 {
            names.push(format!("d{}", at % WIDTH));
            at /= WIDTH;
            above = above.div_ceil(WIDTH);
        }
        path.extend(names.iter().rev());
        if number % WIDTH == 0 {
            fs::create_dir_all(&path)?;
        }
        fs::write(path.join(format!("f{}", number % WIDTH)), text(number, 0))?;
    }
    Ok(())
}

/// Returns how many frames a fold of the directory has: one of fold and one of the visitor for each
/// directory, and one of the visitor for each file.
pub(crate) fn frames(files: usize) -> usize {
    let (mut frames, mut level) = (files, files);
    while level > 1 {
        level = level.div_ceil(WIDTH);
        frames += 2 * level;
    }
    frames
}

/// Returns the text of a file, some hundred bytes.
fn text(number: usize, version: usize) -> String {
    let mut text = String::new();
    for line in 0..10 + number % 10 {
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "let value_{line} = {number} + {version}; // a line of file {number}");
    }
    text
}

/// Returns how many bytes the file of a store takes on the disk.
pub(crate) fn bytes(store: &Path) -> Result<u64> {
    const BLOCK_BYTES: u64 = 512;
    Ok(fs::metadata(store.join("manifold.redb"))?.blocks() * BLOCK_BYTES)
}

/// Imports a history: a commit with so many files in directories of twenty, and further commits that
/// change three of them each.
pub(crate) fn import_history(repository: &Path, files: usize, commits: usize) -> Result<()> {
    let mut git = Command::new("git");
    let place = format!("--git-dir={}", repository.display());
    git.args([&*place, "fast-import", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut process = git.spawn()?;
    let mut stream =
        std::io::BufWriter::new(process.stdin.take().ok_or("git has no standard input")?);
    for commit in 0..commits {
        let date = 1_600_000_000 + commit * 3600;
        let message = format!("commit {commit}");
        writeln!(stream, "commit refs/heads/main")?;
        writeln!(stream, "committer bench <bench@example.com> {date} +0000")?;
        writeln!(stream, "data {}\n{message}", message.len())?;
        let changed: Vec<_> = match commit {
            0 => (0..files).collect(),
            // Spread over the directories, as changes are.
            _ => (0..3).map(|change| (commit * 37 + change * 7) % files).collect(),
        };
        for file in changed {
            let text = text(file, commit);
            writeln!(stream, "M 100644 inline d{}/f{file}.rs", file / 20)?;
            writeln!(stream, "data {}\n{text}", text.len())?;
        }
    }
    stream.flush()?;
    drop(stream);
    if !process.wait()?.success() {
        return Err("git fast-import failed".into());
    }
    let head = ["symbolic-ref", "HEAD", "refs/heads/main"];
    crate::git([&*place].into_iter().chain(head)).map(drop)
}
