//! What a scan of a directory leaves out when it is asked to, compared with what git ignores.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use manifold_dispatcher::api::ObjectRef;
use manifold_dispatcher::{DirectoryError, DirectoryObjects, ScanOptions};
use tempfile::TempDir;

fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir(directory).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| text.trim().to_owned())
}

fn write(path: PathBuf, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn root(options: &ScanOptions, path: &Path) -> ObjectRef {
    options.scan(path).unwrap().root()
}

/// Returns the root of a directory that has these files only. Their content is their name.
fn root_of(files: &[&str]) -> ObjectRef {
    let directory = with_files(files);
    DirectoryObjects::scan(directory.path()).unwrap().root()
}

fn with_files(files: &[&str]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for file in files {
        write(directory.path().join(file), file);
    }
    directory
}

/// A generator of numbers that a seed determines.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.0 >> 33) % bound
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap()]
    }
}

/// Changes something: a file, a file of patterns, the patterns for the whole repository, or what is
/// tracked.
fn change(random: &mut Random, work: &Path) {
    const NAMES: [&str; 7] = ["a", "b", "c.txt", "d.log", "B", "e f", "#g"];
    const PATTERNS: [&str; 24] = [
        "a",
        "/a",
        "a/",
        "b/",
        "*.log",
        "**/c.txt",
        "!a/c.txt",
        "a/**",
        "!*/",
        "b*",
        "[ab]",
        "#g",
        "\\#g",
        "e f",
        "e f ",
        "c.txt  ",
        "*",
        "!b",
        "!/a/",
        "/a/b",
        "a/*/c.txt",
        "!d.log",
        "/*/a",
        "**/b/**",
    ];
    let mut below = PathBuf::new();
    for _ in 0..random.below(3) {
        below.push(random.pick(&["a", "b", "B"]));
    }
    let directory = work.join(&below);
    let patterns = |random: &mut Random| {
        let lines = (0..random.below(4)).map(|_| random.pick(&PATTERNS));
        lines.collect::<Vec<_>>().join("\n")
    };
    match random.below(10) {
        0 | 1 => {
            // A directory may be in the way.
            let _ = fs::create_dir_all(&directory);
            let _ = fs::write(directory.join(".gitignore"), patterns(random));
        }
        2 => drop(fs::remove_file(directory.join(".gitignore"))),
        3 => write(work.join(".git/info/exclude"), &patterns(random)),
        4 => write(work.join(".git/global"), &patterns(random)),
        5 => {
            let path = below.join(random.pick(&NAMES));
            git(work, &["add", "--force", "--", path.to_str().unwrap()]);
        }
        6 => {
            let path = directory.join(random.pick(&NAMES));
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        _ => {
            let _ = fs::create_dir_all(&directory);
            let content = random.below(1000).to_string();
            let _ = fs::write(directory.join(random.pick(&NAMES)), content);
        }
    }
}

#[test]
fn a_scan_without_ignored_files_has_the_tree_that_git_adds() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let place = TempDir::new().unwrap();
        let work = place.path().join("work");
        fs::create_dir(&work).unwrap();
        git(&work, &["init", "--quiet"]).unwrap();
        git(&work, &["config", "core.excludesFile", ".git/global"]).unwrap();
        let options = DirectoryObjects::options()
            .gitignore(true)
            .index_in(place.path().join("indexes"))
            .tick(Duration::ZERO);
        for step in 0..60 {
            for _ in 0..=random.below(4) {
                change(&mut random, &work);
            }
            let scanned = root(&options, &work);
            let below = work.join("a").is_dir().then(|| root(&options, &work.join("a")));
            let is_below_ignored =
                git(&work, &["check-ignore", "--no-index", "--quiet", "a"]).is_some();
            git(&work, &["add", "--all"]).unwrap();
            let tree = git(&work, &["write-tree"]).unwrap();
            assert_eq!(scanned.id.to_string(), tree, "seed {seed}, step {step}");
            let tree_below = git(&work, &["rev-parse", "--verify", &format!("{tree}:a")]);
            if let (Some(below), Some(tree), false) = (below, tree_below, is_below_ignored) {
                assert_eq!(below.id.to_string(), tree, "seed {seed}, step {step}, below");
            }
        }
    }
}

#[test]
fn patterns_count_as_the_lines_of_a_gitignore_file() {
    let files = ["a/b.log", "a/c.txt", "d.log", "docs/a/x.pdf", "docs/y.pdf", "target/z"];
    let directory = with_files(&files);
    let table: [(&[&str], &[&str]); 7] = [
        (&["*.log"], &["a/c.txt", "docs/a/x.pdf", "docs/y.pdf", "target/z"]),
        (&["/target/", "a"], &["d.log", "docs/y.pdf"]),
        (&["./target", "docs/**/*.pdf"], &["a/b.log", "a/c.txt", "d.log"]),
        (&["*.log", "!./d.log", "docs", "./target"], &["a/c.txt", "d.log"]),
        (&["*.log", "!/d.log", "docs"], &["a/c.txt", "d.log", "target/z"]),
        (&["!/d.log", "*.log", "docs", "target"], &["a/c.txt"]),
        (&["*"], &[]),
    ];
    for (patterns, kept) in table {
        let options = patterns
            .iter()
            .fold(DirectoryObjects::options(), |options, pattern| options.exclude(*pattern));
        let scanned = options.scan(directory.path()).unwrap();
        assert_eq!(scanned.root(), root_of(kept), "{patterns:?}");
    }
}

#[test]
fn patterns_count_before_the_rules_of_git() {
    let directory = with_files(&["a.log", "b.log", "c.txt", "d.txt"]);
    write(directory.path().join(".gitignore"), "*.log\n.gitignore\n");
    let options = DirectoryObjects::options().gitignore(true).exclude("!a.log").exclude("d.txt");
    assert_eq!(root(&options, directory.path()), root_of(&["a.log", "c.txt"]));
}

#[test]
fn each_choice_of_patterns_has_an_index_of_its_own() {
    let directory = with_files(&["a.log", "b.txt"]);
    let indexes = TempDir::new().unwrap();
    let options = DirectoryObjects::options().index_in(indexes.path()).tick(Duration::ZERO);
    let without_logs = options.clone().exclude("*.log");
    std::thread::sleep(Duration::from_millis(25));
    for number in 0..2 {
        let all = options.scan(directory.path()).unwrap();
        assert_eq!(all.root(), root_of(&["a.log", "b.txt"]));
        assert_eq!(all.hashed_files(), if number == 0 { 2 } else { 0 });
        let some = without_logs.scan(directory.path()).unwrap();
        assert_eq!(some.root(), root_of(&["b.txt"]));
        assert_eq!(some.hashed_files(), if number == 0 { 1 } else { 0 });
    }
}

#[test]
fn a_text_that_is_no_pattern_is_an_error_that_names_it() {
    let directory = with_files(&["a"]);
    for text in ["", "# a", "a\nb"] {
        let error = DirectoryObjects::options().exclude(text).scan(directory.path());
        let error = error.map(|objects| objects.root()).unwrap_err();
        assert!(matches!(&error, DirectoryError::NotAPattern { text: found } if found == text));
    }
}

/// Without the index, it is unknown which of the ignored files are tracked.
#[test]
fn an_index_of_git_that_is_damaged_is_an_error() {
    let directory = with_files(&["a.log", "b.txt"]);
    let path = directory.path();
    write(path.join(".gitignore"), "*.log\n");
    git(path, &["init", "--quiet"]).unwrap();
    git(path, &["add", "--force", "--all"]).unwrap();
    let options = DirectoryObjects::options().gitignore(true);
    assert_eq!(options.scan(path).unwrap().nodes(), 4, "all are tracked");
    fs::write(path.join(".git/index"), "DIRC and nothing").unwrap();
    let error = options.scan(path).map(|objects| objects.root()).unwrap_err();
    assert!(matches!(&error, DirectoryError::Io { path, .. } if path.ends_with(".git/index")));
}
