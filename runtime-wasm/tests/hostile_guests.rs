//! Wasm guests that misbehave: each ends with a typed error that names the guest and the request,
//! and the dispatcher keeps working.

use std::time::Duration;

use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{Error, ErrorKind, Limit, Limits, ObjectId, ObjectRef, Reason, Runtime};
use manifold_runtime_wasm::WasmRuntime;

struct Arena {
    dispatcher: Dispatcher,
    wasm: ObjectId,
}

const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

impl Arena {
    fn new() -> Self {
        Self::with_compute_time(Duration::from_millis(200))
    }

    fn with_compute_time(compute_time: Duration) -> Self {
        let runtime = WasmRuntime::new().unwrap();
        let wasm = runtime.host_image().id();
        let mut limits = Limits::default();
        limits.compute_time = compute_time;
        limits.memory_bytes = 16 << 20;
        limits.module_bytes = 1 << 20;
        let dispatcher = Dispatcher::builder().runtime(runtime).limits(limits).build().unwrap();
        Self { dispatcher, wasm }
    }

    async fn run(&self, code: Vec<u8>) -> Result<String, Error> {
        let module = ObjectRef::blob(self.dispatcher.put_blob(code).unwrap());
        let image = self.dispatcher.put_image(self.wasm, module).unwrap();
        let args = self.dispatcher.put_tree([]).unwrap();
        let completion =
            self.dispatcher.run(Invocation::new(image).args(args)).await.map_err(|error| {
                let frame = error.frame().unwrap_or_else(|| panic!("no frame: {error:?}"));
                assert_eq!(
                    (frame.image.as_str(), frame.runtime.as_str()),
                    (image.to_string().as_str(), "wasmtime")
                );
                error
            })?;
        Ok(completion.outcome.id.to_string())
    }

    /// Runs a guest that fails, and then a healthy one. Returns the error.
    async fn fails(&self, what: &str, text: &str) -> Error {
        let error = self.run(wat::parse_str(text).unwrap()).await.expect_err(what);
        let healthy = self.run(wat::parse_str(guest(&answer())).unwrap()).await;
        assert_eq!(healthy.unwrap(), EMPTY_TREE, "after {what}");
        error
    }
}

/// Returns the text of a guest whose body can use the imports `$call` and `$read`.
fn guest(body: &str) -> String {
    format!(
        r#"(module
            (import "caos_abi_v1" "call" (func $call (param i32 i32) (result i32)))
            (import "caos_abi_v1" "read" (func $read (param i32)))
            (memory (export "memory") 1)
            {body})"#
    )
}

/// Returns the body of a guest that sends `requests` in order.
fn sends(requests: &[&str]) -> String {
    let mut data = String::new();
    let mut calls = String::new();
    let mut offset = 0;
    for request in requests {
        let escaped: String = request.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        data += &format!("(data (i32.const {offset}) \"{escaped}\")\n");
        calls +=
            &format!("(drop (call $call (i32.const {offset}) (i32.const {})))\n", request.len());
        offset += request.len();
    }
    format!("{data}(func (export \"caos_run\") {calls})")
}

fn out() -> String {
    format!("{{\"op\":\"out\",\"kind\":\"tree\",\"hash\":\"{EMPTY_TREE}\"}}")
}

fn answer() -> String {
    sends(&[&out()])
}

const SPINNING: &str = "(func (export \"caos_run\") (loop (br 0)))";

/// Returns the body of a guest that sends a request in an endless loop.
fn loops(request: &str) -> String {
    sends(&[request])
        .replacen("(func (export \"caos_run\")", "(func (export \"caos_run\") (loop", 1)
        .replacen("))\n)", "))\n(br 0)))", 1)
}

/// Bodies that never end: in the guest's code, and in the host's work for it.
fn endless() -> Vec<(&'static str, String)> {
    let put = format!("{{\"op\":\"put_blob\",\"bytes_b64\":\"{}\"}}", "QUJD".repeat(10_000));
    vec![
        ("a loop", SPINNING.to_owned()),
        ("a loop of requests", loops("{\"op\":\"job\"}")),
        ("a loop of large requests", loops(&put)),
    ]
}

#[tokio::test]
async fn an_endless_loop_breaches_the_computing_time() {
    let arena = Arena::new();
    for (what, body) in endless() {
        let error = arena.fails(what, &guest(&body)).await;
        assert!(
            matches!(error.reason(), Reason::LimitBreached(Limit::ComputeTime { .. })),
            "{what}: {error:?}"
        );
    }
    let starting = guest("(func $spin (loop (br 0))) (start $spin) (func (export \"caos_run\"))");
    let error = arena.fails("a loop in the start function", &starting).await;
    assert!(
        matches!(error.reason(), Reason::LimitBreached(Limit::ComputeTime { .. })),
        "{error:?}"
    );
}

/// Runs on one thread, so that a guest that does not yield blocks the others.
#[tokio::test]
async fn other_guests_finish_while_one_loops() {
    for (what, body) in endless() {
        let arena = Arena::with_compute_time(Duration::from_secs(2));
        let (looping, healthy) =
            (wat::parse_str(guest(&body)).unwrap(), wat::parse_str(guest(&answer())).unwrap());
        let looping =
            async { arena.run(looping).await.map(|_| ()).map_err(|_| std::time::Instant::now()) };
        let healthy = async {
            while arena.dispatcher.stats().runs == 0 {
                tokio::task::yield_now().await;
            }
            arena.run(healthy).await.unwrap();
            std::time::Instant::now()
        };
        let (looped, answered) = tokio::join!(looping, healthy);
        assert!(answered < looped.unwrap_err(), "{what}");
    }
}

#[tokio::test]
async fn a_looping_guest_is_cancelled_with_its_last_waiter() {
    for (what, body) in endless() {
        let arena = Arena::with_compute_time(Duration::from_secs(60));
        let code = wat::parse_str(guest(&body)).unwrap();
        let wait = async {
            while arena.dispatcher.stats().runs == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = arena.run(code) => panic!("{what} ends by itself"),
            () = wait => {}
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            arena.dispatcher.stats().failures,
            0,
            "{what}: it was cancelled and did not reach its limit"
        );
    }
}

/// A guest that ignores the error of a limit cannot return an outcome that depends on the limit.
#[tokio::test]
async fn a_guest_cannot_survive_a_breached_limit() {
    let arena = Arena::new();
    let blob = arena.dispatcher.put_blob(vec![b'x'; 60 << 20]).unwrap();
    let get = format!("{{\"op\":\"get\",\"hash\":\"{blob}\"}}");
    let error = arena.fails("a large blob", &guest(&sends(&[&get, &out()]))).await;
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Response { .. })), "{error:?}");
}

#[tokio::test]
async fn memory_and_tables_over_the_limit_are_a_breach() {
    let arena = Arena::new();
    let growing =
        guest("(func (export \"caos_run\") (loop (drop (memory.grow (i32.const 16))) (br 0)))");
    let error = arena.fails("growing memory", &growing).await;
    assert!(
        matches!(error.reason(), Reason::LimitBreached(Limit::Memory { bytes: 0x100_0000 })),
        "{error:?}"
    );
    let large = "(module (memory (export \"memory\") 1000) (func (export \"caos_run\")))";
    let error = arena.fails("a large initial memory", large).await;
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Memory { .. })), "{error:?}");
    let table = guest(
        "(table $t 1 funcref)
         (func (export \"caos_run\") (loop (drop (table.grow $t (ref.null func) (i32.const 10000))) (br 0)))",
    );
    let error = arena.fails("a growing table", &table).await;
    assert!(
        matches!(error.reason(), Reason::LimitBreached(Limit::Table { elements: 100_000 })),
        "{error:?}"
    );

    // The limit applies to the sum, also on the heap, where an instance can have many memories and
    // tables.
    let many = format!(
        "(module {} (memory (export \"memory\") 1) (func (export \"caos_run\")))",
        "(memory 100)".repeat(3)
    );
    let error = arena.fails("many memories", &many).await;
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Memory { .. })), "{error:?}");
    let many =
        guest(&format!("{} (func (export \"caos_run\"))", "(table 30000 funcref)".repeat(4)));
    let error = arena.fails("many tables", &many).await;
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Table { .. })), "{error:?}");

    // Reaching a maximum that the guest declares is not a breach.
    let bounded = guest(&answer()).replace("(export \"memory\") 1", "(export \"memory\") 1 2").replace(
        "(func (export \"caos_run\")",
        "(func (export \"caos_run\") (if (i32.ne (memory.grow (i32.const 5)) (i32.const -1)) (then unreachable))",
    );
    assert_eq!(arena.run(wat::parse_str(bounded).unwrap()).await.unwrap(), EMPTY_TREE);
}

#[tokio::test]
async fn traps_and_deep_recursion_are_typed_errors() {
    let arena = Arena::new();
    let error = arena
        .fails(
            "unreachable",
            &guest("(func $boom unreachable) (func (export \"caos_run\") (call $boom))"),
        )
        .await;
    assert!(
        matches!(error.reason(), Reason::Trapped { trap } if trap.contains("unreachable") && trap.contains("boom")),
        "{error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::Guest);
    let error = arena
        .fails(
            "division",
            &guest("(func (export \"caos_run\") (drop (i32.div_u (i32.const 1) (i32.const 0))))"),
        )
        .await;
    assert!(
        matches!(error.reason(), Reason::Trapped { trap } if trap.contains("divide by zero")),
        "{error:?}"
    );
    let error = arena
        .fails("recursion", &guest("(func $f (export \"caos_run\") (call $f) (call $f))"))
        .await;
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Stack { .. })), "{error:?}");
}

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

/// A thousand vectors over the same 12 MB are 12 GB of text.
#[tokio::test]
async fn standard_output_is_bounded_before_it_is_copied() {
    let arena = Arena::new();
    let body = answer().replace(
        "(func (export \"caos_run\")",
        "(func (export \"caos_run\")
            (local $at i32)
            (drop (memory.grow (i32.const 200)))
            (loop $next
                (i32.store (i32.add (i32.const 4096) (local.get $at)) (i32.const 0))
                (i32.store (i32.add (i32.const 4100) (local.get $at)) (i32.const 12000000))
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if $next (i32.lt_u (local.get $at) (i32.const 8192))))
            (drop (call $write (i32.const 1) (i32.const 4096) (i32.const 1024) (i32.const 2048)))",
    );
    let import = "(import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))";
    let text = guest(&body).replacen("(module", &format!("(module {import}"), 1);
    assert_eq!(arena.run(wat::parse_str(text).unwrap()).await.unwrap(), EMPTY_TREE);
}

/// A module with two memories does not fit a slot of the pool, and runs on the heap instead.
#[tokio::test]
async fn a_module_that_does_not_fit_the_pool_runs_on_the_heap() {
    let arena = Arena::new();
    let text = guest(&format!("(memory $second 1) {}", answer()));
    assert_eq!(arena.run(wat::parse_str(text).unwrap()).await.unwrap(), EMPTY_TREE);
}

/// The bits of a NaN, the only nondeterminism of floats in wasm, are canonical.
#[tokio::test]
async fn nan_bits_are_canonical() {
    let arena = Arena::new();
    let body = answer().replace(
        "(func (export \"caos_run\")",
        "(func (export \"caos_run\")
            (if (i32.ne (i32.const 0x7fc00000) (i32.reinterpret_f32 (f32.div (f32.const 0) (f32.const 0))))
                (then unreachable))
            (if (i32.ne (i32.const 0x7fc00000)
                        (i32.reinterpret_f32 (f32.add (f32.reinterpret_i32 (i32.const 0xffc12345)) (f32.const 1))))
                (then unreachable))",
    );
    assert_eq!(arena.run(wat::parse_str(guest(&body)).unwrap()).await.unwrap(), EMPTY_TREE);
}
