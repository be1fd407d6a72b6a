//! [`OpenSpan`]: a span that has not ended. It is in one phase at each moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use manifold_runtime_api::{Error, ObjectId, ObjectRef, Reason, Result};

use super::{Data, FrameSpan, Phase, Phases, Span, SpanId, SpanInfo, SpanKind, Usage};
use crate::core::Keyed;
use crate::observe::Observer;
use crate::thread_number::ByThread;

/// How many groups of threads have parts of their own of what all spans use.
const GROUPS: usize = 16;

/// The observers of spans, and the clock of spans. Each group of threads has a handle of its own, so
/// that counting its references is no common work.
pub(crate) struct Spans(ByThread<Arc<SpansOfThread>, GROUPS>);

/// A handle to the observers of spans.
pub(crate) struct SpansOfThread {
    observers: Arc<[Arc<dyn Observer>]>,
    epoch: Instant,
    group: u64,
    next: AtomicU64,
}

impl Spans {
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>, epoch: Instant) -> Self {
        let observers: Arc<[_]> = observers.into();
        Self(ByThread::new(|group| {
            let (observers, group) = (Arc::clone(&observers), group as u64);
            Arc::new(SpansOfThread { observers, epoch, group, next: AtomicU64::new(0) })
        }))
    }

    /// Returns the handle of this thread.
    pub(crate) fn own(&self) -> &Arc<SpansOfThread> {
        self.0.own()
    }
}

impl SpansOfThread {
    /// Returns the time since the dispatcher was built in nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns a number that no other span has.
    fn next_id(&self) -> SpanId {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        SpanId(next.wrapping_mul(GROUPS as u64).wrapping_add(self.group))
    }
}

/// A span that has not ended. If it is dropped, it ends as cancelled.
pub(crate) struct OpenSpan {
    spans: Arc<SpansOfThread>,
    /// The span of the frame or of the root call that wants this one.
    parent: Option<Arc<FrameSpan>>,
    /// `None` once the span has ended.
    data: Option<Box<Data>>,
    phase: Phase,
    /// When the phase began.
    since: u64,
    after: Option<Arc<Span>>,
}

/// When a request was wanted, and how long it took to find out which one it is.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) began: u64,
    pub(crate) keyed: u64,
}

impl OpenSpan {
    /// Opens the span of a request that `parent` wants. It is in the phase of the look-up.
    pub(crate) fn of_request(
        spans: &Spans,
        parent: &Arc<FrameSpan>,
        keyed: &Keyed,
        depth: u32,
        wanted: Wanted,
    ) -> Self {
        let (root, after) = (parent.root(), parent.last());
        Self::new(spans, Some(Arc::clone(parent)), root, keyed, depth, wanted, after)
    }

    /// Opens the span of a root call.
    pub(crate) fn of_call(spans: &Spans, root: u64, keyed: &Keyed, wanted: Wanted) -> Self {
        let mut span = Self::new(spans, None, root, keyed, 0, wanted, None);
        span.begin(SpanKind::Call);
        span
    }

    fn new(
        spans: &Spans,
        parent: Option<Arc<FrameSpan>>,
        root: u64,
        keyed: &Keyed,
        depth: u32,
        wanted: Wanted,
        after: Option<Arc<Span>>,
    ) -> Self {
        let spans = Arc::clone(spans.own());
        let mut phases = Phases::default();
        phases.add(Phase::Resolve, wanted.keyed.saturating_sub(wanted.began));
        let info = SpanInfo {
            id: spans.next_id(),
            parent: parent.as_ref().map(|parent| parent.id()),
            root,
            depth,
            keyed: keyed.clone(),
            began: wanted.began,
        };
        let data = Box::new(Data {
            info,
            kind: SpanKind::Unstarted,
            ended: 0,
            phases,
            usage: Usage::default(),
            // Replaced at the end.
            result: Ok(ObjectRef::tree(ObjectId::empty_tree())),
            memoized: false,
            told: false,
        });
        let since = wanted.keyed;
        Self { spans, parent, data: Some(data), phase: Phase::LookUp, since, after }
    }

    pub(super) fn now(&self) -> u64 {
        self.spans.now()
    }

    pub(super) fn info(&self) -> Option<&SpanInfo> {
        self.data.as_ref().map(|data| &data.info)
    }

    pub(super) fn usage(&mut self) -> Option<&mut Usage> {
        self.data.as_mut().map(|data| &mut data.usage)
    }

    /// Reports the start of the span.
    pub(crate) fn begin(&mut self, kind: SpanKind) {
        let Some(data) = &mut self.data else { return };
        self.spans.observers.iter().for_each(|observer| observer.on_span_start(&data.info, kind));
        data.told = true;
        // A run has not started yet.
        data.kind = if kind == SpanKind::Run { SpanKind::Unstarted } else { kind };
    }

    /// Makes the span another kind than it began as.
    pub(super) fn turned_out(&mut self, kind: SpanKind) {
        if let Some(data) = &mut self.data {
            data.kind = kind;
        }
    }

    /// Records that the outcome came from elsewhere. A run that had begun here stays one.
    pub(super) fn arrived(&mut self) {
        if let Some(data) = &mut self.data
            && data.kind == SpanKind::Unstarted
        {
            data.kind = SpanKind::Elsewhere;
        }
    }

    /// Records that the outcome is memoized.
    pub(super) fn memoized(&mut self) {
        if let Some(data) = &mut self.data {
            data.memoized = true;
        }
    }

    /// Ends the current phase and begins `phase`.
    pub(crate) fn enter(&mut self, phase: Phase) {
        let now = self.now();
        self.add(self.phase, now.saturating_sub(self.since));
        self.phase = phase;
        self.since = self.since.max(now);
    }

    /// Moves the time since `start`, which the current phase would get, to [`Phase::Host`].
    pub(super) fn host_call(&mut self, start: u64) {
        let now = self.now();
        // Calls of a guest with several threads can overlap.
        let time = now.saturating_sub(start.max(self.since));
        self.add(self.phase, now.saturating_sub(self.since).saturating_sub(time));
        self.add(Phase::Host, time);
        self.since = self.since.max(now);
    }

    fn add(&mut self, phase: Phase, nanos: u64) {
        if let Some(data) = &mut self.data {
            data.phases.add(phase, nanos);
        }
    }

    /// Ends the span as a hit.
    pub(crate) fn hit(mut self, outcome: ObjectRef) {
        self.turned_out(SpanKind::Hit);
        self.end(Ok(outcome), None);
    }

    /// Ends the span. `last` is the span that it waited for last.
    pub(crate) fn end(
        mut self,
        result: Result<ObjectRef>,
        last: Option<Arc<Span>>,
    ) -> Option<Arc<Span>> {
        self.finish(result, last)
    }

    fn finish(&mut self, result: Result<ObjectRef>, last: Option<Arc<Span>>) -> Option<Arc<Span>> {
        self.enter(self.phase);
        let mut data = self.data.take()?;
        (data.ended, data.result) = (self.since, result);
        let span = Arc::new(Span::new(data, last, self.after.take()));
        if let Some(parent) = self.parent.take() {
            parent.child_ended(&span);
        }
        self.spans.observers.iter().for_each(|observer| observer.on_span_end(&span));
        Some(span)
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if self.data.is_some() {
            self.finish(Err(Error::new(Reason::Cancelled)), None);
        }
    }
}
