//! The limits of a guest: log, nesting of code, size of a request, memory.

use manifold_runtime_api::{Limit, Limits, ObjectRef, Reason};
use manifold_runtime_v8::V8Runtime;

use crate::Guests;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn console_writes_to_the_log_which_has_a_limit() {
    let mut limits = Limits::default();
    limits.log_bytes = 100;
    let guests = Guests::with(V8Runtime::new().unwrap(), limits);
    let code = "import { log } from 'manifold:guest';
        export default () => {
            log('one'); console.warn('two', 2, { three: [3] }, null, undefined);
            for (let i = 0; i < 1000; i++) console.log('x'.repeat(30));
            return '';
        };";
    guests.run(code).await.unwrap();
    let log = guests.log.0.lock().unwrap().clone();
    assert_eq!(
        log[..3],
        ["one".to_owned(), r#"two 2 {"three":[3]} null undefined"#.to_owned(), "x".repeat(30)]
    );
    assert!(log.len() < 8 && log.last().unwrap().contains("is dropped"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deeply_nested_code_runs_or_is_a_typed_error() {
    let guests = Guests::new();
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{a:", "}"),
        ("!", ""),
        ("a=>", ""),
        ("1+", "1"),
        ("1?", ":1"),
        ("if(1);else ", ";"),
        ("class A{a=", "}"),
        ("`${", "}`"),
    ] {
        for depth in [1_000, 100_000, 1_000_000] {
            let code = format!(
                "export const a = {}1{}; export default () => 'ok';",
                open.repeat(depth),
                close.repeat(depth)
            );
            match guests.run(&code).await {
                Ok(answer) => assert_eq!(answer, "ok"),
                Err(error) => assert!(
                    matches!(
                        error.reason(),
                        Reason::BadModule { .. }
                            | Reason::GuestFailed { .. }
                            | Reason::LimitBreached(_)
                    ),
                    "{open} {depth} {error}"
                ),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_cannot_survive_a_breached_limit() {
    let mut limits = Limits::default();
    (limits.memory_bytes, limits.guest_request_bytes) = (16 << 20, 1000);
    let guests = Guests::with(V8Runtime::new().unwrap(), limits);
    let request = "import { putBlob } from 'manifold:guest';
        export default async () => { try { await putBlob('ä'.repeat(600)); } catch { return 'caught'; } return 'done'; };";
    let error = guests.run(request).await.unwrap_err();
    assert!(matches!(error.breached_limit(), Some(Limit::GuestRequest { bytes: 1000 })), "{error}");
    for buffers in [
        "export default () => { try { new Uint8Array(2 ** 31); } catch {} new Uint8Array(1000); return 'caught'; };",
        "export default () => { try { new TextEncoder().encode('x'.repeat(2 ** 25)); } catch {} new Uint8Array(1000); return 'caught'; };",
    ] {
        let error = guests.run(buffers).await.unwrap_err();
        assert!(matches!(error.breached_limit(), Some(Limit::Memory { .. })), "{error}");
    }
    // Memory that is garbage does not count toward the limit.
    let garbage = "export default () => { for (let i = 0; i < 200; i++) new Uint8Array(1 << 20); return 'fine'; };";
    assert_eq!(guests.run(garbage).await.unwrap(), "fine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_fills_its_isolate_does_not_affect_other_guests_in_it() {
    let mut limits = Limits::default();
    limits.memory_bytes = 32 << 20;
    let guests = Guests::with(V8Runtime::builder().threads(1).build().unwrap(), limits);
    let image = |code: &str| {
        let module = ObjectRef::blob(guests.dispatcher.put_blob(code.to_owned()).unwrap());
        guests.dispatcher.put_image(guests.host, module).unwrap()
    };
    let hog = image("export default () => { const all = []; for (;;) all.push([]); };");
    let parent = |rest: &str| {
        format!(
            "import {{ putTree, run }} from 'manifold:guest';
            export default async () => {{
                try {{ await run('{hog}', await putTree([])); }} catch (error) {{ if (error.kind !== 'limit') throw error; }}
                {rest}
            }};"
        )
    };
    assert_eq!(guests.run(&parent("return 'lives';")).await.unwrap(), "lives");
    // The parent's own limit is unchanged.
    let error = guests.run(&parent("const all = []; for (;;) all.push([]);")).await.unwrap_err();
    assert!(matches!(error.breached_limit(), Some(Limit::Memory { .. })), "{error}");
}
