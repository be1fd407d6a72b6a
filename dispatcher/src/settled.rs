//! [`Settled`]: the end of a run.

use std::sync::Arc;

use manifold_runtime_api::{Error, Limit, ObjectRef, Result};

use crate::permits::RootId;
use crate::scope::{Allowance, Scope};
use crate::span::Span;

/// The end of a run, as every waiter receives it.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    pub(crate) result: Result<ObjectRef>,
    /// Whether the request alone decided the result. If not, neither the result nor any outcome
    /// that depends on it is memoized.
    pub(crate) pure: bool,
    /// Whether the request was run, as opposed to found in the memo.
    pub(crate) ran: bool,
    /// The root call that started the run. `None` if nothing was run or the run ended without a
    /// result of its own.
    pub(crate) root: Option<RootId>,
    /// The limits that the run breached, and its bounds. Other calls may have higher ones.
    pub(crate) limited: Option<Arc<Limited>>,
    /// The span of the run, if spans are observed.
    pub(crate) span: Option<Arc<Span>>,
}

/// Which kinds of limits a run has breached. Each binds other calls in another way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Breached {
    /// The depth of nested runs.
    depth: bool,
    /// Another budget of the whole call.
    of_call: bool,
    /// A limit of one frame.
    of_frame: bool,
}

impl Breached {
    /// Adds a limit.
    pub(crate) fn and(mut self, limit: Option<Limit>) -> Self {
        match limit {
            None => {}
            Some(Limit::Depth { .. }) => self.depth = true,
            Some(limit) if limit.is_of_call() => self.of_call = true,
            Some(_) => self.of_frame = true,
        }
        self
    }

    /// Adds what another run has breached.
    pub(crate) fn and_all(self, other: Self) -> Self {
        Self {
            depth: self.depth || other.depth,
            of_call: self.of_call || other.of_call,
            of_frame: self.of_frame || other.of_frame,
        }
    }

    /// A bound of the call that no run of it can keep.
    pub(crate) fn bound_of_the_call() -> Self {
        Self { of_call: true, ..Self::default() }
    }
}

/// Breached limits, and the bounds that applied to the run.
#[derive(Debug)]
pub(crate) struct Limited {
    pub(crate) breached: Breached,
    pub(crate) root: RootId,
    pub(crate) allowance: Allowance,
    pub(crate) depth: u32,
}

impl Limited {
    /// Returns what a run of `scope` at `depth` has breached, if it has.
    pub(crate) fn of(breached: Breached, scope: &Scope, depth: u32) -> Option<Arc<Self>> {
        let (root, allowance) = (scope.root, scope.allowance);
        (breached != Breached::default())
            .then(|| Arc::new(Self { breached, root, allowance, depth }))
    }

    /// Returns whether one of the limits may not apply to a run of `scope` at `depth`.
    fn may_not_bind(&self, scope: &Scope, depth: u32) -> bool {
        let (mine, theirs) = (&scope.allowance, &self.allowance);
        let Breached { depth: too_deep, of_call, of_frame } = self.breached;
        let is_another = self.root != scope.root;
        too_deep && (depth < self.depth || theirs.budget.depth < mine.budget.depth)
            || of_call && is_another && (mine != theirs || self.depth != 0 || depth != 0)
            || of_frame && is_another && mine.limits != theirs.limits
    }
}

impl Settled {
    /// A run that ended without a result of its own.
    pub(crate) fn failed(error: Error) -> Self {
        Self { result: Err(error), pure: false, ran: true, root: None, limited: None, span: None }
    }

    /// Like [`Settled::failed`], for a run of `scope` at `depth` that may have breached a limit.
    pub(crate) fn failed_for(error: Error, scope: &Scope, depth: u32) -> Self {
        let breached = Breached::default().and(error.breached_limit());
        Self { limited: Limited::of(breached, scope, depth), ..Self::failed(error) }
    }

    /// Returns whether a run for `scope`, nested `depth` levels below the root call, may end
    /// differently. It may if this run breached a limit of another call or of another depth, or if
    /// its outcome is older than `scope` accepts.
    pub(crate) fn may_differ_for(&self, scope: &Scope, depth: u32) -> bool {
        let is_too_old =
            scope.recomputes_all() && self.root != Some(scope.root) && self.result.is_ok();
        is_too_old
            || self.limited.as_deref().is_some_and(|limited| limited.may_not_bind(scope, depth))
    }

    /// An outcome from the memo.
    pub(crate) fn from_memo(outcome: ObjectRef) -> Self {
        Self { result: Ok(outcome), pure: true, ran: false, root: None, limited: None, span: None }
    }
}
