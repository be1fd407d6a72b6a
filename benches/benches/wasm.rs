//! One frame in WebAssembly, beside the same instantiation and call on bare wasmtime.
#![allow(missing_docs, reason = "criterion's macros make functions")]

use std::collections::VecDeque;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use manifold_benches::{FILE_COUNT_ANSWERS, FixedHost, Language, OURS, Setting, one_core};
use manifold_dispatcher::{Invocation, Policy};
use manifold_runtime_api::{Module, ObjectId, ObjectKind, Runtime};
use manifold_runtime_wasm::WasmRuntime;
use wasmtime::{
    Caller, Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, PoolingAllocationConfig, Store,
    UpdateDeadline, WasmFeatures,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A guest that names its own arguments as the outcome, and asks for nothing.
fn smallest(outcome: ObjectId) -> Vec<u8> {
    let request = format!(r#"{{"op":"out","kind":"tree","hash":"{outcome}"}}"#);
    let text = format!(
        r#"(module
            (import "caos_abi_v1" "call" (func $call (param i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "{}")
            (func (export "caos_run") (drop (call $call (i32.const 0) (i32.const {})))))"#,
        request.replace('"', "\\22"),
        request.len()
    );
    wat::parse_str(text).unwrap()
}

/// What the bare engine's guest is told.
#[derive(Default)]
struct Script {
    answers: VecDeque<&'static str>,
    response: &'static str,
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
            .func_wrap_async("caos_abi_v1", "call", |mut caller: Caller<'_, Script>, (_, _): (u32, u32)| {
                let script = caller.data_mut();
                script.response = script.answers.pop_front().unwrap_or("{}");
                Box::new(std::future::ready(script.response.len() as u32))
            })
            .unwrap();
        let read = |mut caller: Caller<'_, Script>, pointer: u32| {
            let memory = caller.get_export("memory").unwrap().into_memory().unwrap();
            let response = caller.data().response;
            memory.write(caller, pointer as usize, response.as_bytes()).unwrap();
        };
        linker.func_wrap("caos_abi_v1", "read", read).unwrap();
        let module = wasmtime::Module::new(&engine, code).unwrap();
        Self { guest: linker.instantiate_pre(&module).unwrap(), engine }
    }

    async fn run(&self, answers: &[&'static str]) {
        let script = Script { answers: answers.iter().copied().collect(), ..Script::default() };
        let mut store = Store::new(&self.engine, script);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
        let instance = self.guest.instantiate_async(&mut store).await.unwrap();
        let run = instance.get_typed_func::<(), ()>(&mut store, "caos_run").unwrap();
        run.call_async(&mut store, ()).await.unwrap();
    }
}

fn frame(criterion: &mut Criterion, name: &str, setting: &Setting, invocation: Invocation, code: &[u8]) {
    let runtime = one_core().unwrap();
    let dispatcher = &setting.dispatcher;
    let bare = Bare::new(code);
    let wasm = WasmRuntime::new().unwrap();
    let module = dispatcher.put_blob(code.to_vec()).unwrap();
    // The only blob that is read is the code.
    let host = FixedHost::new(dispatcher.read_tree(invocation.args).unwrap(), code.to_vec());
    let job = host.job(Module { kind: ObjectKind::Blob, id: module });
    runtime.block_on(wasm.prepare(&job.code, &job.limits, &*host)).unwrap();
    let again = invocation.policy(Policy::Recompute);

    let mut group = criterion.benchmark_group(name);
    group.bench_function(format!("{OURS}, the runtime alone"), |bencher| {
        bencher.iter(|| runtime.block_on(wasm.run(job.clone(), Arc::clone(&host) as _)).unwrap())
    });
    group.bench_function(format!("{OURS}, everything in"), |bencher| {
        bencher.iter(|| runtime.block_on(dispatcher.run(again.clone())).unwrap())
    });
    group.bench_function("floor: wasmtime, instantiate and call", |bencher| {
        bencher.iter(|| runtime.block_on(bare.run(&FILE_COUNT_ANSWERS)))
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let setting = Setting::new().unwrap();
    let dispatcher = &setting.dispatcher;
    let args = setting.leaf().unwrap();

    let code = smallest(args);
    let module = Module { kind: ObjectKind::Blob, id: dispatcher.put_blob(code.clone()).unwrap() };
    let image = dispatcher.put_image(WasmRuntime::new().unwrap().host_image().id(), module).unwrap();
    frame(criterion, "wasm frame, smallest guest", &setting, Invocation::new(image, args).unpinned(), &code);

    let (_, code) = manifold::guests::GUESTS.iter().find(|(name, _)| *name == "file-count").unwrap();
    let invocation = setting.invocation("file-count", Language::Wasm, args).unwrap();
    frame(criterion, "wasm frame, file-count of a file", &setting, invocation, code);
}

criterion_group!(benches, frames);
criterion_main!(benches);
