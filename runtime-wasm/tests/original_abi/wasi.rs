//! WASI preview 1 as toolchains use it: every function can be imported, clocks advance, sleeps end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{Limits, ObjectRef, Result, Runtime};
use manifold_runtime_wasm::WasmRuntime;

/// The functions of preview 1 (`wasi_snapshot_preview1.witx`) with the types of their parameters:
/// `i` is `i32`, `I` is `i64`.
const FUNCTIONS: [(&str, &str); 46] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "iIi"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_exit", "i"),
    ("proc_raise", "i"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Runs a guest that imports `functions` and whose body leaves an `i64` on the stack. Returns that
/// value.
async fn compute(functions: &[&str], body: &str) -> Result<u64> {
    assert!(functions.contains(&"clock_time_get"), "every guest imports it");
    let mut imports = String::new();
    for (name, parameters) in FUNCTIONS.iter().filter(|(name, _)| functions.contains(name)) {
        let types: String =
            parameters.chars().map(|letter| if letter == 'I' { " i64" } else { " i32" }).collect();
        let result = if *name == "proc_exit" { "" } else { "(result i32)" };
        imports += &format!(
            "(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} (param{types}) {result}))\n"
        );
    }
    // The guest fails with a message of sixteen letters, each of which encodes four bits of the
    // value.
    let text = format!(
        r#"(module {imports}
            (import "caos_abi_v1" "call" (func $json (param i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "{{\22op\22:\22fail\22,\22message\22:\220000000000000000\22}}")
            (func $clock (param $id i32) (result i64)
                (drop (call $clock_time_get (local.get $id) (i64.const 0) (i32.const 1000))) (i64.load (i32.const 1000)))
            (func (export "caos_run") (local $answer i64) (local $end i64) (local $count i64) (local $at i32)
                (local.set $answer (block (result i64) {body}))
                (local.set $at (i32.const 39))
                (loop $digits
                    (i32.store8 (local.get $at) (i32.add (i32.const 97) (i32.wrap_i64 (i64.and (local.get $answer) (i64.const 15)))))
                    (local.set $answer (i64.shr_u (local.get $answer) (i64.const 4)))
                    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
                    (br_if $digits (i32.gt_u (local.get $at) (i32.const 23))))
                (drop (call $json (i32.const 0) (i32.const 42)))))"#
    );
    let runtime = Arc::new(WasmRuntime::new()?);
    let host = runtime.host_image().id();
    let mut limits = Limits::default();
    limits.compute_time = Duration::from_secs(20);
    let dispatcher = Dispatcher::builder().runtime(runtime).limits(limits).build()?;
    let module = dispatcher.put_blob(wat::parse_str(text).unwrap())?;
    let image = dispatcher.put_image(host, ObjectRef::blob(module))?;
    let error =
        dispatcher.run(Invocation::new(image).args(dispatcher.put_tree([])?)).await.unwrap_err();
    let digits = error.to_string();
    if digits.len() != 16 || !digits.bytes().all(|letter| letter.is_ascii_lowercase()) {
        return Err(error);
    }
    Ok(digits.bytes().fold(0, |value, letter| value << 4 | u64::from(letter - b'a')))
}

#[tokio::test]
async fn every_function_of_preview_1_can_be_imported() {
    let all: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(compute(&all, "(i64.const 7)").await.unwrap(), 7);
}

#[tokio::test]
async fn clocks_start_above_zero_and_advance_at_every_reading() {
    for (clock, beginning) in
        [(0, 946_684_800_000_000_000), (1, 1_000_000_000), (2, 1_000_000_000), (3, 1_000_000_000)]
    {
        let read = format!("(call $clock (i32.const {clock}))");
        for (readings, expected) in [(1, beginning + 1_000_000), (3, beginning + 3_000_000)] {
            let body = format!("{} {read}", format!("(drop {read})").repeat(readings - 1));
            assert_eq!(
                compute(&["clock_time_get"], &body).await.unwrap(),
                expected,
                "clock {clock}"
            );
        }
    }
    let unknown =
        "(i64.extend_i32_u (call $clock_time_get (i32.const 4) (i64.const 0) (i32.const 1000)))";
    assert_eq!(compute(&["clock_time_get"], unknown).await.unwrap(), 28);
    let resolution =
        "(drop (call $clock_res_get (i32.const 1) (i32.const 1000))) (i64.load (i32.const 1000))";
    assert_eq!(compute(&["clock_time_get", "clock_res_get"], resolution).await.unwrap(), 1_000_000);
}

#[tokio::test]
async fn a_busy_wait_on_the_clock_ends() {
    // Waits for an hour.
    let body = "(local.set $end (i64.add (call $clock (i32.const 1)) (i64.const 3600000000000)))
        (loop $look
            (local.set $count (i64.add (local.get $count) (i64.const 1)))
            (br_if $look (i64.lt_u (call $clock (i32.const 1)) (local.get $end))))
        (local.get $count)";
    let start = Instant::now();
    assert_eq!(compute(&["clock_time_get"], body).await.unwrap(), 3_600_000);
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// A subscription is 48 bytes long, an event 32 bytes (`wasi_snapshot_preview1.witx`).
#[tokio::test]
async fn a_sleep_returns_at_once_and_advances_the_clock() {
    let subscribe = |at: u32, user: u64, clock: u32, time: u64, flags: u32| {
        format!(
            "(i64.store (i32.const {at}) (i64.const {user}))
            (i32.store (i32.const {}) (i32.const {clock}))
            (i64.store (i32.const {}) (i64.const {time}))
            (i32.store16 (i32.const {}) (i32.const {flags}))",
            at + 16,
            at + 24,
            at + 40
        )
    };
    let poll = |count: u32| {
        format!(
            "(drop (call $poll_oneoff (i32.const 2000) (i32.const 3000) (i32.const {count}) (i32.const 4000)))"
        )
    };
    let functions = ["clock_time_get", "poll_oneoff"];
    // A relative sleep of a minute, and a sleep until an absolute time, ten seconds after the
    // start.
    for (clock, time, flags, expected) in [
        (1, 60_000_000_000, 0, 61_001_000_000_u64),
        (0, 946_684_810_000_000_000, 1, 11_001_000_000),
    ] {
        let body = format!(
            "{} {} (call $clock (i32.const 1))",
            subscribe(2000, 5, clock, time, flags),
            poll(1)
        );
        assert_eq!(compute(&functions, &body).await.unwrap(), expected);
    }
    let two = subscribe(2000, 5, 1, 1, 0) + subscribe(2048, 6, 9, 1, 0).as_str();
    for (what, expected) in [
        ("(i64.load32_u (i32.const 4000))", 2),
        ("(i64.load (i32.const 3000))", 5),
        ("(i64.load16_u (i32.const 3008))", 0),
        ("(i64.load (i32.const 3032))", 6),
        // The second subscription names an unknown clock.
        ("(i64.load16_u (i32.const 3040))", 28),
    ] {
        assert_eq!(
            compute(&functions, &format!("{two} {} {what}", poll(2))).await.unwrap(),
            expected,
            "{what}"
        );
    }
    let none = "(i64.extend_i32_u (call $poll_oneoff (i32.const 2000) (i32.const 3000) (i32.const 0) (i32.const 4000)))";
    assert_eq!(compute(&functions, none).await.unwrap(), 28);
}
