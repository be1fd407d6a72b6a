//! White space around image references. The guest SDKs are tested with the same table.

use manifold_runtime_api::{CurryNode, HostRef, ImageProblem, ImageRef, NodeShape, ObjectId};

/// Returns the lines of the table: a text, and the same text as a reference without white space.
fn cases() -> Vec<(String, String)> {
    let lines = include_str!("references.txt").lines().filter(|line| line.starts_with('"'));
    let text = |quoted: &str| {
        let json = quoted
            .trim()
            .replace("\\u{a0}", "\\u00a0")
            .replace("\\u{b}", "\\u000b")
            .replace("\\u{c}", "\\u000c");
        serde_json::from_str::<String>(&json).unwrap()
    };
    let cases: Vec<_> = lines
        .map(|line| {
            let (given, trimmed) = line[1..].split_once("\" ").unwrap();
            (text(&format!("\"{given}\"")), text(trimmed))
        })
        .collect();
    assert!(cases.len() >= 10);
    cases
}

#[test]
fn white_space_around_a_reference_is_trimmed() {
    for (given, trimmed) in cases() {
        match ImageRef::parse(&trimmed) {
            Ok(reference) => {
                assert_eq!(ImageRef::parse(&given), Ok(reference.clone()), "{given:?}");
                assert_eq!(reference.to_string(), trimmed);
            }
            Err(_) => assert!(ImageRef::parse(&given).is_err(), "{given:?}"),
        }
    }
    assert_eq!(ImageRef::parse(" \n"), Err(ImageProblem::Syntax));
}

#[test]
fn white_space_around_a_marker_is_trimmed() {
    let id = ObjectId::empty_tree();
    assert_eq!(HostRef::parse(&format!("\t{id}\r\n")), Ok(HostRef::HostImage(id)));
}

#[test]
fn the_marker_of_a_curry_node_contains_1() {
    let node = CurryNode { base: "/cas/std/fold".to_owned(), args: ObjectId::empty_tree() }
        .encode()
        .unwrap();
    assert!(node.blobs.iter().any(|blob| blob.content == "1"));
    assert!(matches!(NodeShape::of(&node.tree), Ok(NodeShape::Curry { .. })));
}
