//! `caos_abi_v1`, request by request.

mod map_host;

use std::sync::Arc;

use manifold_runtime_api::abi::{Encoding, Session};
use manifold_runtime_api::{Error, ErrorKind, Limit, Object, ObjectId, Outcome, Reason, Result};
use map_host::{MapHost, job};
use serde_json::{Value, json};

const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
const EMPTY_BLOB: &str = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
const HELLO: &str = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";

struct Talk {
    host: Arc<MapHost>,
    session: Session,
}

impl Talk {
    fn begin() -> Self {
        let host = Arc::new(MapHost::default());
        Self { session: Session::new(job(&host), Arc::clone(&host) as _), host }
    }

    async fn say(&self, request: impl AsRef<[u8]>) -> Value {
        let reply = self.session.call(Encoding::Json, request.as_ref()).await;
        serde_json::from_slice(&reply.body).expect("a response is JSON")
    }

    async fn ask(&self, request: Value) -> Value {
        self.say(request.to_string()).await
    }

    fn finish(self) -> Result<Outcome> {
        self.session.finish(Ok(()))
    }
}

#[tokio::test]
async fn every_operation_answers_as_the_table_says() {
    let talk = Talk::begin();
    let job = json!({"args": EMPTY_TREE, "std": "", "salt": "some \"salt\"", "image": "the image", "stack": ""});
    assert_eq!(talk.ask(json!({"op": "job"})).await, job);
    assert_eq!(
        talk.ask(json!({"op": "put_blob", "bytes_b64": "aGVsbG8="})).await,
        json!({"hash": HELLO})
    );
    assert_eq!(
        talk.ask(json!({"op": "put_blob", "bytes_b64": "aGVsbG8"})).await,
        json!({"hash": HELLO})
    );
    assert_eq!(
        talk.ask(json!({"op": "get", "hash": HELLO})).await,
        json!({"bytes_b64": "aGVsbG8="})
    );
    assert_eq!(talk.ask(json!({"op": "tree", "hash": EMPTY_TREE})).await, json!({"entries": []}));
    let outcome = json!({"kind": "tree", "hash": EMPTY_TREE});
    assert_eq!(talk.ask(json!({"op": "run", "image": "same", "args": EMPTY_TREE})).await, outcome);
    assert_eq!(talk.ask(json!({"op": "log", "msg": "a line"})).await, json!({}));
    assert_eq!(talk.ask(json!({"op": "out", "kind": "blob", "hash": HELLO})).await, json!({}));
    assert_eq!(*talk.host.log.lock().unwrap(), ["a line"]);
    assert_eq!(talk.finish().unwrap(), Outcome::blob(HELLO.parse().unwrap()));
}

#[tokio::test]
async fn trees_are_taken_in_any_order_and_come_back_in_gits() {
    let talk = Talk::begin();
    let entries = json!([
        {"name": "z", "kind": "blob", "hash": EMPTY_BLOB},
        {"name": "d", "kind": "tree", "hash": EMPTY_TREE},
        {"name": "d.x", "kind": "tree", "hash": EMPTY_BLOB, "mode": "100755"},
        {"name": "ignored", "name_b64": "Y2Fm6Q==", "kind": "blob", "hash": EMPTY_BLOB, "mode": "120000"},
        {"name": "sub", "kind": "commit", "hash": HELLO},
    ]);
    let stored = talk.ask(json!({"op": "put_tree", "entries": entries})).await;
    let answer = talk.ask(json!({"op": "tree", "hash": stored["hash"]})).await;
    let expected = json!({"entries": [
        {"name": "caf\\xE9", "name_b64": "Y2Fm6Q==", "kind": "blob", "hash": EMPTY_BLOB, "mode": "120000"},
        {"name": "d.x", "kind": "blob", "hash": EMPTY_BLOB, "mode": "100755"},
        {"name": "d", "kind": "tree", "hash": EMPTY_TREE, "mode": "40000"},
        {"name": "sub", "kind": "commit", "hash": HELLO, "mode": "160000"},
        {"name": "z", "kind": "blob", "hash": EMPTY_BLOB, "mode": "100644"},
    ]});
    assert_eq!(answer, expected);
    let again = talk.ask(json!({"op": "put_tree", "entries": answer["entries"]})).await;
    assert_eq!(again, stored, "what `tree` answers, `put_tree` takes");
}

#[tokio::test]
async fn the_mode_of_a_directory_may_be_spelled_as_git_shows_it() {
    let talk = Talk::begin();
    let mut stored = Vec::new();
    for mode in ["40000", "040000"] {
        let entries = json!([{"name": "d", "mode": mode, "hash": EMPTY_TREE}]);
        stored.push(talk.ask(json!({"op": "put_tree", "entries": entries})).await);
    }
    assert_eq!(stored[0], stored[1]);
    let answer = talk.ask(json!({"op": "tree", "hash": stored[1]["hash"]})).await;
    assert_eq!(answer["entries"][0]["mode"], "40000");
}

#[tokio::test]
async fn a_guest_that_stops_without_a_word_is_quoted_from_its_log() {
    let trapped = |trap: &str| Error::new(Reason::Trapped { trap: trap.to_owned() });
    let talk = Talk::begin();
    talk.ask(json!({"op": "log", "msg": "x".repeat(2000)})).await;
    talk.ask(json!({"op": "get", "hash": HELLO})).await;
    talk.ask(json!({"op": "log", "msg": "panicked at the end"})).await;
    let error = talk.session.finish(Err(trapped("unreachable"))).unwrap_err();
    let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
    assert_eq!(chain.len(), 3, "{error:?}");
    assert!(chain[0].contains("unreachable"), "{chain:?}");
    assert!(
        chain[1].starts_with("it logged last: x") && chain[1].ends_with("x\npanicked at the end"),
        "{chain:?}"
    );
    assert!(chain[1].len() < 1100, "{chain:?}");
    assert!(chain[2].contains("not in the store"), "{chain:?}");

    // Who has said why is not quoted.
    let talk = Talk::begin();
    talk.ask(json!({"op": "log", "msg": "a line"})).await;
    talk.ask(json!({"op": "fail", "message": "its own words"})).await;
    let error = talk.session.finish(Ok(())).unwrap_err();
    assert_eq!(error.chain().count(), 1, "{error:?}");
}

#[tokio::test]
async fn a_failed_operation_is_answered_and_the_guest_goes_on() {
    let wrong = [
        (json!({"op": "sing"}), "no such operation"),
        (json!({"op": "get"}), "`hash` is missing"),
        (json!({"op": "get", "hash": "zz"}), "not an object id"),
        (json!({"op": "get", "hash": HELLO}), "not in the store"),
        (json!({"op": "put_blob", "bytes_b64": "=="}), "not base64"),
        (
            json!({"op": "put_tree", "entries": [{"name": "a", "hash": HELLO}]}),
            "neither `mode` nor `kind`",
        ),
        (
            json!({"op": "put_tree", "entries": [{"name": "a", "mode": "100664", "hash": HELLO}]}),
            "none of git's",
        ),
        (
            json!({"op": "put_tree", "entries": [{"name": "a/b", "kind": "blob", "hash": HELLO}]}),
            "slash",
        ),
        (json!({"op": "run", "image": "same"}), "`args` is missing"),
        (json!({"op": "out", "kind": "twig", "hash": HELLO}), "not \"blob\" or \"tree\""),
    ];
    for (request, words) in wrong {
        let talk = Talk::begin();
        let answer = talk.ask(request.clone()).await;
        let error =
            answer["error"].as_str().unwrap_or_else(|| panic!("{request} answers {answer}"));
        assert!(error.contains(words), "{request} answers {error:?}");
        assert!(!talk.session.has_ended());
        talk.ask(json!({"op": "out", "kind": "tree", "hash": EMPTY_TREE})).await;
        assert!(talk.finish().is_ok(), "{request}");
    }
}

#[tokio::test]
async fn what_is_no_json_object_ends_the_job() {
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
        let talk = Talk::begin();
        assert!(talk.say(request).await["error"].is_string(), "{request}");
        assert!(talk.session.has_ended());
        let error = talk.finish().unwrap_err();
        assert!(matches!(error.reason(), Reason::AbiViolation { .. }), "{request}: {error:?}");
    }
    let nested = format!("{{\"op\":\"job\",\"x\":{}", "[".repeat(100_000));
    let talk = Talk::begin();
    assert!(talk.say(nested).await["error"].is_string());
}

#[tokio::test]
async fn out_is_called_exactly_once() {
    let talk = Talk::begin();
    assert!(matches!(talk.finish().unwrap_err().reason(), Reason::NoOutcome));

    let talk = Talk::begin();
    talk.ask(json!({"op": "out", "kind": "tree", "hash": EMPTY_TREE})).await;
    assert!(
        talk.ask(json!({"op": "out", "kind": "tree", "hash": EMPTY_TREE})).await["error"]
            .is_string()
    );
    assert!(talk.session.has_ended());
    assert!(matches!(talk.finish().unwrap_err().reason(), Reason::OutcomeTwice));
}

#[tokio::test]
async fn fail_ends_the_job_in_the_guests_words_even_after_out() {
    let talk = Talk::begin();
    talk.ask(json!({"op": "out", "kind": "tree", "hash": EMPTY_TREE})).await;
    assert_eq!(talk.ask(json!({"op": "fail", "message": "on second thought"})).await, json!({}));
    assert!(talk.session.has_ended());
    let error = talk.finish().unwrap_err();
    assert!(
        matches!(error.reason(), Reason::GuestFailed { message } if message == "on second thought")
    );
}

#[tokio::test]
async fn a_nested_failure_is_told_with_its_kind_and_chain_and_explains_a_later_trap() {
    let talk = Talk::begin();
    let answer = talk.ask(json!({"op": "run", "image": "other", "args": EMPTY_TREE})).await;
    assert_eq!(answer["error"], "no \"luck\" today");
    assert_eq!(answer["kind"], "guest");
    let line = format!("no \"luck\" today (in request {EMPTY_TREE} (image other, runtime map))");
    assert_eq!(answer["chain"], json!([line]));

    let trap = Error::new(Reason::Trapped { trap: "unreachable".into() });
    let error = talk.session.finish(Err(trap)).unwrap_err();
    assert!(matches!(error.reason(), Reason::Trapped { .. }));
    assert!(matches!(error.root_cause().reason(), Reason::GuestFailed { .. }), "{error:?}");
}

#[tokio::test]
async fn run_many_keeps_failures_in_their_places() {
    let talk = Talk::begin();
    let reqs =
        json!([{"image": "same", "args": EMPTY_TREE}, {"image": "other", "args": EMPTY_TREE}]);
    let answer = talk.ask(json!({"op": "run_many", "reqs": reqs})).await;
    assert_eq!(answer["results"][0], json!({"kind": "tree", "hash": EMPTY_TREE}));
    assert_eq!(answer["results"][1]["error"], "no \"luck\" today");
}

#[tokio::test]
async fn requests_responses_and_logs_have_limits() {
    let host = Arc::new(MapHost::default());
    let mut job = job(&host);
    (job.limits.response_bytes, job.limits.log_bytes) = (300, 10);
    let large = host.put(Object::blob(vec![b'x'; 290]));
    let talk = Talk { session: Session::new(job, Arc::clone(&host) as _), host };

    for _ in 0..3 {
        talk.ask(json!({"op": "log", "msg": "sixßx"})).await;
    }
    let log = talk.host.log.lock().unwrap().clone();
    assert_eq!(log[..2], ["sixßx", "six"]);
    assert_eq!(log.len(), 3, "one line says that the rest is dropped: {log:?}");

    let answer = talk.ask(json!({"op": "get", "hash": large.to_string()})).await;
    assert_eq!(answer["kind"], "limit", "the response is larger than the blob");
    assert!(talk.session.has_ended(), "no guest survives a limit");
    let error = talk.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error:?}");
    assert!(matches!(
        error.root_cause().reason(),
        Reason::LimitBreached(Limit::Response { bytes: 300 })
    ));

    let host = Arc::new(MapHost::default());
    let mut job = map_host::job(&host);
    job.limits.guest_request_bytes = 200;
    let talk = Talk { session: Session::new(job, Arc::clone(&host) as _), host };
    assert_eq!(talk.say([b' '; 201]).await["kind"], "limit");
    let error = talk.finish().unwrap_err();
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::GuestRequest { bytes: 200 })));
}

#[tokio::test]
async fn a_guest_cannot_grow_an_error_without_bounds() {
    let talk = Talk::begin();
    talk.ask(json!({"op": "fail", "message": "é".repeat(1 << 20)})).await;
    assert!(talk.finish().unwrap_err().to_string().len() < 5000);
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
