//! Wasm guests that misbehave: each ends with a typed error that names the guest and the request,
//! and the dispatcher keeps working.

mod execution;
mod limits;
mod requests;
mod time;

use std::time::Duration;

use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{Error, Limits, ObjectId, ObjectRef, Runtime};
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
