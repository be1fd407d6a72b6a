//! [`OpenSpan`]: a span that has not ended. It is in one phase at each moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use manifold_runtime_api::{Error, ObjectRef, Reason, Result};

use super::{FrameSpan, Phase, Phases, Span, SpanId, SpanInfo, SpanKind, Usage};
use crate::core::Keyed;
use crate::observe::Observer;

/// The observers of spans, and the clock of spans.
pub(crate) struct Spans {
    observers: Vec<Arc<dyn Observer>>,
    epoch: Instant,
    next: AtomicU64,
}

impl Spans {
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>, epoch: Instant) -> Self {
        Self { observers, epoch, next: AtomicU64::new(1) }
    }

    /// Returns the time since the dispatcher was built in nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn start(&self, info: &SpanInfo, kind: SpanKind) {
        self.observers.iter().for_each(|observer| observer.on_span_start(info, kind));
    }

    fn end(&self, span: &Arc<Span>) {
        self.observers.iter().for_each(|observer| observer.on_span_end(span));
    }
}

/// A span that has not ended. If it is dropped, it ends as cancelled.
pub(crate) struct OpenSpan {
    spans: Arc<Spans>,
    /// The span of the frame or of the root call that wants this one.
    parent: Option<Arc<FrameSpan>>,
    info: SpanInfo,
    kind: SpanKind,
    phase: Phase,
    /// When the phase began.
    since: u64,
    phases: Phases,
    pub(super) usage: Usage,
    pub(crate) memoized: bool,
    after: Option<Arc<Span>>,
    ended: bool,
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
        parent: &Arc<FrameSpan>,
        keyed: &Keyed,
        depth: u32,
        wanted: Wanted,
    ) -> Box<Self> {
        let after = parent.last();
        let root = parent.root();
        Self::new(parent.spans(), Some(Arc::clone(parent)), root, keyed, depth, wanted, after)
    }

    /// Opens the span of a root call.
    pub(crate) fn of_call(
        spans: &Arc<Spans>,
        root: u64,
        keyed: &Keyed,
        wanted: Wanted,
    ) -> Box<Self> {
        let mut span = Self::new(spans, None, root, keyed, 0, wanted, None);
        span.begin(SpanKind::Call);
        span
    }

    fn new(
        spans: &Arc<Spans>,
        parent: Option<Arc<FrameSpan>>,
        root: u64,
        keyed: &Keyed,
        depth: u32,
        wanted: Wanted,
        after: Option<Arc<Span>>,
    ) -> Box<Self> {
        let mut phases = Phases::default();
        phases.add(Phase::Resolve, wanted.keyed.saturating_sub(wanted.began));
        let info = SpanInfo {
            id: SpanId(spans.next.fetch_add(1, Ordering::Relaxed)),
            parent: parent.as_ref().map(|parent| parent.id()),
            root,
            depth,
            keyed: keyed.clone(),
            began: wanted.began,
        };
        Box::new(Self {
            spans: Arc::clone(spans),
            parent,
            info,
            kind: SpanKind::Unstarted,
            phase: Phase::LookUp,
            since: wanted.keyed,
            phases,
            usage: Usage::default(),
            memoized: false,
            after,
            ended: false,
        })
    }

    pub(super) const fn spans(&self) -> &Arc<Spans> {
        &self.spans
    }

    pub(super) const fn info(&self) -> &SpanInfo {
        &self.info
    }

    /// Reports the start of the span.
    pub(crate) fn begin(&mut self, kind: SpanKind) {
        self.spans.start(&self.info, kind);
        self.kind = if kind == SpanKind::Run { SpanKind::Unstarted } else { kind };
    }

    /// Records that the runtime starts to run the request.
    pub(super) const fn started(&mut self) {
        self.kind = SpanKind::Run;
    }

    /// Ends the current phase and begins `phase`.
    pub(crate) fn enter(&mut self, phase: Phase) {
        let now = self.spans.now();
        self.phases.add(self.phase, now.saturating_sub(self.since));
        self.phase = phase;
        self.since = self.since.max(now);
    }

    /// Moves the time since `start`, which the current phase would get, to [`Phase::Host`].
    pub(super) fn host_call(&mut self, start: u64) {
        let now = self.spans.now();
        // Calls of a guest with several threads can overlap.
        let time = now.saturating_sub(start.max(self.since));
        self.phases.add(self.phase, now.saturating_sub(self.since).saturating_sub(time));
        self.phases.add(Phase::Host, time);
        self.since = self.since.max(now);
    }

    /// Ends the span as a hit.
    pub(crate) fn hit(mut self: Box<Self>, outcome: ObjectRef) {
        self.kind = SpanKind::Hit;
        self.end(Ok(outcome), None);
    }

    /// Ends the span. `last` is the span that it waited for last.
    pub(crate) fn end(
        mut self: Box<Self>,
        result: Result<ObjectRef>,
        last: Option<Arc<Span>>,
    ) -> Arc<Span> {
        self.finish(result, last)
    }

    fn finish(&mut self, result: Result<ObjectRef>, last: Option<Arc<Span>>) -> Arc<Span> {
        self.ended = true;
        self.enter(self.phase);
        let mut span = Span {
            info: self.info.clone(),
            kind: self.kind,
            ended: self.since,
            phases: self.phases,
            usage: self.usage,
            result,
            memoized: self.memoized,
            last,
            after: self.after.take(),
            kept: 0,
        };
        span.bound();
        let span = Arc::new(span);
        if let Some(parent) = self.parent.take() {
            parent.child_ended(&span);
        }
        self.spans.end(&span);
        span
    }

    /// Makes the span a hit of a request that another run has memoized since it was looked up.
    pub(super) const fn turned_out_a_hit(&mut self) {
        self.kind = SpanKind::Hit;
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(Err(Error::new(Reason::Cancelled)), None);
        }
    }
}
