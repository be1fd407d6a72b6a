//! [`CriticalPath`]: the spans that the time of a span consists of.

use std::sync::Arc;
use std::time::Duration;

use super::Span;

/// A span on a critical path, and how much of the time it accounts for itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PathStep {
    /// The span.
    pub span: Arc<Span>,
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
#[derive(Debug)]
pub struct CriticalPath {
    steps: Vec<PathStep>,
}

impl CriticalPath {
    /// Returns the critical path of `span`.
    pub fn of(span: &Arc<Span>) -> Self {
        let mut steps: Vec<PathStep> = Vec::new();
        // Each entry is a span, its level, and the part of the time that is asked about.
        let mut todo = vec![(Arc::clone(span), 0, span.info.began, span.ended)];
        while let Some((span, level, from, to)) = todo.pop() {
            let (from, to) = (from.max(span.info.began), to.min(span.ended));
            let mut own = to.saturating_sub(from);
            let mut end = to;
            let mut child = span.last.as_ref();
            let mut children = Vec::new();
            while let Some(next) = child.filter(|_| end > from) {
                let begin = next.info.began.max(from);
                if next.ended > from && begin < end {
                    own = own.saturating_sub(next.ended.min(end) - begin);
                    children.push((Arc::clone(next), level + 1, begin, next.ended.min(end)));
                    end = begin;
                }
                child = next.after.as_ref();
            }
            todo.extend(children.into_iter().rev());
            steps.push(PathStep { span, level, own: Duration::from_nanos(own) });
        }
        Self { steps }
    }

    /// Returns the steps.
    pub fn steps(&self) -> &[PathStep] {
        &self.steps
    }
}
