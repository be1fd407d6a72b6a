//! The pool of V8 threads, and the watcher thread that enforces computing time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use manifold_runtime_api::{Error, Reason, Result, Status};
use parking_lot::Mutex;

use crate::fatal;
use crate::job::Frame;
use crate::prepare::Script;
use crate::worker::{Imports, Message, Worker};

/// How often the watcher checks the V8 threads while there are jobs.
const WATCH_INTERVAL: Duration = Duration::from_millis(10);

/// How long a guest may take to stop after a stop request. Collecting the garbage of a full heap
/// takes most of a second.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of lost threads after which the runtime accepts no more jobs. Each keeps its stack,
/// its heaps and possibly a processor.
const MAX_LOST_THREADS: usize = 64;

/// The V8 threads of a runtime. Dropping it shuts them down.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    watcher: Thread,
}

/// The part of a pool that the watcher thread shares.
struct Shared {
    workers: Mutex<Vec<Arc<Worker>>>,
    /// The thread that parses modules. Started for the first module.
    reader: Mutex<Option<Arc<Worker>>>,
    dynamic_code: bool,
    jobs: AtomicUsize,
    lost: AtomicUsize,
    stop: AtomicBool,
}

/// Keeps the watcher thread awake until it is dropped.
pub(crate) struct Awake<'a>(&'a Pool);

impl Pool {
    /// Starts the V8 threads and their watcher.
    pub(crate) fn start(threads: usize, dynamic_code: bool) -> Result<Self> {
        fatal::install();
        let mut workers = Vec::with_capacity(threads);
        for _ in 0..threads {
            match Worker::start(dynamic_code) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    end(&workers);
                    return Err(error);
                }
            }
        }
        let shared = Arc::new(Shared {
            workers: Mutex::new(workers),
            reader: Mutex::default(),
            dynamic_code,
            jobs: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let watcher = thread::Builder::new()
            .name("manifold-v8-watch".to_owned())
            .spawn(move || of_thread.watch())
            .map_err(|error| {
                end(&shared.workers.lock());
                Error::new(Reason::RuntimeFailed {
                    problem: format!("cannot start the thread that watches V8: {error}"),
                    status: Status::Transient,
                })
            })?;
        Ok(Self { shared, watcher: watcher.thread().clone() })
    }

    /// Wakes the watcher for a job.
    pub(crate) fn awake(&self) -> Awake<'_> {
        if self.shared.jobs.fetch_add(1, Ordering::AcqRel) == 0 {
            self.watcher.unpark();
        }
        Awake(self)
    }

    /// Returns the imports of the module in the file at `path`, or the reason why it is not a
    /// module. It is parsed on a thread that runs no guests.
    ///
    /// # Errors
    /// `RuntimeFailed` if no thread can be started, or if the thread is lost while it parses the
    /// code.
    pub(crate) async fn read_module(&self, path: String, script: Arc<Script>) -> Result<Imports> {
        let answered = {
            let mut reader = self.shared.reader.lock();
            let there = match reader.take() {
                Some(mut reader) => {
                    self.shared.replace_lost(std::slice::from_mut(&mut reader))?;
                    reader
                }
                None => Worker::start(false)?,
            };
            reader.insert(there).read(path.clone(), script)
        };
        answered
            .await
            .map_err(|_| Error::runtime(format!("V8 ran out of memory while parsing {path}")))
    }

    /// Sends the guest to the least busy thread and returns that thread.
    pub(crate) fn admit(&self, frame: &Arc<Frame>) -> Result<Arc<Worker>> {
        let mut workers = self.shared.workers.lock();
        self.shared.replace_lost(&mut workers)?;
        let worker = workers.iter().min_by_key(|worker| worker.load());
        let worker = worker.ok_or_else(|| Error::runtime("the runtime has no V8 threads"))?;
        worker.admit(Arc::clone(frame));
        Ok(Arc::clone(worker))
    }
}

impl Shared {
    /// Starts a new thread for each lost one.
    fn replace_lost(&self, workers: &mut [Arc<Worker>]) -> Result<()> {
        for worker in workers.iter_mut().filter(|worker| worker.is_lost()) {
            if self.lost.load(Ordering::Relaxed) >= MAX_LOST_THREADS {
                return Err(Error::new(Reason::RuntimeFailed {
                    problem: format!(
                        "{MAX_LOST_THREADS} V8 threads were lost to guests that did not stop or \
                         that V8 could not recover from; restart the process"
                    ),
                    status: Status::Transient,
                }));
            }
            *worker = Worker::start(self.dynamic_code)?;
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Runs the watcher thread.
    fn watch(&self) {
        while !self.stop.load(Ordering::Acquire) {
            if self.jobs.load(Ordering::Acquire) == 0 {
                // If the unpark comes first, the park returns immediately, so no job is missed.
                thread::park();
                continue;
            }
            thread::sleep(WATCH_INTERVAL);
            let workers = self.workers.lock().clone();
            for worker in workers {
                if let Some(stuck) = worker.turns.check(STOP_TIMEOUT) {
                    worker.give_up_for(&stuck);
                }
            }
        }
    }
}

/// Ends the threads once they have handled what they were sent.
fn end(workers: &[Arc<Worker>]) {
    for worker in workers {
        worker.send(Message::Shutdown);
    }
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.shared.jobs.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.watcher.unpark();
        end(&self.shared.workers.lock());
        end(self.shared.reader.lock().as_slice());
    }
}
