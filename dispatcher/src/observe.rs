//! Observation of a dispatcher: events, observers and counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::span::{Span, SpanInfo, SpanKind};
use crate::thread_number::ByThread;
use manifold_runtime_api::{Error, ObjectId, ObjectRef};

/// Something that happened to a request.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The outcome came from the memo.
    Hit {
        /// The request's id.
        request: ObjectId,
    },
    /// A run of the request was already in progress, and another caller joined it.
    Joined {
        /// The request's id.
        request: ObjectId,
    },
    /// A runtime starts to run the request.
    Started {
        /// The request's id.
        request: ObjectId,
        /// The id of the tree of arguments.
        args: ObjectId,
        /// The image reference in the request.
        image: &'a str,
        /// The runtime's name.
        runtime: &'a str,
    },
    /// A run of the request has ended.
    Settled {
        /// The request's id.
        request: ObjectId,
        /// The outcome, or the error.
        result: Result<&'a ObjectRef, &'a Error>,
        /// Whether the outcome was memoized.
        memoized: bool,
    },
    /// The run begins again, because an object was lost that its guest or a nested run had created.
    Rewound {
        /// The request's id.
        request: ObjectId,
        /// The id of the lost object.
        lost: ObjectId,
    },
    /// A repeated run had another outcome than the memo: the image is not a pure function, or the
    /// runtime is not what its host image describes. The new outcome replaces the memo entry.
    Diverged {
        /// The request's id.
        request: ObjectId,
        /// The memoized outcome.
        memoized: &'a ObjectRef,
        /// The outcome of the repeated run.
        recomputed: &'a ObjectRef,
    },
    /// The run was taken over: it is to be run elsewhere, such as on another machine.
    GivenAway {
        /// The request's id.
        request: ObjectId,
    },
    /// The run was given back, and is run here.
    GivenBack {
        /// The request's id.
        request: ObjectId,
    },
    /// The outcome of a run elsewhere has arrived, and is memoized.
    Arrived {
        /// The request's id.
        request: ObjectId,
        /// The outcome.
        outcome: &'a ObjectRef,
    },
    /// The guest logged a message.
    Logged {
        /// The request's id.
        request: ObjectId,
        /// The message.
        message: &'a str,
    },
}

impl Event<'_> {
    /// Emits the event to `tracing` if it is about a run. Hits are not traced, because they are too
    /// frequent and too fast.
    #[inline(never)]
    pub(crate) fn trace(&self) {
        match self {
            Self::Hit { .. }
            | Self::Joined { .. }
            | Self::Diverged { .. }
            | Self::Logged { .. } => {}
            Self::GivenAway { request } => tracing::debug!(%request, "run was given away"),
            Self::GivenBack { request } => tracing::debug!(%request, "run was given back"),
            Self::Arrived { request, outcome } => {
                tracing::debug!(%request, outcome = %outcome.id, "outcome arrived from elsewhere")
            }
            Self::Started { request, image, runtime, .. } => {
                tracing::debug!(%request, image, runtime, "run started")
            }
            Self::Settled { request, result: Ok(outcome), memoized } => {
                tracing::debug!(
                    %request,
                    kind = outcome.kind.as_str(),
                    outcome = %outcome.id,
                    memoized,
                    "run succeeded"
                );
            }
            Self::Settled { request, result: Err(error), .. } => {
                tracing::debug!(%request, "run failed: {error}")
            }
            Self::Rewound { request, lost } => {
                tracing::info!(%request, %lost, "run begins again because an object was lost")
            }
        }
    }
}

/// What an observer learns when its dispatcher is built.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Observed {
    /// How many frames can compute at once.
    pub permits: usize,
    /// When the dispatcher was built. Times of spans count from then.
    pub began: SystemTime,
}

/// Receives every [`Event`] and, if it wants them, every [`Span`], on the thread where it happens.
/// Implementations should return quickly.
///
/// # Behavior
/// - Every [`Event::Started`] is followed by exactly one [`Event::Settled`] of the same run, also if
///   the run is cancelled, exceeds a budget, or panics. Nothing else is settled.
/// - [`Event::Rewound`] comes between the two.
/// - Every start of a span is followed by exactly one end. Hits and spans of the kind
///   [`SpanKind::Unstarted`] may end without a start.
/// - A child ends before its parent, unless the parent stopped waiting for it.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use manifold_dispatcher::{Dispatcher, Event};
///
/// let runs = Arc::new(AtomicU64::new(0));
/// let counter = Arc::clone(&runs);
/// let dispatcher = Dispatcher::builder()
///     .on_event(move |event: &Event<'_>| {
///         if let Event::Started { .. } = event {
///             counter.fetch_add(1, Ordering::Relaxed);
///         }
///     })
///     .build()?;
/// # Ok::<(), manifold_dispatcher::api::Error>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Handles one event.
    fn on_event(&self, event: &Event<'_>);

    /// Learns about the dispatcher when it is built. The default implementation does nothing.
    fn on_build(&self, observed: &Observed) {
        let _ = observed;
    }

    /// Returns whether this observer wants spans. Asked once, when the dispatcher is built. While no
    /// observer wants them, they cost nothing. Default: it does not.
    fn observes_spans(&self) -> bool {
        false
    }

    /// Handles the start of a span: a root call, a request that is to be run, or a join. A request
    /// that is to be run can end as another kind, because another run has memoized it or because
    /// its last caller stopped waiting. The default implementation does nothing.
    fn on_span_start(&self, span: &SpanInfo, kind: SpanKind) {
        let _ = (span, kind);
    }

    /// Handles a span that has ended. The default implementation does nothing.
    fn on_span_end(&self, span: &Arc<Span>) {
        let _ = span;
    }
}

impl<T: Observer + ?Sized> Observer for Arc<T> {
    fn on_event(&self, event: &Event<'_>) {
        (**self).on_event(event);
    }

    fn on_build(&self, observed: &Observed) {
        (**self).on_build(observed);
    }

    fn observes_spans(&self) -> bool {
        (**self).observes_spans()
    }

    fn on_span_start(&self, span: &SpanInfo, kind: SpanKind) {
        (**self).on_span_start(span, kind);
    }

    fn on_span_end(&self, span: &Arc<Span>) {
        (**self).on_span_end(span);
    }
}

/// Counters of the work that a dispatcher has done since it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// The number of runs that a runtime started.
    pub runs: u64,
    /// The number of requests whose outcome came from the memo.
    pub hits: u64,
    /// The number of requests that joined a run in progress.
    pub joins: u64,
    /// The number of runs that failed.
    pub failures: u64,
    /// The number of times that a run began again because an object was lost.
    pub rewinds: u64,
    /// The number of outcomes that came from runs elsewhere.
    pub arrived: u64,
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
            arrived: self.arrived - earlier.arrived,
        }
    }
}

/// The counters of a dispatcher.
#[derive(Default)]
pub(crate) struct Counters(ByThread<Counts, 16>);

#[derive(Default)]
struct Counts {
    runs: AtomicU64,
    hits: AtomicU64,
    joins: AtomicU64,
    failures: AtomicU64,
    rewinds: AtomicU64,
    arrived: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, event: &Event<'_>) {
        let counts = self.0.own();
        let counter = match event {
            Event::Hit { .. } => &counts.hits,
            Event::Joined { .. } => &counts.joins,
            Event::Started { .. } => &counts.runs,
            Event::Settled { result: Err(_), .. } => &counts.failures,
            Event::Rewound { .. } => &counts.rewinds,
            Event::Arrived { .. } => &counts.arrived,
            Event::Settled { .. }
            | Event::Diverged { .. }
            | Event::GivenAway { .. }
            | Event::GivenBack { .. }
            | Event::Logged { .. } => return,
        };
        // Pairs with the loads in `read`: a failure is not visible before its run.
        counter.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn read(&self) -> Stats {
        let sum = |counter: fn(&Counts) -> &AtomicU64| {
            self.0.all().map(|counts| counter(counts).load(Ordering::Acquire)).sum()
        };
        // Loaded before `runs`, so that failures never exceed it.
        let failures = sum(|counts| &counts.failures);
        let rewinds = sum(|counts| &counts.rewinds);
        Stats {
            runs: sum(|counts| &counts.runs),
            hits: sum(|counts| &counts.hits),
            joins: sum(|counts| &counts.joins),
            failures,
            rewinds,
            arrived: sum(|counts| &counts.arrived),
        }
    }
}
