//! One frame in WebAssembly, beside the same instantiation and call on bare wasmtime.
#![allow(missing_docs, reason = "criterion's macros make functions")]

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use manifold_benches::{FixedHost, Language, OURS, Setting, one_core};
use manifold_dispatcher::{Invocation, Policy};
use manifold_runtime_api::abi::{Encoding, Session};
use manifold_runtime_api::{Module, ObjectId, ObjectKind, Runtime};
use manifold_runtime_wasm::WasmRuntime;
use wasmtime::{
    Caller, Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker,
    PoolingAllocationConfig, Store, UpdateDeadline, WasmFeatures,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A guest that names its own arguments as the outcome, and asks for nothing.
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

/// The operation `out` with a tree, in `caos_abi_v2`.
fn out(outcome: ObjectId) -> Vec<u8> {
    [&[8, 1, 20], outcome.as_bytes()].concat()
}

/// What the bare engine's guest is told.
struct Script {
    answers: Arc<[Arc<[u8]>]>,
    next: usize,
}

/// The settings of `runtime-wasm`'s pool.
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
                    let answer = Arc::clone(&script.answers[script.next]);
                    script.next += 1;
                    memory.write(caller, room as usize, &answer).unwrap();
                    Box::new(std::future::ready(answer.len() as u32))
                },
            )
            .unwrap();
        linker.func_wrap("caos_abi_v2", "read", |_: u32| {}).unwrap();
        let module = wasmtime::Module::new(&engine, code).unwrap();
        Self { guest: linker.instantiate_pre(&module).unwrap(), engine }
    }

    async fn run(&self, answers: &Arc<[Arc<[u8]>]>) {
        let mut store = Store::new(&self.engine, Script { answers: Arc::clone(answers), next: 0 });
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
        let instance = self.guest.instantiate_async(&mut store).await.unwrap();
        let run = instance.get_typed_func::<(), ()>(&mut store, "caos_run").unwrap();
        run.call_async(&mut store, ()).await.unwrap();
    }
}

/// Measures a guest that makes these requests.
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
    // The only blob that is read is the code.
    let host = FixedHost::new(dispatcher.read_tree(invocation.args).unwrap(), code.to_vec());
    let job = host.job(Module { kind: ObjectKind::Blob, id: module });
    runtime.block_on(wasm.prepare(&job.code, &job.limits, &*host)).unwrap();
    // What this host answers is what the guest on the bare engine is told.
    let session = Session::new(job.clone(), Arc::clone(&host) as _);
    let answers = requests
        .iter()
        .map(|request| runtime.block_on(session.call(Encoding::Binary, request)).body.into());
    let answers: Arc<[Arc<[u8]>]> = answers.collect();
    let again = invocation.policy(Policy::Recompute);

    let mut group = criterion.benchmark_group(name);
    group.bench_function(format!("{OURS}, the runtime alone"), |bencher| {
        bencher.iter(|| runtime.block_on(wasm.run(job.clone(), Arc::clone(&host) as _)).unwrap())
    });
    group.bench_function(format!("{OURS}, everything in"), |bencher| {
        bencher.iter(|| runtime.block_on(dispatcher.run(again.clone())).unwrap())
    });
    group.bench_function("floor: wasmtime, instantiate and call", |bencher| {
        bencher.iter(|| runtime.block_on(bare.run(&answers)))
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let setting = Setting::new().unwrap();
    let dispatcher = &setting.dispatcher;
    let args = setting.leaf().unwrap();

    let code = smallest(args);
    let module = Module { kind: ObjectKind::Blob, id: dispatcher.put_blob(code.clone()).unwrap() };
    let image =
        dispatcher.put_image(WasmRuntime::new().unwrap().host_image().id(), module).unwrap();
    frame(
        criterion,
        "wasm frame, smallest guest",
        &setting,
        Invocation::new(image, args).unpinned(),
        &code,
        &[out(args)],
    );

    let (_, code) =
        manifold::guests::GUESTS.iter().find(|(name, _)| *name == "file-count").unwrap();
    let invocation = setting.invocation("file-count", Language::Wasm, args).unwrap();
    let requests = [vec![1], [&[2, 20], args.as_bytes()].concat(), b"\x041\n".to_vec(), out(args)];
    frame(criterion, "wasm frame, file-count of a file", &setting, invocation, code, &requests);
}

criterion_group!(benches, frames);
criterion_main!(benches);
