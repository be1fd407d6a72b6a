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
    /// The limit that the run breached, and its bounds. Other calls may have higher ones.
    pub(crate) limited: Option<Arc<Limited>>,
    /// The span of the run, if spans are observed.
    pub(crate) span: Option<Arc<Span>>,
}

/// A breached limit, and the bounds that applied to the run.
#[derive(Debug)]
pub(crate) struct Limited {
    pub(crate) limit: Limit,
    pub(crate) root: RootId,
    pub(crate) allowance: Allowance,
    pub(crate) depth: u32,
}

impl Limited {
    /// Returns whether the limit may not apply to a run of `scope` at `depth`.
    fn may_not_bind(&self, scope: &Scope, depth: u32) -> bool {
        let (mine, theirs) = (&scope.allowance, &self.allowance);
        match self.limit {
            Limit::Depth { .. } => depth < self.depth || theirs.budget.depth < mine.budget.depth,
            _ if self.root == scope.root => false,
            limit if limit.is_of_call() => mine != theirs || self.depth != 0 || depth != 0,
            _ => mine.limits != theirs.limits,
        }
    }
}

impl Settled {
    /// A run that ended without a result of its own.
    pub(crate) fn failed(error: Error) -> Self {
        Self { result: Err(error), pure: false, ran: true, root: None, limited: None, span: None }
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
