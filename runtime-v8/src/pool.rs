//! The V8 threads, and the one that watches them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use manifold_runtime_api::{Error, Reason, Result, Status};
use parking_lot::Mutex;

use crate::fatal;
use crate::frame::Frame;
use crate::program::Script;
use crate::worker::{Imports, Message, Worker};

/// How often the threads are looked at, while there are jobs.
const TICK: Duration = Duration::from_millis(10);

/// How long a guest may take to stop once it was told to. Collecting the garbage of a full heap takes most of a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many threads may be given up before no job is taken any more. Each keeps its stack, its heaps and perhaps a processor.
const MAX_LOST: usize = 64;

pub(crate) struct Pool {
    shared: Arc<Shared>,
    watcher: Thread,
}

struct Shared {
    workers: Mutex<Vec<Arc<Worker>>>,
    /// The thread that reads modules, once there is one to be read.
    reader: Mutex<Option<Arc<Worker>>>,
    dynamic_code: bool,
    jobs: AtomicUsize,
    lost: AtomicUsize,
    stop: AtomicBool,
}

/// Keeps the watcher awake.
pub(crate) struct Awake<'a>(&'a Pool);

impl Pool {
    pub(crate) fn start(threads: usize, dynamic_code: bool) -> Result<Self> {
        fatal::install();
        let workers =
            (0..threads).map(|_| Worker::start(dynamic_code)).collect::<Result<Vec<_>>>()?;
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
                Error::runtime(format!("the thread that watches V8 cannot start: {error}"))
            })?;
        Ok(Self { shared, watcher: watcher.thread().clone() })
    }

    pub(crate) fn awake(&self) -> Awake<'_> {
        if self.shared.jobs.fetch_add(1, Ordering::AcqRel) == 0 {
            self.watcher.unpark();
        }
        Awake(self)
    }

    /// What the module in the file at `path` imports, or why it is none. A thread that runs no guests looks.
    ///
    /// # Errors
    /// `RuntimeFailed` when V8 cannot cope with the code.
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
            .map_err(|_| Error::runtime(format!("V8 ran out of memory while it read {path}")))
    }

    /// Gives the guest to the thread that has the least to do.
    pub(crate) fn admit(&self, frame: &Arc<Frame>) -> Result<Arc<Worker>> {
        let mut workers = self.shared.workers.lock();
        self.shared.replace_lost(&mut workers)?;
        let worker = workers.iter().min_by_key(|worker| worker.load());
        let worker = worker.ok_or_else(|| Error::runtime("there is no V8 thread"))?;
        worker.admit(Arc::clone(frame));
        Ok(Arc::clone(worker))
    }
}

impl Shared {
    fn replace_lost(&self, workers: &mut [Arc<Worker>]) -> Result<()> {
        for worker in workers.iter_mut().filter(|worker| worker.is_lost()) {
            if self.lost.load(Ordering::Relaxed) >= MAX_LOST {
                return Err(Error::new(Reason::RuntimeFailed {
                    problem: format!(
                        "{MAX_LOST} V8 threads are lost to guests that did not stop; start the process again"
                    ),
                    status: Status::Transient,
                }));
            }
            *worker = Worker::start(self.dynamic_code)?;
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn watch(&self) {
        while !self.stop.load(Ordering::Acquire) {
            if self.jobs.load(Ordering::Acquire) == 0 {
                // An unpark that comes before the park makes it return at once, so no job is overlooked.
                thread::park();
                continue;
            }
            thread::sleep(TICK);
            let workers = self.workers.lock().clone();
            for worker in workers {
                if let Some(stuck) = worker.turns.check(PATIENCE) {
                    worker.give_up_for(&stuck);
                }
            }
        }
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
        for worker in self.shared.workers.lock().iter().chain(self.shared.reader.lock().as_ref()) {
            worker.send(Message::Shutdown);
        }
    }
}
