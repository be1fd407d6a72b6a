//! Runs one hot path many times, for tools that observe a whole process or machine, such as
//! `valgrind --tool=callgrind` and `perf record`.
//!
//! `cargo run --release --package manifold-benches --example path -- PATH COUNT`, where PATH is
//! `memo-hit`, `wasm-frame`, `wasm-fold`, `v8-frame`, or, with a container engine
//! (`cargo xtask docker …`), `recycled-job`, `serving-job` or `parked-job`. `wasm-fold` folds a tree
//! of COUNT files once.

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use manifold_benches::{Language, Setting, all_cores, container_engine, one_core, sized};
use manifold_dispatcher::Policy;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, count] = &arguments[..] else { return Err("usage: path PATH COUNT".into()) };
    let count: usize = count.parse()?;
    let language = match path.as_str() {
        "memo-hit" | "wasm-frame" | "wasm-fold" => Language::Wasm,
        "v8-frame" => Language::TypeScript,
        "recycled-job" => Language::Recycled,
        "serving-job" => Language::Serving,
        "parked-job" => Language::Parked,
        other => return Err(format!("unknown path {other}").into()),
    };
    let runtime = if language.is_container() { all_cores()? } else { one_core()? };
    let mut engine = None;
    let setting = match language {
        Language::Wasm if path == "wasm-fold" => Setting::without_v8(|builder| builder.permits(1))?,
        Language::Wasm => Setting::small()?,
        language if language.is_container() => {
            let here = engine.insert(
                runtime.block_on(container_engine()).ok_or("there is no container engine")?,
            );
            Setting::with_containers(here, language)?
        }
        _ => Setting::new()?,
    };
    if path == "wasm-fold" {
        let fold = setting.fold(sized(&setting.dispatcher, count)?, language, language)?;
        runtime.block_on(setting.dispatcher.run(fold))?;
        return Ok(());
    }
    let invocation = setting.invocation("file-count", language, setting.leaf()?)?;
    let completion = runtime.block_on(setting.dispatcher.run(invocation.clone()))?;
    let again = invocation.policy(Policy::Recompute);
    let hits = path == "memo-hit";
    for _ in 0..count {
        if hits {
            black_box(setting.dispatcher.look_up(black_box(completion.request))?);
            continue;
        }
        if language == Language::Parked {
            // The pause lets the pool fill.
            std::thread::sleep(Duration::from_millis(600));
        }
        runtime.block_on(setting.dispatcher.run(again.clone()))?;
    }
    drop(setting);
    engine.map_or(Ok(()), |engine| Ok(engine.close()?))
}
