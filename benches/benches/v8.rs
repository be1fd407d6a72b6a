//! One frame in TypeScript, beside a bare V8 context and a bare `deno_core` runtime.
#![allow(missing_docs, reason = "criterion's macros define functions")]

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use deno_core::{JsRuntime, RuntimeOptions, v8};
use manifold_benches::{Language, OURS, Setting, one_core};
use manifold_dispatcher::Policy;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The script that the bare context and runtime run. It does about as much as a visitor.
const SCRIPT: &str =
    "const words = JSON.parse('[\"a\", \"b\"]'); words.map(word => word + '\\n').join('')";

fn frame(criterion: &mut Criterion) {
    let runtime = one_core().unwrap();
    let mut group = criterion.benchmark_group("V8 frame, file-count of a file");
    group.measurement_time(Duration::from_secs(8));
    for (name, setting) in [
        (format!("{OURS}, one V8 thread"), Setting::with_one_v8_thread().unwrap()),
        (
            format!("{OURS}, a V8 thread for each core, which make globals ahead"),
            Setting::new().unwrap(),
        ),
    ] {
        let args = setting.leaf().unwrap();
        let invocation = setting.invocation("file-count", Language::TypeScript, args).unwrap();
        let again = invocation.policy(Policy::Recompute);
        let frame = || runtime.block_on(setting.dispatcher.run(again.clone())).unwrap();
        // The first frame starts V8 and sets its flags, which then apply to the floor and the peer
        // too.
        frame();
        group.bench_function(name, |bencher| bencher.iter(frame));
    }

    let mut isolate = v8::Isolate::new(v8::CreateParams::default());
    group.bench_function("floor: a v8::Context made, run and dropped", |bencher| {
        bencher.iter(|| in_context(&mut isolate))
    });
    drop(isolate);

    group.sample_size(20);
    group.bench_function("peer: a deno_core runtime", |bencher| {
        bencher.iter(|| {
            let mut runtime = JsRuntime::new(RuntimeOptions::default());
            runtime.execute_script("bench", SCRIPT).unwrap()
        })
    });
    group.finish();
}

fn in_context(isolate: &mut v8::Isolate) {
    v8::scope!(let scope, isolate);
    let context = v8::Context::new(scope, v8::ContextOptions::default());
    let scope = &mut v8::ContextScope::new(scope, context);
    let source = v8::String::new(scope, SCRIPT).unwrap();
    let script = v8::Script::compile(scope, source, None).unwrap();
    script.run(scope).unwrap();
}

criterion_group!(benches, frame);
criterion_main!(benches);
