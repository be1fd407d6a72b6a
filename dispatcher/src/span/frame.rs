//! [`FrameSpan`]: the open span of a frame or of a root call, to which its children and its host
//! calls report.

use std::sync::Arc;

use manifold_runtime_api::{Error, JobPhase, ObjectRef, Reason, Report, Result};
use parking_lot::Mutex;

use super::{OpenSpan, Phase, Span, SpanId, SpanKind, Spans, Wanted};
use crate::core::Keyed;

/// The open span of a frame or of a root call.
pub(crate) struct FrameSpan {
    id: SpanId,
    root: u64,
    state: Mutex<State>,
}

struct State {
    /// `None` once the span has ended.
    open: Option<OpenSpan>,
    /// The phase while no nested run is in progress and the frame does not wait for a permit.
    base: Phase,
    /// How many calls of the guest wait for nested runs.
    nested: usize,
    /// How many wait for a permit.
    queued: usize,
    /// Whether the guest waits for something outside of the dispatcher, as a number.
    outside: usize,
    /// The child that ended last.
    last: Option<Arc<Span>>,
}

impl State {
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        let phase = match self {
            Self { nested: 1.., .. } => Phase::Nested,
            Self { queued: 1.., .. } => Phase::Queue,
            Self { outside: 1.., .. } => Phase::Outside,
            Self { base, .. } => *base,
        };
        if let Some(open) = &mut self.open {
            open.enter(phase);
        }
    }
}

impl FrameSpan {
    pub(crate) fn new(open: OpenSpan) -> Arc<Self> {
        let (id, root) = open.info().map_or((SpanId(0), 0), |info| (info.id(), info.root()));
        let state = State {
            open: Some(open),
            base: Phase::LookUp,
            nested: 0,
            queued: 0,
            outside: 0,
            last: None,
        };
        Arc::new(Self { id, root, state: Mutex::new(state) })
    }

    /// Creates the span of a run that waits for its permit.
    pub(crate) fn queueing(open: OpenSpan) -> Arc<Self> {
        let span = Self::new(open);
        span.enter(Phase::Queue);
        span
    }

    pub(super) const fn id(&self) -> SpanId {
        self.id
    }

    pub(super) const fn root(&self) -> u64 {
        self.root
    }

    /// Returns the child that ended last.
    pub(super) fn last(&self) -> Option<Arc<Span>> {
        self.state.lock().last.clone()
    }

    pub(super) fn child_ended(&self, child: &Arc<Span>) {
        let mut state = self.state.lock();
        let Some(open) = &mut state.open else { return };
        if let Some(usage) = open.usage() {
            match child.kind() {
                SpanKind::Run => usage.runs += 1,
                SpanKind::Hit => usage.hits += 1,
                SpanKind::Join => usage.joins += 1,
                SpanKind::Call | SpanKind::Unstarted | SpanKind::Elsewhere => {}
            }
        }
        let replaced = state.last.replace(Arc::clone(child));
        drop(state);
        drop(replaced);
    }

    /// Begins a phase of the frame. It is interrupted while nested runs are in progress and while the
    /// frame waits for a permit.
    pub(crate) fn enter(&self, phase: Phase) {
        self.state.lock().change(|state| state.base = phase);
    }

    /// Records that the runtime starts to run the request.
    pub(crate) fn started(&self) {
        let mut state = self.state.lock();
        if let Some(open) = &mut state.open {
            open.turned_out(SpanKind::Run);
        }
        state.change(|state| state.base = Phase::Compute);
    }

    /// Records that the outcome came from elsewhere.
    pub(crate) fn arrived(&self) {
        if let Some(open) = &mut self.state.lock().open {
            open.arrived();
        }
    }

    /// Counts the frame as waiting for nested runs until the returned guard is dropped.
    pub(crate) fn nested(self: &Arc<Self>) -> InPhase {
        InPhase::begin(self, |state| &mut state.nested)
    }

    /// Counts the frame as waiting for a permit until the returned guard is dropped.
    pub(crate) fn queued(self: &Arc<Self>) -> InPhase {
        InPhase::begin(self, |state| &mut state.queued)
    }

    /// Counts the guest as waiting for something outside of the dispatcher until the returned guard is
    /// dropped.
    pub(crate) fn outside(self: &Arc<Self>) -> InPhase {
        InPhase::begin(self, |state| &mut state.outside)
    }

    /// Records a host call that began at `start` and ends now.
    pub(crate) fn host_call(&self, start: u64, read: usize, written: usize) {
        let mut state = self.state.lock();
        let is_waiting = state.nested + state.queued + state.outside > 0;
        let Some(open) = &mut state.open else { return };
        if let Some(usage) = open.usage() {
            usage.read_bytes += read as u64;
            usage.written_bytes += written as u64;
        }
        if !is_waiting {
            open.host_call(start);
        }
    }

    /// Records that the run begins again.
    pub(crate) fn rewound(&self) {
        if let Some(usage) = self.state.lock().open.as_mut().and_then(OpenSpan::usage) {
            usage.rewinds += 1;
        }
    }

    /// Records that the outcome is stored, and whether it is memoized.
    pub(crate) fn settling(&self, memoized: bool) {
        let mut state = self.state.lock();
        if let Some(open) = state.open.as_mut().filter(|_| memoized) {
            open.memoized();
        }
        state.change(|state| state.base = Phase::Settle);
    }

    /// Records what the runtime reports.
    pub(crate) fn report(&self, report: Report) {
        let mut state = self.state.lock();
        let base = state.base;
        let Some(usage) = state.open.as_mut().and_then(OpenSpan::usage) else { return };
        match report {
            Report::Phase(phase) => {
                let phase = match phase {
                    JobPhase::Prepare => Phase::Prepare,
                    JobPhase::Queue => Phase::Queue,
                    JobPhase::Start => Phase::Start,
                    _ => Phase::Compute,
                };
                // After its end, what the guest left behind cannot change the phase.
                if !matches!(base, Phase::Store | Phase::Settle) {
                    state.change(|state| state.base = phase);
                }
            }
            Report::PeakMemory(bytes) => {
                usage.memory_bytes = Some(usage.memory_bytes.unwrap_or_default().max(bytes));
            }
            Report::Fuel(fuel) => {
                usage.fuel = Some(usage.fuel.unwrap_or_default().saturating_add(fuel));
            }
            _ => {}
        }
    }

    /// Ends the span. Returns `None` if it has ended before.
    pub(crate) fn end(&self, result: Result<ObjectRef>, from_memo: bool) -> Option<Arc<Span>> {
        let (open, last) = {
            let mut state = self.state.lock();
            (state.open.take(), state.last.take())
        };
        let mut open = open?;
        if from_memo {
            open.turned_out(SpanKind::Hit);
        }
        open.end(result, last)
    }
}

/// The span of a root call. If it is dropped before its end, the call was cancelled.
pub(crate) struct CallSpan(Arc<FrameSpan>);

impl CallSpan {
    pub(crate) fn new(open: OpenSpan) -> Self {
        Self(FrameSpan::new(open))
    }

    /// Opens a span of the request of the call.
    pub(crate) fn request(&self, spans: &Spans, keyed: &Keyed) -> OpenSpan {
        let now = spans.own().now();
        OpenSpan::of_request(spans, &self.0, keyed, 0, Wanted { began: now, keyed: now })
    }

    /// Counts the call as waiting for a run until the returned guard is dropped.
    pub(crate) fn nested(&self) -> InPhase {
        self.0.nested()
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.0.enter(phase);
    }

    pub(crate) fn end(self, result: Result<ObjectRef>) {
        self.0.end(result, false);
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        self.0.end(Err(Error::new(Reason::Cancelled)), false);
    }
}

/// The span of a run, which its [`Lead`](crate::claim::Lead) ends.
pub(crate) type LeadSpan = Option<Arc<FrameSpan>>;

/// A frame that waits, until this is dropped.
pub(crate) struct InPhase {
    frame: Arc<FrameSpan>,
    count: fn(&mut State) -> &mut usize,
}

impl InPhase {
    fn begin(frame: &Arc<FrameSpan>, count: fn(&mut State) -> &mut usize) -> Self {
        frame.state.lock().change(|state| *count(state) += 1);
        Self { frame: Arc::clone(frame), count }
    }
}

impl Drop for InPhase {
    fn drop(&mut self) {
        let count = self.count;
        self.frame.state.lock().change(|state| *count(state) -= 1);
    }
}
