//! Directories as people have them: files that change, other repositories inside, stores inside, files without a length.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use manifold_dispatcher::api::{Error, Limit, ObjectId, ObjectKind, Outcome, Reason, Status};
use manifold_dispatcher::{
    DirectoryError, DirectoryObjects, DurableStore, GitObjects, ObjectSource,
};
use tempfile::TempDir;

fn git(directory: &Path, arguments: &[&str]) -> String {
    let settings = [
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@localhost",
        "-c",
        "protocol.file.allow=always",
    ];
    let output =
        Command::new("git").args(settings).args(arguments).current_dir(directory).output().unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn root_of(directory: &Path) -> Outcome {
    DirectoryObjects::scan(directory).unwrap().root()
}

fn blob(content: &[u8]) -> ObjectId {
    ObjectId::of(ObjectKind::Blob, content)
}

fn changed(error: &Error) {
    assert_eq!(error.status(), Status::Transient, "{error}");
    assert!(error.to_string().contains("changed since"), "{error}");
}

#[test]
fn a_file_that_has_grown_is_served_as_it_was() {
    for length in [3, 5 << 20] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log");
        let content = vec![b'x'; length];
        fs::write(&path, &content).unwrap();
        let objects = DirectoryObjects::scan(directory.path()).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"and more").unwrap();
        assert_eq!(objects.read(blob(&content)).unwrap().unwrap().content, content);
        // Shorter, it is not what it was.
        File::options().write(true).open(&path).unwrap().set_len(1).unwrap();
        changed(&objects.read(blob(&content)).unwrap_err());
    }
}

#[test]
fn files_that_grow_shrink_and_vanish_meanwhile_are_no_error() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("quiet"), "quiet\n").unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = File::create(directory.path().join("grows")).unwrap();
            while !done.load(Ordering::Relaxed) {
                log.write_all(&[b'g'; 100_000]).unwrap();
                if log.metadata().unwrap().len() > 20 << 20 {
                    log.set_len(0).unwrap();
                    log =
                        File::options().append(true).open(directory.path().join("grows")).unwrap();
                }
            }
        });
        scope.spawn(|| {
            let (file, inner) =
                (directory.path().join("comes-and-goes"), directory.path().join("inner"));
            while !done.load(Ordering::Relaxed) {
                fs::create_dir_all(&inner).unwrap();
                fs::write(&file, "here").unwrap();
                fs::write(inner.join("f"), "here").unwrap();
                fs::remove_file(&file).unwrap();
                fs::remove_dir_all(&inner).unwrap();
            }
        });
        for _ in 0..200 {
            match DirectoryObjects::scan(directory.path()) {
                Ok(objects) => assert!(objects.read(blob(b"quiet\n")).unwrap().is_some()),
                // Cut short again and again while it is hashed.
                Err(DirectoryError::Changing { path }) => {
                    assert!(path.ends_with("grows"), "{path:?}")
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Opening a pipe that nobody writes to would take for ever.
#[test]
fn a_file_that_becomes_something_else_has_changed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("f");
    let put = |what: &str| {
        let _ = fs::remove_file(&path);
        match what {
            "pipe" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
            "socket" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            "link" => std::os::unix::fs::symlink("/etc/passwd", &path).unwrap(),
            "device" => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
            "directory" => fs::create_dir(&path).unwrap(),
            _ => {}
        }
    };
    for what in ["pipe", "socket", "link", "device", "nothing", "directory"] {
        fs::write(&path, "a file\n").unwrap();
        let objects = DirectoryObjects::scan(directory.path()).unwrap();
        put(what);
        changed(&objects.read(blob(b"a file\n")).unwrap_err());
        // A scan that meets it leaves out what git leaves out.
        assert!(DirectoryObjects::scan(directory.path()).is_ok(), "{what}");
        let _ = fs::remove_dir(&path);
        let _ = fs::remove_file(&path);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn files_without_a_length_have_what_can_be_read_from_them() {
    let mut expected = String::new();
    File::open("/proc/version").unwrap().read_to_string(&mut expected).unwrap();
    assert_eq!(fs::metadata("/proc/version").unwrap().len(), 0);
    let objects = DirectoryObjects::scan(Path::new("/proc/version")).unwrap();
    assert_eq!(objects.root(), Outcome::blob(blob(expected.as_bytes())));
    assert_eq!(objects.read(objects.root().id).unwrap().unwrap().content, expected);
    // Others have more than they say. They are files of a page.
    let page = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    if let Ok(content) = fs::read(page) {
        assert!(fs::metadata(page).unwrap().len() > content.len() as u64);
        assert_eq!(DirectoryObjects::scan(page).unwrap().root(), Outcome::blob(blob(&content)));
    }
}

#[test]
fn a_file_over_a_bound_is_named_with_its_size_and_the_bound() {
    let directory = TempDir::new().unwrap();
    let large = directory.path().join("large");
    File::create(&large).unwrap().set_len(1 << 40).unwrap();
    let error = DirectoryObjects::scan(directory.path()).err().unwrap();
    assert!(
        matches!(&error, DirectoryError::TooLarge { length: 0x100_0000_0000, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("large has 1099511627776 bytes"), "{error}");

    // One that is hashed and too large to be read is an error when it is read, and takes no memory.
    File::create(&large).unwrap().set_len(8 << 20).unwrap();
    let objects = DirectoryObjects::options().largest_read(1 << 20).scan(directory.path()).unwrap();
    let error = objects.read(blob(&vec![0; 8 << 20])).unwrap_err();
    assert!(
        matches!(error.reason(), Reason::LimitBreached(Limit::Response { bytes: 0x10_0000 })),
        "{error:?}"
    );
    let cause = error.cause().unwrap().to_string();
    assert!(cause.contains("large has 8388608 bytes") && cause.contains("1048576"), "{cause}");
}

#[test]
fn a_store_inside_is_no_part_of_the_directory() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("a"), "a\n").unwrap();
    let before = root_of(directory.path());
    for place in [
        directory.path().join(".store"),
        directory.path().join("deep/er"),
        directory.path().to_owned(),
    ] {
        let store = DurableStore::open(&place).unwrap();
        let scan =
            DirectoryObjects::options().without_store(&place).scan(directory.path()).unwrap();
        assert_eq!(scan.root(), before, "{place:?}");
        assert_ne!(root_of(directory.path()), before);
        drop(store);
        fs::remove_file(place.join("manifold.redb")).unwrap();
    }
    // What only has such a name, and is elsewhere, stays.
    fs::write(directory.path().join("manifold.redb"), "mine").unwrap();
    let scan = DirectoryObjects::options()
        .without_store(directory.path().join(".store"))
        .scan(directory.path())
        .unwrap();
    assert!(scan.read(blob(b"mine")).unwrap().is_some());
}

/// A checkout with submodules and other repositories inside is the tree of its commit.
#[test]
fn a_checkout_is_the_tree_of_its_revision() {
    let parent = TempDir::new().unwrap();
    let (inner, outer) = (parent.path().join("inner"), parent.path().join("outer"));
    for (place, file) in [(&inner, "in"), (&outer, "out")] {
        fs::create_dir(place).unwrap();
        git(place, &["init", "--quiet", "--initial-branch=main", "."]);
        fs::write(place.join(file), file).unwrap();
        git(place, &["add", "--all"]);
        git(place, &["commit", "--quiet", "--message", "x"]);
    }
    let source = inner.display().to_string();
    // A submodule; a repository inside that is none; one whose HEAD is a packed ref; a linked working tree.
    git(&outer, &["submodule", "--quiet", "add", &source, "sub"]);
    git(&outer, &["clone", "--quiet", &source, "nested/clone"]);
    git(&outer.join("nested/clone"), &["pack-refs", "--all"]);
    git(&inner, &["worktree", "add", "--quiet", &outer.join("tree").display().to_string()]);
    git(&outer, &["add", "--all"]);
    git(&outer, &["commit", "--quiet", "--message", "with others inside"]);
    let revision =
        |place: &Path, name: &str| Outcome::tree(git(place, &["rev-parse", name]).parse().unwrap());
    assert_eq!(root_of(&outer), revision(&outer, "HEAD^{tree}"));
    assert_eq!(root_of(&outer.join("nested")), revision(&outer, "HEAD:nested"));
    let scan = DirectoryObjects::scan(&outer).unwrap();
    assert_eq!(scan.nested_repositories().len(), 3);
    assert!(scan.read(blob(b"in")).unwrap().is_none());

    // A clone that has filled none of them.
    let clone = parent.path().join("clone");
    git(parent.path(), &["clone", "--quiet", &outer.display().to_string(), "clone"]);
    assert!(fs::read_dir(clone.join("sub")).unwrap().next().is_none());
    assert_eq!(root_of(&clone), revision(&clone, "HEAD^{tree}"));
    assert_eq!(root_of(&clone.join("nested")), revision(&clone, "HEAD:nested"));

    // Another commit inside is another tree, as `git add` would make it.
    fs::write(outer.join("sub/more"), "more").unwrap();
    git(&outer.join("sub"), &["add", "--all"]);
    git(&outer.join("sub"), &["commit", "--quiet", "--message", "more"]);
    assert_ne!(root_of(&outer), revision(&outer, "HEAD^{tree}"));
    git(&outer, &["add", "--all"]);
    assert_eq!(root_of(&outer), Outcome::tree(git(&outer, &["write-tree"]).parse().unwrap()));
}

#[test]
fn a_repository_inside_without_a_commit_is_an_error_that_names_it() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("new")).unwrap();
    git(&directory.path().join("new"), &["init", "--quiet", "--initial-branch=main", "."]);
    fs::write(directory.path().join("new/f"), "f").unwrap();
    let error = DirectoryObjects::scan(directory.path()).err().unwrap();
    assert!(
        matches!(&error, DirectoryError::Nested { path, .. } if path.ends_with("new")),
        "{error:?}"
    );
    // A `.git` that is no repository is left out, as git leaves it out.
    fs::remove_dir_all(directory.path().join("new/.git/refs")).unwrap();
    let scan = DirectoryObjects::scan(directory.path()).unwrap();
    assert!(scan.read(blob(b"f")).unwrap().is_some() && scan.nested_repositories().is_empty());
}

/// Refs that are no files are for git to read.
#[test]
fn a_repository_inside_with_refs_in_tables_is_its_commit() {
    let directory = TempDir::new().unwrap();
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let made = Command::new("git")
        .args(["init", "--quiet", "--ref-format=reftable", "."])
        .current_dir(&inner)
        .status();
    if !made.unwrap().success() {
        eprintln!("SKIPPED: this git knows no reftable; git 2.45 and later do");
        return;
    }
    fs::write(inner.join("f"), "f").unwrap();
    git(&inner, &["add", "--all"]);
    git(&inner, &["commit", "--quiet", "--message", "x"]);
    git(directory.path(), &["init", "--quiet", "."]);
    git(directory.path(), &["add", "--all"]);
    let tree = git(directory.path(), &["write-tree"]);
    assert_eq!(root_of(directory.path()), Outcome::tree(tree.parse().unwrap()));
    let objects = GitObjects::open(directory.path().join(".git/objects")).unwrap();
    assert!(objects.read(tree.parse().unwrap()).unwrap().is_some());
}
