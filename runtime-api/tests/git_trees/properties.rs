//! Generated trees: Manifold and git agree about each of them.

use manifold_runtime_api::{EntryMode, Tree, TreeEntry, TreeError};
use proptest::prelude::*;

use crate::git::Git;
use crate::tricky_names::tricky_name;
use crate::{encode, entry};

fn mode() -> impl Strategy<Value = EntryMode> {
    prop::sample::select(&EntryMode::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn trees_have_gits_encoding_and_are_refused_where_git_refuses_them(
        entries in prop::collection::vec((tricky_name(), mode()), 0..5),
    ) {
        let git = Git::new();
        let mut sorted: Vec<TreeEntry> =
            entries.into_iter().map(|(name, mode)| entry(name, mode)).collect();
        // `Tree::new` sorts its entries, so git gets them sorted, too.
        sorted.sort_by_key(|entry| {
            let mut key = entry.name.to_vec();
            key.extend((entry.mode == EntryMode::Tree).then_some(b'/'));
            key
        });
        let raw: Vec<_> =
            sorted.iter().map(|e| (e.mode.as_str(), e.name.as_slice(), e.id)).collect();
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
        // Any byte, and often one that has a meaning in an entry.
        damage in prop_oneof![
            Just(None),
            any::<u8>().prop_map(Some),
            prop::sample::select(&b" 017\0"[..]).prop_map(Some),
        ],
    ) {
        let git = Git::new();
        let entries = names.iter().map(|name| entry(name.as_str(), EntryMode::Blob));
        let tree = Tree::new(entries).unwrap();
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
    fn encoded_trees_decode_to_the_same_tree(
        entries in prop::collection::vec((tricky_name(), mode()), 0..12),
    ) {
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
