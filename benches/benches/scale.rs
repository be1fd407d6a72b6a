//! Measures time and peak memory of folds of increasing size, each size cold in its own process.
//!
//! `cargo bench --package manifold-benches --bench scale [PART OF A NAME]`. If `MANIFOLD_BENCH_OUT`
//! is set, every result is also appended to that file, as a line of JSON.

use std::error::Error;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use bollard::Docker;
use manifold_benches::{
    Language, Measured, PYTHON, Setting, all_cores, append_result, branching, chain,
    container_engine, container_jobs, count_files, fold_files, forget_peak, resident, sized, wide,
    with_one_changed,
};
use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::ObjectId;
use manifold_runtime_docker::EngineOptions;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The shape of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A tree with ten files or directories in a directory.
    Files,
    /// Nested directories with one file each.
    Chain,
    /// One directory.
    Wide,
    /// The fixture of 160 nodes, for slow guests.
    Fixture,
}

/// One fold to measure.
struct Case {
    name: String,
    shape: Shape,
    size: usize,
    fold: Language,
    visitor: Language,
}

impl Shape {
    /// The shapes with several sizes, their names and their sizes.
    const SIZES: [(Self, &'static str, &'static [usize]); 3] = [
        (Self::Files, "files", &[1_000, 10_000, 100_000, 1_000_000]),
        (Self::Chain, "chain", &[10, 100, 1_000, 10_000, 100_000]),
        (Self::Wide, "wide", &[10, 100, 1_000, 10_000, 100_000]),
    ];

    fn store(self, dispatcher: &Dispatcher, size: usize) -> Result<ObjectId> {
        Ok(match self {
            Self::Files => sized(dispatcher, size)?,
            Self::Chain => chain(dispatcher, size)?,
            Self::Wide => wide(dispatcher, size)?,
            Self::Fixture => branching(dispatcher, "tree", 3, 3)?,
        })
    }
}

/// The time after which a pool of containers is full and the engine is idle.
const POOL_SETTLES: Duration = Duration::from_secs(3);

/// Returns how many times a fold over fresh or parked containers and its floor are measured
/// alternately. They are repeated because the speed of the machine varies by more than the
/// difference between the two. A fold that itself runs in containers takes twice as long, and is
/// measured once.
fn turns(fold: Language) -> usize {
    if fold.is_container() { 1 } else { 3 }
}

/// Measures one case in this process.
fn measure(case: &Case) -> Result<Measured> {
    let Case { shape, size, fold, visitor, .. } = *case;
    let runtime = all_cores()?;
    let engine = match visitor.is_container() {
        true => Some(runtime.block_on(container_engine()).ok_or("there is no container engine")?),
        false => None,
    };
    let setting = match &engine {
        Some(engine) => Setting::with_containers(engine, visitor)?,
        None => Setting::new()?,
    };
    let dispatcher = &setting.dispatcher;
    // A small fold first, so that one-time work such as compiling is not measured.
    let small = setting.fold(branching(dispatcher, "small", 1, 1)?, fold, visitor)?;
    runtime.block_on(dispatcher.run(small))?;
    if visitor.is_container() {
        // Wait until the pool is full, so that as many containers are ready before the fold as
        // after it.
        std::thread::sleep(POOL_SETTLES);
    }

    let root = shape.store(dispatcher, size)?;
    let time = |work: &mut dyn FnMut() -> Result<()>| -> Result<Duration> {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed())
    };
    let run = |root: ObjectId| -> Result<Duration> {
        let invocation = setting.fold(root, fold, visitor)?;
        time(&mut || Ok(runtime.block_on(dispatcher.run(invocation.clone())).map(drop)?))
    };
    let runs = dispatcher.stats().runs;
    let (before_bytes, _) = resident();
    forget_peak();
    let mut cold = run(root)?;
    let (after_bytes, peak_bytes) = resident();
    let frames = dispatcher.stats().runs - runs;
    let warm = median((0..101).map(|_| run(root)).collect::<Result<Vec<_>>>()?);
    let change = |number: usize| {
        // Changed files are far from each other, so that the processor's cache does not help.
        run(with_one_changed(dispatcher, root, number * 7919 * 31, &format!("change {number}\n"))?)
    };
    let changed = match shape {
        Shape::Files => Some(median((0..21).map(change).collect::<Result<Vec<_>>>()?)),
        Shape::Chain | Shape::Wide | Shape::Fixture => None,
    };
    let (floor, counting) = match visitor {
        Language::Fresh | Language::Parked => {
            let jobs = if fold.is_container() { frames } else { size as u64 };
            let image = format!("manifold-image:{}", setting.container_module("file-count")?);
            let docker = Docker::connect_with_host(&EngineOptions::default().endpoint)?;
            let (mut folds, mut floors) = (vec![cold], Vec::new());
            for turn in 1..=turns(fold) {
                std::thread::sleep(POOL_SETTLES);
                floors.push(time(&mut || runtime.block_on(container_jobs(&docker, &image, jobs)))?);
                if turn < turns(fold) {
                    std::thread::sleep(POOL_SETTLES);
                    folds.push(run(branching(dispatcher, &format!("tree {turn}"), 3, 3)?)?);
                }
            }
            cold = median(folds);
            (median(floors), Duration::ZERO)
        }
        Language::Python => {
            let floor = time(&mut || interpreter_starts(size))?;
            (floor, Duration::ZERO)
        }
        // The recursive function would overflow its stack in a long chain of directories.
        _ if shape == Shape::Chain && size > 1_000 => (Duration::ZERO, Duration::ZERO),
        _ => {
            let floor = time(&mut || Ok(fold_files(dispatcher, root).map(drop)?))?;
            (floor, time(&mut || Ok(count_files(dispatcher, root).map(drop)?))?)
        }
    };
    if let Some(engine) = engine {
        engine.close()?;
    }
    Ok(Measured {
        name: case.name.clone(),
        size,
        frames,
        cold_seconds: cold.as_secs_f64(),
        warm_seconds: warm.as_secs_f64(),
        changed_seconds: changed.map(|time| time.as_secs_f64()),
        floor_seconds: floor.as_secs_f64(),
        counting_seconds: counting.as_secs_f64(),
        before_bytes,
        peak_bytes,
        after_bytes,
    })
}

/// Starts Python, with the modules that the visitor uses, `count` times on all cores.
fn interpreter_starts(count: usize) -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let start = || -> std::io::Result<()> {
        for _ in 0..count / cores {
            let mut python = Command::new("/usr/bin/python3");
            python.args(["-I", "-B", "-c", "import base64, json, sys"]).status()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(start)).collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Returns the languages and the largest size to measure in each.
fn languages() -> Vec<(Language, usize)> {
    let mut languages = vec![(Language::Native, usize::MAX), (Language::Wasm, usize::MAX)];
    if cfg!(feature = "v8") {
        // A V8 frame takes a hundred times as long as a wasm frame, and a hundred kilobytes.
        languages.push((Language::TypeScript, 10_000));
    }
    languages
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (language, most) in languages() {
        for (shape, word, sizes) in Shape::SIZES {
            for size in sizes.iter().copied().filter(|size| *size <= most) {
                let name = format!("{word}, {}", language.as_str());
                cases.push(Case { name, shape, size, fold: language, visitor: language });
            }
        }
    }
    let containers = [Language::Fresh, Language::Parked, Language::Recycled, Language::Serving];
    for visitor in containers {
        for fold in [Language::Wasm, visitor] {
            let name = format!("fixture, {} over {}", fold.as_str(), visitor.as_str());
            cases.push(Case { name, shape: Shape::Fixture, size: 160, fold, visitor });
        }
    }
    if std::env::var_os(PYTHON).is_some() {
        let (fold, visitor) = (Language::Wasm, Language::Python);
        let name = format!("fixture, {} over {}", fold.as_str(), visitor.as_str());
        cases.push(Case { name, shape: Shape::Fixture, size: 160, fold, visitor });
    } else {
        eprintln!(
            "SKIPPED: visitors in Python are not measured; `cargo xtask bench` sets {PYTHON}."
        );
    }
    cases
}

/// The argument that makes a process measure one case, by its number.
const ONE: &str = "--one";

fn run() -> Result<()> {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let cases = cases();
    if let [first, number] = &arguments[..]
        && first == ONE
    {
        let case = cases.get(number.parse::<usize>()?).ok_or("there is no such case")?;
        println!("{}", serde_json::to_string(&measure(case)?)?);
        return Ok(());
    }
    let wanted = |name: &str| arguments.iter().all(|part| name.contains(part.as_str()));
    println!("{}", Measured::HEAD);
    let has_engine = all_cores()?.block_on(container_engine()).is_some();
    for (number, Case { name, size, visitor, .. }) in cases.iter().enumerate() {
        if !wanted(&format!("{name}, {size}")) || (visitor.is_container() && !has_engine) {
            continue;
        }
        let output =
            Command::new(std::env::current_exe()?).args([ONE, &number.to_string()]).output()?;
        if !output.status.success() {
            return Err(
                format!("{name}, {size}: {}", String::from_utf8_lossy(&output.stderr)).into()
            );
        }
        let measured: Measured = serde_json::from_slice(&output.stdout)?;
        println!("{}", measured.row());
        append_result("MANIFOLD_BENCH_OUT", &measured)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
