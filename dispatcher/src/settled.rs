//! How a run ended.

use std::sync::Arc;

use manifold_runtime_api::{Error, Limit, Outcome, Result};

use crate::permits::RootId;
use crate::scope::{Allowance, Scope};

/// How a run ended, for everybody who waited.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    pub(crate) result: Result<Outcome>,
    /// Whether the request alone decided the result. If not, neither it nor what is made of it is memoized.
    pub(crate) pure: bool,
    /// Whether something was run for it, as the memo did not have it.
    pub(crate) ran: bool,
    /// The call that led to the run, if there was one.
    pub(crate) root: Option<RootId>,
    /// What the run was allowed, if it met a limit. Others may be allowed more.
    pub(crate) limited: Option<Arc<Limited>>,
}

/// What a run was allowed that met a limit.
#[derive(Debug)]
pub(crate) struct Limited {
    pub(crate) limit: Limit,
    pub(crate) root: RootId,
    pub(crate) allowance: Allowance,
    pub(crate) depth: u32,
}

impl Limited {
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
    /// A run that came to no result of its own.
    pub(crate) fn lost(error: Error) -> Self {
        Self { result: Err(error), pure: false, ran: true, root: None, limited: None }
    }

    /// Whether a run for the call of `scope`, nested `depth` levels below it, may end otherwise: this one met a limit that is
    /// another call's or of another depth, or is not as new as the call wants it.
    pub(crate) fn may_differ_for(&self, scope: &Scope, depth: u32) -> bool {
        let is_too_old =
            scope.recomputes_all() && self.root != Some(scope.root) && self.result.is_ok();
        is_too_old
            || self.limited.as_deref().is_some_and(|limited| limited.may_not_bind(scope, depth))
    }

    /// What the memo has.
    pub(crate) fn remembered(outcome: Outcome) -> Self {
        Self { result: Ok(outcome), pure: true, ran: false, root: None, limited: None }
    }
}
