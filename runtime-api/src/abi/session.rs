//! The session of one job: it performs a guest's operations and determines the job's result.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::operation::{Answer, DecodeError, Operation};
use super::{binary, json};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::object::ObjectRef;
use crate::reason::{Limit, Reason};
use crate::report::Report;
use crate::runtime::Job;
use crate::tree::{Tree, TreeEntry};

/// The state of one job's communication with its guest, shared by all backends.
///
/// # Behavior
/// - A backend whose guests send several requests at once may serve them concurrently.
/// - `out` and `out_blob` name the outcome.
/// - `fail`, a second outcome, a malformed request, and a request or response over its size limit end
///   the job. Then [`Session::has_ended`] returns true, and the backend stops the guest.
/// - If any other operation fails, the guest receives the error and continues. If the job fails
///   later, the last such error becomes its cause, so that a guest's panic does not hide the
///   reason.
/// - If the guest traps, exits or names no outcome, the error chain also quotes the end of the
///   guest's log, up to 1 KiB.
pub struct Session {
    job: Job,
    host: Arc<dyn Host>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outcome: Option<ObjectRef>,
    failure: Option<Error>,
    last_error: Option<Error>,
    log_bytes_left: u64,
    /// The end of the guest's log.
    log_tail: String,
    /// Whether the log has reached its limit, and the notice about it has been written.
    log_closed: bool,
}

/// The maximum length of the part of a guest's log that an error quotes, in bytes.
const LOG_TAIL_BYTES: usize = 1024;

impl State {
    fn keep_log_tail(&mut self, message: &str) {
        if !self.log_tail.is_empty() {
            self.log_tail.push('\n');
        }
        self.log_tail.push_str(message);
        let excess = self.log_tail.len().saturating_sub(LOG_TAIL_BYTES);
        self.log_tail.drain(..self.log_tail.ceil_char_boundary(excess));
    }
}

/// The encoding of a guest's requests and responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON objects without line breaks: `caos_abi_v1`.
    Json,
    /// A binary encoding that needs no parser: `caos_abi_v2`.
    Binary,
}

impl Encoding {
    fn decode(self, request: &[u8]) -> Result<Operation, DecodeError> {
        match self {
            Self::Json => json::decode(request),
            Self::Binary => binary::decode(request),
        }
    }

    fn encode(self, job: &Job, result: Result<&Answer, &Error>) -> Vec<u8> {
        match self {
            Self::Json => json::encode(job, result),
            Self::Binary => binary::encode(job, result),
        }
    }
}

/// What a backend does after one request of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Send this response to the guest, in the encoding of the request.
    Continue(Vec<u8>),
    /// The job has failed. Stop the guest, and call [`Session::finish`]. A guest that cannot be
    /// stopped at once, such as one in another process, may be sent this response first.
    Ended(Vec<u8>),
}

impl Reply {
    /// Returns the encoded response, whether the job goes on or not.
    pub fn into_body(self) -> Vec<u8> {
        let (Self::Continue(body) | Self::Ended(body)) = self;
        body
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("job", &self.job).finish_non_exhaustive()
    }
}

impl Session {
    /// Creates the session of `job`, whose operations are performed on `host`.
    pub fn new(job: Job, host: Arc<dyn Host>) -> Self {
        let state = State { log_bytes_left: job.limits.log_bytes, ..State::default() };
        Self { job, host, state: Mutex::new(state) }
    }

    /// Returns the session's job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Tells the host what the job does and uses, for traces.
    pub fn report(&self, report: Report) {
        self.host.report(report);
    }

    /// Decodes one request, performs its operation and encodes the response.
    ///
    /// Every error of an operation is part of the response. A request that is passed by value is freed
    /// before its operation is performed, which may take long.
    pub async fn call(&self, encoding: Encoding, request: impl AsRef<[u8]>) -> Reply {
        let decoded = self.decode(encoding, request.as_ref());
        drop(request);
        let result = match decoded {
            Ok(operation) => self.operate(operation).await,
            Err(error) => Err(error),
        };
        let body = encoding.encode(&self.job, result.as_ref());
        let limit = self.job.limits.response_bytes;
        if body.len() as u64 > limit {
            let error = self.end(Limit::Response { bytes: limit }.into());
            return Reply::Ended(encoding.encode(&self.job, Err(&error)));
        }
        if self.has_ended() { Reply::Ended(body) } else { Reply::Continue(body) }
    }

    fn decode(&self, encoding: Encoding, request: &[u8]) -> Result<Operation> {
        let limit = self.job.limits.guest_request_bytes;
        if request.len() as u64 > limit {
            return Err(self.end(Limit::GuestRequest { bytes: limit }.into()));
        }
        encoding.decode(request).map_err(|error| match error {
            DecodeError::Malformed(problem) => {
                self.end(Error::abi_violation(format!("malformed request: {problem}")))
            }
            DecodeError::Field(problem) => self.note(Error::abi_violation(problem)),
        })
    }

    /// Performs one operation, and records its error as the guest's last one.
    ///
    /// # Errors
    /// Returns the error that the guest is to receive.
    pub async fn operate(&self, operation: Operation) -> Result<Answer> {
        let answer = self.perform(operation).await;
        self.told(&answer);
        answer
    }

    /// Records the result of an operation as delivered to the guest. If the job fails later, the
    /// last error that was delivered becomes its cause.
    ///
    /// A backend calls this after [`Session::perform`] if it performs several operations
    /// concurrently and delivers their results in another order than that in which they complete.
    pub fn told(&self, answer: &Result<Answer>) {
        let error = match answer {
            Ok(Answer::Outcomes(results)) => {
                results.iter().find_map(|result| result.as_ref().err())
            }
            answer => answer.as_ref().err(),
        };
        if let Some(error) = error {
            self.note(error.clone());
        }
    }

    /// Performs one operation without recording its error. The backend calls [`Session::told`] when
    /// it delivers the result.
    ///
    /// # Errors
    /// Returns the error that the guest is to receive.
    pub async fn perform(&self, operation: Operation) -> Result<Answer> {
        if let Some(failure) = &self.state.lock().failure {
            return Err(failure.clone());
        }
        match operation {
            Operation::Job => Ok(Answer::Job),
            Operation::JobWithArgs => self.host.tree(self.job.args).await.map(Answer::JobWithArgs),
            Operation::Tree(id) => self.host.tree(id).await.map(Answer::Tree),
            Operation::Get(id) => self.content(self.host.get(id)).await,
            Operation::GetRange { id, offset, length } => {
                let range = offset..offset.saturating_add(length);
                self.content(self.host.get_range(id, range)).await
            }
            Operation::Size(id) => self.host.size(id).await.map(Answer::Size),
            Operation::PutBlob(content) => self.host.put_blob(content).await.map(Answer::Stored),
            Operation::PutTree(entries) => self.put_tree(entries).await,
            Operation::Run(call) => self.host.run(call).await.map(Answer::Outcome),
            Operation::RunMany(calls) => Ok(Answer::Outcomes(self.host.run_many(calls).await)),
            Operation::Out(outcome) => self.out(outcome),
            Operation::OutBlob(content) => {
                let id = self.host.put_blob(content).await?;
                self.out(ObjectRef::blob(id))
            }
            Operation::Log(message) => {
                self.log(&message);
                Ok(Answer::Done)
            }
            Operation::Fail(message) => {
                self.end(Error::guest_failed(message));
                Ok(Answer::Done)
            }
        }
    }

    /// Writes a message to the job's log, from `log` or from the guest's standard error.
    pub fn log(&self, message: &str) {
        let (kept, fits) = {
            let mut state = self.state.lock();
            if state.log_closed {
                return;
            }
            let left = state.log_bytes_left;
            let kept = message.floor_char_boundary(left.try_into().unwrap_or(usize::MAX));
            let fits = kept == message.len() && left > 0;
            state.keep_log_tail(&message[..kept]);
            // An empty message counts as one byte, so that the number of messages is bounded, too.
            state.log_bytes_left = left.saturating_sub((kept as u64).max(1));
            state.log_closed = !fits;
            (kept, fits)
        };
        if fits || kept > 0 {
            self.host.log(&message[..kept]);
        }
        if !fits {
            self.host.log("(the log of this job has reached its limit; the rest is dropped)");
        }
    }

    /// Returns whether the guest has named an outcome. A backend may treat this as the end of the
    /// job.
    pub fn has_outcome(&self) -> bool {
        self.state.lock().outcome.is_some()
    }

    /// Returns whether the job has failed in the session, so that the guest must be stopped.
    pub fn has_ended(&self) -> bool {
        self.state.lock().failure.is_some()
    }

    /// Ends the session and returns the job's result. `stopped` is `Ok` if the guest returned, or
    /// the error that stopped it.
    ///
    /// # Errors
    /// - The error that ended the job, if [`Session::has_ended`] returns true.
    /// - Otherwise the error in `stopped`.
    /// - Otherwise [`Reason::NoOutcome`] if the guest has not named an outcome.
    pub fn finish(&self, stopped: Result<()>) -> Result<ObjectRef> {
        let state = std::mem::take(&mut *self.state.lock());
        let result = match (state.failure, stopped) {
            (Some(failure), _) => Err(failure),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => state.outcome.ok_or_else(|| Error::new(Reason::NoOutcome)),
        };
        result.map_err(|error| {
            // A guest that stops without an error message has often logged the reason.
            let unexplained = matches!(
                error.reason(),
                Reason::Trapped { .. } | Reason::Exited { .. } | Reason::NoOutcome
            );
            let quoted = (unexplained && !state.log_tail.is_empty()).then(|| {
                Error::guest_failed(format!("the guest's log ends with: {}", state.log_tail))
            });
            match (quoted, state.last_error) {
                (Some(quoted), Some(cause)) => error.caused_by(quoted.caused_by(cause)),
                (None, Some(cause)) | (Some(cause), None) => error.caused_by(cause),
                (None, None) => error,
            }
        })
    }

    async fn content(&self, content: impl Future<Output = Result<Bytes>>) -> Result<Answer> {
        let content = content.await?;
        let limit = self.job.limits.response_bytes;
        if content.len() as u64 > limit {
            return Err(self.end(Limit::Response { bytes: limit }.into()));
        }
        Ok(Answer::Blob(content))
    }

    async fn put_tree(&self, entries: Vec<TreeEntry>) -> Result<Answer> {
        let tree = Tree::new(entries)?;
        self.host.put_tree(tree).await.map(Answer::Stored)
    }

    fn out(&self, outcome: ObjectRef) -> Result<Answer> {
        let before = self.state.lock().outcome.replace(outcome);
        match before {
            None => Ok(Answer::Done),
            Some(_) => Err(self.end(Error::new(Reason::OutcomeTwice))),
        }
    }

    fn note(&self, error: Error) -> Error {
        let mut state = self.state.lock();
        if state.failure.is_none() {
            state.last_error = Some(error.clone());
        }
        error
    }

    fn end(&self, error: Error) -> Error {
        self.state.lock().failure.get_or_insert(error).clone()
    }
}
