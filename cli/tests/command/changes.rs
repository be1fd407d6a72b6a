//! A table of changes of a fold, and what is said about them, for guests in any language.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// Runs the command with the store `store`. Returns what it prints.
fn with_store(root: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command.args(arguments).args(["--store", "store"]).current_dir(root);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A directory `input` with three directories of three files.
pub(crate) fn input() -> TempDir {
    let root = TempDir::new().unwrap();
    for directory in ["d1", "d2", "d3"] {
        fs::create_dir_all(root.path().join("input").join(directory)).unwrap();
        for file in ["f1.txt", "f2.txt", "f3.txt"] {
            let path = root.path().join("input").join(directory).join(file);
            fs::write(path, format!("{directory} {file}\n")).unwrap();
        }
    }
    root
}

/// A change of what is folded or of how, and what `explain` says about it.
pub(crate) struct Change<'a> {
    /// What is done before the first fold.
    pub(crate) prepare: &'a dyn Fn(&Path),
    pub(crate) change: &'a dyn Fn(&Path),
    /// The options of both folds, further ones of the first, and further ones of the second.
    pub(crate) options: &'a [&'a str],
    pub(crate) old_options: &'a [&'a str],
    pub(crate) new_options: &'a [&'a str],
    pub(crate) differences: &'a [&'a str],
    /// The number of frames that run again. There are 9 files, and 4 directories with two frames
    /// each.
    pub(crate) runs: &'a str,
}

impl Change<'_> {
    pub(crate) const NONE: Self = Change {
        prepare: &|_| {},
        change: &|_| {},
        options: &[],
        old_options: &[],
        new_options: &[],
        differences: &[],
        runs: "17 of 17",
    };

    /// Folds before and after the change, and checks what `fold --explain` and `explain` say.
    pub(crate) fn check(&self) {
        let Self { prepare, change, options, old_options, new_options, differences, runs } = self;
        let root = input();
        let root = root.path();
        prepare(root);
        let fold = |further: &[&str]| {
            let fold = [&["fold", "input", "--explain"], *options, further].concat();
            let text = with_store(root, &fold);
            let request = text.lines().find_map(|line| line.strip_prefix("request ")).unwrap();
            (request.to_owned(), text.lines().last().unwrap().to_owned())
        };
        let (first, explanation) = fold(old_options);
        assert_eq!(explanation, "17 of 17 frames ran, because no similar fold is remembered");
        change(root);
        let (second, explanation) = fold(new_options);
        let reasons = differences.join(", ").replace("in/", "");
        assert_eq!(explanation, format!("{runs} frames ran, because {reasons}"), "{options:?}");
        let explained = with_store(root, &["explain", &second, "--json"]);
        let explained: Value = serde_json::from_str(&explained).unwrap();
        assert_eq!(explained["against"], first);
        assert_eq!(explained["differences"], serde_json::json!(differences));
        let text = with_store(root, &["explain", &second[..9]]);
        assert!(differences.iter().all(|difference| text.contains(difference)), "{text}");
        assert_eq!(fold(new_options).1, "no frame ran: the result was remembered");
    }
}

/// Checks the changes that are possible with guests in the language `guest`.
pub(crate) fn check_all(guest: &str) {
    let options = ["--guest", guest];
    let of_guest = Change { options: &options, ..Change::NONE };
    let file = |root: &Path, path: &str| fs::write(root.join(path), "changed\n").unwrap();
    let suffix = if guest == "wasm" { String::new() } else { format!(".{guest}") };
    let visitor = format!("post: file-count{suffix} → line-count{suffix}");
    Change {
        change: &|root| file(root, "input/d3/f2.txt"),
        differences: &["in/d3/f2.txt changed"],
        runs: "5 of 17",
        ..of_guest
    }
    .check();
    Change {
        change: &|root| {
            file(root, "input/d1/new.txt");
            fs::remove_file(root.join("input/d2/f1.txt")).unwrap();
        },
        differences: &["in/d1/new.txt added", "in/d2/f1.txt removed"],
        runs: "7 of 17",
        ..of_guest
    }
    .check();
    Change {
        new_options: &["--salt", "other"],
        differences: &["salt: \"\" → \"other\""],
        ..of_guest
    }
    .check();
    Change { new_options: &["--post", "line-count"], differences: &[&visitor], ..of_guest }.check();
    Change {
        change: &|root| drop(with_store(root, &["std", "add", "mine", "line-count"])),
        differences: &["std mine added"],
        ..of_guest
    }
    .check();
}
