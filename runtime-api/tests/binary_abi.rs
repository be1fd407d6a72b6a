//! `caos_abi_v2`: the same operations as in JSON, and what it does to requests that are none.

mod map_host;

use std::sync::Arc;

use manifold_runtime_api::abi::{Encoding, Session};
use manifold_runtime_api::{EntryMode, Object, ObjectId, Outcome, Reason, Result, TreeEntry};
use map_host::{MapHost, job};
use proptest::prelude::*;

/// Speaks both encodings, each in a session of its own over one host.
struct Talk {
    host: Arc<MapHost>,
    json: Session,
    binary: Session,
}

impl Talk {
    fn begin() -> Self {
        let host = Arc::new(MapHost::default());
        let session = || Session::new(job(&host), Arc::clone(&host) as _);
        Self { json: session(), binary: session(), host }
    }

    async fn say(&self, request: impl AsRef<[u8]>) -> Vec<u8> {
        self.binary.call(Encoding::Binary, request.as_ref()).await.body
    }

    async fn say_json(&self, request: serde_json::Value) -> serde_json::Value {
        let body = self.json.call(Encoding::Json, request.to_string().as_bytes()).await.body;
        serde_json::from_slice(&body).unwrap()
    }

    fn finish(self) -> Result<Outcome> {
        self.binary.finish(Ok(()))
    }
}

fn id(id: ObjectId) -> Vec<u8> {
    [&[20], id.as_bytes()].concat()
}

fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&u32::try_from(text.len()).unwrap().to_le_bytes(), text].concat()
}

fn entries(entries: &[TreeEntry]) -> Vec<u8> {
    const MODES: [&str; 5] = ["40000", "100644", "100755", "120000", "160000"];
    let count = u32::try_from(entries.len()).unwrap().to_le_bytes().to_vec();
    let each = entries.iter().map(|entry| {
        let mode = MODES.iter().position(|mode| *mode == entry.mode.as_str()).unwrap();
        [vec![mode as u8], id(entry.id), text(&entry.name)].concat()
    });
    [count].into_iter().chain(each).collect::<Vec<_>>().concat()
}

fn empty_tree() -> ObjectId {
    ObjectId::empty_tree()
}

#[tokio::test]
async fn every_operation_answers_as_the_table_says() {
    let talk = Talk::begin();
    let tree = empty_tree();
    let about = [vec![0], id(tree), vec![0], text("the image"), text("some \"salt\"")].concat();
    assert_eq!(talk.say([1]).await, about);
    let hello = Object::blob("hello").id();
    assert_eq!(talk.say(b"\x04hello").await, [vec![0], id(hello)].concat());
    assert_eq!(talk.say([vec![3], id(hello)].concat()).await, b"\0hello");
    assert_eq!(talk.say([vec![2], id(tree)].concat()).await, [0; 5]);
    let call = [id(tree), text("same")].concat();
    assert_eq!(talk.say([vec![6], call.clone()].concat()).await, [vec![0, 1], id(tree)].concat());
    assert_eq!(talk.say(b"\x09a line").await, [0]);
    assert_eq!(talk.say([vec![8, 0], id(hello)].concat()).await, [0]);
    assert_eq!(*talk.host.log.lock().unwrap(), ["a line"]);
    assert_eq!(talk.finish().unwrap(), Outcome::blob(hello));

    let talk = Talk::begin();
    assert_eq!(talk.say(b"\x0athe end").await, [0]);
    let error = talk.finish().unwrap_err();
    assert!(
        matches!(error.reason(), Reason::GuestFailed { message } if message == "the end"),
        "{error:?}"
    );
}

#[tokio::test]
async fn errors_are_told_in_the_words_that_json_has() {
    let talk = Talk::begin();
    let unknown = Object::blob("nobody has this").id();
    let json = talk.say_json(serde_json::json!({"op": "get", "hash": unknown.to_string()})).await;
    let word = |field: &str| text(json[field].as_str().unwrap());
    let chain: Vec<_> =
        json["chain"].as_array().unwrap().iter().map(|line| text(line.as_str().unwrap())).collect();
    let failure = [
        vec![1],
        word("error"),
        word("kind"),
        u32::try_from(chain.len()).unwrap().to_le_bytes().to_vec(),
        chain.concat(),
    ]
    .concat();
    assert_eq!(talk.say([vec![3], id(unknown)].concat()).await, failure);

    // Among many runs each answer has its place.
    let tree = empty_tree();
    let calls =
        [vec![7], 2u32.to_le_bytes().to_vec(), id(tree), text("ill"), id(tree), text("same")]
            .concat();
    let answer = talk.say(calls).await;
    assert_eq!(answer[..6], [0, 2, 0, 0, 0, 1]);
    assert!(answer.ends_with(&[vec![0, 1], id(tree)].concat()));
}

#[tokio::test]
async fn what_makes_no_sense_is_answered_and_what_has_no_form_ends_the_job() {
    let tree = empty_tree();
    let one = 1u32.to_le_bytes().to_vec();
    for (what, request) in [
        ("no such operation", vec![77]),
        ("no such kind", [vec![8, 2], id(tree)].concat()),
        ("no such mode", [vec![5], one.clone(), vec![5], id(tree), text("name")].concat()),
        ("an id of no format", vec![3, 2, 1, 1]),
        ("no UTF-8", b"\x09\xff".to_vec()),
        (
            "a name that git refuses",
            [vec![5], one.clone(), vec![0], id(tree), text("a/b")].concat(),
        ),
    ] {
        let talk = Talk::begin();
        assert_eq!(talk.say(request).await[0], 1, "{what}");
        assert!(!talk.binary.has_ended(), "{what}");
    }
    for (what, request) in [
        ("nothing", vec![]),
        ("half an id", vec![3, 20, 1, 2]),
        ("more than a request", vec![1, 0]),
        ("fewer entries than announced", [vec![5], u32::MAX.to_le_bytes().to_vec()].concat()),
        (
            "fewer calls than announced",
            [vec![7], u32::MAX.to_le_bytes().to_vec(), id(tree), text("same")].concat(),
        ),
        (
            "a shorter text than announced",
            [vec![6], id(tree), u32::MAX.to_le_bytes().to_vec()].concat(),
        ),
    ] {
        let talk = Talk::begin();
        assert_eq!(talk.say(request).await[0], 1, "{what}");
        assert!(talk.binary.has_ended(), "{what}");
        let error = talk.finish().unwrap_err();
        assert!(matches!(error.reason(), Reason::AbiViolation { .. }), "{what}: {error:?}");
    }
}

proptest! {
    /// A tree means the same in both encodings, whatever is in it; and what `tree` answers, `put_tree` takes.
    #[test]
    fn trees_mean_the_same_in_both(names in proptest::collection::btree_map("[a-z\\PC]{1,12}", 0..5usize, 0..12)) {
        let modes = [EntryMode::Tree, EntryMode::Blob, EntryMode::Executable, EntryMode::Symlink, EntryMode::Commit];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let talk = Talk::begin();
            talk.say(b"\x04").await;
            let empty_blob = Object::blob("").id();
            let given: Vec<_> = names
                .iter()
                .map(|(name, mode)| {
                    let id = if *mode == 0 { empty_tree() } else { empty_blob };
                    TreeEntry::new(name.as_str(), modes[*mode], id)
                })
                .collect();
            let in_json: Vec<_> = given
                .iter()
                .map(|entry| serde_json::json!({
                    "name": entry.name.to_string(), "mode": entry.mode.as_str(), "hash": entry.id.to_string()
                }))
                .collect();
            let json = talk.say_json(serde_json::json!({"op": "put_tree", "entries": in_json})).await;
            let binary = talk.say([vec![5], entries(&given)].concat()).await;
            if let Some(hash) = json["hash"].as_str() {
                let stored = id(hash.parse().unwrap());
                prop_assert_eq!(&binary, &[vec![0], stored.clone()].concat());
                let back = talk.say([vec![2], stored].concat()).await;
                prop_assert_eq!(talk.say([vec![5], back[1..].to_vec()].concat()).await, binary);
            } else {
                prop_assert_eq!(binary[0], 1);
                prop_assert_eq!(&binary[1..5], &u32::try_from(json["error"].as_str().unwrap().len()).unwrap().to_le_bytes());
            }
            Ok(())
        })?;
    }

    /// Any bytes are answered, and nothing panics or takes more room than it was given.
    #[test]
    fn any_bytes_are_answered(request in proptest::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let talk = Talk::begin();
        prop_assert!(!runtime.block_on(talk.say(request)).is_empty());
    }
}
