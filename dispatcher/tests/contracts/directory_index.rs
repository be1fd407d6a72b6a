//! Indexes of directories: what a later scan reads, and that it finds what a scan without an index
//! finds.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::thread;
use std::time::{Duration, SystemTime};

use manifold_dispatcher::api::{ObjectId, ObjectKind};
use manifold_dispatcher::{DirectoryObjects, ObjectSource, ScanOptions};
use tempfile::TempDir;

/// A directory, and a place for its index.
struct Fixture {
    place: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { place: TempDir::new().unwrap() };
        fs::create_dir(fixture.path("")).unwrap();
        fixture
    }

    fn path(&self, below: &str) -> PathBuf {
        self.place.path().join("directory").join(below)
    }

    fn write(&self, below: &str, content: impl AsRef<[u8]>) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn options(&self) -> ScanOptions {
        DirectoryObjects::options().index_in(self.place.path().join("indexes")).tick(Duration::ZERO)
    }

    fn index(&self) -> PathBuf {
        let mut files = fs::read_dir(self.place.path().join("indexes")).unwrap();
        let index = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none());
        index
    }

    /// Scans with the index. Asserts that the result is that of a scan without it, and returns how
    /// many files were hashed.
    fn scan(&self) -> u64 {
        age();
        let scanned = self.options().scan(&self.path("")).unwrap();
        let plain = DirectoryObjects::scan(&self.path("")).unwrap();
        assert_eq!(scanned.root(), plain.root());
        assert_eq!(scanned.nodes(), plain.nodes());
        assert_eq!(scanned.nested_repositories(), plain.nested_repositories());
        scanned.hashed_files()
    }
}

/// Waits until the clock of the file system has moved on.
fn age() {
    thread::sleep(Duration::from_millis(25));
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let settings = ["-c", "user.name=test", "-c", "user.email=test@localhost"];
    let mut git = Command::new("git");
    let output = git.args(settings).args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn blob(content: &[u8]) -> ObjectId {
    ObjectId::of(ObjectKind::Blob, content)
}

#[test]
fn only_files_that_changed_are_read() {
    let fixture = Fixture::new();
    for number in 0..30 {
        fixture.write(&format!("a/{}/{number}", number % 3), format!("file {number}\n"));
    }
    fixture.write("top", "top\n");
    symlink("top", fixture.path("link")).unwrap();
    assert_eq!(fixture.scan(), 31);
    assert_eq!(fixture.scan(), 0);
    // Content, also of the same length.
    fixture.write("a/1/4", "FILE 4\n");
    assert_eq!(fixture.scan(), 1);
    // The time of modification is set back, as tools that unpack archives do.
    let before = fs::metadata(fixture.path("a/1/7")).unwrap().modified().unwrap();
    fixture.write("a/1/7", "FILE 7\n");
    File::options().write(true).open(fixture.path("a/1/7")).unwrap().set_modified(before).unwrap();
    assert_eq!(fixture.scan(), 1);
    // Mode.
    fs::set_permissions(fixture.path("top"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fixture.scan(), 1);
    // A file that replaces another one, with its times.
    fixture.write("other", "pot\n");
    File::options().write(true).open(fixture.path("other")).unwrap().set_modified(before).unwrap();
    fs::rename(fixture.path("other"), fixture.path("top")).unwrap();
    assert_eq!(fixture.scan(), 1);
    // Links are read, and files that come, go and move.
    fs::remove_file(fixture.path("link")).unwrap();
    symlink("elsewhere", fixture.path("link")).unwrap();
    assert_eq!(fixture.scan(), 0);
    fs::rename(fixture.path("a/2"), fixture.path("a/4")).unwrap();
    fixture.write("a/4/new", "new\n");
    fs::remove_file(fixture.path("a/0/0")).unwrap();
    assert_eq!(fixture.scan(), 11);
    assert_eq!(fixture.scan(), 0);
    // A directory becomes a file, and a file a directory.
    fs::remove_dir_all(fixture.path("a/1")).unwrap();
    fixture.write("a/1", "a file now\n");
    fs::remove_file(fixture.path("top")).unwrap();
    fixture.write("top/inner", "a directory now\n");
    assert_eq!(fixture.scan(), 2);
}

#[test]
fn objects_are_read_from_an_unchanged_directory() {
    let fixture = Fixture::new();
    fixture.write("a/b/c", "deep\n");
    fixture.write("a/big", vec![b'x'; 100_000]);
    symlink("b/c", fixture.path("a/link")).unwrap();
    fixture.scan();
    let objects = fixture.options().scan(&fixture.path("")).unwrap();
    assert_eq!(objects.hashed_files(), 0);
    let read = |id| objects.read(id).unwrap().unwrap().content;
    assert_eq!(read(blob(b"deep\n")), "deep\n");
    assert_eq!(read(blob(b"b/c")), "b/c");
    assert_eq!(objects.size(blob(&vec![b'x'; 100_000])).unwrap(), Some(100_000));
    let root = objects.read(objects.root().id).unwrap().unwrap();
    assert_eq!((root.id(), root.kind), (objects.root().id, ObjectKind::Tree));
    // A file that changes now is an error, and never served.
    fixture.write("a/b/c", "DEEP\n");
    assert!(objects.read(blob(b"deep\n")).is_err());
}

/// What just changed may change again with the same times.
#[test]
fn young_files_are_read_again() {
    let fixture = Fixture::new();
    fixture.write("young", "young\n");
    let options = fixture.options().tick(Duration::from_secs(2));
    for _ in 0..2 {
        assert_eq!(options.scan(&fixture.path("")).unwrap().hashed_files(), 1);
    }
    thread::sleep(Duration::from_millis(2100));
    assert_eq!(options.scan(&fixture.path("")).unwrap().hashed_files(), 1);
    assert_eq!(options.scan(&fixture.path("")).unwrap().hashed_files(), 0);
}

/// A clock that was wrong has left times in the future.
#[test]
fn files_from_the_future_are_read_again() {
    let fixture = Fixture::new();
    fixture.write("future", "future\n");
    let file = File::options().write(true).open(fixture.path("future")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(1000)).unwrap();
    for _ in 0..3 {
        assert_eq!(fixture.scan(), 1);
    }
}

#[test]
fn rehash_reads_everything() {
    let fixture = Fixture::new();
    fixture.write("a", "a\n");
    assert_eq!((fixture.scan(), fixture.scan()), (1, 0));
    let scanned = fixture.options().rehash(true).scan(&fixture.path("")).unwrap();
    assert_eq!(scanned.hashed_files(), 1);
    assert_eq!(fixture.scan(), 0);
}

#[test]
fn damaged_and_foreign_indexes_are_ignored_and_replaced() {
    let fixture = Fixture::new();
    fixture.write("a/b", "b\n");
    fixture.write("c", "c\n");
    fixture.scan();
    let index = fixture.index();
    let sound = fs::read(&index).unwrap();
    let damages: Vec<Vec<u8>> = (0..sound.len())
        .step_by(7)
        .map(|place| {
            let mut damaged = sound.clone();
            damaged[place] ^= 1;
            damaged
        })
        .chain([Vec::new(), sound[1..].to_vec(), sound[..sound.len() - 1].to_vec(), vec![0; 500]])
        .collect();
    for damaged in damages {
        fs::write(&index, damaged).unwrap();
        age();
        let scanned = fixture.options().scan(&fixture.path("")).unwrap();
        assert_eq!(scanned.hashed_files(), 2);
    }
    assert_eq!(fixture.scan(), 0);
    // Others can read it: it may be somebody else's.
    assert_eq!(fs::metadata(&index).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&index, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!((fixture.scan(), fixture.scan()), (2, 0));
    // It is no file.
    fs::rename(&index, index.with_extension("moved")).unwrap();
    symlink(index.with_extension("moved"), &index).unwrap();
    assert_eq!((fixture.scan(), fixture.scan()), (2, 0));
}

#[test]
fn an_index_that_cannot_be_written_is_no_error() {
    let fixture = Fixture::new();
    fixture.write("a", "a\n");
    fs::write(fixture.place.path().join("indexes"), "in the way").unwrap();
    assert_eq!((fixture.scan(), fixture.scan()), (1, 1));
}

/// The index is below the directory itself.
#[test]
fn indexes_and_stores_inside_are_left_out() {
    let fixture = Fixture::new();
    fixture.write("a", "a\n");
    let plain = DirectoryObjects::scan(&fixture.path("")).unwrap();
    let inside = fixture.path("inside");
    let options = DirectoryObjects::options().index_in(&inside).tick(Duration::ZERO);
    for place in [fixture.path(""), inside.clone(), fixture.path("")] {
        age();
        options.scan(&place).unwrap();
    }
    assert_eq!(options.scan(&fixture.path("")).unwrap().root(), plain.root());
    // Another scan does not leave it out, and the index knows that.
    assert_ne!(fixture.options().scan(&fixture.path("")).unwrap().root(), plain.root());
    fixture.scan();
}

#[test]
fn nested_repositories_are_looked_at_each_time() {
    let fixture = Fixture::new();
    fixture.write("outer", "outer\n");
    fixture.write("nested/file", "one\n");
    assert_eq!((fixture.scan(), fixture.scan()), (2, 0));
    let nested = fixture.path("nested");
    git(&nested, &["init", "--quiet", "."]);
    git(&nested, &["add", "--all"]);
    git(&nested, &["commit", "--quiet", "--message", "one"]);
    assert_eq!((fixture.scan(), fixture.scan()), (0, 0));
    // The repository's own files say which commit is checked out.
    git(&nested, &["commit", "--quiet", "--allow-empty", "--message", "two"]);
    fixture.scan();
    fs::remove_dir_all(nested.join(".git")).unwrap();
    assert_eq!(fixture.scan(), 1);
}

#[test]
fn several_scans_share_an_index() {
    let fixture = Fixture::new();
    for number in 0..200 {
        fixture.write(&format!("{}/{number}", number % 7), format!("{number}\n"));
    }
    age();
    let plain = DirectoryObjects::scan(&fixture.path("")).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..20 {
                    let options = fixture.options().rehash(round % 3 == 0);
                    assert_eq!(options.scan(&fixture.path("")).unwrap().root(), plain.root());
                }
            });
        }
    });
    assert_eq!(fixture.scan(), 0);
}

/// Random changes, each compared with a scan that has no index.
#[test]
fn an_index_changes_nothing_but_the_time() {
    let fixture = Fixture::new();
    let mut state = 0x853c_49e6_748f_ea9b_u64;
    let mut random = |bound: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33) % bound
    };
    let names = ["a", "b", "b.c", "b-c", "c", "d"];
    let mut hashed = 0;
    for round in 0..150 {
        for _ in 0..random(6) {
            let depth = 1 + random(4);
            let mut path = fixture.path("");
            for _ in 0..depth {
                path.push(names[usize::try_from(random(6)).unwrap()]);
            }
            // Files and directories take each other's places now and then.
            if random(8) > 0 {
                path.set_extension(format!("file{}", random(5)));
            }
            let directory = path.parent().unwrap().to_owned();
            // Something on the way may be a file.
            if fs::create_dir_all(&directory).is_err() {
                continue;
            }
            let _ = match random(12) {
                0 => fs::remove_file(&path),
                1 => fs::remove_dir_all(&path),
                2 => fs::rename(&path, directory.join("moved")),
                3 => symlink(format!("target {}", random(3)), &path),
                4 => fs::create_dir(&path),
                5 => fs::set_permissions(&path, fs::Permissions::from_mode(0o744)),
                6 => fs::hard_link(fixture.path("a"), &path),
                _ => fs::write(&path, format!("content {}\n", random(4))),
            };
        }
        let scanned = fixture.scan();
        hashed += scanned;
        assert!(scanned < 60, "{scanned} files were hashed in round {round}");
        if random(3) == 0 {
            assert_eq!(fixture.scan(), 0, "round {round}");
        }
    }
    assert!(hashed > 100, "{hashed} files were hashed");
}

/// A working tree with four files in git's index, which is younger than they are.
fn working_tree() -> Fixture {
    let fixture = Fixture::new();
    for file in ["a", "b", "sub/c", "sub/d"] {
        fixture.write(file, format!("content of {file}\n"));
    }
    let root = fixture.path("");
    git(&root, &["init", "--quiet", "."]);
    age();
    git(&root, &["add", "--all"]);
    fixture
}

#[test]
fn the_first_scan_of_a_working_tree_uses_the_index_of_git() {
    let fixture = working_tree();
    let root = fixture.path("");
    let tree = git(&root, &["write-tree"]);
    let scanned = fixture.options().scan(&root).unwrap();
    assert_eq!((scanned.root().id.to_string(), scanned.hashed_files()), (tree, 0));
    assert_eq!(fixture.scan(), 0);
    // Also that of a directory inside, and of files that have packed objects.
    git(&root, &["commit", "--quiet", "--message", "one"]);
    git(&root, &["gc", "--quiet"]);
    assert_eq!(fixture.options().scan(&root.join("sub")).unwrap().hashed_files(), 0);
}

#[test]
fn what_git_has_not_hashed_is_read() {
    type Change = fn(&Fixture);
    let changes: [(&str, u64, Change); 6] = [
        ("content of the same length", 1, |fixture| fixture.write("a", "CONTENT OF a\n")),
        ("a new file", 1, |fixture| fixture.write("new", "new\n")),
        ("a file that git is told not to look at", 1, |fixture| {
            git(&fixture.path(""), &["update-index", "--assume-unchanged", "a"]);
            fixture.write("a", "CONTENT OF a\n");
        }),
        ("a file that is to be added", 1, |fixture| {
            fixture.write("new", "new\n");
            git(&fixture.path(""), &["add", "--intent-to-add", "new"]);
        }),
        ("a damaged index", 4, |fixture| {
            let index = fixture.path(".git/index");
            let mut bytes = fs::read(&index).unwrap();
            bytes[80] ^= 1;
            fs::write(index, bytes).unwrap();
        }),
        ("objects that are gone", 4, |fixture| {
            fs::remove_dir_all(fixture.path(".git/objects")).unwrap();
            fs::create_dir(fixture.path(".git/objects")).unwrap();
        }),
    ];
    for (what, read, change) in changes {
        let fixture = working_tree();
        change(&fixture);
        assert_eq!(fixture.scan(), read, "{what}");
    }
}

/// The ids in git's index are not those of the files.
#[test]
fn files_that_git_converts_are_read() {
    let root_of = |fixture: &Fixture| fixture.path("");
    type Change = fn(&Path);
    let settings: [(&str, Change); 4] = [
        ("core.autocrlf", |root| drop(git(root, &["config", "core.autocrlf", "input"]))),
        ("attributes", |root| fs::write(root.join(".gitattributes"), "* text=auto\n").unwrap()),
        ("attributes of the repository", |root| {
            fs::write(root.join(".git/info/attributes"), "* eol=lf\n").unwrap();
        }),
        ("earlier settings", |root| {
            git(root, &["config", "core.autocrlf", "input"]);
            // Within one second, git would read the file again.
            thread::sleep(Duration::from_millis(1100));
            git(root, &["add", "--all"]);
            git(root, &["config", "--unset", "core.autocrlf"]);
        }),
    ];
    for (what, set) in settings {
        let fixture = Fixture::new();
        fixture.write("text", "one\r\ntwo\r\n");
        let root = root_of(&fixture);
        git(&root, &["init", "--quiet", "."]);
        fs::create_dir_all(root.join(".git/info")).unwrap();
        set(&root);
        age();
        git(&root, &["add", "--all"]);
        assert!(fixture.scan() > 0, "{what}");
    }
}

/// The path of the directory leads elsewhere for a while.
#[test]
fn what_vanishes_without_a_change_of_its_directory_is_found_again() {
    const FILES: usize = 400;
    let fixture = Fixture::new();
    for number in 0..FILES {
        fixture.write(&format!("releases/1/{number}"), vec![b'x'; 200_000]);
        fixture.write(&format!("releases/1/sub/{number}"), vec![b'y'; 200_000]);
    }
    fixture.write("releases/2/other", "other\n");
    let current = fixture.path("current");
    symlink("releases/1", &current).unwrap();
    age();
    let switched = current.clone();
    let once = Once::new();
    let options = fixture.options().on_progress(move |_| {
        once.call_once(|| {
            fs::remove_file(&switched).unwrap();
            symlink("releases/2", &switched).unwrap();
        });
    });
    let scanned = options.scan(&current).unwrap();
    let complete = DirectoryObjects::scan(&fixture.path("releases/1")).unwrap();
    assert_ne!(scanned.root(), complete.root(), "the link was switched too late");
    let again = fixture.options().scan(&fixture.path("releases/1")).unwrap();
    assert_eq!(again.root(), complete.root());
}

/// A repository that somebody else has made contains what must not be read.
#[test]
fn pipes_and_links_in_repositories_are_not_read() {
    let fixture = Fixture::new();
    let pipe = fixture.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for attributes in [".gitattributes", "sub/.gitattributes"] {
        let tree = working_tree();
        let root = tree.path("");
        fs::create_dir_all(root.join("sub")).unwrap();
        symlink(&pipe, root.join(attributes)).unwrap();
        git(&root, &["add", "--all"]);
        assert!(tree.scan() > 0, "what git may convert is read");
    }

    let nested = fixture.path("nested");
    for file in ["HEAD", "commondir"] {
        let _ = fs::remove_dir_all(&nested);
        fs::create_dir(&nested).unwrap();
        git(&nested, &["init", "--quiet", "--initial-branch=main", "."]);
        git(&nested, &["commit", "--quiet", "--allow-empty", "--message", "one"]);
        let replaced = nested.join(".git").join(file);
        let _ = fs::remove_file(&replaced);
        symlink(&pipe, &replaced).unwrap();
        // Git, if it is asked, waits for the pipe until it is killed.
        let scan = fixture.options().rehash(true);
        let path = fixture.path("");
        let (done, is_done) = std::sync::mpsc::channel();
        thread::spawn(move || done.send(scan.scan(&path).map(|_| ())));
        let _ = is_done.recv_timeout(Duration::from_secs(60)).expect(file);
    }
    // A symbolic ref leads to a ref.
    fs::remove_dir_all(&nested).unwrap();
    fs::create_dir(&nested).unwrap();
    git(&nested, &["init", "--quiet", "."]);
    fs::write(nested.join(".git/HEAD"), format!("ref: {}\n", pipe.display())).unwrap();
    assert!(fixture.options().scan(&fixture.path("")).is_err(), "there is no such commit");
}
