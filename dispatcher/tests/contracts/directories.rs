//! Real-world directories: files that change during a scan, nested repositories, stores inside, and
//! files without a length.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use manifold_dispatcher::api::{Error, Limit, ObjectId, ObjectKind, ObjectRef, Reason, Status};
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

fn root_of(directory: &Path) -> ObjectRef {
    DirectoryObjects::scan(directory).unwrap().root()
}

fn blob(content: &[u8]) -> ObjectId {
    ObjectId::of(ObjectKind::Blob, content)
}

/// Asserts that `error` is the transient error of a file that changed since the scan.
fn assert_changed(error: &Error) {
    assert_eq!(error.status(), Status::Transient, "{error}");
    assert!(error.to_string().contains("changed since"), "{error}");
}

#[test]
fn a_file_that_has_grown_is_read_up_to_its_scanned_length() {
    for length in [3, 5 << 20] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log");
        let content = vec![b'x'; length];
        fs::write(&path, &content).unwrap();
        let objects = DirectoryObjects::scan(directory.path()).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"and more").unwrap();
        assert_eq!(objects.read(blob(&content)).unwrap().unwrap().content, content);
        // A file that has become shorter has changed.
        File::options().write(true).open(&path).unwrap().set_len(1).unwrap();
        assert_changed(&objects.read(blob(&content)).unwrap_err());
    }
}

#[test]
fn a_scan_tolerates_files_that_grow_and_vanish_meanwhile() {
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
                // The scan gives up on a file that is truncated repeatedly while it is hashed.
                Err(DirectoryError::Changing { path }) => {
                    assert!(path.ends_with("grows"), "{path:?}")
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// The source must not block by opening a pipe without a writer.
#[test]
fn a_file_that_is_replaced_by_something_else_has_changed() {
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
        assert_changed(&objects.read(blob(b"a file\n")).unwrap_err());
        // A scan leaves out what git leaves out.
        assert!(DirectoryObjects::scan(directory.path()).is_ok(), "{what}");
        let _ = fs::remove_dir(&path);
        let _ = fs::remove_file(&path);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn files_without_a_length_are_read_to_their_end() {
    let mut expected = String::new();
    File::open("/proc/version").unwrap().read_to_string(&mut expected).unwrap();
    assert_eq!(fs::metadata("/proc/version").unwrap().len(), 0);
    let objects = DirectoryObjects::scan(Path::new("/proc/version")).unwrap();
    assert_eq!(objects.root(), ObjectRef::blob(blob(expected.as_bytes())));
    assert_eq!(objects.read(objects.root().id).unwrap().unwrap().content, expected);
    // Other files report a length of a page, which is more than their content.
    let page = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    if let Ok(content) = fs::read(page) {
        assert!(fs::metadata(page).unwrap().len() > content.len() as u64);
        assert_eq!(DirectoryObjects::scan(page).unwrap().root(), ObjectRef::blob(blob(&content)));
    }
}

#[test]
fn the_error_of_a_too_large_file_names_the_file_its_size_and_the_bound() {
    let directory = TempDir::new().unwrap();
    let large = directory.path().join("large");
    File::create(&large).unwrap().set_len(1 << 40).unwrap();
    let error = DirectoryObjects::scan(directory.path()).err().unwrap();
    assert!(
        matches!(&error, DirectoryError::TooLarge { length: 0x100_0000_0000, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("large has 1099511627776 bytes"), "{error}");

    // A file that can be hashed and is too large to be read errors when it is read, without
    // allocating its length.
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
fn a_store_inside_a_directory_is_left_out() {
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
    // A file with the name of a store's file in another place is kept.
    fs::write(directory.path().join("manifold.redb"), "mine").unwrap();
    let scan = DirectoryObjects::options()
        .without_store(directory.path().join(".store"))
        .scan(directory.path())
        .unwrap();
    assert!(scan.read(blob(b"mine")).unwrap().is_some());
}

/// A checkout with submodules and other nested repositories has the same tree as its commit.
#[test]
fn a_checkout_has_the_tree_of_its_commit() {
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
    // A submodule; a nested repository that is not a submodule and whose HEAD is a packed ref; and
    // a linked working tree.
    git(&outer, &["submodule", "--quiet", "add", &source, "sub"]);
    git(&outer, &["clone", "--quiet", &source, "nested/clone"]);
    git(&outer.join("nested/clone"), &["pack-refs", "--all"]);
    git(&inner, &["worktree", "add", "--quiet", &outer.join("tree").display().to_string()]);
    git(&outer, &["add", "--all"]);
    git(&outer, &["commit", "--quiet", "--message", "with others inside"]);
    let revision = |place: &Path, name: &str| {
        ObjectRef::tree(git(place, &["rev-parse", name]).parse().unwrap())
    };
    assert_eq!(root_of(&outer), revision(&outer, "HEAD^{tree}"));
    assert_eq!(root_of(&outer.join("nested")), revision(&outer, "HEAD:nested"));
    let scan = DirectoryObjects::scan(&outer).unwrap();
    assert_eq!(scan.nested_repositories().len(), 3);
    assert!(scan.read(blob(b"in")).unwrap().is_none());

    // A clone in which the nested repositories are empty directories.
    let clone = parent.path().join("clone");
    git(parent.path(), &["clone", "--quiet", &outer.display().to_string(), "clone"]);
    assert!(fs::read_dir(clone.join("sub")).unwrap().next().is_none());
    assert_eq!(root_of(&clone), revision(&clone, "HEAD^{tree}"));
    assert_eq!(root_of(&clone.join("nested")), revision(&clone, "HEAD:nested"));

    // A new commit in a nested repository changes the tree, as `git add` does.
    fs::write(outer.join("sub/more"), "more").unwrap();
    git(&outer.join("sub"), &["add", "--all"]);
    git(&outer.join("sub"), &["commit", "--quiet", "--message", "more"]);
    assert_ne!(root_of(&outer), revision(&outer, "HEAD^{tree}"));
    git(&outer, &["add", "--all"]);
    assert_eq!(root_of(&outer), ObjectRef::tree(git(&outer, &["write-tree"]).parse().unwrap()));
}

#[test]
fn a_nested_repository_without_a_commit_is_an_error_that_names_it() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("new")).unwrap();
    git(&directory.path().join("new"), &["init", "--quiet", "--initial-branch=main", "."]);
    fs::write(directory.path().join("new/f"), "f").unwrap();
    let error = DirectoryObjects::scan(directory.path()).err().unwrap();
    assert!(
        matches!(&error, DirectoryError::Nested { path, .. } if path.ends_with("new")),
        "{error:?}"
    );
    // A `.git` that is not a repository is left out, as git does.
    fs::remove_dir_all(directory.path().join("new/.git/refs")).unwrap();
    let scan = DirectoryObjects::scan(directory.path()).unwrap();
    assert!(scan.read(blob(b"f")).unwrap().is_some() && scan.nested_repositories().is_empty());
}

/// Refs in the format reftable are not files; they are read by running git.
#[test]
fn a_nested_repository_with_a_reftable_becomes_its_commit() {
    let directory = TempDir::new().unwrap();
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let made = Command::new("git")
        .args(["init", "--quiet", "--ref-format=reftable", "."])
        .current_dir(&inner)
        .status();
    if !made.unwrap().success() {
        eprintln!("SKIPPED: this git does not support reftable; git 2.45 and later do");
        return;
    }
    fs::write(inner.join("f"), "f").unwrap();
    git(&inner, &["add", "--all"]);
    git(&inner, &["commit", "--quiet", "--message", "x"]);
    git(directory.path(), &["init", "--quiet", "."]);
    git(directory.path(), &["add", "--all"]);
    let tree = git(directory.path(), &["write-tree"]);
    assert_eq!(root_of(directory.path()), ObjectRef::tree(tree.parse().unwrap()));
    let objects = GitObjects::open(directory.path().join(".git/objects")).unwrap();
    assert!(objects.read(tree.parse().unwrap()).unwrap().is_some());
}
