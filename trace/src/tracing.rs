//! [`TracingSpans`]: makes the spans of a dispatcher spans of `tracing`.

use std::collections::HashMap;
use std::sync::Arc;

use ::tracing::field::Empty;
use manifold_dispatcher::{Event, Observer, Phase, Span, SpanId, SpanInfo, SpanKind};
use parking_lot::Mutex;

/// The number of maps between which spans are divided.
const SHARDS: usize = 32;

/// An observer that makes the spans of a dispatcher spans of [`tracing`](::tracing), so that its
/// subscribers, such as OpenTelemetry's, see them.
///
/// The target is `manifold_trace::spans`. Root calls are spans of the level `INFO` called `call`, runs
/// and joins of the level `DEBUG` called `run` and `join`, and hits of the level `TRACE` called `hit`.
/// A root call is a child of the span that is current where it begins. A hit has no length, because it
/// is reported when it has ended.
///
/// The fields are `request`, `image`, `runtime` and `depth`, and, recorded at the end, `outcome` or
/// `error`, `memoized`, `read_bytes`, `written_bytes`, and the nanoseconds of each phase that took
/// time, such as `compute_ns`.
#[derive(Debug, Default)]
pub struct TracingSpans {
    open: [Mutex<HashMap<SpanId, ::tracing::Span>>; SHARDS],
}

/// Creates a span. Its name and level have to be constants.
macro_rules! span {
    ($level:ident, $name:literal, $info:ident) => {
        ::tracing::span!(
            target: "manifold_trace::spans",
            ::tracing::Level::$level,
            $name,
            request = %$info.request(),
            image = $info.image(),
            runtime = $info.runtime(),
            depth = $info.depth(),
            outcome = Empty,
            error = Empty,
            memoized = Empty,
            read_bytes = Empty,
            written_bytes = Empty,
            resolve_ns = Empty,
            look_up_ns = Empty,
            queue_ns = Empty,
            prepare_ns = Empty,
            start_ns = Empty,
            compute_ns = Empty,
            outside_ns = Empty,
            host_ns = Empty,
            nested_ns = Empty,
            wait_ns = Empty,
            store_ns = Empty,
            settle_ns = Empty,
        )
    };
}

fn field(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolve => "resolve_ns",
        Phase::LookUp => "look_up_ns",
        Phase::Queue => "queue_ns",
        Phase::Prepare => "prepare_ns",
        Phase::Start => "start_ns",
        Phase::Outside => "outside_ns",
        Phase::Host => "host_ns",
        Phase::Nested => "nested_ns",
        Phase::Wait => "wait_ns",
        Phase::Store => "store_ns",
        Phase::Settle => "settle_ns",
        _ => "compute_ns",
    }
}

impl TracingSpans {
    /// Creates the observer.
    pub fn new() -> Self {
        Self::default()
    }

    fn shard(&self, id: SpanId) -> &Mutex<HashMap<SpanId, ::tracing::Span>> {
        let hasher = foldhash::fast::FixedState::default();
        let hash = std::hash::BuildHasher::hash_one(&hasher, id);
        &self.open[hash as usize % SHARDS]
    }

    /// Creates a span below the open span of its parent.
    fn create(&self, info: &SpanInfo, kind: SpanKind) -> ::tracing::Span {
        let parent = info.parent();
        let parent = parent.and_then(|parent| self.shard(parent).lock().get(&parent).cloned());
        let create = || match kind {
            SpanKind::Call => span!(INFO, "call", info),
            SpanKind::Join => span!(DEBUG, "join", info),
            SpanKind::Hit => span!(TRACE, "hit", info),
            _ => span!(DEBUG, "run", info),
        };
        // A span is a child of the one that is current.
        match parent {
            Some(parent) => parent.in_scope(create),
            None => create(),
        }
    }
}

impl Observer for TracingSpans {
    fn on_event(&self, _: &Event<'_>) {}

    fn observes_spans(&self) -> bool {
        true
    }

    fn on_span_start(&self, span: &SpanInfo, kind: SpanKind) {
        let created = self.create(span, kind);
        if !created.is_disabled() {
            self.shard(span.id()).lock().insert(span.id(), created);
        }
    }

    fn on_span_end(&self, span: &Arc<Span>) {
        let id = span.info().id();
        let open = self.shard(id).lock().remove(&id);
        let open = match open {
            Some(open) => open,
            None if span.had_start() => return,
            None => self.create(span.info(), span.kind()),
        };
        // Some subscribers take the time at which a span was last left for its end. Its children were
        // created in it.
        let _entered = open.enter();
        match span.result() {
            Ok(outcome) => open.record("outcome", ::tracing::field::display(outcome.id)),
            Err(error) => open.record("error", ::tracing::field::display(error.root_cause())),
        };
        open.record("memoized", span.is_memoized());
        open.record("read_bytes", span.usage().read_bytes);
        open.record("written_bytes", span.usage().written_bytes);
        for (phase, nanos) in Phase::ALL.iter().zip(span.phases().nanos()) {
            if *nanos > 0 {
                open.record(field(*phase), *nanos);
            }
        }
    }
}
