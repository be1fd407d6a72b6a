//! Tests of the JSON encoding, `caos_abi_v1`: responses, errors, limits and the job's result.

mod session;

use std::sync::Arc;

use manifold_runtime_api::abi::{Encoding, Session};
use manifold_runtime_api::{
    EntryMode, Error, ErrorKind, Limit, Object, ObjectId, ObjectRef, Reason, Result, TestHost,
    Tree, TreeEntry,
};
use serde_json::{Value, json};
use session::{host, job};

const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
const EMPTY_BLOB: &str = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
const HELLO: &str = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";

struct Client {
    host: TestHost,
    session: Session,
}

impl Client {
    fn new() -> Self {
        let host = host();
        Self { session: Session::new(job(), Arc::new(host.clone())), host }
    }

    async fn send_bytes(&self, request: impl AsRef<[u8]>) -> Value {
        let reply = self.session.call(Encoding::Json, request.as_ref()).await;
        serde_json::from_slice(&reply.into_body()).expect("a response is JSON")
    }

    async fn send(&self, request: Value) -> Value {
        self.send_bytes(request.to_string()).await
    }

    fn finish(self) -> Result<ObjectRef> {
        self.session.finish(Ok(()))
    }
}

#[tokio::test]
async fn every_operation_responds_as_documented() {
    let client = Client::new();
    let job = json!({"args": EMPTY_TREE, "std": "", "salt": "some \"salt\"", "image": "the image", "stack": ""});
    assert_eq!(client.send(json!({"op": "job"})).await, job);
    let mut with_args = job.clone();
    with_args["entries"] = json!([]);
    assert_eq!(client.send(json!({"op": "job_with_args"})).await, with_args);
    assert_eq!(
        client.send(json!({"op": "put_blob", "bytes_b64": "aGVsbG8="})).await,
        json!({"hash": HELLO})
    );
    assert_eq!(
        client.send(json!({"op": "put_blob", "bytes_b64": "aGVsbG8"})).await,
        json!({"hash": HELLO})
    );
    assert_eq!(
        client.send(json!({"op": "get", "hash": HELLO})).await,
        json!({"bytes_b64": "aGVsbG8="})
    );
    assert_eq!(client.send(json!({"op": "size", "hash": HELLO})).await, json!({"size": 5}));
    for (offset, length, part) in
        [(0, 5, "aGVsbG8="), (1, 2, "ZWw="), (3, u64::MAX, "bG8="), (5, 1, ""), (9, 9, "")]
    {
        let request = json!({"op": "get_range", "hash": HELLO, "offset": offset, "length": length});
        assert_eq!(client.send(request).await, json!({"bytes_b64": part}), "{offset} {length}");
    }
    assert_eq!(
        client.send(json!({"op": "tree", "hash": EMPTY_TREE})).await,
        json!({"entries": []})
    );
    let outcome = json!({"kind": "tree", "hash": EMPTY_TREE});
    assert_eq!(
        client.send(json!({"op": "run", "image": "same", "args": EMPTY_TREE})).await,
        outcome
    );
    assert_eq!(client.send(json!({"op": "log", "msg": "a line"})).await, json!({}));
    assert_eq!(client.send(json!({"op": "out", "kind": "blob", "hash": HELLO})).await, json!({}));
    assert_eq!(client.host.log(), ["a line"]);
    assert_eq!(client.finish().unwrap(), ObjectRef::blob(HELLO.parse().unwrap()));

    let client = Client::new();
    let out = json!({"op": "out_blob", "bytes_b64": "aGVsbG8="});
    assert_eq!(client.send(out.clone()).await, json!({}));
    assert_eq!(client.send(json!({"op": "get", "hash": HELLO})).await["bytes_b64"], "aGVsbG8=");
    assert_eq!(client.finish().unwrap(), ObjectRef::blob(HELLO.parse().unwrap()));

    let client = Client::new();
    client.send(json!({"op": "out", "kind": "tree", "hash": EMPTY_TREE})).await;
    client.send(out).await;
    assert!(matches!(client.finish().unwrap_err().reason(), Reason::OutcomeTwice));
}

#[tokio::test]
async fn put_tree_takes_any_order_and_tree_returns_gits_order() {
    let client = Client::new();
    client.host.put_blob("");
    let entries = json!([
        {"name": "z", "kind": "blob", "hash": EMPTY_BLOB},
        {"name": "d", "kind": "tree", "hash": EMPTY_TREE},
        {"name": "d.x", "kind": "tree", "hash": EMPTY_BLOB, "mode": "100755"},
        {"name": "ignored", "name_b64": "Y2Fm6Q==", "kind": "blob", "hash": EMPTY_BLOB, "mode": "120000"},
        {"name": "sub", "kind": "commit", "hash": HELLO},
    ]);
    let stored = client.send(json!({"op": "put_tree", "entries": entries})).await;
    let answer = client.send(json!({"op": "tree", "hash": stored["hash"]})).await;
    let expected = json!({"entries": [
        {"name": "caf\\xE9", "name_b64": "Y2Fm6Q==", "kind": "blob", "hash": EMPTY_BLOB, "mode": "120000"},
        {"name": "d.x", "kind": "blob", "hash": EMPTY_BLOB, "mode": "100755"},
        {"name": "d", "kind": "tree", "hash": EMPTY_TREE, "mode": "40000"},
        {"name": "sub", "kind": "commit", "hash": HELLO, "mode": "160000"},
        {"name": "z", "kind": "blob", "hash": EMPTY_BLOB, "mode": "100644"},
    ]});
    assert_eq!(answer, expected);
    let again = client.send(json!({"op": "put_tree", "entries": answer["entries"]})).await;
    assert_eq!(again, stored, "`put_tree` accepts the entries that `tree` returns");
}

#[tokio::test]
async fn a_directory_mode_may_have_a_leading_zero() {
    let client = Client::new();
    let mut stored = Vec::new();
    for mode in ["40000", "040000"] {
        let entries = json!([{"name": "d", "mode": mode, "hash": EMPTY_TREE}]);
        stored.push(client.send(json!({"op": "put_tree", "entries": entries})).await);
    }
    assert_eq!(stored[0], stored[1]);
    let answer = client.send(json!({"op": "tree", "hash": stored[1]["hash"]})).await;
    assert_eq!(answer["entries"][0]["mode"], "40000");
}

#[tokio::test]
async fn the_log_of_a_guest_that_traps_is_quoted_in_the_error() {
    let trapped = |trap: &str| Error::new(Reason::Trapped { trap: trap.to_owned() });
    let client = Client::new();
    client.send(json!({"op": "log", "msg": "x".repeat(2000)})).await;
    client.send(json!({"op": "get", "hash": HELLO})).await;
    client.send(json!({"op": "log", "msg": "panicked at the end"})).await;
    let error = client.session.finish(Err(trapped("unreachable"))).unwrap_err();
    let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
    assert_eq!(chain.len(), 3, "{error:?}");
    assert!(chain[0].contains("unreachable"), "{chain:?}");
    assert!(
        chain[1].starts_with("the guest's log ends with: x")
            && chain[1].ends_with("x\npanicked at the end"),
        "{chain:?}"
    );
    assert!(chain[1].len() < 1100, "{chain:?}");
    assert!(chain[2].contains("not in the store"), "{chain:?}");

    // The log of a guest that called `fail` is not quoted.
    let client = Client::new();
    client.send(json!({"op": "log", "msg": "a line"})).await;
    client.send(json!({"op": "fail", "message": "its own message"})).await;
    let error = client.session.finish(Ok(())).unwrap_err();
    assert_eq!(error.chain().count(), 1, "{error:?}");
}

#[tokio::test]
async fn a_failed_operation_returns_an_error_and_the_job_continues() {
    let cases = [
        (json!({"op": "sing"}), "no such operation"),
        (json!({"op": "get"}), "`hash` is missing"),
        (json!({"op": "get", "hash": "zz"}), "invalid object id"),
        (json!({"op": "get", "hash": HELLO}), "not in the store"),
        (json!({"op": "put_blob", "bytes_b64": "=="}), "not valid base64"),
        (json!({"op": "out_blob"}), "`bytes_b64` is missing"),
        (
            json!({"op": "put_tree", "entries": [{"name": "a", "hash": HELLO}]}),
            "neither `mode` nor `kind`",
        ),
        (
            json!({"op": "put_tree", "entries": [{"name": "a", "mode": "100664", "hash": HELLO}]}),
            "expected 40000",
        ),
        (
            json!({"op": "put_tree", "entries": [{"name": "a/b", "kind": "blob", "hash": HELLO}]}),
            "slash",
        ),
        (json!({"op": "run", "image": "same"}), "`args` is missing"),
        (json!({"op": "out", "kind": "twig", "hash": HELLO}), "expected \"blob\" or \"tree\""),
    ];
    for (request, expected) in cases {
        let client = Client::new();
        let answer = client.send(request.clone()).await;
        let error =
            answer["error"].as_str().unwrap_or_else(|| panic!("response to {request}: {answer}"));
        assert!(error.contains(expected), "response to {request}: {error:?}");
        assert!(!client.session.has_ended());
        client.send(json!({"op": "out", "kind": "tree", "hash": EMPTY_TREE})).await;
        assert!(client.finish().is_ok(), "{request}");
    }
}

#[tokio::test]
async fn a_request_that_is_not_a_json_object_with_an_op_ends_the_job() {
    for request in [
        "",
        "x",
        "{",
        "[]",
        "{}",
        "{\"op\":1}",
        "{\"op\":\"job\"}x",
        "{\"op\":\"job\",\"op\":\"job\"}",
    ] {
        let client = Client::new();
        assert!(client.send_bytes(request).await["error"].is_string(), "{request}");
        assert!(client.session.has_ended());
        let error = client.finish().unwrap_err();
        assert!(matches!(error.reason(), Reason::AbiViolation { .. }), "{request}: {error:?}");
    }
    let nested = format!("{{\"op\":\"job\",\"x\":{}", "[".repeat(100_000));
    let client = Client::new();
    assert!(client.send_bytes(nested).await["error"].is_string());
}

#[tokio::test]
async fn a_missing_or_second_out_fails_the_job() {
    let client = Client::new();
    assert!(matches!(client.finish().unwrap_err().reason(), Reason::NoOutcome));

    let client = Client::new();
    client.send(json!({"op": "out", "kind": "tree", "hash": EMPTY_TREE})).await;
    assert!(
        client.send(json!({"op": "out", "kind": "tree", "hash": EMPTY_TREE})).await["error"]
            .is_string()
    );
    assert!(client.session.has_ended());
    assert!(matches!(client.finish().unwrap_err().reason(), Reason::OutcomeTwice));
}

#[tokio::test]
async fn fail_after_out_ends_the_job_with_the_guests_message() {
    let client = Client::new();
    client.send(json!({"op": "out", "kind": "tree", "hash": EMPTY_TREE})).await;
    assert_eq!(client.send(json!({"op": "fail", "message": "on second thought"})).await, json!({}));
    assert!(client.session.has_ended());
    let error = client.finish().unwrap_err();
    assert!(
        matches!(error.reason(), Reason::GuestFailed { message } if message == "on second thought")
    );
}

#[tokio::test]
async fn a_nested_failure_has_kind_and_chain_and_causes_a_later_trap() {
    let client = Client::new();
    let answer = client.send(json!({"op": "run", "image": "other", "args": EMPTY_TREE})).await;
    assert_eq!(answer["error"], "no \"luck\" today");
    assert_eq!(answer["kind"], "guest");
    let line = format!("no \"luck\" today (in request {EMPTY_TREE} (image other, runtime map))");
    assert_eq!(answer["chain"], json!([line]));

    let trap = Error::new(Reason::Trapped { trap: "unreachable".into() });
    let error = client.session.finish(Err(trap)).unwrap_err();
    assert!(matches!(error.reason(), Reason::Trapped { .. }));
    assert!(matches!(error.root_cause().reason(), Reason::GuestFailed { .. }), "{error:?}");
}

#[tokio::test]
async fn run_many_returns_failures_in_call_order() {
    let client = Client::new();
    let reqs =
        json!([{"image": "same", "args": EMPTY_TREE}, {"image": "other", "args": EMPTY_TREE}]);
    let answer = client.send(json!({"op": "run_many", "reqs": reqs})).await;
    assert_eq!(answer["results"][0], json!({"kind": "tree", "hash": EMPTY_TREE}));
    assert_eq!(answer["results"][1]["error"], "no \"luck\" today");
}

#[tokio::test]
async fn requests_responses_and_logs_are_limited() {
    let host = host();
    let mut job = job();
    (job.limits.response_bytes, job.limits.log_bytes) = (300, 10);
    let large = host.put(Object::blob(vec![b'x'; 290]));
    let client = Client { session: Session::new(job, Arc::new(host.clone())), host };

    for _ in 0..3 {
        client.send(json!({"op": "log", "msg": "sixßx"})).await;
    }
    let log = client.host.log();
    assert_eq!(log[..2], ["sixßx", "six"]);
    assert_eq!(log.len(), 3, "one line reports that the rest is dropped: {log:?}");

    let answer = client.send(json!({"op": "get", "hash": large.to_string()})).await;
    assert_eq!(answer["kind"], "limit", "the response is larger than the blob");
    assert!(client.session.has_ended(), "a breached limit ends the job");
    let error = client.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error:?}");
    assert!(matches!(
        error.root_cause().reason(),
        Reason::LimitBreached(Limit::Response { bytes: 300 })
    ));

    let host = session::host();
    let mut job = session::job();
    job.limits.guest_request_bytes = 200;
    let client = Client { session: Session::new(job, Arc::new(host.clone())), host };
    assert_eq!(client.send_bytes([b' '; 201]).await["kind"], "limit");
    let error = client.finish().unwrap_err();
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::GuestRequest { bytes: 200 })));
}

#[tokio::test]
async fn a_job_with_arguments_is_limited_and_needs_its_tree() {
    let host = host();
    let leaf = host.put_blob("");
    let entries = ["a", "b", "c", "d"].map(|name| TreeEntry::new(name, EntryMode::Blob, leaf));
    let args = host.put(Tree::new(entries).unwrap().to_object());
    let with_args = json!({"op": "job_with_args"});
    let mut job = job();
    job.args = args;
    job.limits.response_bytes = 300;
    let client = Client { session: Session::new(job, Arc::new(host.clone())), host };
    assert_eq!(client.send(json!({"op": "job"})).await["args"], args.to_string());
    assert_eq!(client.send(with_args.clone()).await["kind"], "limit");
    let error = client.finish().unwrap_err();
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Response { bytes: 300 })));

    let mut job = session::job();
    job.args = HELLO.parse().unwrap();
    let host = session::host();
    let client = Client { session: Session::new(job, Arc::new(host.clone())), host };
    let answer = client.send(with_args).await;
    assert_eq!(answer["kind"], "store", "{answer}");
    assert!(!client.session.has_ended(), "the guest may go on without its arguments");
}

#[tokio::test]
async fn the_message_of_fail_is_truncated() {
    let client = Client::new();
    client.send(json!({"op": "fail", "message": "é".repeat(1 << 20)})).await;
    assert!(client.finish().unwrap_err().to_string().len() < 5000);
}

#[test]
fn a_chain_of_a_million_causes_is_dropped_and_walked_without_recursion() {
    let id = ObjectId::empty_tree();
    let mut error = Error::guest_failed("at the bottom");
    for _ in 0..1_000_000 {
        error = error.in_frame(manifold_runtime_api::Frame::new(id, "i", "r"));
    }
    assert_eq!(error.root_cause().to_string(), "at the bottom");
    assert_eq!(error.kind(), ErrorKind::Guest);
    drop(error);
}
