//! [`Completion`]: the result of a root call.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{Error, ObjectId, ObjectRef, Result, TreeEntry};

use crate::core::Core;
use crate::scope::Scope;
use crate::spending::Spent;

/// The result of a root call: an outcome, and access to the object that it names.
#[derive(Clone)]
#[non_exhaustive]
pub struct Completion {
    /// The id of the request that the call resolved to. The request itself is in the store, unless
    /// a collection has removed it.
    pub request: ObjectId,
    /// The outcome of the request.
    pub outcome: ObjectRef,
    /// Whether the outcome came from the memo, so that nothing was run.
    pub from_memo: bool,
    /// What the runs of the call have spent. Nothing if the outcome came from the memo, or from a run
    /// of another call.
    pub spent: Spent,
    /// If the call collects them ([`Invocation::collecting`](crate::Invocation::collecting)): the
    /// requests that its runs have memoized, with their outcomes, at most 1,000,000. A request is in the
    /// list after those that its run waited for. Runs of other calls are not in it.
    pub entries: Vec<(ObjectId, ObjectRef)>,
    core: Arc<Core>,
}

impl Completion {
    pub(crate) fn new(
        core: &Arc<Core>,
        request: ObjectId,
        outcome: ObjectRef,
        from_memo: bool,
    ) -> Self {
        let (spent, entries) = Default::default();
        Self { request, outcome, from_memo, spent, entries, core: Arc::clone(core) }
    }

    /// Adds what the runs of the call have spent and memoized.
    pub(crate) fn of_call(self, scope: &Scope) -> Self {
        Self { spent: scope.spent(), entries: scope.take_collected(), ..self }
    }

    /// Reads the outcome, which must be a blob.
    ///
    /// # Errors
    /// - [`Reason::WrongKind`](crate::api::Reason::WrongKind) if the outcome is a tree.
    /// - [`Reason::MissingObject`](crate::api::Reason::MissingObject) if a collection has removed
    ///   it.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn bytes(&self) -> Result<Bytes> {
        self.core.objects.blob(self.outcome.id)
    }

    /// Reads the outcome, which must be a blob of UTF-8 text.
    ///
    /// # Errors
    /// As [`Completion::bytes`], and
    /// [`Reason::GuestFailed`](crate::api::Reason::GuestFailed) if the blob is not UTF-8.
    pub fn text(&self) -> Result<String> {
        let bytes = self.bytes()?;
        bytes.to_str().map(str::to_owned).map_err(|problem| {
            Error::guest_failed(format!("the outcome {} is not text: {problem}", self.outcome.id))
        })
    }

    /// Reads the outcome, which must be a tree, and returns its entries in git's order.
    ///
    /// # Errors
    /// As [`Completion::bytes`], but [`Reason::WrongKind`](crate::api::Reason::WrongKind) if the
    /// outcome is a blob.
    pub fn entries(&self) -> Result<Vec<TreeEntry>> {
        Ok(self.core.objects.tree(self.outcome.id)?.into_entries())
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("request", &self.request)
            .field("outcome", &self.outcome)
            .field("from_memo", &self.from_memo)
            .finish_non_exhaustive()
    }
}
