//! Goes one hot path many times, for tools that watch a whole process: `valgrind --tool=callgrind`, `perf record`.
//!
//! `cargo run --release --package manifold-benches --example path -- PATH COUNT`, where PATH is `memo-hit`, `wasm-frame` or `v8-frame`.

use std::error::Error;
use std::hint::black_box;

use manifold_benches::{Language, Setting, one_core};
use manifold_dispatcher::Policy;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, count] = &arguments[..] else { return Err("which path, and how often?".into()) };
    let count: u64 = count.parse()?;
    let (setting, language) = match path.as_str() {
        "v8-frame" => (Setting::new()?, Language::TypeScript),
        _ => (Setting::small()?, Language::Wasm),
    };
    let runtime = one_core()?;
    let invocation = setting.invocation("file-count", language, setting.leaf()?)?;
    let completion = runtime.block_on(setting.dispatcher.run(invocation.clone()))?;
    match path.as_str() {
        "memo-hit" => {
            for _ in 0..count {
                black_box(setting.dispatcher.look_up(black_box(completion.request))?);
            }
        }
        "wasm-frame" | "v8-frame" => {
            let again = invocation.policy(Policy::Recompute);
            for _ in 0..count {
                runtime.block_on(setting.dispatcher.run(again.clone()))?;
            }
        }
        other => return Err(format!("no path {other}").into()),
    }
    Ok(())
}
