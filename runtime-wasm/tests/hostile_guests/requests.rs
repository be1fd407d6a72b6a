//! Malformed requests and modules, and requests that make no sense.

use manifold_runtime_api::{Limit, Reason};

use crate::{Arena, EMPTY_TREE, guest, out, sends};

#[tokio::test]
async fn out_must_be_called_exactly_once() {
    let arena = Arena::new();
    let error = arena.fails("no out", &guest("(func (export \"caos_run\"))")).await;
    assert!(matches!(error.reason(), Reason::NoOutcome), "{error:?}");
    let error = arena.fails("out twice", &guest(&sends(&[&out(), &out()]))).await;
    assert!(matches!(error.reason(), Reason::OutcomeTwice), "{error:?}");
}

#[tokio::test]
async fn missing_objects_and_objects_of_another_kind_are_errors() {
    let arena = Arena::new();
    let missing = "ab".repeat(20);
    let out_missing = format!("{{\"op\":\"out\",\"kind\":\"blob\",\"hash\":\"{missing}\"}}");
    let error = arena.fails("out of a missing object", &guest(&sends(&[&out_missing]))).await;
    assert!(matches!(error.reason(), Reason::MissingObject { .. }), "{error:?}");
    let out_kind = format!("{{\"op\":\"out\",\"kind\":\"blob\",\"hash\":\"{EMPTY_TREE}\"}}");
    let error = arena.fails("out of another kind", &guest(&sends(&[&out_kind]))).await;
    assert!(matches!(error.reason(), Reason::WrongKind { .. }), "{error:?}");
    for request in [
        format!("{{\"op\":\"get\",\"hash\":\"{missing}\"}}"),
        format!("{{\"op\":\"tree\",\"hash\":\"{missing}\"}}"),
        format!("{{\"op\":\"get\",\"hash\":\"{EMPTY_TREE}\"}}"),
        format!(
            "{{\"op\":\"put_tree\",\"entries\":[{{\"name\":\"x\",\"kind\":\"blob\",\"hash\":\"{missing}\"}}]}}"
        ),
        format!("{{\"op\":\"run\",\"image\":\"{missing}\",\"args\":\"{EMPTY_TREE}\"}}"),
    ] {
        let error = arena.fails(&request, &guest(&sends(&[&request]))).await;
        assert!(matches!(error.reason(), Reason::NoOutcome), "{error:?}");
        let cause = error.root_cause().reason();
        assert!(
            matches!(cause, Reason::MissingObject { .. } | Reason::WrongKind { .. }),
            "{request}: {error:?}"
        );
    }
}

#[tokio::test]
async fn pointers_outside_the_memory_are_errors() {
    let arena = Arena::new();
    for (what, body) in [
        ("call past the end", "(drop (call $call (i32.const 65530) (i32.const 100)))"),
        ("call that wraps around", "(drop (call $call (i32.const -1) (i32.const -1)))"),
        (
            "read past the end",
            "(drop (call $call (i32.const 0) (i32.const 12))) (call $read (i32.const 65535))",
        ),
        (
            "read at -1",
            "(drop (call $call (i32.const 0) (i32.const 12))) (call $read (i32.const -1))",
        ),
    ] {
        let text = guest(&format!(
            "(data (i32.const 0) \"{{\\22op\\22:\\22job\\22}}\") (func (export \"caos_run\") {body})"
        ));
        let error = arena.fails(what, &text).await;
        let expected = matches!(error.reason(), Reason::AbiViolation { problem } if problem.contains("outside"))
            || matches!(error.reason(), Reason::LimitBreached(Limit::GuestRequest { .. }));
        assert!(expected, "{what}: {error:?}");
    }
}

/// Returns the text of a guest of `caos_abi_v2` with the request `job` at address 0.
fn binary_guest(body: &str) -> String {
    format!(
        r#"(module
            (import "caos_abi_v2" "call" (func $call (param i32 i32 i32 i32) (result i32)))
            (import "caos_abi_v2" "read" (func $read (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\01")
            (func (export "caos_run") {body}))"#
    )
}

#[tokio::test]
async fn response_buffers_outside_the_memory_are_errors() {
    let arena = Arena::new();
    for (what, body) in [
        (
            "room past the end",
            "(drop (call $call (i32.const 0) (i32.const 1) (i32.const 65530) (i32.const 100)))",
        ),
        (
            "room that wraps around",
            "(drop (call $call (i32.const 0) (i32.const 1) (i32.const -1) (i32.const -1)))",
        ),
        (
            "a request past the end",
            "(drop (call $call (i32.const 65536) (i32.const 1) (i32.const 0) (i32.const 1)))",
        ),
        (
            "read past the end",
            "(drop (call $call (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0))) (call $read (i32.const 65530))",
        ),
    ] {
        let error = arena.fails(what, &binary_guest(body)).await;
        let expected = matches!(error.reason(), Reason::AbiViolation { problem } if problem.contains("outside"));
        assert!(expected, "{what}: {error:?}");
    }
    // If the buffer is smaller than the response, nothing is written, and `read` writes all of it.
    let body = r#"
        (local $length i32)
        (local.set $length (call $call (i32.const 0) (i32.const 1) (i32.const 100) (i32.const 5)))
        (if (i32.load (i32.const 100)) (then (unreachable)))
        (call $read (i32.const 100))
        (if (i32.ne (i32.load8_u (i32.const 101)) (i32.const 20)) (then (unreachable)))
        ;; The response to `job` begins with the arguments: these are the outcome, a tree.
        (i32.store8 (i32.const 99) (i32.const 8))
        (i32.store8 (i32.const 100) (i32.const 1))
        (drop (call $call (i32.const 99) (i32.const 23) (i32.const 200) (i32.const 1)))"#;
    let answer = arena.run(wat::parse_str(binary_guest(body)).unwrap()).await;
    assert_eq!(answer.unwrap(), EMPTY_TREE);
}

#[tokio::test]
async fn malformed_requests_and_modules_are_errors() {
    let arena = Arena::new();
    for request in ["", "{", "not json", "{\"op\": 5}", "\u{0}\u{1}"] {
        let error = arena.fails(request, &guest(&sends(&[request, &out()]))).await;
        assert!(matches!(error.reason(), Reason::AbiViolation { .. }), "{request}: {error:?}");
    }
    let no_memory = "(module (func (export \"caos_run\")))";
    let two_results = "(module (memory (export \"memory\") 1) (func (export \"caos_run\") (result i32) (i32.const 1)))";
    let stranger = "(module (import \"env\" \"time\" (func)) (memory (export \"memory\") 1) (func (export \"caos_run\")))";
    let threads = "(module (memory (export \"memory\") 1 1 shared) (func (export \"caos_run\")))";
    let cases = [
        (no_memory, "memory"),
        (two_results, "caos_run"),
        (stranger, "env::time"),
        (threads, "threads must be enabled"),
    ];
    for (text, words) in cases {
        let error = arena.fails(text, text).await;
        assert!(
            matches!(error.reason(), Reason::BadModule { problem, .. } if problem.contains(words)),
            "{error:?}"
        );
    }
    for code in [b"".to_vec(), b"not wasm".to_vec(), b"\0asm\x01\0\0\0\xff".to_vec()] {
        let error = arena.run(code).await.unwrap_err();
        assert!(matches!(error.reason(), Reason::BadModule { .. }), "{error:?}");
    }
    let error = arena.run(vec![0; 2 << 20]).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Module { .. })), "{error:?}");
}

#[tokio::test]
async fn fail_ends_the_guest_at_once() {
    let arena = Arena::new();
    let body = sends(&[&out(), "{\"op\":\"fail\",\"message\":\"enough\"}"]).replacen(
        "(func (export",
        "(func $said (export",
        1,
    );
    let text = guest(&body.replace("))\n)", "))\n(loop (br 0)))"));
    let error = arena.fails("fail and loop", &text).await;
    assert!(
        matches!(error.reason(), Reason::GuestFailed { message } if message == "enough"),
        "{error:?}"
    );
}
