//! Interrupts and deadlines end the command in every phase.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

fn manifold(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command
        .current_dir(directory)
        .env("XDG_CACHE_HOME", directory.join("cache"))
        .env_remove("MANIFOLD_STORE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn interrupt(command: &Child) {
    assert!(
        Command::new("kill").args(["-INT", &command.id().to_string()]).status().unwrap().success()
    );
}

/// Waits until the command handles interrupts, which it does before it reads its input.
fn wait_for_handler(command: &Child) {
    if !cfg!(target_os = "linux") {
        std::thread::sleep(Duration::from_secs(2));
        return;
    }
    const SIGINT: u64 = 1 << 1;
    let start = Instant::now();
    let handles = || {
        let status = fs::read_to_string(format!("/proc/{}/status", command.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & SIGINT != 0
    };
    while !handles() {
        assert!(start.elapsed() < Duration::from_secs(60), "the command handles no interrupts");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the command to end. Returns the time it took, its exit status and its standard error.
fn end(mut command: Child) -> (Duration, Option<i32>, String) {
    let start = Instant::now();
    while command.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "the command does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut stderr = String::new();
    command.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (start.elapsed(), command.wait().unwrap().code(), stderr)
}

/// A generous bound, because the machine may be busy. Without the handlers the commands never end.
const SOON: Duration = Duration::from_secs(10);

/// A directory with a small tree and a store whose file another process is writing to.
struct Held {
    place: TempDir,
    _database: redb::Database,
}

fn held() -> (Held, redb::WriteTransaction) {
    let place = TempDir::new().unwrap();
    fs::create_dir(place.path().join("d")).unwrap();
    fs::write(place.path().join("d/a"), "a\n").unwrap();
    let made = manifold(place.path()).args(["fold", "d", "--store", "s"]).output().unwrap();
    assert!(made.status.success());
    let mut builder = redb::Builder::new();
    builder.set_concurrency_mode(redb::ConcurrencyMode::MultiWriter);
    let database = builder.open(place.path().join("s/manifold.redb")).unwrap();
    let writing = database.begin_write().unwrap();
    (Held { place, _database: database }, writing)
}

#[test]
fn waiting_for_the_store_is_reported_and_can_be_interrupted() {
    let (held, _writing) = held();
    for arguments in
        [&["fold", "d", "--store", "s"][..], &["pins", "--store", "s"], &["gc", "--store", "s"]]
    {
        let mut waiting = manifold(held.place.path()).args(arguments).spawn().unwrap();
        // The message comes before anything else.
        let mut stderr = [0; 8];
        waiting.stderr.as_mut().unwrap().read_exact(&mut stderr).unwrap();
        interrupt(&waiting);
        let (time, status, rest) = end(waiting);
        assert_eq!((&stderr, status), (b"waiting ", Some(130)), "{arguments:?}");
        assert!(time < SOON, "{arguments:?}: {time:?}");
        if cfg!(target_os = "linux") {
            assert!(rest.starts_with(&format!("for process {}", std::process::id())), "{rest}");
        }
    }
}

#[test]
fn a_deadline_covers_waiting_for_the_store() {
    let (held, _writing) = held();
    let waiting = manifold(held.place.path())
        .args(["fold", "d", "--store", "s", "--deadline", "1s"])
        .spawn()
        .unwrap();
    let (time, status, stderr) = end(waiting);
    assert_eq!(status, Some(5));
    assert!(time < SOON, "{time:?}");
    assert!(
        stderr.contains("error: the deadline of 1s passed while opening the store"),
        "{stderr}"
    );
}

#[test]
fn hashing_ends_at_a_deadline_and_at_an_interrupt() {
    let place = TempDir::new().unwrap();
    fs::create_dir(place.path().join("d")).unwrap();
    File::create(place.path().join("d/large")).unwrap().set_len(1 << 38).unwrap();
    let fold = ["fold", "d", "--no-store", "--max-file", "1TiB"];
    let hashing = manifold(place.path()).args(fold).args(["--deadline", "500ms"]).spawn().unwrap();
    let (time, status, stderr) = end(hashing);
    assert_eq!(status, Some(5));
    assert!(time < SOON && stderr.contains("passed while hashing the input"), "{time:?}: {stderr}");

    let hashing = manifold(place.path()).args(fold).spawn().unwrap();
    wait_for_handler(&hashing);
    interrupt(&hashing);
    let (time, status, _) = end(hashing);
    assert_eq!(status, Some(130));
    assert!(time < SOON, "{time:?}");
}

#[test]
fn writing_to_an_unread_pipe_ends_at_a_deadline_and_at_an_interrupt() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("large"), vec![b'x'; 5_000_000]).unwrap();
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).current_dir(place.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    git(&["init", "--quiet", "."]);
    let id = git(&["hash-object", "-w", "large"]);
    let mut writing = manifold(place.path()).args(["cat", id.trim()]).spawn().unwrap();
    // The first byte shows that the command is writing.
    writing.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    interrupt(&writing);
    let (time, status, _) = end(writing);
    assert_eq!(status, Some(130));
    assert!(time < SOON, "{time:?}");

    // A command that computes writes on a thread other than the one that listens.
    fs::write(place.path().join("echo.wasm"), wat::parse_str(ECHO).unwrap()).unwrap();
    let run = ["run", "echo.wasm", "--arg", "in=large", "--raw", "--no-store"];
    let mut writing = manifold(place.path()).args(run).spawn().unwrap();
    writing.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    interrupt(&writing);
    let (time, status, _) = end(writing);
    assert_eq!(status, Some(130));
    assert!(time < SOON, "{time:?}");

    let writing = manifold(place.path()).args(run).args(["--deadline", "2s"]).spawn().unwrap();
    let (time, status, stderr) = end(writing);
    assert_eq!(status, Some(5));
    assert!(
        time < SOON && stderr.contains("passed while writing the result"),
        "{time:?}: {stderr}"
    );
}

/// A guest whose outcome is its argument, the blob of 5,000,000 times `x`.
const ECHO: &str = r#"(module
    (import "caos_abi_v1" "call" (func $call (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "{\22op\22:\22out\22,\22kind\22:\22blob\22,\22hash\22:\228e0a61123b82d6c7b4c35398197855cb0e255f08\22}")
    (func (export "caos_run") (drop (call $call (i32.const 0) (i32.const 76)))))"#;
