//! Objects of real repositories and directories, compared with those of git.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use manifold_dispatcher::api::{Error, ObjectId, ObjectKind, ObjectRef, Reason, Status};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{
    DirectoryError, DirectoryObjects, GitObjects, Invocation, MemoryStore, ObjectSource,
};
use manifold_standard_guests::native_guests;
use manifold_testing::Fixture;
use tempfile::TempDir;

fn git(directory: &Path, arguments: &[&str]) -> String {
    let identity =
        ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
    let output = Command::new("git")
        .args(identity)
        .args(["-c", "core.autocrlf=false", "-c", "core.symlinks=true", "-c", "core.fileMode=true"])
        .args(arguments)
        .current_dir(directory)
        .env_remove("GIT_DIR")
        .stderr(Stdio::inherit())
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "git {arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn id(text: &str) -> ObjectId {
    text.parse().unwrap()
}

/// Writes a directory with every kind of entry that a directory may have.
fn write_zoo(root: &Path) {
    let file = |path: &str, content: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    file("a", b"a\n");
    file("a.b/x", b"x\n");
    file("a0", b"");
    file("deep/er/and/deeper/f", b"down here\n");
    file("large", &vec![b'l'; 5 << 20]);
    file("run.sh", b"#!/bin/sh\n");
    file(" odd\tname\n", b"?\n");
    file("group-executable", b"no\n");
    file("unicode-\u{e9}", b"e\n");
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("group-executable"), fs::Permissions::from_mode(0o654)).unwrap();
    symlink("a", root.join("link")).unwrap();
    symlink("../..", root.join("deep/up")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    fs::create_dir_all(root.join("empty/emptier")).unwrap();
    fs::create_dir_all(root.join("almost-empty/x")).unwrap();
    symlink("x", root.join("almost-empty/y")).unwrap();
}

/// Returns the id and kind of every object in the repository, as git lists them.
fn all_objects(directory: &Path) -> Vec<(ObjectId, String)> {
    let listed = git(
        directory,
        &["cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)"],
    );
    listed
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(id_, kind)| (id(id_), kind.to_owned()))
        .collect()
}

#[test]
fn a_directory_has_the_objects_that_git_would_store() {
    let directory = TempDir::new().unwrap();
    write_zoo(directory.path());
    let before = DirectoryObjects::scan(directory.path()).unwrap();
    git(directory.path(), &["init", "--quiet", "."]);
    git(directory.path(), &["add", "--all"]);
    let tree = git(directory.path(), &["write-tree"]);
    let after = DirectoryObjects::scan(directory.path()).unwrap();
    assert_eq!(before.root(), ObjectRef::tree(id(&tree)));
    assert_eq!(after.root(), before.root(), ".git is left out");

    let listed = all_objects(directory.path());
    assert!(listed.len() > 15);
    let git_objects = GitObjects::open(directory.path().join(".git/objects")).unwrap();
    for (id, kind) in listed {
        for source in [&git_objects as &dyn ObjectSource, &after] {
            let object =
                source.read(id).unwrap().unwrap_or_else(|| panic!("{kind} {id} is missing"));
            assert_eq!((object.id(), object.kind.as_str()), (id, kind.as_str()));
            assert_eq!(source.kind(id).unwrap(), Some(object.kind));
        }
    }
    git(directory.path(), &["fsck", "--strict"]);
}

#[test]
fn a_single_file_is_a_blob_and_a_linked_directory_is_followed() {
    let directory = TempDir::new().unwrap();
    write_zoo(directory.path());
    let file = DirectoryObjects::scan(&directory.path().join("a")).unwrap();
    assert_eq!(file.root(), ObjectRef::blob(ObjectId::of(ObjectKind::Blob, b"a\n")));
    let link = directory.path().join("to-deep");
    symlink("deep", &link).unwrap();
    let (linked, direct) =
        (DirectoryObjects::scan(&link), DirectoryObjects::scan(&directory.path().join("deep")));
    assert_eq!(linked.unwrap().root(), direct.unwrap().root());
    let empty = DirectoryObjects::scan(&directory.path().join("empty")).unwrap();
    assert_eq!(empty.root(), ObjectRef::tree(ObjectId::empty_tree()));
}

#[test]
fn a_changed_file_is_not_returned_under_its_old_id() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("f"), "before\n").unwrap();
    let objects = DirectoryObjects::scan(directory.path()).unwrap();
    let blob = ObjectId::of(ObjectKind::Blob, b"before\n");
    assert!(objects.read(blob).unwrap().is_some());
    fs::write(directory.path().join("f"), "after!\n").unwrap();
    let changed = |error: Error| {
        assert_eq!(error.status(), Status::Transient);
        assert!(error.to_string().contains("changed since"), "{error}");
    };
    changed(objects.read(blob).unwrap_err());
    fs::remove_file(directory.path().join("f")).unwrap();
    changed(objects.read(blob).unwrap_err());
}

#[test]
fn scan_errors_name_the_path() {
    let directory = TempDir::new().unwrap();
    let missing = DirectoryObjects::scan(&directory.path().join("missing")).err().unwrap();
    assert!(matches!(missing, DirectoryError::Io { .. }), "{missing}");
    fs::create_dir(directory.path().join("inner")).unwrap();
    fs::write(directory.path().join("inner/git~1"), "").unwrap();
    let refused = DirectoryObjects::scan(directory.path()).err().unwrap();
    assert!(
        matches!(&refused, DirectoryError::Refused { path, .. } if path.ends_with("inner")),
        "{refused}"
    );
    let device = DirectoryObjects::scan(Path::new("/dev/null")).err().unwrap();
    assert!(matches!(device, DirectoryError::Special { .. }), "{device}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fold_of_head_reads_loose_and_packed_objects_and_imports_nothing() {
    let directory = TempDir::new().unwrap();
    write_zoo(directory.path());
    git(directory.path(), &["init", "--quiet", "."]);
    git(directory.path(), &["add", "--all"]);
    git(directory.path(), &["commit", "--quiet", "--message", "zoo"]);
    // A submodule whose commit does not exist in the repository.
    let commit = git(directory.path(), &["rev-parse", "HEAD"]);
    git(
        directory.path(),
        &["update-index", "--add", "--cacheinfo", &format!("160000,{},sub", "12".repeat(20))],
    );
    git(directory.path(), &["commit", "--quiet", "--message", "with a submodule"]);
    let head = id(&git(directory.path(), &["rev-parse", "HEAD^{tree}"]));

    let mut counts = Vec::new();
    for packed in [false, true] {
        if packed {
            git(directory.path(), &["gc", "--quiet", "--aggressive", "--prune=now"]);
            assert_eq!(git(directory.path(), &["count-objects"]), "0 objects, 0 kilobytes");
        }
        let source = Arc::new(GitObjects::open(directory.path().join(".git/objects")).unwrap());
        let store = Arc::new(MemoryStore::new());
        let runtime = native_guests(NativeRuntime::builder("native", "1")).build().unwrap();
        let fixture = Fixture::with(runtime, |builder| {
            builder.store(Arc::clone(&store)).source(Arc::clone(&source))
        });
        let dispatcher = &fixture.dispatcher;
        let post = dispatcher.put_blob(fixture.image("file-count")).unwrap();
        let args = dispatcher.put_tree([
            argument("in", ObjectRef::tree(head)),
            argument("post", ObjectRef::blob(post)),
        ]);
        let invocation = Invocation::new(fixture.image("fold")).args(args.unwrap());
        let completion = dispatcher.run(invocation).await.unwrap();
        counts.push(fixture.text(completion.outcome));

        let large = ObjectId::of(ObjectKind::Blob, &vec![b'l'; 5 << 20]);
        assert!(source.read(large).unwrap().is_some());
        assert!(
            store.read(large).unwrap().is_none() && store.read(head).unwrap().is_none(),
            "nothing is imported"
        );

        let error = source.read(id(&commit)).unwrap_err();
        assert!(matches!(error.reason(), Reason::WrongKind { found: "commit", .. }), "{error}");
        assert_eq!(source.read(id(&"12".repeat(20))).unwrap(), None);
    }
    let files = git(directory.path(), &["ls-tree", "-r", "--name-only", "-z", &commit]);
    let expected = format!("{}\n", files.split_terminator('\0').count());
    assert_eq!(counts, [expected.clone(), expected], "a submodule is not counted");
}

#[test]
fn opening_a_missing_objects_directory_is_an_error() {
    let error = GitObjects::open("/nowhere/objects").err().unwrap();
    assert!(error.to_string().contains("/nowhere/objects"), "{error}");
}

#[test]
fn a_repository_is_opened_by_its_work_tree_or_its_directory() {
    let place = tempfile::tempdir().unwrap();
    let work = place.path().join("work");
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "user.name=n", "-c", "user.email=e@x", "-C"])
            .arg(&work)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    fs::create_dir(&work).unwrap();
    fs::write(work.join("file"), "hello\n").unwrap();
    git(&["init", "--quiet"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", "m"]);
    git(&["worktree", "add", "--quiet", "../linked"]);
    let id = manifold_dispatcher::api::Object::blob("hello\n").id();
    for path in ["work", "work/.git", "work/.git/objects"] {
        let source = GitObjects::open(place.path().join(path)).unwrap();
        assert!(ObjectSource::read(&source, id).unwrap().is_some(), "{path}");
    }
    let error = GitObjects::open(place.path().join("linked")).unwrap_err();
    assert!(error.to_string().contains("git rev-parse --git-path objects"), "{error:?}");
}
