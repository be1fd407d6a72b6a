//! Interrupts and deadlines. They end a command in every phase, even if one of its threads blocks.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::error::{CliError, Failure};
use crate::session;

/// How long a command that is interrupted or past its deadline may take to release its resources,
/// before the process exits regardless.
pub(crate) const SHUTDOWN_TIME: Duration = Duration::from_millis(800);

/// The exit status that shells report for a program ended by SIGINT.
pub(crate) const INTERRUPTED: u8 = 128 + 2;

/// How much later than the deadline the command gives up.
const DEADLINE_MARGIN: Duration = Duration::from_millis(100);

/// How much longer it waits for a root call. That has the same deadline, but begins later and does not
/// count the time in which modules are compiled. When it fails by itself, its error says more.
const CALL_MARGIN: Duration = Duration::from_secs(1);

/// The start of the command.
static STARTED: OnceLock<Instant> = OnceLock::new();

/// The phase of a command, which the error of a deadline reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Starting,
    OpeningTheStore,
    Hashing,
    Computing,
    Storing,
    Writing,
}

static PHASE: AtomicU8 = AtomicU8::new(Phase::Starting as u8);

impl Phase {
    const ALL: [Self; 6] = [
        Self::Starting,
        Self::OpeningTheStore,
        Self::Hashing,
        Self::Computing,
        Self::Storing,
        Self::Writing,
    ];

    /// Records that the command enters this phase.
    pub(crate) fn begin(self) {
        PHASE.store(self as u8, Ordering::Relaxed);
    }

    fn current() -> Self {
        let current = PHASE.load(Ordering::Relaxed);
        Self::ALL.into_iter().find(|phase| *phase as u8 == current).unwrap_or(Self::Starting)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::OpeningTheStore => "opening the store",
            Self::Hashing => "hashing the input",
            Self::Computing => "computing",
            Self::Storing => "storing the result",
            Self::Writing => "writing the result",
        })
    }
}

/// Returns the time left of `deadline`, which counts from the start of the command.
pub(crate) fn remaining(deadline: Duration) -> Duration {
    deadline.saturating_sub(STARTED.get_or_init(Instant::now).elapsed())
}

/// A listener for SIGINT.
pub(crate) struct Interrupts(Arc<Notify>);

impl Interrupts {
    /// Starts to listen for interrupts. The first interrupt ends [`Interrupts::run`]. The process
    /// exits [`SHUTDOWN_TIME`] after it at the latest, and at once on the second interrupt. With
    /// `at_once` it exits on the first.
    pub(crate) fn listen(at_once: bool) -> Self {
        STARTED.get_or_init(Instant::now);
        let interrupted = Arc::new(Notify::new());
        let notify = Arc::clone(&interrupted);
        let listen = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build()
            else {
                return;
            };
            runtime.block_on(async {
                if tokio::signal::ctrl_c().await.is_err() {
                    return;
                }
                if !at_once {
                    notify.notify_one();
                    let _ = tokio::time::timeout(SHUTDOWN_TIME, tokio::signal::ctrl_c()).await;
                }
                exit(INTERRUPTED);
            });
        };
        // If the thread cannot start, there is no handler, and an interrupt ends the process.
        let _ = std::thread::Builder::new().name("manifold-interrupts".to_owned()).spawn(listen);
        Self(interrupted)
    }

    /// Runs `work`. Errors if it is interrupted, or if it is not done `deadline` after the start of
    /// the command.
    pub(crate) async fn run<F>(&self, deadline: Option<Duration>, work: F) -> Result<(), CliError>
    where
        F: Future<Output = Result<(), CliError>> + Send + 'static,
    {
        // In a task of its own, because it may block. It ends with this function.
        let mut work = tokio::spawn(work);
        let task = work.abort_handle();
        let time =
            deadline.map_or(Duration::MAX, |time| remaining(time).saturating_add(DEADLINE_MARGIN));
        if deadline.is_some() {
            exit_after(time.saturating_add(CALL_MARGIN + SHUTDOWN_TIME));
        }
        let done = async {
            match tokio::time::timeout(time, &mut work).await {
                Err(_) if Phase::current() == Phase::Computing => {
                    tokio::time::timeout(CALL_MARGIN, &mut work).await
                }
                done => done,
            }
        };
        let result = tokio::select! {
            () = self.0.notified() => Err(CliError::Interrupted),
            done = done => match (done, deadline) {
                (Ok(Ok(result)), _) => result,
                (Ok(Err(lost)), _) if is_thread_failure(&lost.to_string()) => {
                    Err(CliError::NoThreads(io::Error::other(lost)))
                }
                (Ok(Err(lost)), _) => Err(CliError::WorkLost(lost)),
                (Err(_), time) => {
                    let (time, phase) = (time.unwrap_or_default(), Phase::current());
                    Err(CliError::Deadline { time, phase })
                }
            },
        };
        task.abort();
        result
    }
}

/// Checks that the system grants the least number of threads that a command needs. Without this
/// check, libraries panic or wait for ever.
///
/// # Errors
///
/// Returns the error of starting a thread.
pub(crate) fn check_threads() -> io::Result<()> {
    /// Threads beside one per core: for the store, timers, containers, and blocking work.
    const EXTRA_THREADS: usize = 7;
    let wanted = EXTRA_THREADS + std::thread::available_parallelism().map_or(1, usize::from);
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let threads: io::Result<Vec<_>> = (0..wanted)
        .map(|_| {
            let held = Arc::clone(&held);
            // Each thread lives until the sender is dropped, so all exist at the same time.
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || drop(held.lock().map(|held| held.recv())))
        })
        .collect();
    drop(hold);
    for thread in threads? {
        let _ = thread.join();
    }
    Ok(())
}

/// Returns whether this is the panic message of a library that could not start a thread.
pub(crate) fn is_thread_failure(message: &str) -> bool {
    message.contains("can't spawn worker thread") || message.contains("thread pool has not been")
}

/// Exits the process after this time, whatever it is doing. Even writing the error message may
/// block for ever.
fn exit_after(time: Duration) {
    let wait = move || {
        std::thread::sleep(time);
        exit(Failure::Limit.status());
    };
    // If the thread cannot start, the deadline still holds for work that does not block.
    let _ = std::thread::Builder::new().name("manifold-deadline".to_owned()).spawn(wait);
}

/// Exits the process without waiting for its threads, which may block. A process of its own removes
/// the containers that are left.
fn exit(status: u8) -> ! {
    session::spawn_container_sweep();
    signal_hook::low_level::exit(status.into())
}
