//! Guests that never end: their computing time, other guests meanwhile, and cancellation.

use std::time::Duration;

use manifold_runtime_api::{Limit, Reason};

use crate::{Arena, answer, guest, sends};

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
        let arena = Arena::with_compute_time(Duration::from_secs(4));
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
        // The observer is told of the cancellation, long before the guest would reach its limit.
        let cancelled = async {
            while arena.dispatcher.stats().failures == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let cancelled = tokio::time::timeout(Duration::from_secs(20), cancelled).await;
        assert!(cancelled.is_ok(), "{what}: it was not cancelled");
    }
}

/// The engine checks the time at loops and functions of the guest, and there are none here.
#[tokio::test]
async fn calls_of_the_host_in_a_row_breach_the_computing_time() {
    let arena = Arena::new();
    // Four seconds, and as much for the copies of a response.
    let fill = "(drop (call $random (i32.const 0) (i32.const 0xf00000)))".repeat(4000);
    let filling = format!(
        "(module
            (import \"wasi_snapshot_preview1\" \"random_get\"
                (func $random (param i32 i32) (result i32)))
            (memory (export \"memory\") 256)
            (func (export \"caos_run\") {fill}))"
    );
    let error = arena.fails("filling memory", &filling).await;
    assert!(
        matches!(error.reason(), Reason::LimitBreached(Limit::ComputeTime { .. })),
        "{error:?}"
    );
    let blob = arena.dispatcher.put_blob(vec![b'x'; 8 << 20]).unwrap();
    let get = format!("{{\"op\":\"get\",\"hash\":\"{blob}\"}}");
    let read = "(call $read (i32.const 1024))".repeat(8000);
    let reading = format!(
        "(module
            (import \"caos_abi_v1\" \"call\" (func $call (param i32 i32) (result i32)))
            (import \"caos_abi_v1\" \"read\" (func $read (param i32)))
            (memory (export \"memory\") 256)
            (data (i32.const 0) \"{}\")
            (func (export \"caos_run\") (drop (call $call (i32.const 0) (i32.const {}))) {read}))",
        get.replace('"', "\\22"),
        get.len()
    );
    let error = arena.fails("reading a response", &reading).await;
    assert!(
        matches!(error.reason(), Reason::LimitBreached(Limit::ComputeTime { .. })),
        "{error:?}"
    );
}
