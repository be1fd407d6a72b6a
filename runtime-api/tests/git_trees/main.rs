//! Compares trees with the installed git: ids, encodings, and which trees are refused.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use manifold_runtime_api::bstr::BString;
use manifold_runtime_api::{EntryMode, Object, ObjectId, ObjectKind, Tree, TreeEntry, TreeError};
use proptest::prelude::*;
use tempfile::TempDir;

/// An empty repository in which git checks trees.
struct Git(TempDir);

impl Git {
    fn new() -> Self {
        let git = Self(TempDir::new().unwrap());
        git.run(&["init", "--quiet", "--object-format=sha1", "."], b"").unwrap();
        git.run(&["hash-object", "-w", "-t", "blob", "--stdin"], b"").unwrap();
        git.run(&["hash-object", "-w", "-t", "tree", "--stdin"], b"").unwrap();
        git
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Result<String, String> {
        run(self.0.path(), arguments, input)
    }

    /// Stores a tree with git and returns its id, or git's error if git refuses the tree.
    fn store(&self, encoded: &[u8]) -> Result<ObjectId, String> {
        let id = self.run(&["hash-object", "-w", "-t", "tree", "--stdin"], encoded)?;
        Ok(id.trim().parse().unwrap())
    }

    fn version(&self) -> (u32, u32) {
        let version = self.run(&["version"], b"").unwrap();
        let mut numbers = version
            .trim_start_matches("git version ")
            .split('.')
            .map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Returns the id that git computes for a tree without validating it.
    fn id(&self, encoded: &[u8]) -> ObjectId {
        self.run(&["hash-object", "--literally", "-t", "tree", "--stdin"], encoded)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// Stores a tree without validation, checks it with `git fsck --strict`, and removes it again.
    fn fsck(&self, encoded: &[u8]) -> Result<(), String> {
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

fn empty_blob() -> ObjectId {
    ObjectId::of(ObjectKind::Blob, b"")
}

/// The id of an object of the mode's kind. The repository contains it, except for a submodule.
fn target(mode: EntryMode) -> ObjectId {
    match mode.object_kind() {
        Some(ObjectKind::Tree) => ObjectId::empty_tree(),
        Some(ObjectKind::Blob) => empty_blob(),
        None => ObjectId::of(ObjectKind::Blob, b"in another repository"),
    }
}

fn entry(name: impl Into<BString>, mode: EntryMode) -> TreeEntry {
    TreeEntry::new(name, mode, target(mode))
}

/// Encodes entries in git's format, without sorting or validating them.
fn encode(entries: &[(&str, &[u8], ObjectId)]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (mode, name, id) in entries {
        encoded.extend_from_slice(mode.as_bytes());
        encoded.push(b' ');
        encoded.extend_from_slice(name);
        encoded.push(0);
        encoded.extend_from_slice(id.as_bytes());
    }
    encoded
}

/// Names that git treats specially, and names that resemble them.
const TRICKY: &[&str] = &[
    ".",
    "..",
    "...",
    ".git",
    ".GIT",
    ".Git",
    ".gIt.",
    ".git ",
    ".git .. ",
    ".git:x",
    ".git::$INDEX_ALLOCATION",
    ".git\\x",
    "x\\.git",
    "x\\git~1",
    "x\\y\\.GIT ",
    "x\\.gitmodules",
    "\\",
    "\\.git",
    "\\.g\u{200c}it",
    "git~1",
    "GIT~1",
    "git~1 ",
    "git~1.",
    "git~1:x",
    "git~2",
    "git~10",
    "git",
    ".gi",
    ".gitt",
    ".git-x",
    "gıt",
    ".g\u{200c}it",
    "\u{200d}.git",
    ".git\u{feff}",
    ".\u{206a}GIT",
    ".g\u{200b}it",
    "a/b",
    "/",
    "a/",
    ".gitmodules",
    ".gitmodules ",
    ".GITMODULES",
    ".gitmodules:x",
    "gitmod~1",
    "GITMOD~4",
    "gitmod~5",
    "gi7eba~1",
    "GI7EBA~9",
    "gi7eb~10",
    "gi7d29~1",
    ".gitm\u{200c}odules",
    ".gitattributes",
    ".gitignore",
    ".mailmap",
    "con",
    "nul.txt",
    "a:b",
    "a ",
    "a.",
    " ",
    "\t",
    "\n",
    "~",
    "%",
    "é",
    "e\u{301}",
    "d",
    "d.x",
    "d0",
    "d-",
    "d/",
];

fn tricky_name() -> impl Strategy<Value = BString> {
    prop_oneof![
        6 => prop::sample::select(TRICKY).prop_map(BString::from),
        2 => prop::collection::vec(any::<u8>().prop_filter("NUL ends a name", |byte| *byte != 0), 0..6).prop_map(BString::from),
        2 => prop::collection::vec(prop::sample::select(&b"ad.-/0\\~:"[..]), 0..4).prop_map(BString::from),
        2 => (prop::sample::select(TRICKY), prop::sample::select(TRICKY)).prop_map(|(a, b)| BString::from(format!("{a}{b}"))),
    ]
}

fn mode() -> impl Strategy<Value = EntryMode> {
    prop::sample::select(&EntryMode::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn trees_have_gits_encoding_and_are_refused_where_git_refuses_them(
        entries in prop::collection::vec((tricky_name(), mode()), 0..5),
    ) {
        let git = Git::new();
        let mut sorted: Vec<TreeEntry> = entries.into_iter().map(|(name, mode)| entry(name, mode)).collect();
        // `Tree::new` sorts its entries, so git gets them sorted, too.
        sorted.sort_by_key(|entry| {
            let mut key = entry.name.to_vec();
            key.extend((entry.mode == EntryMode::Tree).then_some(b'/'));
            key
        });
        let raw: Vec<_> = sorted.iter().map(|e| (e.mode.as_str(), e.name.as_slice(), e.id)).collect();
        let encoded = encode(&raw);
        let gits = git.fsck(&encoded);
        let ours = Tree::new(sorted.iter().cloned());
        prop_assert_eq!(&ours, &Tree::decode(&encoded));
        match (&ours, &gits) {
            (Ok(tree), Ok(())) => {
                prop_assert_eq!(tree.encode(), &encoded[..]);
                prop_assert_eq!(git.id(&encoded), tree.id());
            }
            (Err(_), Err(_)) => {}
            _ => prop_assert!(false, "git: {gits:?}, ours: {ours:?}, entries: {sorted:?}"),
        }
    }

    #[test]
    fn damaged_trees_are_refused_where_git_refuses_them(
        names in prop::collection::btree_set("[a-e]{1,2}(\\.[a-c])?", 1..5),
        cut in any::<prop::sample::Index>(),
        damage in prop_oneof![Just(None), any::<u8>().prop_map(Some)],
    ) {
        let git = Git::new();
        let tree = Tree::new(names.iter().map(|name| entry(name.as_str(), EntryMode::Blob))).unwrap();
        let mut encoded = tree.encode();
        let index = cut.index(encoded.len());
        match damage {
            Some(byte) => encoded[index] = byte,
            None => encoded.truncate(index),
        }
        match Tree::decode(&encoded) {
            Ok(tree) => {
                prop_assert_eq!(tree.encode(), &encoded[..]);
                prop_assert_eq!(git.id(&encoded), tree.id());
                // A damaged id leaves a valid tree that names a missing object.
                let complaint = git.fsck(&encoded).err().unwrap_or_default();
                prop_assert!(
                    !complaint.contains("error in tree"),
                    "git refuses a tree that was accepted: {complaint}"
                );
            }
            // Git reads any mode and only warns about it.
            Err(TreeError::Mode { .. }) => {}
            Err(error) => prop_assert!(
                git.fsck(&encoded).is_err(),
                "git accepts a tree that was refused: {error}"
            ),
        }
    }

    #[test]
    fn encoded_trees_decode_to_the_same_tree(entries in prop::collection::vec((tricky_name(), mode()), 0..12)) {
        if let Ok(tree) = Tree::new(entries.into_iter().map(|(name, mode)| entry(name, mode))) {
            prop_assert_eq!(Tree::decode(&tree.encode()), Ok(tree.clone()));
            for entry in tree.entries() {
                prop_assert_eq!(tree.get(&entry.name), Some(entry));
            }
            prop_assert_eq!(tree.get("not there"), None);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(tree) = Tree::decode(&bytes) {
            prop_assert_eq!(tree.encode(), bytes);
        }
    }
}

#[test]
fn tricky_names_are_refused_in_the_same_modes_as_by_git() {
    let git = Git::new();
    let mut wrong = Vec::new();
    for name in TRICKY {
        for mode in EntryMode::ALL {
            let encoded = encode(&[(mode.as_str(), name.as_bytes(), target(mode))]);
            let (ours, gits) = (Tree::decode(&encoded), git.fsck(&encoded));
            if ours.is_ok() != gits.is_ok() {
                wrong.push(format!("{mode} {name:?}: ours {ours:?}, git's {gits:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn git_and_decode_both_refuse_malformed_trees() {
    let (blob, tree, null) =
        (empty_blob(), ObjectId::empty_tree(), ObjectId::from_bytes(&[0; 20]).unwrap());
    let long = [b'x'; 4097];
    let cases: &[(&str, Vec<u8>)] = &[
        ("null id", encode(&[("100644", b"a", null)])),
        ("empty name", encode(&[("100644", b"", blob)])),
        ("slash", encode(&[("100644", b"a/b", blob)])),
        ("padded mode", encode(&[("0100644", b"a", blob)])),
        ("padded directory", encode(&[("040000", b"a", tree)])),
        ("empty mode", encode(&[("", b"a", blob)])),
        ("mode that is not a number", encode(&[("10064x", b"a", blob)])),
        ("duplicate", encode(&[("100644", b"a", blob), ("100644", b"a", blob)])),
        (
            "file and directory, apart",
            encode(&[("100644", b"a", blob), ("100644", b"a.b", blob), ("40000", b"a", tree)]),
        ),
        ("order", encode(&[("100644", b"b", blob), ("100644", b"a", blob)])),
        ("order of a directory", encode(&[("40000", b"a", tree), ("100644", b"a.b", blob)])),
        ("cut id", encode(&[("100644", b"a", blob)])[..20].to_vec()),
        ("no NUL", b"100644 a".to_vec()),
        ("trailing byte", [encode(&[("100644", b"a", blob)]), vec![b'1']].concat()),
    ];
    let git = Git::new();
    for (what, encoded) in cases {
        assert!(git.fsck(encoded).is_err(), "git accepts: {what}");
        assert!(Tree::decode(encoded).is_err(), "{what}");
    }
    let long = encode(&[("100644", &long, blob)]);
    assert!(Tree::decode(&long).is_err());
    if git.version() >= (2, 45) {
        assert!(git.fsck(&long).is_err());
    } else {
        eprintln!(
            "skipped: git {:?} does not check the length of names; git 2.45 and later do",
            git.version()
        );
    }
    // Git still reads old trees with such modes, but `decode` refuses them. The last two equal
    // 100644 in their lower 16 bits.
    for mode in ["100664", "100600", "644", "40755", "120777", "10644", "1100644", "700644"] {
        let decoded = Tree::decode(&encode(&[(mode, b"a", blob)]));
        assert!(matches!(decoded, Err(TreeError::Mode { .. })), "{mode}: {decoded:?}");
    }
}

/// Compares modes that old versions of git wrote with what `git ls-tree` reads.
#[test]
fn legacy_modes_are_decoded_as_git_reads_them() {
    let git = Git::new();
    let (blob, tree) = (empty_blob(), ObjectId::empty_tree());
    for (mode, id) in [
        ("100664", blob),
        ("100600", blob),
        ("100775", blob),
        ("0100644", blob),
        ("040000", tree),
        ("40755", tree),
        ("120777", blob),
        ("160000", blob),
    ] {
        let encoded = encode(&[(mode, b"a", id)]);
        let read = Tree::decode_as_git_reads(&encoded).unwrap();
        let written = git
            .run(&["hash-object", "-w", "--literally", "-t", "tree", "--stdin"], &encoded)
            .unwrap();
        let shown = git.run(&["ls-tree", written.trim()], b"").unwrap();
        let expected =
            format!("{:0>6} {} {id}\ta", read.entries()[0].mode, read.entries()[0].mode.kind_str());
        assert_eq!(shown.trim(), expected, "{mode}");
    }
    for mode in ["", "644", "10644", "060644", "10064x", "1100644"] {
        let refused = Tree::decode_as_git_reads(&encode(&[(mode, b"a", blob)]));
        assert!(refused.is_err(), "{mode}: {refused:?}");
    }
    // Names are checked as strictly as by `decode`.
    let wrong = encode(&[("100664", b".git", blob)]);
    assert!(matches!(Tree::decode_as_git_reads(&wrong), Err(TreeError::Name { .. })));
}

#[test]
fn fsck_accepts_a_tree_with_every_mode_and_unusual_names() {
    let git = Git::new();
    let names = [
        "a",
        "a.b",
        "a0",
        " sp ace\t",
        "\u{e9}",
        "con",
        "a:b",
        "x\\y",
        ".gitignore",
        ".gitattributes",
    ];
    let entries = names.iter().map(|name| entry(*name, EntryMode::Blob)).chain([
        entry("run.sh", EntryMode::Executable),
        entry("link", EntryMode::Symlink),
        entry("empty", EntryMode::Tree),
        entry("sub", EntryMode::Commit),
        TreeEntry::new(&b"caf\xe9"[..], EntryMode::Blob, empty_blob()),
    ]);
    let tree = Tree::new(entries).unwrap();
    assert_eq!(git.store(&tree.encode()), Ok(tree.id()));
    git.run(&["fsck", "--strict", &tree.id().to_string()], b"").unwrap();
}

#[test]
fn blob_ids_match_git_for_whole_and_streamed_content() {
    let git = Git::new();
    for content in [&b""[..], b"hello\n", &[0xff; 300_000]] {
        let gits = git.run(&["hash-object", "--stdin"], content).unwrap();
        let id = Object::blob(content.to_vec()).id();
        assert_eq!(gits.trim(), id.to_string());
        let length = content.len() as u64;
        assert_eq!(ObjectId::of_blob_from(&mut &content[..], length).unwrap(), id);
        assert!(ObjectId::of_blob_from(&mut &content[..], length + 1).is_err());
        assert!(
            content.is_empty() || ObjectId::of_blob_from(&mut &content[..], length - 1).is_err()
        );
    }
}
