//! Chosen trees and blobs: every mode, unusual names, old modes, and each kind of malformed tree.

use manifold_runtime_api::{EntryMode, Object, ObjectId, Tree, TreeEntry, TreeError};

use crate::git::Git;
use crate::tricky_names::TRICKY;
use crate::{empty_blob, encode, entry, target};

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
    // Git still reads trees with such modes, but `decode` refuses them. `1100644` and `700644` equal
    // 100644 in their lower 16 bits.
    for mode in [
        "100664",
        "100600",
        "644",
        "40755",
        "120777",
        "10644",
        "1100644",
        "700644",
        "1",
        "7777777777777",
    ] {
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
