//! Interrupts and deadlines: whatever a command is doing, they end it.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::error::CliError;
use crate::session;

/// How long a command that is told to end may take to let go of what it holds. After that it ends all the same.
pub(crate) const LAST_BREATH: Duration = Duration::from_millis(800);

/// The exit status that shells report for a program that SIGINT ended.
pub(crate) const INTERRUPTED: u8 = 128 + 2;

/// How much later the command gives up, so that a call that began with it can do so first, and say more.
const AFTER_THE_CALL: Duration = Duration::from_millis(100);

/// When the command began.
static BEGAN: OnceLock<Instant> = OnceLock::new();

/// What a command is doing, for whoever asks why it takes so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Doing {
    Starting,
    OpeningTheStore,
    Hashing,
    Computing,
    Storing,
    Writing,
}

static DOING: AtomicU8 = AtomicU8::new(Doing::Starting as u8);

impl Doing {
    const ALL: [Self; 6] = [
        Self::Starting,
        Self::OpeningTheStore,
        Self::Hashing,
        Self::Computing,
        Self::Storing,
        Self::Writing,
    ];

    /// Notes that this is what the command does from now on.
    pub(crate) fn begin(self) {
        DOING.store(self as u8, Ordering::Relaxed);
    }

    fn now() -> Self {
        let doing = DOING.load(Ordering::Relaxed);
        Self::ALL.into_iter().find(|one| *one as u8 == doing).unwrap_or(Self::Starting)
    }
}

impl fmt::Display for Doing {
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

/// What is left of `deadline`, which began with the command.
fn rest_of(deadline: Duration) -> Duration {
    deadline.saturating_sub(BEGAN.get_or_init(Instant::now).elapsed())
}

/// Tells of interrupts.
pub(crate) struct Interrupts(Arc<Notify>);

impl Interrupts {
    /// Listens for interrupts from now on. The first one is told to whoever runs a command in [`Interrupts::unless`]; the process
    /// ends soon after it, and at once at the second. With `at_once` it ends at the first.
    pub(crate) fn listen(at_once: bool) -> Self {
        BEGAN.get_or_init(Instant::now);
        let first = Arc::new(Notify::new());
        let told = Arc::clone(&first);
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
                    told.notify_one();
                    // A second one, or the end of the time, whichever comes first.
                    let _ = tokio::time::timeout(LAST_BREATH, tokio::signal::ctrl_c()).await;
                }
                end(INTERRUPTED);
            });
        };
        // Without a thread an interrupt ends the process as if there were no handler.
        let _ = std::thread::Builder::new().name("manifold-interrupts".to_owned()).spawn(listen);
        Self(first)
    }

    /// Does the work, unless it is interrupted or takes longer than `deadline` from the beginning of the command.
    pub(crate) async fn unless<F>(
        &self,
        deadline: Option<Duration>,
        work: F,
    ) -> Result<(), CliError>
    where
        F: Future<Output = Result<(), CliError>> + Send + 'static,
    {
        // Elsewhere, for it may block.
        let work = tokio::spawn(work);
        let time =
            deadline.map_or(Duration::MAX, |time| rest_of(time).saturating_add(AFTER_THE_CALL));
        if deadline.is_some() {
            end_after(time.saturating_add(LAST_BREATH));
        }
        tokio::select! {
            () = self.0.notified() => Err(CliError::Interrupted),
            done = tokio::time::timeout(time, work) => match (done, deadline) {
                (Ok(Ok(result)), _) => result,
                (Ok(Err(lost)), _) if is_for_threads(&lost.to_string()) => Err(CliError::NoThreads(io::Error::other(lost))),
                (Ok(Err(lost)), _) => Err(CliError::WorkLost(lost)),
                (Err(_), time) => Err(CliError::Deadline { time: time.unwrap_or_default(), doing: Doing::now() }),
            },
        }
    }
}

/// Fails where the system does not give as many threads as a command needs at least. Libraries panic there, or wait for those that they
/// got.
pub(crate) fn check_threads() -> io::Result<()> {
    /// Besides one for each core: for the store, clocks, containers, and what blocks.
    const OTHERS: usize = 7;
    let wanted = OTHERS + std::thread::available_parallelism().map_or(1, usize::from);
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let threads: io::Result<Vec<_>> = (0..wanted)
        .map(|_| {
            let held = Arc::clone(&held);
            // All of them are there until the other end is dropped.
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

/// Whether these are the words of a library that panics because the system gives no threads.
pub(crate) fn is_for_threads(words: &str) -> bool {
    words.contains("can't spawn worker thread") || words.contains("thread pool has not been")
}

/// Ends the process after this time, should it not have ended by then, whatever it is doing: even saying why may take for ever.
fn end_after(time: Duration) {
    let ending = move || {
        std::thread::sleep(time);
        end(1);
    };
    // Without a thread the deadline holds for whatever does not block.
    let _ = std::thread::Builder::new().name("manifold-deadline".to_owned()).spawn(ending);
}

/// Ends the process without waiting for anybody: some thread of it may be stuck. A process of its own takes containers away that are
/// left.
fn end(status: u8) -> ! {
    session::leave_containers_to_others();
    signal_hook::low_level::exit(status.into())
}
