//! Damaged and unusual repositories that git can read: the git source reads them as git does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use manifold_dispatcher::api::{ObjectId, ObjectKind, ObjectRef, Tree};
use manifold_dispatcher::{GitObjects, ObjectSource};
use tempfile::TempDir;

fn git_with_input(directory: &Path, arguments: &[&str], input: &[u8]) -> String {
    let identity =
        ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
    let mut child = Command::new("git")
        .args(identity)
        .args(arguments)
        .current_dir(directory)
        .env_remove("GIT_DIR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git is installed");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    git_with_input(directory, arguments, b"")
}

fn id(text: &str) -> ObjectId {
    text.trim().parse().unwrap()
}

fn blob_id(text: &[u8]) -> ObjectId {
    ObjectId::of(ObjectKind::Blob, text)
}

/// Creates a repository with `files` in one commit.
fn repository(files: &[(&str, &[u8])]) -> TempDir {
    let root = TempDir::new().unwrap();
    git(root.path(), &["init", "--quiet", "--initial-branch=main", "."]);
    commit(root.path(), files);
    root
}

fn commit(root: &Path, files: &[(&str, &[u8])]) {
    for (path, content) in files {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), content).unwrap();
    }
    git(root, &["add", "--all"]);
    git(root, &["commit", "--quiet", "--message", "a commit"]);
}

fn objects(root: &Path) -> PathBuf {
    root.join(".git/objects")
}

/// Asserts that `source` finds every blob and tree that git lists, with the same id and kind.
fn assert_finds_all(root: &Path, source: &GitObjects) {
    let listed = git(root, &["rev-list", "--objects", "--no-object-names", "--all"]);
    let mut count = 0;
    for line in listed.lines() {
        let kind = git(root, &["cat-file", "-t", line]);
        if kind == "blob" || kind == "tree" {
            let object = source
                .read(id(line))
                .unwrap()
                .unwrap_or_else(|| panic!("{kind} {line} is missing"));
            assert_eq!((object.id(), object.kind.as_str()), (id(line), kind.as_str()));
            assert_eq!(source.kind(id(line)).unwrap(), Some(object.kind));
            count += 1;
        }
    }
    assert!(count > 2);
}

fn packs(root: &Path) -> Vec<PathBuf> {
    let files =
        fs::read_dir(objects(root).join("pack")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "pack")).collect()
}

#[test]
fn objects_are_found_despite_a_stale_multi_pack_index() {
    let root = repository(&[("a", b"a\n"), ("d/b", b"b\n")]);
    git(root.path(), &["repack", "--quiet", "-d"]);
    commit(root.path(), &[("x", b"x\n")]);
    git(root.path(), &["repack", "--quiet", "-d"]);
    git(root.path(), &["multi-pack-index", "write"]);
    let index = objects(root.path()).join("pack/multi-pack-index");
    let stale = fs::read(&index).unwrap();
    git(root.path(), &["-c", "core.multiPackIndex=false", "repack", "--quiet", "-a", "-d"]);
    fs::write(&index, stale).unwrap();
    assert_finds_all(root.path(), &GitObjects::open(objects(root.path())).unwrap());
}

#[test]
fn a_broken_pack_is_skipped_if_there_are_intact_copies() {
    let intact = repository(&[("a", b"a\n"), ("d/b", b"b\n"), ("c", &[b'c'; 5000])]);
    let root = TempDir::new().unwrap();
    git(
        root.path(),
        &["clone", "--quiet", "--no-hardlinks", &intact.path().display().to_string(), "."],
    );
    git(root.path(), &["gc", "--quiet"]);
    let pack = packs(root.path()).pop().unwrap();
    let whole = fs::read(&pack).unwrap();
    fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    for broken in [
        &whole[..whole.len() - 60],
        &whole[..40],
        &[whole[..50].to_vec(), vec![0xff; whole.len() - 50]].concat(),
    ] {
        // Without copies, reading may fail with an error that names the repository.
        fs::write(&pack, broken).unwrap();
        let source = GitObjects::open(objects(root.path())).unwrap();
        let error = source
            .read(blob_id(&[b'c'; 5000]))
            .map(|_| ())
            .and(source.read(blob_id(b"a\n")).map(|_| ()));
        if let Err(error) = error {
            assert!(error.to_string().contains(&root.path().display().to_string()), "{error}");
        }
        // With loose copies, the broken pack is skipped.
        let other = objects(intact.path());
        let source = GitObjects::open_with(objects(root.path()), &[other]).unwrap();
        assert_finds_all(intact.path(), &source);
    }
}

/// The base of a delta is damaged in the pack, and exists as a loose object in another repository.
#[test]
fn a_delta_with_a_damaged_base_uses_another_copy_of_the_base() {
    let text: Vec<u8> = (0..2000).flat_map(|line| format!("line {line}\n").into_bytes()).collect();
    let changed = [&text[..], b"one more\n"].concat();
    let root = repository(&[("f", &text)]);
    commit(root.path(), &[("f", &changed)]);
    git(root.path(), &["gc", "--quiet", "--aggressive", "--prune=now"]);
    let pack = packs(root.path()).pop().unwrap();
    let listed =
        git(root.path(), &["verify-pack", "-v", &pack.with_extension("idx").display().to_string()]);
    let columns: Vec<Vec<&str>> =
        listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let delta = columns.iter().find(|columns| columns.len() == 7).expect("a delta");
    let base = columns.iter().find(|columns| columns[0] == delta[6]).unwrap();
    let offset: usize = base[4].parse().unwrap();
    let content =
        GitObjects::open(objects(root.path())).unwrap().read(id(base[0])).unwrap().unwrap().content;
    let mut bytes = fs::read(&pack).unwrap();
    bytes[offset + 4..offset + 12].fill(0xff);
    fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&pack, bytes).unwrap();

    let source = GitObjects::open(objects(root.path())).unwrap();
    assert!(source.read(id(base[0])).is_err());
    assert!(source.read(id(delta[0])).is_err());
    let loose = TempDir::new().unwrap();
    git(loose.path(), &["init", "--quiet", "."]);
    assert_eq!(
        id(&git_with_input(loose.path(), &["hash-object", "-w", "--stdin"], &content)),
        id(base[0])
    );
    let source = GitObjects::open_with(objects(root.path()), &[objects(loose.path())]).unwrap();
    assert_eq!(source.read(id(delta[0])).unwrap().unwrap().id(), id(delta[0]));
}

#[test]
fn circular_repeated_and_missing_alternates_are_tolerated() {
    let (one, two) = (repository(&[("a", b"a\n")]), repository(&[("b", b"b\n")]));
    let alternates = |root: &Path, text: &str| {
        fs::create_dir_all(objects(root).join("info")).unwrap();
        fs::write(objects(root).join("info/alternates"), text).unwrap();
    };
    let (first, second) = (objects(one.path()), objects(two.path()));
    // The alternates of `one` contain `two` twice, `one` itself, and a missing directory. The
    // alternates of `two` contain `one`, which makes a circle.
    alternates(
        one.path(),
        &format!("{0}\n{0}\n{1}\n/nowhere/objects\n", second.display(), first.display()),
    );
    alternates(two.path(), &format!("{}\n# a comment\n", first.display()));
    for root in [one.path(), two.path()] {
        let source = GitObjects::open(objects(root)).unwrap();
        for text in [b"a\n", b"b\n"] {
            assert!(source.read(blob_id(text)).unwrap().is_some());
            git(root, &["cat-file", "-e", &blob_id(text).to_string()]);
        }
        assert_eq!(source.read(blob_id(b"c\n")).unwrap(), None);
    }
}

/// A relative path in an alternate's own alternates is relative to that alternate, not to the first
/// repository.
#[test]
fn relative_alternates_of_alternates_are_resolved_as_git_does() {
    let parent = TempDir::new().unwrap();
    for name in ["far/third", "far/second", "first"] {
        fs::create_dir_all(parent.path().join(name)).unwrap();
        git(&parent.path().join(name), &["init", "--quiet", "--initial-branch=main", "."]);
    }
    let place = |name: &str| parent.path().join(name);
    fs::write(
        objects(&place("first")).join("info/alternates"),
        "../../../far/second/.git/objects\n",
    )
    .unwrap();
    fs::write(
        objects(&place("far/second")).join("info/alternates"),
        "../../../third/.git/objects\n",
    )
    .unwrap();
    let deep = id(&git_with_input(&place("far/third"), &["hash-object", "-w", "--stdin"], b"deep"));
    git(&place("first"), &["cat-file", "-e", &deep.to_string()]);
    assert!(GitObjects::open(objects(&place("first"))).unwrap().read(deep).unwrap().is_some());
}

#[test]
fn new_and_repacked_objects_are_found() {
    let root = repository(&[("a", b"a\n"), ("b", b"b\n")]);
    let source = GitObjects::open(objects(root.path())).unwrap();
    assert_eq!(source.read(blob_id(b"later\n")).unwrap(), None);
    commit(root.path(), &[("c", b"later\n")]);
    assert!(source.read(blob_id(b"later\n")).unwrap().is_some());
    for _ in 0..3 {
        git(root.path(), &["repack", "--quiet", "-a", "-d"]);
        git(root.path(), &["prune-packed"]);
        assert_finds_all(root.path(), &source);
        commit(root.path(), &[("d", format!("{:?}", std::time::Instant::now()).as_bytes())]);
        assert_finds_all(root.path(), &source);
    }
}

/// Reads all objects of long delta chains in different orders. A delta is unpacked once, and not
/// once for each object that depends on it; otherwise this would take very long.
#[test]
fn long_delta_chains_are_read_in_any_order() {
    let root = TempDir::new().unwrap();
    git(root.path(), &["init", "--quiet", "--initial-branch=main", "."]);
    let mut import =
        String::from("commit refs/heads/main\ncommitter t <t@localhost> 0 +0000\ndata 1\nx\n");
    let mut text: Vec<String> =
        (0..100).map(|line| format!("line {line} of a file that changes a little\n")).collect();
    let mut ids = Vec::new();
    for version in 0..1500 {
        text[version % 100] = format!("changed in version {version}\n");
        let content = text.concat();
        ids.push(blob_id(content.as_bytes()));
        import += &format!("M 100644 inline f{version:05}\ndata {}\n{content}\n", content.len());
    }
    let depth = ["-c", "fastimport.unpackLimit=0", "fast-import", "--quiet", "--depth=4095"];
    git_with_input(root.path(), &depth, import.as_bytes());
    let pack = packs(root.path()).pop().unwrap().with_extension("idx");
    let listed = git(root.path(), &["verify-pack", "-v", &pack.display().to_string()]);
    let deepest =
        listed.lines().filter_map(|line| line.split_whitespace().nth(5)?.parse::<u32>().ok()).max();
    assert!(deepest > Some(1000), "{deepest:?}");

    let scattered = (0..1500).map(|number| (number * 7) % 1500);
    for order in [(0..1500).collect::<Vec<usize>>(), (0..1500).rev().collect(), scattered.collect()]
    {
        let source = GitObjects::open(objects(root.path())).unwrap();
        for number in order {
            assert_eq!(source.kind(ids[number]).unwrap(), Some(ObjectKind::Blob));
            assert_eq!(source.read(ids[number]).unwrap().unwrap().id(), ids[number]);
        }
    }
}

#[test]
fn commits_and_tags_are_peeled_and_a_partial_clone_is_detected() {
    let root = repository(&[("a", b"a\n"), ("d/b", b"b\n")]);
    git(root.path(), &["tag", "-a", "-m", "a tag", "v1"]);
    git(root.path(), &["tag", "-a", "-m", "a tag of a tag", "v2", "v1"]);
    let source = GitObjects::open(objects(root.path())).unwrap();
    let tree = ObjectRef::tree(id(&git(root.path(), &["rev-parse", "HEAD^{tree}"])));
    for name in ["HEAD", "v1", "v2", "HEAD^{tree}"] {
        assert_eq!(
            source.peel(id(&git(root.path(), &["rev-parse", name]))).unwrap(),
            Some(tree),
            "{name}"
        );
    }
    assert_eq!(source.peel(blob_id(b"b\n")).unwrap(), Some(ObjectRef::blob(blob_id(b"b\n"))));
    assert_eq!(source.peel(blob_id(b"nowhere")).unwrap(), None);
    assert!(!source.is_partial());

    git(root.path(), &["config", "uploadpack.allowFilter", "true"]);
    let partial = TempDir::new().unwrap();
    let origin = format!("file://{}", root.path().display());
    git(partial.path(), &["clone", "--quiet", "--filter=blob:none", "--no-checkout", &origin, "."]);
    let source = GitObjects::open(objects(partial.path())).unwrap();
    assert!(source.is_partial());
    assert_eq!(source.read(blob_id(b"a\n")).unwrap(), None);
    assert_eq!(source.kind(tree.id).unwrap(), Some(ObjectKind::Tree));
}

#[test]
fn a_tree_with_a_legacy_mode_keeps_its_id() {
    let root = repository(&[("a", b"a\n")]);
    let mut old = b"100664 a\0".to_vec();
    old.extend_from_slice(blob_id(b"a\n").as_bytes());
    let written = git_with_input(
        root.path(),
        &["hash-object", "-w", "--literally", "-t", "tree", "--stdin"],
        &old,
    );
    let source = GitObjects::open(objects(root.path())).unwrap();
    let object = source.read(id(&written)).unwrap().unwrap();
    assert_eq!(object.content, old);
    assert!(Tree::decode(&object.content).is_err());
    assert_eq!(
        Tree::decode_as_git_reads(&object.content).unwrap().entries()[0].id,
        blob_id(b"a\n")
    );
}
