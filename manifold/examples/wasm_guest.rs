//! Runs a WebAssembly module, with limits for each frame.
//!
//! Run it with `cargo run --example wasm_guest --features wasm`. Real guests are written with the
//! SDK, `manifold-guest`. This one is WebAssembly as text, so that the example needs no other file.

use std::error::Error;
use std::time::Duration;

use manifold::wasm::WasmRuntime;
use manifold::{Dispatcher, Invocation, Limit, Limits};

/// Returns its first argument with ASCII letters in upper case. It speaks `caos_abi_v2`, which
/// `manifold::abi` describes: `call` sends the request at an address and writes the response to
/// another one.
const SHOUT: &str = r#"(module
    (import "caos_abi_v2" "call" (func $call (param i32 i32 i32 i32) (result i32)))
    ;; Requests are built on the first page. Responses are written to the second one.
    (memory (export "memory") 2)

    ;; Sends the operation $op with the $length bytes at address 1, and returns the length of the
    ;; response. A response begins with a zero byte, unless the operation has failed.
    (func $operation (param $op i32) (param $length i32) (result i32)
        (local $response i32)
        (i32.store8 (i32.const 0) (local.get $op))
        (local.set $response (call $call
            (i32.const 0) (i32.add (local.get $length) (i32.const 1))
            (i32.const 65536) (i32.const 65536)))
        (if (i32.load8_u (i32.const 65536)) (then (unreachable)))
        (local.get $response))

    (func (export "caos_run")
        (local $length i32) (local $at i32) (local $byte i32)
        ;; job: the response begins with the id of the arguments, a length and 20 bytes.
        (drop (call $operation (i32.const 1) (i32.const 0)))
        (memory.copy (i32.const 1) (i32.const 65537) (i32.const 21))
        ;; tree: a count in four bytes, then the mode and the id of the first entry.
        (drop (call $operation (i32.const 2) (i32.const 21)))
        (memory.copy (i32.const 1) (i32.const 65542) (i32.const 21))
        ;; get: the content.
        (local.set $length
            (i32.sub (call $operation (i32.const 3) (i32.const 21)) (i32.const 1)))
        (block $done
            (loop $next
                (br_if $done (i32.eq (local.get $at) (local.get $length)))
                (local.set $byte (i32.load8_u offset=65537 (local.get $at)))
                (if (i32.lt_u (i32.sub (local.get $byte) (i32.const 97)) (i32.const 26))
                    (then (local.set $byte (i32.sub (local.get $byte) (i32.const 32)))))
                (i32.store8 offset=1 (local.get $at) (local.get $byte))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br $next)))
        ;; put_blob: the id.
        (drop (call $operation (i32.const 4) (local.get $length)))
        ;; out: the kind, 0 for a blob, and the id.
        (i32.store8 (i32.const 1) (i32.const 0))
        (memory.copy (i32.const 2) (i32.const 65537) (i32.const 21))
        (drop (call $operation (i32.const 8) (i32.const 22)))))"#;

/// Never ends.
const SPIN: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "caos_run") (loop $again (br $again))))"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let limits = Limits::default().memory_bytes(16 << 20).compute_time(Duration::from_secs(1));
    let dispatcher = Dispatcher::builder().limits(limits).build()?;
    let wasm = dispatcher.add_runtime(WasmRuntime::new()?)?;

    let shout = dispatcher.install(wasm, wat::parse_str(SHOUT)?)?;
    let answer = dispatcher.run(Invocation::new(shout).arg("in", "hello")).await?;
    println!("{}", answer.text()?);
    assert_eq!(answer.text()?, "HELLO");

    // A guest that computes for too long is stopped, and the program goes on. An invocation can
    // have tighter limits than the dispatcher.
    let time = Duration::from_millis(100);
    let spin = dispatcher.install(wasm, wat::parse_str(SPIN)?)?;
    let invocation = Invocation::new(spin).limits(Limits::default().compute_time(time));
    let error = dispatcher.run(invocation).await.expect_err("the guest never ends");
    println!("{error:?}");
    assert_eq!(error.breached_limit(), Some(Limit::ComputeTime { time }));

    assert!(dispatcher.run(Invocation::new(shout).arg("in", "hello")).await?.from_memo);
    Ok(())
}
