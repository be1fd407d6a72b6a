//! Measures what a second core is worth: folds and memo hits on one thread and on two.
//!
//! `cargo bench --package manifold-benches --bench cores [PART OF A NAME]`. On a virtual machine, the
//! time that a cache line takes from one core to the other changes by a factor of ten within
//! minutes, so it is measured before and after each case and printed beside it. If
//! `MANIFOLD_BENCH_CORES` is set, every result is also appended to that file, as a line of JSON.

use std::error::Error;
use std::hint::{black_box, spin_loop};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use manifold_benches::{Cores, Language, Setting, append_result, sized};
use manifold_dispatcher::{Dispatcher, Invocation};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The number of files in a folded tree. Each makes about 1.2 frames.
const FILES: usize = 10_000;
const KEYS: usize = 1_000;
const HITS: usize = 300_000;
/// How often each case is measured, on one thread and on two in turn.
const ROUNDS: usize = 7;

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// A fold on a tokio runtime with one or two threads.
    OneRoot(Language),
    /// A fold, or two at once on threads with a tokio runtime of their own.
    TwoRoots(Language),
    /// Like `TwoRoots`, with a dispatcher for each.
    TwoDispatchers(Language),
    /// Memo hits on one thread, or on two.
    Hits,
}

/// Returns the time in nanoseconds that a cache line takes from one thread to another.
fn hop() -> f64 {
    const HOPS: u64 = 100_000;
    let turn = AtomicU64::new(0);
    let pass = |parity: u64| {
        for number in (0..HOPS).filter(|number| number % 2 == parity) {
            while turn.load(Ordering::Acquire) != number {
                spin_loop();
            }
            turn.store(number + 1, Ordering::Release);
        }
    };
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| pass(0));
        pass(1);
    });
    start.elapsed().as_nanos() as f64 / HOPS as f64
}

fn threads(count: usize) -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(count).enable_all().build()?)
}

/// A dispatcher with so many permits, after a small fold, so that nothing is compiled later.
fn setting(permits: usize, language: Language) -> Result<Setting> {
    let setting = Setting::without_v8(|builder| builder.permits(permits))?;
    let root = sized(&setting.dispatcher, 20)?;
    let fold = setting.fold(root, language, language)?;
    threads(1)?.block_on(setting.dispatcher.run(fold))?;
    Ok(setting)
}

/// Runs each invocation on a thread with a tokio runtime of its own.
fn run_apart(calls: &[(&Dispatcher, Invocation)]) -> Result<Duration> {
    let start = Instant::now();
    thread::scope(|scope| {
        let running: Vec<_> = calls
            .iter()
            .map(|(dispatcher, invocation)| {
                scope.spawn(move || -> Result<()> {
                    let runtime = Builder::new_current_thread().enable_all().build()?;
                    runtime.block_on(dispatcher.run(invocation.clone()))?;
                    Ok(())
                })
            })
            .collect();
        running.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => Err("a thread panicked".into()),
        })
    })?;
    Ok(start.elapsed())
}

/// Measures `work` on so many threads. Returns the time for one frame or hit, in nanoseconds.
fn measure(work: Work, count: usize) -> Result<f64> {
    let per = |time: Duration, frames: u64| time.as_nanos() as f64 / frames as f64;
    match work {
        Work::OneRoot(language) => {
            let setting = setting(count, language)?;
            let fold = setting.fold(sized(&setting.dispatcher, FILES)?, language, language)?;
            let runtime = threads(count)?;
            let before = setting.dispatcher.stats().runs;
            let start = Instant::now();
            let dispatcher = setting.dispatcher.clone();
            let running = runtime.spawn(async move { dispatcher.run(fold).await });
            runtime.block_on(running)??;
            Ok(per(start.elapsed(), setting.dispatcher.stats().runs - before))
        }
        Work::TwoRoots(language) => {
            let setting = setting(2, language)?;
            let dispatcher = &setting.dispatcher;
            let root = sized(dispatcher, FILES)?;
            let folds = (0..count).map(|number| {
                let fold = setting.fold(root, language, language)?;
                Ok((dispatcher, fold.salt(format!("{number}"))))
            });
            let folds = folds.collect::<Result<Vec<_>>>()?;
            let before = dispatcher.stats().runs;
            let time = run_apart(&folds)?;
            Ok(per(time, dispatcher.stats().runs - before))
        }
        Work::TwoDispatchers(language) => {
            let settings = (0..count).map(|_| setting(1, language)).collect::<Result<Vec<_>>>()?;
            let folds = settings.iter().map(|setting| {
                let root = sized(&setting.dispatcher, FILES)?;
                Ok((&setting.dispatcher, setting.fold(root, language, language)?))
            });
            let folds = folds.collect::<Result<Vec<_>>>()?;
            let runs =
                || settings.iter().map(|setting| setting.dispatcher.stats().runs).sum::<u64>();
            let before = runs();
            let time = run_apart(&folds)?;
            Ok(per(time, runs() - before))
        }
        Work::Hits => {
            let setting = setting(2, Language::Native)?;
            let runtime = threads(1)?;
            let mut keys = Vec::new();
            for number in 0..KEYS {
                let args = setting.dispatcher.put_tree([])?;
                let call = setting.invocation("empty", Language::Native, args)?;
                let call = call.salt(format!("{number}"));
                keys.push(runtime.block_on(setting.dispatcher.run(call))?.request);
            }
            let dispatcher = &setting.dispatcher;
            let start = Instant::now();
            thread::scope(|scope| {
                for _ in 0..count {
                    scope.spawn(|| {
                        for request in keys.iter().cycle().take(HITS) {
                            let _ = black_box(dispatcher.look_up(*request));
                        }
                    });
                }
            });
            Ok(per(start.elapsed(), (HITS * count) as u64))
        }
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn cases() -> [(&'static str, Work); 7] {
    [
        ("native, one root", Work::OneRoot(Language::Native)),
        ("native, two roots", Work::TwoRoots(Language::Native)),
        ("native, two dispatchers", Work::TwoDispatchers(Language::Native)),
        ("wasm, one root", Work::OneRoot(Language::Wasm)),
        ("wasm, two roots", Work::TwoRoots(Language::Wasm)),
        ("wasm, two dispatchers", Work::TwoDispatchers(Language::Wasm)),
        ("memo hit", Work::Hits),
    ]
}

fn run(filter: &str) -> Result<()> {
    println!("{:24} {:>10} {:>10} {:>8} {:>8}", "", "one, ns", "two, ns", "gain", "hop, ns");
    for (name, work) in cases().into_iter().filter(|(name, _)| name.contains(filter)) {
        let (mut one, mut two, mut gain, mut hops) = (vec![], vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            one.push(measure(work, 1)?);
            let before = hop();
            two.push(measure(work, 2)?);
            hops.push(f64::midpoint(before, hop()));
            gain.extend(one.last().zip(two.last()).map(|(one, two)| one / two));
        }
        let result = Cores {
            name: name.to_owned(),
            one_ns: median(one),
            two_ns: median(two),
            gain: median(gain),
            hop_ns: median(hops),
        };
        let Cores { one_ns, two_ns, gain, hop_ns, .. } = &result;
        println!("{name:24} {one_ns:10.0} {two_ns:10.0} {gain:8.2} {hop_ns:8.0}");
        append_result("MANIFOLD_BENCH_CORES", &result)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    // cargo passes `--bench`.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    match run(&filter.unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
