//! Tests of the binary encoding, `caos_abi_v2`: the same operations as in JSON, and malformed
//! requests.

mod session;

use std::sync::Arc;

use manifold_runtime_api::abi::{Encoding, Session};
use manifold_runtime_api::{
    Code, EntryMode, ImageRef, Object, ObjectId, ObjectRef, Reason, Result, TestHost, Tree,
    TreeEntry,
};
use proptest::prelude::*;
use session::{host, job};

/// A client of both encodings, each with its own session on the same host.
struct Client {
    host: TestHost,
    json: Session,
    binary: Session,
}

impl Client {
    fn new() -> Self {
        let host = host();
        let session = || Session::new(job(), Arc::new(host.clone()));
        Self { json: session(), binary: session(), host }
    }

    async fn send(&self, request: impl AsRef<[u8]>) -> Vec<u8> {
        self.binary.call(Encoding::Binary, request.as_ref()).await.into_body()
    }

    async fn send_json(&self, request: serde_json::Value) -> serde_json::Value {
        let body = self.json.call(Encoding::Json, request.to_string().as_bytes()).await.into_body();
        serde_json::from_slice(&body).unwrap()
    }

    fn finish(self) -> Result<ObjectRef> {
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
async fn every_operation_responds_as_documented() {
    let client = Client::new();
    let tree = empty_tree();
    let expected_job =
        [vec![0], id(tree), vec![0], text("the image"), text("some \"salt\"")].concat();
    assert_eq!(client.send([1]).await, expected_job);
    assert_eq!(client.send([13]).await, [expected_job, entries(&[])].concat());
    let hello = Object::blob("hello").id();
    assert_eq!(client.send(b"\x04hello").await, [vec![0], id(hello)].concat());
    assert_eq!(client.send([vec![3], id(hello)].concat()).await, b"\0hello");
    let size = [vec![0], 5u64.to_le_bytes().to_vec()].concat();
    assert_eq!(client.send([vec![11], id(hello)].concat()).await, size);
    for (offset, length, part) in
        [(0, 5, "hello"), (1, 2, "el"), (3, u64::MAX, "lo"), (5, 1, ""), (9, 9, "")]
    {
        let numbers = [offset, length].map(u64::to_le_bytes).concat();
        let response = [&[0], part.as_bytes()].concat();
        assert_eq!(client.send([vec![12], id(hello), numbers].concat()).await, response);
    }
    assert_eq!(client.send([vec![2], id(tree)].concat()).await, [0; 5]);
    let call = [id(tree), text("same")].concat();
    assert_eq!(
        client.send([vec![6], call.clone()].concat()).await,
        [vec![0, 1], id(tree)].concat()
    );
    assert_eq!(client.send(b"\x09a line").await, [0]);
    assert_eq!(client.send([vec![8, 0], id(hello)].concat()).await, [0]);
    assert_eq!(client.host.log(), ["a line"]);
    assert_eq!(client.finish().unwrap(), ObjectRef::blob(hello));

    let client = Client::new();
    assert_eq!(client.send(b"\x0ehello").await, [0]);
    assert_eq!(client.send([vec![3], id(hello)].concat()).await, b"\0hello");
    assert_eq!(client.finish().unwrap(), ObjectRef::blob(hello));

    let client = Client::new();
    assert_eq!(client.send(b"\x0athe end").await, [0]);
    let error = client.finish().unwrap_err();
    assert!(
        matches!(error.reason(), Reason::GuestFailed { message } if message == "the end"),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_job_of_a_container_that_is_a_host_contains_its_module() {
    let host = host();
    let leaf = host.put_blob("");
    let args = [TreeEntry::new("in", EntryMode::Blob, leaf)];
    let module = ObjectRef::blob(leaf);
    let Ok(ImageRef::Docker(container)) = ImageRef::parse("docker://host") else {
        panic!("`docker://host` is an image reference");
    };
    let mut job = job();
    job.args = host.put(Tree::new(args.clone()).unwrap().to_object());
    job.code = Code::Hosted { host: container, module };
    let id_of_args = job.args;
    let session = || Session::new(job.clone(), Arc::new(host.clone()));
    let client = Client { json: session(), binary: session(), host: host.clone() };

    let job = [vec![0], id(id_of_args), vec![0], text("the image"), text("some \"salt\"")].concat();
    let module = [vec![0], id(module.id)].concat();
    assert_eq!(client.send([1]).await, [job.clone(), module.clone()].concat());
    assert_eq!(client.send([13]).await, [job, entries(&args), module].concat());
    for operation in ["job", "job_with_args"] {
        let answer = client.send_json(serde_json::json!({"op": operation})).await;
        let module = serde_json::json!({"kind": "blob", "hash": leaf.to_string()});
        assert_eq!(answer["module"], module, "{operation}");
    }
}

#[tokio::test]
async fn errors_have_the_same_content_as_in_json() {
    let client = Client::new();
    let unknown = Object::blob("not in the store").id();
    let json =
        client.send_json(serde_json::json!({"op": "get", "hash": unknown.to_string()})).await;
    let field = |name: &str| text(json[name].as_str().unwrap());
    let chain: Vec<_> =
        json["chain"].as_array().unwrap().iter().map(|line| text(line.as_str().unwrap())).collect();
    let failure = [
        vec![1],
        field("error"),
        field("kind"),
        u32::try_from(chain.len()).unwrap().to_le_bytes().to_vec(),
        chain.concat(),
    ]
    .concat();
    assert_eq!(client.send([vec![3], id(unknown)].concat()).await, failure);

    // `run_many` returns a failure in the place of its call.
    let tree = empty_tree();
    let calls =
        [vec![7], 2u32.to_le_bytes().to_vec(), id(tree), text("ill"), id(tree), text("same")]
            .concat();
    let answer = client.send(calls).await;
    assert_eq!(answer[..6], [0, 2, 0, 0, 0, 1]);
    assert!(answer.ends_with(&[vec![0, 1], id(tree)].concat()));
}

#[tokio::test]
async fn an_invalid_field_is_an_error_and_a_malformed_request_ends_the_job() {
    let tree = empty_tree();
    let one = 1u32.to_le_bytes().to_vec();
    for (what, request) in [
        ("unknown operation", vec![77]),
        ("unknown kind", [vec![8, 2], id(tree)].concat()),
        ("unknown mode", [vec![5], one.clone(), vec![5], id(tree), text("name")].concat()),
        ("an id of invalid length", vec![3, 2, 1, 1]),
        ("invalid UTF-8", b"\x09\xff".to_vec()),
        (
            "a name that git refuses",
            [vec![5], one.clone(), vec![0], id(tree), text("a/b")].concat(),
        ),
    ] {
        let client = Client::new();
        assert_eq!(client.send(request).await[0], 1, "{what}");
        assert!(!client.binary.has_ended(), "{what}");
    }
    for (what, request) in [
        ("an empty request", vec![]),
        ("a truncated id", vec![3, 20, 1, 2]),
        ("a byte after the request", vec![1, 0]),
        ("fewer entries than the count", [vec![5], u32::MAX.to_le_bytes().to_vec()].concat()),
        (
            "fewer calls than the count",
            [vec![7], u32::MAX.to_le_bytes().to_vec(), id(tree), text("same")].concat(),
        ),
        (
            "a text shorter than its length",
            [vec![6], id(tree), u32::MAX.to_le_bytes().to_vec()].concat(),
        ),
    ] {
        let client = Client::new();
        assert_eq!(client.send(request).await[0], 1, "{what}");
        assert!(client.binary.has_ended(), "{what}");
        let error = client.finish().unwrap_err();
        assert!(matches!(error.reason(), Reason::AbiViolation { .. }), "{what}: {error:?}");
    }
}

proptest! {
    /// Both encodings of the same entries store the same tree, or fail with an error of the same
    /// length. `put_tree` accepts the entries that `tree` returns.
    #[test]
    fn put_tree_has_the_same_result_in_both_encodings(names in proptest::collection::btree_map("[a-z\\PC]{1,12}", 0..5usize, 0..12)) {
        let modes = [EntryMode::Tree, EntryMode::Blob, EntryMode::Executable, EntryMode::Symlink, EntryMode::Commit];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let client = Client::new();
            client.send(b"\x04").await;
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
            let json = client.send_json(serde_json::json!({"op": "put_tree", "entries": in_json})).await;
            let binary = client.send([vec![5], entries(&given)].concat()).await;
            if let Some(hash) = json["hash"].as_str() {
                let stored = id(hash.parse().unwrap());
                prop_assert_eq!(&binary, &[vec![0], stored.clone()].concat());
                let back = client.send([vec![2], stored].concat()).await;
                prop_assert_eq!(client.send([vec![5], back[1..].to_vec()].concat()).await, binary);
            } else {
                prop_assert_eq!(binary[0], 1);
                prop_assert_eq!(&binary[1..5], &u32::try_from(json["error"].as_str().unwrap().len()).unwrap().to_le_bytes());
            }
            Ok(())
        })?;
    }

    /// Any request gets a response, without a panic and without an allocation of the size that it
    /// claims.
    #[test]
    fn any_bytes_get_a_response(request in proptest::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let client = Client::new();
        prop_assert!(!runtime.block_on(client.send(request)).is_empty());
    }
}
