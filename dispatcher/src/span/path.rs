//! [`CriticalPath`]: the spans that the time of a span consists of.

use std::sync::Arc;
use std::time::Duration;

use super::Span;

/// A span with its links to the spans that it waited for.
pub trait PathSpan: Clone {
    /// Returns when the span began.
    fn began(&self) -> Duration;

    /// Returns when the span ended.
    fn ended(&self) -> Duration;

    /// Returns the span that this one waited for last, as [`Span::last`].
    fn last(&self) -> Option<Self>;

    /// Returns the sibling that ended last before this span began, as [`Span::after`].
    fn after(&self) -> Option<Self>;
}

impl PathSpan for Arc<Span> {
    fn began(&self) -> Duration {
        self.info().began()
    }

    fn ended(&self) -> Duration {
        (**self).ended()
    }

    fn last(&self) -> Option<Self> {
        (**self).last().cloned()
    }

    fn after(&self) -> Option<Self> {
        (**self).after().cloned()
    }
}

/// The maximum number of links that are followed.
const MAX_LINKS: u32 = 1_000_000;

/// A span on a critical path, and how much of the time it accounts for itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PathStep<S> {
    /// The span.
    pub span: S,
    /// How many steps the span lies below the span whose path this is.
    pub level: u32,
    /// The part of the time that no other step accounts for. The times of all steps add up to the
    /// duration of the span whose path this is.
    pub own: Duration,
}

/// The critical path of a span: the chain of spans that its time consists of. Had one of them been
/// faster, the whole would have been, too, as far as nothing else takes its place.
///
/// The path of a span goes, backwards from its end, through the children that it waited for: the one
/// that ended last, before that the one that ended last before that one began, and so on, with the
/// paths of all of these.
///
/// Steps are in depth-first order: a span, then the steps of its children from the last to the first.
/// After a million steps, which only links in a circle can have, the path ends.
#[derive(Debug)]
pub struct CriticalPath<S> {
    steps: Vec<PathStep<S>>,
}

impl<S: PathSpan> CriticalPath<S> {
    /// Returns the critical path of `span`.
    pub fn of(span: &S) -> Self {
        let (mut steps, mut links) = (Vec::new(), 0);
        // Each entry is a span, its level, and the part of the time that is asked about.
        let mut todo = vec![(span.clone(), 0, span.began(), span.ended())];
        while let Some((span, level, from, to)) = todo.pop() {
            let mut own = to.saturating_sub(from);
            let mut end = to;
            let mut children = Vec::new();
            let mut child = span.last();
            while let Some(next) = child.filter(|_| end > from && links < MAX_LINKS) {
                links += 1;
                let (begin, until) = (next.began().max(from), next.ended().min(end));
                child = next.after();
                if begin < until {
                    own = own.saturating_sub(until - begin);
                    children.push((next, level + 1, begin, until));
                    end = begin;
                }
            }
            todo.extend(children.into_iter().rev());
            steps.push(PathStep { span, level, own });
        }
        Self { steps }
    }

    /// Returns the steps.
    pub fn steps(&self) -> &[PathStep<S>] {
        &self.steps
    }
}
