//! The operations of a guest that have no result yet, and the order in which results are delivered.

use std::collections::{HashMap, VecDeque};

use deno_core::v8;
use manifold_runtime_api::abi::{Answer, Operation};
use manifold_runtime_api::{Error, Result};

use super::OperationId;

/// An operation without a delivered result.
struct Question {
    resolver: v8::Global<v8::PromiseResolver>,
    /// What the host holds for it.
    bytes: u64,
}

/// The pending operations of a guest, and the order in which their results are delivered.
///
/// The order depends only on what the guest did. Reads and writes of objects come first, in the
/// order of the calls. Nested runs come after all of these, in the order of the calls. So a guest
/// cannot observe which run was faster, although all of them run concurrently.
#[derive(Default)]
pub(crate) struct Conversation {
    next: OperationId,
    /// Operations that were started in this turn.
    pub(crate) asked: Vec<(OperationId, Operation)>,
    open: HashMap<OperationId, Question>,
    open_bytes: u64,
    answers: HashMap<OperationId, Result<Answer>>,
    objects: VecDeque<OperationId>,
    runs: VecDeque<OperationId>,
}

impl Conversation {
    /// Adds an operation for which the host holds `bytes` bytes.
    pub(crate) fn ask(
        &mut self,
        operation: Operation,
        bytes: u64,
        resolver: v8::Global<v8::PromiseResolver>,
    ) {
        let is_run = matches!(operation, Operation::Run(_) | Operation::RunMany(_));
        let id = self.enqueue(resolver, bytes, is_run);
        self.asked.push((id, operation));
    }

    /// Adds an operation with invalid arguments. Its error is delivered in the same order as other
    /// results.
    pub(crate) fn refuse(
        &mut self,
        error: Error,
        bytes: u64,
        resolver: v8::Global<v8::PromiseResolver>,
    ) {
        let id = self.enqueue(resolver, bytes, false);
        self.answers.insert(id, Err(error));
    }

    /// Adds a log line, which has no result.
    pub(crate) fn log(&mut self, message: String) {
        self.asked.push((self.next, Operation::Log(message)));
    }

    fn enqueue(
        &mut self,
        resolver: v8::Global<v8::PromiseResolver>,
        bytes: u64,
        is_run: bool,
    ) -> OperationId {
        let id = self.next;
        self.next += 1;
        self.open.insert(id, Question { resolver, bytes });
        self.open_bytes = self.open_bytes.saturating_add(bytes);
        if is_run { &mut self.runs } else { &mut self.objects }.push_back(id);
        id
    }

    /// Sets the result of an operation.
    pub(crate) fn answer(&mut self, id: OperationId, answer: Result<Answer>) {
        self.answers.insert(id, answer);
    }

    /// Takes the next result in the order of delivery, if it has arrived.
    pub(crate) fn next_answer(
        &mut self,
    ) -> Option<(v8::Global<v8::PromiseResolver>, Result<Answer>)> {
        let queue = if self.objects.is_empty() { &mut self.runs } else { &mut self.objects };
        let answer = self.answers.remove(queue.front()?)?;
        let id = queue.pop_front()?;
        let question = self.open.remove(&id)?;
        self.open_bytes -= question.bytes;
        Some((question.resolver, answer))
    }

    /// Returns whether no operation is pending.
    pub(crate) fn is_over(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns the bytes that the host holds for pending operations.
    pub(crate) fn open_bytes(&self) -> u64 {
        self.open_bytes
    }
}
