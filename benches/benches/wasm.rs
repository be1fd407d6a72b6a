//! One frame in WebAssembly, beside the same instantiation and call with wasmtime alone.
#![allow(missing_docs, reason = "criterion's macros define functions")]

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use manifold_benches::{FixedHost, Language, OURS, Setting, one_core};
use manifold_dispatcher::{Invocation, Policy};
use manifold_runtime_api::abi::{Encoding, Session};
use manifold_runtime_api::{ObjectId, ObjectRef, Runtime};
use manifold_runtime_wasm::WasmRuntime;
use wasmtime::{
    Caller, Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker,
    PoolingAllocationConfig, Store, UpdateDeadline, WasmFeatures,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Returns the code of a guest that reports `outcome` and makes no other request.
fn smallest(outcome: ObjectId) -> Vec<u8> {
    let request = out(outcome);
    let bytes: String = request.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let text = format!(
        r#"(module
            (import "caos_abi_v2" "call" (func $call (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "{bytes}")
            (func (export "caos_run")
                (drop (call $call (i32.const 0) (i32.const {}) (i32.const 1024) (i32.const 1024)))))"#,
        request.len()
    );
    wat::parse_str(text).unwrap()
}

/// Returns the request `out` with a tree, in the encoding of `caos_abi_v2`.
fn out(outcome: ObjectId) -> Vec<u8> {
    [&[8, 1, 20], outcome.as_bytes()].concat()
}

/// The recorded responses for a guest on the bare engine.
struct Script {
    responses: Arc<[Arc<[u8]>]>,
    next: usize,
}

/// Returns an engine with the settings of `runtime-wasm`'s pool.
fn bare_engine() -> Engine {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(1000)
        .total_memories(1000)
        .total_tables(2000)
        .total_stacks(1000)
        .max_memories_per_module(1)
        .max_tables_per_module(2)
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(1000)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_features(WasmFeatures::THREADS, false)
        .epoch_interruption(true)
        .max_wasm_stack(256 << 10)
        .async_stack_size(384 << 10)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).unwrap()
}

/// A guest on the bare engine.
struct Bare {
    engine: Engine,
    guest: InstancePre<Script>,
}

impl Bare {
    fn new(code: &[u8]) -> Self {
        let engine = bare_engine();
        let mut linker = Linker::<Script>::new(&engine);
        linker
            .func_wrap_async(
                "caos_abi_v2",
                "call",
                |mut caller: Caller<'_, Script>, (_, _, room, _): (u32, u32, u32, u32)| {
                    let memory = caller.get_export("memory").unwrap().into_memory().unwrap();
                    let script = caller.data_mut();
                    let response = Arc::clone(&script.responses[script.next]);
                    script.next += 1;
                    memory.write(caller, room as usize, &response).unwrap();
                    Box::new(std::future::ready(response.len() as u32))
                },
            )
            .unwrap();
        linker.func_wrap("caos_abi_v2", "read", |_: u32| {}).unwrap();
        let module = wasmtime::Module::new(&engine, code).unwrap();
        Self { guest: linker.instantiate_pre(&module).unwrap(), engine }
    }

    async fn run(&self, responses: &Arc<[Arc<[u8]>]>) {
        let script = Script { responses: Arc::clone(responses), next: 0 };
        let mut store = Store::new(&self.engine, script);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
        let instance = self.guest.instantiate_async(&mut store).await.unwrap();
        let run = instance.get_typed_func::<(), ()>(&mut store, "caos_run").unwrap();
        run.call_async(&mut store, ()).await.unwrap();
    }
}

/// Measures a frame of the guest `code`, which makes `requests`.
fn frame(
    criterion: &mut Criterion,
    name: &str,
    setting: &Setting,
    invocation: Invocation,
    code: &[u8],
    requests: &[Vec<u8>],
) {
    let runtime = one_core().unwrap();
    let dispatcher = &setting.dispatcher;
    let bare = Bare::new(code);
    let wasm = WasmRuntime::new().unwrap();
    let module = dispatcher.put_blob(code.to_vec()).unwrap();
    // The code is the only blob that is read, so the host may return it for every blob.
    let host = FixedHost::new(dispatcher.read_tree(invocation.args).unwrap(), code.to_vec());
    let job = host.job(ObjectRef::blob(module));
    runtime.block_on(wasm.prepare(&job.code, &job.limits, &*host)).unwrap();
    // The guest on the bare engine gets the same responses as the one on this host.
    let session = Session::new(job.clone(), Arc::clone(&host) as _);
    let responses = requests.iter().map(|request| {
        runtime.block_on(session.call(Encoding::Binary, request)).into_body().into()
    });
    let responses: Arc<[Arc<[u8]>]> = responses.collect();
    let again = invocation.policy(Policy::Recompute);

    let mut group = criterion.benchmark_group(name);
    group.bench_function(format!("{OURS}, the runtime alone"), |bencher| {
        bencher.iter(|| runtime.block_on(wasm.run(job.clone(), Arc::clone(&host) as _)).unwrap())
    });
    group.bench_function(format!("{OURS}, everything in"), |bencher| {
        bencher.iter(|| runtime.block_on(dispatcher.run(again.clone())).unwrap())
    });
    group.bench_function("floor: wasmtime, instantiate and call", |bencher| {
        bencher.iter(|| runtime.block_on(bare.run(&responses)))
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let setting = Setting::new().unwrap();
    let dispatcher = &setting.dispatcher;
    let args = setting.leaf().unwrap();

    let code = smallest(args);
    let module = ObjectRef::blob(dispatcher.put_blob(code.clone()).unwrap());
    let image =
        dispatcher.put_image(WasmRuntime::new().unwrap().host_image().id(), module).unwrap();
    frame(
        criterion,
        "wasm frame, smallest guest",
        &setting,
        Invocation::new(image).args(args).unpinned(),
        &code,
        &[out(args)],
    );

    let (_, _, code) = manifold_standard_guests::WASM_GUESTS
        .iter()
        .find(|(name, ..)| *name == "file-count")
        .unwrap();
    let invocation = setting.invocation("file-count", Language::Wasm, args).unwrap();
    let requests = [vec![13], b"\x0e1\n".to_vec()];
    frame(criterion, "wasm frame, file-count of a file", &setting, invocation, code, &requests);
}

criterion_group!(benches, frames);
criterion_main!(benches);
