//! What a dispatcher tells about its work.

use std::sync::atomic::{AtomicU64, Ordering};

use manifold_runtime_api::{Error, ObjectId, Outcome};

/// Something that happened to a request.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Its outcome came from the memo.
    Hit {
        /// The request's id.
        request: ObjectId,
    },
    /// It is under way already, and somebody else waits for it too.
    Joined {
        /// The request's id.
        request: ObjectId,
    },
    /// A runtime begins to run it.
    Started {
        /// The request's id.
        request: ObjectId,
        /// The image, as it stands in the request.
        image: &'a str,
        /// The runtime's name.
        runtime: &'a str,
    },
    /// Its run is over.
    Settled {
        /// The request's id.
        request: ObjectId,
        /// How it ended.
        result: Result<&'a Outcome, &'a Error>,
        /// Whether the outcome is in the memo now.
        memoized: bool,
    },
    /// It is run once more, because an object was lost that its guest, or a nested run, had made.
    Rewound {
        /// The request's id.
        request: ObjectId,
        /// The object.
        lost: ObjectId,
    },
    /// Run again, it had another outcome than the memo did: its image is no pure function, or its runtime is not what its host
    /// image says. The new outcome is remembered.
    Diverged {
        /// The request's id.
        request: ObjectId,
        /// What was remembered.
        remembered: &'a Outcome,
        /// What came now.
        recomputed: &'a Outcome,
    },
    /// Its guest logged a line.
    Logged {
        /// The request's id.
        request: ObjectId,
        /// The text.
        message: &'a str,
    },
}

impl Event<'_> {
    /// Tells of it as a `tracing` event, if it is about a run. Hits are too many, and too fast.
    #[inline(never)]
    pub(crate) fn trace(&self) {
        match self {
            Self::Hit { .. }
            | Self::Joined { .. }
            | Self::Diverged { .. }
            | Self::Logged { .. } => {}
            Self::Started { request, image, runtime } => {
                tracing::debug!(%request, image, runtime, "begins to run")
            }
            Self::Settled { request, result: Ok(outcome), memoized } => {
                tracing::debug!(%request, kind = outcome.kind.as_str(), outcome = %outcome.id, memoized, "has run");
            }
            Self::Settled { request, result: Err(error), .. } => {
                tracing::debug!(%request, "has failed: {error}")
            }
            Self::Rewound { request, lost } => {
                tracing::info!(%request, %lost, "runs again, for an object was lost")
            }
        }
    }
}

/// Gets every [`Event`] as it happens, on the thread where it happens. It should be quick.
pub trait Observer: Send + Sync + 'static {
    /// Takes one event.
    fn on_event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// How much a dispatcher has done since it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that a runtime ran, or began to run.
    pub runs: u64,
    /// Requests answered from the memo.
    pub hits: u64,
    /// Requests that joined a run under way.
    pub joins: u64,
    /// Runs that ended in an error.
    pub failures: u64,
    /// Runs that began again because an object was lost.
    pub rewinds: u64,
}

impl std::ops::Sub for Stats {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            runs: self.runs - earlier.runs,
            hits: self.hits - earlier.hits,
            joins: self.joins - earlier.joins,
            failures: self.failures - earlier.failures,
            rewinds: self.rewinds - earlier.rewinds,
        }
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    runs: AtomicU64,
    hits: AtomicU64,
    joins: AtomicU64,
    failures: AtomicU64,
    rewinds: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, event: &Event<'_>) {
        let counter = match event {
            Event::Hit { .. } => &self.hits,
            Event::Joined { .. } => &self.joins,
            Event::Started { .. } => &self.runs,
            Event::Settled { result: Err(_), .. } => &self.failures,
            Event::Rewound { .. } => &self.rewinds,
            Event::Settled { .. } | Event::Diverged { .. } | Event::Logged { .. } => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            runs: self.runs.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
            joins: self.joins.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            rewinds: self.rewinds.load(Ordering::Relaxed),
        }
    }
}
