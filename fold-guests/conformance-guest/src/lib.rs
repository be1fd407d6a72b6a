//! The programs that `manifold_conformance::Program` specifies, in one guest.

mod hostile;
mod probe;

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

use manifold_guest::{
    Entry, Error, Job, ObjectRef, Result, get, get_range, log, put_blob, put_tree,
    run as run_image, run_job, run_many, size, tree,
};

/// Returns the name of the program to run: what a test has written over the placeholder in the
/// module's bytes.
#[cfg(target_arch = "wasm32")]
fn program() -> String {
    static NAME: [u8; 32] = *b"<name of the program to run>    ";
    // Without `black_box` the compiler would use the placeholder instead of the module's bytes.
    String::from_utf8_lossy(black_box(&NAME)).trim_end().to_owned()
}

/// Returns the name of the program to run: the first argument of the process.
#[cfg(not(target_arch = "wasm32"))]
fn program() -> String {
    std::env::args().nth(1).unwrap_or_default()
}

/// The entry point of the wasm guest, called by the host.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
pub extern "C" fn caos_run() {
    run();
}

/// Runs the program on one job.
pub fn run() {
    match program().as_str() {
        "silent" => silent(),
        "echo" => run_job(|job| Ok(job.required("in")?.object())),
        "put" => run_job(put_twice),
        "list" => run_job(list),
        "measure" => run_job(|job| Ok(get(&job.required("in")?.id)?.len().to_string())),
        "part" => run_job(part),
        "recurse" => run_job(recurse),
        "describe" => run_job(|job| Ok([&*job.image, &job.salt, &job.std].join("\n"))),
        "fan-out" => run_job(fan_out),
        "relay" => run_job(relay),
        "catch" => run_job(|job| relay(job).or_else(|_| put_blob(b"caught"))),
        "hold" => run_job(hold),
        "fail" => run_job(|job| Err::<String, _>(Error::new(text(job, "message")?))),
        "crash" => run_job(|_| -> Result<String> { panic!("as asked") }),
        // Rust has nothing with which a guest could catch the end of its computing time.
        "spin" | "spin-and-catch" => run_job(hostile::spin),
        "hog" => run_job(hostile::hog),
        "hog-and-catch" => run_job(hostile::hog_and_catch),
        "flood" => run_job(|job| Ok(vec![0_u8; number(job, "bytes")?])),
        "log" => run_job(log_input),
        "probe" => run_job(|_| Ok(probe::probe())),
        "remember" => run_job(|_| Ok(remember().to_string())),
        other => run_job(|_| Err::<String, _>(Error::new(format!("unknown program {other:?}")))),
    }
}

#[cfg(target_arch = "wasm32")]
fn silent() {}

/// Ends the process after it has got its job: one that ends before is replaced by another.
#[cfg(not(target_arch = "wasm32"))]
fn silent() {
    run_job(|_| -> Result<String> { std::process::exit(0) });
}

fn text(job: &Job, name: &str) -> Result<String> {
    String::from_utf8(get(&job.required(name)?.id)?)
        .map_err(|_| Error::new(format!("the argument `{name}` is not valid UTF-8")))
}

fn number(job: &Job, name: &str) -> Result<usize> {
    let text = text(job, name)?;
    text.parse().map_err(|_| Error::new(format!("the argument `{name}` is not a number: {text}")))
}

fn put_twice(job: &Job) -> Result<Vec<Entry>> {
    let stored = put_blob(&get(&job.required("in")?.id)?.repeat(2))?;
    Ok(vec![put_blob(&get(&stored.id)?)?.named("twice")])
}

fn list(job: &Job) -> Result<Vec<u8>> {
    let entries = tree(&job.required("in")?.id)?;
    Ok(entries.into_iter().flat_map(|entry| [entry.name, b"\n".to_vec()].concat()).collect())
}

fn part(job: &Job) -> Result<Vec<u8>> {
    let input = job.required("in")?.id;
    let size = format!("{}\n", size(&input)?);
    Ok([size.into_bytes(), get_range(&input, 1, 2)?].concat())
}

fn recurse(job: &Job) -> Result<ObjectRef> {
    match number(job, "depth")? {
        0 => put_blob(b"0"),
        depth => {
            let depth = put_blob((depth - 1).to_string().as_bytes())?;
            run_image(&job.image, &put_tree(&[depth.named("depth")])?.id)
        }
    }
}

fn fan_out(job: &Job) -> Result<Vec<Entry>> {
    let image = text(job, "image")?;
    let entries = tree(&job.required("in")?.id)?;
    let args = entries.iter().map(|entry| Ok(put_tree(&[entry.object().named("in")])?.id));
    let args = args.collect::<Result<Vec<_>>>()?;
    let outcomes = run_many(args.iter().map(|args| (&*image, args)))?;
    entries.iter().zip(outcomes).map(|(entry, result)| Ok(result?.named(&*entry.name))).collect()
}

fn relay(job: &Job) -> Result<ObjectRef> {
    run_image(&text(job, "image")?, &job.required("in")?.id)
}

fn hold(job: &Job) -> Result<ObjectRef> {
    let memory = black_box(vec![1_u8; number(job, "bytes")?]);
    let outcome = relay(job);
    drop(black_box(memory));
    outcome
}

fn log_input(job: &Job) -> Result<ObjectRef> {
    log(&text(job, "in")?);
    Ok(job.required("in")?.object())
}

fn remember() -> u32 {
    static VALUE: AtomicU32 = AtomicU32::new(0);
    VALUE.fetch_add(1, Ordering::Relaxed) + 1
}
