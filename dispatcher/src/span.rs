//! [`Span`]: a call, a run, a hit or a join, with what it spent its time on.

mod frame;
mod open;
mod path;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use manifold_runtime_api::{Error, ObjectId, ObjectRef};
use smallvec::SmallVec;

use crate::core::Keyed;

pub(crate) use frame::{CallSpan, FrameSpan, InPhase, LeadSpan};
pub(crate) use open::{OpenSpan, Spans, Wanted};
pub use path::{CriticalPath, PathSpan, PathStep};

/// The number of a span. A dispatcher never uses one twice. The numbers say nothing about the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(u64);

impl SpanId {
    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SpanKind {
    /// A root call: a call of [`Dispatcher::run`](crate::Dispatcher::run), for example. The spans of
    /// its request are its children.
    Call,
    /// A run of a request by its runtime.
    Run,
    /// The outcome came from the memo.
    Hit,
    /// Another caller had started the run, and this one waited for it.
    Join,
    /// The request was wanted and nothing of this came about: the caller stopped waiting before the
    /// run began, for example, or the run would have waited for itself.
    Unstarted,
    /// The run was taken over before it began, and its outcome came from elsewhere, such as from
    /// another machine.
    Elsewhere,
}

impl SpanKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Call, Self::Run, Self::Hit, Self::Join, Self::Unstarted, Self::Elsewhere];

    /// Returns the kind's name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Run => "run",
            Self::Hit => "hit",
            Self::Join => "join",
            Self::Unstarted => "unstarted",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// What a span spends time on. A span is in one phase at each moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The image is resolved, and the id of the request is computed.
    Resolve,
    /// The memo is searched.
    LookUp,
    /// The run waits for a run permit, or for something that its runtime shares between jobs, such
    /// as a container.
    Queue,
    /// The module is read, validated, compiled or transpiled, or a container image is loaded.
    Prepare,
    /// The guest is being started: an instance, a context or a process.
    Start,
    /// The guest computes.
    Compute,
    /// A guest that computes only while it is polled waits for something outside of the dispatcher,
    /// such as a timer. It has no permit meanwhile. Such waits of other guests count as computing.
    Outside,
    /// The host reads or stores an object for the guest.
    Host,
    /// At least one nested run is in progress. A guest that computes meanwhile also counts here.
    Nested,
    /// The caller waits for a run that another caller started.
    Wait,
    /// The outcome is checked and memoized. In a root call, it is copied from the sources and
    /// pinned.
    Store,
    /// The end of the run is reported.
    Settle,
}

impl Phase {
    /// All phases, in the order in which they usually begin.
    pub const ALL: [Self; 12] = [
        Self::Resolve,
        Self::LookUp,
        Self::Queue,
        Self::Prepare,
        Self::Start,
        Self::Compute,
        Self::Outside,
        Self::Host,
        Self::Nested,
        Self::Wait,
        Self::Store,
        Self::Settle,
    ];

    /// Returns the phase's name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::LookUp => "look-up",
            Self::Queue => "queue",
            Self::Prepare => "prepare",
            Self::Start => "start",
            Self::Compute => "compute",
            Self::Outside => "outside",
            Self::Host => "host",
            Self::Nested => "nested",
            Self::Wait => "wait",
            Self::Store => "store",
            Self::Settle => "settle",
        }
    }
}

/// The time that a span has spent in each phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases([u64; Phase::ALL.len()]);

impl Phases {
    /// Returns the time spent in `phase`.
    pub const fn get(&self, phase: Phase) -> Duration {
        Duration::from_nanos(self.0[phase as usize])
    }

    /// Returns the times of all phases in nanoseconds, in the order of [`Phase::ALL`].
    pub const fn nanos(&self) -> &[u64; Phase::ALL.len()] {
        &self.0
    }

    fn add(&mut self, phase: Phase, nanos: u64) {
        self.0[phase as usize] += nanos;
    }
}

/// What a span is about. It is known from the beginning.
#[derive(Clone)]
pub struct SpanInfo {
    id: SpanId,
    parent: Option<SpanId>,
    root: u64,
    depth: u32,
    keyed: Keyed,
    began: u64,
}

impl SpanInfo {
    /// Returns the number of the span.
    pub const fn id(&self) -> SpanId {
        self.id
    }

    /// Returns the span of the run whose guest wanted this one, or of the root call. `None` for a
    /// root call.
    pub const fn parent(&self) -> Option<SpanId> {
        self.parent
    }

    /// Returns the number of the root call.
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// Returns the nesting depth: 0 for a root call and its own request.
    pub const fn depth(&self) -> u32 {
        self.depth
    }

    /// Returns the id of the request.
    pub const fn request(&self) -> ObjectId {
        self.keyed.request
    }

    /// Returns the id of the tree of arguments, including those that are bound to the image.
    pub const fn args(&self) -> ObjectId {
        self.keyed.args
    }

    /// Returns the image reference in the request.
    pub fn image(&self) -> &str {
        &self.keyed.image.text
    }

    /// Returns the name of the runtime that runs the image.
    pub fn runtime(&self) -> &str {
        self.keyed.image.runtime.host_image().name()
    }

    /// Returns when the request was wanted, as the time since the dispatcher was built.
    pub const fn began(&self) -> Duration {
        Duration::from_nanos(self.began)
    }
}

impl fmt::Debug for SpanInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanInfo")
            .field("id", &self.id)
            .field("parent", &self.parent)
            .field("root", &self.root)
            .field("depth", &self.depth)
            .field("request", &self.request())
            .field("image", &self.image())
            .field("runtime", &self.runtime())
            .field("began", &self.began())
            .finish()
    }
}

/// What a span has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// The number of bytes that the guest read. A tree counts with its encoded size.
    pub read_bytes: u64,
    /// The number of bytes that the guest stored.
    pub written_bytes: u64,
    /// The number of children that were runs.
    pub runs: u64,
    /// The number of children that were hits.
    pub hits: u64,
    /// The number of children that were joins.
    pub joins: u64,
    /// The number of times that the run began again because an object was lost.
    pub rewinds: u64,
    /// The guest's peak memory in bytes, if its runtime knows it.
    pub memory_bytes: Option<u64>,
    /// The fuel that the guest burnt, if its runtime knows it.
    pub fuel: Option<u64>,
}

/// A span that has ended: a root call, a run, a hit or a join, with what it spent its time on.
///
/// # Behavior
/// - The phases add up to the time from [`SpanInfo::began`] to [`Span::ended`].
/// - A child lies within the time that its parent spends in [`Phase::Nested`], unless its caller
///   stopped waiting for it. A run without a waiter is cancelled. It goes on if another
///   caller has joined it, and can then outlive its parent.
pub struct Span {
    data: Box<Data>,
    last: Option<Arc<Self>>,
    after: Option<Arc<Self>>,
    /// The number of spans that this one keeps through `last` and `after`.
    kept: u32,
}

/// What a span has gathered.
struct Data {
    info: SpanInfo,
    kind: SpanKind,
    ended: u64,
    phases: Phases,
    usage: Usage,
    result: Result<ObjectRef, Error>,
    memoized: bool,
    /// Whether the observers were told of the start.
    told: bool,
}

/// The maximum number of spans that a span keeps through its links.
const MAX_KEPT: u32 = 100_000;

impl Span {
    /// Returns what the span is about.
    pub const fn info(&self) -> &SpanInfo {
        &self.data.info
    }

    /// Returns what the span is.
    pub const fn kind(&self) -> SpanKind {
        self.data.kind
    }

    /// Returns whether observers were told of the span's start. Hits and requests that were refused
    /// at once have none.
    pub const fn had_start(&self) -> bool {
        self.data.told
    }

    /// Returns when the span ended, as the time since the dispatcher was built.
    pub const fn ended(&self) -> Duration {
        Duration::from_nanos(self.data.ended)
    }

    /// Returns how long the span took.
    pub const fn duration(&self) -> Duration {
        Duration::from_nanos(self.data.ended.saturating_sub(self.data.info.began))
    }

    /// Returns the time that the span spent in each phase.
    pub const fn phases(&self) -> &Phases {
        &self.data.phases
    }

    /// Returns what the span has used.
    pub const fn usage(&self) -> &Usage {
        &self.data.usage
    }

    /// Returns the outcome.
    ///
    /// # Errors
    /// Returns the error with which the span ended.
    pub const fn result(&self) -> Result<&ObjectRef, &Error> {
        self.data.result.as_ref()
    }

    /// Returns whether the outcome was memoized. `false` for everything but a run.
    pub const fn is_memoized(&self) -> bool {
        self.data.memoized
    }

    /// Returns the span that this one waited for last: of the children, the one that ended last; for
    /// a join, the run that it waited for.
    ///
    /// `None` if there is none, or if it was given up to bound memory: a span keeps at most 100,000
    /// others.
    pub const fn last(&self) -> Option<&Arc<Self>> {
        self.last.as_ref()
    }

    /// Returns the sibling that ended last before this span began.
    ///
    /// `None` if there is none, or if it was given up to bound memory.
    pub const fn after(&self) -> Option<&Arc<Self>> {
        self.after.as_ref()
    }

    /// Creates a span. Bounds what it keeps.
    fn new(data: Box<Data>, mut last: Option<Arc<Self>>, mut after: Option<Arc<Self>>) -> Self {
        let kept = |link: &Option<Arc<Self>>| link.as_ref().map_or(0, |span| span.kept + 1);
        if kept(&last) + kept(&after) > MAX_KEPT {
            drop(if kept(&after) >= kept(&last) { after.take() } else { last.take() });
        }
        let kept = kept(&last) + kept(&after);
        Self { data, last, after, kept }
    }
}

impl Drop for Span {
    /// Drops what the span keeps without recursion, because chains can be long.
    fn drop(&mut self) {
        let mut links: SmallVec<[Arc<Self>; 4]> =
            self.last.take().into_iter().chain(self.after.take()).collect();
        while let Some(link) = links.pop() {
            if let Some(mut span) = Arc::into_inner(link) {
                links.extend(span.last.take().into_iter().chain(span.after.take()));
            }
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span")
            .field("info", self.info())
            .field("kind", &self.kind())
            .field("duration", &self.duration())
            .field("phases", self.phases())
            .field("usage", self.usage())
            .field("result", &self.result())
            .field("memoized", &self.is_memoized())
            .finish_non_exhaustive()
    }
}
