//! Limits and budgets of fuel, memory and time for wasm guests.

use std::time::Duration;

use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Budget, Dispatcher, Invocation, Policy};
use manifold_runtime_api::{
    EntryMode, Error, Limit, Limits, ObjectId, ObjectRef, Reason, Runtime, TreeEntry,
};
use manifold_runtime_wasm::WasmRuntime;
use manifold_standard_guests as guests;

struct Folder {
    dispatcher: Dispatcher,
    wasm: ObjectId,
    std: ObjectId,
}

impl Folder {
    fn new() -> Self {
        let runtime = WasmRuntime::new().unwrap();
        let wasm = runtime.host_image().id();
        let dispatcher = Dispatcher::builder().runtime(runtime).build().unwrap();
        let std = guests::install_for(&dispatcher, guests::Hosts::default().wasm(wasm)).unwrap();
        Self { dispatcher, wasm, std }
    }

    /// Returns the fold of a chain of `levels` directories.
    fn fold(&self, levels: usize) -> Invocation {
        let file = self.dispatcher.put_blob("content\n").unwrap();
        let bottom =
            self.dispatcher.put_tree([TreeEntry::new("f", EntryMode::Blob, file)]).unwrap();
        let root = (1..levels).fold(bottom, |below, _| {
            self.dispatcher.put_tree([TreeEntry::new("d", EntryMode::Tree, below)]).unwrap()
        });
        let std = self.dispatcher.read_tree(self.std).unwrap();
        let image = |name: &str| std.get(name).unwrap().id.to_string();
        let post = ObjectRef::blob(self.dispatcher.put_blob(image("file-count")).unwrap());
        let args = self
            .dispatcher
            .put_tree([argument("in", ObjectRef::tree(root)), argument("post", post)])
            .unwrap();
        Invocation::new(image("fold")).args(args).std(self.std).policy(Policy::RecomputeAll)
    }

    /// Returns a call of a guest with this body, and the request `job` at address 0.
    fn guest(&self, body: &str) -> Invocation {
        let text = format!(
            r#"(module (import "caos_abi_v1" "call" (func $call (param i32 i32) (result i32)))
                (memory (export "memory") 1) (data (i32.const 0) "{{\"op\":\"job\"}}")
                (func (export "caos_run") {body}))"#
        );
        let code = self.dispatcher.put_blob(wat::parse_str(text).unwrap()).unwrap();
        let image = self.dispatcher.put_image(self.wasm, ObjectRef::blob(code)).unwrap();
        Invocation::new(image).args(self.dispatcher.put_tree([]).unwrap())
    }

    /// Runs an invocation that breaches a limit, and returns the limit.
    async fn breach(&self, invocation: Invocation) -> Limit {
        let error: Error = self.dispatcher.run(invocation).await.unwrap_err();
        let Reason::LimitBreached(limit) = error.root_cause().reason() else { panic!("{error:?}") };
        assert_eq!(error.root_cause().frame().unwrap().runtime, "wasmtime");
        *limit
    }
}

fn fuel(units: u64) -> Limits {
    let mut limits = Limits::default();
    limits.fuel = Some(units);
    limits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_stops_when_its_fuel_is_used_up() {
    let folder = Folder::new();
    for body in ["(loop (br 0))", "(loop (drop (call $call (i32.const 0) (i32.const 12))) (br 0))"]
    {
        let limit = folder.breach(folder.guest(body).limits(fuel(100_000))).await;
        assert_eq!(limit, Limit::Fuel { units: 100_000 }, "{body}");
        let limit = folder.breach(folder.guest(body).budget(Budget::new().fuel(100_000))).await;
        assert_eq!(limit, Limit::TotalFuel { units: 100_000 }, "{body}");
        let both = folder.guest(body).limits(fuel(50_000)).budget(Budget::new().fuel(100_000));
        assert_eq!(folder.breach(both).await, Limit::Fuel { units: 50_000 }, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fold_shares_one_fuel_budget_and_returns_the_unmetered_outcome() {
    let folder = Folder::new();
    let free = folder.dispatcher.run(folder.fold(30)).await.unwrap();
    let enough = Budget::new().fuel(1_000_000_000);
    let metered = folder.dispatcher.run(folder.fold(30).budget(enough)).await.unwrap();
    assert_eq!(
        (metered.request, metered.outcome),
        (free.request, free.outcome),
        "fuel is not part of the key"
    );

    // Searches for the fuel that the whole fold takes.
    let (mut low, mut high) = (0, 1_000_000_000);
    while high - low > 1000 {
        let middle = (low + high) / 2;
        match folder.dispatcher.run(folder.fold(30).budget(Budget::new().fuel(middle))).await {
            Ok(_) => high = middle,
            Err(error) => {
                assert_eq!(
                    error.breached_limit(),
                    Some(Limit::TotalFuel { units: middle }),
                    "{error:?}"
                );
                low = middle;
            }
        }
    }
    // The whole fold takes much more fuel than each of its frames.
    assert!(folder.dispatcher.run(folder.fold(30).limits(fuel(high / 4))).await.is_ok());
    assert!(folder.dispatcher.run(folder.fold(30).limits(fuel(high / 1000))).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspended_frames_count_toward_the_memory_budget() {
    let folder = Folder::new();
    let budget = Budget::new().memory_bytes(8 << 20);
    assert!(folder.dispatcher.run(folder.fold(5).budget(budget)).await.is_ok());
    let limit = folder.breach(folder.fold(500).budget(budget)).await;
    assert_eq!(limit, Limit::TotalMemory { bytes: 8 << 20 });
    // Reserved memory is released, or later calls would have less.
    for _ in 0..5 {
        assert!(folder.dispatcher.run(folder.fold(5).budget(budget)).await.is_ok());
    }
    let grows = "(drop (memory.grow (i32.const 1000)))";
    assert_eq!(
        folder.breach(folder.guest(grows).budget(budget)).await,
        Limit::TotalMemory { bytes: 8 << 20 }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_stops_a_guest_that_computes() {
    let folder = Folder::new();
    let time = Duration::from_millis(100);
    let limit =
        folder.breach(folder.guest("(loop (br 0))").budget(Budget::new().deadline(time))).await;
    assert_eq!(limit, Limit::Deadline { time });
}
